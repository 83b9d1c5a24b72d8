"""The gateway's routes as kit.support.Calls has the service's methods."""

import http.client
import json
from types import SimpleNamespace
from typing import Any

import grpc

from kit.witness import Access

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
        self.channel = http.client.HTTPConnection(address, timeout=10)

    def register(self, **fields: Any) -> Any:
        return self._post("register", fields)

    def advance(self, pass_id: str, to: str, **fields: Any) -> Any:
        return self._post("advance", {"id": pass_id, "to_status": to} | fields)

    def cancel(self, pass_id: str, **fields: Any) -> Any:
        return self._post("cancel", {"id": pass_id} | fields)

    def _post(self, route: str, fields: dict[str, Any]) -> Any:
        headers = {"content-type": "application/json"}
        try:
            self.channel.request("POST", f"/idpass/{route}", json.dumps(fields), headers)
            response = self.channel.getresponse()
            body = json.loads(response.read(), object_hook=lambda each: SimpleNamespace(**each))
        except (OSError, http.client.HTTPException) as error:
            self.channel.close()
            raise Refused(grpc.StatusCode.UNAVAILABLE, repr(error)) from error
        if response.status != 200:
            raise Refused(CODES[body.code], body.message)
        return body


class OverHttp(Access):
    """Callers of a gateway."""

    def calls_to(self, address: str) -> Any:
        return JsonCalls(address)
