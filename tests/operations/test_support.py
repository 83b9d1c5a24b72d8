"""What a support desk and finance ask, beside a running server."""

import csv
import io
import json
import os
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from idpass_server.cli import reports
from idpass_server.store import accounts, either, inquiries, opening, refunds
from kit.commands import Command
from kit.documents import command as command_block
from kit.guarded import Guarded, caller
from kit.shell import PROGRAMS
from kit.support import UNKNOWN_ID, Service, cli, make_accounts

Rows = list[dict[str, str]]


def rows(done: Result) -> Rows:
    """The CSV that a command has printed."""
    printed = done.stdout_bytes.decode()
    assert printed.count("\n") == printed.count("\r\n")
    return list(csv.DictReader(io.StringIO(printed, newline="")))


def amount(money: Any) -> Decimal:
    return Decimal(money.units) + Decimal(money.nanos) / 1_000_000_000


@pytest.mark.both_stores
def test_a_pass_is_found_in_whichever_account_and_shown_with_its_note(
    guarded: Guarded, command: Command
) -> None:
    ann, bob = guarded.with_token("ann-token"), guarded.with_token("bob-token")
    note = "lost his\nphone \u202e"[:-1]
    bob.register(applicant_reference="p-1")
    pass_id = bob.register(applicant_reference="p-1", request_id="r-1").id_pass.id
    ann.register(applicant_reference="p-1")
    done = bob.cancel(pass_id, request_id="c-1", reason="CANCEL_REASON_ABANDONED", note=note)
    db = ("--db", guarded.url)
    shown = command("pass", "show", pass_id.upper(), *db).stdout
    for said in (
        *("account        beta", "fee            AUD 4.50, refunded", 'applicant      "p-1"'),
        *('note           "lost his\\nphone "', "reason         abandoned"),
        *(done.reference, "c-1", "r-1", "charged AUD 4.50", "refunded AUD 4.50"),
    ):
        assert said in shown
    facts = json.loads(command("pass", "show", pass_id, "--json", *db).stdout)
    assert (facts["note"], facts["status"], facts["fee"]) == (note, "cancelled", "4.50")
    first, last = facts["events"]
    assert (first["charge"], first["request_id"], first["caller"]) == ("4.50", "r-1", "bob")
    assert (last["refund"], last["reference"]) == ("4.50", done.reference)
    assert last["time"] == facts["end_time"] == done.cancel_time.ToJsonString()

    found = json.loads(command("pass", "find", "--applicant", "p-1", "--json", *db).stdout)
    assert [each["account"] for each in found] == ["acme", "beta", "beta"]
    assert found[1]["id"] == pass_id
    assert "note" not in found[1]
    table = command("pass", "find", "--applicant", "p-1", "--account", "beta", *db).stdout
    assert [line.split()[1] for line in table.splitlines()] == ["account", "beta", "beta"]
    for arguments, code, said in (
        (("show", pass_id, "--account", "acme"), 1, "account acme has no pass"),
        (("show", UNKNOWN_ID), 1, "no account has a pass"),
        (("show", "p-1"), 2, "is not a UUID"),
        (("find", "--applicant", "p"), 1, "compared as a whole"),
        (("find", "--applicant", ""), 2, "is empty"),
    ):
        assert said in command("pass", *arguments, *db, code=code).stderr
    assert "lost his" not in command("pass", "find", "--applicant", "p-1", *db).stdout


@pytest.mark.both_stores
def test_no_support_command_scans_all_passes(service: Service) -> None:
    with opening.reading_store(service.url) as connection:
        explain = "EXPLAIN" if "postgresql" in service.url else "EXPLAIN QUERY PLAN"
        if "postgresql" in service.url:  # on a table of this size a scan is right
            connection.execute("SET LOCAL enable_seqscan = off")
        for statement, values, by in (
            (inquiries._BY_ID, {"id": UNKNOWN_ID}, ("PRIMARY KEY", "passes_pkey")),
            (
                inquiries._BY_APPLICANT,
                {"applicant_reference": "x"},
                ("passes_applicant_reference",) * 2,
            ),
        ):
            plan = either.run(connection, f"{explain} {statement}", account=None, **values)
            said = str([tuple(row) for row in plan])
            assert "SCAN passes" not in said
            assert any(each in said for each in by), said


