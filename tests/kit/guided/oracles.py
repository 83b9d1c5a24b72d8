"""What holds for every target of the guided fuzzer."""

import re
import unicodedata
from typing import Final

_INTERNAL: Final = re.compile(
    r"Traceback|File \"|\bat 0x[0-9a-f]+|\b[A-Z]\w*(?:Error|Exception)\b|\.py\b|<class |<object |"
    r"idpass_server\.|google\.protobuf\.message|site-packages"
)


def tells_nothing_internal(text: str, data: bytes) -> None:
    """Checks what a stranger is told. Args: text: told. data: sent; its own words are no secret."""
    for found in _INTERNAL.findall(text):
        assert found.encode() in data, f"{found!r} in {text!r}"


def steers_nothing(text: str) -> None:
    """Checks that a text has nothing that steers a terminal or breaks a line."""
    for character in text if not text.isprintable() else "":
        assert unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"}, repr(text)
        assert character not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", repr(text)
