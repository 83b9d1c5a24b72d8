"""The client for ordinary code; `aio` has the one for asyncio.

Longer than other modules because it is the reference: every method explains its arguments and what
it raises here, once, and `aio` refers to it. How a call is made and retried is elsewhere.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from types import TracebackType
from typing import TypeVar

import grpc

from idpass import _calls
from idpass._calls import Call, Id
from idpass._channel import ChannelOptions, Endpoint, LazyChannel, Pem, Token, connect
from idpass._records import (
    Account,
    AdvanceReceipt,
    AnyReason,
    AnyStatus,
    CancelReason,
    CancelResult,
    Event,
    IdPass,
    Receipt,
    RegisterReceipt,
)
from idpass._retry import Attempts, Reconnects, Throttle
from idpass._stream import Stream
from idpass.errors import IdPassError
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub

T = TypeVar("T")


class IdPassClient:
    """Speaks to the ID Pass service. Its methods may be called from any thread.

    Making one does no I/O: the channel is made at the first call. A process may therefore make
    a client and fork; after a first call, forking takes GRPC_ENABLE_FORK_SUPPORT=1 in the
    environment (gRPC's own condition), and without it calls in the child raise RuntimeError
    rather than hang.

    A call that changes something is sent with a request_id, and so a retry is answered with
    what the first attempt did. Attempts that end in UNAVAILABLE are made again, with pauses
    that grow, within `timeout`; those that an overloaded server refuses, after the delay that
    it asks for. `list` and `cancel_many` go at the server's pace however long that takes.

    Args:
        address: HOST:PORT, or another gRPC target such as unix:/run/idpass.sock.
        tls: true to trust the authorities that come with gRPC; the path of a PEM file, or its
            bytes, to trust the authorities in there.
        client_certificate: paths or bytes of PEM certificate chain and private key: mutual TLS.
        token: sent as bearer token; or a function that gives it, called for every attempt.
        timeout: seconds that a call may take, with all its attempts and the pauses between.
        allow_plaintext: true to speak plain text to another machine as well, where something
            else protects the way.
        channel_options: of gRPC, such as ("grpc.max_receive_message_length", 8_000_000).

    Raises:
        ValueError: the address is none; or it is on another machine and neither TLS nor
            `allow_plaintext` is given, or a token would go there in plain text; or the token
            cannot be sent in a header.
        OSError: a PEM file cannot be read.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: bool | Pem = False,
        client_certificate: tuple[Pem, Pem] | None = None,
        token: Token | None = None,
        timeout: float = 5.0,
        allow_plaintext: bool = False,
        channel_options: ChannelOptions = (),
    ) -> None:
        self._endpoint = Endpoint(
            address,
            tls=tls,
            client_certificate=client_certificate,
            token=token,
            timeout=timeout,
            allow_plaintext=allow_plaintext,
            channel_options=channel_options,
        )
        self._timeout_s = timeout
        self._throttle = Throttle()
        self._channel: LazyChannel[grpc.Channel, IdPassServiceStub] = LazyChannel(
            lambda: self._endpoint.open(grpc), IdPassServiceStub
        )

    def __enter__(self) -> "IdPassClient":  # noqa: PYI034 typing has no Self before 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; calls in flight fail, and iterations over `watch` end."""
        self._channel.closed = True
        channel = self._channel.take()
        if channel is not None:
            channel.close()

    def cancel(
        self,
        id: Id,  # noqa: A002 the contract's name
        *,
        reason: AnyReason = CancelReason.UNSPECIFIED,
        note: str = "",
        expected_status: AnyStatus | None = None,
        require_refund: bool = False,
        validate_only: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Cancels a pass that is still in flight, and refunds its fee if it was NEW or OPENED.

        Args:
            id: UUID of the pass.
            reason: a CancelReason or its word, such as "abandoned"; never affects the refund.
            note: free text, up to 500 characters, kept with the pass.
            expected_status: cancel only if the pass is in this status.
            require_refund: cancel only if the fee comes back.
            validate_only: make every check and answer as the call would, but change nothing.
            request_id: 1 to 128 visible ASCII characters; the same one with the same arguments
                gets the first answer again, for as long as the pass exists. Made up if None.
            timeout: seconds in all; the client's if None.

        Raises:
            NotFound: the account has no such pass.
            AlreadyCancelled: with the first outcome.
            Complete, Expired, Failed: it ended in another way.
            PassChanged: it is not in `expected_status`.
            RefundNotAvailable: `require_refund`, and the verification has begun.
            OutcomeUnknown: no answer came; call again with the error's request_id.
            Overloaded: the server asks for a longer delay than there is time.
            Unavailable: no server could be reached; nothing was sent, or nothing was changed.
            IdPassError: anything else; see idpass.errors.
            TypeError, ValueError: `reason` or `expected_status` is no word for it.
        """
        call = _calls.cancel(
            id,
            reason=reason,
            note=note,
            expected_status=expected_status,
            require_refund=require_refund,
            validate_only=validate_only,
            request_id=request_id,
        )
        return self._run(call, timeout)

    def cancel_many(
        self,
        ids: Iterable[Id],
        *,
        reason: AnyReason = CancelReason.UNSPECIFIED,
        note: str = "",
        expected_status: AnyStatus | None = None,
        require_refund: bool = False,
        batch_size: int = 500,
        in_flight: int = 2,
        timeout: float | None = None,
    ) -> Iterator[CancelResult]:
        """Cancels any number of passes, and yields a result for each, in order.

        Each is decided by itself, as `cancel` would; a refused one does not touch the others.
        `ids` is read as results are consumed, so that it may be longer than memory. Where a
        batch fails as a whole, no more ids are read, its items' results carry the error, and
        it is raised after the last result. Running again with all ids is safe: what is
        cancelled is answered AlreadyCancelled, and nothing is refunded twice.

        It goes at the server's pace: a batch that is refused as Overloaded changed nothing, and
        is sent again after the delay that the server asks for, as often as it does.

        Args:
            ids: UUIDs of passes.
            reason, note, expected_status, require_refund: for each, as for `cancel`.
            batch_size: how many are sent together, 1 to 1,000.
            in_flight: how many batches are under way at once.
            timeout: seconds for each batch, anew after each delay that the server asks for; the
                client's if None.

        Raises:
            ValueError: batch_size or in_flight is out of range.
            IdPassError: a batch failed as a whole.
        """
        batches = _calls.Batches(
            reason=reason,
            note=note,
            expected_status=expected_status,
            require_refund=require_refund,
            batch_size=batch_size,
            in_flight=in_flight,
        )
        return self._cancel_batches(batches.of(ids), in_flight, timeout)

    def _cancel_batches(
        self, batches: Iterator[_calls.Batch], in_flight: int, timeout: float | None
    ) -> Iterator[CancelResult]:
        waiting: deque[tuple[_calls.Batch, Future[Sequence[CancelResult]]]] = deque()
        failure: IdPassError | None = None
        closed = threading.Event()

        def pause(seconds: float) -> None:
            if closed.wait(seconds):
                raise CancelledError  # nobody waits for the answer any more

        def run(batch: _calls.Batch) -> Sequence[CancelResult]:
            return self._run(batch.call, timeout, patient=True, pause=pause)

        executor = ThreadPoolExecutor(in_flight, thread_name_prefix="idpass-cancel")
        try:
            while True:
                batch = None if failure else next(batches, None)
                if batch is not None:
                    waiting.append((batch, executor.submit(run, batch)))
                    if len(waiting) < in_flight:
                        continue
                if not waiting:
                    break
                oldest, answer = waiting.popleft()
                try:
                    yield from answer.result()
                except IdPassError as error:
                    failure = failure or error
                    yield from oldest.failed(error)
        finally:
            closed.set()
            executor.shutdown(wait=False, cancel_futures=True)
        if failure:
            raise failure

    def register(
        self,
        *,
        link_validity_days: int = 0,
        applicant_reference: str = "",
        supersedes: Id | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> RegisterReceipt:
        """Registers a pass in NEW, charges the account's fee and takes a slot.

        Args:
            link_validity_days: until the link expires, 1 to 14; 0 means 7.
            applicant_reference: the business's own name for the applicant, up to 128 characters.
            supersedes: UUID of a pass in flight that the new one replaces: it is cancelled in
                the same transaction, and hands over its slot.
            request_id, timeout: as for `cancel`.

        Raises:
            NoFreeSlot: every slot of the account is in use.
            NotFound, AlreadyCancelled, Complete, Expired, Failed: of the prior pass.
            OutcomeUnknown: no answer came; call again with the error's request_id.
            IdPassError: anything else; see idpass.errors.
        """
        call = _calls.register(link_validity_days, applicant_reference, supersedes, request_id)
        return self._run(call, timeout)

    def advance(
        self,
        id: Id,  # noqa: A002 the contract's name
        to_status: AnyStatus,
        *,
        expected_status: AnyStatus | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> AdvanceReceipt:
        """Moves a pass along its lifecycle, as the applicant and the verification do.

        Args:
            id: UUID of the pass.
            to_status: OPENED, IN_PROGRESS, COMPLETE, FAILED or EXPIRED, or its word: "opened".
            expected_status: move only if the pass is in this status.
            request_id, timeout: as for `cancel`.

        Raises:
            NotFound: the account has no such pass.
            TransitionNotAllowed: no arrow leads there; see `.allowed`.
            AlreadyCancelled, Complete, Expired, Failed: its status can no longer change.
            PassChanged: it is not in `expected_status`.
            OutcomeUnknown: no answer came; call again with the error's request_id.
            IdPassError: anything else; see idpass.errors.
        """
        return self._run(_calls.advance(id, to_status, expected_status, request_id), timeout)

    def get(
        self,
        id: Id,  # noqa: A002 the contract's name
        *,
        timeout: float | None = None,
    ) -> IdPass:
        """One pass, as it is now.

        Args:
            id: UUID of the pass.
            timeout: seconds in all; the client's if None.

        Raises:
            NotFound: the account has no such pass.
            IdPassError: anything else; see idpass.errors.
        """
        return self._run(_calls.get(id), timeout)

    def account(self, *, timeout: float | None = None) -> Account:
        """The caller's account, as it is now.

        Args:
            timeout: seconds in all; the client's if None.

        Raises:
            IdPassError: see idpass.errors.
        """
        return self._run(_calls.account(), timeout)

    def list(
        self,
        *,
        statuses: Iterable[AnyStatus] = (),
        idle_before: datetime | None = None,
        idle_for: timedelta | None = None,
        timeout: float | None = None,
    ) -> Iterator[IdPass]:
        """Passes, newest first; further pages are asked for as they are needed.

        A pass that exists and matches all the while is seen exactly once.

        Args:
            statuses: only passes in one of these; empty means any.
            idle_before: only passes whose status has not changed since; with a time zone.
            idle_for: the same, counted back from now.
            timeout: seconds for each page, anew after each delay that an overloaded server asks
                for; the client's if None.

        Raises:
            ValueError: both idle_before and idle_for are given, or there is no time zone.
            IdPassError: see idpass.errors.
        """
        return self._pages(_calls.Listing(statuses, idle_before, idle_for), timeout)

    def _pages(self, listing: _calls.Listing, timeout: float | None) -> Iterator[IdPass]:
        while not listing.done:
            yield from self._run(listing.next_page(), timeout, patient=True)

    def watch(
        self,
        id: Id | None = None,  # noqa: A002 the contract's name
        *,
        after_sequence: int = 0,
        reconnect_for: float = 60.0,
    ) -> Iterator[Event]:
        """The account's events in commit order, and then each as it happens.

        A broken connection is made again, and the iteration goes on after the last event that
        was yielded: none is missed and none comes twice; where the server is overloaded then,
        after the delay that it asks for. It ends when the client is closed.

        Args:
            id: only this pass's events, ending after the one that made it terminal.
            after_sequence: of the last event already seen; 0 means from the beginning, and
                `account().last_sequence` means from now on.
            reconnect_for: seconds that the service may be out of reach, or overloaded, before
                that is an error.

        Raises:
            NotFound: the account has no such pass.
            Unavailable: the service was out of reach for too long.
            Overloaded: there is no room for the stream: at its beginning, or for too long.
            IdPassError: anything else; see idpass.errors.
        """
        return self._events(_calls.Watching(id, after_sequence), reconnect_for)

    def _events(self, watching: _calls.Watching, reconnect_for_s: float) -> Iterator[Event]:
        reconnects = Reconnects(reconnect_for_s, time.monotonic(), self._endpoint.unreached)
        while True:
            call = watching.next_stream()
            stream = Stream(
                getattr(self._channel.stub(), call.method)(
                    call.request, metadata=self._endpoint.metadata()
                )
            )
            patience_s = reconnects.remaining_s(time.monotonic()) if reconnects.waiting else None
            try:
                if stream.opened(patience_s):
                    reconnects.connected()
                for message in stream:
                    reconnects.connected()
                    yield call.read(message)
                return  # noqa: TRY300 the end of the stream, not of the attempt
            except grpc.RpcError as error:
                if self._channel.closed:
                    return
                if stream.gave_up and reconnects.waiting:
                    reconnects.gave_up()
                if stream.seems_open():
                    reconnects.connected()
                delay_s = reconnects.failed(error, time.monotonic())
            finally:
                stream.cancel()
            if not self._come_back(reconnects, delay_s):
                return

    def _come_back(self, reconnects: Reconnects, delay_s: float) -> bool:
        """Pauses and waits for a connection; without one, the next stream tells why there is none.

        Returns:
            false if the client was closed meanwhile.
        """
        time.sleep(delay_s)
        if not self._channel.closed:
            connect(self._channel, reconnects.remaining_s(time.monotonic()))
        return not self._channel.closed

    def _run(
        self,
        call: Call[T],
        timeout: float | None,
        *,
        patient: bool = False,
        pause: Callable[[float], None] | None = None,
    ) -> T:
        timeout_s = remaining_s = self._timeout_s if timeout is None else timeout
        started_s = time.monotonic()
        attempts: Attempts | None = None
        while True:
            if attempts is not None:
                if self._channel.closed or (
                    attempts.unconnected and not connect(self._channel, remaining_s)
                ):
                    attempts.gave_up(closed=self._channel.closed)
                remaining_s = attempts.remaining_s(time.monotonic())
            try:
                answer = getattr(self._channel.stub(), call.method)(
                    call.request, timeout=remaining_s, metadata=self._endpoint.metadata()
                )
            except grpc.RpcError as error:
                attempts = attempts or Attempts(
                    call,
                    timeout_s,
                    started_s,
                    self._throttle,
                    self._endpoint.unreached,
                    patient=patient,
                )
                delay_s = attempts.failed(error, time.monotonic(), closed=self._channel.closed)
            else:
                self._throttle.succeeded()
                return call.read(answer)
            (pause or time.sleep)(delay_s)
            remaining_s = attempts.remaining_s(time.monotonic())