@pytest.mark.both_stores
def test_refunds_add_up_to_the_accounts_totals(guarded: Guarded, command: Command) -> None:
    ann, bob = guarded.with_token("ann-token"), guarded.with_token("bob-token")
    db = ("--db", guarded.url)
    command("account", "set", "beta", "--fee", "KWD 1.125", *db)
    for each in (ann, bob):
        for status in ("new", "opened", "in_progress"):
            each.cancel(each.pass_in(status), reason="CANCEL_REASON_DUPLICATE")
        each.pass_in("expired")
    done = command("report", "refunds", *db)
    assert done.stderr.startswith("reconciled: the events of 3 accounts add up")
    printed = rows(done)
    listed = [row for row in printed if row["record"] == "refund"]
    totals = {row["account"]: row for row in printed if row["record"] == "total"}
    assert [(row["account"], row["currency"], row["refunded"]) for row in listed] == [
        *[("acme", "AUD", "4.50")] * 2,
        *[("beta", "KWD", "1.125")] * 2,
    ]
    assert {row["reason"] for row in listed} == {"duplicate"}
    events = [event for event in ann.events() if event.HasField("refund")]
    assert [row["time"] for row in listed[:2]] == [e.event_time.ToJsonString() for e in events]
    assert [row["pass"] for row in listed[:2]] == [e.id_pass_id for e in events]
    for name, calls in (("acme", ann), ("beta", bob)):
        account = calls.account()
        assert Decimal(totals[name]["refunded"]) == amount(account.fees_refunded)
        assert Decimal(totals[name]["charged"]) == amount(account.fees_charged)
        assert totals[name]["refunds"] == "2"
    as_json = command("report", "refunds", "--format", "json", *db).stdout.splitlines()
    assert [{name: value for name, value in row.items() if value} for row in printed] == [
        {name: value for name, value in json.loads(line).items() if value} for line in as_json
    ]

    only = rows(command("report", "refunds", "--account", "beta", *db))
    assert only == [row for row in printed if row["account"] == "beta"]


@pytest.mark.both_stores
def test_a_time_includes_its_beginning_and_not_its_end(service: Service, command: Command) -> None:
    times = []
    for _ in range(3):
        cancelled = service.cancel(service.pass_in("new"))
        times.append(cancelled.cancel_time.ToJsonString())
        service.time.advance(us=1)
    done = command("report", "refunds", "--from", times[1], "--to", times[2], "--db", service.url)
    refund, total = rows(done)
    assert refund["time"] == times[1]
    assert (total["refunded"], total["charged"], total["refunds"]) == ("4.50", "4.50", "1")
    assert "reconciled" in done.stderr
    until = command("report", "refunds", "--to", times[0], "--db", service.url)
    assert [row["record"] for row in rows(until)] == ["total"]
    for wrong, said in (
        (("--from", times[1], "--to", times[1]), "is not before --to"),
        (("--from", "2026-11-25T00:00"), "with its zone"),
    ):
        assert said in command("report", "refunds", *wrong, "--db", service.url, code=2).stderr
    done = command("report", "refunds", "--account", "nobody", "--db", service.url, code=1)
    assert "there is no account nobody" in done.stderr


@pytest.mark.both_stores
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "UPDATE accounts SET refunded_micros = refunded_micros - 10000",
            "fees refunded: AUD 4.50",
        ),
        ("UPDATE accounts SET charged_micros = charged_micros + 10000", "fees charged: AUD 4.50"),
    ],
)
def test_a_cent_that_is_missing_is_found(
    db: Path | str, change: str, said: str, command: Command
) -> None:
    service = Service(db)
    service.cancel(service.pass_in("new"))
    service.stop()
    store = opening.open_store(service.url, exclusive=False)
    connection = store._writer if hasattr(store, "_writer") else None
    if isinstance(db, Path):
        connection.execute(change)  # type: ignore[union-attr]
    else:
        store._reader.run(lambda it: it.execute(change))  # type: ignore[attr-defined]
    store.close()
    done = command("report", "refunds", "--db", service.url, code=1)
    assert f"not reconciled: account demo, {said} by its events" in done.stderr
    assert "idpass-server audit" in done.stderr
    assert rows(done)[0]["record"] == "refund"


