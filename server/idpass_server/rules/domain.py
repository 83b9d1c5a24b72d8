"""The lifecycle of a pass: the rules, as data and pure functions.

Everything that decides a status, a refund, a slot or a sequence number is here and in `batch`,
which applies these decisions in order. Nothing here does I/O, reads a clock, or knows protobuf,
gRPC or SQL: time is an argument. The module is long because the rules are read as a whole.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from idpass_server.rules.commands import (
    Advance,
    Advanced,
    Answer,
    Cancel,
    Cancelled,
    Expire,
    Register,
    Registered,
    Settled,
    Step,
)
from idpass_server.rules.records import Account, Event, Pass, Reason, Status
from idpass_server.rules.refusals import (
    AccountDisabled,
    DailyQuotaExhausted,
    NoFreeSlot,
    PassChanged,
    PassEnded,
    RefundNotAvailable,
    Refusal,
    TransitionNotAllowed,
)

DAY_US: Final = 24 * 60 * 60 * 1_000_000


class Fee(StrEnum):
    """What a transition does with the pass's fee."""

    KEPT = "kept"
    REFUNDED = "refunded"


TRANSITIONS: Final[Mapping[str, Mapping[Status, Fee]]] = MappingProxyType(
    {
        Status.NEW: {
            Status.OPENED: Fee.KEPT,
            Status.EXPIRED: Fee.KEPT,
            Status.CANCELLED: Fee.REFUNDED,
        },
        Status.OPENED: {
            Status.IN_PROGRESS: Fee.KEPT,
            Status.EXPIRED: Fee.KEPT,
            Status.CANCELLED: Fee.REFUNDED,
        },
        Status.IN_PROGRESS: {
            Status.COMPLETE: Fee.KEPT,
            Status.FAILED: Fee.KEPT,
            Status.EXPIRED: Fee.KEPT,
            Status.CANCELLED: Fee.KEPT,
        },
    }
)
"""The whole lifecycle. A status that is not a key is terminal; a terminal status frees the slot."""

IN_FLIGHT: Final = frozenset(TRANSITIONS)


class Change(NamedTuple):
    """A changed pass and the event that records the change.

    Attributes:
        id_pass: as it is to be stored.
        event: the change.
    """

    id_pass: Pass
    event: Event


class Decision(NamedTuple):
    """What a command does.

    Attributes:
        account: as it is to be stored.
        changes: passes created or changed, with their events, in the order of the sequence.
        answer: for the caller.
    """

    account: Account
    changes: tuple[Change, ...]
    answer: Answer


def decide(  # noqa: PLR0911 one for each answer
    account: Account, id_pass: Pass | None, command: Step, now_us: int
) -> Decision | Refusal:
    """Decides one command.

    Args:
        account: the command's account.
        id_pass: the pass that `command.subject` names, not overdue (see `expire`); None exactly
            when the command names none.
        command: with valid fields.
        now_us: time of the decision, microseconds since the epoch.

    Returns:
        the decision, or a refusal, which changes nothing.

    Raises:
        ValueError: the command needs a pass and got None.
    """
    if account.disabled and not isinstance(command, Expire):
        return AccountDisabled(account.name)
    if id_pass is None:
        if not isinstance(command, Register):
            raise ValueError(f"{type(command).__name__} needs a pass")
        return _register(account, command, now_us)
    if id_pass.end_time_us is not None:
        return (
            Decision(account, (), Settled()) if isinstance(command, Expire) else PassEnded(id_pass)
        )
    match command:
        case Cancel():
            return _cancel(account, id_pass, command, now_us)
        case Advance():
            return _advance(account, id_pass, command, now_us)
        case Register():
            return _supersede(account, id_pass, command, now_us)
        case Expire():
            return Decision(account, (), Settled())


def expire(account: Account, id_pass: Pass, reference: str, now_us: int) -> Decision:
    """Ends an overdue pass. It ended at its expire_time, however late that is noticed."""
    return _move(
        account,
        id_pass,
        Status.EXPIRED,
        now_us,
        Expire(account.name, reference, id_pass.id),
        end_time_us=id_pass.expire_time_us,
    )


def _cancel(account: Account, id_pass: Pass, command: Cancel, now_us: int) -> Decision | Refusal:
    if command.expected_status and command.expected_status != id_pass.status:
        return PassChanged(id_pass, command.expected_status)
    fee = TRANSITIONS[id_pass.status][Status.CANCELLED]
    if command.require_refund and fee is not Fee.REFUNDED:
        return RefundNotAvailable(id_pass)
    return _move(
        account,
        id_pass,
        Status.CANCELLED,
        now_us,
        command,
        request_digest=command.digest() if command.request_id else None,
        reason=command.reason,
        note=command.note,
    )


def _advance(account: Account, id_pass: Pass, command: Advance, now_us: int) -> Decision | Refusal:
    if command.expected_status and command.expected_status != id_pass.status:
        return PassChanged(id_pass, command.expected_status)
    allowed = TRANSITIONS[id_pass.status]
    if command.to_status not in allowed:
        return TransitionNotAllowed(id_pass, command.to_status, tuple(allowed))
    return _move(
        account,
        id_pass,
        command.to_status,
        now_us,
        command,
        request_digest=command.digest() if command.request_id else None,
    )


