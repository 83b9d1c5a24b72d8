"""Reads fields of requests: normalises values, and collects what is wrong with them."""

import re
from collections.abc import Sequence
from typing import Final

from idpass.v1 import id_pass_pb2 as pb
from idpass_server.rules.records import Reason, Status
from idpass_server.rules.refusals import InvalidRequest, Violation

MAX_SHOWN_CHARACTERS: Final = 64
"""Number of characters of a caller's value that a message repeats."""
UUID_CHARACTERS: Final = 36
MAX_STATUSES: Final = 50
"""Largest number of entries in `statuses`; there are fewer statuses, but repeats are allowed."""

UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
# Control characters (C0, DEL, C1) steer terminals; bidirectional embeddings, overrides and isolates
# make one text look like another.
_STEERS: Final = "a control or bidirectional formatting character"
_BREAKS: Final = "\t\n\r\u2028\u2029"
_STEERING: Final = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
_NOT_IN_TEXT: Final = re.compile(f"[{_STEERING}]")
_NOT_IN_LINE: Final = re.compile(f"[{_STEERING}{_BREAKS}]")

_STATUS_IN: Final[dict[int, Status]] = {
    pb.IdPassStatus.Value(f"ID_PASS_STATUS_{s.name}"): s for s in Status
}
_REASON_IN: Final[dict[int, Reason]] = {
    pb.CancelReason.Value(f"CANCEL_REASON_{r.name}"): r for r in Reason
}


class Fields:
    """Reads a request's fields and collects their violations."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def wrong(self, field: str, description: str) -> None:
        self.violations.append(Violation(field, description))

    def check(self) -> None:
        if self.violations:
            raise InvalidRequest(self.violations)

    def uuid(self, field: str, value: str, of: str = "an ID Pass") -> str:
        normal = value.lower() if len(value) == UUID_CHARACTERS else ""
        if not UUID.fullmatch(normal):
            if value:
                self.wrong(field, f"{shown(value)} is not a UUID")
            else:
                self.wrong(field, f"is required: the UUID of {of}")
        return normal

    def not_negative(self, field: str, value: int) -> int:
        if value < 0:
            self.wrong(field, f"{value} is negative")
        return value

    def request_id(self, value: str) -> str | None:
        if value and not _REQUEST_ID.fullmatch(value):
            self.wrong("request_id", "must be 1 to 128 visible ASCII characters, without spaces")
        return value or None

    def text(self, field: str, value: str, max_characters: int) -> str:
        """Checks free text, which may have tabs and line breaks."""
        return self._text(field, value, max_characters, _NOT_IN_TEXT)

    def line(self, field: str, value: str, max_characters: int) -> str:
        """Checks text of one line."""
        return self._text(field, value, max_characters, _NOT_IN_LINE)

    def _text(self, field: str, value: str, max_characters: int, forbidden: re.Pattern[str]) -> str:
        if len(value) > max_characters:
            self.wrong(field, f"has {len(value)} characters, {max_characters} are allowed")
        elif found := forbidden.search(value):
            kind = "a line break or tab" if found[0] in _BREAKS else _STEERS
            self.wrong(field, f"has U+{ord(found[0]):04X} at {found.start()}, {kind}; leave it out")
        return value

    def status(self, field: str, value: int) -> Status | None:
        if value and value not in _STATUS_IN:
            self.wrong(field, f"{value} is not an IdPassStatus")
        return _STATUS_IN.get(value)

    def statuses(self, values: Sequence[int]) -> tuple[str, ...]:
        """Checks the field `statuses`; returns each status once, sorted."""
        found: set[str] = set()
        if len(values) > MAX_STATUSES:
            self.wrong("statuses", f"has {len(values)} items, {MAX_STATUSES} are allowed")
            values = ()
        for index, value in enumerate(values):
            status = self.status(f"statuses[{index}]", value)
            if value == pb.ID_PASS_STATUS_UNSPECIFIED:
                self.wrong(f"statuses[{index}]", "UNSPECIFIED is not a status of a pass")
            if status:
                found.add(status)
        return tuple(sorted(found))

    def reason(self, field: str, value: int) -> Reason:
        if value not in _REASON_IN:
            self.wrong(field, f"{value} is not a CancelReason")
        return _REASON_IN.get(value, Reason.UNSPECIFIED)


def shown(value: str) -> str:
    """A caller's value for a message: quoted and shortened."""
    return repr(value[:MAX_SHOWN_CHARACTERS])
