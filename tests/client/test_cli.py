"""The command line, run as a program against the real service."""

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest

from idpass import AsyncIdPassClient, CancelReason, IdPassClient, Status
from idpass._cleanup import Cleanup
from kit.client import PutPass, Serve, ServerProcess
from kit.idpass_cli import COMMAND, lines, run_cli
from kit.proxy import Cut, CuttingProxy
from kit.serving import interruptible

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PASS_ID = re.compile(r"[0-9a-f-]{36}")


@pytest.fixture
def cli(address: str) -> Run:
    return lambda *arguments, **more: run_cli(address, *arguments, **more)


def test_a_pass_is_registered_shown_and_cancelled_by_a_person(cli: Run) -> None:
    registered = cli("register", "--applicant", "[bold]Anna", "--days", "3")
    assert registered.returncode == 0, registered.stderr
    assert "[bold]Anna" in registered.stdout
    match = PASS_ID.search(registered.stdout)
    assert match
    pass_id = match[0]
    shown = cli("get", pass_id)
    assert shown.stdout == registered.stdout
    cancelled = cli("cancel", pass_id, "--reason", "abandoned", "--note", "gone")
    assert cancelled.returncode == 0
    line = rf"{pass_id}  cancelled \(was new\), AUD 4\.50 refunded  reference {PASS_ID.pattern}\n"
    assert re.fullmatch(line, cancelled.stdout)
    again = cli("cancel", pass_id)
    assert again.returncode == 1
    assert again.stdout == ""
    assert again.stderr.startswith("AlreadyCancelled: ")
    watched = cli("watch", pass_id)
    assert watched.returncode == 0
    assert "new → cancelled, AUD 4.50 refunded, abandoned" in watched.stdout


def test_scripts_get_json(cli: Run) -> None:
    (registered,) = lines(cli("register", "--json"))
    pass_id = registered["id_pass"]["id"]
    (shown,) = lines(cli("get", pass_id, "--json"))
    assert shown == registered["id_pass"]
    assert shown["fee"] == {"currency": "AUD", "amount": "4.50"}
    (receipt,) = lines(cli("cancel", pass_id, "--json"))
    assert (receipt["fee_refunded"], receipt["refund"]) == (True, shown["fee"])
    refused = cli("cancel", pass_id, "--json")
    assert refused.returncode == 1
    (error,) = lines(refused)
    assert (error["error"], error["reason"]) == ("AlreadyCancelled", "PASS_ALREADY_CANCELLED")
    assert error["metadata"]["feeRefunded"] == "true"
    replayed = cli("cancel", pass_id, "--json", "--request-id", receipt["request_id"])
    assert lines(replayed)[0]["replayed"]
    events = lines(cli("watch", pass_id, "--json"))
    assert events[-1]["reference"] == receipt["reference"]
    assert [event["to_status"] for event in events] == ["new", "cancelled"]
    (account,) = lines(cli("account", "--json"))
    assert account["id"] == "demo"


def test_several_are_cancelled_and_one_refusal_is_told_by_the_exit_code(
    cli: Run, put_pass: PutPass
) -> None:
    ids = [put_pass(), put_pass(Status.CANCELLED), put_pass(Status.IN_PROGRESS)]
    run = cli("cancel", *ids)
    assert run.returncode == 1
    assert len(run.stdout.splitlines()) == 2
    assert "in_progress), no refund" in run.stdout
    ids = [put_pass(), put_pass()]
    run = cli("cancel", "-", "--json", stdin="\n".join(ids) + "\n\n")
    assert run.returncode == 0
    assert [receipt["id"] for receipt in lines(run)] == ids
    run = cli("cancel", put_pass(), "--validate-only")
    assert run.returncode == 0
    assert run.stdout.startswith("checked only, nothing is changed: ")


def test_passes_are_listed(cli: Run, put_pass: PutPass) -> None:
    pass_id = put_pass(Status.OPENED, applicant_reference="Listed Person")
    run = cli("list", "--status", "opened", "--status", "new", "--limit", "3")
    assert run.returncode == 0
    header, first, *_ = run.stdout.splitlines()
    assert header.split() == ["id", "status", "idle", "expires", "fee", "applicant"]
    assert first.split()[:2] == [pass_id, "opened"]
    assert "Listed Person" in first
    (found,) = lines(cli("list", "--json", "--limit", "1"))
    assert found["id"] == pass_id
    (found,) = lines(cli("list", "--applicant", "Listed Person", "--json"))
    assert found["id"] == pass_id
    assert cli("list", "--applicant", "Listed", "--json").stdout == ""
    assert cli("list", "--idle-for", "7d", "--json").stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["cancel"],
        ["cancel", "a", "b", "--request-id", "x"],
        ["list", "--idle-for", "7 days"],
        ["list", "--status", "gone"],
        ["cleanup"],
        ["cleanup", "--idle-for", "7d", "--status", "complete"],
        ["register", "--days", "15"],
        ["--cert", __file__, "account"],
        ["--address", "nowhere", "account"],
        ["--address", "idpass.example.com:443", "account"],
    ],
)
def test_wrong_usage_is_told_before_anything_is_done(cli: Run, arguments: list[str]) -> None:
    run = cli(*arguments)
    assert run.returncode == 2
    assert "Error:" in run.stderr


