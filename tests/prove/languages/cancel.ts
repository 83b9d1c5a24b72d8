// Cancels a pass by the client that a generator makes: node cancel.js GENERATOR ADDRESS ID
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { credentials, loadPackageDefinition, type ServiceError } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

import * as es from "./generated/protobuf-es/idpass/v1/id_pass_service_pb";
import { ErrorInfoSchema } from "./generated/protobuf-es/google/rpc/error_details_pb";
import * as protobufTs from "./generated/protobuf-ts/idpass/v1/id_pass_service";
import * as protobufTsClient from "./generated/protobuf-ts/idpass/v1/id_pass_service.grpc-client";
import * as protobufTsStatus from "./generated/protobuf-ts/google/rpc/status";
import * as protobufTsDetails from "./generated/protobuf-ts/google/rpc/error_details";
import * as tsProto from "./generated/ts-proto/idpass/v1/id_pass_service";
import * as tsProtoStatus from "./generated/ts-proto/google/rpc/status";
import * as tsProtoDetails from "./generated/ts-proto/google/rpc/error_details";

const [generator, address, id] = process.argv.slice(2) as [string, string, string];
const request = { id, requestId: `cancel-${id}`, reason: 1 as const }; // abandoned
const insecure = credentials.createInsecure();

function told(feeRefunded: boolean): void {
  console.log(`cancelled, fee refunded: ${feeRefunded}`);
}

/** The bytes of the google.rpc.Status that an error of grpc-js carries. */
function status(error: ServiceError): Uint8Array {
  return error.metadata.get("grpc-status-details-bin")[0] as Buffer;
}

const clients: Record<string, () => void> = {
  "protobuf-es": async () => {
    const transport = createGrpcTransport({ baseUrl: `http://${address}` });
    const client = createClient(es.IdPassService, transport);
    try {
      told((await client.cancelIdPass(request, { timeoutMs: 5_000 })).feeRefunded);
    } catch (error) {
      for (const info of ConnectError.from(error).findDetails(ErrorInfoSchema)) {
        console.log(`refused: ${info.reason}`);
      }
    }
  },

  "protobuf-ts": () => {
    const client = new protobufTsClient.IdPassServiceClient(address, insecure);
    client.cancelIdPass(protobufTs.CancelRequest.create(request), (error, answer) => {
      if (answer) return told(answer.feeRefunded);
      for (const detail of protobufTsStatus.Status.fromBinary(status(error!)).details) {
        if (detail.typeUrl.endsWith("/google.rpc.ErrorInfo")) {
          const info = protobufTsDetails.ErrorInfo.fromBinary(detail.value);
          console.log(`refused: ${info.reason}`);
        }
      }
    });
  },

  "ts-proto": () => {
    const client = new tsProto.IdPassServiceClient(address, insecure);
    client.cancelIdPass(tsProto.CancelRequest.fromPartial(request), (error, answer) => {
      if (!error) return told(answer.feeRefunded);
      for (const detail of tsProtoStatus.Status.decode(status(error)).details) {
        if (detail.typeUrl.endsWith("/google.rpc.ErrorInfo")) {
          const info = tsProtoDetails.ErrorInfo.decode(detail.value);
          console.log(`refused: ${info.reason}`);
        }
      }
    });
  },

  "proto-loader": () => {
    const files = ["idpass/v1/id_pass_service.proto", "google/rpc/error_details.proto"];
    const definitions = loadSync(files, { includeDirs: ["protos"] });
    // biome-ignore lint/suspicious/noExplicitAny: what it has is known only now, from the protos
    const { idpass, google } = loadPackageDefinition(definitions) as any;
    const client = new idpass.v1.IdPassService(address, insecure);
    client.cancelIdPass(request, (error: ServiceError | null, answer: { feeRefunded: boolean }) => {
      if (!error) return told(answer.feeRefunded);
      for (const detail of google.rpc.Status.deserialize(status(error)).details) {
        if (detail.type_url.endsWith("/google.rpc.ErrorInfo")) {
          const info = google.rpc.ErrorInfo.deserialize(detail.value);
          console.log(`refused: ${info.reason}`);
        }
      }
    });
  },
};

clients[generator]!();
