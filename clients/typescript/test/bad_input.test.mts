/** What is wrong on either side is told by a class of the tree, in a sentence that helps. */

import assert from "node:assert/strict";
import { createServer as createHttp1 } from "node:http";
import { createServer, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, createServer as createTcp } from "node:net";
import { type TestContext, test } from "node:test";

import { status as Grpc } from "@grpc/grpc-js";
import {
  BadAnswer,
  FailedPrecondition,
  IdPassClient,
  type IdPassError,
  InvalidRequest,
  NotFound,
  OutcomeUnknown,
  ResourceExhausted,
  Unavailable,
  Unimplemented,
} from "idpass-client";

import { all, client, refusal, refused, Script } from "./kit.mjs";

/** A server of HTTP/2 that is no gRPC library: it answers as it is told. */
async function http2(t: TestContext, answer: (stream: ServerHttp2Stream) => void): Promise<string> {
  const server = createServer();
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session.on("error", () => {})));
  server.on("stream", (stream) => {
    stream.on("error", () => {});
    stream.resume().on("end", () => answer(stream)); // the request has come as a whole
  });
  return listening(t, server, () => {
    for (const session of sessions) {
      session.destroy();
    }
  });
}

async function listening(
  t: TestContext,
  server: ReturnType<typeof createTcp>,
  end = () => {},
): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    end();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const PAGE = Buffer.from(
  "<html><body>Sign in, please, to go on to where you were going</body></html>",
);
const GRPC = { ":status": 200, "content-type": "application/grpc" };
const html = (status: number) => (stream: ServerHttp2Stream) => {
  stream.respond({ ":status": status, "content-type": "text/html; charset=utf-8" });
  stream.end(PAGE);
};

for (const [status, read, code] of [
  [200, BadAnswer, "UNKNOWN"],
  [302, BadAnswer, "UNKNOWN"],
  [400, BadAnswer, "UNKNOWN"],
  [404, Unimplemented, "UNIMPLEMENTED"],
  [502, Unavailable, "UNAVAILABLE"],
] as const) {
  test(`a proxy that answers ${status} with a page is told as one`, async (t) => {
    const timeoutMs = status === 502 ? 1_000 : 30_000; // the others are not tried again
    const own = client(t, await http2(t, html(status)), { timeoutMs });
    const error = await refused<IdPassError>(own.account(), read);
    assert.match(error.message, /is not the service: it sent text\/html/);
    assert.match(error.message, /proxy in between/);
    assert.deepEqual([error.code, error.reason], [code, null]);
    const change = await refused<IdPassError>(
      own.cancel("id"),
      status === 404 ? read : OutcomeUnknown,
    );
    assert.match(change.message, /text\/html/);
    assert.ok(change.requestId);
    await refused<IdPassError>(own.watch({ reconnectForMs: timeoutMs }).next(), read);
  });
}

test("a page of a server that speaks only HTTP/1 was never sent a request", async (t) => {
  const server = createHttp1((_, response) => response.end(PAGE.toString()));
  const own = client(t, await listening(t, server, () => server.closeAllConnections()), {
    timeoutMs: 1_000,
  });
  const error = await refused(own.cancel("id"), Unavailable);
  assert.match(
    error.message,
    /Nothing was sent.*HTTP\/1 answers there, or TLS: give the address of gRPC/,
  );
});

test("a connection that is closed before it begins may be that of a service with TLS", async (t) => {
  const own = client(
    t,
    await listening(
      t,
      createTcp((socket) => socket.destroy()),
    ),
    { timeoutMs: 1_000 },
  );
  const error = await refused(own.cancel("id"), Unavailable);
  assert.match(error.message, /Nothing was sent.*give tls: true/);
});

