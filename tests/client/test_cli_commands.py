"""`idpass advance`, `supersede`, `ping` and `whoami`, and addresses as people write them."""

import os
import re
import signal
import socket
import subprocess
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import click
import pytest

from idpass import IdPassClient, Status, __version__, _show
from idpass._cli_address import Address, Target
from idpass.cli import main
from kit.client import PutPass
from kit.guarded import Guarded, caller
from kit.http import scripted
from kit.idpass_cli import COMMAND, lines, run_here
from kit.secure import Secure
from kit.serving import interruptible

UNKNOWN_ID = "01932c07-0000-7000-8000-000000000000"
NOWHERE = "127.0.0.1:1"
FULL = Path("/dev/full")


def rows(shown: str) -> dict[str, str]:
    """Names and values, as a person sees them."""
    pairs = (re.split(r"  +", line.strip(), maxsplit=1) for line in shown.splitlines())
    return {pair[0]: pair[1] for pair in pairs}


def test_a_pass_is_advanced_step_by_step(address: str, put_pass: PutPass) -> None:
    pass_id = put_pass()
    opened = run_here(address, "advance", pass_id, "opened")
    assert opened.returncode == 0, opened.stderr
    assert pass_id in opened.stdout
    assert "opened" in opened.stdout
    wrong = run_here(address, "advance", pass_id, "complete")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("TransitionNotAllowed: ")
    changed = run_here(address, "advance", pass_id, "in_progress", "--expected-status", "new")
    assert (changed.returncode, changed.stderr.split(":")[0]) == (1, "PassChanged")
    options = ("--request-id", f"advance-{pass_id}", "--json")
    (first,) = lines(run_here(address, "advance", pass_id, "in_progress", *options))
    assert first["id_pass"]["status"] == "in_progress"
    (again,) = lines(run_here(address, "advance", pass_id, "in_progress", *options))
    assert again == first | {"replayed": True}


def test_a_pass_is_superseded_and_its_refund_told(
    address: str, put_pass: PutPass, setup_client: IdPassClient
) -> None:
    old = put_pass(Status.OPENED)
    done = run_here(address, "supersede", old, "--applicant", "Anna", "--days", "3")
    assert done.returncode == 0, done.stderr
    new = setup_client.get(old).superseded_by
    assert new
    assert new in done.stdout
    assert f"{old}  cancelled (was opened), AUD 4.50 refunded" in done.stdout
    assert setup_client.get(new).applicant_reference == "Anna"
    again = run_here(address, "supersede", old)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("AlreadyCancelled: ")
    (receipt,) = lines(run_here(address, "supersede", new, "--json"))
    assert receipt["superseded"]["id"] == new
    assert receipt["id_pass"]["supersedes"] == new


def test_ping_says_where_who_and_how_fast(address: str) -> None:
    for command in ("ping", "whoami"):
        shown = run_here(address, command)
        assert shown.returncode == 0, shown.stderr
        told = rows(shown.stdout)
        assert told["address"] == address
        assert told["connection"] == "plain text"
        assert (told["reachable"], told["account"]) == ("yes", "demo")
        assert told["client"] == __version__
        assert told["round trip"].endswith(" ms")
    (found,) = lines(run_here(f"grpc://{address}", "ping", "--json"))
    assert (found["address"], found["reachable"], found["account"]) == (address, True, "demo")
    assert found["round_trip_ms"] > 0
    assert found["history"]


def test_ping_says_why_there_is_no_answer(tmp_path: Path) -> None:
    gone = run_here(NOWHERE, "--timeout", "1", "ping")
    assert gone.returncode == 4
    assert rows(gone.stdout)["reachable"] == "no"
    assert "Is the service running, and is this its address?" in gone.stderr
    (told,) = lines(run_here(NOWHERE, "--timeout", "1", "ping", "--json"))
    assert (told["address"], told["reachable"], told["error"]) == (NOWHERE, False, "Unavailable")
    guarded = Guarded(tmp_path, caller("ann", permissions="cancel"))
    try:
        stranger = run_here(guarded.address, "ping", "--json")
        (told,) = lines(stranger)
        assert (stranger.returncode, told["reachable"]) == (1, True)
        assert told["error"] == "Unauthenticated"
        ann = run_here(guarded.address, "ping", IDPASS_TOKEN="ann-token")
        assert ann.returncode == 1
        assert rows(ann.stdout)["reachable"] == "yes"
        assert ann.stderr.startswith("PermissionDenied: ")
    finally:
        guarded.stop()


