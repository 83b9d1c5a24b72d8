/** The words of the contract's enums, as callers write and read them. */

import type {
  CancelReason as PbReason,
  IdPassStatus as PbStatus,
} from "./gen/idpass/v1/id_pass_pb.js";

/** In the order of the contract's numbers, from 1 on. The last four are terminal. */
export const STATUSES = [
  "new",
  "opened",
  "in_progress",
  "complete",
  "expired",
  "failed",
  "cancelled",
] as const satisfies readonly Word<typeof PbStatus>[];

/** In the order of the contract's numbers, from 0 on. A reason never affects the refund. */
export const CANCEL_REASONS = [
  "unspecified",
  "abandoned",
  "superseded",
  "duplicate",
  "requested_by_applicant",
  "fraud_suspected",
  "other",
] as const satisfies readonly Word<typeof PbReason>[];

/** The status of a pass. */
export type Status = (typeof STATUSES)[number];

/** Why a pass is cancelled. For people and reports. */
export type CancelReason = (typeof CANCEL_REASONS)[number];

/**
 * What an answer can hold: one of the words, or what a newer service said, as its number or its
 * word. So reading an answer never fails.
 */
export type OrNewer<T extends string> = T | (string & Record<never, never>);

type Word<E> = Lowercase<Extract<keyof E, string>>;

export function statusNumber(word: Status): number {
  return STATUSES.indexOf(word) + 1;
}

export function reasonNumber(word: CancelReason): number {
  return CANCEL_REASONS.indexOf(word);
}

export function statusWord(number: number): OrNewer<Status> {
  return STATUSES[number - 1] ?? String(number);
}

export function statusOrNull(number: number): OrNewer<Status> | null {
  return number === 0 ? null : statusWord(number);
}

export function reasonWord(number: number): OrNewer<CancelReason> {
  return CANCEL_REASONS[number] ?? String(number);
}
