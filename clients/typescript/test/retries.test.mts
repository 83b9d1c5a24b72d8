/** What is tried again, when, and what is thrown in the end. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { status as Grpc, Metadata, type ServiceError } from "@grpc/grpc-js";
import {
  AlreadyCancelled,
  Complete,
  DailyQuotaExhausted,
  DeadlineExceeded,
  IdPassError,
  NotFound,
  OutcomeUnknown,
  Overloaded,
  Unavailable,
} from "idpass-client";

import { Attempts, Throttle } from "../dist/retry.js";
import { client, LOST, LosingProxy, refusal, refused, Script } from "./kit.mjs";

const { IDPASS_ADDRESS = "" } = process.env;
const TARGET = { address: "here:1", secure: false };
const CANCEL = { name: "CancelIdPass", changes: true, requestId: "mine" };
const GET = { name: "GetIdPass", changes: false, requestId: null };
const DONE = { status: 7 };

const storeUnavailable = (outcome = "not_committed", more = {}) =>
  refusal(Grpc.UNAVAILABLE, "STORE_UNAVAILABLE", { outcome, ...more });
const overloaded = (ms: number) =>
  refusal(Grpc.RESOURCE_EXHAUSTED, "OVERLOADED", { pushback: `${ms}`, delay: `${ms}` });

/** Attempts in a time that moves by pauses only, and by `tookMs` for each of them. */
class Trial {
  nowMs = 1_000;
  readonly pausesMs: number[] = [];
  readonly leftMs: number[] = [];
  readonly #attempts: Attempts;

  constructor(subject = CANCEL as typeof CANCEL | typeof GET, timeoutMs = 5_000, patient = false) {
    const throttle = new Throttle();
    this.#attempts = new Attempts(subject, TARGET, timeoutMs, this.nowMs, throttle, patient);
  }

