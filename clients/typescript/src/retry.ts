/**
 * Which failed attempts are retried, when, and what is thrown in the end. No I/O in here.
 *
 * gRPC's own retryPolicy is not used: it stops after five attempts however much time is left, and it
 * shows only the last attempt's error. A change whose first attempt got lost and whose second was
 * refused as Overloaded ("nothing was changed") may well have been made, and only code that saw both
 * can say so.
 *
 * Three outcomes are retried. UNAVAILABLE: no server could answer; backoff is exponential. A bare
 * CANCELLED, one without a reason of ours, is treated the same: a server sends it before it sees the
 * call, when it is overloaded, and when it hangs up. OVERLOADED, told by its reason because other
 * limits share its code: the server refuses and says when to come back.
 */

import type { Metadata } from "@grpc/grpc-js";

import {
  BadAnswer,
  type Code,
  DailyQuotaExhausted,
  DeadlineExceeded,
  IdPassError,
  NoFreeSlot,
  OutcomeUnknown,
  Overloaded,
  Unavailable,
} from "./errors.js";
import * as reach from "./reach.js";
import { codeOf, fromServiceError } from "./status.js";

const INITIAL_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 2_000;
const MULTIPLIER = 2;

const DROPPED =
  "The server dropped the call without an answer (CANCELLED): it is overloaded, or it was just " +
  "stopping.";
const REFUSED =
  "The server refused the call before it looked at it: too many are open. Nothing was changed.";
export const CLOSED = "The client was closed before the call was answered.";

/**
 * Refusals decided after the service has looked up the request id: it found no receipt, so no
 * earlier attempt made the change.
 */
const SETTLING: ReadonlySet<Code> = new Set<Code>([
  "INVALID_ARGUMENT",
  "NOT_FOUND",
  "FAILED_PRECONDITION",
  "ABORTED",
]);
/** Codes of an attempt whose request or answer got lost. */
const LOST: ReadonlySet<Code> = new Set<Code>([
  "UNAVAILABLE",
  "DEADLINE_EXCEEDED",
  "CANCELLED",
  "INTERNAL",
  "UNKNOWN",
]);

/** Where calls go, for messages. */
export interface Target {
  readonly address: string;
  readonly secure: boolean;
}

/** What the attempts of one call have in common. */
export interface Subject {
  /** Name of the rpc. */
  readonly name: string;
  /** Whether the call changes anything on the server. */
  readonly changes: boolean;
  readonly requestId: string | null;
}

/**
 * Stops retries while most attempts fail: gRFC A6, with room for more calls.
 *
 * Every failure takes a token, every success gives back a tenth; retries are made while more than
 * half of the tokens are left. One broken connection fails every call on it at once, which must not
 * use up the budget for a server in trouble: hence a thousand tokens. A call that was never sent, or
 * that a live server turned away, counts as neither: it costs that server nothing.
 */
export class Throttle {
  static readonly MAX_TOKENS = 1_000;
  static readonly RATIO = 0.1;
  #tokens = Throttle.MAX_TOKENS;

  succeeded(): void {
    this.#tokens = Math.min(this.#tokens + Throttle.RATIO, Throttle.MAX_TOKENS);
  }

  /** Whether there may be a retry. */
  failed(): boolean {
    this.#tokens = Math.max(this.#tokens - 1, 0);
    return this.#tokens > Throttle.MAX_TOKENS / 2;
  }
}

/** Exponential backoff with jitter: calls that failed together do not come back together. */
class Backoff {
  #nextMs = INITIAL_BACKOFF_MS;

  nextMs(): number {
    const delayMs = this.#nextMs * (0.5 + Math.random() / 2);
    this.#nextMs = Math.min(this.#nextMs * MULTIPLIER, MAX_BACKOFF_MS);
    return delayMs;
  }
}

/**
 * The attempts of one unary call, within one overall deadline. Made only after the first attempt has
 * failed, since most succeed. Times are monotonic, in milliseconds.
 */
export class Attempts {
  readonly #backoff = new Backoff();
  #deadlineMs: number;
  #maybeMade = false;
  #waitedFor: IdPassError | undefined;

  /**
   * @param timeoutMs for all attempts and the pauses between them.
   * @param startedMs time of the first attempt.
   * @param patient whether the timeout starts over after each delay that an overloaded server asks
   *     for, however many there are.
   */
  constructor(
    private readonly subject: Subject,
    private readonly target: Target,
    private readonly timeoutMs: number,
    startedMs: number,
    private readonly throttle: Throttle,
    private readonly patient: boolean,
  ) {
    this.#deadlineMs = startedMs + timeoutMs;
  }

