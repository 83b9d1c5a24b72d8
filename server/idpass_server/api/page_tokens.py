"""Page tokens: what a list was asked for, and where its next page begins, in one opaque text."""

import base64
import binascii
import json
from typing import Any


def write(content: tuple[str, Any], history: str | None = None) -> str:
    """Makes a token.

    Args:
        content: what identifies the list, and a position; the latter a string if it is of a
            history.
        history: id of the history that the position is from; None if it is from none.
    """
    told: Any = content
    if history is not None:
        # The previous program unpacks two values, and finds the same two in the keys.
        told = {content[0]: history, content[1]: ""}
    text = json.dumps(told, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(token: str) -> tuple[Any, Any, Any] | None:
    """The content of a token and its history, "" for none; None if it is no token.

    The parts may be anything.
    """
    try:
        padded = token + "=" * (-len(token) % 4)
        content = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        of, position = content
    except (ValueError, TypeError, binascii.Error, RecursionError):
        return None
    return of, position, content[of] if isinstance(content, dict) else ""
