/**
 * What the client costs over bare grpc-js, in CPU a call of this process; the service is another.
 *
 * bench_typescript.py starts it. The two ways alternate, and the median of the rounds is told. The
 * bare way does what a careful caller does by hand: protobuf-es for the messages, a request id, a
 * deadline.
 */

import { readFileSync } from "node:fs";

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import { IdPassClient } from "idpass-client";

import { CancelReason } from "../dist/gen/idpass/v1/id_pass_pb.js";
import {
  CancelRequestSchema,
  type CancelResponse,
  CancelResponseSchema,
} from "../dist/gen/idpass/v1/id_pass_service_pb.js";
import { newRequestId } from "../dist/requests.js";

const { IDPASS_ADDRESS = "", IDPASS_IDS = "" } = process.env;
const CALLS = 500;
const ROUNDS = 9;
const MAX_OVERHEAD = 0.15;

const ids: string[] = JSON.parse(readFileSync(IDPASS_IDS, "utf8"));
const bare = new Client(IDPASS_ADDRESS, credentials.createInsecure());
const client = new IdPassClient(IDPASS_ADDRESS);

function byHand(id: string): Promise<CancelResponse> {
  const request = create(CancelRequestSchema, {
    id,
    requestId: newRequestId(),
    reason: CancelReason.ABANDONED,
  });
  return new Promise((resolve, reject) => {
    bare.makeUnaryRequest(
      "/idpass.v1.IdPassService/CancelIdPass",
      (message) => Buffer.from(toBinary(CancelRequestSchema, message)),
      (bytes) => fromBinary(CancelResponseSchema, bytes),
      request,
      new Metadata(),
      { deadline: Date.now() + 5_000 },
      (error, answer) => (error ? reject(error) : resolve(answer as CancelResponse)),
    );
  });
}

const byClient = (id: string) => client.cancel(id, { reason: "abandoned" });

async function microsPerCall(cancel: (id: string) => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  for (const id of ids.splice(0, CALLS)) {
    await cancel(id);
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / CALLS;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

await microsPerCall(byHand); // compiled and connected: neither is measured
await microsPerCall(byClient);
const [raw, own]: [number[], number[]] = [[], []];
for (let round = 0; round < ROUNDS; round += 1) {
  raw.push(await microsPerCall(byHand));
  own.push(await microsPerCall(byClient));
}
const [before, after] = [median(raw), median(own)];
const overhead = after / before - 1;
console.log(
  `typescript grpc-js ${before.toFixed(0)} µs, client ${after.toFixed(0)} µs of CPU a call: ` +
    `${overhead >= 0 ? "+" : ""}${(overhead * 100).toFixed(1)}%`,
);
bare.close();
client.close();
process.exitCode = overhead <= MAX_OVERHEAD ? 0 : 1;