  remainingMs(nowMs: number): number {
    return Math.max(this.#deadlineMs - nowMs, 0);
  }

  /**
   * Takes note of a failed attempt.
   *
   * @param closed whether the client has been closed, which cancels its calls.
   * @returns the milliseconds to wait before the next attempt.
   * @throws IdPassError: there is no next attempt.
   */
  failed(failure: reach.Failure, nowMs: number, closed: boolean): number {
    const { error, sent, free } = read(failure, this.subject, this.target, closed);
    if (this.subject.changes && sent && mayHaveBeenMade(error)) {
      this.#maybeMade = true;
    }
    if (error instanceof Unavailable) {
      if (error.code !== "DEADLINE_EXCEEDED") {
        this.#waitedFor = error; // one that found no connection in time says less
      }
      const mayRetry = !closed && (free || this.throttle.failed());
      const delayMs = delayOf(error, failure, this.#backoff);
      if (mayRetry && delayMs >= 0 && delayMs < this.remainingMs(nowMs)) {
        return delayMs;
      }
    } else if (error instanceof Overloaded && !closed) {
      this.#waitedFor = error;
      const delayMs = delayOf(error, failure, this.#backoff);
      if (this.patient && delayMs >= 0) {
        this.#deadlineMs = nowMs + delayMs + this.timeoutMs;
      }
      if (delayMs >= 0 && delayMs < this.remainingMs(nowMs)) {
        return delayMs;
      }
    } else if (settles(error)) {
      this.throttle.succeeded();
      throw error;
    }
    throw this.#final(error, closed);
  }

  /** The client was closed between two attempts. */
  gaveUp(): IdPassError {
    const last = this.#waitedFor ?? closedError(this.subject);
    return this.#maybeMade ? this.#unknown(last, true) : last;
  }

  /** What to throw if the next attempt could not be made: undefined for the error itself. */
  cutShort(error: IdPassError): IdPassError | undefined {
    return this.#maybeMade ? this.#unknown(error, false) : undefined;
  }

  #final(error: IdPassError, closed: boolean): IdPassError {
    if (this.#maybeMade) {
      return this.#unknown(error, closed);
    }
    if (error.code === "DEADLINE_EXCEEDED" && this.#waitedFor) {
      return this.#waitedFor; // says what the time was spent on
    }
    return error instanceof DeadlineExceeded && error.reason === null
      ? new DeadlineExceeded(`No answer came within ${Math.round(this.timeoutMs)} ms.`, error)
      : error;
  }

  #unknown(error: IdPassError, closed: boolean): OutcomeUnknown {
    const before =
      this.#waitedFor && this.#waitedFor !== error ? ` (before: ${this.#waitedFor.message})` : "";
    const last = `${error.code}: ${error.message}${before}`;
    return unknown(this.subject, last, error, closed ? " before the client was closed" : "");
  }
}

/** The error of a change that was sent and may have been made. */
export function unknown(
  { name, requestId }: Subject,
  last: string,
  facts: IdPassError,
  when = "",
): OutcomeUnknown {
  const again = requestId ? `Call again with requestId: "${requestId}"` : "Call again";
  return new OutcomeUnknown(
    `${name} got no answer${when} and may or may not have been carried out. ${again} to learn ` +
      `which. The last attempt: ${last}`,
    { ...factsOf(facts), requestId },
  );
}

/** When a broken stream is opened again. Times are monotonic, in milliseconds. */
export class Reconnects {
  #backoff = new Backoff();
  #giveUpMs: number;
  #connected = false;
  #wasOpen = false;

  /** @param patienceMs how long there may be no stream before that is an error. */
  constructor(
    private readonly patienceMs: number,
    nowMs: number,
    private readonly target: Target,
  ) {
    this.#giveUpMs = nowMs + patienceMs;
  }

