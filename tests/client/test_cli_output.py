"""What the command line writes: output that fails, and text that would steer the terminal."""

import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from idpass import IdPass, IdPassClient, Status, _show, _stdio
from kit.client import PutPass

COMMAND = [sys.executable, "-m", "idpass.cli"]
FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
HOSTILE = [
    "jane [/x]",
    "jane \\[/x]",
    "[link=https://evil.example]click[/link]",
    "[red]x[/red] :boom:",
    "\x9b31mred\x9c \x1b]8;;https://evil.example\x07",
    "safe\u202etxt.exe\u2066\u2069",
    "one\ntwo\r\u2028three\u2029\x85four",
    "\\",
    "ends with \\",
]


def run(address: str, *arguments: str, out: Any, **more: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments],
        env=os.environ | {"IDPASS_ADDRESS": address} | more.pop("env", {}),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


@contextmanager
def no_reader() -> Iterator[IO[bytes]]:
    """A pipe whose reader has left."""
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb") as pipe:
        yield pipe


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_change_whose_output_fails_is_told_apart_from_a_refused_one(
    address: str, put_pass: PutPass, setup_client: IdPassClient, form: list[str]
) -> None:
    for out in (lambda: FULL.open("wb"), no_reader):
        pass_id = put_pass(Status.OPENED)
        with out() as stream:
            done = run(address, "cancel", pass_id, *form, out=stream)
        assert done.returncode == 5
        (line,) = done.stderr.splitlines()
        assert line.startswith("The output cannot be written (")
        assert f"Done: {pass_id}  cancelled (was opened), AUD 4.50 refunded" in line
        assert setup_client.get(pass_id).status is Status.CANCELLED


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_so_is_every_change(
    address: str, put_pass: PutPass, setup_client: IdPassClient, form: list[str]
) -> None:
    ids = [put_pass(), put_pass()]
    with FULL.open("wb") as full:
        several = run(address, "cancel", *ids, *form, out=full)
        registered = run(address, "register", *form, out=full)
        swept = run(
            *(address, "cleanup", "--idle-for", "0s", "--status", "new", "--yes", *form), out=full
        )
    for done in (several, registered, swept):
        assert done.returncode == 5
        assert len(done.stderr.splitlines()) == 1
    assert f"Done: {ids[0]}  cancelled" in several.stderr
    assert "others may be too" in several.stderr
    assert {setup_client.get(each).status for each in ids} == {Status.CANCELLED}
    (new,) = re.findall(r"Done: registered (\S+)", registered.stderr)
    assert setup_client.get(new).status is Status.CANCELLED
    assert re.search(r"Done: cancelled \d+, \d+ of them refunded: AUD ", swept.stderr)


def test_a_refusal_keeps_its_exit_code_where_the_output_fails(
    address: str, put_pass: PutPass
) -> None:
    pass_id = put_pass(Status.CANCELLED)
    with FULL.open("wb") as full:
        done = run(address, "cancel", pass_id, "--json", out=full)
        assert (done.returncode, done.stderr.split(":")[0]) == (1, "AlreadyCancelled")
        done = run("127.0.0.1:1", "--timeout", "0.2", "cancel", pass_id, "--json", out=full)
        assert (done.returncode, done.stderr.split(":")[0]) == (4, "Unavailable")
        only_checked = run(address, "cancel", pass_id, "--validate-only", out=full)
        assert "Done" not in only_checked.stderr


def test_a_reader_who_has_seen_enough_is_no_failure_to_speak_of(address: str) -> None:
    with no_reader() as pipe:
        done = run(address, "list", out=pipe)
    assert (done.returncode, done.stderr) == (5, "")
    with FULL.open("wb") as full:
        done = run(address, "list", out=full)
    assert done.returncode == 5
    assert done.stderr == "The output cannot be written (No space left on device).\n"


def test_a_closed_output_is_told_before_anything_is_done(
    address: str, put_pass: PutPass, setup_client: IdPassClient
) -> None:
    pass_id = put_pass()
    script = 'exec "$@" >&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, "--address", address, "cancel", pass_id],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "standard output is closed" in done.stderr
    assert setup_client.get(pass_id).status is Status.NEW


def test_an_encoding_without_the_letters_is_no_failure(address: str) -> None:
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    registered = run(
        address, "register", "--applicant", "Zoë 𝕏", "--json", out=subprocess.PIPE, env=env
    )
    assert registered.returncode == 0, registered.stderr
    id_pass = json.loads(registered.stdout)["id_pass"]
    assert id_pass["applicant_reference"] == "Zoë 𝕏"
    shown = run(address, "get", id_pass["id"], out=subprocess.PIPE, env=env)
    assert (shown.returncode, r"Zo\xeb" in shown.stdout) == (0, True)
    cancelled = run(address, "cancel", id_pass["id"], out=subprocess.PIPE, env=env)
    assert cancelled.returncode == 0
    seen = run(address, "watch", id_pass["id"], out=subprocess.PIPE, env=env)  # with an arrow
    assert (seen.returncode, r"new \u2192 cancelled" in seen.stdout) == (0, True)


@pytest.fixture(scope="module")
def example(setup_client: IdPassClient) -> IdPass:
    return setup_client.register().id_pass


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_others_is_text(example: IdPass, text: str) -> None:
    """Also what an older service has let in, or another one."""
    id_pass = replace(example, applicant_reference=text, caller=text)
    out = io.StringIO()
    console = _stdio.console(out, needed=True, width=1_000, force_terminal=True)
    _show.pass_table(console, [id_pass])
    _show.rows(console, _show.pass_rows(id_pass))
    shown = out.getvalue()
    own = re.compile(r"\x1b\[[0-9;]*m")  # colours of ours
    plain = own.sub("", shown)
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"} for c in plain if c != "\n")
    expected = "".join(c if c.isprintable() else "�" for c in text)
    assert plain.count(expected) == 3
    line = _show.as_json(id_pass)
    assert line.isprintable()
    assert json.loads(line)["applicant_reference"] == text
    assert _show.as_json(id_pass, ascii_only=True).isascii()
