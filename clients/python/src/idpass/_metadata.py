"""Metadata of callers' own, sent with their calls: headers, in HTTP's words."""

import re
from collections.abc import Iterable, Mapping

Value = str | bytes
Metadata = Mapping[str, Value] | Iterable[tuple[str, Value]]
Pairs = tuple[tuple[str, Value], ...]

_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[ -~]*")
_RESERVED = {
    "authorization": "the client writes it: give token=",
    "user-agent": 'gRPC writes it: give channel_options=[("grpc.primary_user_agent", "mine/1.0")]',
    "content-type": "gRPC writes it",
    "te": "gRPC writes it",
    "host": "gRPC writes it",
}


def checked(metadata: Metadata | None) -> Pairs:
    """Metadata as pairs.

    No message contains a value: it may be a secret.

    Raises:
        TypeError: it is not a mapping or pairs of text, or a value has the wrong type for its key.
        ValueError: a key is reserved or malformed, or a value cannot be sent.
    """
    if not metadata:
        return ()
    given: object = metadata
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(
            f"metadata is {type(given).__name__}; give a mapping such as "
            '{"x-tenant": "7"}, or pairs of a key and a value'
        )
    pairs = []
    for pair in given.items() if isinstance(given, Mapping) else given:
        if not isinstance(pair, tuple | list) or len(pair) != 2:  # noqa: PLR2004 a pair
            raise TypeError(
                f"metadata has an entry of type {type(pair).__name__}; give pairs of a key and a "
                "value, or a mapping"
            )
        key, value = pair
        _check_key(key)
        _check_value(key, value)
        pairs.append((key, value))
    return tuple(pairs)


def merged(client: Pairs, call: Pairs) -> Pairs:
    """The client's metadata, less the keys that the call gives itself, then the call's."""
    if not call or not client:
        return client or call
    own = {key for key, _ in call}
    return (*(pair for pair in client if pair[0] not in own), *call)


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise TypeError(f"the metadata key {key!r} is {type(key).__name__}; give text")
    lower = key.lower()
    if lower in _RESERVED:
        raise ValueError(f"the metadata key {key!r} is reserved: {_RESERVED[lower]}")
    if lower.startswith(("grpc-", ":")):
        raise ValueError(f"the metadata key {key!r} is reserved: what begins so is gRPC's own")
    if key != lower and _KEY.fullmatch(lower):
        raise ValueError(f"the metadata key {key!r} has capitals: give {lower!r}")
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"the metadata key {key!r} cannot be sent: give lower-case letters, digits and _ . -"
        )


def _check_value(key: str, value: object) -> None:
    binary = key.endswith("-bin")
    if not isinstance(value, bytes if binary else str):
        raise TypeError(
            f"the metadata {key!r} is {type(value).__name__}; give "
            + ("bytes, as its key ends with -bin" if binary else "text, or end its key with -bin")
        )
    if isinstance(value, str) and not _VALUE.fullmatch(value):
        raise ValueError(
            f"the metadata {key!r} has characters other than printable ASCII: send it as bytes, "
            "with a key that ends with -bin"
        )
