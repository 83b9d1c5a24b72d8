"""The package as its users see it: names, types, and what importing it costs."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import grpc
import mypy.api
import pytest

import idpass
from idpass import (
    AsyncIdPassClient,
    CancelReason,
    IdPassClient,
    Status,
    _policy,
    _read,
    _records,
    _words,
    errors,
    testing,
)
from idpass.v1 import id_pass_pb2 as pb

SAMPLE = Path(__file__).with_name("typed_caller.txt")


def test_the_public_names_are_there_and_no_others() -> None:
    assert idpass.__all__ == sorted(idpass.__all__)
    for name in idpass.__all__:
        assert getattr(idpass, name).__module__.startswith("idpass.")
    assert set(idpass.__all__) <= set(dir(idpass))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        idpass.Nothing  # noqa: B018 is the point


def test_the_fakes_are_public_and_explained() -> None:
    assert testing.__all__ == sorted(testing.__all__)
    own = {n for n, m in vars(testing).items() if getattr(m, "__module__", "") == "idpass.testing"}
    assert own == set(testing.__all__)
    for name in testing.__all__:
        for method, function in inspect.getmembers(getattr(testing, name), inspect.isfunction):
            if not method.startswith("_"):
                assert inspect.getdoc(function), f"{name}.{method}"


def test_every_error_and_record_is_public() -> None:
    for module in (errors, _records, _words, _policy):
        for name, member in vars(module).items():
            if inspect.isclass(member) and member.__module__ == module.__name__:
                assert name in idpass.__all__ or name == "Word"


def test_everything_public_is_explained() -> None:
    for name in idpass.__all__:
        member = getattr(idpass, name)
        assert inspect.getdoc(member), name
        for method, function in inspect.getmembers(member, inspect.isfunction):
            if not method.startswith("_") and function.__module__.startswith("idpass."):
                assert inspect.getdoc(function), f"{name}.{method}"


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(client: type) -> dict[str, list[tuple[str, object, object]]]:
        return {
            name: [
                (p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()
            ]
            for name, function in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    assert methods(IdPassClient) == methods(AsyncIdPassClient)


def test_importing_the_stubs_loads_nothing_of_the_client() -> None:
    code = "import sys, idpass.v1.id_pass_pb2; print(*(m for m in sys.modules if 'idpass' in m))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) == {"idpass", "idpass.v1", "idpass.v1.id_pass_pb2"}


def test_words_are_text_wherever_text_is_wanted() -> None:
    assert Status("in_progress") is Status.IN_PROGRESS
    assert f"{Status.IN_PROGRESS} {Status.NEW!s:>4}" == "in_progress  new"
    word: str = Status.NEW
    assert word == "new"
    with pytest.raises(ValueError, match="opned"):
        Status("opned")


@pytest.mark.parametrize(
    ("words", "typed"), [(Status, _words.AnyStatus), (CancelReason, _words.AnyReason)]
)
def test_a_type_checker_knows_every_word(words: Any, typed: Any) -> None:
    enum, literal = get_args(typed)
    assert enum is words
    assert get_args(literal) == tuple(map(str, words))


NOTE, APPLICANT, TOKEN = "note-7f3a", "applicant-7f3a", "token-7f3a"


@pytest.mark.parametrize("kind", [IdPassClient, AsyncIdPassClient])
def test_a_client_shows_where_it_leads_and_no_secret(kind: Any) -> None:
    assert repr(kind("localhost:1")) == f"{kind.__name__}('localhost:1', tls=False)"
    told = repr(kind("idpass.example.com:443", tls=True, token=TOKEN, metadata={"x-key": TOKEN}))
    assert told == f"{kind.__name__}('idpass.example.com:443', tls=True, token=…)"


def test_a_closed_client_shows_that() -> None:
    with IdPassClient("localhost:1") as client:
        pass
    assert repr(client) == "IdPassClient('localhost:1', tls=False, closed)"


def test_an_error_shows_what_a_report_needs() -> None:
    error = idpass.NotFound(
        "No such pass.", code=grpc.StatusCode.NOT_FOUND, reason="PASS_NOT_FOUND", reference="0193"
    )
    assert repr(error) == (
        "NotFound('No such pass.', code=NOT_FOUND, reason='PASS_NOT_FOUND', reference='0193')"
    )
    assert repr(idpass.Overloaded("x", retry_after=1.5)) == (
        "Overloaded('x', code=UNKNOWN, retry_after=1.5)"
    )


def test_a_record_shows_everything_but_what_is_written_about_people() -> None:
    message = pb.IdPass(
        id="0193", status=pb.ID_PASS_STATUS_CANCELLED, applicant_reference=APPLICANT
    )
    message.cancellation.note = NOTE
    shown = repr(_read.id_pass(message))
    assert "id='0193'" in shown
    assert "status=<Status.CANCELLED: 'cancelled'>" in shown
    assert NOTE not in shown
    assert APPLICANT not in shown


def test_records_cannot_be_changed() -> None:
    money = idpass.Money("AUD", 1)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        money.currency = "EUR"  # type: ignore[misc]
    assert money == idpass.Money("AUD", 1)  # type: ignore[arg-type]
    assert len({money, idpass.Money("AUD", 1)}) == 1  # type: ignore[arg-type]


def test_a_type_checker_finds_every_mistake_of_a_caller(tmp_path: Path) -> None:
    expected = {
        (number, match[1])
        for number, line in enumerate(SAMPLE.read_text().splitlines(), 1)
        if (match := re.search(r"# \[([a-z-]+)\]$", line))
    }
    caller = tmp_path / "typed_caller.py"
    caller.write_text(SAMPLE.read_text())
    options = ["--strict", "--config-file=", "--follow-imports=silent", "--ignore-missing-imports"]
    output, trouble, _ = mypy.api.run([*options, "--cache-dir", str(tmp_path), str(caller)])
    found = {
        (int(line), code)
        for line, code in re.findall(r"typed_caller\.py:(\d+): error: .*\[([a-z-]+)\]", output)
    }
    assert found == expected, output + trouble
    assert len(expected) > 15
