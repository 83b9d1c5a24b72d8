"""W3C Trace Context: which trace a request belongs to, read from its headers or metadata.

Strangers write these headers, so nothing of them is passed on, or logged, that does not have the
form of https://www.w3.org/TR/trace-context. What has another form is ignored, as the recommendation
says: tracing never fails a call. What is passed on is made anew from what was read.

Pure, and below the service and the gateway, which read the same two headers.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

MAX_TRACEPARENT_CHARACTERS: Final = 128
"""Longest `traceparent` looked at, characters; one of version 00 has 55."""
MAX_TRACESTATE_CHARACTERS: Final = 512
"""Longest `tracestate` passed on, characters: as long as the recommendation asks for."""
MAX_TRACESTATE_MEMBERS: Final = 32

SAMPLED: Final = 0x01
_KNOWN_FLAGS: Final = 0x03  # sampled, and random-trace-id

# A later version may append fields, which this one drops.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<parent>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_KEY: Final = r"[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_VALUE: Final = r"[ -+\--<>-~]{0,255}[!-+\--<>-~]"
_MEMBER: Final = re.compile(rf"(?P<key>{_KEY})={_VALUE}")


class TraceContext(NamedTuple):
    """Where in a trace a request was made.

    Attributes:
        trace_id: of the trace, 32 hexadecimal digits.
        parent_id: of the caller's span, 16 hexadecimal digits.
        flags: `SAMPLED`, and others that are passed on.
        state: vendors' own additions, as in `tracestate`; "" for none.
    """

    trace_id: str
    parent_id: str
    flags: int
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Whether the caller records its part of the trace."""
        return bool(self.flags & SAMPLED)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers, or metadata, that pass it on."""
        parent = f"00-{self.trace_id}-{self.parent_id}-{self.flags:02x}"
        if not self.state:
            return ((TRACEPARENT, parent),)
        return (TRACEPARENT, parent), (TRACESTATE, self.state)


def read(headers: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
    """Reads the context of a request.

    Args:
        headers: names in lower case, and values. Others than the two are skipped.

    Returns:
        None if there is no `traceparent`, several, or one that is malformed. A malformed
        `tracestate` is left out.
    """
    parents: list[str] = []
    states: list[str] = []
    for name, value in headers:
        if name == TRACEPARENT:
            parents.append(value if isinstance(value, str) else value.decode("latin-1"))
        elif name == TRACESTATE:
            states.append(value if isinstance(value, str) else value.decode("latin-1"))
    if len(parents) != 1 or len(parents[0]) > MAX_TRACEPARENT_CHARACTERS:
        return None
    found = _TRACEPARENT.fullmatch(parents[0])
    if found is None or (found["version"] == "00" and found["more"]):
        return None
    flags = int(found["flags"], 16) & _KNOWN_FLAGS
    state = _state(",".join(states)) if states else ""
    return TraceContext(found["trace"], found["parent"], flags, state)


def _state(text: str) -> str:
    """A `tracestate` as it is passed on; "" if it is too long or malformed."""
    if len(text) > MAX_TRACESTATE_CHARACTERS:
        return ""
    members = [member.strip(" \t") for member in text.split(",")]
    found = [_MEMBER.fullmatch(member) for member in members if member]
    keys = [member["key"] for member in found if member is not None]
    if len(keys) != len(found) or len(keys) > MAX_TRACESTATE_MEMBERS or len(set(keys)) < len(keys):
        return ""
    return ",".join(member for member in members if member)
