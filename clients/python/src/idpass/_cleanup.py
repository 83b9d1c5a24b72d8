"""Cancels abandoned passes: surveys first, then cancels what the survey counted."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import islice
from typing import Any

from idpass._records import CancelResult, IdPass, Money
from idpass._words import CancelReason, Status
from idpass.client import IdPassClient
from idpass.errors import PassChanged, PassEnded

IN_FLIGHT = (Status.NEW, Status.OPENED, Status.IN_PROGRESS)
REFUNDED = frozenset({Status.NEW, Status.OPENED})


class Sums:
    """Sums of money, one for each currency."""

    def __init__(self) -> None:
        self._amounts: dict[str, Decimal] = {}

    def add(self, money: Money) -> None:
        self._amounts[money.currency] = self._amounts.get(money.currency, Decimal()) + money.amount

    def moneys(self) -> list[Money]:
        return [Money(*amount) for amount in sorted(self._amounts.items())]

    def __str__(self) -> str:
        return ", ".join(map(str, self.moneys())) or "nothing"


class Cleanup:
    """
    Args:
        statuses: statuses of the passes to cancel.
        idle_for: how long their status has not changed, counted back from now, once: what the
            survey finds is what is cancelled.
        note: kept with each pass.
        limit: of passes; None for all.
    """

    def __init__(
        self,
        client: IdPassClient,
        statuses: Sequence[Status],
        idle_for: timedelta,
        note: str,
        limit: int | None = None,
    ) -> None:
        self._client = client
        self._limit = limit
        self._idle_before = datetime.now(timezone.utc) - idle_for
        self._note = note
        self.counts: Counter[Status] = Counter(dict.fromkeys(statuses, 0))
        self.expected = Sums()
        self.cancelled = self.refunded = self.moved_on = self.refused = 0
        self.refunds = Sums()
        self.stopping = False

    @property
    def found(self) -> int:
        return self.counts.total()

    def survey(self) -> Iterator[IdPass]:
        """Yields the passes to cancel, and counts them and the fees to be refunded."""
        found = self._client.list(statuses=self.counts, idle_before=self._idle_before)
        for id_pass in islice(found, self._limit):
            self.counts[id_pass.status] += 1
            if id_pass.status in REFUNDED:
                self.expected.add(id_pass.fee)
            yield id_pass

    def run(self, tell: Callable[[CancelResult], None]) -> None:
        """Cancels the passes.

        Args:
            tell: called with the result of each pass.

        Raises:
            IdPassError: the service is out of reach.
        """
        for status, count in self.counts.items():
            if count and not self.stopping:
                # A pass that has left the status since the survey is no longer idle.
                for result in self._client.cancel_many(
                    islice(self._ids(status), count),
                    reason=CancelReason.ABANDONED,
                    note=self._note,
                    expected_status=status,
                ):
                    self._count(result)
                    tell(result)

    def _ids(self, status: Status) -> Iterator[str]:
        for id_pass in self._client.list(statuses=[status], idle_before=self._idle_before):
            if self.stopping:
                return
            yield id_pass.id

    def _count(self, result: CancelResult) -> None:
        if result.receipt:
            self.cancelled += 1
            if result.receipt.refund:
                self.refunded += 1
                self.refunds.add(result.receipt.refund)
        elif isinstance(result.error, (PassChanged, PassEnded)):
            self.moved_on += 1
        else:
            self.refused += 1

    @contextmanager
    def stopped_by(self, number: signal.Signals) -> Iterator[None]:
        """In this context the signal stops the work after the batches under way; a second one
        interrupts it.
        """

        def stop(*_: Any) -> None:
            self.stopping = True
            signal.signal(number, before)

        before = signal.signal(number, stop)
        try:
            yield
        finally:
            signal.signal(number, before)

    def plan(self) -> dict[str, Any]:
        return {
            "dry_run": True,
            "would_cancel": dict(self.counts),
            "would_refund": self.expected.moneys(),
        }

    def summary(self) -> dict[str, Any]:
        return {
            "cancelled": self.cancelled,
            "refunded": self.refunded,
            "refund_totals": self.refunds.moneys(),
            "moved_on": self.moved_on,
            "refused": self.refused,
            "interrupted": self.stopping,
        }
