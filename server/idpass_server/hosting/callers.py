"""The callers file: who may call, for which account, with which credentials.

    [callers.onboarding]
    account = "acme"
    permissions = ["register", "read", "cancel"]
    spiffe_id = "spiffe://example.org/onboarding"
    token_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    rate = 2000     # calls a second, instead of --rate; 0 means no limit
    burst = 5000    # calls at once after a pause, instead of --burst

All mistakes of a file are reported at once, each with its line. A value in a credential's place is
never repeated: it may be the token itself, put there in place of its digest.
"""

import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from idpass_server.api.identity import Caller, Callers, Permission
from idpass_server.config import NAME
from idpass_server.failures import OperatorError
from idpass_server.hosting import files
from idpass_server.hosting.toml_lines import Lines
from idpass_server.rules.commands import SWEEPER

KEYS: Final = ("account", "permissions", "spiffe_id", "token_sha256", "rate", "burst")
MAX_SPIFFE_ID_CHARACTERS: Final = 2_048
"""Length of a SPIFFE ID, as its standard limits it."""

# https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md
SPIFFE_ID: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)*")
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")
_SYNTAX_LINE: Final = re.compile(r" \(at line (\d+), column \d+\)$")

AccountExists = Callable[[str], bool]


class Mistake(NamedTuple):
    """What is wrong with a callers file.

    Args:
        line: counted from 1; 0 for the file as a whole.
        reason: what is wrong, and what would do.
    """

    line: int
    reason: str


class BadCallers(OperatorError):
    """The callers file cannot be used; the message has a line for each mistake."""

    def __init__(self, path: Path, mistakes: list[Mistake]) -> None:
        self.mistakes = mistakes
        self.lines = [
            f"{path}:{mistake.line}: {mistake.reason}"
            if mistake.line
            else f"{path}: {mistake.reason}"
            for mistake in mistakes
        ]
        super().__init__("\n".join(self.lines))


def read(path: Path, account_exists: AccountExists) -> Callers:
    """Reads a callers file.

    Args:
        path: of the file.
        account_exists: whether there is an account of a given name.

    Raises:
        BadCallers: it cannot be read, can be written by others, or has mistakes.
    """
    return parse(path, content(path), account_exists)


def content(path: Path) -> bytes:
    """The bytes of a callers file.

    Raises:
        BadCallers: the file cannot be read, or can be written by others.
    """
    try:
        return files.read(path)[0]
    except OSError as error:
        raise BadCallers(path, [Mistake(0, f"cannot be read ({error.strerror})")]) from error
    except files.WritableByOthers as error:
        raise BadCallers(path, [Mistake(0, str(error))]) from error


def parse(path: Path, content: bytes, account_exists: AccountExists) -> Callers:
    """Parses and checks the content of a callers file.

    Args:
        path: of the file, for the messages.
        content: its bytes.
        account_exists: whether there is an account of a given name.

    Raises:
        BadCallers: it has mistakes.
    """
    try:
        text = content.decode()
        table = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadCallers(path, [Mistake(line, "is not UTF-8")]) from error
    except tomllib.TOMLDecodeError as error:
        raise BadCallers(path, [_syntax_mistake(str(error), text)]) from error
    except ValueError as error:
        raise BadCallers(path, [Mistake(0, "has a number with thousands of digits")]) from error
    except RecursionError as error:
        raise BadCallers(path, [Mistake(0, "is nested too deeply")]) from error
    reader = _Reader(text, account_exists)
    callers = reader.read(table)
    if reader.mistakes:
        raise BadCallers(path, sorted(reader.mistakes))
    return callers


def _syntax_mistake(message: str, text: str) -> Mistake:
    match = _SYNTAX_LINE.search(message)
    line = int(match[1]) if match else text.rstrip().count("\n") + 1  # "at end of document"
    return Mistake(line, f"is not TOML: {message.partition(' (at ')[0]}")


