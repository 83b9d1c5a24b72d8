"""What both stores know of their tables: keys, columns that change, and the rows of a batch."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from idpass_server.rules.batch import Batch
from idpass_server.rules.records import Account, Event, Pass

Columns = Sequence[str]
Row = tuple[object, ...]

TIMER: Final = ("account", "expire_time_us", "id_pass_id")
PASS_KEY: Final = ("account", "id")
EVENT_KEY: Final = ("account", "sequence")
RECEIPT_KEY: Final = ("account", "request_id")
ACCOUNT_KEY: Final = ("name",)

PASS_CHANGES: Final = (
    *("status", "fee_refunded", "superseded_by", "update_time_us", "consent_time_us"),
    *("end_time_us", "cancel_reason", "cancel_note", "caller", "event_sequence"),
)
"""Columns of a pass that a change of status may set; of the others only an erasure changes one."""
ACCOUNT_CHANGES: Final = (
    *("slots_in_use", "charged_micros", "refunded_micros", "last_sequence"),
    *("registration_day", "registrations_of_day"),
)
"""Columns of an account that a batch may set; the others are the operator's."""


def _timer(id_pass: Pass) -> Row:
    return id_pass.account, id_pass.expire_time_us, id_pass.id


class _Write(NamedTuple):
    """One kind of write: its columns, and the rows that a batch has of it."""

    columns: Columns
    rows: Callable[[Batch], Iterable[Row]]


def _picked(columns: Columns, records: Callable[[Batch], Iterable[Any]]) -> _Write:
    pick = operator.attrgetter(*columns)
    return _Write(columns, lambda batch: map(pick, records(batch)))


_WRITES: Final[Mapping[str, _Write]] = {
    "update_passes": _picked((*PASS_KEY, *PASS_CHANGES), lambda batch: batch.changed.values()),
    "insert_passes": _Write(Pass._fields, lambda batch: batch.created.values()),
    "insert_events": _Write(Event._fields, lambda batch: batch.events),
    "update_accounts": _picked((*ACCOUNT_KEY, *ACCOUNT_CHANGES), Batch.changed_accounts),
    "insert_timers": _Write(TIMER, lambda batch: map(_timer, batch.created.values())),
    "delete_timers": _Write(TIMER, lambda batch: map(_timer, batch.timers_done)),
    "erase_references": _picked(
        (*PASS_KEY, "applicant_reference"), lambda batch: batch.erased.values()
    ),
    "erase_receipts": _picked(PASS_KEY, lambda batch: batch.erased.values()),
}
COLUMNS: Final[Mapping[str, Columns]] = {name: write.columns for name, write in _WRITES.items()}
"""The columns of each kind of write, in the order of its rows' values."""


def written(batch: Batch) -> Iterable[tuple[str, list[Row]]]:
    """The rows to save, by kind of write; kinds without rows are left out."""
    for name, write in _WRITES.items():
        if rows := list(write.rows(batch)):
            yield name, rows


def columns(record: type[Account | Pass | Event], table: str = "") -> str:
    """A record's columns for a statement, qualified by `table` if one is given."""
    return ", ".join(f"{table}.{name}" if table else name for name in record._fields)
