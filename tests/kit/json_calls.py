"""The gateway's routes as kit.support.Calls has the service's methods."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}


class Refused(grpc.RpcError):
    """What a call over HTTP ended with, as gRPC has it."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


class JsonCalls:
    """One connection to a gateway. Args: address: HOST:PORT."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=10)

    def register(self, **fields: Any) -> Any:
        return self._post("register", fields)

    def advance(self, pass_id: str, to: str, **fields: Any) -> Any:
        return self._post("advance", {"id": pass_id, "to_status": to} | fields)

    def cancel(self, pass_id: str, **fields: Any) -> Any:
        return self._post("cancel", {"id": pass_id} | fields)

    def close(self) -> None:
        self._connection.close()

    def _post(self, route: str, fields: dict[str, Any]) -> Any:
        headers = {"content-type": "application/json"}
        try:
            self._connection.request("POST", f"/idpass/{route}", json.dumps(fields), headers)
            response = self._connection.getresponse()
            body = json.loads(response.read(), object_hook=lambda each: SimpleNamespace(**each))
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Refused(grpc.StatusCode.UNAVAILABLE, repr(error)) from error
        if response.status != 200:
            raise Refused(CODES[body.code], body.message)
        return body


@contextlib.contextmanager
def over_http(address: str) -> Iterator[JsonCalls]:
    """A connection to a gateway."""
    calls = JsonCalls(address)
    try:
        yield calls
    finally:
        calls.close()
