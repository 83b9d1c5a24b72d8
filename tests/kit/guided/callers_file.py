"""Target: the callers file.

Promise: it is taken, and then says what TOML says; or refused with all mistakes, each in a line of
the file, and none that repeats what stands in a credential's place.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from idpass_server.api.identity import Caller, Callers, Permission
from idpass_server.hosting.callers import BadCallers, parse
from kit.guided.mutating import of_text
from kit.guided.oracles import tells_nothing_internal

FILE: Final = Path("/etc/idpass/callers.toml")
ACCOUNTS: Final = {"acme", "beta"}
LONGEST_LINE: Final = 10_000


def check(data: bytes) -> bool:
    """Returns whether the file was taken."""
    try:
        callers = parse(FILE, data, ACCOUNTS.__contains__)
    except BadCallers as refusal:
        _told(refusal, data)
        return False
    table: dict[str, Any] = tomllib.loads(data.decode())["callers"]
    tokens = {digest.hex(): caller for digest, caller in callers.by_token}
    names = {name.decode(): caller for name, caller in callers.by_spiffe_id.items()}
    for name, fields in table.items():
        caller = Caller(
            name,
            fields["account"],
            frozenset(map(Permission, fields["permissions"])),
            fields.get("rate"),
            fields.get("burst"),
        )
        assert caller.account in ACCOUNTS
        given = [text.lower() for text in _texts(fields.get("token_sha256"))]
        assert all(tokens.pop(text) == caller and len(text) == 64 for text in given)
        shown = _texts(fields.get("spiffe_id"))
        assert all(names.pop(text) == caller for text in shown)
        assert given or shown
        assert caller.rate_per_s is None or 0 <= caller.rate_per_s < float("inf")
        assert caller.burst is None or caller.burst >= 1
    assert not tokens
    assert not names
    assert parse(FILE, written(callers).encode(), ACCOUNTS.__contains__) == callers
    return True


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def written(callers: Callers) -> str:
    """A callers file that says the same."""
    tokens: dict[Caller, list[str]] = {}
    names: dict[Caller, list[str]] = {}
    for digest, caller in callers.by_token:
        tokens.setdefault(caller, []).append(digest.hex())
    for name, caller in callers.by_spiffe_id.items():
        names.setdefault(caller, []).append(name.decode())
    # In the order of the tokens, which is part of what was read.
    return "".join(
        f"[callers.{caller.name}]\n"
        f"account = {caller.account!r}\n"
        f"permissions = {sorted(map(str, caller.permissions))}\n"
        + (f"token_sha256 = {tokens[caller]}\n" if caller in tokens else "")
        + (f"spiffe_id = {names[caller]}\n" if caller in names else "")
        + ("" if caller.rate_per_s is None else f"rate = {caller.rate_per_s}\n")
        + ("" if caller.burst is None else f"burst = {caller.burst}\n")
        for caller in dict.fromkeys([*tokens, *names])
    )


def _told(refusal: BadCallers, data: bytes) -> None:
    assert refusal.mistakes
    lines = data.count(b"\n") + 1
    secrets = _in_place_of_credentials(data)
    for line, reason in refusal.mistakes:
        assert 0 <= line <= lines, (line, reason)
        assert len(reason) < LONGEST_LINE
        tells_nothing_internal(reason, data)
        assert not [secret for secret in secrets if secret in reason], reason


_PLACE: Final = re.compile(rb"^ *token_sha256 *= *\"([0-9A-Za-z]{12,})\" *$", re.MULTILINE)


def _in_place_of_credentials(data: bytes) -> set[str]:
    """What stands there and nowhere else, in a file that is TOML."""
    return {found.decode() for found in _PLACE.findall(data) if data.count(found) == 1}


ONE: Final = b"""# callers
[callers.onboarding]
account = "acme"
permissions = ["register", "read", "cancel"]
spiffe_id = "spiffe://example.org/onboarding"
token_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
rate = 2000
burst = 5000
"""
TWO: Final = b"""[callers.eve]
account = 'beta'
permissions = ["read"]
rate = 0.5
spiffe_id = ["spiffe://example.org/a", "spiffe://example.org/b"]
[callers."bob-2"]
account = "acme"
permissions = ["webhooks", "advance", "watch"]
token_sha256 = ["60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
  "FD61A03AF4F77D870FC21E05E7E80678095C92D808CFB3B5C279EE04C74ACA13"]
"""
SEEDS: Final = [
    ONE,
    TWO,
    b"callers.x={account='acme',permissions=['read'],spiffe_id='spiffe://a/b'}",
]
MORE: Final = [
    b"",
    ONE + b'more = 1\n[callers.onboarding-2]\naccount = "none"\n',
    b"[callers.a]\n" + ONE,
    b"\xef\xbb\xbf" + TWO,
]
WORDS: Final = [
    *(b"[callers.", b"]\n", b"account = ", b"permissions = ", b"token_sha256 = ", b"spiffe_id = "),
    *(b"rate = ", b"burst = ", b'"acme"', b'["read"]', b"spiffe://", b"'''", b'"""', b"\\u0000"),
    *(b"inf", b"nan", b"-1", b"1e400", b"2026-11-26", b"[[", b"{", b"\r\n", b"\x7f", b"sweeper"),
    *(b"9" * 40, b"[" * 40, b"\xc2\x85", b"\xe2\x80\xae", b"true", b"0x", b"\\n"),
]
mutate: Final = of_text(WORDS)
