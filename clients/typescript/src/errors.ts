/**
 * What the client throws.
 *
 *     IdPassError                   every error of a call
 *     ├── InvalidRequest            an argument is missing or malformed
 *     │   └── RequestIdReused       the request id was used with different content
 *     ├── Unauthenticated           missing or unknown credentials
 *     ├── PermissionDenied          the credentials do not permit this
 *     │   └── AccountDisabled       nothing of the account can be changed
 *     ├── NotFound                  the account has no such pass or webhook
 *     ├── FailedPrecondition        the state of the pass, the server or the history forbids it
 *     │   ├── PassEnded             its status can no longer change
 *     │   │   ├── AlreadyCancelled  with the outcome of the cancellation
 *     │   │   ├── Complete
 *     │   │   ├── Expired
 *     │   │   └── Failed
 *     │   ├── TransitionNotAllowed  its status does not lead to the requested one
 *     │   ├── RefundNotAvailable    requireRefund was set and no refund is due
 *     │   ├── HistoryLost           the database was restored or purged: events may be missing
 *     │   └── WebhooksDisabled      the server sends no webhooks
 *     ├── Aborted                   something changed meanwhile
 *     │   └── PassChanged           the pass is not in expectedStatus
 *     ├── ResourceExhausted         a limit is reached
 *     │   ├── NoFreeSlot            the account's slots are all in use
 *     │   ├── DailyQuotaExhausted   the account has registered as many passes today as it may
 *     │   ├── TooManyWebhooks       the account has as many webhooks as it may
 *     │   └── Overloaded            the server is too busy, or the caller too fast
 *     ├── Unavailable               no server answered; nothing was changed
 *     ├── DeadlineExceeded          a call that changes nothing ran out of time
 *     ├── OutcomeUnknown            the change may or may not have been made: ask again
 *     ├── BadAnswer                 what came is no answer of the service: a proxy's page, or garbled
 *     ├── Unimplemented             the service is too old for the method, or is another one
 *     └── Internal                  a bug in the service
 *
 * The class follows from the reason. A reason that this version does not know falls back to the
 * class of the status code. Messages are for people and may change.
 */

import { CANCEL_REASONS, type CancelReason, STATUSES, type Status } from "./words.js";

/** The codes of gRPC, by their numbers. */
export const CODES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const;

/** A gRPC status code. */
export type Code = (typeof CODES)[number];

/** What is wrong with one argument, or one field of a request. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** What an error is made from. */
export interface ErrorFacts {
  readonly code?: Code | undefined;
  readonly reason?: string | null | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  readonly reference?: string | null | undefined;
  readonly requestId?: string | null | undefined;
  readonly violations?: readonly Violation[] | undefined;
  readonly retryAfterMs?: number | null | undefined;
  readonly cause?: unknown;
}

/** A call was refused or failed. Its `cause` is what gRPC said, if it said anything. */
export class IdPassError extends Error {
  override readonly name: string = "IdPassError";
  /** gRPC status code. */
  readonly code: Code;
  /** A name of the contract's ErrorReason; null if the error is not from the service itself. */
  readonly reason: string | null;
  /** The facts that belong to the reason. */
  readonly metadata: Readonly<Record<string, string>>;
  /** UUID of the call, to be quoted in a report; null if no server answered. */
  readonly reference: string | null;
  /** What a changing call was sent with, given or generated: calling again with it is safe. */
  readonly requestId: string | null;
  /** All that is wrong with an invalid request, up to 20. */
  readonly violations: readonly Violation[];
  /** Delay after which the server asks to be called again, milliseconds, or null. */
  readonly retryAfterMs: number | null;

  constructor(message: string, facts: ErrorFacts = {}) {
    const where = facts.reference ? ` (reference ${facts.reference})` : "";
    super(message + where, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.code = facts.code ?? "UNKNOWN";
    this.reason = facts.reason ?? null;
    this.metadata = facts.metadata ?? {};
    this.reference = facts.reference ?? null;
    this.requestId = facts.requestId ?? null;
    this.violations = facts.violations ?? [];
    this.retryAfterMs = facts.retryAfterMs ?? null;
  }

  /** The status of the pass, if the error says so. */
  get status(): Status | null {
    return status(this.metadata.status);
  }
}

/** An argument is missing or malformed; see `violations`. Nothing was changed. */
export class InvalidRequest extends IdPassError {
  override readonly name: string = "InvalidRequest";
}

/** The request id was used before with different content. */
export class RequestIdReused extends InvalidRequest {
  override readonly name: string = "RequestIdReused";
}

/** The credentials are missing or unknown. */
export class Unauthenticated extends IdPassError {
  override readonly name: string = "Unauthenticated";
}

/** The caller is known but not permitted to do this. */
export class PermissionDenied extends IdPassError {
  override readonly name: string = "PermissionDenied";

  /** The permission that the caller lacks. */
  get permission(): string | null {
    return this.metadata.permission ?? null;
  }
}

/** The service's operator has disabled the account: it can be read, not changed. */
export class AccountDisabled extends PermissionDenied {
  override readonly name: string = "AccountDisabled";
}

/** The caller's account has no such pass, or no such webhook. */
export class NotFound extends IdPassError {
  override readonly name: string = "NotFound";
}

/** The state of the pass, of the server, or of the database's history does not allow it. */
export class FailedPrecondition extends IdPassError {
  override readonly name: string = "FailedPrecondition";
}

/** The pass is terminal: its status can no longer change. */
export class PassEnded extends FailedPrecondition {
  override readonly name: string = "PassEnded";

  /** When the pass ended. */
  get endTime(): Date | null {
    return time(this.metadata.endTime);
  }
}

/** The pass was already cancelled, with the outcome given here. */
export class AlreadyCancelled extends PassEnded {
  override readonly name: string = "AlreadyCancelled";

