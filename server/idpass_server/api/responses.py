"""Answers and records as protobuf messages: one function for each message."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from google.type import money_pb2

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server.rules import commands, records
from idpass_server.rules.positions import Positions, oldest_position
from idpass_server.rules.records import Reason, Status

_STATUS: Final = {str(s): pb.IdPassStatus.Value(f"ID_PASS_STATUS_{s.name}") for s in Status}
_REASON: Final = {str(r): pb.CancelReason.Value(f"CANCEL_REASON_{r.name}") for r in Reason}


def cancel_response(answer: commands.Cancelled) -> service_pb.CancelResponse:
    event = answer.event
    refund = None
    if event.refund_micros is not None:
        refund = money(event.currency, event.refund_micros)
    return service_pb.CancelResponse(
        status=pb.ID_PASS_STATUS_CANCELLED,
        fee_refunded=refund is not None,
        reference=event.reference,
        refund=refund,
        previous_status=status(event.from_status),
        cancel_time=timestamp(event.event_time_us),
        replayed=answer.replayed,
    )


def batch_cancel_response(
    results: Iterable[commands.Cancelled | status_pb2.Status],
) -> service_pb.BatchCancelResponse:
    response = service_pb.BatchCancelResponse()
    totals: Counter[str] = Counter()
    for result in results:
        if isinstance(result, status_pb2.Status):
            response.results.add(error=result)
            continue
        response.results.add(response=cancel_response(result))
        response.cancelled_count += 1
        if result.event.refund_micros is not None:
            response.refunded_count += 1
            totals[result.event.currency] += result.event.refund_micros
    response.refund_totals.extend(money(*total) for total in sorted(totals.items()))
    return response


def register_response(answer: commands.Registered) -> service_pb.RegisterResponse:
    return service_pb.RegisterResponse(
        id_pass=id_pass(answer.id_pass),
        superseded=cancel_response(answer.superseded) if answer.superseded else None,
        reference=answer.reference,
        replayed=answer.replayed,
    )


def advance_response(answer: commands.Advanced) -> service_pb.AdvanceResponse:
    return service_pb.AdvanceResponse(
        id_pass=id_pass(answer.id_pass), reference=answer.reference, replayed=answer.replayed
    )


def id_pass(record: records.Pass) -> pb.IdPass:
    message = pb.IdPass(
        id=record.id,
        account=record.account,
        status=status(record.status),
        fee=money(record.currency, record.fee_micros),
        fee_refunded=bool(record.fee_refunded),
        applicant_reference=record.applicant_reference,
        supersedes=record.supersedes or "",
        superseded_by=record.superseded_by or "",
        create_time=timestamp(record.create_time_us),
        update_time=timestamp(record.update_time_us),
        expire_time=timestamp(record.expire_time_us),
        caller=record.caller,
    )
    if record.consent_time_us is not None:
        message.consent_time.CopyFrom(timestamp(record.consent_time_us))
    if record.end_time_us is not None:
        message.end_time.CopyFrom(timestamp(record.end_time_us))
    if record.status == Status.CANCELLED:
        message.cancellation.CopyFrom(
            pb.Cancellation(
                reason=_reason(record.cancel_reason),
                note=record.cancel_note or "",
                cancel_time=message.end_time,
                caller=record.caller,
            )
        )
    return message


def event(record: records.Event) -> pb.IdPassEvent:
    message = pb.IdPassEvent(
        sequence=record.sequence,
        id_pass_id=record.id_pass_id,
        from_status=status(record.from_status),
        to_status=status(record.to_status),
        event_time=timestamp(record.event_time_us),
        caller=record.caller,
        request_id=record.request_id or "",
        reason=_reason(record.reason),
        erased=bool(record.erased),
        reference=record.reference,
    )
    if record.refund_micros is not None:
        message.refund.CopyFrom(money(record.currency, record.refund_micros))
    return message


def account(record: records.Account, positions: Positions) -> pb.Account:
    return pb.Account(
        id=record.name,
        slot_limit=record.slot_limit,
        slots_in_use=record.slots_in_use,
        fee=money(record.currency, record.fee_micros),
        fees_charged=money(record.currency, record.charged_micros),
        fees_refunded=money(record.currency, record.refunded_micros),
        last_sequence=record.last_sequence,
        history=positions.history,
        oldest_sequence=oldest_position(positions.gaps),
    )


def money(currency: str, micros: int) -> money_pb2.Money:
    return money_pb2.Money(
        currency_code=currency, units=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000
    )


def timestamp(time_us: int) -> Timestamp:
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1_000)


def status(word: str | None) -> pb.IdPassStatus.ValueType:
    return _STATUS[word] if word else pb.ID_PASS_STATUS_UNSPECIFIED


def _reason(reason: str | None) -> pb.CancelReason.ValueType:
    return _REASON[reason or ""]
