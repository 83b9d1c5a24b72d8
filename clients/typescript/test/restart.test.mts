/** A real service that is stopped, killed and started again: a drill, since each start takes time. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { client, ServerProcess } from "./kit.mjs";

test("a watcher outlives restarts of the service, stopped or killed", async (t) => {
  const server = await ServerProcess.start(t);
  const own = client(t, server.address, { timeoutMs: 20_000 });
  const events = client(t, server.address).watch();
  const seen: unknown[] = [];
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    await own.register();
    seen.push((await events.next()).value?.sequence);
    const next = events.next(); // waiting while the server goes
    await server.stop(signal);
    await server.start();
    await own.register();
    seen.push((await next).value?.sequence);
  }
  await events.return();
  assert.deepEqual(seen, [1, 2, 3, 4]);
});

test("a call outlives a restart of the service", async (t) => {
  const server = await ServerProcess.start(t);
  const own = client(t, server.address, { timeoutMs: 20_000 });
  await own.account();
  await server.stop("SIGKILL");
  const registered = own.register();
  await server.start();
  assert.equal((await registered).idPass.status, "new");
});
