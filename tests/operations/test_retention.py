"""Erasing, purging and exporting beside a running server, as an operator does it."""

import json
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from idpass_server.cli import pacing
from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Register
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store.opening import open_store
from idpass_server.store.retention import Wanted
from kit.commands import run
from kit.serving import COMMAND, interruptible
from kit.support import UNKNOWN_ID, Service, eventually, make_accounts, problems


def told(*arguments: str, code: int = 0) -> str:
    """What a command prints, on both outputs."""
    return run(*arguments, code=code).output


def erase(service: Service, *arguments: str, code: int = 0) -> str:
    return told("erase", "--account", "demo", "--db", service.url, *arguments, code=code)


@pytest.mark.both_stores
def test_an_applicant_is_erased_from_every_pass_and_from_no_other(service: Service) -> None:
    mine = [service.register(applicant_reference="zoe-77").id_pass.id for _ in range(7)]
    service.cancel(mine[0], note="Zoe called")
    other = service.register(applicant_reference="zoe-778").id_pass.id
    dry = erase(service, "--applicant", "zoe-77", "--dry-run")
    assert "7 passes of demo would be erased" in dry
    asked = erase(service, "--applicant", "zoe-77", code=2)
    assert "give --yes" in asked
    assert not any(event.erased for event in service.events())
    done = erase(service, "--applicant", "zoe-77", "--yes", "--as", "ann")
    assert "7 passes of demo erased" in done
    assert "zoe-77" not in dry + asked + done
    assert {service.get(each).applicant_reference for each in mine} == {""}
    assert service.get(mine[0]).cancellation.note == ""
    assert service.get(other).applicant_reference == "zoe-778"
    assert "nothing to erase" in erase(service, "--applicant", "zoe-77", "--yes")
    assert len([e for e in service.events() if e.erased]) == 7
    (line,) = told("admin-log", "--format", "json", "--db", service.url).splitlines()
    entry = json.loads(line)
    assert (entry["what"], entry["account"], entry["after"]) == ("erase", "demo", {"passes": 7})
    assert entry["who"].startswith("ann@")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "give one of --applicant, --id and --ended-before"),
        (("--applicant", "a", "--id", UNKNOWN_ID), 2, "give one of"),
        (("--applicant", ""), 2, "--applicant is empty"),
        (("--id", "17"), 2, "'17' is no UUID"),
        (("--id", UNKNOWN_ID), 1, f"account demo has no pass {UNKNOWN_ID}"),
        (("--ended-before", "400"), 2, "'400' is no duration such as 400d"),
        (("--ended-before", "0d"), 2, "'0d' is no duration"),
        (("--applicant", "a", "--account", "nobody"), 1, "there is no account nobody"),
    ],
)
def test_what_cannot_be_erased_is_said_in_a_line(
    service: Service, arguments: tuple[str, ...], code: int, said: str
) -> None:
    service.register(applicant_reference="a")
    assert said in erase(service, *arguments, "--yes", code=code)
    assert service.account().last_sequence == 1


def test_only_passes_that_ended_longer_ago_are_erased_by_age(service: Service) -> None:
    ended = service.register(applicant_reference="zoe").id_pass.id
    service.cancel(ended)
    flying = service.register(applicant_reference="zoe").id_pass.id
    assert "nothing to erase" in erase(service, "--ended-before", "1h", "--yes")
    # Its clock is the machine's, and the server's stands still.
    eventually(lambda: "1 pass of demo erased" in erase(service, "--ended-before", "1s", "--yes"))
    assert service.get(flying).applicant_reference == "zoe"
    assert service.get(ended).applicant_reference == ""


