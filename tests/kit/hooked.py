"""A server with webhooks, and what a test does with them before there is an API for it."""

import asyncio
import base64
import secrets
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from idpass_server.delivery.webhooks import Webhooks
from idpass_server.rules.webhooks import Delivery, Webhook
from kit.support import Service

T = TypeVar("T")
ALLOWED = "127.0.0.0/8"


def key_file(folder: Path) -> Path:
    """A key file in a folder, as `idpass-server webhook-key` makes it."""
    path = folder / "webhook.key"
    if not path.exists():
        path.touch(0o600)
        path.write_bytes(base64.b64encode(secrets.token_bytes(32)) + b"\n")
    return path


class Hooked(Service):
    """A server in this process with webhooks; receivers on this machine are allowed."""

    def __init__(self, db: Path | str, folder: Path, **settings: Any) -> None:
        settings = {"webhook_allow": ALLOWED} | settings
        super().__init__(db, webhook_key=str(key_file(folder)), **settings)

    @property
    def webhooks(self) -> Webhooks:
        found = self.server.webhooks
        assert found is not None
        return found

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs something on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def hook(self, url: str, account: str = "demo", **fields: Any) -> tuple[Webhook, str]:
        """Creates a webhook. Returns it and its secret."""
        created = self.run(self.webhooks.create(account, "demo", url, **fields))
        return created.webhook, created.secret

    def webhook(self, webhook_id: str) -> Webhook:
        return self.run(self.webhooks.get("demo", webhook_id))

    def update(self, webhook_id: str, **changes: Any) -> Webhook:
        return self.run(self.webhooks.update("demo", webhook_id, **changes))

    def deliveries(self, webhook_id: str) -> list[tuple[Delivery, str]]:
        return self.run(self.webhooks.deliveries("demo", webhook_id, 200)).deliveries
