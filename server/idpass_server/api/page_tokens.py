"""Page tokens: what a list was asked for, and where its next page begins, in one opaque text."""

import base64
import binascii
import json
from typing import Any


def write(content: Any) -> str:
    """Makes a token. Args: content: what JSON can hold."""
    text = json.dumps(content, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(token: str) -> Any:
    """The content of a token, which may be anything; None if it is not one."""
    try:
        padded = token + "=" * (-len(token) % 4)
        return json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        return None