@pytest.mark.both_stores
def test_a_purge_of_all_accounts_is_asked_for_done_and_logged(service: Service) -> None:
    for _ in range(3):
        service.pass_in("cancelled")
    flying = service.register().id_pass.id
    make_accounts(service.url, "other")
    purge = ("purge", "--ended-before", "1s", "--db", service.url)
    # The commands' clock is the machine's; the server's stands still.
    eventually(lambda: "3 passes of all accounts that ended" in told(*purge, "--dry-run"))
    assert "Purge 3 passes" in told(*purge, code=2)
    assert len(service.list_all()) == 4
    assert "3 passes of all accounts" in told(*purge, "--yes", "--as", "ann")
    assert "nothing to purge" in told(*purge, "--yes")
    assert [each.id for each in service.list_all()] == [flying]
    assert service.account().oldest_sequence == 6
    (line,) = told("admin-log", "--format", "json", "--db", service.url).splitlines()[1:]
    entry = json.loads(line)
    assert (entry["what"], entry["account"], entry["after"]["passes"]) == ("purge", None, 3)
    purged = exported(service)[2]
    assert (purged["type"], purged["id_passes"], purged["events"]) == ("purged", 3, 6)
    assert purged["fees_charged"]["amount"] == purged["fees_refunded"]["amount"] == "13.50"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "Missing option '--ended-before'"),
        (("--ended-before", "1y"), 2, "'1y' is no duration such as 400d"),
        (("--ended-before", "1s", "--account", "nobody"), 1, "there is no account nobody"),
        (("--ended-before", "1s", "--as", "two words"), 2, "--as 'two words' is not"),
    ],
)
def test_what_cannot_be_purged_is_said_in_a_line(
    service: Service, arguments: tuple[str, ...], code: int, said: str
) -> None:
    assert said in told("purge", *arguments, "--yes", "--db", service.url, code=code)


def test_by_a_clock_that_may_be_wrong_nothing_goes(service: Service) -> None:
    service.time.advance(days=1)
    service.cancel(service.register(applicant_reference="zoe").id_pass.id)
    service.register()
    for command in (("purge",), ("erase", "--account", "demo")):
        by_age = (*command, "--ended-before", "1s", "--yes", "--db", service.url)
        assert "the clock is 23:" in told(*by_age, code=1)
    assert "1 pass of demo erased" in erase(service, "--applicant", "zoe", "--yes")


def test_a_compacted_file_is_smaller_and_served_as_before(tmp_path: Path) -> None:
    db = tmp_path / "idpass.db"
    service = Service(db)
    for _ in range(300):
        service.cancel(service.register(applicant_reference="zoe" * 40).id_pass.id, note="n" * 400)
    service.register()
    with closing(open_store(service.url, exclusive=False)) as store:
        found = store.find_passes(Wanted("demo"), None, 1_000)
        assert store.purge("demo", found.ids, service.time.now_us + 1) == 300
    assert "is being served" in told("compact", "--db", service.url, code=1)
    left = service.list_all()
    service.stop()
    before = db.stat().st_size
    assert f"{before:,} bytes before" in told("compact", "--db", service.url)
    assert db.stat().st_size < before / 2
    service = Service(db, time=service.time)
    assert service.list_all() == left
    service.stop()
    assert problems(db) == []
    assert "is for SQLite files" in told("compact", "--db", "postgresql://nowhere/x", code=2)


def exported(service: Service, *arguments: str) -> list[dict[str, Any]]:
    text = told("export", "--account", "demo", "--db", service.url, *arguments)
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.both_stores
def test_an_export_has_everything_of_the_account_and_nothing_of_another(
    service: Service, tmp_path: Path
) -> None:
    for status in ("new", "complete", "cancelled"):
        service.pass_in(status)
    named = service.register(applicant_reference="Zoë").id_pass.id
    make_accounts(service.url, "other")
    lines = exported(service)
    account, passes, events = service.account(), service.list_all(), service.events()
    assert [line["type"] for line in lines] == [
        *("export", "account"),
        *("id_pass" for _ in passes),
        *("event" for _ in events),
        "end",
    ]
    assert lines[0]["account"] == lines[1]["id"] == "demo"
    assert lines[1]["last_sequence"] == account.last_sequence
    assert [line["id"] for line in lines if line["type"] == "id_pass"] == sorted(
        each.id for each in passes
    )
    (mine,) = (line for line in lines if line.get("id") == named)
    assert (mine["applicant_reference"], mine["status"], mine["fee"]["amount"]) == (
        *("Zoë", "new"),
        "4.50",
    )
    assert [line["sequence"] for line in lines if line["type"] == "event"] == [
        each.sequence for each in events
    ]
    end = {"type": "end", "accounts": 1, "id_passes": 4, "events": len(events)}
    assert lines[-1] == end
    file = tmp_path / "demo.jsonl"
    assert exported(service, "--to", str(file), "--dry-run") == []
    assert not file.exists()
    assert exported(service, "--to", str(file)) == []
    assert json.loads(file.read_text("utf-8").splitlines()[-1]) == end
    assert (file.stat().st_mode & 0o777, [*tmp_path.glob("*.part")]) == (0o600, [])


