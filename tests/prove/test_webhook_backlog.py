"""Promise: a dead webhook with a million events behind it takes little memory and delays no other.

Means: a database with that many events, a webhook that nobody answers with all of them to come, and
one beside it that answers. The server's memory is read before and after, and printed. Control: the
same webhook, answered, gets events at once, so that the dead one was really tried.

Blind spots: one process, SQLite; memory is the process's peak, not what single parts take.
"""

import socket
from pathlib import Path
from typing import Any

import pytest

from bench.seed import seed
from idpass.v1 import webhook_service_pb2 as webhook_pb
from idpass.v1.webhook_service_pb2_grpc import WebhookServiceStub
from kit.hooked import ALLOWED, key_file
from kit.memory import PEAK, rss_mb
from kit.proving import MINUTES
from kit.receiver import Receiver
from kit.support import Process, eventually, report

EVENTS = 1_000_000 if MINUTES else 20_000
GROWTH_MB = 40
"""What trying the dead webhook may take, MB: a chunk of events, and what waits."""


def test_a_dead_webhook_far_behind(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    seeded = seed(tmp_path / "idpass.db", in_flight=EVENTS, history=0)
    options = ("--webhook-key", str(key_file(tmp_path)), "--webhook-allow", ALLOWED)
    with Receiver() as alive, Receiver() as second, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        server = Process(seeded.path, *options)
        try:
            stub: Any = WebhookServiceStub(server.channel)

            def create(url: str, after: int | None) -> str:
                asked = webhook_pb.CreateWebhookRequest(url=url, after_sequence=after)
                return str(stub.CreateWebhook(asked, timeout=30).webhook.id)

            def deliveries(webhook_id: str) -> list[Any]:
                asked = webhook_pb.ListWebhookDeliveriesRequest(id=webhook_id)
                return list(stub.ListWebhookDeliveries(asked, timeout=30).deliveries)

            create(alive.url, None)
            server.cancel(seeded.in_flight[0])
            alive.wait_for(1)
            before_mb = rss_mb(server.process.pid, PEAK)
            dead = create(f"http://127.0.0.1:{nobody.getsockname()[1]}/", 0)
            eventually(lambda: len(deliveries(dead)) >= 8)
            for number, pass_id in enumerate(seeded.in_flight[1:21], start=2):
                server.cancel(pass_id)
                # Nothing waits for the dead one: this comes while it is tried.
                alive.wait_for(number)
            after_mb = rss_mb(server.process.pid, PEAK)
            report(
                request,
                "webhooks",
                f"{EVENTS:,} events behind: {before_mb:.0f} MB before, {after_mb:.0f} MB after",
            )
            assert after_mb - before_mb < GROWTH_MB
            create(second.url, 0)
            second.wait_for(100)
        finally:
            server.kill()
