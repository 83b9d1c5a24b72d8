"""The audit finds every kind of wrong that it is there for."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Erase
from idpass_server.store import opening
from idpass_server.store.audit import CHECKS
from idpass_server.store.opening import audit_store, migrate_store, open_store
from idpass_server.store.sqlite.file import connect
from kit.postgres import Postgres
from kit.support import DAY_US, UNKNOWN_ID, Service, cli, problems

# What is done to a sound database, and what the audit must then say.
DAMAGE = [
    ("UPDATE accounts SET slots_in_use = slots_in_use + 1", "slots in use"),
    ("UPDATE accounts SET charged_micros = charged_micros + 1", "fees charged"),
    ("UPDATE accounts SET refunded_micros = refunded_micros - 1", "fees refunded"),
    ("DELETE FROM events WHERE sequence = 2", "event sequence has gaps"),
    ("UPDATE accounts SET last_sequence = last_sequence + 1", "event sequence has gaps"),
    ("INSERT INTO history_gaps VALUES ('demo', 2, 4)", "was skipped"),
    ("DELETE FROM history", "not exactly one history"),
    ("INSERT INTO purged_totals VALUES ('demo', 0, 0, 0, 0)", "no gap says so"),
    ("INSERT INTO purged_totals VALUES ('demo', 0, 0, 1, 0)", "fees charged"),
    ("INSERT INTO purged_totals VALUES ('demo', 0, 0, 0, 1)", "fees refunded"),
    ("INSERT INTO purged_totals VALUES ('demo', 0, 1, 0, 0)", "event sequence has gaps"),
    (
        "INSERT INTO passes SELECT 'ghost', id, status, currency, fee_micros, fee_refunded, "
        "applicant_reference, NULL, NULL, create_time_us, update_time_us, expire_time_us, "
        "consent_time_us, end_time_us, cancel_reason, cancel_note, caller, event_sequence "
        "FROM passes LIMIT 1",
        "belongs to no account",
    ),
    (
        f"UPDATE events SET id_pass_id = '{UNKNOWN_ID}' WHERE sequence = 1",
        "registration is about no pass",
    ),
    (
        "DROP INDEX events_refund; UPDATE events SET refund_micros = 1, to_status = 'cancelled' "
        "WHERE id_pass_id = (SELECT id FROM passes WHERE fee_refunded = 1 ORDER BY id LIMIT 1) "
        "AND previous_sequence IS NOT NULL",  # two of its three events
        "refunded more than once",
    ),
    ("UPDATE events SET refund_micros = 1 WHERE refund_micros IS NOT NULL", "refund is not what"),
    (
        "UPDATE events SET refund_micros = 4500000 WHERE from_status = 'in_progress' "
        "AND to_status = 'cancelled'",
        "refund is not what",
    ),
    (
        "UPDATE events SET refund_micros = NULL WHERE refund_micros IS NOT NULL",
        "refund is not what",
    ),
    (
        "UPDATE passes SET fee_refunded = 1 - fee_refunded WHERE status = 'cancelled'",
        "newest event left it",
    ),
    ("UPDATE events SET to_status = 'complete' WHERE from_status = 'new'", "not in the table"),
    ("UPDATE events SET charge_micros = NULL WHERE sequence = 1", "not in the table"),
    (
        "UPDATE events SET previous_sequence = 1 WHERE previous_sequence > 1",
        "does not follow the one before",
    ),
    ("UPDATE events SET erased = 1 WHERE from_status = 'new'", "not in the table"),
    ("UPDATE passes SET applicant_reference = 'zoe'", "still names its applicant"),
    ("UPDATE passes SET status = 'failed' WHERE status = 'complete'", "newest event left it"),
    ("UPDATE passes SET caller = 'x' WHERE status = 'complete'", "newest event left it"),
    (
        "UPDATE passes SET event_sequence = event_sequence - 1 WHERE status = 'complete'",
        "no pass's chain of events",
    ),
    ("UPDATE passes SET end_time_us = NULL WHERE status = 'complete'", "without an end_time"),
    ("DELETE FROM timers", "has no timer"),
    ("UPDATE passes SET superseded_by = NULL", "one-sided"),
    ("UPDATE passes SET supersedes = NULL", "one-sided"),
]


def fill(db: Path | str) -> None:
    """Makes every transition happen."""
    service = Service(db)
    for status in ("new", "opened", "in_progress", "complete", "expired", "failed"):
        service.pass_in(status)
    service.cancel(service.pass_in("in_progress"))
    service.register(supersedes=service.pass_in("opened"))
    service.register(link_validity_days=1)
    erased = service.register(applicant_reference="zoe-77").id_pass.id
    for status in ("opened", "in_progress"):
        service.advance(erased, status)
    service.cancel(erased, note="Zoe called")
    store = open_store(service.url, exclusive=False)
    store.commit([Erase("demo", new_uuid(), erased)], service.time.now_us)
    store.close()
    service.time.advance(us=2 * DAY_US)
    service.account()
    service.stop()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with every transition in it."""
    db = tmp_path_factory.mktemp("sound") / "idpass.db"
    fill(db)
    return db


