"""A server with mutual TLS, for the tests of who is let in and of what changes meanwhile."""

from pathlib import Path
from typing import Any, Final

from idpass import IdPassClient
from kit.certificates import Authority, Pair, channel_credentials
from kit.guarded import Guarded, caller

BILLING: Final = "spiffe://example.org/billing"
CALLERS: Final = caller("billing") + f'spiffe_id = "{BILLING}"\n'
LOCAL: Final = ("localhost", "127.0.0.1")


class Secure(Guarded):
    """A server with mutual TLS that knows the caller billing, and is called by it.

    Attributes:
        servers: the authority of its certificate.
        clients: the authority of its callers'.
        pair: its certificate and key.
        billing: the caller's.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.servers = Authority(folder / "servers")
        self.clients = Authority(folder / "clients")
        self.pair = self.servers.issue(*LOCAL)
        self.billing = self.clients.issue(BILLING)
        super().__init__(
            folder,
            CALLERS,
            credentials=channel_credentials(self.servers.pem, self.billing),
            tls_cert=str(self.pair.cert),
            tls_key=str(self.pair.key),
            tls_client_ca=str(self.clients.path),
            **settings,
        )

    def client(self, pair: Pair | None = None, **settings: Any) -> IdPassClient:
        settings = {"tls": self.servers.pem, "client_certificate": pair} | settings
        return IdPassClient(self.address, **settings)

    def answers(self) -> bool:
        """Whether it answers on a connection that is made now."""
        with self.client(self.billing) as client:
            return client.account().id == "acme"
