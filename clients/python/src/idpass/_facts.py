"""Reads the facts that come with an error's reason; what cannot be read is nothing."""

from datetime import datetime

from idpass._words import Status


def status(word: str) -> Status | None:
    try:
        return Status(word)
    except ValueError:
        return None


def integer(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def time(text: str | None) -> datetime | None:
    try:
        # Python 3.10 does not know the Z.
        return datetime.fromisoformat((text or "").replace("Z", "+00:00"))
    except ValueError:
        return None