def test_the_service_out_of_reach_and_an_unknown_outcome_have_their_exit_codes(
    serve: Serve,
) -> None:
    nowhere = "127.0.0.1:1"
    run = run_cli(nowhere, "--timeout", "1", "account")
    assert run.returncode == 4
    assert run.stderr.startswith("Unavailable: ")
    pass_id = "01932c07-0000-7000-8000-000000000000"
    run = run_cli(nowhere, "--timeout", "1", "cancel", pass_id, "--json")
    assert run.returncode == 4
    (error,) = lines(run)
    assert error["error"] == "Unavailable"
    assert error["message"].startswith("Nothing was sent")
    run = run_cli(nowhere, "--timeout", "1", "cancel", pass_id, pass_id, "--json")
    assert run.returncode == 4
    assert [(e["id"], e["error"]) for e in lines(run)] == [(pass_id, "Unavailable")] * 2
    recorder, proxy = serve()
    recorder.refusal = "the service behind this proxy has gone"
    run = run_cli(proxy, "--timeout", "0.3", "cancel", pass_id, "--json")
    assert run.returncode == 3
    (error,) = lines(run)
    assert error["error"] == "OutcomeUnknown"
    assert error["request_id"]


def test_a_token_comes_from_the_environment_and_stays_on_this_machine(cli: Run) -> None:
    assert cli("account", IDPASS_TOKEN="secret").returncode == 0
    run = cli("--address", "10.0.0.7:1", "--allow-plaintext", "account", IDPASS_TOKEN="secret")
    assert run.returncode == 2
    assert "plain text" in run.stderr


@pytest.fixture
def abandoned(own_server: ServerProcess) -> tuple[str, dict[Status, list[str]]]:
    """A service with passes in each status in flight, and one that is ended."""
    found: dict[Status, list[str]] = {}
    with IdPassClient(own_server.address) as client:
        for status in (Status.NEW, Status.OPENED, Status.IN_PROGRESS):
            for _ in range(4):
                pass_id = client.register().id_pass.id
                if status is not Status.NEW:
                    client.advance(pass_id, Status.OPENED)
                if status is Status.IN_PROGRESS:
                    client.advance(pass_id, status)
                found.setdefault(status, []).append(pass_id)
        client.cancel(client.register().id_pass.id)
    return own_server.address, found


def test_a_cleanup_is_shown_first_and_then_done_once(
    abandoned: tuple[str, dict[Status, list[str]]],
) -> None:
    address, found = abandoned
    shown = run_cli(address, "cleanup", "--idle-for", "0s", "--dry-run")
    assert shown.returncode == 0
    assert "12 to cancel, AUD 36.00 to come back" in shown.stdout
    assert all(pass_id in shown.stdout for ids in found.values() for pass_id in ids)
    *named, plan = lines(run_cli(address, "cleanup", "--idle-for", "0s", "--dry-run", "--json"))
    assert plan["would_cancel"] == {"new": 4, "opened": 4, "in_progress": 4}
    for status, ids in found.items():
        assert {each["id"] for each in named if each["status"] == status} == set(ids)
    limited = run_cli(address, "cleanup", "--idle-for", "0s", "--dry-run", "--limit", "5")
    assert len(PASS_ID.findall(limited.stdout)) == 5
    assert "5 to cancel" in limited.stdout
    assert run_cli(address, "cleanup", "--idle-for", "0s").returncode == 2  # nobody to ask
    assert run_cli(address, "cleanup", "--idle-for", "1h", "--yes").stdout.strip() == (
        "There is nothing to clean up."
    )

    limited = run_cli(
        *(address, "cleanup", "--idle-for", "0s", "--status", "new", "--limit", "1", "--yes")
    )
    assert "1, 1 of them refunded: AUD 4.50" in limited.stdout
    some = run_cli(address, "cleanup", "--idle-for", "0s", "--status", "new", "--yes", "--json")
    *receipts, summary = lines(some)
    assert {each["id"] for each in receipts} < set(found[Status.NEW])
    assert {each["status"] for each in receipts} == {"cancelled"}
    assert len(receipts) == 3
    assert summary == {
        "cancelled": 3,
        "refunded": 3,
        "refund_totals": [{"currency": "AUD", "amount": "13.50"}],
        "moved_on": 0,
        "refused": 0,
        "interrupted": False,
    }
    rest = run_cli(address, "cleanup", "--idle-for", "0s", "--yes", "--note", "swept")
    assert rest.returncode == 0
    assert "8, 4 of them refunded: AUD 18.00" in rest.stdout
    with IdPassClient(address) as client:
        id_pass = client.get(found[Status.OPENED][0])
    assert id_pass.cancellation
    assert id_pass.cancellation.reason is CancelReason.ABANDONED
    assert id_pass.cancellation.note == "swept"