  /** What is thrown by the first that is not tried again, or undefined. */
  fail(...errors: ServiceError[]): IdPassError | undefined {
    try {
      for (const error of errors) {
        const headers = error.metadata.get("answered").length ? new Metadata() : undefined;
        const pauseMs = this.#attempts.failed({ error, headers }, this.nowMs, false);
        this.pausesMs.push(Math.round(pauseMs));
        this.nowMs += pauseMs;
        this.leftMs.push(Math.round(this.#attempts.remainingMs(this.nowMs)));
      }
    } catch (error) {
      assert.ok(error instanceof IdPassError, String(error));
      return error;
    }
    return undefined;
  }
}

function withoutJitter(t: { mock: { method(on: object, name: string, by: () => number): void } }) {
  t.mock.method(Math, "random", () => 1);
}

test("an unavailable service is tried again with growing pauses", (t) => {
  withoutJitter(t);
  const trial = new Trial(CANCEL, 60_000);
  assert.equal(trial.fail(...Array(8).fill(LOST)), undefined);
  assert.deepEqual(trial.pausesMs, [100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000]);
});

test("all attempts and pauses share one deadline", (t) => {
  withoutJitter(t);
  const trial = new Trial(CANCEL, 650);
  const error = trial.fail(LOST, LOST, LOST);
  assert.deepEqual(trial.leftMs, [550, 350]);
  assert.equal(error?.name, "OutcomeUnknown");
});

test("the server's own pause is kept, and after it backoff goes on as it was", (t) => {
  withoutJitter(t);
  const trial = new Trial();
  trial.fail(storeUnavailable("not_committed", { pushback: "1500" }), LOST);
  assert.deepEqual(trial.pausesMs, [1_500, 100]);
});

for (const pushback of ["-1", "never", "5001"]) {
  test(`a server that asks for the pause ${pushback} gets no retry`, () => {
    const trial = new Trial();
    const error = trial.fail(storeUnavailable("not_committed", { pushback }));
    assert.deepEqual(
      [error?.name, error?.requestId, trial.pausesMs.length],
      ["Unavailable", "mine", 0],
    );
  });
}

test("an overloaded service is tried again when it asks for it and a little later", (t) => {
  withoutJitter(t);
  const trial = new Trial();
  const details = refusal(Grpc.RESOURCE_EXHAUSTED, "OVERLOADED", { delay: "700" });
  trial.fail(overloaded(1_500), overloaded(200), details);
  assert.deepEqual(trial.pausesMs, [1_600, 400, 1_100]);
});

test("whoever is patient starts over after each pause of an overloaded server", (t) => {
  withoutJitter(t);
  const trial = new Trial(CANCEL, 500, true);
  trial.fail(overloaded(9_900), overloaded(99_800));
  assert.deepEqual(trial.leftMs, [500, 500]);
});

const SETTLED = [
  ["FAILED_PRECONDITION", "PASS_COMPLETE", Complete],
  ["FAILED_PRECONDITION", "PASS_ALREADY_CANCELLED", AlreadyCancelled],
  ["NOT_FOUND", "PASS_NOT_FOUND", NotFound],
  ["RESOURCE_EXHAUSTED", "DAILY_QUOTA_EXHAUSTED", DailyQuotaExhausted],
] as const;
for (const [code, reason, kind] of SETTLED) {
  test(`${reason} after a lost attempt settles the matter`, () => {
    assert.equal(new Trial().fail(LOST, refusal(Grpc[code], reason))?.constructor, kind);
  });
}

for (const [code, reason] of [
  ["RESOURCE_EXHAUSTED", "OVERLOADED"],
  ["UNAUTHENTICATED", "UNAUTHENTICATED_CALLER"],
  ["INTERNAL", "INTERNAL"],
  ["DEADLINE_EXCEEDED", undefined],
] as const) {
  test(`${code} after a lost attempt does not hide that the change may have been made`, () => {
    const error = new Trial().fail(LOST, refusal(Grpc[code], reason));
    assert.equal(error?.constructor, OutcomeUnknown);
    assert.deepEqual([error?.code, error?.reason], [code, reason ?? null]);
    assert.match(error?.message ?? "", /requestId: "mine"/);
  });
}

test("a commit of unknown outcome stays unknown", () => {
  const error = new Trial(CANCEL, 150).fail(storeUnavailable("unknown"), storeUnavailable());
  assert.equal(error?.constructor, OutcomeUnknown);
});

test("a change that surely was not made is just unavailable", () => {
  const error = new Trial(CANCEL, 150).fail(storeUnavailable(), storeUnavailable());
  assert.equal(error?.constructor, Unavailable);
});

test("a call that changes nothing has no unknown outcome", () => {
  const late = refusal(Grpc.DEADLINE_EXCEEDED);
  assert.equal(new Trial(GET).fail(late)?.constructor, DeadlineExceeded);
  assert.equal(new Trial(GET).fail(LOST, late)?.constructor, Unavailable); // waited for in vain
});

for (const code of Object.values(Grpc).filter((each) => typeof each === "number")) {
  if (![Grpc.OK, Grpc.UNAVAILABLE, Grpc.CANCELLED].includes(code)) {
    test(`${Grpc[code]} is not tried again`, () => {
      const trial = new Trial(GET);
      assert.equal(trial.fail(refusal(code))?.code, Grpc[code]);
      assert.deepEqual(trial.pausesMs, []);
    });
  }
}

test("retries stop while most attempts fail, and turned-away calls do not count", () => {
  const throttle = new Throttle();
  const fails = (error: ServiceError) => {
    const attempts = new Attempts(GET, TARGET, 5_000, 0, throttle, false);
    try {
      return attempts.failed({ error, headers: undefined }, 0, false) > 0;
    } catch {
      return false;
    }
  };
  const unsent = refusal(Grpc.UNAVAILABLE);
  unsent.details = "No connection established. Last error: x";
  unsent.metadata = new Metadata();
  for (let made = 0; made < 1_000; made += 1) {
    assert.ok(fails(unsent) && fails(refusal(Grpc.CANCELLED)));
  }
  let retried = 0;
  while (fails(storeUnavailable())) {
    retried += 1;
  }
  assert.equal(retried, 499);
  throttle.succeeded();
  assert.ok(!fails(storeUnavailable()));
});

test("over the wire, each attempt is the same request and the last answer counts", async (t) => {
  const script = await Script.start(t);
  const dropped = refusal(Grpc.CANCELLED);
  script.answer("cancelIdPass", LOST, dropped, overloaded(1), DONE);
  const receipt = await client(t, script.address).cancel("id", { note: "why" });
  assert.equal(receipt.status, "cancelled");
  assert.equal(script.requests.length, 4);
  for (const request of script.requests) {
    assert.deepEqual(request, script.requests[0]);
  }
  assert.equal((script.requests[0] as { requestId: string }).requestId, receipt.requestId);
});

test("a server that asks for more time than there is gets no retry, and its delay is told", async (t) => {
  const script = await Script.start(t);
  script.answer("cancelIdPass", overloaded(60_000));
  const error = await refused(client(t, script.address).cancel("id"), Overloaded);
  assert.equal(error.retryAfterMs, 60_000);
  assert.equal(script.requests.length, 1);
});

test("a call that is never answered ends in time, and the server knows its deadline", async (t) => {
  const script = await Script.start(t);
  script.answer("getAccount", { id: "here" });
  const own = client(t, script.address);
  await own.account(); // connected: what follows is sent at once
  script.calls.length = 0;
  const late = await refused(own.get("id", { timeoutMs: 60 }), DeadlineExceeded);
  assert.match(late.message, /No answer came within 60 ms/);
  const unknown = await refused(
    own.cancel("id", { timeoutMs: 60, requestId: "a" }),
    OutcomeUnknown,
  );
  assert.equal(unknown.requestId, "a");
  for (const call of script.calls) {
    assert.ok(Number(call.getDeadline()) < Date.now() + 1_000);
  }
});

test("a cancellation whose answer got lost is answered by its receipt", async (t) => {
  const direct = client(t, IDPASS_ADDRESS);
  const proxy = await LosingProxy.start(t, IDPASS_ADDRESS);
  const before = await direct.account();
  const { idPass } = await direct.register();
  const own = client(t, proxy.address, { timeoutMs: 20_000 });
  proxy.lose = 2;
  const receipt = await own.cancel(idPass.id);
  assert.equal(proxy.lose, 0);
  assert.ok(receipt.replayed && receipt.feeRefunded);
  assert.equal((await direct.account()).lastSequence, before.lastSequence + 2);

  const other = (await direct.register()).idPass;
  proxy.lose = 1_000;
  const unknown = await refused(own.cancel(other.id, { timeoutMs: 1_500 }), OutcomeUnknown);
  proxy.lose = 0;
  const again = await own.cancel(other.id, { requestId: unknown.requestId ?? "" });
  assert.ok(again.replayed && again.feeRefunded);
});

test("a signal gives up a call, a pause and a call that has not begun", async (t) => {
  const script = await Script.start(t);
  const own = client(t, script.address);
  const why = new Error("enough");
  const inCall = new AbortController();
  script.answer("cancelIdPass", () => {
    inCall.abort(why);
    return undefined;
  });
  await assert.rejects(own.cancel("id", { signal: inCall.signal }), why);
  await assert.rejects(own.cancel("id", { signal: inCall.signal }), why);
  assert.equal(script.calls.length, 1);

  const inPause = new AbortController();
  script.answer("getIdPass", () => {
    setTimeout(() => inPause.abort(why), 20);
    return undefined;
  });
  script.answer("getAccount", overloaded(4_000));
  const pausing = own.account({ signal: inPause.signal });
  await assert.rejects(Promise.all([pausing, own.get("id", { signal: inPause.signal })]), why);
  await assert.rejects(pausing, why);
  const timed = own.get("id", { signal: AbortSignal.timeout(5) });
  await assert.rejects(timed, { name: "TimeoutError" });
});
