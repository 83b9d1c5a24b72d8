// What the page's modules share, so that none needs to know another: who is selected, what is sent,
// and who wants to be told of what.

import { call } from "./api.js";

const listeners = new Map();

/** State of the page. Only sandbox.js and list.js set it. */
export const hub = {
  grpcAddress: "localhost:50051",
  sandbox: undefined, // whether the passes are mock
  account: undefined,
  pass: undefined, // the one in the inspector
};

/** Calls `listener` whenever something is told under this name. Returns how to leave. */
export function on(name, listener) {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(listener);
  return () => listeners.get(name).delete(listener);
}

export function tell(name, ...values) {
  for (const listener of listeners.get(name) ?? []) listener(...values);
}

/** The pass in the inspector, or undefined. */
export const selected = () => hub.pass;

export const requestId = () => `sandbox-${crypto.randomUUID()}`;

/** Sends requests at once. Resolves to their exchanges, in order, after everybody was told of them. */
export async function sendAll(requests, about = {}) {
  const exchanges = await Promise.all(requests.map(({ path, body, ...options }) => call(path, body, options)));
  tell("exchange", exchanges, about);
  return exchanges;
}

/** Sends one change. Resolves to its exchange. */
export async function send(path, body, about = {}) {
  const [exchange] = await sendAll([{ path, body }], about);
  return exchange;
}