def test_an_export_goes_over_no_file_and_leaves_no_part(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "demo.jsonl"
    file.write_text("mine")
    command = ("export", "--db", service.url, "--account")
    assert "exists; name a new file" in told(*command, "demo", "--to", str(file), code=1)
    assert file.read_text() == "mine"
    nowhere = tmp_path / "nowhere" / "x"
    assert "cannot be written" in told(*command, "demo", "--to", str(nowhere), code=1)
    assert "there is no account x" in told(*command, "x", "--to", str(nowhere), code=1)


def registered(service: Service, count: int) -> None:
    """Registers passes by the hundred, beside the server."""
    store = open_store(service.url, exclusive=False)
    commands = [
        Register("demo", "t", new_uuid(), None, new_uuid(), applicant_reference="zoe")
        for _ in range(count)
    ]
    for start in range(0, count, 500):
        store.commit(commands[start : start + 500], time.time_ns() // 1_000)
    store.close()


@pytest.mark.both_stores
def test_an_interrupted_command_says_how_far_it_is_and_goes_on_when_run_again(
    service: Service,
) -> None:
    total = 900
    registered(service, total)
    command = ("erase", "--account", "demo", "--applicant", "zoe", "--yes", "--db", service.url)
    first = subprocess.Popen(interruptible(*COMMAND, *command), stderr=subprocess.PIPE, text=True)
    eventually(lambda: service.account().last_sequence > total)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=30)
    assert first.returncode == 1
    erased = service.account().last_sequence - total
    assert f"interrupted: {erased} passes erased; to go on, run it again" in said
    assert erased < total
    assert f"{total - erased} passes of demo erased" in told(*command)
    assert len([event for event in service.events() if event.erased]) == total


def test_the_pace_leaves_the_server_most_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, slept_s = 0.0, 0.0

    def sleep(pause_s: float) -> None:
        nonlocal now_s, slept_s
        now_s += pause_s
        slept_s += pause_s

    monkeypatch.setattr("idpass_server.cli.pacing.time.monotonic", lambda: now_s)
    monkeypatch.setattr("idpass_server.cli.pacing.time.sleep", sleep)
    sizes = []
    for chunk in pacing.Pace(lambda: False).chunks(range(2_000)):
        sizes.append(len(chunk))
        now_s += 0.0002 * len(chunk)  # a pass takes as long
    assert sum(sizes) == 2_000
    assert max(sizes) * 0.0002 < 2 * pacing.TRANSACTION_S
    assert slept_s == pytest.approx((now_s - slept_s) * pacing.PAUSE_TIMES)


def test_a_busy_database_is_tried_again_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0

    def sleep(pause_s: float) -> None:
        nonlocal now_s
        now_s += pause_s

    monkeypatch.setattr("idpass_server.cli.pacing.time.monotonic", lambda: now_s)
    monkeypatch.setattr("idpass_server.cli.pacing.time.sleep", sleep)
    tries = iter([StoreUnavailable("busy"), StoreUnavailable("busy")])

    def work() -> str:
        for error in tries:
            raise error
        return "done"

    assert pacing.patiently(work) == "done"

    def never() -> str:
        raise StoreUnavailable("busy")

    with pytest.raises(StoreUnavailable):
        pacing.patiently(never)
    assert now_s >= pacing.PATIENCE_S