def test_what_is_listed_is_compared_with_the_totals_too(
    service: Service, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.cancel(service.pass_in("new"))
    monkeypatch.setattr(reports, "refunds", lambda *_: iter(()))
    done = command("report", "refunds", "--db", service.url, code=1)
    assert "account demo, refunds listed: AUD 0.00 by its events, AUD 4.50" in done.stderr


def test_no_cell_is_a_formula_and_every_cell_is_read_back() -> None:
    for text in ("=1+1", "+1", "-1", "@x", "\tx", "\rx"):
        assert reports._harmless(text) == f"'{text}"
    odd = {"record": "refund", "account": 'a"b,c\nd', "caller": "=cmd"}
    (row,) = csv.DictReader(io.StringIO("".join(reports._as_csv([odd])), newline=""))
    assert (row["account"], row["caller"]) == ('a"b,c\nd', "'=cmd")


def test_a_long_report_is_written_in_pieces() -> None:
    pieces = list(reports._pieces(["x" * 60_000] * 5))
    assert "".join(pieces) == "x" * 300_000
    assert max(map(len, pieces)) <= 120_000


def test_a_callers_file_is_checked_as_the_server_would(tmp_path: Path, command: Command) -> None:
    file = tmp_path / "callers.toml"
    db = f"sqlite:///{tmp_path / 'idpass.db'}"
    make_accounts(tmp_path / "idpass.db", "acme", "beta")
    file.write_text(caller("ann") + caller("bob", "beta"))
    done = command("callers", "check", str(file), "--db", db)
    assert "all is well: 2 callers with 2 tokens and 0 SPIFFE IDs; accounts: all in" in done.stdout
    command("account", "disable", "beta", "--db", db)
    done = command("callers", "check", str(file), "--db", db)
    assert done.stderr == "warning: account beta of bob is disabled\n"
    file.write_text(caller("ann", "gone") + caller("bob").replace("bob-token", "ann-token"))
    assert "accounts: not compared" in command("callers", "check", str(file)).stdout
    assert f"{file}:2: there is no account 'gone'" in (
        command("callers", "check", str(file), "--db", db, code=1).stderr
    )
    file.write_text(caller("ann") + caller("ann").replace("callers.ann", "callers.eve") + "x = 1\n")
    wrong = command("callers", "check", str(file), code=1).stderr
    assert f"{file}:8: this token_sha256 already belongs to caller 'ann' (line 4)" in wrong
    assert f"{file}:9: unknown key 'x'" in wrong
    for path, said in (("nothing.toml", "No such file"), (".", "is a directory")):
        code = 2 if path == "." else 1
        assert said in command("callers", "check", str(tmp_path / path), code=code).stderr
    assert command("callers", "check", code=2).stderr


def test_a_callers_file_is_checked_without_the_database_by_default(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IDPASS_DB counts as --db: who sets it means that database everywhere."""
    file = tmp_path / "callers.toml"
    file.write_text(caller("ann"))
    monkeypatch.setenv("IDPASS_DB", f"sqlite:///{tmp_path / 'none.db'}")
    assert "there is no database" in command("callers", "check", str(file), code=1).stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("program", ["idpass-server", "idpass"])
def test_completion_is_what_the_shells_take(program: str, shell: str) -> None:
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    done = subprocess.run(
        [str(PROGRAMS / program)],
        env=os.environ | {variable: f"{shell}_source"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, variable in done.stdout) == (0, True), done.stderr
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


@pytest.mark.parametrize(
    ("program", "line", "expected"),
    [
        ("idpass-server", "account d", {"disable", "delete"}),
        ("idpass-server", "report refunds --for", {"--format"}),
        ("idpass", "reg", {"register"}),
    ],
)
def test_bash_completes_commands_and_options(program: str, line: str, expected: set[str]) -> None:
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    words = [program, *line.split()]
    done = subprocess.run(
        [str(PROGRAMS / program)],
        env=os.environ
        | {
            variable: "bash_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert {each.partition(",")[2] for each in done.stdout.splitlines()} == expected


def test_the_documented_lines_complete_in_bash(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not here")
    script = command_block("support.md", "eval") + (
        'for line in "idpass-server account dis" "idpass reg"; do COMPREPLY=(); COMP_WORDS=($line);'
        " COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); $(complete -p ${COMP_WORDS[0]}"
        " | sed 's/.*-F \\([^ ]*\\).*/\\1/') ${COMP_WORDS[0]}; echo ${COMPREPLY[@]}; done"
    )
    env = os.environ | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [bash, "-euc", script], env=env, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.split() == ["disable", "register"], done.stderr


def test_a_report_reads_one_snapshot(service: Service) -> None:
    service.cancel(service.pass_in("new"))
    wanted = refunds.Range(0, 2**53)
    with opening.reading_store(service.url) as connection:
        before = refunds.totals(connection, wanted)
        service.cancel(service.pass_in("new"))
        assert len(list(refunds.refunds(connection, wanted))) == 1
        assert refunds.totals(connection, wanted) == before
        assert [each.name for each in accounts.every(connection)] == ["demo"]


def test_support_needs_no_server(tmp_path: Path) -> None:
    db = ("--db", f"sqlite:///{tmp_path / 'idpass.db'}")
    assert "there is no database" in cli("pass", "show", UNKNOWN_ID, *db).stderr
    cli("init", *db)
    done = cli("report", "refunds", *db)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr
