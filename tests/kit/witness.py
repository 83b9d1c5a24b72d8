"""Callers that remember what they were answered, and tell whether it is still true."""

import contextlib
import itertools
import queue
import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import grpc

from kit.support import Calls

NO_ANSWER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
LOST = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}
PATIENCE_S = 30.0
RETRY_S = 0.05
CHANNEL_OPTIONS = [
    # A connection for each caller, made again soon after it is lost.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


class Access(NamedTuple):
    """What callers need beside an address: credentials of TLS, and a token."""

    credentials: grpc.ChannelCredentials | None = None
    token: str | None = None

    def calls_to(self, address: str) -> Calls:
        """A new connection."""
        if self.credentials is None:
            channel = grpc.insecure_channel(address, CHANNEL_OPTIONS)
        else:
            channel = grpc.secure_channel(address, self.credentials, CHANNEL_OPTIONS)
        return Calls(channel, token=self.token)


OPEN: Final = Access()
"""A server that everyone may call."""


class Call(NamedTuple):
    """Args: method: of Calls. answer: None if there was none."""

    method: str
    fields: dict[str, Any]
    answer: Any

    def make(self, calls: Calls, patience_s: float = 0) -> Any:
        """Args: patience_s: for so long it is made again while it gets no answer."""
        give_up_s = time.monotonic() + patience_s
        while True:
            try:
                return getattr(calls, self.method)(**self.fields)
            except grpc.RpcError as error:
                if error.code() not in NO_ANSWER or time.monotonic() >= give_up_s:
                    raise
                time.sleep(RETRY_S)


class Witness:
    """Registers, moves and cancels passes.

    A call that gets no answer is sometimes made again at once, as clients do, and sometimes left
    for later.

    Args:
        seed: of what it does.
        pause_s: after each pass, seconds.
        may_drop: whether the server may end in the middle of a call, which gRPC calls CANCELLED.
        may_lose: whether what was answered may be gone, so that what builds on it is refused.
    """

    def __init__(
        self, seed: int, pause_s: float = 0, *, may_drop: bool = False, may_lose: bool = False
    ) -> None:
        self.name = f"witness-{seed}"
        self.answered = 0
        self._pause_s = pause_s
        self._no_answer = NO_ANSWER | ({grpc.StatusCode.CANCELLED} if may_drop else set())
        self._may_lose = may_lose
        self._answered_s = time.monotonic()
        self._silence_s = 0.0
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._random = random.Random(seed)
        self._progress = threading.Condition()
        self._stop = threading.Event()
        self._go_on = threading.Event()
        self._go_on.set()

    def run(self, calls: Calls, name: str) -> None:
        """Calls until it is told to stop."""
        for number in itertools.count():
            if self._stop.is_set():
                return
            with contextlib.suppress(_Left):
                self._one_pass(calls, f"{name}-{number}")
            self._stop.wait(self._pause_s)

    def stop(self) -> None:
        self._stop.set()
        self._go_on.set()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """No new calls meanwhile."""
        self._go_on.clear()
        try:
            yield
        finally:
            self._go_on.set()

    def wait_for_answers(self, count: int, timeout_s: float = 60) -> None:
        """Returns when so many more calls have been answered."""
        with self._progress:
            aim = self.answered + count
            assert self._progress.wait_for(lambda: self.answered >= aim, timeout_s), (
                f"{self.answered} answers, not {aim}"
            )

    def silence(self) -> float:
        """The longest time without an answer since this was called last, seconds."""
        with self._progress:
            now_s = time.monotonic()
            silence_s = max(self._silence_s, now_s - self._answered_s)
            self._answered_s, self._silence_s = now_s, 0.0
            return silence_s

    def take(self) -> list[Call]:
        """The calls that ended since this was called last."""
        taken = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._calls.get_nowait())
        return taken

    def _one_pass(self, calls: Calls, name: str) -> None:
        pass_id = self._call(calls, "register", request_id=f"{name}-r").id_pass.id
        way = self._random.choice(
            [(), ("opened",), ("opened", "in_progress"), ("opened", "in_progress", "complete")]
        )
        for to in way:
            self._call(calls, "advance", pass_id=pass_id, to=to, request_id=f"{name}-{to}")
        if way[-1:] == ("complete",):
            return
        if self._random.random() < 0.3:
            self._call(calls, "register", supersedes=pass_id, request_id=f"{name}-s")
        else:
            self._call(calls, "cancel", pass_id=pass_id, request_id=f"{name}-c")

    def _call(self, calls: Calls, method: str, **fields: Any) -> Any:
        while True:
            self._go_on.wait()
            try:
                answer = Call(method, fields, None).make(calls)
            except grpc.RpcError as error:
                if self._may_lose and error.code() in LOST:
                    raise _Left from error
                assert error.code() in self._no_answer, error
                if self._stop.is_set() or self._random.random() < 0.5:
                    self._calls.put(Call(method, fields, None))
                    raise _Left from error
                self._stop.wait(RETRY_S)
            else:
                self._calls.put(Call(method, fields, answer))
                with self._progress:
                    now_s = time.monotonic()
                    self._silence_s = max(self._silence_s, now_s - self._answered_s)
                    self._answered_s = now_s
                    self.answered += 1
                    self._progress.notify_all()
                return answer


class _Left(Exception):
    """A call got no answer, or found what it builds on lost."""


def check(calls: Calls, made: Iterable[Call]) -> None:
    """Every answer is still true, and every call that got none has one outcome."""
    for call in made:
        first = call.answer or call.make(calls, PATIENCE_S)
        again = call.make(calls, PATIENCE_S)
        assert again.replayed
        again.replayed = first.replayed
        assert again == first


def check_at(
    address: str, made: Sequence[Call], connections: int = 1, access: Access = OPEN
) -> None:
    """As `check`, over new connections."""

    def check_some(place: int) -> None:
        calls = access.calls_to(address)
        with calls.channel:
            check(calls, made[place::connections])

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(check_some, range(connections)))


@contextlib.contextmanager
def callers(address: str, witness: Witness, count: int, access: Access = OPEN) -> Iterator[None]:
    """Lets a witness call from several threads, each with a connection of its own."""
    connections = [access.calls_to(address) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        running: list[Future[None]] = [
            pool.submit(witness.run, calls, f"{witness.name}-{number}")
            for number, calls in enumerate(connections)
        ]
        try:
            yield
        finally:
            witness.stop()
        for each in running:
            each.result()
    for calls in connections:
        calls.channel.close()
