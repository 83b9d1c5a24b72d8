"""The pages of plain HTTP: /livez and /readyz for probes, /metrics for Prometheus.

Probes (a Kubernetes kubelet, a load balancer) need no certificate, and learn nothing but how the
server is.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from idpass_server.hosting.plain_http import Answer, PlainHttp, Request

Checks = Callable[[], Mapping[str, str | None]]
_OK: Final = b"ok\n"


def probe(checks: Checks) -> PlainHttp:
    """
    Args:
        checks: gives the problem of each check, or None, as Readiness.checks does.
    """

    def livez(_request: Request) -> Answer:
        return Answer(_OK)

    def readyz(request: Request) -> Answer:
        found = checks()
        ready = bool(found) and not any(found.values())  # before the start there are none
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        if "verbose" in request.query.split("&"):
            return Answer("".join(map(_line, found.items())).encode(), status)
        return Answer(_OK if ready else b"not ready\n", status)

    return PlainHttp({"/livez": livez, "/readyz": readyz})


def metrics(registry: CollectorRegistry) -> PlainHttp:
    """Args: registry: of what is shown."""

    def page(request: Request) -> Answer:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Answer(encode(registry), content_type=content_type)

    return PlainHttp({"/metrics": page})


def _line(check: tuple[str, str | None]) -> str:
    name, problem = check
    return f"[+] {name}: ok\n" if problem is None else f"[-] {name}: {problem}\n"