def _register(account: Account, command: Register, now_us: int) -> Decision | Refusal:
    if refusal := _over_quota(account, now_us):
        return refusal
    if account.slots_in_use >= account.slot_limit:
        return NoFreeSlot(account.name, account.slot_limit)
    return _create(account, command, now_us)


def _supersede(account: Account, prior: Pass, command: Register, now_us: int) -> Decision | Refusal:
    """The new pass takes the prior's slot, so that it needs no free one. It counts in the quota:
    it is stored like any other.
    """
    if refusal := _over_quota(account, now_us):
        return refusal
    cancelled = _move(
        account,
        prior,
        Status.CANCELLED,
        now_us,
        command._replace(request_id=None),
        reason=Reason.SUPERSEDED,
        superseded_by=command.id,
    )
    created = _create(cancelled.account, command, now_us)
    superseded = Cancelled(cancelled.changes[0].event)
    return Decision(
        created.account,
        cancelled.changes + created.changes,
        Registered(created.changes[0].id_pass, superseded, command.reference),
    )


def _over_quota(account: Account, now_us: int) -> Refusal | None:
    day, registered = _today(account, now_us)
    if not account.registrations_per_day or registered < account.registrations_per_day:
        return None
    return DailyQuotaExhausted(account.name, account.registrations_per_day, (day + 1) * DAY_US)


def _today(account: Account, now_us: int) -> tuple[int, int]:
    """The day in UTC, and how many passes were registered on it. The account's day does not go
    back: around midnight the hosts of one database differ, and the count would begin anew.
    """
    day = max(now_us // DAY_US, account.registration_day)
    return day, account.registrations_of_day if day == account.registration_day else 0


def _create(account: Account, command: Register, now_us: int) -> Decision:
    id_pass = Pass(
        account=account.name,
        id=command.id,
        status=Status.NEW,
        currency=account.currency,
        fee_micros=account.fee_micros,
        fee_refunded=0,
        applicant_reference=command.applicant_reference,
        supersedes=command.supersedes,
        superseded_by=None,
        create_time_us=now_us,
        update_time_us=now_us,
        expire_time_us=now_us + command.link_validity_days * DAY_US,
        consent_time_us=None,
        end_time_us=None,
        cancel_reason=None,
        cancel_note=None,
        caller=command.caller,
        event_sequence=account.last_sequence + 1,
    )
    event = Event(
        account=account.name,
        sequence=account.last_sequence + 1,
        id_pass_id=command.id,
        from_status=None,
        to_status=Status.NEW,
        event_time_us=now_us,
        caller=command.caller,
        request_id=command.request_id,
        request_digest=command.digest() if command.request_id else None,
        reference=command.reference,
        currency=account.currency,
        charge_micros=account.fee_micros,
        refund_micros=None,
        reason=Reason.UNSPECIFIED,
        previous_sequence=None,
    )
    day, registered = _today(account, now_us)
    account = account._replace(
        slots_in_use=account.slots_in_use + 1,
        charged_micros=account.charged_micros + account.fee_micros,
        last_sequence=event.sequence,
        registration_day=day,
        registrations_of_day=registered + 1,
    )
    return Decision(
        account, (Change(id_pass, event),), Registered(id_pass, None, command.reference)
    )


def _move(
    account: Account,
    id_pass: Pass,
    to_status: Status,
    now_us: int,
    command: Step,
    *,
    end_time_us: int | None = None,
    request_digest: str | None = None,
    reason: Reason = Reason.UNSPECIFIED,
    note: str = "",
    superseded_by: str | None = None,
) -> Decision:
    """Follows one arrow of the table, with all that hangs on it: refund, slot, totals, event."""
    refunded = TRANSITIONS[id_pass.status][to_status] is Fee.REFUNDED
    ended = to_status not in TRANSITIONS
    cancelled = to_status is Status.CANCELLED
    refund_micros = id_pass.fee_micros if refunded else None
    event = Event(
        account=account.name,
        sequence=account.last_sequence + 1,
        id_pass_id=id_pass.id,
        from_status=id_pass.status,
        to_status=to_status,
        event_time_us=now_us,
        caller=command.caller,
        request_id=command.request_id,
        request_digest=request_digest,
        reference=command.reference,
        currency=id_pass.currency,
        charge_micros=None,
        refund_micros=refund_micros,
        reason=reason,
        previous_sequence=id_pass.event_sequence,
    )
    moved = id_pass._replace(
        status=to_status,
        fee_refunded=int(refunded),
        superseded_by=superseded_by,
        update_time_us=now_us,
        consent_time_us=now_us if to_status is Status.IN_PROGRESS else id_pass.consent_time_us,
        end_time_us=(now_us if end_time_us is None else end_time_us) if ended else None,
        cancel_reason=reason if cancelled else None,
        cancel_note=note if cancelled else None,
        caller=command.caller,
        event_sequence=event.sequence,
    )
    account = account._replace(
        slots_in_use=account.slots_in_use - ended,
        refunded_micros=account.refunded_micros + (refund_micros or 0),
        last_sequence=event.sequence,
    )
    answer: Answer
    match command:
        case Expire():
            answer = Settled()
        case Advance():
            answer = Advanced(moved, command.reference)
        case _:
            answer = Cancelled(event)
    return Decision(account, (Change(moved, event),), answer)
