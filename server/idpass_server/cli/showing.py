"""How commands read and show moments and tables."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Moment(click.ParamType[int]):
    """A day, which begins at 00:00 UTC, or an RFC 3339 time with its zone.

    The command gets microseconds since the epoch.
    """

    name = "moment"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is None and len(value) == len("2026-11-25"):
            moment = moment.replace(tzinfo=UTC)
        if moment is None or moment.tzinfo is None:
            self.fail(
                f"{value!r} is neither a day in UTC such as 2026-11-25 nor a time with its zone "
                "such as 2026-11-25T09:30:00Z",
                param,
                ctx,
            )
        return (moment - _EPOCH) // timedelta(microseconds=1)


def show_time(time_us: int) -> str:
    """Formats microseconds since the epoch as 2026-11-25T09:30:00.123456Z."""
    moment = _EPOCH + timedelta(microseconds=time_us)
    return moment.isoformat().replace("+00:00", "Z")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out rows in columns, below their heads."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return "\n".join(
        "  ".join(map(str.ljust, row, widths)).rstrip() for row in (tuple(heads), *map(tuple, rows))
    )
