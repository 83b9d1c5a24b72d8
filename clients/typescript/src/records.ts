/** What the client's methods return: plain objects, for JSON as they are. Times are in UTC. */

import type { IdPassError } from "./errors.js";
import type { CancelReason, OrNewer, Status } from "./words.js";

/** An amount in one currency. */
export interface Money {
  /** ISO 4217 code, such as "AUD". */
  readonly currency: string;
  /** In units of the currency, exact, with at least two decimals: "4.50". */
  readonly amount: string;
}

/** A pass has been cancelled, and its fee refunded or not. */
export interface Receipt {
  /** UUID of the pass. */
  readonly id: string;
  /** Always "cancelled". */
  readonly status: OrNewer<Status>;
  /** True if and only if the pass was new or opened. */
  readonly feeRefunded: boolean;
  /** The amount refunded, or null. */
  readonly refund: Money | null;
  /** The status before the cancellation. */
  readonly previousStatus: OrNewer<Status> | null;
  /** When the cancellation was decided. */
  readonly cancelTime: Date;
  /** UUID of the call that cancelled the pass; a replay has that of the first call. */
  readonly reference: string;
  /** True if this repeats the first answer: this call changed nothing. */
  readonly replayed: boolean;
  /** Gets the same answer again; "" if none was sent. */
  readonly requestId: string;
}

/** The result of one id given to `cancelMany`: either a receipt or an error. */
export type CancelResult = {
  /** The id as it was given. */
  readonly id: string;
  /** What this item was sent with. */
  readonly requestId: string;
} & (
  | { readonly receipt: Receipt; readonly error: null }
  | { readonly receipt: null; readonly error: IdPassError }
);

/** How a pass was cancelled. */
export interface Cancellation {
  readonly reason: OrNewer<CancelReason>;
  /** Free text of the caller. */
  readonly note: string;
  /** When the cancellation was decided. */
  readonly cancelTime: Date;
  /** Name of the caller that cancelled. */
  readonly caller: string;
}

/** One ID Pass. Null means not yet, or none. */
export interface IdPass {
  /** UUID in lower case. */
  readonly id: string;
  /** The account that owns the pass. */
  readonly account: string;
  readonly status: OrNewer<Status>;
  /** The fee for registering it. */
  readonly fee: Money;
  /** True if and only if the fee was refunded. */
  readonly feeRefunded: boolean;
  /** The business's own name for the applicant, or "". */
  readonly applicantReference: string;
  /** The pass that this one replaced. */
  readonly supersedes: string | null;
  /** The pass that replaced this one. */
  readonly supersededBy: string | null;
  readonly createTime: Date;
  /** When `status` last changed. */
  readonly updateTime: Date;
  /** When the link stops being valid. */
  readonly expireTime: Date;
  /** When the pass entered in_progress. */
  readonly consentTime: Date | null;
  /** When the pass became terminal. */
  readonly endTime: Date | null;
  /** Set if and only if the pass is cancelled. */
  readonly cancellation: Cancellation | null;
  /** Who brought the pass into its status; `sweeper` if the service itself expired it. */
  readonly caller: string;
}

/** A pass has been registered. */
export interface RegisterReceipt {
  /** The pass as it was when registered. */
  readonly idPass: IdPass;
  /** The cancellation of the pass that it replaces, or null. */
  readonly superseded: Receipt | null;
  /** UUID of the call that registered it; a replay has that of the first call. */
  readonly reference: string;
  /** True if this repeats the first answer: this call changed nothing. */
  readonly replayed: boolean;
  /** Gets the same answer again. */
  readonly requestId: string;
}

/** A pass has advanced. */
export interface AdvanceReceipt {
  /** The pass as it was right after the change. */
  readonly idPass: IdPass;
  /** UUID of the call that advanced it; a replay has that of the first call. */
  readonly reference: string;
  /** True if this repeats the first answer: this call changed nothing. */
  readonly replayed: boolean;
  /** Gets the same answer again. */
  readonly requestId: string;
}

/** The durable record of one change of status, or of an erasure. */
export interface Event {
  /** 1, 2, 3, … within the account, in commit order; larger after a backup was restored. */
  readonly sequence: number;
  /** UUID of the pass. */
  readonly id: string;
  /** Null if the pass was registered. */
  readonly fromStatus: OrNewer<Status> | null;
  readonly toStatus: OrNewer<Status>;
  /** When the change was decided. Order events by `sequence`: a clock may be set back. */
  readonly eventTime: Date;
  /** Who made the change; `sweeper` or `operator` if not a caller. */
  readonly caller: string;
  /** What the call that made the change was sent with, or "". */
  readonly requestId: string;
  /** The amount refunded, or null. */
  readonly refund: Money | null;
  /** Why the pass was cancelled; null for any other change. */
  readonly reason: OrNewer<CancelReason> | null;
  /** True if the operator erased the pass's `applicantReference` and note; no status changed. */
  readonly erased: boolean;
  /** UUID of the call that made the change; "" from a service that does not tell it yet. */
  readonly reference: string;
}

/** The tenant that owns the caller's passes. */
export interface Account {
  readonly id: string;
  /** How many passes may be in flight at once. */
  readonly slotLimit: number;
  /** How many passes are in flight. */
  readonly slotsInUse: number;
  /** The current fee for registering a pass. */
  readonly fee: Money;
  /** The sum of all fees charged. */
  readonly feesCharged: Money;
  /** The sum of all fees refunded. */
  readonly feesRefunded: Money;
  /** Sequence of the newest event: as `afterSequence` of `watch`, it means from now on. */
  readonly lastSequence: number;
  /** Id of the history that the events belong to; restoring a backup begins another. */
  readonly history: string;
  /** The smallest position after which no event is missing; 0 unless old passes were purged. */
  readonly oldestSequence: number;
}
