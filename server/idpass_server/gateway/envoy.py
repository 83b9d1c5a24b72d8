"""Prints the protos as Envoy's grpc_json_transcoder reads them.

    python -m idpass_server.gateway.envoy > idpass.binpb

google/rpc/error_details.proto is included though no proto imports it: without it Envoy cannot
decode the details of an error, and sends the error with an empty body.
"""

import sys

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from idpass_server.gateway.messages import DETAILS
from idpass_server.gateway.routes import ID_PASSES, WEBHOOKS


def descriptors() -> bytes:
    """A FileDescriptorSet of the services, their errors, and all that they import."""
    found: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        if file.name not in found:
            for needed in file.dependencies:
                add(needed)
            found[file.name] = file

    add(ID_PASSES.file)
    add(WEBHOOKS.file)
    add(DETAILS)
    files = FileDescriptorSet()
    for file in found.values():
        file.CopyToProto(files.file.add())
    return files.SerializeToString()


if __name__ == "__main__":
    sys.stdout.buffer.write(descriptors())
