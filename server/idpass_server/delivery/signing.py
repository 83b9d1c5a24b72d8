"""Secrets and signatures, as Standard Webhooks has them.

A secret is derived from the key file, the endpoint's id and the generation of the secret. It is
stored nowhere: a leaked database or backup signs nothing.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from idpass_server.rules.webhooks import Webhook

KEY_BYTES: Final = 32
"""Smallest length of a key."""
MAX_KEYS: Final = 4
"""Number of keys in a file: the one in force, and former ones that still sign."""
_PREFIX: Final = "whsec_"


class BadKeys(ValueError):
    """The content of a key file cannot be used; the message says why, without repeating it."""


def parse_keys(content: bytes) -> list[bytes]:
    """The keys in a key file, one a line in base64; the first one is in force.

    Raises:
        BadKeys: a line is no key, or there is none, or there are too many.
    """
    lines = content.split()
    if not lines:
        raise BadKeys("has no key")
    if len(lines) > MAX_KEYS:
        raise BadKeys(f"has {len(lines)} keys; at most {MAX_KEYS} are allowed")
    keys = []
    for number, line in enumerate(lines, start=1):
        try:
            key = base64.b64decode(line, validate=True)
        except binascii.Error as error:
            raise BadKeys(f"has a key that is not base64: number {number}") from error
        if len(key) < KEY_BYTES:
            raise BadKeys(f"has a key of {len(key)} bytes, not {KEY_BYTES}: number {number}")
        keys.append(key)
    return keys


class Secrets:
    """Derives secrets and signs with them.

    Args:
        keys: the key in force, and former ones, which still sign.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def secret(self, webhook: Webhook) -> str:
        """The endpoint's secret, as a receiver's library takes it."""
        secret = _derived(self._keys[0], webhook.id, webhook.generation)
        return _PREFIX + base64.b64encode(secret).decode()

    def headers(
        self, webhook: Webhook, message_id: str, body: bytes, now_us: int
    ) -> dict[str, str]:
        """The headers that identify and sign a message.

        Args:
            webhook: the endpoint; its previous secret signs as well after a rotation.
            message_id: of the message.
            body: its bytes.
            now_us: the time, microseconds since the epoch.
        """
        timestamp = str(now_us // 1_000_000)
        signed = f"{message_id}.{timestamp}.".encode() + body
        signatures = [
            _signature(_derived(key, webhook.id, generation), signed)
            for generation in webhook.generations(now_us)
            for key in self._keys
        ]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(signatures),
        }


def _derived(key: bytes, webhook_id: str, generation: int) -> bytes:
    return hmac.digest(key, f"{webhook_id}.{generation}".encode(), hashlib.sha256)


def _signature(secret: bytes, signed: bytes) -> str:
    digest = hmac.digest(secret, signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"
