/** Whether a call left this machine, who answered it, and what to do about it. No I/O in here. */

import { status as Grpc, type Metadata, type ServiceError } from "@grpc/grpc-js";

/** A call that ended with an error. */
export interface Failure {
  readonly error: ServiceError;
  /** What the answer began with, if it began. */
  readonly headers: Metadata | undefined;
}

// How grpc-js describes a call that was not given to any connection. Only the words tell: no code or
// field does. A server that used the same words would also send metadata.
const NEVER_SENT = /^(No connection established|Name resolution failed|Channel closed before call)/;
const STILL_WAITING =
  /^Deadline exceeded after .*(Waiting for LB pick|waiting for (name|metadata))/;

const HINTS_PLAIN: readonly Hint[] = [
  [
    /Protocol error|Parse Error|HTTP\/1/,
    "Something that speaks HTTP/1 answers there, or TLS: give the address of gRPC, and tls if it is protected.",
  ],
  [
    /ECONNRESET|Failed to connect|[Ss]ocket closed|hang up|before starting/,
    "If the service speaks TLS, give tls: true, or tls: 'ca.pem' for a private authority.",
  ],
];
const HINTS_TLS: readonly Hint[] = [
  [
    /wrong version number|packet length too long|SSL23/i,
    "The service seems to speak plain text: leave tls out.",
  ],
  [
    /altnames|does not match certificate/,
    "The service's certificate is for another name: use that name.",
  ],
  [
    /alert/,
    "The service refuses this side's certificate, or its want: give clientCertificate, from an " +
      "authority that the service trusts.",
  ],
  [
    /certificate|self.signed/,
    "The service's certificate has expired, or comes from an authority that is not trusted here: " +
      "give that authority's PEM file as tls: 'ca.pem'.",
  ],
  [
    /ECONNRESET|Failed to connect|[Ss]ocket closed|disconnected|hang up|before starting/,
    "If the service asks for a certificate, give clientCertificate; if it speaks plain text, " +
      "leave tls out.",
  ],
];
const HINTS_ALWAYS: readonly Hint[] = [
  [/ECONNREFUSED|ENOENT/, "Is the service running, and is this its address?"],
  [/ENOTFOUND|EAI_AGAIN|Name resolution/, "Is the name right?"],
];

type Hint = readonly [RegExp, string];

/** Whether a call failed before it was given to a connection. False if in doubt. */
export function neverSent(failure: Failure): boolean {
  const { error } = failure;
  const words =
    error.code === Grpc.UNAVAILABLE
      ? NEVER_SENT
      : error.code === Grpc.DEADLINE_EXCEEDED
        ? STILL_WAITING
        : undefined;
  return words !== undefined && unanswered(failure) && words.test(error.details);
}

/** Whether the server refused the call's stream unseen (REFUSED_STREAM, RFC 9113 section 8.7). */
export function refused(failure: Failure): boolean {
  const { error } = failure;
  return (
    error.code === Grpc.UNAVAILABLE &&
    unanswered(failure) &&
    error.details === "Stream refused by server"
  );
}

/** Whether no byte of an answer came. */
export function unanswered({ error, headers }: Failure): boolean {
  return headers === undefined && Object.keys(error.metadata?.getMap() ?? {}).length === 0;
}

/** The media type of an answer that is not gRPC's: a proxy, or another server. */
export function foreign({ error, headers }: Failure): string | undefined {
  const metadata = headers ?? error.metadata;
  return isForeign(metadata) ? String(metadata.get("content-type")[0]) : undefined;
}

export function isForeign(metadata: Metadata | undefined): boolean {
  const [type] = metadata?.get("content-type") ?? [];
  return type !== undefined && !String(type).startsWith("application/grpc");
}

/** The message for a call that was never sent. */
export function explained(address: string, error: ServiceError, secure: boolean): string {
  const why = error.details;
  const last =
    error.code === Grpc.DEADLINE_EXCEEDED
      ? "connecting took too long"
      : why.replace(/^.*?Last error: /, "").replace(/\. Resolution note: .*$/s, "");
  const text = `Nothing was sent: there is no connection to ${address} (${withoutTime(last)}).`;
  for (const [signs, hint] of [...(secure ? HINTS_TLS : HINTS_PLAIN), ...HINTS_ALWAYS]) {
    if (signs.test(why)) {
      return `${text} ${hint}`;
    }
  }
  return text;
}

function withoutTime(text: string): string {
  return text
    .replace(/^Error: /, "")
    .replace(/ \(\d{4}-\d\d-\d\dT[\d:.]+Z\)$/, "")
    .trim();
}