test("an answer that is garbled or missing is none of the service", async (t) => {
  const frame = (...bytes: number[]) => Buffer.from([0, 0, 0, 0, bytes.length, ...bytes]);
  let body = frame(255, 255);
  const address = await http2(t, (stream) => {
    stream.respond(GRPC, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(body);
  });
  const own = client(t, address, { timeoutMs: 30_000 });
  for (const [given, says] of [
    [frame(255, 255), /cannot be read/],
    [Buffer.alloc(0), /gave no answer that/],
  ] as const) {
    body = given;
    assert.match((await refused(own.account(), BadAnswer)).message, says);
    assert.match((await refused(own.cancel("id"), OutcomeUnknown)).message, says);
  }
  body = frame(255, 255);
  await refused(own.watch().next(), BadAnswer);
});

test("a trailer without details, with broken ones or with another's is told by its code", async (t) => {
  const info = (name: string) => refusal(Grpc.RESOURCE_EXHAUSTED, name, {}, "proxy.example");
  const script = await Script.start(t);
  const own = client(t, script.address);
  script.answer("getIdPass", refusal(Grpc.NOT_FOUND));
  const bare = await refused(own.get("id"), NotFound);
  assert.deepEqual([bare.message, bare.reason, bare.reference], ["no", null, null]);
  const broken = refusal(Grpc.NOT_FOUND, "PASS_NOT_FOUND");
  broken.metadata.set("grpc-status-details-bin", Buffer.from([255, 1, 2]));
  script.answer("getIdPass", broken);
  await refused(own.get("id"), NotFound);
  script.answer("getIdPass", info("NO_FREE_SLOT"));
  assert.equal((await refused(own.get("id"), ResourceExhausted)).reason, null);
  script.answer("getIdPass", refusal(Grpc.NOT_FOUND, "toString"));
  assert.equal((await refused(own.get("id"), NotFound)).reason, "toString");
});

test("a server that sends no trailers at all is told", async (t) => {
  const address = await http2(t, (stream) => stream.respond(GRPC, { endStream: true }));
  const own = client(t, address, { timeoutMs: 1_000 });
  await refused(own.account(), BadAnswer);
  await refused(own.cancel("id"), OutcomeUnknown);
});

test("GOAWAY in mid-call is a lost attempt, and another connection gets the answer", async (t) => {
  const answer = Buffer.from([0, 0, 0, 0, 2, 8, 7]); // status: CANCELLED
  let calls = 0;
  const address = await http2(t, (stream) => {
    calls += 1;
    if (calls === 1) {
      stream.session?.goaway(0, stream.id);
      stream.session?.destroy();
      return;
    }
    stream.respond(GRPC, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(answer);
  });
  assert.equal((await client(t, address).cancel("id")).status, "cancelled");
  assert.equal(calls, 2);
  const always = await http2(t, (stream) => stream.session?.destroy());
  const error = await refused(client(t, always).cancel("id", { timeoutMs: 1_000 }), OutcomeUnknown);
  assert.match(error.message, /broke in mid-call/);
});

test("a stream that is refused unseen changes nothing", async (t) => {
  const address = await http2(t, (stream) => stream.close(7));
  const error = await refused(client(t, address).cancel("id", { timeoutMs: 1_000 }), Unavailable);
  assert.match(error.message, /before it looked at it/);
});

test("what a server says in grpc-js's words is no proof that nothing was sent", async (t) => {
  const script = await Script.start(t);
  const liar = refusal(Grpc.UNAVAILABLE);
  liar.details = "No connection established. Last error: none";
  script.answer("cancelIdPass", liar);
  await refused(client(t, script.address).cancel("id", { timeoutMs: 1_000 }), OutcomeUnknown);
});

test("an older service does not know a method, and a newer one says what is not known here", async (t) => {
  const script = await Script.start(t);
  const own = client(t, script.address);
  script.answer("cancelIdPass", refusal(Grpc.UNIMPLEMENTED));
  assert.match(
    (await refused(own.cancel("id"), Unimplemented)).message,
    /Nothing there knows CancelIdPass/,
  );
  script.answer("getIdPass", {
    idPass: { id: "a", status: 99 as never, cancellation: { reason: 98 as never } },
  });
  const pass = await own.get("a");
  assert.deepEqual([pass.status, pass.cancellation?.reason], ["99", "98"]);
  script.answer("getIdPass", {});
  assert.deepEqual((await own.get("a")).fee, { currency: "", amount: "0.00" });
  script.answer("getIdPass", refusal(Grpc.FAILED_PRECONDITION, "A_NEW_ONE"));
  const error = await refused(own.get("a"), FailedPrecondition);
  assert.equal(error.reason, "A_NEW_ONE");
  script.answer("getIdPass", refusal(99 as never));
  assert.equal((await refused(own.get("a"), BadAnswer)).code, "UNKNOWN");
});

test("an answer that is too large says what to do, and a change may have been made", async (t) => {
  const script = await Script.start(t);
  script.answer("getIdPass", { reference: "x".repeat(2_000) });
  script.answer("cancelIdPass", { reference: "x".repeat(2_000) });
  const channelOptions = { "grpc.max_receive_message_length": 1_000 };
  const own = client(t, script.address, { channelOptions });
  const error = await refused(own.get("a"), ResourceExhausted);
  assert.match(error.message, /grpc\.max_receive_message_length/);
  const change = await refused(own.cancel("a"), OutcomeUnknown);
  assert.match(change.message, /grpc\.max_receive_message_length/);
});

const wrong = (value: unknown) => value as never;
const OPTIONS: Record<string, () => Promise<unknown>> = {
  "request_id is not an option": () => HERE.cancel("x", wrong({ request_id: "a" })),
  "options are a function": () =>
    HERE.cancel(
      "x",
      wrong(() => {}),
    ),
  "note is an array; pass text": () => HERE.cancel("x", { note: wrong(["a"]) }),
  "requireRefund is 1; pass true or false": () => HERE.cancel("x", { requireRefund: wrong(1) }),
  "requestId is 7; pass text": () => HERE.cancel("x", { requestId: wrong(7) }),
  "linkValidityDays is 1.5": () => HERE.register({ linkValidityDays: 1.5 }),
  "timeoutMs is 0; pass milliseconds": () => HERE.account({ timeoutMs: 0 }),
  "timeoutMs is NaN": () => HERE.account({ timeoutMs: Number.NaN }),
  "signal is not an AbortSignal": () => HERE.account({ signal: wrong({}) }),
  "idleBefore is an object (Date)": async () => all(HERE.listPasses({ idleBefore: new Date("x") })),
  "idleForMs is given beside idleBefore": async () =>
    all(HERE.listPasses({ idleBefore: new Date(), idleForMs: 1 })),
  "afterSequence is -1": async () => all(HERE.watch({ afterSequence: -1 })),
  "ids is undefined; pass a list": async () => all(HERE.cancelMany(wrong(undefined))),
  "inFlight is 0": async () => all(HERE.cancelMany([], { inFlight: 0 })),
};
const HERE = new IdPassClient("127.0.0.1:1");

for (const [says, call] of Object.entries(OPTIONS)) {
  test(`an argument that cannot be meant is refused: ${says}`, async () => {
    const error = await refused(call(), InvalidRequest);
    assert.ok(error.message.startsWith(says), error.message);
    assert.match(error.message, /Nothing was sent\.$/);
    assert.equal(error.violations.length, 1);
  });
}

const ADDRESSES: Record<string, [unknown, object?]> = {
  "address is undefined; pass HOST:PORT": [undefined],
  'address is "localhost"; give HOST:PORT': ["localhost"],
  'address is "localhost:99999"': ["localhost:99999"],
  'address is "::1:50051"': ["::1:50051"],
  "address is a URL, https://a:1; give HOST:PORT and tls: true": ["https://a:1"],
  "address example.com:443 is not on this machine": ["example.com:443"],
  "address dns:///example.com:443 is not on this machine": ["dns:///example.com:443"],
  "token is not sent in plain text": ["example.com:443", { allowPlaintext: true, token: "t" }],
  "token is empty": ["localhost:1", { token: " " }],
  "token has characters": ["localhost:1", { token: "secret\n\u0000" }],
  "token is number": ["localhost:1", { token: 7 }],
  "allowPlaintext contradicts": ["localhost:1", { allowPlaintext: true, tls: true }],
  "tls: ENOENT": ["localhost:1", { tls: "/nowhere/ca.pem" }],
  "tls is number": ["localhost:1", { tls: 7 }],
  "tls and clientCertificate cannot be used": [
    "localhost:1",
    {
      tls: Buffer.from("x"),
      clientCertificate: { certificate: Buffer.from("x"), key: Buffer.from("y") },
    },
  ],
  "tsl is not an option here": ["localhost:1", { tsl: true }],
};

for (const [says, [address, options]] of Object.entries(ADDRESSES)) {
  test(`a client that cannot work is refused: ${says}`, () => {
    assert.throws(
      () => new IdPassClient(address as string, options),
      (error: unknown) => {
        assert.ok(error instanceof InvalidRequest, String(error));
        assert.ok(error.message.startsWith(says), error.message);
        assert.ok(!error.message.includes("secret"));
        return true;
      },
    );
  });
}
