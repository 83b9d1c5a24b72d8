"""The audit finds every kind of wrong that it is there for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from idpass_server.store.audit import CHECKS
from idpass_server.store.opening import migrate_store
from idpass_server.store.sqlite_file import connect
from postgres import Postgres
from support import DAY_US, UNKNOWN_ID, Service, cli, problems

# What is done to a sound database, and what the audit must then say.
DAMAGE = [
    ("UPDATE accounts SET slots_in_use = slots_in_use + 1", "slots in use"),
    ("UPDATE accounts SET charged_micros = charged_micros + 1", "fees charged"),
    ("UPDATE accounts SET refunded_micros = refunded_micros - 1", "fees refunded"),
    ("DELETE FROM events WHERE sequence = 2", "event sequence has gaps"),
    ("UPDATE accounts SET last_sequence = last_sequence + 1", "event sequence has gaps"),
    (
        "INSERT INTO passes SELECT 'ghost', id, status, currency, fee_micros, fee_refunded, "
        "applicant_reference, NULL, NULL, create_time_us, update_time_us, expire_time_us, "
        "consent_time_us, end_time_us, cancel_reason, cancel_note, caller, event_sequence "
        "FROM passes LIMIT 1",
        "belongs to no account",
    ),
    (f"UPDATE events SET id_pass_id = '{UNKNOWN_ID}' WHERE sequence = 1", "about no pass"),
    (
        "DROP INDEX events_refund; UPDATE events SET refund_micros = 1, to_status = 'cancelled' "
        "WHERE id_pass_id = (SELECT id FROM passes WHERE fee_refunded = 1 ORDER BY id LIMIT 1)",
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
        "whether it was refunded",
    ),
    ("UPDATE events SET to_status = 'complete' WHERE from_status = 'new'", "not in the table"),
    ("UPDATE events SET charge_micros = NULL WHERE sequence = 1", "not in the table"),
    (
        "UPDATE events SET previous_sequence = 1 WHERE previous_sequence > 1",
        "does not follow the one before",
    ),
    ("UPDATE passes SET status = 'failed' WHERE status = 'complete'", "newest event left it"),
    ("UPDATE passes SET caller = 'x' WHERE status = 'complete'", "newest event left it"),
    (
        "UPDATE passes SET event_sequence = event_sequence - 1 WHERE status = 'complete'",
        "more events than its history",
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
    assert "all is well: 1 accounts, 10 passes" in done.stdout


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
    assert all(any(said in check.wrong for _, said in DAMAGE) for check in CHECKS)


def test_an_audit_that_fails_says_why_and_exits_non_zero(sound: Path, tmp_path: Path) -> None:
    db = damaged(sound, tmp_path, "UPDATE accounts SET slots_in_use = 9")
    done = cli("audit", "--db", f"sqlite:///{db}")
    assert done.returncode == 1
    assert "slots in use are not the passes in flight: demo, 9, 4" in done.stderr
    assert done.stdout == ""


def test_a_second_refund_cannot_be_stored(sound: Path, tmp_path: Path) -> None:
    connection = connect(damaged(sound, tmp_path, ""))
    twice = (
        "INSERT INTO events SELECT account, sequence + 1000, id_pass_id, from_status, to_status, "
        "event_time_us, caller, NULL, NULL, reference, currency, NULL, refund_micros, reason, "
        "previous_sequence FROM events WHERE refund_micros IS NOT NULL"
    )
    with pytest.raises(Exception, match="UNIQUE constraint failed"):
        connection.execute(twice)
    with pytest.raises(Exception, match="CHECK constraint failed"):
        connection.execute("UPDATE events SET refund_micros = 1 WHERE to_status = 'complete'")
    connection.close()
