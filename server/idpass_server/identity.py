"""Who calls, for which account, and what the caller may do."""

from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol


class Permission(StrEnum):
    REGISTER = "register"
    READ = "read"
    ADVANCE = "advance"
    CANCEL = "cancel"
    WATCH = "watch"


class Caller(NamedTuple):
    name: str
    account: str
    permissions: frozenset[Permission]


class Identity(Protocol):
    def caller(self, context: Any) -> Caller:
        """Tells from a call's context who makes it.

        Raises:
            Unauthenticated: the credentials are missing or not known.
        """


DEMO: Final = Caller(name="demo", account="demo", permissions=frozenset(Permission))


class EveryoneIsDemo:
    """The identity of a server without callers file: fit for a loopback address only."""

    def caller(self, context: Any) -> Caller:  # noqa: ARG002 everyone is
        return DEMO