def test_a_pass_that_moves_on_while_it_is_cleaned_up_is_left_alone(
    setup_client: IdPassClient, put_pass: PutPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_id = put_pass(Status.OPENED)
    work = Cleanup(setup_client, [Status.OPENED], timedelta(), "")
    list(work.survey())
    monkeypatch.setattr(work, "_ids", lambda _status: iter([pass_id]))  # listed, and then:
    setup_client.advance(pass_id, Status.IN_PROGRESS)
    work.run(lambda _: None)
    assert (work.cancelled, work.moved_on, work.refused) == (0, 1, 0)
    assert setup_client.get(pass_id).status is Status.IN_PROGRESS


def test_a_person_is_asked_sees_colours_and_may_say_no(
    abandoned: tuple[str, dict[Status, list[str]]],
) -> None:
    address, _ = abandoned
    for answer, code in (("n\n", 1), ("y\n", 0)):
        shown, status = on_terminal([*COMMAND, "cleanup", "--idle-for", "0s"], address, answer)
        assert "Cancel them? [y/N]" in shown
        assert "\x1b[" in shown
        assert status == code
    assert "12, 8 of them refunded: AUD 36.00" in shown
    assert "12/12" in shown


def on_terminal(command: list[str], address: str, answer: str) -> tuple[str, int]:
    """What a program shows on a terminal, and its exit code."""
    ours, theirs = pty.openpty()
    env = os.environ | {"IDPASS_ADDRESS": address, "TERM": "xterm-256color", "COLUMNS": "100"}
    program = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    os.write(ours, answer.encode())
    shown = b""
    with contextlib.suppress(OSError):  # the program has ended
        while select.select([ours], [], [], 30)[0]:
            shown += os.read(ours, 4096)
    os.close(ours)
    return shown.decode(), program.wait(30)


def test_an_interrupted_cleanup_tells_what_it_did_and_can_be_run_again(
    own_server: ServerProcess,
) -> None:
    own_server.set_slots(10_000)

    async def register_3000() -> None:
        async with AsyncIdPassClient(own_server.address, timeout=60) as client:
            for _ in range(6):
                await asyncio.gather(*(client.register() for _ in range(500)))

    asyncio.run(register_3000())
    command = [*COMMAND, "cleanup", "--idle-for", "0s", "--yes", "--json"]
    env = os.environ | {"IDPASS_ADDRESS": own_server.address}
    with subprocess.Popen(
        interruptible(*command), stdout=subprocess.PIPE, env=env, text=True
    ) as program:
        try:
            with IdPassClient(own_server.address) as client:
                next(e for e in client.watch(after_sequence=3_000))  # its first batch is done
            program.send_signal(signal.SIGINT)
            output, _ = program.communicate(timeout=60)
        finally:
            program.kill()
    *receipts, summary = map(json.loads, output.splitlines())
    assert program.returncode == 130
    assert len({each["id"] for each in receipts}) == summary["cancelled"]
    assert summary["interrupted"]
    assert 0 < summary["cancelled"] < 3_000
    with IdPassClient(own_server.address) as client:
        account = client.account()
    assert account.slots_in_use == 3_000 - summary["cancelled"]
    rest = lines(run_cli(own_server.address, *command[len(COMMAND) :]))[-1]
    assert rest["cancelled"] == account.slots_in_use


def test_a_watch_goes_on_until_it_is_interrupted(address: str, put_pass: PutPass) -> None:
    env = os.environ | {"IDPASS_ADDRESS": address, "PYTHONUNBUFFERED": "1"}
    command = interruptible(*COMMAND, "watch", "--json", "--after", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as program:
        assert program.stdout
        pass_id = put_pass()
        try:
            next(line for line in program.stdout if json.loads(line)["id"] == pass_id)
            program.send_signal(signal.SIGINT)
            program.communicate(timeout=30)
        finally:
            program.kill()
    assert program.returncode == 130


def test_without_its_extra_the_command_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['rich'] = None; import idpass.cli"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == (
        "The command line needs click and rich, the extra 'cli' of idpass-client: "
        "pip install click rich\n"
    )


def test_a_cleanup_over_a_broken_connection_is_whole(
    abandoned: tuple[str, dict[Status, list[str]]],
) -> None:
    proxy = CuttingProxy(abandoned[0])
    proxy.cuts.extend([Cut.AFTER_REQUEST, Cut.BEFORE_ANSWER, Cut.BEFORE_REQUEST, Cut.BEFORE_ANSWER])
    run = run_cli(proxy.address, "cleanup", "--idle-for", "0s", "--yes", "--json")
    proxy.close()
    summary = lines(run)[-1]
    assert (summary["cancelled"], summary["refunded"]) == (12, 8)