  /** How long to go on without a stream. */
  remainingMs(nowMs: number): number {
    return Math.max(this.#giveUpMs - nowMs, 0);
  }

  connected(): void {
    if (!this.#connected) {
      this.#connected = true;
      this.#backoff = new Backoff();
    }
  }

  /**
   * As of Attempts. An overloaded server is waited for only once a stream has been open: a watcher
   * refused from the start learns of it at once, since there may be too many streams, and for long.
   */
  failed(failure: reach.Failure, nowMs: number): number {
    const { error } = read(failure, WATCH, this.target, false);
    const overloaded = error instanceof Overloaded;
    // The server begins its answer before it counts the streams: one that is refused as Overloaded
    // was connected, and never open.
    if (this.#connected && !overloaded) {
      this.#wasOpen = true;
      this.#giveUpMs = nowMs + this.patienceMs;
    }
    this.#connected = false;
    if (error instanceof Unavailable || (overloaded && this.#wasOpen)) {
      const delayMs = delayOf(error, failure, this.#backoff);
      if (delayMs >= 0 && delayMs < this.remainingMs(nowMs)) {
        return delayMs;
      }
    }
    throw error;
  }
}

const WATCH: Subject = { name: "WatchIdPasses", changes: false, requestId: null };

export function closedError({ requestId }: Pick<Subject, "requestId">): IdPassError {
  return new IdPassError(CLOSED, { code: "CANCELLED", requestId });
}

/** What a failed attempt means. */
interface Reading {
  readonly error: IdPassError;
  /** Whether it may have reached the service. */
  readonly sent: boolean;
  /** Whether a retry costs a server in trouble nothing. */
  readonly free: boolean;
}

function read(failure: reach.Failure, subject: Subject, target: Target, closed: boolean): Reading {
  const { requestId } = subject;
  const cause = failure.error;
  const code = codeOf(cause.code);
  if (closed && code === "CANCELLED") {
    return { error: new IdPassError(CLOSED, { code, requestId, cause }), sent: true, free: false };
  }
  if (reach.refused(failure)) {
    const error = new Unavailable(REFUSED, { code, requestId, cause });
    return { error, sent: false, free: true };
  }
  if (reach.neverSent(failure)) {
    const message = reach.explained(target.address, cause, target.secure);
    const error = new Unavailable(message, { code, requestId, cause });
    return { error, sent: false, free: true };
  }
  const error = fromServiceError(cause, requestId);
  if (error.reason !== null) {
    return { error, sent: true, free: false };
  }
  const free = code === "CANCELLED";
  return { error: withHelp(error, failure, subject, target), sent: true, free };
}

/** An error that is not from the service itself: from grpc-js here, or from a proxy on the way. */
function withHelp(
  error: IdPassError,
  failure: reach.Failure,
  { name }: Subject,
  { address }: Target,
): IdPassError {
  const said = failure.error.details;
  const facts = factsOf(error);
  const type = reach.foreign(failure);
  const bad = (message: string, code = error.code) => new BadAnswer(message, { ...facts, code });
  if (type !== undefined) {
    const message =
      `What answers at ${address} is not the service: it sent ${type}, not gRPC (${said}). ` +
      "Is there a proxy in between, or is this the address of another server?";
    // Unless grpc-js went by the HTTP status, its code is that of what it could not read.
    return /HTTP status/.test(said) && !SENSELESS.has(error.code)
      ? alike(error, message, facts)
      : bad(message, "UNKNOWN");
  }
  if (said === "No message received") {
    return bad(`What answers at ${address} gave no answer that ${name} has: ${said}.`, "INTERNAL");
  }
  if (/^Received message larger than max/.test(said)) {
    const help = "give the channel option grpc.max_receive_message_length a larger number";
    return alike(error, `The answer is too large: ${help}. It said: ${said}`, facts);
  }
  switch (error.code) {
    case "CANCELLED": {
      const more = /^(|CANCELLED|Call cancelled)$/.test(said) ? "" : ` It said: ${said}`;
      return new Unavailable(DROPPED + more, facts);
    }
    case "UNIMPLEMENTED": {
      const older = "the service is older than this client, or the address is that of another";
      return alike(error, `Nothing there knows ${name}: ${older}. It said: ${said}`, facts);
    }
    case "UNAVAILABLE":
      return reach.unanswered(failure)
        ? alike(error, `The connection to ${address} broke in mid-call (${said}).`, facts)
        : error;
    case "UNKNOWN":
    case "INTERNAL":
      return bad(`What answers at ${address} ended ${name} without a reason (${said}).`);
    default:
      return error;
  }
}

const SENSELESS: ReadonlySet<Code> = new Set<Code>(["UNKNOWN", "INTERNAL"]);

function alike(
  error: IdPassError,
  message: string,
  facts: ReturnType<typeof factsOf>,
): IdPassError {
  const Kind = error.constructor as new (message: string, facts: object) => IdPassError;
  return new Kind(message, facts);
}

/** All that an error says but its message. */
export function factsOf(error: IdPassError) {
  const { code, reason, metadata, reference, requestId, violations, retryAfterMs, cause } = error;
  return { code, reason, metadata, reference, requestId, violations, retryAfterMs, cause };
}

function settles(error: IdPassError): boolean {
  return (
    error instanceof NoFreeSlot || error instanceof DailyQuotaExhausted || SETTLING.has(error.code)
  );
}

function mayHaveBeenMade(error: IdPassError): boolean {
  return error.reason === null ? LOST.has(error.code) : error.metadata.outcome === "unknown";
}

/**
 * Milliseconds to wait before another attempt; negative for no other.
 *
 * A delay that the server asks for is kept. After Overloaded a growing backoff comes on top: all
 * refused callers were given the same moment, and some would be refused again.
 */
function delayOf(error: IdPassError, failure: reach.Failure, backoff: Backoff): number {
  const pushbackMs = pushbackOf(failure.error.metadata);
  if (!(error instanceof Overloaded)) {
    return pushbackMs ?? backoff.nextMs();
  }
  const askedMs = pushbackMs ?? error.retryAfterMs;
  return askedMs === null || askedMs < 0 ? -1 : askedMs + backoff.nextMs();
}

/** Milliseconds after which the server allows a retry; negative for never (gRFC A6). */
function pushbackOf(metadata: Metadata | undefined): number | null {
  const [value] = metadata?.get("grpc-retry-pushback-ms") ?? [];
  if (value === undefined) {
    return null;
  }
  return /^\d+$/.test(String(value)) ? Number(value) : -1;
}