def test_ping_over_tls_with_a_url(tmp_path: Path) -> None:
    server = Secure(tmp_path)
    try:
        address = f"grpcs://localhost:{server.address.rpartition(':')[2]}"
        options = ["--ca", str(server.servers.path)]
        options += ["--cert", str(server.billing.cert), "--key", str(server.billing.key)]
        (told,) = lines(run_here(address, *options, "ping", "--json"))
        assert (told["connection"], told["account"]) == ("mutual TLS", "acme")
        without = run_here(address, "--timeout", "2", *options[:2], "ping", "--json")
        assert without.returncode == 4
        assert lines(without)[0]["connection"] == "TLS"
        assert "--cert, --key" in lines(without)[0]["message"]
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ("localhost:50051", Target("localhost:50051", None)),
        ("grpc://localhost", Target("localhost:50051", tls=False)),
        ("grpcs://idpass.example.com", Target("idpass.example.com:50051", tls=True)),
        ("grpcs://idpass.example.com:443/", Target("idpass.example.com:443", tls=True)),
        ("http://localhost:50051", Target("localhost:50051", tls=False)),
        ("HTTPS://idpass.example.com", Target("idpass.example.com:443", tls=True)),
        ("https://[::1]:7/", Target("[::1]:7", tls=True)),
        ("dns:///idpass.example.com:443", Target("dns:///idpass.example.com:443", None)),
        ("unix:/run/idpass.sock", Target("unix:/run/idpass.sock", None)),
        ("unix:///run/idpass.sock", Target("unix:///run/idpass.sock", None)),
        (" localhost:50051\n", Target("localhost:50051", None)),
    ],
)
def test_addresses_are_understood(given: str, target: Target) -> None:
    assert Address().convert(given, None, None) == target


@pytest.mark.parametrize(
    ("given", "help_"),
    [
        ("http://localhost:8080/idpass/cancel", "speaks gRPC"),
        ("https://example.com?x=1", "more than a host and a port"),
        ("postgresql://localhost/idpass", "is not for gRPC; give HOST:PORT, grpc://HOST:PORT"),
        ("tcp://10.0.0.1:50051", "is not for gRPC"),
        ("http://", "has no host"),
        ("http://localhost:99999", "Port out of range"),
        ("http://localhost:x", "Port could not be cast"),
        ("https://ann:secret@example.com", "IDPASS_TOKEN"),
        ("localhost", "is not HOST:PORT, such as localhost:50051"),
        ("", "is not HOST:PORT"),
    ],
)
def test_what_is_no_address_is_told_with_what_would_be(given: str, help_: str) -> None:
    done = run_here("", "--address", given, "account")
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert help_ in said
    assert "secret" not in said
    assert "Traceback" not in said


def test_a_scheme_and_options_that_contradict_each_other_are_refused() -> None:
    done = run_here("", "--address", "http://localhost:50051", "--tls", "account")
    assert done.returncode == 2
    assert "plain text, and TLS is asked for" in " ".join(done.stderr.split())
    remote = run_here("", "--address", "grpc://idpass.example.com:50051", "account")
    assert remote.returncode == 2
    assert "allow-plaintext" in remote.stderr.replace("_", "-")


def test_the_port_of_http_is_told_apart_from_that_of_grpc() -> None:
    with scripted() as http:
        for address in (str(http.base_url), http.base_url.netloc.decode()):
            done = run_here(address, "--timeout", "2", "ping")
            assert done.returncode == 4
            assert "Something that speaks HTTP/1 answers there" in done.stderr


CHANGES = [
    ["advance", UNKNOWN_ID, "opened"],
    ["supersede", UNKNOWN_ID],
]


