"""The pages of plain HTTP: /livez and /readyz for probes, /metrics for Prometheus.

Probes (a Kubernetes kubelet, a load balancer) need no certificate, and learn nothing but the
server's state.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from idpass_server.engine.readiness import Check
from idpass_server.hosting.plain_http import Answer, PlainHttp, Request

Checks = Callable[[], Mapping[str, Check]]
_OK: Final = b"ok\n"


def probe(checks: Checks) -> PlainHttp:
    """Makes the pages /livez and /readyz.

    Args:
        checks: gives the latest report on each check, as Readiness.checks does.
    """

    def livez(_request: Request) -> Answer:
        return Answer(_OK)

    def readyz(request: Request) -> Answer:
        found = checks()
        # Before the start there are no reports yet.
        ready = bool(found) and not any(each.problem for each in found.values())
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        if "verbose" in request.query.split("&"):
            return Answer("".join(map(_line, found.items())).encode(), status)
        return Answer(_OK if ready else b"not ready\n", status)

    return PlainHttp({"/livez": livez, "/readyz": readyz})


def metrics(registry: CollectorRegistry) -> PlainHttp:
    """Makes the page /metrics. Args: registry: of the metrics to show."""

    def page(request: Request) -> Answer:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Answer(encode(registry), content_type=content_type)

    return PlainHttp({"/metrics": page})


def _line(named: tuple[str, Check]) -> str:
    name, check = named
    if check.problem is not None:
        return f"[-] {name}: {check.problem}\n"
    return f"[+] {name}: ok\n" if check.warning is None else f"[!] {name}: {check.warning}\n"
