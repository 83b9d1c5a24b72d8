"""Accounts listed, disabled and deleted beside a running server, and the log of who did it."""

import json
import pty
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server.cli import asking
from idpass_server.failures import BadSetting
from idpass_server.rules.money import parse_money
from idpass_server.store import either, history, opening
from idpass_server.store.admin_log import Entry, entries
from kit.commands import Command
from kit.guarded import Guarded
from kit.support import STATUS, Service, cli, details_of, refused

NOBODY = {"slots": 1000, "fee": "AUD 4.50", "registrations_per_day": 0, "disabled": False}


def logged(url: str) -> list[Entry]:
    with opening.reading_store(url) as connection:
        return list(entries(connection))


@pytest.mark.both_stores
def test_a_disabled_account_changes_nothing_from_the_next_call_on(
    service: Service, command: Command
) -> None:
    new, opened, ended = (service.pass_in(each) for each in ("new", "opened", "new"))
    done = service.cancel(ended, request_id="c")
    assert "disabled" in command("account", "disable", "demo", "--db", service.url).stdout
    before = service.account()
    for call in (
        service.register,
        lambda: service.register(supersedes=new),
        lambda: service.cancel(new),
        lambda: service.cancel(new, validate_only=True),
        lambda: service.cancel(ended),
        lambda: service.advance(opened, "in_progress"),
    ):
        told = refused(call)
        assert told.code == grpc.StatusCode.PERMISSION_DENIED
        assert (told.reason, told.metadata) == ("ACCOUNT_DISABLED", {"account": "demo"})
    items = [service_pb.CancelRequest(id=each) for each in (new, opened)]
    for result in service.batch(*items).results:
        assert details_of(result.error)["ErrorInfo"].reason == "ACCOUNT_DISABLED"
    assert service.account() == before

    assert service.get(new).id == new
    assert len(service.list_all()) == 3
    assert len(service.events()) == before.last_sequence
    again = service.cancel(ended, request_id="c")
    assert (again.replayed, again.reference) == (True, done.reference)

    service.time.advance(days=8)
    assert service.get(new).status == STATUS["expired"]
    command("account", "enable", "demo", "--db", service.url)
    assert service.register().id_pass.id


@pytest.mark.both_stores
def test_callers_of_a_deleted_account_are_refused_without_a_fault(
    guarded: Guarded, command: Command
) -> None:
    ann, bob = guarded.with_token("ann-token"), guarded.with_token("bob-token")
    command("account", "delete", "acme", "--yes", "--db", guarded.url)
    watch = ann.watch()
    for call in (ann.register, ann.account, lambda: next(watch)):
        assert refused(call).reason == "ACCOUNT_DISABLED"
    assert ann.list_all() == []
    assert bob.register().id_pass.id


@pytest.mark.both_stores
def test_an_account_that_was_ever_used_is_not_deleted(service: Service, command: Command) -> None:
    service.pass_in("cancelled")
    done = command("account", "delete", "demo", "--yes", "--db", service.url, code=1)
    assert "has registered passes" in done.stderr
    assert "idpass-server account disable demo" in done.stderr
    assert service.account().last_sequence == 2
    assert logged(service.url) == []


@pytest.mark.both_stores
def test_every_change_is_in_the_admin_log_with_who_and_what_was_before(
    service: Service, command: Command
) -> None:
    db = ("--as", "alice", "--db", service.url)
    command("account", "create", "acme", "--slots", "5", "--fee", "USD 1", *db)
    command("account", "create", "acme", "--slots", "5", "--fee", "USD 1", *db, code=1)
    command("account", "set", "acme", "--slots", "7", "--fee", "USD 1", *db)
    command("account", "set", "acme", "--slots", "7", *db)
    for _ in range(2):
        command("account", "disable", "acme", *db)
    command("account", "enable", "acme", *db)
    command("account", "delete", "acme", "--yes", *db)
    acme = {"slots": 5, "fee": "USD 1.00", "registrations_per_day": 0, "disabled": False}
    expected = [
        ("account create", None, acme),
        ("account set", {"slots": 5}, {"slots": 7}),
        ("account disable", {"disabled": False}, {"disabled": True}),
        ("account enable", {"disabled": True}, {"disabled": False}),
        ("account delete", acme | {"slots": 7}, None),
    ]
    lines = command("admin-log", "--format", "json", "--db", service.url).stdout.splitlines()
    told = list(map(json.loads, lines))
    assert [(each["what"], each["before"], each["after"]) for each in told] == expected
    assert {each["who"] for each in told} == {f"alice@{socket.gethostname()}"}
    assert {each["account"] for each in told} == {"acme"}
    texts = command("admin-log", "--account", "acme", "--db", service.url).stdout.splitlines()
    assert texts[1].endswith('  account set  acme  {"slots": 5} -> {"slots": 7}')
    assert texts[1].startswith(told[1]["time"])
    since = command("admin-log", "--since", told[4]["time"], "--db", service.url).stdout
    assert since.splitlines() == texts[4:]
    assert command("admin-log", "--account", "demo", "--db", service.url).stdout == ""


