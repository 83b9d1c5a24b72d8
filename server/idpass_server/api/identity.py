"""Who calls, for which account, and what the caller may do.

A caller is known by a bearer token, of which only the SHA-256 is kept, or by the URI name in its
client certificate. A token that is sent decides; without one the certificate does.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

from idpass_server.rules.refusals import Unauthenticated

_BEARER: Final = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)  # RFC 6750


class Permission(StrEnum):
    REGISTER = "register"
    READ = "read"
    ADVANCE = "advance"
    CANCEL = "cancel"
    WATCH = "watch"


class Caller(NamedTuple):
    """
    Args:
        rate_per_s: calls a second; 0 means that there is no limit, None the server's own.
        burst: calls at once after a pause, or None for the server's own.
    """

    name: str
    account: str
    permissions: frozenset[Permission]
    rate_per_s: float | None = None
    burst: int | None = None


class Callers(NamedTuple):
    """Everyone who may call, by credential.

    Args:
        by_token: SHA-256 digests of tokens, and whose they are.
        by_spiffe_id: URI names in certificates, and whose they are.
    """

    by_token: Sequence[tuple[bytes, Caller]]
    by_spiffe_id: Mapping[bytes, Caller]

    @property
    def total(self) -> int:
        """How many callers that are."""
        return len({caller for _, caller in self.by_token} | set(self.by_spiffe_id.values()))


class Identity(Protocol):
    @property
    def version(self) -> int:
        """Another number whenever `caller` may answer in another way than before."""

    def caller(self, context: Any) -> Caller:
        """Tells from a call's context who makes it.

        Raises:
            Unauthenticated: the credentials are missing or not known.
        """


DEMO: Final = Caller(name="demo", account="demo", permissions=frozenset(Permission))


class EveryoneIsDemo:
    """The identity of a server without callers file: fit for a loopback address only."""

    version = 0

    def caller(self, context: Any) -> Caller:  # noqa: ARG002 everyone is
        return DEMO


class KnownCallers:
    """The identity of a server with a callers file.

    Args:
        callers: who may call, until they are replaced.
        client_certificates: whether clients are asked for one. Looking for it costs every call
            1 µs in plain text and 10 µs under TLS, so that it is left out where there is none.
    """

    def __init__(self, callers: Callers, *, client_certificates: bool) -> None:
        self._callers = callers
        self._client_certificates = client_certificates
        self.version = 0

    def replace(self, callers: Callers) -> None:
        """Puts others in force, from the next call on."""
        self._callers = callers
        self.version += 1

    def caller(self, context: Any) -> Caller:
        values = [value for key, value in context.invocation_metadata() if key == "authorization"]
        found = self._by_token(values) if values else self._by_certificate(context)
        if found is None:
            raise Unauthenticated
        return found

    def _by_certificate(self, context: Any) -> Caller | None:
        """Whose the client's certificate is: it has one URI name, or it is nobody's.

        gRPC's own `peer_spiffe_id` is not enough: it is missing where there are two names, which
        would look as if there were none.
        """
        if not self._client_certificates:
            return None
        names: Sequence[bytes] = context.auth_context().get("peer_uri", ())
        return self._callers.by_spiffe_id.get(names[0]) if len(names) == 1 else None

    def _by_token(self, values: Sequence[str]) -> Caller | None:
        match = _BEARER.fullmatch(values[0]) if len(values) == 1 else None
        if match is None:
            return None
        # Every digest is compared, each in constant time: how long it takes says nothing of them.
        # That is 0.05 µs for each; a thousand tokens would be a seventh of a call.
        presented = hashlib.sha256(match[1].encode()).digest()
        found = None
        for digest, caller in self._callers.by_token:
            if hmac.compare_digest(digest, presented):
                found = caller
        return found
