"""Controls of the guided fuzzer: the product with one line taken for another, per target.

Each must be found within its number of inputs, from the seed that CI takes.
"""

import shutil
from pathlib import Path
from typing import Final, NamedTuple

import idpass
import idpass_server


class Flaw(NamedTuple):
    """
    Attributes:
        what: is wrong.
        file: that is changed, with its package.
        line: a part of it that is there once.
        instead: in its place.
        within: number of inputs.
    """

    what: str
    file: str
    line: str
    instead: str
    within: int


FLAWS: Final[dict[str, tuple[Flaw, ...]]] = {
    "requests": (
        Flaw(
            "a negative number of days is taken",
            "idpass_server/api/requests.py",
            "not 0 <= days <= MAX_LINK_VALIDITY_DAYS",
            "not days <= MAX_LINK_VALIDITY_DAYS",
            20_000,
        ),
        Flaw(
            "only the first character is looked at",
            "idpass_server/api/fields.py",
            "forbidden.search(value)",
            "forbidden.match(value)",
            20_000,
        ),
    ),
    "page_tokens": (
        Flaw(
            "only the begin of a token's mark is compared",
            "idpass_server/api/requests.py",
            "digest == _filter_digest(query)",
            "str(digest)[:4] == _filter_digest(query)[:4]",
            20_000,
        ),
        Flaw(
            "a position beyond 63 bits is taken",
            "idpass_server/api/webhook_requests.py",
            "0 <= value <= MAX_SEQUENCE",
            "0 <= value",
            20_000,
        ),
    ),
    "callers_file": (
        Flaw(
            "a digest may have anything behind it",
            "idpass_server/hosting/callers.py",
            "_DIGEST.fullmatch(value)",
            "_DIGEST.match(value)",
            100_000,
        ),
        Flaw(
            "a refusal repeats what stands in a credential's place",
            "idpass_server/hosting/callers.py",
            "hex digits but {len(value)} characters",
            "hex digits: {value}",
            20_000,
        ),
    ),
    "gateway": (
        Flaw(
            "half of a surrogate pair is not looked for",
            "idpass_server/gateway/messages.py",
            'any("\\ud800" <= c <= "\\udfff" for c in content)',
            "False",
            20_000,
        ),
        Flaw(
            "true is taken for 1",
            "idpass_server/gateway/messages.py",
            "isinstance(content, bool) or not whole",
            "not whole",
            50_000,
        ),
    ),
    "webhooks": (
        Flaw(
            "an empty signature fits",
            "idpass/webhooks.py",
            "hmac.compare_digest(expected, each)",
            "expected.startswith(each)",
            200_000,
        ),
        Flaw(
            "a time that is no number is read as one",
            "idpass/webhooks.py",
            "timestamp.isascii() and timestamp.isdecimal()",
            "timestamp.isascii()",
            20_000,
        ),
    ),
}


def flawed(flaw: Flaw, folder: Path) -> Path:
    """Copies both packages, one with the flaw. Returns the folder, for PYTHONPATH."""
    for package in (idpass, idpass_server):
        source = Path(package.__path__[0])
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / source.name, ignore=ignored)
    changed = folder / flaw.file
    text = changed.read_text()
    assert text.count(flaw.line) == 1, flaw
    changed.write_text(text.replace(flaw.line, flaw.instead))
    return folder
