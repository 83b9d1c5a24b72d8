"""The events table as an outbox: reads events with their passes, and makes the bodies to send.

Endpoints of one account mostly want the same events at the same time, so that one read serves them
all. The pass is shown as it is when it is read: a later attempt may carry a newer one, under the
same `webhook-id`.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from idpass_server.engine.reads import Reads
from idpass_server.rules.records import Event, Pass
from idpass_server.rules.webhooks import event_type
from idpass_server.store import Store

CHUNK_EVENTS: Final = 32
"""Number of events in one read."""
SHARED_CHUNKS: Final = 32
"""Number of chunks kept for other endpoints at the same position."""

Show = Callable[[Event, Pass | None], dict[str, Any]]
"""The members "event" and "id_pass" of a payload's data, as HTTP/JSON shows them."""


class Message(NamedTuple):
    """An event, ready to be sent.

    Attributes:
        event: the event.
        body: the payload's bytes.
    """

    event: Event
    body: bytes


class Outbox:
    """Reads events.

    Args:
        store: has them.
        reads: runs the reads.
        show: shows an event and its pass.
    """

    def __init__(self, store: Store, reads: Reads, show: Show) -> None:
        self._store = store
        self._reads = reads
        self._show = show
        self.history = ""
        self._chunks: OrderedDict[tuple[str, int], asyncio.Task[list[Message]]] = OrderedDict()

    async def after(self, account: str, sequence: int) -> list[Message]:
        """The account's next events after a sequence, in order; none if there are none to read.

        Raises:
            StoreUnavailable: the store cannot be read now.
        """
        key = (account, sequence)
        task = self._chunks.get(key)
        if task is None:
            task = self._chunks[key] = asyncio.create_task(self._read(*key, CHUNK_EVENTS))
            if len(self._chunks) > SHARED_CHUNKS:
                self._chunks.popitem(last=False)
        try:
            chunk = await asyncio.shield(task)
        except BaseException:
            self._forget(key, task)
            raise
        if not chunk:
            self._forget(key, task)
        return chunk

    async def one(self, account: str, sequence: int) -> Message | None:
        """One event; None if it is no longer there.

        Raises:
            StoreUnavailable: the store cannot be read now.
        """
        found = await self._read(account, sequence - 1, 1)
        return found[0] if found and found[0].event.sequence == sequence else None

    def _forget(self, key: tuple[str, int], task: "asyncio.Task[list[Message]]") -> None:
        if self._chunks.get(key) is task:
            del self._chunks[key]

    async def _read(self, account: str, sequence: int, limit: int) -> list[Message]:
        def read() -> list[Message]:
            events = self._store.events(account, sequence, limit)
            ids = {event.id_pass_id for event in events}
            passes = {each.id: each for each in self._store.get_passes(account, ids)}
            return [self._message(event, passes.get(event.id_pass_id)) for event in events]

        return await self._reads.run(read)

    def _message(self, event: Event, id_pass: Pass | None) -> Message:
        shown = self._show(event, id_pass)
        payload = {
            "type": event_type(event),
            "timestamp": shown["event"]["event_time"],
            "data": {"history": self.history, **shown},
        }
        return Message(event, encoded(payload))


def encoded(payload: dict[str, Any]) -> bytes:
    """A payload's bytes."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
