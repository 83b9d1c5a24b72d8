"""A program that uses both clients under Sentry's instrumentation of gRPC, which cannot be undone.

    python tests/client/sentry_caller.py HOST:PORT

It breaks connections on the way, so that calls are retried and streams opened again, and prints
what Sentry was told, one span a line.
"""

import asyncio
import sys
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import sentry_sdk
from sentry_sdk.integrations.grpc import GRPCIntegration
from sentry_sdk.transport import Transport

from idpass import AsyncIdPassClient, IdPassClient, NotFound, RetryPolicy
from kit.proxy import Cut, CuttingProxy

SPANS: list[str] = []
POLICY = RetryPolicy(initial_backoff=0.01)


class Kept(Transport):
    """Keeps the spans instead of sending them."""

    def capture_envelope(self, envelope: Any) -> None:
        for item in envelope.items:
            transaction = item.get_transaction_event() or {}
            SPANS.extend(str(span["description"]) for span in transaction.get("spans", ()))


class Counting(grpc.UnaryUnaryClientInterceptor):
    """An interceptor of the caller's own, beside Sentry's."""

    seen = 0

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.seen += 1
        return continuation(details, request)


def register_directly() -> str:
    """An event that nobody has been sent yet."""
    with IdPassClient(sys.argv[1], timeout=20) as client:
        return client.register().id_pass.id


def sync(proxy: CuttingProxy) -> None:
    counting = Counting()
    with IdPassClient(
        proxy.address, timeout=20, retry=POLICY, interceptors=[counting], metadata={"x-team": "7"}
    ) as client:
        start = client.account().last_sequence
        pass_id = client.register().id_pass.id
        proxy.cuts.append(Cut.BEFORE_ANSWER)
        assert client.cancel(pass_id).replayed
        assert counting.seen == 4, counting.seen
        assert [event.to_status for event in client.watch(pass_id)] == ["new", "cancelled"]
        events: Any = client.watch(after_sequence=start)
        assert next(events).id == pass_id
        proxy.cut_all()
        later_id = register_directly()
        assert next(events).to_status == "cancelled"
        assert next(events).id == later_id
        events.close()
        try:
            client.get(uuid.uuid4())
        except NotFound as error:
            assert error.reference
        else:
            raise AssertionError("was found")


async def asynchronous(proxy: CuttingProxy) -> None:
    async with AsyncIdPassClient(proxy.address, timeout=20, retry=POLICY) as client:
        start = (await client.account()).last_sequence
        pass_id = (await client.register()).id_pass.id
        proxy.cuts.append(Cut.BEFORE_ANSWER)
        assert (await client.cancel(pass_id)).replayed
        events = client.watch(after_sequence=start)
        assert (await anext(events)).id == pass_id
        proxy.cut_all()
        later_id = register_directly()
        assert (await anext(events)).to_status == "cancelled"
        assert (await anext(events)).id == later_id
        waiting = asyncio.ensure_future(anext(events, None))
        await asyncio.sleep(0)
        await client.close()
        assert await waiting is None


def main() -> None:
    sentry_sdk.init(
        dsn="https://key@sentry.invalid/1",
        transport=Kept,
        integrations=[GRPCIntegration()],
        default_integrations=False,
        traces_sample_rate=1.0,
    )
    proxy = CuttingProxy(sys.argv[1])
    with sentry_sdk.start_transaction(name="test"):
        sync(proxy)
        asyncio.run(asynchronous(proxy))
    proxy.close()
    sentry_sdk.flush()
    print("\n".join(SPANS))


if __name__ == "__main__":
    main()