  /** Whether that cancellation refunded the fee. */
  get feeRefunded(): boolean {
    return this.metadata.feeRefunded === "true";
  }

  /** When that cancellation was decided. */
  get cancelTime(): Date | null {
    return time(this.metadata.cancelTime);
  }

  /** The reason of that cancellation. */
  get cancelReason(): CancelReason {
    return CANCEL_REASONS.find((word) => word === this.metadata.reason) ?? "unspecified";
  }

  /** The pass that replaced it, if any. */
  get supersededBy(): string | null {
    return this.metadata.supersededBy || null;
  }
}

/** The verification is complete. */
export class Complete extends PassEnded {
  override readonly name: string = "Complete";
}

/** The link has expired. */
export class Expired extends PassEnded {
  override readonly name: string = "Expired";
}

/** The pass's status is `failed`: its verification failed. */
export class Failed extends PassEnded {
  override readonly name: string = "Failed";
}

/** The pass is in flight, but its status does not lead to the requested one. */
export class TransitionNotAllowed extends FailedPrecondition {
  override readonly name: string = "TransitionNotAllowed";

  /** The statuses that its status leads to. */
  get allowed(): readonly Status[] {
    return (this.metadata.allowed ?? "")
      .split(",")
      .map(status)
      .filter((word) => word !== null);
  }
}

/** `requireRefund` was set and no fee would be refunded. Nothing was changed. */
export class RefundNotAvailable extends FailedPrecondition {
  override readonly name: string = "RefundNotAvailable";
}

/**
 * A watch's position, or a list's page, is from a history that is no longer there.
 *
 * The database was restored from an older backup, or old passes were purged. Events may be missing,
 * and events that were seen may be undone. Call `account()`, then `listPasses()` to learn where the
 * passes stand, and watch on after that account's `lastSequence`.
 */
export class HistoryLost extends FailedPrecondition {
  override readonly name: string = "HistoryLost";

  /** Id of the history that is there. */
  get history(): string | null {
    return this.metadata.history ?? null;
  }

  /** The position that was asked for; null for a page of a list. */
  get afterSequence(): number | null {
    return integer(this.metadata.afterSequence);
  }

  /** The smallest position after which no event is missing; null for a page of a list. */
  get oldestSequence(): number | null {
    return integer(this.metadata.oldestSequence);
  }
}

/** The server sends no webhooks: it has no key to sign them with. */
export class WebhooksDisabled extends FailedPrecondition {
  override readonly name: string = "WebhooksDisabled";
}

/** Something changed meanwhile; read and decide again. */
export class Aborted extends IdPassError {
  override readonly name: string = "Aborted";
}

/** The pass is not in `expectedStatus` but in `status`. Nothing was changed. */
export class PassChanged extends Aborted {
  override readonly name: string = "PassChanged";
}

/** A limit is reached. */
export class ResourceExhausted extends IdPassError {
  override readonly name: string = "ResourceExhausted";
}

/** Every slot of the account is in use. */
export class NoFreeSlot extends ResourceExhausted {
  override readonly name: string = "NoFreeSlot";

  /** How many slots the account has. */
  get slotLimit(): number | null {
    return integer(this.metadata.slotLimit);
  }
}

/** The account has registered as many passes today as it may. Nothing was changed. */
export class DailyQuotaExhausted extends ResourceExhausted {
  override readonly name: string = "DailyQuotaExhausted";

  /** How many it may. */
  get registrationsPerDay(): number | null {
    return integer(this.metadata.registrationsPerDay);
  }

  /** When the next day begins. */
  get resetTime(): Date | null {
    return time(this.metadata.resetTime);
  }
}

/** The account has as many webhooks as it may. */
export class TooManyWebhooks extends ResourceExhausted {
  override readonly name: string = "TooManyWebhooks";

  /** How many it may have. */
  get webhookLimit(): number | null {
    return integer(this.metadata.webhookLimit);
  }
}

/**
 * The server is overloaded, or this caller exceeds its rate; nothing was changed.
 *
 * The call was retried as often as its time allowed; `retryAfterMs` is more than was left.
 */
export class Overloaded extends ResourceExhausted {
  override readonly name: string = "Overloaded";
}

/** No server answered in time. A call that would change something did not. */
export class Unavailable extends IdPassError {
  override readonly name: string = "Unavailable";
}

/** A call that changes nothing ran out of time. */
export class DeadlineExceeded extends IdPassError {
  override readonly name: string = "DeadlineExceeded";
}

/**
 * The change may or may not have been made, and no answer came in time.
 *
 * Calling again with `requestId` and the same arguments settles it: the change is made, or the
 * first answer is given again if it was made already.
 */
export class OutcomeUnknown extends IdPassError {
  override readonly name: string = "OutcomeUnknown";
}

/**
 * What came is no answer of the service: it is garbled, or from something in between.
 *
 * After a change OutcomeUnknown is thrown instead, since the service may have made it.
 */
export class BadAnswer extends IdPassError {
  override readonly name: string = "BadAnswer";
}

/** Nothing there knows the method: an older service than the client, or another one. */
export class Unimplemented extends IdPassError {
  override readonly name: string = "Unimplemented";
}

/** A bug in the service; report it with `reference`. */
export class Internal extends IdPassError {
  override readonly name: string = "Internal";
}

function status(word: string | undefined): Status | null {
  return STATUSES.find((known) => known === word) ?? null;
}

function integer(text: string | undefined): number | null {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : null;
}

function time(text: string | undefined): Date | null {
  const moment = new Date(text ?? "");
  return Number.isNaN(moment.getTime()) ? null : moment;
}
