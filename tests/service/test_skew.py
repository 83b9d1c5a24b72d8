"""Client and server of different versions: what `server/docs/upgrading.md` promises of them."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import error_details_pb2, status_pb2

from idpass import AlreadyCancelled, IdPassClient, NotFound, Status
from kit.paths import ROOT
from kit.support import UNKNOWN_ID, Process, Service
from kit.versions import RELEASED, unpack


class OldClient:
    """A client that knows the protos of version 0.1.0 and nothing later."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        image = (ROOT / "protos" / "baseline.binpb").read_bytes()
        self._pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(image).file:
            self._pool.Add(file)
        self.methods = self._pool.FindServiceByName("idpass.v1.IdPassService").methods_by_name

    def call(self, name: str, **fields: Any) -> Any:
        method = self.methods[name]
        request, response = map(
            message_factory.GetMessageClass, (method.input_type, method.output_type)
        )
        kind = "unary_stream" if method.server_streaming else "unary_unary"
        rpc = getattr(self._channel, kind)(
            f"/idpass.v1.IdPassService/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return rpc(request(**fields), timeout=30)


def test_a_client_of_the_first_version_works_with_this_server(service: Service) -> None:
    old = OldClient(service.channel)
    pass_id = old.call("RegisterIdPass", request_id="r").id_pass.id
    assert old.call("AdvanceIdPass", id=pass_id, to_status=2).id_pass.status == 2
    assert old.call("GetIdPass", id=pass_id).id_pass.status == 2
    assert old.call("CancelIdPass", id=pass_id).fee_refunded
    (result,) = old.call("BatchCancelIdPasses", requests=[{"id": pass_id}]).results
    assert result.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert [each.id for each in old.call("ListIdPasses").id_passes] == [pass_id]
    assert old.call("GetAccount").last_sequence == 3
    events = old.call("WatchIdPasses", id=pass_id)
    assert [event.sequence for event in events] == [1, 2, 3]


def test_such_a_client_reads_reasons_that_it_does_not_know_as_text(service: Service) -> None:
    """Reasons are names in an error's details, so that a new one is read like any other."""
    old = OldClient(service.channel)
    with pytest.raises(grpc.RpcError) as refused:
        old.call("GetIdPass", id=UNKNOWN_ID)
    trailing: dict[str, Any] = dict(refused.value.trailing_metadata() or ())  # type: ignore[arg-type]
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(packed.Unpack(info) for packed in status.details)
    assert (info.domain, info.reason) == ("idpass.v1", "PASS_NOT_FOUND")


def test_this_client_works_with_a_server_of_the_first_version(tmp_path: Path) -> None:
    environment = unpack(RELEASED, tmp_path)
    if environment is None:
        pytest.skip("the released version is not at hand: this is no full clone")

    class Released(Process):
        defaults = ("--listen", "127.0.0.1:0")

    server = Released(tmp_path / "idpass.db", env=environment)
    try:
        with IdPassClient(server.address) as client:
            pass_id = client.register(request_id="r").id_pass.id
            assert client.advance(pass_id, "opened").id_pass.status is Status.OPENED
            assert client.cancel(pass_id).fee_refunded
            with pytest.raises(AlreadyCancelled):
                client.cancel(pass_id)
            with pytest.raises(NotFound):
                client.get(UNKNOWN_ID)
            assert [each.id for each in client.list()] == [pass_id]
            assert [event.sequence for event in client.watch(pass_id)] == [1, 2, 3]
            assert client.account().last_sequence == 3
            assert [str(each.error) for each in client.cancel_many([pass_id])] != [""]
    finally:
        server.kill()
