"""Signed requests to endpoints, counted, and their failures in the log."""

import time
from typing import Final

import structlog

from idpass_server.delivery.figures import Figures
from idpass_server.delivery.outbox import encoded
from idpass_server.delivery.sending import Sender
from idpass_server.delivery.signing import Secrets
from idpass_server.engine.clock import Clock, shown
from idpass_server.ids import new_uuid
from idpass_server.rules import webhooks as rules
from idpass_server.rules.refusals import Overloaded
from idpass_server.rules.webhooks import Attempt, Next, Webhook

MAX_TESTS: Final = 16
"""Number of test events under way; more are refused as Overloaded."""
TELL_S: Final = 60.0
"""Shortest interval between two log lines about failures of one endpoint, seconds."""

log = structlog.get_logger()


class Posts:
    """Sends requests.

    Args:
        sender: sends them.
        secrets: signs them.
        clock: tells the time.
        figures: counts them.
    """

    def __init__(self, sender: Sender, secrets: Secrets, clock: Clock, figures: Figures) -> None:
        self._sender = sender
        self._secrets = secrets
        self._clock = clock
        self._figures = figures
        self._tests = 0

    async def close(self) -> None:
        """Closes all connections."""
        await self._sender.close()

    async def post(
        self, webhook: Webhook, message_id: str, body: bytes, number: int
    ) -> tuple[Attempt, int]:
        """Sends one request.

        Args:
            webhook: where to.
            message_id: its `webhook-id`.
            body: the payload's bytes.
            number: of the attempt.

        Returns:
            the attempt, and what its Retry-After asks for, microseconds.
        """
        now_us = self._clock.now().us
        headers = self._secrets.headers(webhook, message_id, body, now_us)
        sent = await self._sender.post(webhook.url, headers, body)
        attempt = Attempt(number, now_us, *sent[:4])
        self._figures.attempt(attempt)
        return attempt, sent.retry_after_us

    async def test(self, webhook: Webhook, history: str) -> Attempt:
        """Sends a test event.

        Args:
            webhook: where to.
            history: id of the database's history.

        Raises:
            Overloaded: MAX_TESTS are under way.
        """
        if self._tests >= MAX_TESTS:
            raise Overloaded("too many test events are under way")
        self._tests += 1
        try:
            payload = {
                "type": rules.TEST_TYPE,
                "timestamp": shown(self._clock.now().us).replace("+00:00", "Z"),
                "data": {"history": history, "webhook_id": webhook.id},
            }
            attempt, _ = await self.post(webhook, f"msg_test_{new_uuid()}", encoded(payload), 1)
            return attempt
        finally:
            self._tests -= 1


class Telling:
    """Logs failures: each pause and each event given up, of the others some."""

    def __init__(self) -> None:
        self._told_s: dict[str, float] = {}

    def forget(self, webhook: Webhook) -> None:
        """Forgets an endpoint that is gone."""
        self._told_s.pop(webhook.id, None)

    def failed(self, webhook: Webhook, sequence: int, attempt: Attempt, then: Next) -> None:
        """Logs a failed attempt.

        Args:
            webhook: as it is after it.
            sequence: of the event.
            attempt: the attempt.
            then: what follows.
        """
        what = {
            "webhook": webhook.id,
            "account": webhook.account,
            "sequence": sequence,
            "attempt": attempt.number,
            "code": attempt.status_code,
            "error": attempt.error or None,
        }
        now_s = time.monotonic()
        if webhook.paused:
            log.warning("webhook_paused", reason=str(webhook.paused_reason), **what)
        elif then is Next.GIVE_UP:
            log.warning("webhook_event_given_up", **what)
        elif now_s - self._told_s.get(webhook.id, -TELL_S) >= TELL_S:
            self._told_s[webhook.id] = now_s
            log.info("webhook_failing", **what)
