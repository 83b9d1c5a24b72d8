/** Many passes, and pages. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { status as Grpc } from "@grpc/grpc-js";
import {
  BadAnswer,
  type CancelResult,
  InvalidRequest,
  OutcomeUnknown,
  Unavailable,
} from "idpass-client";

import { all, client, first, LOST, refusal, refused, Script } from "./kit.mjs";

const ids = (count: number) => Array.from({ length: count }, (_, index) => `id ${index}`);
const cancelled = (request: { requests: readonly unknown[] }) => ({
  results: request.requests.map(() => ({
    result: { case: "response" as const, value: { status: 7 } },
  })),
});

test("ids are sent in batches of up to a thousand, and answered in order", async (t) => {
  const script = await Script.start(t);
  script.answer("batchCancelIdPasses", LOST, cancelled);
  const results = await all(client(t, script.address).cancelMany(ids(1_500), { batchSize: 1_000 }));
  assert.deepEqual(
    results.map((each) => each.id),
    ids(1_500),
  );
  assert.ok(results.every((each) => each.receipt?.requestId === each.requestId));
  assert.equal(new Set(results.map((each) => each.requestId)).size, 1_500);
  const sent = (script.requests as { requests: { requestId: string }[] }[]).map(
    ({ requests }) => `${requests.length} from ${requests[0]?.requestId}`,
  );
  assert.equal(sent.length, 3); // one of them was lost, and sent again as it was
  assert.deepEqual([...new Set(sent)].map(Number.parseFloat).sort(), [1_000, 500]);
});

test("ids are read only a little ahead, from an async iterable too", async (t) => {
  const script = await Script.start(t);
  script.answer("batchCancelIdPasses", cancelled);
  let read = 0;
  let ended = false;
  async function* endless() {
    try {
      for (;;) {
        read += 1;
        yield `id ${read}`;
      }
    } finally {
      ended = true;
    }
  }
  const results = client(t, script.address).cancelMany(endless(), { batchSize: 3, inFlight: 2 });
  assert.equal(read, 0);
  await first(7, results);
  assert.ok(read <= 7 + 2 * 3, String(read));
  assert.ok(ended);
});

test("whoever leaves before the end gives up the batches under way", async (t) => {
  const script = await Script.start(t);
  let givenUp: () => void = () => {};
  const left = new Promise<void>((resolve) => {
    givenUp = resolve;
  });
  script.answer("batchCancelIdPasses", cancelled, (_, call) => {
    call.on("cancelled", givenUp);
    return undefined;
  });
  await first(
    1,
    client(t, script.address).cancelMany(ids(4), { batchSize: 2, timeoutMs: 100_000 }),
  );
  await left;
});

test("a batch that fails as a whole is told item by item and thrown", async (t) => {
  const script = await Script.start(t);
  script.answer(
    "batchCancelIdPasses",
    cancelled,
    refusal(Grpc.UNAUTHENTICATED, "UNAUTHENTICATED_CALLER"),
  );
  const seen: CancelResult[] = [];
  const results = client(t, script.address).cancelMany(ids(100), { batchSize: 2, inFlight: 1 });
  await assert.rejects(
    async () => {
      for await (const result of results) {
        seen.push(result);
      }
    },
    { name: "Unauthenticated" },
  );
  assert.deepEqual(
    seen.map((each) => each.error?.name ?? null),
    [null, null, "Unauthenticated", "Unauthenticated"],
  );
  assert.equal(seen[2]?.error?.requestId, seen[2]?.requestId);
});

test("what was sent is told before an id that is none is refused", async (t) => {
  const script = await Script.start(t);
  script.answer("batchCancelIdPasses", cancelled);
  const given = ["a", "b", 7 as unknown as string];
  const results = client(t, script.address).cancelMany(given, { batchSize: 2 });
  const seen: CancelResult[] = [];
  await assert.rejects(async () => {
    for await (const result of results) {
      seen.push(result);
    }
  }, InvalidRequest);
  assert.deepEqual(
    seen.map((each) => each.receipt?.id),
    ["a", "b"],
  );
});

test("an answer with fewer results than passes is no answer", async (t) => {
  const script = await Script.start(t);
  script.answer("batchCancelIdPasses", { results: [] });
  const [result] = await first(1, client(t, script.address).cancelMany(["a"]));
  assert.equal(result?.error?.constructor, OutcomeUnknown);
  assert.match(result?.error?.message ?? "", /0 results came for 1 passes/);
});

test("a result of a newer kind is told as such", async (t) => {
  const script = await Script.start(t);
  script.answer("batchCancelIdPasses", { results: [{}] });
  const [result] = await all(client(t, script.address).cancelMany(["a"]));
  assert.equal(result?.error?.constructor, BadAnswer);
});

test("a listing goes over all pages at the server's pace", async (t) => {
  const script = await Script.start(t);
  const busy = refusal(Grpc.RESOURCE_EXHAUSTED, "OVERLOADED", { delay: "250" });
  const page = (id: string, nextPageToken: string) => ({ idPasses: [{ id }], nextPageToken });
  script.answer(
    "listIdPasses",
    page("a", "2"),
    busy,
    page("b", "3"),
    { nextPageToken: "4" },
    page("c", ""),
  );
  script.answer("getAccount", { id: "here" });
  const own = client(t, script.address);
  await own.account(); // connected: a page has less time than the server's delay
  script.requests.length = 0;
  const found = await all(own.listPasses({ timeoutMs: 200, idleForMs: 1_000 }));
  assert.deepEqual(
    found.map((each) => each.id),
    ["a", "b", "c"],
  );
  const asked = script.requests as { pageToken: string; idleBefore: unknown }[];
  assert.deepEqual(
    asked.map((each) => each.pageToken),
    ["", "2", "2", "3", "4"],
  );
  assert.ok(asked.every((each) => each.idleBefore && each.pageToken !== undefined));
  assert.equal(
    new Set(asked.map((each) => JSON.stringify(each.idleBefore, (_, v) => String(v)))).size,
    1,
  );
});

test("many of a service that is not there are each told so", async (t) => {
  const own = client(t, "127.0.0.1:1", { timeoutMs: 150 });
  const results = own.cancelMany(["a", "b"]);
  assert.equal((await results.next()).value?.error?.constructor, Unavailable);
  assert.equal((await results.next()).value?.error?.constructor, Unavailable);
  await refused(results.next(), Unavailable);
});
