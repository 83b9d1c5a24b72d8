"""Erasing what a pass says of its applicant: the reference, and the note of its cancellation.

Status, money, times and events stay. An event records the erasure, so that watchers, webhooks and
auditors learn of it; it holds nothing of what was erased. A pass that has ended can be erased: what
never changes any more is its status and its money.

A receipt's digest is erased too, since a short reference could be guessed from it. A retry that
meets such a receipt is compared with what is left of the first request.
"""

from collections.abc import Iterable
from typing import Final

from idpass_server.rules.commands import Cancel, Command, Erase, Erased, Outcome, Register
from idpass_server.rules.domain import DAY_US, Change, Decision
from idpass_server.rules.records import Account, Event, Pass, Reason, Status
from idpass_server.rules.refusals import PassNotFound, Refusal

ERASED: Final = "erased"
"""Stands in a receipt in place of its digest."""


def erase(account: Account, id_pass: Pass | None, command: Erase, now_us: int) -> Decision:
    """Decides an erasure; a no-op without an event where there is nothing to erase.

    Args:
        account: the pass's account.
        id_pass: the pass that the command names, in any status, not overdue.
        command: an erasure.
        now_us: time of the erasure, microseconds since the epoch.

    Raises:
        ValueError: there is no pass.
    """
    if id_pass is None:
        raise ValueError("Erase needs a pass")
    if not id_pass.applicant_reference and not id_pass.cancel_note:
        return Decision(account, (), Erased(None))
    event = Event(
        account=account.name,
        sequence=account.last_sequence + 1,
        id_pass_id=id_pass.id,
        from_status=id_pass.status,
        to_status=id_pass.status,
        event_time_us=now_us,
        caller=command.caller,
        request_id=None,
        request_digest=None,
        reference=command.reference,
        currency=id_pass.currency,
        charge_micros=None,
        refund_micros=None,
        reason=Reason.UNSPECIFIED,
        previous_sequence=id_pass.event_sequence,
        erased=1,
    )
    blank = id_pass._replace(
        applicant_reference="",
        cancel_note=None if id_pass.cancel_note is None else "",
        event_sequence=event.sequence,
    )
    account = account._replace(last_sequence=event.sequence)
    return Decision(account, (Change(blank, event),), Erased(event))


def repeats(command: Command, receipt: Event, id_pass: Pass) -> bool:
    """Whether a command may be the one whose receipt was erased.

    Args:
        command: comes with the receipt's request_id.
        receipt: an event whose digest was erased.
        id_pass: the receipt's pass.
    """
    match command:
        case Register():
            validity_us = id_pass.expire_time_us - id_pass.create_time_us
            return (
                receipt.from_status is None
                and command.supersedes == id_pass.supersedes
                and command.link_validity_days * DAY_US == validity_us
            )
        case Cancel():
            return (
                receipt.to_status == Status.CANCELLED
                and command.id == receipt.id_pass_id
                and command.reason == receipt.reason
            )
        case _:
            return False


def count_erased(outcomes: Iterable[Outcome]) -> int:
    """Returns how many of the passes had something to erase. A pass purged meanwhile is gone.

    Args:
        outcomes: those of Erase commands.

    Raises:
        Refusal: the first of any other kind.
    """
    erased = 0
    for outcome in outcomes:
        if isinstance(outcome, Refusal) and not isinstance(outcome, PassNotFound):
            raise outcome
        erased += isinstance(outcome, Erased) and outcome.event is not None
    return erased
