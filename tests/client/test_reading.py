"""Messages as records: what a newer service may send is read as well."""

from datetime import datetime, timezone
from decimal import Decimal, localcontext
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import money_pb2

from idpass import CancelReason, Status, _arguments, _calls, _read, _show
from idpass.v1 import id_pass_pb2 as pb


def test_every_number_of_the_contract_has_a_word() -> None:
    statuses = {f"ID_PASS_STATUS_{word.name}": word.number for word in Status}
    assert statuses == {name: number for name, number in pb.IdPassStatus.items() if number}
    reasons = {f"CANCEL_REASON_{word.name}": word.number for word in CancelReason}
    assert reasons == dict(pb.CancelReason.items())
    assert all(_read.status(word.number) is word for word in Status)
    assert all(_read.reason(word.number) is word for word in CancelReason)
    assert _read.status_or_none(0) is None


def test_a_number_of_a_newer_service_is_kept() -> None:
    status = _read.status(99)
    assert isinstance(status, Status)
    assert (status.name, status.value, str(status)) == ("UNRECOGNIZED_99", "99", "99")
    assert status == _read.status(99) != Status.NEW
    assert "UNRECOGNIZED_99" in repr(status)
    assert "99" not in [s.value for s in Status]
    assert isinstance(_read.reason(99), CancelReason)
    event = _read.event(pb.IdPassEvent(to_status=99, from_status=98))  # type: ignore[arg-type]
    assert (event.from_status, event.to_status) == (_read.status(98), status)
    request: Any = _calls.advance("id", status, None, None).request
    assert request.to_status == 99


def test_an_erasure_is_no_cancellation_and_is_shown_as_what_it_is() -> None:
    status = pb.ID_PASS_STATUS_CANCELLED
    event = _read.event(pb.IdPassEvent(from_status=status, to_status=status, erased=True))
    assert (event.erased, event.reason) == (True, None)
    line = _show.event_line(event).plain
    assert "cancelled, applicant reference and note erased" in line
    assert "→" not in line


@pytest.mark.parametrize(
    ("units", "nanos", "amount"),
    [
        (4, 500_000_000, "4.50"),
        (4, 0, "4.00"),
        (0, 0, "0.00"),
        (0, 5_000_000, "0.005"),
        (9_223_372_036_854_775_807, 999_999_999, "9223372036854775807.999999999"),
        (-4, -500_000_000, "-4.50"),
        (0, -10_000_000, "-0.01"),
    ],
)
def test_money_is_exact_in_every_decimal_context(units: int, nanos: int, amount: str) -> None:
    with localcontext() as context:
        context.prec = 3
        money = _read.money(money_pb2.Money(currency_code="AUD", units=units, nanos=nanos))
    assert str(money) == f"AUD {amount}"
    assert money.amount == Decimal(amount)


def test_times_are_in_utc_to_the_microsecond() -> None:
    time = _read.time(Timestamp(seconds=1_795_426_200, nanos=123_456_999))
    assert time == datetime(2026, 11, 23, 9, 30, 0, 123_456, tzinfo=timezone.utc)
    assert _read.time(Timestamp(seconds=-1)).year == 1969


def test_made_up_request_ids_follow_each_other() -> None:
    ids = [_arguments.new_request_id() for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    assert [i[:13] for i in ids] == sorted(i[:13] for i in ids)
