"""What callers of an account ask: everything, of few passes, so that they meet."""

import random
from typing import Final

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from kit.pass_rules import NEXT
from kit.recorded import Made, Request
from kit.support import STATUS

RECENT: Final = 20
"""Number of requests of which one may be made again."""


class Asking:
    """
    Args:
        draw: for what is random.
        passes: number of passes from which no more are registered.
    """

    def __init__(self, draw: random.Random, passes: int) -> None:
        self._draw = draw
        self._passes = passes
        self._registered = 0
        self._known: list[str] = []
        self._newest = 0
        self._repeatable: list[Request] = []

    def learn(self, made: Made) -> None:
        """Takes note of the passes and positions that an answer tells of."""
        if getattr(made.request, "request_id", ""):
            self._repeatable = [*self._repeatable, made.request][-RECENT:]
        answer = made.answer
        if isinstance(answer, service_pb.RegisterResponse):
            seen = [answer.id_pass.id]
        elif isinstance(answer, service_pb.ListResponse):
            seen = [each.id for each in reversed(answer.id_passes)]
        else:
            seen = []
            if isinstance(answer, pb.Account):
                self._newest = max(self._newest, answer.last_sequence)
        self._known += [each for each in seen if each not in self._known]

    def request(self) -> Request:
        if len(self._known) < 2 or (self._registered < self._passes and self._draw.random() < 0.08):
            self._registered += 1
            return service_pb.RegisterRequest(request_id=self._request_id())
        choices = (
            (self._cancel, 16),
            (self._advance, 26),
            (self._supersede, 4),
            (self._batch, 8),
            (self._earlier, 10),
            (self._get, 16),
            (self._list, 10),
            (service_pb.GetAccountRequest, 10),
        )
        makers, weights = zip(*choices, strict=True)
        made: Request = self._draw.choices(makers, weights)[0]()
        return made

    def _pass(self) -> str:
        return self._draw.choice(self._known[-4:] if self._draw.random() < 0.8 else self._known)

    def _request_id(self) -> str:
        return f"{self._draw.getrandbits(64):x}" if self._draw.random() < 0.8 else ""

    def _cancel(self) -> service_pb.CancelRequest:
        draw = self._draw.random
        request = service_pb.CancelRequest(id=self._pass(), request_id=self._request_id())
        if draw() < 0.3:
            request.reason = pb.CANCEL_REASON_ABANDONED
        if draw() < 0.15:
            request.expected_status = STATUS[self._draw.choice(["new", "opened", "in_progress"])]
        request.require_refund = draw() < 0.15
        if draw() < 0.15:
            request.validate_only = True
            request.request_id = ""
        return request

    def _advance(self) -> service_pb.AdvanceRequest:
        steps = ["opened", "in_progress", "complete", "failed", "expired"]
        to = self._draw.choices(steps, [8, 8, 2, 1, 1])[0]
        request = service_pb.AdvanceRequest(id=self._pass(), to_status=STATUS[to])
        request.request_id = self._request_id()
        if self._draw.random() < 0.15:
            request.expected_status = STATUS[self._draw.choice(list(NEXT))]
        return request

    def _supersede(self) -> Request:
        if self._registered >= self._passes:
            return self._get()
        self._registered += 1
        return service_pb.RegisterRequest(request_id=self._request_id(), supersedes=self._pass())

    def _batch(self) -> service_pb.BatchCancelRequest:
        count = self._draw.randint(2, 3)
        return service_pb.BatchCancelRequest(requests=[self._cancel() for _ in range(count)])

    def _earlier(self) -> Request:
        """A call made before: again, or another under the same request_id."""
        if not self._repeatable:
            return self._get()
        request = self._draw.choice(self._repeatable)
        if self._draw.random() < 0.8 or isinstance(request, service_pb.RegisterRequest):
            return request
        other = self._advance()
        other.id, other.request_id = request.id, request.request_id  # type: ignore[union-attr]
        return other

    def _get(self) -> service_pb.GetRequest:
        return service_pb.GetRequest(id=self._pass())

    def _list(self) -> service_pb.ListRequest:
        request = service_pb.ListRequest(page_size=self._draw.choice([0, 0, 2, 3]))
        if self._draw.random() < 0.3:
            request.statuses.extend([STATUS["new"], STATUS["opened"], STATUS["cancelled"]])
        return request

    def look_after(self, made: Made) -> Request:
        """Reads what a call has changed."""
        pass_id = getattr(made.request, "id", "") or self._pass()
        choices = (service_pb.GetRequest(id=pass_id), service_pb.GetAccountRequest(), self._list())
        return self._draw.choices(choices, [5, 3, 2])[0]

    def watch_request(self) -> service_pb.WatchRequest:
        if self._known and self._draw.random() < 0.5:
            return service_pb.WatchRequest(id=self._draw.choice(self._known[-2:]))
        known = self._draw.randint(0, self._newest)
        return service_pb.WatchRequest(after_sequence=known)
