"""The table of errors once more, over HTTP."""

import socket
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import code_pb2

from idpass_server.api import errors
from idpass_server.gateway.codes import HTTP_STATUS
from idpass_server.gateway.serving import Gateway
from idpass_server.rules.refusals import Refusal
from kit.contract import ROWS
from kit.http import detail, reason, scripted

BODY = {"id": "0198c0de-0000-7000-8000-000000000001"}
RETRY_AFTER = {"OVERLOADED": "1", "STORE_UNAVAILABLE": "1"}


class _Service:
    """Refuses as the real service does, or as gRPC does on the way to it."""

    refusal: Refusal | None = None
    code = grpc.StatusCode.OK

    async def cancel(self, _request: Any, context: Any) -> Any:
        if self.refusal is None:
            await context.abort(self.code, "gRPC's text")
        else:
            error = errors.tell(self.refusal, "ref-1")
            await context.abort(error.code, error.status.message, error.trailing_metadata)


SERVICE = _Service()


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with scripted(SERVICE.cancel) as client:
        yield client


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1][2])
def test_every_refusal_is_told_over_http(http: httpx.Client, row: Any) -> None:
    refusal, (code, http_status, why), metadata, further = row
    SERVICE.refusal = refusal
    response = http.post("/idpass/cancel", json=BODY)
    assert (response.status_code, reason(response)) == (http_status, why)
    body = response.json()
    assert body["code"] == code_pb2.Code.Value(code)
    assert body["message"] == errors.tell(refusal, "").status.message
    kinds = {each["@type"].rpartition(".")[2] for each in body["details"]}
    assert kinds == {"ErrorInfo", "RequestInfo"} | further
    assert set(detail(response, "ErrorInfo").get("metadata", {})) == metadata
    assert detail(response, "RequestInfo")["request_id"] == "ref-1"
    assert response.headers.get("retry-after") == RETRY_AFTER.get(why)
    assert ("www-authenticate" in response.headers) is (http_status == 401)


@pytest.mark.parametrize(
    ("code", "http_status", "why"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, "STORE_UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "STORE_UNAVAILABLE"),
        (grpc.StatusCode.CANCELLED, 503, "STORE_UNAVAILABLE"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "OVERLOADED"),
        (grpc.StatusCode.UNKNOWN, 500, "INTERNAL"),
        (grpc.StatusCode.UNIMPLEMENTED, 500, "INTERNAL"),
    ],
)
def test_what_grpc_itself_refuses_has_the_same_form(
    http: httpx.Client, code: grpc.StatusCode, http_status: int, why: str
) -> None:
    SERVICE.refusal, SERVICE.code = None, code
    response = http.post("/idpass/cancel", json=BODY)
    assert (response.status_code, reason(response)) == (http_status, why)
    assert "gRPC's" not in response.text
    if why == "STORE_UNAVAILABLE":
        assert detail(response, "ErrorInfo")["metadata"] == {"outcome": "unknown"}
        assert response.headers["retry-after"] == "1"


async def test_a_service_that_cannot_be_reached_is_503() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gateway = Gateway("127.0.0.1", 0)
    gateway.start(f"127.0.0.1:{port}", drain_s=1)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        response = await client.post(f"http://{gateway.address}/idpass/cancel", json=BODY)
    await gateway.stop()
    assert (response.status_code, reason(response)) == (503, "STORE_UNAVAILABLE")


def test_every_code_has_its_http_status() -> None:
    ok_and_500 = {code_pb2.OK, code_pb2.UNKNOWN, code_pb2.INTERNAL, code_pb2.DATA_LOSS}
    assert set(HTTP_STATUS) | ok_and_500 == set(code_pb2.Code.values())
