"""The service's metadata that becomes header fields of an answer, and how it is asked for."""

from collections.abc import Iterable
from typing import Final

REFERENCE: Final = "idpass-reference"
"""A call's own reference."""
ASKING: Final = (("idpass-tell-rate", "1"),)
"""Metadata of every call: the answer says what is left of its caller's rate."""

_FIELDS: Final = {REFERENCE, "ratelimit", "ratelimit-policy"}


def headers(
    metadata: Iterable[tuple[str, str | bytes]] | None, answer: object = None
) -> list[tuple[str, str]]:
    """The headers that an answer gets from the service's metadata.

    Args:
        metadata: trailing that of a unary call, initial that of a stream.
        answer: of a unary call; has the call's reference where the metadata do not.
    """
    told = [(key, str(value)) for key, value in metadata or () if key in _FIELDS]
    reference = getattr(answer, "reference", None)
    if reference and all(key != REFERENCE for key, _ in told):
        told.append((REFERENCE, reference))
    return told
