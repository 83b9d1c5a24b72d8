"""What callers outside know of an account: every answer, and what they add up to."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import grpc

from idpass.v1 import id_pass_pb2 as pb
from kit.support import Calls
from kit.witness import PATIENCE_S, Call


class Ledger:
    """The ledger of the account `demo`, whose every change is in it.

    Attributes:
        calls: with their answers.
        found: number of calls that got no answer, by what had become of them.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.found: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()

    def settle(self, calls: Calls, made: Iterable[Call], given_by: Any = None) -> list[str]:
        """Enters calls: what was answered must be answered again, the others have one outcome.

        Args:
            calls: of the service.
            made: what was called.
            given_by: who answers for the service, where it is not the service itself.

        Returns:
            what is not as it should be, among it the account's totals.
        """
        bad = []
        for call in made:
            try:
                first = self._outcome(given_by or calls, call)
                bad += _repeated(call, first, call.make(given_by or calls, PATIENCE_S))
                if given_by is not None:
                    reference, first = first.reference, call.make(calls, PATIENCE_S)
                    if first.reference != reference:
                        bad.append(f"{call} has the references {reference}, {first.reference}")
            except grpc.RpcError as error:
                bad.append(f"{call} is answered {error.code()}: {error.details()}")
            else:
                self.calls.append(call._replace(answer=first))
                self._add(call.method, first)
        return bad + self._differences(Call("account", {}, None).make(calls, PATIENCE_S))

    def again(self, calls: Calls, chosen: Iterable[Call]) -> list[str]:
        """Asks for answers again. Returns what is not as it should be."""
        bad = []
        for call in chosen:
            try:
                bad += _repeated(call, call.answer, call.make(calls, PATIENCE_S))
            except grpc.RpcError as error:
                bad.append(f"{call} is answered {error.code()}: {error.details()}")
        return bad

    def _outcome(self, calls: Calls, call: Call) -> Any:
        if call.answer is not None:
            return call.answer
        first = call.make(calls, PATIENCE_S)
        self.found["done" if first.replayed else "not done"] += 1
        return first

    def _add(self, method: str, answer: Any) -> None:
        self._sums["events"] += 1
        if method == "register":
            self._sums["in flight"] += 1
            self._sums["charged"] += _micros(answer.id_pass.fee)
            if answer.HasField("superseded"):
                self._sums["events"] += 1
                self._end(answer.superseded)
        elif method == "cancel":
            self._end(answer)
        elif answer.id_pass.HasField("end_time"):
            self._sums["in flight"] -= 1

    def _end(self, cancelled: Any) -> None:
        self._sums["in flight"] -= 1
        if cancelled.fee_refunded:
            self._sums["refunded"] += _micros(cancelled.refund)

    def _differences(self, account: pb.Account) -> list[str]:
        told = {
            "events": account.last_sequence,
            "in flight": account.slots_in_use,
            "charged": _micros(account.fees_charged),
            "refunded": _micros(account.fees_refunded),
        }
        return [
            f"{name} is {value}, and {self._sums[name]} by what was answered"
            for name, value in told.items()
            if value != self._sums[name]
        ]


def _repeated(call: Call, first: Any, again: Any) -> list[str]:
    """What is wrong with the answer to a retry."""
    if not again.replayed:
        return [f"{call} was answered, and is done again"]
    again.replayed = first.replayed
    return [] if again == first else [f"{call} was answered, and is now answered {again}"]


def _micros(money: Any) -> int:
    return int(money.units * 1_000_000 + money.nanos // 1_000)
