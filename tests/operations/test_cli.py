"""The command line: what it does, and what it says when it cannot."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from idpass_server.cli import main
from idpass_server.cli.base import COMMANDS
from idpass_server.config import OPTIONS, Settings
from idpass_server.failures import BadSetting
from idpass_server.rules.money import parse_money, show_money
from idpass_server.rules.records import Money
from kit.commands import subcommands
from kit.serving import interruptible
from kit.support import Service, cli, process

QUOTA = "--registrations-per-day"


def test_demo_shows_every_status_and_exits_zero() -> None:
    done = cli("demo")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    answers = {row[0]: " ".join(row[1:]) for row in rows if row}
    assert answers["new"].startswith("OK cancelled AUD 4.50")
    assert answers["opened"].startswith("OK cancelled AUD 4.50")
    assert answers["in_progress"].startswith("OK cancelled none")
    for status in ("complete", "expired", "failed"):
        assert f"PASS_{status.upper()}" in answers[status]
    assert "PASS_ALREADY_CANCELLED" in answers["cancelled"]
    assert done.stderr == ""


def test_demo_fails_when_the_lifecycle_is_broken() -> None:
    broken = (
        "from idpass_server.rules import domain\n"
        "domain._cancel.__globals__['TRANSITIONS'] = {**domain.TRANSITIONS,\n"
        "    'in_progress': {**domain.TRANSITIONS['in_progress'],"
        " 'cancelled': domain.Fee.REFUNDED}}\n"
        "from idpass_server.cli import main\n"
        "main(['demo'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", broken], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "NOT as it should be" in done.stdout


def test_an_account_is_made_shown_and_changed(tmp_path: Path) -> None:
    db = ("--db", f"sqlite:///{tmp_path / 'idpass.db'}")
    assert cli("init", *db).returncode == 0
    made = cli("account", "create", "acme", "--slots", "25", "--fee", "KWD 3.125", *db)
    assert made.returncode == 0, made.stderr
    assert "KWD 3.125" in made.stdout
    assert "0 of 25 in use" in made.stdout
    again = cli("account", "create", "acme", "--slots", "1", "--fee", "EUR 1", *db)
    assert (again.returncode, "account acme exists" in again.stderr) == (1, True)
    changed = cli("account", "set", "acme", "--slots", "30", "--fee", "USD 2", *db)
    assert "0 of 30 in use" in changed.stdout
    assert "USD 2.00" in changed.stdout
    assert "no quota" in changed.stdout
    changed = cli("account", "set", "acme", "--registrations-per-day", "500", *db)
    assert "500 a day" in changed.stdout
    assert "0 of 30 in use" in changed.stdout
    assert cli("account", "show", "acme", *db).stdout == changed.stdout
    for none in ("none", "0"):
        cli("account", "set", "acme", "--registrations-per-day", "500", *db)
        changed = cli("account", "set", "acme", "--registrations-per-day", none, *db)
        assert "no quota" in changed.stdout
    made = cli("account", "create", "b", "--slots", "1", "--fee", "EUR 1", QUOTA, "7", *db)
    assert "7 a day" in made.stdout
    assert "AUD 4.50" in cli("account", "show", "demo", *db).stdout


def test_an_account_changes_while_it_is_served(tmp_path: Path) -> None:
    db = tmp_path / "idpass.db"
    with process(db) as server:
        first = server.register().id_pass
        done = cli(
            "account", "set", "demo", "--slots", "7", "--fee", "AUD 5", "--db", f"sqlite:///{db}"
        )
        assert done.returncode == 0, done.stderr
        account = server.account()
        assert (account.slot_limit, account.fee.units) == (7, 5)
        assert server.register().id_pass.fee.units == 5
        assert server.cancel(first.id).refund == first.fee


def test_an_account_that_has_charged_keeps_its_currency(service: Service) -> None:
    service.cancel(service.register().id_pass.id)  # none is in flight any more
    done = cli("account", "set", "demo", "--fee", "USD 1", "--db", service.url)
    assert done.returncode == 1
    assert "keeps that currency" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["serve", "--listen", "0.0.0.0:50051"], 2, "or use 127.0.0.1"),
        (["serve", "--listen", "example.org:50051"], 2, "refused"),
        (["serve", "--listen", "[::]:50051"], 2, "refused"),
        (["serve", "--listen", "50051"], 2, "is not HOST:PORT"),
        (["serve", "--listen", "127.0.0.1:99999"], 2, "is not HOST:PORT"),
        (["serve", "--db", "idpass.db"], 2, "is not a database URL"),
        (["serve", "--db", "mysql://localhost/x"], 2, "is not a database URL"),
        (["serve", "--db", "sqlite:///"], 2, "is not a database URL"),
        (["serve", "--db", "sqlite:////nowhere/at/all/x.db"], 1, "cannot be made"),
        (["serve", "--max-calls", "0"], 2, "max-calls"),
        (["serve", "--nonsense"], 2, "No such option"),
        (["audit", "--db", "sqlite:///nothing.db"], 1, "/nothing.db; is the path right"),
        (["account", "show", "acme", "--db", "sqlite:///nothing.db"], 1, "there is no database"),
        (["account", "create", "Acme!", "--slots", "1", "--fee", "AUD 1"], 2, "is not 1 to 63"),
        (["account", "create", "a", "--slots", "-1", "--fee", "AUD 1"], 2, "--slots"),
        (["account", "create", "a", "--slots", "1", "--fee", "4.50"], 2, "such as 'AUD 4.50'"),
        (["account", "set", "demo"], 2, "nothing to change"),
        (["account", "set", "demo", QUOTA, "-1"], 2, QUOTA),
        (["account", "set", "demo", QUOTA, "many"], 2, QUOTA),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_showing_an_account_that_is_not_there_says_how_to_make_it(service: Service) -> None:
    done = cli("account", "show", "acme", "--db", service.url)
    assert done.returncode == 1
    assert "idpass-server account create acme" in done.stderr


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    import sqlite3  # noqa: PLC0415 another program's library

    db = tmp_path / "other.db"
    other = sqlite3.connect(db)
    other.execute("CREATE TABLE holidays (day TEXT)")
    other.commit()
    other.close()
    before = db.read_bytes()
    done = cli("serve", "--listen", "127.0.0.1:0", "--db", f"sqlite:///{db}")
    assert (done.returncode, "not one of idpass-server" in done.stderr) == (1, True)
    assert db.read_bytes() == before


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    from idpass_server.store.sqlite.file import connect  # noqa: PLC0415

    service = Service(tmp_path / "idpass.db")
    service.stop()
    connection = connect(tmp_path / "idpass.db")
    connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
        "VALUES ('idpass', 'from_the_future', '')"
    )
    connection.execute("UPDATE schema_compatibility SET oldest = 1000")
    connection.close()
    done = cli("serve", "--listen", "127.0.0.1:0", "--db", service.url)
    assert done.returncode == 1
    assert "newer idpass-server (it has from_the_future)" in done.stderr


def test_ctrl_c_ends_the_demo_without_a_stack_trace() -> None:
    with subprocess.Popen(
        [*interruptible(sys.executable), "-m", "idpass_server", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as demo:
        assert demo.stdout
        assert demo.stderr
        demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        assert "Traceback" not in demo.stderr.read()
        assert demo.wait() in {1, -signal.SIGINT}


@pytest.mark.parametrize(
    ("text", "micros", "shown"),
    [
        ("AUD 4.50", 4_500_000, "AUD 4.50"),
        ("JPY 300", 300_000_000, "JPY 300"),
        ("JPY 300.00", 300_000_000, "JPY 300"),
        ("KWD 1.125", 1_125_000, "KWD 1.125"),
        ("KWD 1.5", 1_500_000, "KWD 1.500"),
        ("CLF 0.0001", 100, "CLF 0.0001"),
        ("XTS 0.000001", 1, "XTS 0.000001"),
        ("EUR 0", 0, "EUR 0.00"),
    ],
)
def test_money_is_read_and_shown(text: str, micros: int, shown: str) -> None:
    money = parse_money(text)
    assert money == Money(text[:3], micros)
    assert show_money(money) == shown
    assert parse_money(shown) == money


@pytest.mark.parametrize(
    "text",
    [
        *("", "AUD", "4.50 AUD", "aud 4.50", "AUD -1", "AUD 1.1234567", "AUD 1,5", "AUD  1"),
        *("JPY 450.123456", "JPY 0.5", "AUD 4.505", "KWD 1.1255", "CLF 1.00001"),
    ],
)
def test_what_is_no_money_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no amount of money|cannot be paid"):
        parse_money(text)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:50051", "[::1]:1", "127.1.2.3:65535"])
def test_loopback_addresses_are_served(listen: str) -> None:
    assert Settings(listen=listen).listen == listen


@pytest.mark.parametrize(
    "setting",
    [
        {"max_calls": 0},
        {"max_pending": 999},
        {"rate_per_s": -1},
        {"rate_per_s": math.inf},
        {"drain_s": math.nan},
        {"max_idle_s": 1e12},
        {"max_streams": 2**31},
        {"workers": 257, "db": "postgresql:///x"},
        {"log_level": "loud"},
    ],
)
def test_a_setting_out_of_its_range_is_refused_on_every_way_in(setting: dict[str, Any]) -> None:
    name = next(iter(setting))
    flag = OPTIONS[name].flag
    with pytest.raises(BadSetting, match=f"^{flag} "):
        Settings(**setting)
    done = CliRunner().invoke(main, ["serve", flag, str(setting[name])])
    assert done.exit_code == 2
    assert flag in done.output


def test_every_option_of_serve_is_declared_as_a_setting() -> None:
    assert [option.name for option in subcommands(main)["serve"].params] == list(OPTIONS)


def test_every_command_has_its_module_and_each_module_has_no_other() -> None:
    found = {name: each.callback.__module__ for name, each in subcommands(main).items()}
    assert found == {name: f"idpass_server.cli.{module}" for name, module in COMMANDS.items()}
    assert set(main.commands) == set(COMMANDS)
    assert list(COMMANDS) == sorted(COMMANDS)


def test_what_a_command_does_not_need_is_not_imported() -> None:
    told = (
        "import sys; from idpass_server.cli import main\n"
        "main(['account', 'list', '--help'], standalone_mode=False)\n"
        "print(sorted({'grpc', 'starlette', 'uvicorn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_options_that_commands_share_are_declared_once() -> None:
    variables = {option.variable for option in OPTIONS.values()}
    for command in subcommands(main).values():
        for option in command.params:
            if option.envvar:
                assert option.envvar in variables
            if option.envvar and option.name in OPTIONS:
                assert option.envvar == OPTIONS[option.name].variable


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_fails_after_a_change_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    db = ("--db", f"sqlite:///{tmp_path}/x.db")
    assert cli("init", *db).returncode == 0
    made = cli("account", "create", "acme", "--slots", "3", "--fee", "AUD 1", *db)
    assert made.returncode == 0, made.stderr
    ours, theirs = os.pipe()
    os.close(ours)  # nobody reads
    for slots, out in ((4, Path("/dev/full").open("wb")), (5, os.fdopen(theirs, "wb"))):  # noqa: SIM115
        with out:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "idpass_server"),
                    *("account", "set", "acme", "--slots", str(slots), *db),
                ],
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 5
        (line,) = done.stderr.splitlines()
        assert line.startswith("Error: the output cannot be written (")
        assert f"0 of {slots} in use" in cli("account", "show", "acme", *db).stdout
