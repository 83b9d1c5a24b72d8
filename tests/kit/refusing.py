"""How the service says why it refuses: the trailing metadata of an error."""

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2


def trailing(
    code: grpc.StatusCode, reason: str | None, metadata: dict[str, str], message: str = "no"
) -> Any:
    """Metadata of an error; `pushback` is sent by itself, `delay` (both in ms) in a RetryInfo,
    the rest in an ErrorInfo.
    """
    sent: list[tuple[str, Any]] = []
    said = dict(metadata)
    if "pushback" in said:
        sent.append(("grpc-retry-pushback-ms", said.pop("pushback")))
    if reason:
        status = status_pb2.Status(code=code.value[0], message=message)
        if "delay" in said:
            retry_info = error_details_pb2.RetryInfo()
            retry_info.retry_delay.FromMilliseconds(int(said.pop("delay")))
            status.details.add().Pack(retry_info)
        info = error_details_pb2.ErrorInfo(reason=reason, domain="idpass.v1", metadata=said)
        status.details.add().Pack(info)
        status.details.add().Pack(error_details_pb2.RequestInfo(request_id="0193-reference"))
        sent.append(("grpc-status-details-bin", status.SerializeToString()))
    return tuple(sent)