@pytest.mark.both_stores
def test_a_change_that_fails_leaves_no_entry_and_an_entry_that_fails_no_change(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    store = opening.open_store(service.url, exclusive=False)
    with monkeypatch.context() as patched:
        patched.setattr("idpass_server.store.admin_log.record", fail)
        with pytest.raises(RuntimeError):
            store.set_account("demo", slot_limit=1)
    assert service.account().slot_limit == 1000
    service.register()
    assert not store.set_account("demo", slot_limit=1, fee=parse_money("USD 1"))
    assert not store.set_account("nobody", slot_limit=1)
    store.close()
    assert (service.account().slot_limit, logged(service.url)) == (1000, [])


def test_all_accounts_are_listed(service: Service, command: Command) -> None:
    db = ("--db", service.url)
    service.pass_in("cancelled")
    service.register()
    command("account", "create", "acme", "--slots", "5", "--fee", "KWD 1.125", *db)
    command("account", "disable", "acme", *db)
    assert command("account", "list", *db).stdout.splitlines() == [
        "account  state     slots   fee        fees charged  fees refunded",
        "acme     disabled  0/5     KWD 1.125  KWD 0.000     KWD 0.000",
        "demo     enabled   1/1000  AUD 4.50   AUD 9.00      AUD 4.50",
    ]
    acme, demo = json.loads(command("account", "list", "--json", *db).stdout)
    assert (acme["account"], acme["state"], acme["fee"]) == ("acme", "disabled", "1.125")
    assert (demo["currency"], demo["fees_charged"], demo["fees_refunded"]) == (
        ("AUD", "9.00", "4.50")
    )


def test_deleting_asks_on_a_terminal_and_refuses_elsewhere(service: Service) -> None:
    delete = ("account", "delete", "demo", "--db", service.url)
    done = subprocess.run(
        [sys.executable, "-m", "idpass_server", *delete],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Delete account demo? There is no terminal to ask on" in done.stderr
    assert "give --yes" in done.stderr
    ours, theirs = pty.openpty()
    with open(ours, "wb", buffering=0) as keys, open(theirs, "rb") as terminal:  # noqa: PTH123 descriptors
        for answer, code, said in ((b"n\n", 1, "Aborted!"), (b"y\n", 0, "")):
            keys.write(answer)
            done = subprocess.run(
                [sys.executable, "-m", "idpass_server", *delete],
                stdin=terminal,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (done.returncode, said in done.stderr) == (code, True), done.stderr
            assert "Delete account demo? [y/N]" in done.stderr
    assert logged(service.url)[0].what == "account delete"


def test_deleting_asks_too_where_a_restored_backup_let_numbers_skip(
    service: Service, command: Command
) -> None:
    store = opening.open_store(service.url, exclusive=False)
    store._operate(lambda it: bool(history.begin(it, "x", 10**15)))  # type: ignore[attr-defined]
    store.close()
    assert "give --yes" in command("account", "delete", "demo", "--db", service.url, code=2).stderr
    assert service.account().last_sequence == 10**15
    command("account", "delete", "demo", "--yes", "--db", service.url)
    assert refused(service.register).reason == "ACCOUNT_DISABLED"


@pytest.mark.parametrize(
    ("name", "env", "who"),
    [
        ("alice", {"SUDO_USER": "bob"}, "alice"),
        (None, {"SUDO_USER": "bob", "LOGNAME": "root"}, "bob"),
        (None, {"LOGNAME": "carol"}, "carol"),
    ],
)
def test_the_operator_is_who_they_say_or_who_logged_in(
    name: str | None, env: dict[str, str], who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    for variable, value in env.items():
        monkeypatch.setenv(variable, value)
    assert asking.operator(name) == f"{who}@{socket.gethostname()}"


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr("getpass.getuser", nameless)
    assert asking.operator().startswith("uid-")


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "é", "x" * 129])
def test_a_name_that_would_spoil_the_log_is_refused(name: str) -> None:
    with pytest.raises(BadSetting, match="visible ASCII"):
        asking.operator(name)


@pytest.mark.parametrize(
    "since", ["yesterday", "2026-11-25T09:30:00", "2026-13-01", "20261125", ""]
)
def test_a_moment_without_its_zone_is_refused(tmp_path: Path, since: str, command: Command) -> None:
    db = f"sqlite:///{tmp_path / 'idpass.db'}"
    done = command("admin-log", "--since", since, "--db", db, code=2)
    assert "neither a day in UTC" in done.stderr


def test_parameters_are_found_and_nothing_else_is() -> None:
    statement = "SELECT '%', x::text FROM t WHERE a = :a AND b LIKE :b_c"
    expected = "SELECT '%%', x::text FROM t WHERE a = %(a)s AND b LIKE %(b_c)s"
    assert either._in_psycopg(statement) == expected


def test_the_admin_log_needs_no_server(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path / 'idpass.db'}"
    cli("init", "--db", db)
    done = cli("account", "delete", "demo", "--yes", "--as", "alice", "--db", db)
    assert (done.returncode, done.stdout) == (0, "account demo is deleted\n")
    (entry,) = logged(db)
    assert (entry.who, json.loads(entry.before or "")) == (f"alice@{socket.gethostname()}", NOBODY)
