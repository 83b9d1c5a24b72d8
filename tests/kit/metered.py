"""A server whose metrics are scraped, and most of what makes them move."""

import re
import sqlite3
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from idpass.v1.id_pass_service_pb2 import CancelRequest
from idpass_server.api.metrics import Metrics
from idpass_server.hosting.observing import StoreMetrics
from idpass_server.processes.gathering import Gathering
from kit.certificates import Authority, channel_credentials
from kit.documents import PAGES, blocks
from kit.guarded import caller
from kit.hooked import key_file
from kit.paths import ROOT
from kit.probing import Samples, get, scrape
from kit.support import UNKNOWN_ID, Process, bearer, make_accounts, refused

DEPLOY: Final = ROOT / "server/deploy"
CANCEL: Final = "idpass.v1.IdPassService/CancelIdPass"
SLOW: Final = caller("slow") + "rate = 0.001\nburst = 1\n"
_NAME: Final = re.compile(r"\b(?:grpc_server|http_server|idpass|process)_[a-z0-9_]+\b")


class Family(NamedTuple):
    """What the documents say of a metric: its type, and its labels in order of their names."""

    type: str
    labels: tuple[str, ...]


def families(text: str) -> dict[str, Family]:
    """The metrics of a page, by the names that they have in the documents."""
    found: dict[str, Family] = {}
    for family in text_string_to_metric_families(text):
        if family.name.endswith("_created"):
            continue
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = Family(family.type, tuple(sorted(labels)))
    return found


def of_other_servers() -> dict[str, Family]:
    """The metrics that only PostgreSQL has, or several workers."""
    postgresql = Metrics()
    both = postgresql.registry, Gathering(2).registry
    before = families(_page(postgresql.registry))
    StoreMetrics(postgresql, sqlite=False)
    return {
        name: family
        for registry in both
        for name, family in families(_page(registry)).items()
        if name not in before
    }


def _page(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def names_in(text: str) -> set[str]:
    """The names of samples in PromQL."""
    return set(_NAME.findall(text))


def queries() -> list[str]:
    """The queries of the documents."""
    return blocks("promql", PAGES["monitoring.md"])


class Metered(Process):
    """A server with TLS, callers, HTTP and metrics, called by ann. Args: folder: for its files."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder / "authority")
        pair = authority.issue("localhost", "127.0.0.1")
        self.file = folder / "callers.toml"
        self.file.write_text(caller("ann") + SLOW)
        self.db = folder / "idpass.db"
        make_accounts(self.db, "acme")
        super().__init__(
            self.db,
            *("--metrics", "127.0.0.1:0", "--http", "127.0.0.1:0"),
            *("--callers", str(self.file), "--webhook-key", str(key_file(folder))),
            *("--tls-cert", str(pair.cert), "--tls-key", str(pair.key)),
            credentials=channel_credentials(authority.pem),
        )
        self.metrics = self.wait_for("metrics")["listen"]
        self.ann = self.with_token("ann-token")

    def shown(self) -> str:
        return get(self.metrics, "/metrics").body

    def scrape(self) -> Samples:
        return scrape(self.metrics)

    def drive(self) -> None:
        """Does, and has refused, one of everything."""
        ann = self.ann
        passes = [ann.register().id_pass.id for _ in range(3)]
        ann.advance(passes[0], "opened")
        ann.cancel(passes[0], request_id="once")
        assert ann.cancel(passes[0], request_id="once").replayed
        assert refused(lambda: ann.advance(passes[0], "in_progress")).reason
        ann.batch(CancelRequest(id=passes[1]), CancelRequest(id=UNKNOWN_ID))
        ann.get(passes[2])
        ann.page()
        ann.events()
        assert refused(self.account).reason == "UNAUTHENTICATED_CALLER"
        assert refused(lambda: self.with_token("none").account()).reason
        slow = self.with_token("slow-token")
        slow.account()
        assert refused(slow.account).reason == "OVERLOADED"
        unknown: Any = self.channel.unary_unary("/idpass.v1.IdPassService/Forget")
        assert unknown.future(b"", timeout=10).code().name == "UNIMPLEMENTED"
        self._over_http()
        self.file.write_text("callers = 1")
        self.wait_for("callers_rejected")

    def _over_http(self) -> None:
        place = f"http://{self.wait_for('gateway')['http']}"
        with httpx.Client(trust_env=False, headers=dict(bearer("ann-token"))) as client:
            made = client.post(f"{place}/idpass/register", json={}).json()
            assert client.get(f"{place}/idpass/{made['id_pass']['id']}").status_code == 200
            assert client.get(f"{place}/nothing").status_code == 404

    def keep_locked(self) -> "sqlite3.Connection":
        """Has another program hold the write lock, until the connection is closed."""
        other = sqlite3.connect(self.db, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        return other
