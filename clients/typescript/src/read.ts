/** Turns messages into records. What a server leaves out reads as empty, as protobuf has it. */

import type { Timestamp } from "@bufbuild/protobuf/wkt";

import type { Money as PbMoney } from "./gen/google/type/money_pb.js";
import type * as pb from "./gen/idpass/v1/id_pass_pb.js";
import type { CancelResponse } from "./gen/idpass/v1/id_pass_service_pb.js";
import type { Account, Event, IdPass, Money, Receipt } from "./records.js";
import { reasonWord, statusOrNull, statusWord } from "./words.js";

const CANCELLED = 7;

export function time(timestamp: Timestamp | undefined): Date {
  return timestamp
    ? new Date(Number(timestamp.seconds) * 1000 + Math.floor(timestamp.nanos / 1e6))
    : new Date(0);
}

function timeOrNull(timestamp: Timestamp | undefined): Date | null {
  return timestamp ? time(timestamp) : null;
}

export function money(message: PbMoney | undefined): Money {
  if (!message) {
    return { currency: "", amount: "0.00" };
  }
  const { currencyCode, units, nanos } = message;
  const sign = units < 0n || nanos < 0 ? "-" : "";
  const decimals = String(Math.abs(nanos))
    .padStart(9, "0")
    .replace(/0{1,7}$/, "");
  return { currency: currencyCode, amount: `${sign}${units < 0n ? -units : units}.${decimals}` };
}

function moneyOrNull(message: PbMoney | undefined): Money | null {
  return message ? money(message) : null;
}

export function receipt(message: CancelResponse, id: string, requestId: string): Receipt {
  return {
    id,
    status: statusWord(message.status),
    feeRefunded: message.feeRefunded,
    refund: moneyOrNull(message.refund),
    previousStatus: statusOrNull(message.previousStatus),
    cancelTime: time(message.cancelTime),
    reference: message.reference,
    replayed: message.replayed,
    requestId,
  };
}

export function idPass(message: pb.IdPass): IdPass {
  const how = message.cancellation;
  return {
    id: message.id,
    account: message.account,
    status: statusWord(message.status),
    fee: money(message.fee),
    feeRefunded: message.feeRefunded,
    applicantReference: message.applicantReference,
    supersedes: message.supersedes || null,
    supersededBy: message.supersededBy || null,
    createTime: time(message.createTime),
    updateTime: time(message.updateTime),
    expireTime: time(message.expireTime),
    consentTime: timeOrNull(message.consentTime),
    endTime: timeOrNull(message.endTime),
    cancellation: how
      ? {
          reason: reasonWord(how.reason),
          note: how.note,
          cancelTime: time(how.cancelTime),
          caller: how.caller,
        }
      : null,
    caller: message.caller,
  };
}

export function event(message: pb.IdPassEvent): Event {
  const cancelled = message.toStatus === CANCELLED && !message.erased;
  return {
    sequence: Number(message.sequence),
    id: message.idPassId,
    fromStatus: statusOrNull(message.fromStatus),
    toStatus: statusWord(message.toStatus),
    eventTime: time(message.eventTime),
    caller: message.caller,
    requestId: message.requestId,
    refund: moneyOrNull(message.refund),
    reason: cancelled ? reasonWord(message.reason) : null,
    erased: message.erased,
    reference: message.reference,
  };
}

export function account(message: pb.Account): Account {
  return {
    id: message.id,
    slotLimit: message.slotLimit,
    slotsInUse: message.slotsInUse,
    fee: money(message.fee),
    feesCharged: money(message.feesCharged),
    feesRefunded: money(message.feesRefunded),
    lastSequence: Number(message.lastSequence),
    history: message.history,
    oldestSequence: Number(message.oldestSequence),
  };
}