@pytest.mark.parametrize("arguments", [*CHANGES, ["ping"], ["whoami"]], ids=lambda a: a[0])
def test_without_a_server_a_command_says_so(arguments: list[str]) -> None:
    done = run_here(NOWHERE, "--timeout", "1", *arguments)
    assert done.returncode == 4
    assert done.stderr.startswith("Unavailable: Nothing was sent")
    (told,) = lines(run_here(NOWHERE, "--timeout", "1", *arguments, "--json"))
    assert told["error"] == "Unavailable"


@pytest.mark.parametrize(
    "arguments",
    [
        ["advance"],
        ["advance", UNKNOWN_ID],
        ["advance", UNKNOWN_ID, "cancelled"],
        ["advance", UNKNOWN_ID, "opened", "--expected-status", "gone"],
        ["supersede"],
        ["supersede", UNKNOWN_ID, "--days", "0"],
        ["supersede", UNKNOWN_ID, "--supersedes", UNKNOWN_ID],
        ["ping", "extra"],
        ["cleanup", "--idle-for", "7d", "--limit", "0"],
    ],
)
def test_wrong_usage_is_told(address: str, arguments: list[str]) -> None:
    done = run_here(address, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["advance", "no-uuid", "opened"], "InvalidRequest"),
        (["supersede", "no-uuid"], "InvalidRequest"),
        (["advance", UNKNOWN_ID, "opened", "--request-id", "with space"], "InvalidRequest"),
        (["advance", UNKNOWN_ID, "opened"], "NotFound"),
        (["supersede", UNKNOWN_ID], "NotFound"),
    ],
)
def test_wrong_input_is_refused_by_name(address: str, arguments: list[str], error: str) -> None:
    done = run_here(address, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{error}: ")


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_a_change_whose_output_fails_is_told(
    address: str, put_pass: PutPass, setup_client: IdPassClient
) -> None:
    first, second = put_pass(), put_pass()

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        with FULL.open("wb") as full:
            return subprocess.run(
                [*COMMAND, "--address", address, *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=60,
            )

    advanced = run("advance", first, "opened")
    superseded = run("supersede", second, "--json")
    pinged = run("ping")
    assert [each.returncode for each in (advanced, superseded, pinged)] == [5, 5, 5]
    assert f"Done: {first} is opened" in advanced.stderr
    new = setup_client.get(second).superseded_by
    assert f"Done: registered {new} in place of {second}" in superseded.stderr
    assert "Done" not in pinged.stderr
    address = NOWHERE
    unreached = run("--timeout", "1", "ping")
    assert (unreached.returncode, unreached.stderr.split(":")[0]) == (4, "Unavailable")


@pytest.mark.parametrize("arguments", [CHANGES[0], ["ping"]], ids=lambda a: a[0])
def test_ctrl_c_ends_a_command_that_waits(arguments: list[str]) -> None:
    connected, ended = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"

        def accept() -> None:
            with listening.accept()[0]:
                connected.set()
                ended.wait(60)

        thread = threading.Thread(target=accept)
        thread.start()
        command = interruptible(*COMMAND, "--timeout", "60", *arguments)
        environment = os.environ | {"IDPASS_ADDRESS": address}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
        ) as program:
            try:
                assert connected.wait(60)
                program.send_signal(signal.SIGINT)
                output, problems = program.communicate(timeout=30)
            finally:
                program.kill()
                ended.set()
                thread.join(60)
    assert program.returncode == 130
    assert "Traceback" not in output + problems


def test_every_command_has_help_and_the_same_exit_codes() -> None:
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command
        assert command.get_short_help_str(), name


def test_times_have_their_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2026, 11, 23, 9, 30, tzinfo=timezone.utc)
    try:
        for zone, shown in (
            ("UTC", "2026-11-23 09:30:00+00:00"),
            ("Asia/Kolkata", "2026-11-23 15:00:00+05:30"),
        ):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert _show.when(moment) == shown
    finally:
        monkeypatch.undo()
        time.tzset()