@pytest.fixture(scope="module")
def sound_name(postgres: Postgres) -> Iterator[str]:
    """The name of one in PostgreSQL."""
    url = postgres.create_database("sound")
    migrate_store(url)
    fill(url)
    yield "sound"
    postgres.drop_database("sound")


def damaged(sound: Path, folder: Path, sql: str) -> Path:
    copy = folder / "copy.db"
    copy.write_bytes(sound.read_bytes())
    connection = connect(copy)
    connection.executescript(sql)
    connection.close()
    return copy


def test_a_sound_database_passes(sound: Path) -> None:
    assert problems(sound) == []
    done = cli("audit", "--db", f"sqlite:///{sound}")
    assert done.returncode == 0
    assert "all is well: 1 accounts, 11 passes" in done.stdout


@pytest.mark.parametrize(("sql", "said"), DAMAGE, ids=lambda value: value[:40])
def test_what_is_wrong_is_found(sound: Path, tmp_path: Path, sql: str, said: str) -> None:
    assert any(said in problem for problem in problems(damaged(sound, tmp_path, sql)))


@pytest.mark.parametrize(("sql", "said"), DAMAGE, ids=lambda value: value[:40])
def test_what_is_wrong_is_found_in_postgresql(
    sound_name: str, postgres: Postgres, sql: str, said: str
) -> None:
    url = postgres.create_database("damaged", sound_name)
    try:
        assert problems(url) == []
        postgres.execute(sql, database="damaged")
        assert any(said in problem for problem in problems(url))
    finally:
        postgres.drop_database("damaged")


def test_every_check_is_tested() -> None:
    wrong = [check.wrong for check in CHECKS if not check.warning]
    assert all(any(said in each for _, said in DAMAGE) for each in wrong)


def test_an_audit_that_fails_says_why_and_exits_non_zero(sound: Path, tmp_path: Path) -> None:
    db = damaged(sound, tmp_path, "UPDATE accounts SET slots_in_use = 9")
    done = cli("audit", "--db", f"sqlite:///{db}")
    assert done.returncode == 1
    assert "slots in use are not the passes in flight: demo, 9, 4" in done.stderr
    assert done.stdout == ""


# As a clock leaves them that was an hour ahead for a while.
CLOCK_WAS_WRONG = (
    "UPDATE events SET event_time_us = event_time_us + 3600000000 WHERE sequence = 1; "
    "UPDATE passes SET update_time_us = (SELECT event_time_us FROM events "
    "WHERE events.account = passes.account AND sequence = event_sequence)"
)
WARNED_OF = [
    (CLOCK_WAS_WRONG, "times go back although the sequence goes on"),
    (
        "UPDATE accounts SET registrations_of_day = registrations_of_day + 10",
        "more registrations are counted in the day than there were: demo",
    ),
]


@pytest.mark.parametrize(("sql", "said"), WARNED_OF)
def test_what_a_sound_service_may_come_to_is_a_warning(
    sound: Path, tmp_path: Path, sql: str, said: str
) -> None:
    db = damaged(sound, tmp_path, sql)
    done = cli("audit", "--db", f"sqlite:///{db}")
    assert done.returncode == 0
    assert "all is well" in done.stdout
    assert f"warning: {said}" in done.stderr


