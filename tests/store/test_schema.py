"""Which program may serve which schema."""

import pytest

from idpass_server.store.schema import (
    Found,
    Plan,
    Schema,
    SchemaOutdated,
    SchemaTooNew,
    check,
    plan,
)

NOW = Schema(("a", "b", "c"), oldest=2)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Found((), 0), Plan(["a", "b", "c"], ends_older=True)),
        (Found(("a",), 1), Plan(["b", "c"], ends_older=True)),
        (Found(("a", "b"), 2), Plan(["c"], ends_older=False)),
        (Found(("a", "b"), 0), Plan(["c"], ends_older=True)),
        (Found(("a", "b", "c"), 2), Plan([], ends_older=False)),
        (Found(("a", "b", "c"), 0), Plan([], ends_older=False)),
        (Found(("a", "b", "c", "later"), 3), Plan([], ends_older=False)),
    ],
)
def test_what_bringing_a_database_up_to_date_would_do(found: Found, expected: Plan) -> None:
    assert plan(NOW, found) == expected


@pytest.mark.parametrize(
    "found",
    [
        Found(("a", "b", "c", "later"), 4),
        Found(("a", "b", "c", "later"), 0),
        Found(("a", "b", "later"), 3),
    ],
)
def test_a_schema_that_a_newer_program_changed_beyond_this_one_is_left_alone(found: Found) -> None:
    with pytest.raises(SchemaTooNew, match=r"newer idpass-server \(it has later\)"):
        plan(NOW, found)
    with pytest.raises(SchemaTooNew):
        check(NOW, found, "x")


def test_a_schema_that_lacks_something_is_told_with_the_command_that_mends_it() -> None:
    with pytest.raises(SchemaOutdated, match=r"lacks b, c; .* idpass-server migrate --db 'x'"):
        check(NOW, Found(("a",), 1), "x")


def test_a_newer_schema_that_this_program_can_live_with_is_served() -> None:
    check(NOW, Found(("a", "b", "c", "later"), 3), "x")
