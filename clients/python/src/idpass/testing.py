"""Fakes for callers' tests: the real clients, and behind them a service in memory.

    service = FakeService()
    client = FakeIdPassClient(service)
    pass_id = service.put_pass("opened")
    assert client.cancel(pass_id).fee_refunded
    service.move_clock(days=8)

No server, no port and no network is needed, and nothing is waited for. Requests, answers, errors,
retries and reconnects are those of the real clients; what is fake is the service. It knows the
lifecycle, refunds, receipts, slots, events, and every refusal that these lead to.

What it does not know: webhooks (WebhooksDisabled is raised), callers and permissions, other
accounts, daily quotas, rates and overload, erasing, purges and restores. Interceptors and metadata
lead nowhere. Nothing is kept. Where that matters, `idpass_server.testing` runs the real service.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from idpass._arguments import status_number
from idpass._channel import LazyChannel
from idpass._fake import Fake
from idpass._fake_channel import AsyncChannel, Line, SyncChannel
from idpass._policy import DEFAULT, RetryPolicy
from idpass._records import Money
from idpass._stubs import Stubs
from idpass._words import AnyStatus, Status
from idpass.aio import AsyncIdPassClient
from idpass.client import IdPassClient
from idpass.v1 import id_pass_service_pb2 as service_pb

__all__ = ["AsyncFakeIdPassClient", "FakeIdPassClient", "FakeService"]

FEE = Money("AUD", Decimal("4.50"))
"""Fee for a pass, unless a test sets another."""

_ADDRESS = "localhost:0"
_WAYS: dict[Status, tuple[Status, ...]] = {
    Status.NEW: (),
    Status.OPENED: (Status.OPENED,),
    Status.IN_PROGRESS: (Status.OPENED, Status.IN_PROGRESS),
    Status.COMPLETE: (Status.OPENED, Status.IN_PROGRESS, Status.COMPLETE),
    Status.FAILED: (Status.OPENED, Status.IN_PROGRESS, Status.FAILED),
    Status.EXPIRED: (Status.EXPIRED,),
    Status.CANCELLED: (Status.CANCELLED,),
}


class FakeService:
    """A service in memory, with one account, for any number of fake clients, of both kinds.

    Args:
        slot_limit: number of passes that may be in flight.
        fee: charged for each pass.

    Attributes:
        line: the clients' way to it.
    """

    def __init__(self, *, slot_limit: int = 1_000_000, fee: Money = FEE) -> None:
        self.line = Line(Fake(slot_limit, fee))

    def put_pass(
        self,
        status: AnyStatus = Status.NEW,
        *,
        applicant_reference: str = "",
        link_validity_days: int = 0,
    ) -> str:
        """Registers a pass and brings it into a status, by the transitions that lead there.

        Args:
            status: a Status or its word.
            applicant_reference: the business's own name for the applicant.
            link_validity_days: 1 to 14; 0 means 7.

        Returns:
            its id.

        Raises:
            ValueError: there is no such status.
            grpc.RpcError: the service refused it, such as for want of a slot.
        """
        way = _WAYS[Status(status)]
        line = Line(self.line.fake)  # on which nothing gets lost
        registered = line.call(
            "RegisterIdPass",
            service_pb.RegisterRequest(
                applicant_reference=applicant_reference, link_validity_days=link_validity_days
            ),
        )
        pass_id: str = registered.id_pass.id
        for step in way:
            if step is Status.CANCELLED:
                line.call("CancelIdPass", service_pb.CancelRequest(id=pass_id))
            else:
                to_status = status_number("to_status", step)
                request = service_pb.AdvanceRequest(id=pass_id, to_status=to_status)
                line.call("AdvanceIdPass", request)
        return pass_id

    def move_clock(self, *, days: float = 0, hours: float = 0, seconds: float = 0) -> None:
        """Moves the service's clock forward: links expire, passes become idle.

        Args:
            days, hours, seconds: added to each other.

        Raises:
            ValueError: the time is negative; a service's clock never runs backwards.
        """
        by = timedelta(days=days, hours=hours, seconds=seconds)
        if by < timedelta():
            raise ValueError(f"the clock cannot be moved by {by}: it never runs backwards")
        self.line.fake.move_clock(by)

    def lose_answers(self, count: int = 1) -> None:
        """Has the next calls do their work and their answers get lost.

        A client retries such a call, and is given the first answer again; with as many lost
        answers as it makes attempts, it raises OutcomeUnknown.
        """
        self.line.answers_to_lose = count

    def set_reachable(self, reachable: bool) -> None:
        """Whether calls get to the service; while none do, they raise Unavailable at once."""
        self.line.reachable = reachable


class FakeIdPassClient(IdPassClient):
    """An IdPassClient of a service in memory.

    Args:
        service: that of other clients too; a new one if None.
        timeout, retry: as IdPassClient.

    Attributes:
        service: what it is a client of.
    """

    def __init__(
        self,
        service: FakeService | None = None,
        *,
        timeout: float = 5.0,
        retry: RetryPolicy = DEFAULT,
    ) -> None:
        super().__init__(_ADDRESS, timeout=timeout, retry=retry)
        self.service = service or FakeService()
        channel: Any = SyncChannel(self.service.line)
        self._transport.channel = LazyChannel(lambda: channel, Stubs)


class AsyncFakeIdPassClient(AsyncIdPassClient):
    """An AsyncIdPassClient of a service in memory. All is as in FakeIdPassClient."""

    def __init__(
        self,
        service: FakeService | None = None,
        *,
        timeout: float = 5.0,
        retry: RetryPolicy = DEFAULT,
    ) -> None:
        super().__init__(_ADDRESS, timeout=timeout, retry=retry)
        self.service = service or FakeService()
        channel: Any = AsyncChannel(self.service.line)
        self._transport.channel = LazyChannel(lambda: channel, Stubs)
