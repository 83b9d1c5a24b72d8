/** What each method can be asked with. */

import type { CancelReason, Status } from "./words.js";

/** A PEM file's path, or its bytes. */
export type Pem = string | URL | Uint8Array;

/** A bearer token, or a function that returns it, called for every attempt. */
export type Token = string | (() => string | Promise<string>);

/** Of the constructor. */
export interface ClientOptions {
  /** True to trust the authorities that Node trusts; a PEM file to trust those in it. */
  readonly tls?: boolean | Pem | undefined;
  /** PEM certificate chain and private key for mutual TLS. */
  readonly clientCertificate?: { readonly certificate: Pem; readonly key: Pem } | undefined;
  readonly token?: Token | undefined;
  /** Time limit of a call with all its attempts and the pauses between, milliseconds; 5,000. */
  readonly timeoutMs?: number | undefined;
  /** Allow plain text to other machines, where something else protects the connection. */
  readonly allowPlaintext?: boolean | undefined;
  /** Channel options of grpc-js, such as { "grpc.max_receive_message_length": 8_000_000 }. */
  readonly channelOptions?: Readonly<Record<string, string | number>> | undefined;
}

/** Of every call. */
export interface CallOptions {
  /** Overall time limit, milliseconds; the client's if not given. */
  readonly timeoutMs?: number | undefined;
  /**
   * Gives the call up: it is rejected with the signal's reason. A change that was under way may
   * have been made; whoever has to know gives a `requestId` and calls again with it.
   */
  readonly signal?: AbortSignal | undefined;
}

/** Of every call that changes something. */
export interface ChangeOptions extends CallOptions {
  /**
   * 1 to 128 visible ASCII characters; the same one with the same arguments gets the first answer
   * again, for as long as the pass exists. Generated if not given.
   */
  readonly requestId?: string | undefined;
}

/** How passes are cancelled. */
interface HowToCancel {
  /** Never affects the refund. */
  readonly reason?: CancelReason | undefined;
  /** Free text, up to 500 characters, kept with the pass. */
  readonly note?: string | undefined;
  /** Cancel only if the pass is in this status. */
  readonly expectedStatus?: Status | undefined;
  /** Cancel only if the fee is refunded. */
  readonly requireRefund?: boolean | undefined;
}

export interface CancelOptions extends ChangeOptions, HowToCancel {
  /** Make every check and answer as usual, but change nothing. */
  readonly validateOnly?: boolean | undefined;
}

export interface CancelManyOptions extends CallOptions, HowToCancel {
  /** Ids per batch, 1 to 1,000; 500. */
  readonly batchSize?: number | undefined;
  /** Batches under way at once, 1 to 100; 2. */
  readonly inFlight?: number | undefined;
}

export interface RegisterOptions extends ChangeOptions {
  /** Days until the link expires, 1 to 14; 0 means 7. */
  readonly linkValidityDays?: number | undefined;
  /** The business's own name for the applicant, up to 128 characters. */
  readonly applicantReference?: string | undefined;
  /** UUID of a pass in flight that the new one replaces, in the same transaction. */
  readonly supersedes?: string | undefined;
}

export interface AdvanceOptions extends ChangeOptions {
  /** Advance only if the pass is in this status. */
  readonly expectedStatus?: Status | undefined;
}

export interface ListOptions extends CallOptions {
  /** Only passes in one of these statuses, up to 50 entries; empty means any. */
  readonly statuses?: Iterable<Status> | undefined;
  /** Only passes whose status has not changed since. */
  readonly idleBefore?: Date | undefined;
  /** The same, counted back from now, milliseconds. */
  readonly idleForMs?: number | undefined;
  /** Only passes with exactly this one. */
  readonly applicantReference?: string | undefined;
}

export interface WatchOptions {
  /** Only this pass's events, ending after the one that made it terminal. */
  readonly id?: string | undefined;
  /** Sequence of the last event already seen; 0, the default, means from the beginning. */
  readonly afterSequence?: number | undefined;
  /** `account().history` when that event was seen: tells positions of another database apart. */
  readonly history?: string | undefined;
  /** How long there may be no stream before an error is thrown, milliseconds; 60,000. */
  readonly reconnectForMs?: number | undefined;
  /** Ends the iteration with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}