class _Reader:
    """Turns a parsed file into callers, and collects its mistakes."""

    def __init__(self, text: str, account_exists: AccountExists) -> None:
        self.mistakes: list[Mistake] = []
        self._lines = Lines(text)
        self._account_exists = account_exists
        self._tokens: dict[bytes, Caller] = {}
        self._spiffe_ids: dict[bytes, Caller] = {}
        self._seen: dict[tuple[str, str], tuple[str, int]] = {}

    def read(self, table: dict[str, Any]) -> Callers:
        for key in table:
            if key != "callers":
                line = self._lines.top(key)
                self._wrong(line, f"unknown key {key!r}; callers are tables [callers.NAME]")
        callers = table.get("callers", {})
        if not isinstance(callers, dict):
            self._wrong(self._lines.top("callers"), "callers are tables [callers.NAME]")
        elif not callers:
            self._wrong(0, "has no caller; give each a table [callers.NAME]")
        else:
            for name, fields in callers.items():
                self._caller(name, fields)
        return Callers(tuple(self._tokens.items()), self._spiffe_ids)

    def _wrong(self, line: int, reason: str) -> None:
        self.mistakes.append(Mistake(line, reason))

    def _caller(self, name: str, fields: Any) -> None:
        self._name(name)
        if not isinstance(fields, dict):
            self._wrong(self._lines.of(name), f"caller {name!r} is not a table [callers.{name}]")
            return
        for key in fields:
            if key not in KEYS:
                line = self._lines.of(name, key)
                self._wrong(line, f"unknown key {key!r}; there are {', '.join(KEYS)}")
        caller = Caller(
            name,
            self._account(name, fields),
            self._permissions(name, fields),
            self._number(name, fields, "rate", 0),
            self._number(name, fields, "burst", 1, whole=True),
        )
        self._credentials(caller, fields)

    def _name(self, name: str) -> None:
        line = self._lines.of(name)
        if not NAME.fullmatch(name):
            self._wrong(
                line,
                f"caller {name!r} is not 1 to 63 of a-z, 0-9 and -, with a letter or digit at "
                "both ends",
            )
        if name == SWEEPER:
            self._wrong(line, f"the name {name!r} is the service's own; take another")

    def _account(self, name: str, fields: dict[str, Any]) -> str:
        account = fields.get("account")
        if account is None:
            self._wrong(self._lines.of(name), f"caller {name!r} has no account")
        elif not isinstance(account, str):
            self._wrong(self._lines.of(name, "account"), "account is not a string")
        elif not self._account_exists(account):
            reason = f"there is no account {account!r}"
            if NAME.fullmatch(account):
                reason += (
                    f"; create it with: idpass-server account create {account} --slots 100 "
                    "--fee 'AUD 4.50'"
                )
            self._wrong(self._lines.of(name, "account"), reason)
        return str(account)

    def _permissions(self, name: str, fields: dict[str, Any]) -> frozenset[Permission]:
        values = fields.get("permissions")
        if values is None:
            self._wrong(self._lines.of(name), f"caller {name!r} has no permissions")
            return frozenset()
        if not isinstance(values, list) or not values:
            reason = f"permissions is not a list of some of {', '.join(Permission)}"
            self._wrong(self._lines.of(name, "permissions"), reason)
            return frozenset()
        permissions = []
        for value in values:
            try:
                permissions.append(Permission(value))
            except ValueError:
                line = self._lines.of(name, "permissions", value)
                reason = f"unknown permission {value!r}; there are {', '.join(Permission)}"
                self._wrong(line, reason)
        return frozenset(permissions)

    def _number(
        self, name: str, fields: dict[str, Any], key: str, least: int, *, whole: bool = False
    ) -> Any:
        if key not in fields:
            return None
        value = fields[key]
        kinds = (int,) if whole else (int, float)
        if type(value) in kinds and least <= value <= sys.float_info.max:
            return value
        kind = "whole number" if whole else "number"
        self._wrong(self._lines.of(name, key), f"{key} is not a {kind} of {least} or more")
        return None

    def _credentials(self, caller: Caller, fields: dict[str, Any]) -> None:
        name = caller.name
        if not fields.keys() & {"spiffe_id", "token_sha256"}:
            reason = f"caller {name!r} has no credential: spiffe_id or token_sha256"
            self._wrong(self._lines.of(name), reason)
        for line, value in self._values(name, fields, "token_sha256"):
            if not _DIGEST.fullmatch(value):
                self._wrong(line, f"token_sha256 is not 64 hex digits but {len(value)} characters")
            elif self._is_new("token_sha256", value.lower(), name, line):
                self._tokens[bytes.fromhex(value)] = caller
        for line, value in self._values(name, fields, "spiffe_id"):
            if not SPIFFE_ID.fullmatch(value) or len(value) > MAX_SPIFFE_ID_CHARACTERS:
                self._wrong(
                    line, "spiffe_id is not a SPIFFE ID such as spiffe://example.org/billing"
                )
            elif self._is_new("spiffe_id", value, name, line):
                self._spiffe_ids[value.encode()] = caller

    def _values(self, name: str, fields: dict[str, Any], key: str) -> Iterator[tuple[int, str]]:
        """Each string of a key that holds a string or a list of strings, with its line."""
        if key not in fields:
            return
        values = fields[key] if isinstance(fields[key], list) else [fields[key]]
        if not values or not all(isinstance(value, str) for value in values):
            self._wrong(self._lines.of(name, key), f"{key} is neither a string nor a list of them")
            return
        for index, value in enumerate(values):
            yield self._lines.of(name, key, value, after=values[:index].count(value)), value

    def _is_new(self, key: str, value: str, name: str, line: int) -> bool:
        if (key, value) in self._seen:
            other, at = self._seen[key, value]
            self._wrong(line, f"this {key} already belongs to caller {other!r} (line {at})")
            return False
        self._seen[key, value] = (name, line)
        return True