@pytest.mark.parametrize(("sql", "said"), WARNED_OF)
def test_what_a_sound_service_may_come_to_is_a_warning_in_postgresql(
    sound_name: str, postgres: Postgres, sql: str, said: str
) -> None:
    url = postgres.create_database("damaged", sound_name)
    try:
        postgres.execute(sql, database="damaged")
        found = audit_store(url)
        assert (found.problems, [said in each for each in found.warnings]) == ([], [True])
    finally:
        postgres.drop_database("damaged")


@pytest.mark.parametrize("damage", ["", "UPDATE accounts SET slots_in_use = 9"])
def test_an_audit_for_programs_is_one_object(sound: Path, tmp_path: Path, damage: str) -> None:
    db = damaged(sound, tmp_path, damage)
    done = cli("audit", "--json", "--quick", "--db", f"sqlite:///{db}")
    found = json.loads(done.stdout)
    assert found["sound"] is (damage == "")
    assert done.returncode == (damage != "")
    assert bool(found["problems"]) is (damage != "")
    assert found["counts"] == {"accounts": 1, "passes": 11, "events": 31}
    assert (found["quick"], found["warnings"]) == (True, [])


def test_a_quick_audit_leaves_out_what_compares_rows(sound: Path, tmp_path: Path) -> None:
    db = damaged(sound, tmp_path, "DELETE FROM timers")
    assert audit_store(f"sqlite:///{db}").problems
    assert not audit_store(f"sqlite:///{db}", quick=True).problems


def test_an_audit_tells_what_it_looks_for(sound: Path) -> None:
    told: list[str] = []
    audit_store(f"sqlite:///{sound}", begin=told.append)
    assert told[1:-1] == [check.wrong for check in CHECKS]


def test_an_audit_tells_of_its_hold_on_the_write_ahead_log(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "WAL_TOLD_BYTES", 0)
    db = damaged(sound, tmp_path, "")
    writer = connect(db)

    def begin(step: str) -> None:
        if step == CHECKS[0].wrong:
            writer.execute("UPDATE accounts SET slot_limit = slot_limit + 1")

    found = audit_store(f"sqlite:///{db}", begin=begin)
    writer.close()
    assert found.problems == []
    assert ["the write-ahead log grew" in line for line in found.warnings] == [True]


def test_no_check_sorts_or_scans_within_a_scan(sound: Path) -> None:
    """Tables are scanned in the order of their keys; a row looks up another by its key."""
    connection = connect(sound, read_only=True)
    for check in CHECKS:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {check.sql}")]
        assert not [step for step in plan if "TEMP B-TREE" in step], check.wrong
        for step in plan:
            if step.startswith("SEARCH"):
                # Sums by account are few; of everything else the whole key is known.
                assert "AUTOMATIC" not in step or "(account=?)" in step, check.wrong
                # An account is the whole key of what was purged, p in some.
                whole = step == "SEARCH p USING PRIMARY KEY (account=?)" and (
                    "purged_totals p" in check.sql
                )
                assert "(account=?)" not in step or "AUTOMATIC" in step or whole, check.wrong
                # A gap is empty.
                assert ">?" not in step or "sequence>? AND sequence<?" in step, check.wrong
    connection.close()


def test_a_second_refund_cannot_be_stored(sound: Path, tmp_path: Path) -> None:
    connection = connect(damaged(sound, tmp_path, ""))
    twice = (
        "INSERT INTO events SELECT account, sequence + 1000, id_pass_id, from_status, to_status, "
        "event_time_us, caller, NULL, NULL, reference, currency, NULL, refund_micros, reason, "
        "previous_sequence, 0 FROM events WHERE refund_micros IS NOT NULL"
    )
    with pytest.raises(Exception, match="UNIQUE constraint failed"):
        connection.execute(twice)
    with pytest.raises(Exception, match="CHECK constraint failed"):
        connection.execute("UPDATE events SET refund_micros = 1 WHERE to_status = 'complete'")
    connection.close()
