"""One pass as the contract tells of it, for one caller at a time; shares no code with the server.

A step is what one call asks of one pass, and what it was told.
"""

from collections.abc import Hashable
from types import MappingProxyType
from typing import Final, NamedTuple

NEXT: Final = MappingProxyType(
    {
        "new": ("opened", "expired", "cancelled"),
        "opened": ("in_progress", "expired", "cancelled"),
        "in_progress": ("complete", "failed", "expired", "cancelled"),
    }
)
ENDED: Final = MappingProxyType(
    {
        "complete": "PASS_COMPLETE",
        "expired": "PASS_EXPIRED",
        "failed": "PASS_FAILED",
        "cancelled": "PASS_ALREADY_CANCELLED",
    }
)
REFUNDED: Final = frozenset({"new", "opened"})
"""Statuses from which cancelling refunds."""


class Asked(NamedTuple):
    """What a call asks of a pass.

    Attributes:
        kind: "register" makes it; "cancel" and "advance" move it; "see" reads it.
        request_id: "" for none.
        content: what must be the same when the request_id comes again.
        to: the status asked for.
        expected: of `expected_status`, or "".
        require_refund: as in the request.
        dry: of `validate_only`.
    """

    kind: str
    request_id: str = ""
    content: Hashable = None
    to: str = ""
    expected: str = ""
    require_refund: bool = False
    dry: bool = False


class Told(NamedTuple):
    """What the call was told.

    Attributes:
        reason: of the error; "" for none.
        status: the pass's, before its cancellation and as it is for all others; "" if it is not
            told.
        refunded: whether this change, or for a reader any change, has refunded the fee.
        replayed: as in the answer.
    """

    reason: str = ""
    status: str = ""
    refunded: bool = False
    replayed: bool = False


class State(NamedTuple):
    """A pass, and the receipts of calls that have changed it.

    Attributes:
        status: "" before it is registered.
        refunded: whether the fee is.
        receipts: request_id, content and answer of each.
    """

    status: str = ""
    refunded: bool = False
    receipts: frozenset[tuple[str, Hashable, Told]] = frozenset()

    def apply(self, asked: Asked) -> tuple[Told, "State"]:
        """Does what a call asks. Returns what the call is told, and the pass afterwards."""
        if asked.kind == "see":
            told = Told("", self.status, self.refunded)
            return (told if self.status else Told("PASS_NOT_FOUND")), self
        if asked.kind != "register" and not self.status:
            return Told("PASS_NOT_FOUND"), self
        for request_id, content, told in self.receipts:
            if asked.request_id == request_id:
                again = content == asked.content
                return (told._replace(replayed=True) if again else Told("REQUEST_ID_REUSED")), self
        if asked.kind == "register":
            return self._move(asked, "new") if not self.status else (Told("MADE_TWICE"), self)
        if refusal := self._refusal(asked):
            return Told(refusal, self.status), self
        return self._move(asked, asked.to)

    def _refusal(self, asked: Asked) -> str:
        if self.status in ENDED:
            return ENDED[self.status]
        if asked.expected and asked.expected != self.status:
            return "PASS_CHANGED"
        if asked.require_refund and self.status not in REFUNDED:
            return "REFUND_NOT_AVAILABLE"
        return "" if asked.to in NEXT[self.status] else "TRANSITION_NOT_ALLOWED"

    def _move(self, asked: Asked, to: str) -> tuple[Told, "State"]:
        refunded = to == "cancelled" and self.status in REFUNDED
        told = Told("", self.status if to == "cancelled" else "", refunded)
        if asked.dry:
            return told, self
        receipts = self.receipts
        if asked.request_id:
            receipts |= {(asked.request_id, asked.content, told)}
        return told, State(to, refunded, receipts)
