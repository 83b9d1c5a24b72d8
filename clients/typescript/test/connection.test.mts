/** Addresses, credentials and the end. */

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { pathToFileURL } from "node:url";

import { ServerCredentials } from "@grpc/grpc-js";
import {
  IdPassClient,
  IdPassError,
  OutcomeUnknown,
  Unauthenticated,
  Unavailable,
  VERSION,
} from "idpass-client";

import { client, LOST, refused, Script } from "./kit.mjs";

const { IDPASS_CA = "", IDPASS_OTHER_CA = "" } = process.env;
const pair = (name: string) => {
  const [certificate = "", key = ""] = (process.env[name] ?? "").split(":");
  return { certificate, key };
};

async function overTls(t: TestContext, mutual = false): Promise<Script> {
  const { certificate, key } = pair("IDPASS_SERVER_PAIR");
  const own = { cert_chain: readFileSync(certificate), private_key: readFileSync(key) };
  const credentials = ServerCredentials.createSsl(readFileSync(IDPASS_CA), [own], mutual);
  const script = await Script.start(t, { host: "localhost", credentials });
  script.answer("getAccount", { id: "here" });
  return script;
}

test("TLS with a private authority, and with a certificate of the caller's own", async (t) => {
  const clientCertificate = pair("IDPASS_CALLER_PAIR");
  const { address } = await overTls(t);
  assert.equal((await client(t, address, { tls: IDPASS_CA }).account()).id, "here");
  const tls = pathToFileURL(IDPASS_CA);
  assert.equal((await client(t, address, { tls }).account()).id, "here");
  const mutual = await overTls(t, true);
  const bytes = { tls: readFileSync(IDPASS_CA), clientCertificate };
  assert.equal((await client(t, mutual.address, bytes).account()).id, "here");
});

test("the hint fits what is wrong with TLS", async (t) => {
  const plain = await Script.start(t);
  const { address } = await overTls(t);
  const mutual = await overTls(t, true);
  const cases = [
    [address, {}, /give tls: true|HTTP\/1 answers there, or TLS/],
    [plain.address, { tls: IDPASS_CA }, /leave tls out/],
    [address, { tls: IDPASS_OTHER_CA }, /authority that is not trusted here/],
    [address, { tls: true }, /authority that is not trusted here/],
    [address.replace("localhost", "127.0.0.1"), { tls: IDPASS_CA }, /for another name/],
    [mutual.address, { tls: IDPASS_CA }, /give clientCertificate/],
  ] as const;
  const told = cases.map(async ([target, options, hint]) => {
    const own = client(t, target, { ...options, timeoutMs: 1_500 });
    const error = await refused(own.cancel("id"), Unavailable);
    assert.match(error.message, /^Nothing was sent/);
    assert.match(error.message, hint);
  });
  await Promise.all(told);
});

test("a socket in the file system is an address", async (t) => {
  const address = `unix:${join(mkdtempSync(join(tmpdir(), "idpass-")), "s")}`;
  const script = await Script.start(t, { at: address });
  script.answer("getAccount", { id: "here" });
  assert.equal((await client(t, address).account()).id, "here");
});

test("a token is asked for before every attempt, and never shown", async (t) => {
  const script = await Script.start(t);
  script.answer("getAccount", LOST, { id: "here" });
  let asked = 0;
  const token = async () => `secret-${++asked}\n`;
  await client(t, script.address, { token }).account();
  const sent = script.calls.map((call) => call.metadata.get("authorization")[0]);
  assert.deepEqual(sent, ["Bearer secret-1", "Bearer secret-2"]);
  const agent = String(script.calls[0]?.metadata.get("user-agent")[0]);
  assert.match(agent, new RegExp(`^idpass-client-node/${VERSION} `));

  const broken = client(t, script.address, { token: () => Promise.reject(new Error("secret")) });
  const error = await refused(broken.account(), Unauthenticated);
  assert.ok(!error.message.includes("secret"));
  const slow = client(t, script.address, { token: () => new Promise(() => {}), timeoutMs: 40 });
  assert.match((await refused(slow.cancel("id"), Unavailable)).message, /took longer than 40 ms/);
});

test("a token that fails after a lost attempt does not hide that it may have been made", async (t) => {
  const script = await Script.start(t);
  script.answer("cancelIdPass", LOST);
  let asked = 0;
  const token = () => {
    asked += 1;
    if (asked > 1) {
      throw new Error("no more");
    }
    return "one";
  };
  const error = await refused(client(t, script.address, { token }).cancel("id"), OutcomeUnknown);
  assert.match(error.message, /The token function failed/);
});

test("a host that takes connections and never answers was sent nothing, and is given up", async (t) => {
  let connections = 0;
  const silent = createServer((socket) => {
    connections += 1;
    t.after(() => socket.destroy());
  });
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  t.after(() => silent.close());
  const { port } = silent.address() as { port: number };
  const own = client(t, `127.0.0.1:${port}`, { timeoutMs: 200 });
  const now = performance.now.bind(performance);
  let aheadMs = 0;
  t.mock.method(performance, "now", () => now() + aheadMs);
  for (const after of [0, 0, 6_000, 6_000]) {
    aheadMs = after;
    const error = await refused(own.cancel("id"), Unavailable);
    assert.match(error.message, /Nothing was sent.*connecting took too long/);
  }
  assert.equal(connections, 2); // the second after the third call had found the first one stuck
});

test("a name that is not known is told", async (t) => {
  const own = client(t, "idpass.invalid:443", { allowPlaintext: true, timeoutMs: 1_000 });
  const error = await refused(own.cancel("id"), Unavailable);
  assert.match(error.message, /Nothing was sent.*Is the name right\?/);
});

test("closing a client ends its calls at once, and none is made again", async (t) => {
  const script = await Script.start(t);
  const own = client(t, script.address);
  const change = refused(own.cancel("id"), OutcomeUnknown);
  const question = refused(own.get("id"), IdPassError);
  while (script.calls.length < 2) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  own.close();
  assert.match((await change).message, /before the client was closed/);
  assert.match((await question).message, /was closed/);
  assert.equal((await refused(own.account(), IdPassError)).code, "CANCELLED");
  own.close();
  assert.equal(script.calls.length, 2);
});

test("a client between two attempts can be closed, and disposed of", async (t) => {
  const script = await Script.start(t);
  const own = new IdPassClient(script.address);
  script.answer("getAccount", LOST);
  const question = assert.rejects(own.account(), IdPassError);
  while (script.calls.length < 1) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  own[Symbol.dispose]();
  await question;
});
