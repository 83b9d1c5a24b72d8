/** What one failed attempt was: the error it amounts to, and whether it was sent. No I/O in here. */

import { BadAnswer, type Code, IdPassError, OutcomeUnknown, Unavailable } from "./errors.js";
import * as reach from "./reach.js";
import { codeOf, fromServiceError } from "./status.js";

const DROPPED =
  "The server dropped the call without an answer (CANCELLED): it is overloaded, or it was just " +
  "stopping.";
const REFUSED =
  "The server refused the call before it looked at it: too many are open. Nothing was changed.";
/** How the message begins for an answer that came and was not taken. */
export const TOO_LARGE =
  "The answer is too large: give the channel option grpc.max_receive_message_length a larger number.";
const CLOSED = "The client was closed before the call was answered.";

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

export function closedError({ requestId }: Pick<Subject, "requestId">): IdPassError {
  return new IdPassError(CLOSED, { code: "CANCELLED", requestId });
}

/** What a failed attempt means. */
export interface Reading {
  readonly error: IdPassError;
  /** Whether it may have reached the service. */
  readonly sent: boolean;
  /** Whether a retry costs a server in trouble nothing. */
  readonly free: boolean;
}

export function read(
  failure: reach.Failure,
  subject: Subject,
  target: Target,
  closed: boolean,
): Reading {
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
    return alike(error, `${TOO_LARGE} It said: ${said}`, facts);
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
