/**
 * For receivers of webhooks: `verify`.
 *
 * The format is that of Standard Webhooks (https://www.standardwebhooks.com), so its own libraries
 * verify these requests as well; `verify` also reads the event. Receivers get an event at least once
 * and drop repetitions by `messageId`.
 */

import { createHmac, timingSafeEqual } from "node:crypto";

import * as json from "./json.js";
import type { Event, IdPass } from "./records.js";

export type { Cancellation, Event, IdPass, Money } from "./records.js";
export type { CancelReason, OrNewer, Status } from "./words.js";

/** Largest difference between the sender's clock and the receiver's, milliseconds. */
export const TOLERANCE_MS = 300_000;
const PREFIX = "whsec_";

/** The request was not signed with the secret, or is too old; answer it 400 or 401. */
export class WebhookVerificationError extends Error {
  override readonly name: string = "WebhookVerificationError";
}

/** A verified webhook. */
export interface WebhookEvent {
  /** The same for every attempt to deliver this event. */
  readonly messageId: string;
  /** "id_pass.registered", "id_pass.erased", "id_pass." and a status, "webhook.test", or newer. */
  readonly type: string;
  /** When the event took place. */
  readonly time: Date;
  /** The history that the event's sequence belongs to; another one after a restore. */
  readonly history: string;
  /** What happened; null for a type that is not about a pass. */
  readonly event: Event | null;
  /** The pass as it was when the request was sent; null likewise, or if it is gone. */
  readonly idPass: IdPass | null;
  /** All of it, as it came. */
  readonly data: Readonly<Record<string, unknown>>;
}

/** Those of Node's http, or of fetch. */
export type WebhookHeaders =
  | Headers
  | Readonly<Record<string, string | readonly string[] | undefined>>;

/**
 * Checks that a request comes from the service, and reads its event.
 *
 * @param body the request's body exactly as it came, not parsed and written again.
 * @param headers the request's headers, in any case.
 * @param secret that of the webhook, `whsec_…`; or several, of which one has to fit.
 * @param options.toleranceMs largest difference between the sender's clock and this machine's. It
 *     bounds how long a request that someone recorded can be sent again.
 * @throws WebhookVerificationError: the request is not to be trusted.
 * @throws TypeError: a secret is malformed, or the body is neither bytes nor text.
 */
export function verify(
  body: string | Uint8Array,
  headers: WebhookHeaders,
  secret: string | readonly string[],
  options: { readonly toleranceMs?: number } = {},
): WebhookEvent {
  if (typeof body !== "string" && !(body instanceof Uint8Array)) {
    throw new TypeError(`the body is ${typeof body}; pass it as it came, as bytes or text`);
  }
  const keys = (typeof secret === "string" ? [secret] : secret).map(keyOf);
  const [messageId, timestamp, signatures] = headersOf(headers);
  checkTime(timestamp, options.toleranceMs ?? TOLERANCE_MS);
  const given = signatures
    .split(/\s+/)
    .filter((part) => part.startsWith("v1,"))
    .map((part) => Buffer.from(part.slice(3)));
  let fits = false; // no early end: how long it takes tells nothing
  for (const key of keys) {
    const expected = Buffer.from(signature(key, messageId, timestamp, body));
    for (const each of given) {
      fits = (each.length === expected.length && timingSafeEqual(each, expected)) || fits;
    }
  }
  if (!fits) {
    throw new WebhookVerificationError(
      "no signature fits the body and the secret; is the body passed as it came, and the secret " +
        "that of this webhook?",
    );
  }
  return read(messageId, body);
}

/**
 * The value of the header `webhook-signature`, for tests of a receiver.
 *
 * @param timestamp the header `webhook-timestamp`, seconds since the epoch.
 * @throws TypeError: the secret is malformed.
 */
export function sign(
  body: string | Uint8Array,
  messageId: string,
  timestamp: number,
  secret: string,
): string {
  return `v1,${signature(keyOf(secret), messageId, String(timestamp), body)}`;
}

function signature(
  key: Buffer,
  messageId: string,
  timestamp: string,
  body: string | Uint8Array,
): string {
  const mac = createHmac("sha256", key).update(`${messageId}.${timestamp}.`).update(body);
  return mac.digest("base64");
}

function keyOf(secret: unknown): Buffer {
  const encoded =
    typeof secret === "string" && secret.startsWith(PREFIX) ? secret.slice(PREFIX.length) : "";
  const key = Buffer.from(encoded, "base64");
  if (key.length === 0 || key.toString("base64") !== encoded) {
    // Without the value: it is a secret.
    throw new TypeError(`the secret is not ${PREFIX} and base64, as the service showed it`);
  }
  return key;
}

function headersOf(headers: WebhookHeaders): [id: string, timestamp: string, signature: string] {
  const byName = new Map<string, string>();
  const entries = headers instanceof Headers ? headers.entries() : Object.entries(headers);
  for (const [name, value] of entries) {
    byName.set(name.toLowerCase(), Array.isArray(value) ? value.join(" ") : String(value ?? ""));
  }
  const one = (name: string): string => {
    const value = byName.get(name);
    if (!value) {
      throw new WebhookVerificationError(`the header ${name} is missing`);
    }
    return value;
  };
  return [one("webhook-id"), one("webhook-timestamp"), one("webhook-signature")];
}

function checkTime(timestamp: string, toleranceMs: number): void {
  if (!/^\d{1,15}$/.test(timestamp)) {
    throw new WebhookVerificationError("the header webhook-timestamp is not a number of seconds");
  }
  const ageMs = Date.now() - Number(timestamp) * 1000;
  if (!(Math.abs(ageMs) <= toleranceMs)) {
    const age = `${Math.round(Math.abs(ageMs) / 1000)} s ${ageMs > 0 ? "ago" : "from now"}`;
    throw new WebhookVerificationError(
      `the request was signed ${age}, and ${toleranceMs / 1000} s are allowed; it may be a ` +
        "replay, or a clock is wrong",
    );
  }
}

function read(messageId: string, body: string | Uint8Array): WebhookEvent {
  try {
    const decoded = typeof body === "string" ? body : UTF8.decode(body);
    const payload = json.fields(JSON.parse(decoded));
    const data = json.fields(payload.data);
    return {
      messageId,
      type: json.text(payload.type),
      time: json.time(payload.timestamp),
      history: json.text(data.history ?? ""),
      event: data.event === undefined ? null : json.event(data.event),
      idPass: data.id_pass === undefined ? null : json.idPass(data.id_pass),
      data,
    };
  } catch (cause) {
    throw new WebhookVerificationError(
      "the request is signed, but its body is not one that this version can read",
      { cause },
    );
  }
}

const UTF8 = new TextDecoder("utf-8", { fatal: true });
