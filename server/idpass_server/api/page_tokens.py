"""Page tokens: what a list was asked for, and where its next page begins, in one opaque text."""

import base64
import binascii
import json
from typing import Any


def write(content: tuple[str, Any]) -> str:
    """Makes a token. Args: content: what identifies the list, and a position."""
    text = json.dumps(content, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(token: str) -> tuple[Any, Any] | None:
    """The content of a token; None if it is not one. The parts may be anything."""
    try:
        padded = token + "=" * (-len(token) % 4)
        of, position = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        return None
    return of, position
