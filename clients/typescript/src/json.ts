/**
 * Events and passes in the JSON form that webhooks have: fields named as in the protos, enums as
 * lower-case words, times in RFC 3339, amounts as strings. What is not set is left out.
 */

import type { Event, IdPass, Money } from "./records.js";

/** Throws if something that always stands is missing or of another type. */
export function event(value: unknown): Event {
  const from = fields(value);
  const erased = from.erased === true;
  const toStatus = text(from.to_status);
  return {
    sequence: number(from.sequence),
    id: text(from.id_pass_id),
    fromStatus: textOrNull(from.from_status),
    toStatus,
    eventTime: time(from.event_time),
    caller: text(from.caller ?? ""),
    requestId: text(from.request_id ?? ""),
    refund: from.refund === undefined ? null : money(from.refund),
    reason: toStatus === "cancelled" && !erased ? text(from.reason ?? "unspecified") : null,
    erased,
    reference: text(from.reference ?? ""),
  };
}

/** As `event`. */
export function idPass(value: unknown): IdPass {
  const from = fields(value);
  const how = from.cancellation === undefined ? null : fields(from.cancellation);
  return {
    id: text(from.id),
    account: text(from.account),
    status: text(from.status),
    fee: money(from.fee),
    feeRefunded: from.fee_refunded === true,
    applicantReference: text(from.applicant_reference ?? ""),
    supersedes: textOrNull(from.supersedes),
    supersededBy: textOrNull(from.superseded_by),
    createTime: time(from.create_time),
    updateTime: time(from.update_time),
    expireTime: time(from.expire_time),
    consentTime: from.consent_time === undefined ? null : time(from.consent_time),
    endTime: from.end_time === undefined ? null : time(from.end_time),
    cancellation: how && {
      reason: text(how.reason ?? "unspecified"),
      note: text(how.note ?? ""),
      cancelTime: time(how.cancel_time),
      caller: text(how.caller ?? ""),
    },
    caller: text(from.caller ?? ""),
  };
}

export type Fields = Readonly<Record<string, unknown>>;

export function fields(value: unknown): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError("not an object");
  }
  return value as Fields;
}

export function text(value: unknown): string {
  if (typeof value !== "string") {
    throw new TypeError("not a text");
  }
  return value;
}

export function time(value: unknown): Date {
  const moment = new Date(text(value));
  if (Number.isNaN(moment.getTime())) {
    throw new TypeError("not a time");
  }
  return moment;
}

function textOrNull(value: unknown): string | null {
  return value === undefined ? null : text(value);
}

function number(value: unknown): number {
  if (typeof value !== "number") {
    throw new TypeError("not a number");
  }
  return value;
}

function money(value: unknown): Money {
  const from = fields(value);
  return { currency: text(from.currency), amount: text(from.amount) };
}
