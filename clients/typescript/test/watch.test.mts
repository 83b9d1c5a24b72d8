/** Watching: none is missed or repeated, whatever breaks. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { status as Grpc } from "@grpc/grpc-js";
import { Overloaded, Unavailable } from "idpass-client";

import { client, first, LOST, LosingProxy, refusal, refused, Script } from "./kit.mjs";

test("a watcher on a connection that keeps breaking sees each event once", async (t) => {
  const direct = client(t, process.env.IDPASS_ADDRESS ?? "");
  const { lastSequence: afterSequence } = await direct.account();
  const proxy = await LosingProxy.start(t, process.env.IDPASS_ADDRESS ?? "");
  const seen: number[] = [];
  await direct.register();
  for await (const event of client(t, proxy.address).watch({ afterSequence })) {
    seen.push(event.sequence - afterSequence);
    if (seen.length === 5) {
      break;
    }
    proxy.breakAll();
    await direct.register();
  }
  assert.deepEqual(seen, [1, 2, 3, 4, 5]);
});

test("a stream is resumed after the last event, with its history", async (t) => {
  const script = await Script.start(t);
  const event = (sequence: number) => ({ sequence: BigInt(sequence), toStatus: 1 });
  const overloaded = refusal(Grpc.RESOURCE_EXHAUSTED, "OVERLOADED", { delay: "1" });
  script.answer("watchIdPasses", LOST, event(7), LOST);
  const own = client(t, script.address);
  const seen = [];
  for await (const { sequence } of own.watch({ afterSequence: 6, history: "h" })) {
    seen.push(sequence);
  }
  assert.deepEqual(seen, [7]);
  script.answer("watchIdPasses", overloaded);
  await refused(own.watch().next(), Overloaded); // at its start that is told at once
  const asked = script.requests as { afterSequence: bigint; history: string }[];
  assert.deepEqual(
    asked.map((each) => [each.afterSequence, each.history]),
    [
      [6n, "h"],
      [6n, "h"],
      [0n, ""],
    ],
  );
});

test("a watcher gives up when nobody is there for long", async (t) => {
  const events = client(t, "127.0.0.1:1").watch({ reconnectForMs: 1_000 });
  const error = await refused(events.next(), Unavailable);
  assert.match(error.message, /Is the service running/);
});

test("a watcher ends when its client is closed, and by its signal", async (t) => {
  const script = await Script.start(t);
  const own = client(t, script.address);
  const stop = new AbortController();
  const stopped = own.watch({ signal: stop.signal }).next();
  const ended = own.watch().next();
  await eventually(() => script.calls.length === 2);
  stop.abort(new Error("enough"));
  await assert.rejects(stopped, /enough/);
  own.close();
  assert.deepEqual(await ended, { value: undefined, done: true });
  assert.deepEqual(await own.watch().next(), { value: undefined, done: true });
});

test("a watcher that is left ends its stream", async (t) => {
  const server = client(t, process.env.IDPASS_ADDRESS ?? "");
  await server.register();
  const script = await Script.start(t);
  let left = false;
  script.answer("watchIdPasses", (_, call) => {
    const stream = call as unknown as { write(bytes: Buffer): void };
    stream.write(Buffer.from([8, 1])); // sequence 1
    call.on("cancelled", () => {
      left = true;
    });
    return undefined;
  });
  assert.equal((await first(1, client(t, script.address).watch()))[0]?.sequence, 1);
  await eventually(() => left);
});

async function eventually(condition: () => boolean): Promise<void> {
  for (let waited = 0; !condition(); waited += 1) {
    assert.ok(waited < 3_000);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
