"""Finds where in the text of a callers file something stands: tomllib does not say."""

import re


class Lines:
    """The lines of a TOML file, counted from 1.

    Looks for the header `[callers.NAME]`, then below it, up to the next header, for a line that
    begins with the key, then from there for the value in quotes. Where something is written in
    another way (inline tables, dotted keys, escapes), the nearest line found is returned.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")  # TOML knows no other ends of lines

    def top(self, key: str) -> int:
        """The line of a key or a table at the top."""
        name = _quoted(key)
        pattern = rf"\s*(\[\[?\s*)?{name}\s*[.=\]]"
        return self._find(pattern, 0, len(self._lines)) or 1

    def of(self, caller: str, key: str = "", value: object = "", *, after: int = 0) -> int:
        """The line of a caller, of its key, or of a value of that key.

        Args:
            after: number of earlier occurrences of the value to skip.
        """
        name = _quoted(caller)
        header = self._find(rf"\s*\[\s*callers\s*\.\s*{name}\s*\]", 0, len(self._lines))
        if not header:
            begins = rf"\s*(\[\s*)?(callers\s*\.\s*)?{name}\s*[.=]"
            return self._find(begins, 0, len(self._lines)) or 1
        following = self._find(r"\s*\[", header, len(self._lines))
        end = following - 1 if following else len(self._lines)
        line = self._find(rf"\s*{_quoted(key)}\s*[.=]", header, end) if key else 0
        if line and isinstance(value, str) and value:
            for number in range(line - 1, end):
                found = len(re.findall(rf"[\"']{re.escape(value)}[\"']", self._lines[number]))
                if found > after:
                    return number + 1
                after -= found
        return line or header

    def _find(self, pattern: str, start: int, end: int) -> int:
        """The number of the first matching line from index `start` up to `end`, or 0."""
        for number in range(start, end):
            if re.match(pattern, self._lines[number]):
                return number + 1
        return 0


def _quoted(key: str) -> str:
    """A pattern that matches a key, bare or in quotes."""
    return rf"[\"']?{re.escape(key)}[\"']?"
