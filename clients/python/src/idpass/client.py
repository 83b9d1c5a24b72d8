"""The synchronous client; `aio` has the one for asyncio.

This module is long because it is the reference: each method documents its arguments and what it
raises here, once, and `aio` refers to it. `_calls` builds requests, `_transport` makes the calls.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from types import TracebackType

from idpass import _calls
from idpass._arguments import Id
from idpass._endpoint import ChannelOptions, Endpoint, Pem, Token
from idpass._interceptors import SyncInterceptor
from idpass._metadata import Metadata
from idpass._policy import DEFAULT, RetryPolicy
from idpass._records import (
    Account,
    AdvanceReceipt,
    CancelResult,
    Event,
    IdPass,
    Receipt,
    RegisterReceipt,
)
from idpass._transport import Transport
from idpass._webhook_methods import Webhooks
from idpass._words import AnyReason, AnyStatus, CancelReason


class IdPassClient:
    """A client of the ID Pass service. Its methods may be called from any thread.

    Creating one does no I/O: the channel is created at the first call. A process may therefore
    create a client and fork. To fork after a first call, set GRPC_ENABLE_FORK_SUPPORT=1 in the
    environment (gRPC's own condition); without it calls in the child raise RuntimeError rather
    than hang.

    A call that changes something is sent with a request_id, so a retry is answered with what the
    first attempt did. Attempts that end in UNAVAILABLE or a bare CANCELLED are retried within
    `timeout`, with exponential backoff; attempts that an overloaded server refuses, after the
    delay that it asks for. `list` and `cancel_many` go at the server's pace, however long that
    takes.

    Args:
        address: HOST:PORT, or another gRPC target such as unix:/run/idpass.sock.
        tls: True to trust the authorities that come with gRPC; the path or the bytes of a PEM
            file to trust the authorities in it.
        client_certificate: PEM certificate chain and private key for mutual TLS, as paths or
            bytes.
        token: bearer token, or a function that returns it, called for every attempt.
        timeout: time limit of a call with all its attempts and the pauses between, seconds.
        retry: how often and how patiently calls are retried and streams are opened again.
        metadata: sent with every attempt of every call, as a mapping or pairs: `x-tenant`, say.
            `authorization` and keys of gRPC's own are refused.
        interceptors: gRPC's own, which see every attempt: grpc.UnaryUnaryClientInterceptor for
            calls, grpc.UnaryStreamClientInterceptor for `watch`. The first one is the outermost.
            What one raises reaches the caller as it is, unless it is a grpc.RpcError.
        allow_plaintext: allow plain text to other machines, where something else protects the
            connection.
        channel_options: gRPC channel arguments, such as
            ("grpc.max_receive_message_length", 8_000_000).

    Raises:
        ValueError: `address` is not an address; or it is on another machine and neither TLS nor
            `allow_plaintext` is given, or a token would be sent there in plain text; or the
            token or the metadata cannot be sent in a header.
        TypeError: an argument, or an interceptor, is not of a kind that is taken.
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
        retry: RetryPolicy = DEFAULT,
        metadata: Metadata | None = None,
        interceptors: Sequence[SyncInterceptor] = (),
        allow_plaintext: bool = False,
        channel_options: ChannelOptions = (),
    ) -> None:
        self._endpoint = Endpoint(
            address,
            tls=tls,
            client_certificate=client_certificate,
            token=token,
            timeout=timeout,
            metadata=metadata,
            allow_plaintext=allow_plaintext,
            channel_options=channel_options,
        )
        self._transport = Transport(self._endpoint, retry, interceptors)

    def __repr__(self) -> str:
        state = ", closed" if self._transport.channel.closed else ""
        return f"{type(self).__name__}({self._endpoint!r}{state})"

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
        """Closes the connection. Calls in flight fail; iterations over `watch` end."""
        self._transport.close()

    @property
    def webhooks(self) -> Webhooks:
        """The methods for webhooks."""
        return Webhooks(self._transport)

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
        metadata: Metadata | None = None,
    ) -> Receipt:
        """Cancels a pass that is still in flight, and refunds its fee if it was NEW or OPENED.

        Args:
            id: UUID of the pass.
            reason: a CancelReason or its word, such as "abandoned"; never affects the refund.
            note: free text, up to 500 characters, kept with the pass.
            expected_status: cancel only if the pass is in this status.
            require_refund: cancel only if the fee is refunded.
            validate_only: make every check and answer as usual, but change nothing.
            request_id: 1 to 128 visible ASCII characters; the same one with the same arguments
                gets the first answer again, for as long as the pass exists. Generated if None.
            timeout: overall time limit, seconds; the client's if None.
            metadata: sent with every attempt, after the client's own; a key given here replaces
                the client's. Keys are lower case, and those of bytes end with -bin.

        Raises:
            NotFound: the account has no such pass.
            AlreadyCancelled: with the first outcome.
            Complete, Expired, Failed: the pass ended in another way.
            PassChanged: the pass is not in `expected_status`.
            RefundNotAvailable: `require_refund` is set and verification has begun.
            OutcomeUnknown: no answer came; call again with the error's request_id.
            Overloaded: the server asks for a longer delay than there is time left.
            Unavailable: no server could be reached; nothing was changed.
            IdPassError: anything else; see idpass.errors.
            TypeError, ValueError: an argument cannot be sent, or is not one of the words.
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
        return self._transport.run(call, timeout, metadata)

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
        metadata: Metadata | None = None,
    ) -> Iterator[CancelResult]:
        """Cancels any number of passes, and yields a result for each, in order.

        Each is decided by itself, as by `cancel`; a refused one does not affect the others. `ids`
        is read as results are consumed, so it need not fit into memory. If a batch fails as a
        whole, no more ids are read, the results of its items carry the error, and it is raised
        after the last result. Running again with all ids is safe: cancelled passes are answered
        with AlreadyCancelled, and nothing is refunded twice.

        It goes at the server's pace: a batch that is refused as Overloaded changed nothing, and
        is sent again after each delay that the server asks for.

        Args:
            ids: UUIDs of passes.
            reason, note, expected_status, require_refund: for each pass, as for `cancel`.
            batch_size: ids per batch, 1 to 1,000.
            in_flight: batches under way at once.
            timeout: time limit of a batch, seconds, restarted after each delay that the server
                asks for; the client's if None.
            metadata: as for `cancel`; sent with every batch.

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
        return self._transport.batches(batches.of(ids), in_flight, timeout, metadata)

    def register(
        self,
        *,
        link_validity_days: int = 0,
        applicant_reference: str = "",
        supersedes: Id | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> RegisterReceipt:
        """Registers a pass in NEW, charges the account's fee and takes a slot.

        Args:
            link_validity_days: days until the link expires, 1 to 14; 0 means 7.
            applicant_reference: the business's own name for the applicant, up to 128 characters.
            supersedes: UUID of a pass in flight that the new one replaces: it is cancelled in
                the same transaction, and the new one takes its slot.
            request_id, timeout, metadata: as for `cancel`.

        Raises:
            NoFreeSlot: every slot of the account is in use.
            DailyQuotaExhausted: the account has registered as many passes today as it may.
            NotFound, AlreadyCancelled, Complete, Expired, Failed: the pass in `supersedes` does
                not exist or is not in flight.
            OutcomeUnknown: no answer came; call again with the error's request_id.
            IdPassError: anything else; see idpass.errors.
        """
        call = _calls.register(link_validity_days, applicant_reference, supersedes, request_id)
        return self._transport.run(call, timeout, metadata)

    def advance(
        self,
        id: Id,  # noqa: A002 the contract's name
        to_status: AnyStatus,
        *,
        expected_status: AnyStatus | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> AdvanceReceipt:
        """Advances a pass along its lifecycle as the applicant and the verification proceed.

        Args:
            id: UUID of the pass.
            to_status: OPENED, IN_PROGRESS, COMPLETE, FAILED or EXPIRED, or its word: "opened".
            expected_status: advance only if the pass is in this status.
            request_id, timeout, metadata: as for `cancel`.

        Raises:
            NotFound: the account has no such pass.
            TransitionNotAllowed: its status does not lead there; see `.allowed`.
            AlreadyCancelled, Complete, Expired, Failed: its status can no longer change.
            PassChanged: the pass is not in `expected_status`.
            OutcomeUnknown: no answer came; call again with the error's request_id.
            IdPassError: anything else; see idpass.errors.
        """
        call = _calls.advance(id, to_status, expected_status, request_id)
        return self._transport.run(call, timeout, metadata)

    def get(
        self,
        id: Id,  # noqa: A002 the contract's name
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> IdPass:
        """One pass, as it is now.

        Args:
            id: UUID of the pass.
            timeout, metadata: as for `cancel`.

        Raises:
            NotFound: the account has no such pass.
            IdPassError: anything else; see idpass.errors.
        """
        return self._transport.run(_calls.get(id), timeout, metadata)

    def account(self, *, timeout: float | None = None, metadata: Metadata | None = None) -> Account:
        """The caller's account, as it is now.

        Args:
            timeout, metadata: as for `cancel`.

        Raises:
            IdPassError: see idpass.errors.
        """
        return self._transport.run(_calls.account(), timeout, metadata)

    def list(
        self,
        *,
        statuses: Iterable[AnyStatus] = (),
        idle_before: datetime | None = None,
        idle_for: timedelta | None = None,
        applicant_reference: str = "",
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[IdPass]:
        """Passes, newest first; further pages are requested as they are needed.

        A pass that exists and matches throughout the listing is returned exactly once.

        Args:
            statuses: only passes in one of these statuses, up to 50 entries; empty means any.
            idle_before: only passes whose status has not changed since; with a time zone.
            idle_for: the same, counted back from now.
            applicant_reference: only passes with exactly this one; empty means any.
            timeout: time limit of a page, seconds, restarted after each delay that an overloaded
                server asks for; the client's if None.
            metadata: as for `cancel`.

        Raises:
            ValueError: both idle_before and idle_for are given, or idle_before has no time zone.
            IdPassError: see idpass.errors.
        """
        listing = _calls.Listing(statuses, idle_before, idle_for, applicant_reference)
        return self._transport.pages(listing, timeout, metadata)

    def watch(
        self,
        id: Id | None = None,  # noqa: A002 the contract's name
        *,
        after_sequence: int = 0,
        history: str | None = None,
        reconnect_for: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[Event]:
        """The account's events in commit order: past ones first, then each as it happens.

        After a broken connection it reconnects and resumes after the last event yielded, so none
        is missed or repeated; an overloaded server is given the delay that it asks for. The
        iteration ends when the client is closed.

        Args:
            id: only this pass's events, ending after the one that made it terminal.
            after_sequence: sequence of the last event already seen; 0 means from the beginning,
                and `account().last_sequence` means from now on.
            history: `account().history` when that event was seen. A position without it is checked
                as well, unless it is from another database.
            reconnect_for: how long the service may be out of reach or overloaded before an error
                is raised, seconds; the retry policy's if None.
            metadata: as for `cancel`; sent with every stream.

        Raises:
            NotFound: the account has no such pass.
            HistoryLost: the database was restored from an older backup, or events that were yet to
                come were purged.
            Unavailable: the service was out of reach for longer than `reconnect_for`.
            Overloaded: the server has no room for the stream: at its start, or for longer than
                `reconnect_for`.
            IdPassError: anything else; see idpass.errors.
        """
        watching = _calls.Watching(id, after_sequence, history)
        return self._transport.events(watching, reconnect_for, metadata)
