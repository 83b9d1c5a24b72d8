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
  type Code,
  DailyQuotaExhausted,
  DeadlineExceeded,
  type IdPassError,
  NoFreeSlot,
  type OutcomeUnknown,
  Overloaded,
  Unavailable,
} from "./errors.js";
import { closedError, read, type Subject, type Target, TOO_LARGE, unknown } from "./failures.js";
import type { Failure } from "./reach.js";

const INITIAL_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 2_000;
const MULTIPLIER = 2;

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
  failed(failure: Failure, nowMs: number, closed: boolean): number {
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
  failed(failure: Failure, nowMs: number): number {
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

function settles(error: IdPassError): boolean {
  return (
    error instanceof NoFreeSlot || error instanceof DailyQuotaExhausted || SETTLING.has(error.code)
  );
}

function mayHaveBeenMade(error: IdPassError): boolean {
  if (error.reason !== null) {
    return error.metadata.outcome === "unknown";
  }
  return LOST.has(error.code) || error.message.startsWith(TOO_LARGE);
}

/**
 * Milliseconds to wait before another attempt; negative for no other.
 *
 * A delay that the server asks for is kept. After Overloaded a growing backoff comes on top: all
 * refused callers were given the same moment, and some would be refused again.
 */
function delayOf(error: IdPassError, failure: Failure, backoff: Backoff): number {
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
