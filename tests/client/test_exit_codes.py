"""The exit codes of the command line, for each error, and for several at once."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from idpass import CancelResult, IdPass, cli, errors
from idpass._cli import Cli, _run
from idpass.testing import FakeIdPassClient

CODES = {
    errors.OutcomeUnknown: 3,
    errors.BadAnswer: 4,
    errors.DeadlineExceeded: 4,
    errors.Overloaded: 4,
    errors.Unavailable: 4,
}
"""Those of all other errors are 1."""
KINDS = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, errors.IdPassError)
]


def error_of(kind: type[errors.IdPassError]) -> errors.IdPassError:
    return kind("no", code=grpc.StatusCode.UNKNOWN)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("json", [False, True])
def test_each_error_has_its_exit_code(
    kind: type[errors.IdPassError], json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Cli) -> None:
        raise error_of(kind)

    client: Any = None
    due = next((code for known, code in CODES.items() if issubclass(kind, known)), 1)
    assert _run(fail, Cli(client, json=json), {}) == due
    told = capsys.readouterr()
    assert kind.__name__ in (told.out if json else told.err)


class Client:
    """A client whose passes are all refused, each with its own error."""

    def __init__(self, *refusals: type[errors.IdPassError]) -> None:
        self._refusals = refusals

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def cancel_many(self, ids: Iterator[str], **_: Any) -> Iterator[CancelResult]:
        for pass_id, kind in zip(ids, self._refusals, strict=True):
            yield CancelResult(pass_id, "request", None, error_of(kind))


@pytest.mark.parametrize(
    ("refusals", "code"),
    [
        ((errors.NotFound, errors.AlreadyCancelled), 1),
        ((errors.Unavailable, errors.NotFound), 4),
        ((errors.NotFound, errors.OutcomeUnknown), 3),
        ((errors.OutcomeUnknown, errors.NotFound), 3),
    ],
)
def test_the_worst_of_several_decides(
    refusals: tuple[type[errors.IdPassError], ...], code: int
) -> None:
    done = CliRunner().invoke(
        cli.main.commands["cancel"], ["a", "b"], obj=lambda: Client(*refusals)
    )
    assert done.exit_code == code


@pytest.mark.parametrize("options", [["--validate-only"], ["--request-id", "again"]])
@pytest.mark.parametrize("ids", [["a", "b"], ["-"]])
def test_what_is_for_a_single_pass_cancels_none_of_several(
    options: list[str], ids: list[str]
) -> None:
    sent = False

    class Telling(Client):
        def cancel_many(self, ids: Iterator[str], **_: Any) -> Iterator[CancelResult]:
            nonlocal sent
            sent = True
            return super().cancel_many(ids)

    done = CliRunner().invoke(cli.main.commands["cancel"], [*ids, *options], obj=Telling)
    assert done.exit_code == 2
    assert not sent


@pytest.mark.parametrize(("refusal", "code"), [(errors.NotFound, 1), (errors.Complete, 0)])
def test_a_cleanup_is_not_done_while_something_was_refused(
    refusal: type[errors.IdPassError], code: int
) -> None:
    """Passes that have moved on are left alone, and no refusal."""
    id_pass = FakeIdPassClient().register().id_pass

    class Cleaned(Client):
        def list(self, **_: Any) -> Iterator[IdPass]:
            return iter([id_pass])

    done = CliRunner().invoke(
        cli.main.commands["cleanup"],
        ["--idle-for", "1d", "--status", "new", "--yes"],
        obj=lambda: Cleaned(refusal),
    )
    assert done.exit_code == code
