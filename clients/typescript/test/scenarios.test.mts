/** The scenarios that every client runs: tests/client/scenarios.json, which says how it is read. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import * as idpass from "idpass-client";

import { all, client, first } from "./kit.mjs";

interface Expected {
  readonly class: string;
  readonly code: string;
  readonly reason: string;
  readonly has?: Record<string, unknown>;
  readonly local?: boolean;
  readonly says?: string;
}

interface Step {
  readonly call: string;
  readonly with?: Record<string, unknown>;
  readonly as?: string;
  readonly take?: number;
  readonly gives?: unknown;
  readonly fails?: Expected;
}

const { IDPASS_ADDRESS = "", IDPASS_SCENARIOS = "" } = process.env;
const TABLE = JSON.parse(readFileSync(IDPASS_SCENARIOS, "utf8")) as {
  readonly scenarios: readonly { readonly name: string; readonly steps: readonly Step[] }[];
};
const CLASSES = new Map<string, unknown>(Object.entries(idpass));
const METHODS: Record<string, string> = { list: "listPasses", cancel_many: "cancelMany" };
const POSITIONAL: Record<string, readonly string[]> = {
  cancel: ["id"],
  cancel_many: ["ids"],
  advance: ["id", "to_status"],
  get: ["id"],
};

const camel = (name: string) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
type Kept = Map<string, unknown>;

/** A value of the table with what it refers to put in. */
function filled(value: unknown, kept: Kept): unknown {
  if (Array.isArray(value)) {
    return value.map((each) => filled(each, kept));
  }
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([name, each]) => [name, filled(each, kept)]),
    );
  }
  if (typeof value !== "string" || !value.startsWith("$")) {
    return value;
  }
  if (value === "$uuid") {
    return randomUUID();
  }
  const [start = "", ...path] = value.slice(1).split(".");
  return path.reduce<unknown>((found, name) => (found as never)[camel(name)], kept.get(start));
}

function compare(expected: unknown, found: unknown, where: string): void {
  if (Array.isArray(expected)) {
    assert.ok(Array.isArray(found) && found.length === expected.length, where);
    for (const [index, each] of expected.entries()) {
      compare(each, found[index], `${where}.${index}`);
    }
  } else if (typeof expected === "object" && expected !== null) {
    for (const [name, each] of Object.entries(expected)) {
      compare(each, (found as never)[camel(name)], `${where}.${name}`);
    }
  } else {
    const money = found as idpass.Money | null;
    const shown = money?.currency ? `${money.currency} ${money.amount}` : found;
    assert.equal(shown, expected, where);
  }
}

async function call(own: idpass.IdPassClient, step: Step, kept: Kept): Promise<unknown> {
  const given = filled(step.with ?? {}, kept) as Record<string, unknown>;
  const positional = (POSITIONAL[step.call] ?? []).map((name) => given[name]);
  const options = Object.fromEntries(
    Object.entries(given)
      .filter(([name]) => !POSITIONAL[step.call]?.includes(name))
      .map(([name, value]) => [camel(name), value]),
  );
  const method = own[(METHODS[step.call] ?? step.call) as "get"] as (...all: unknown[]) => unknown;
  const answer = method.call(own, ...positional, options);
  if (typeof answer === "object" && answer !== null && Symbol.asyncIterator in answer) {
    const items = answer as AsyncIterable<unknown>;
    return step.take ? first(step.take, items) : all(items);
  }
  return answer;
}

async function refuses(own: idpass.IdPassClient, step: Step, expected: Expected, kept: Kept) {
  const error = await call(own, step, kept).then(
    () => assert.fail(`${step.call} was not refused`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof idpass.IdPassError, String(error));
  if (expected.local) {
    assert.equal(error.name, "InvalidRequest");
    assert.match(error.message, /Nothing was sent/);
    assert.ok(error.message.includes(expected.says ?? ""), error.message);
    return;
  }
  assert.deepEqual(
    [error.name, error.code, error.reason],
    [expected.class, expected.code, expected.reason],
  );
  assert.equal(error.constructor, CLASSES.get(expected.class));
  assert.match(error.reference ?? "", /^[0-9a-f-]{36}$/);
  const { allowed, ...has } = filled(expected.has ?? {}, kept) as Record<string, unknown>;
  if (allowed) {
    const found = (error as idpass.TransitionNotAllowed).allowed;
    assert.deepEqual([...found].sort(), [...(allowed as string[])].sort());
  }
  compare(has, error, "error");
}

for (const { name, steps } of TABLE.scenarios) {
  test(name, async (t) => {
    const own = client(t, IDPASS_ADDRESS);
    const kept: Kept = new Map();
    for (const [index, step] of steps.entries()) {
      if (step.fails) {
        await refuses(own, step, step.fails, kept);
        continue;
      }
      const answer = await call(own, step, kept);
      if (step.as) {
        kept.set(step.as, answer);
      }
      if (step.gives !== undefined) {
        compare(filled(step.gives, kept), answer, `step ${index}, ${step.call}`);
      }
    }
  });
}
