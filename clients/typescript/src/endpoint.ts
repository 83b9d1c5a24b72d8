/** The service's address and credentials. */

import { readFileSync } from "node:fs";
import { isIP } from "node:net";

import { ChannelCredentials, Metadata } from "@grpc/grpc-js";

import * as check from "./checks.js";
import { InvalidRequest } from "./errors.js";
import type { ClientOptions, Pem, Token } from "./options.js";
import { VERSION } from "./version.js";

const NO_METADATA = new Metadata();

/** Where the service is and how it is spoken to. All is checked when it is made. */
export class Endpoint {
  readonly address: string;
  readonly secure: boolean;
  readonly credentials: ChannelCredentials;
  readonly channelOptions: Readonly<Record<string, string | number>>;
  readonly #token: Token | undefined;

  constructor(address: string, given: ClientOptions) {
    const { tls = false, clientCertificate, token, allowPlaintext = false } = given;
    this.address = check.text("address", address, "HOST:PORT");
    check.flag("allowPlaintext", allowPlaintext);
    const local = isLoopback(address);
    this.secure = tls !== false || clientCertificate !== undefined;
    if (this.secure && allowPlaintext) {
      throw check.invalid("allowPlaintext", "contradicts tls and clientCertificate; give one.");
    }
    if (!this.secure && !local && !allowPlaintext) {
      throw check.invalid(
        "address",
        `${address} is not on this machine, and what is sent there could be read and changed on ` +
          "the way: give tls: true, or tls: 'ca.pem' for a private authority. If something else " +
          "protects the connection, give allowPlaintext: true.",
      );
    }
    if (token !== undefined && !this.secure && !local) {
      throw check.invalid(
        "token",
        `is not sent in plain text to ${address}, where others could read it: give tls: true.`,
      );
    }
    if (typeof token !== "function" && token !== undefined) {
      header(token);
    }
    this.#token = token;
    this.credentials = this.secure
      ? tlsCredentials(tls, clientCertificate)
      : ChannelCredentials.createInsecure();
    this.channelOptions = {
      // Detects dead connections; the service allows a ping every ten seconds.
      "grpc.keepalive_time_ms": 30_000,
      "grpc.keepalive_timeout_ms": 10_000,
      // Retries wait for a service that is restarting; gRPC's own backoff, up to two minutes, would
      // outlast them.
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1_000,
      // Closing a client closes its connection, whoever else has one to the same address.
      "grpc.use_local_subchannel_pool": 1,
      // A retry policy in DNS would retry what the reason forbids.
      "grpc.service_config_disable_resolution": 1,
      "grpc.enable_channelz": 0,
      "grpc.primary_user_agent": `idpass-client-node/${VERSION}`,
      // A proxy from the environment would see what is meant to stay on this machine.
      ...(local && !this.secure && { "grpc.enable_http_proxy": 0 }),
      ...check.options(given.channelOptions ?? {}, Object.keys(given.channelOptions ?? {})),
    };
  }

  /** The metadata of an attempt, made now. */
  metadata(): Metadata | Promise<Metadata> {
    const token = this.#token;
    if (token === undefined) {
      return NO_METADATA;
    }
    const now = typeof token === "function" ? token() : token;
    return typeof now === "string" ? withToken(now) : Promise.resolve(now).then(withToken);
  }
}

function withToken(token: string): Metadata {
  const metadata = new Metadata();
  metadata.set("authorization", header(token));
  return metadata;
}

/** The value of the header. No message contains the token: it is a secret. */
function header(token: unknown): string {
  if (typeof token !== "string") {
    const what = `is ${typeof token}; give text, or a function that returns text.`;
    throw check.invalid("token", what);
  }
  const stripped = token.trim();
  if (!/^[ -~]+$/.test(stripped)) {
    const what = stripped ? "has characters other than printable ASCII" : "is empty";
    throw check.invalid("token", `${what}, and cannot be sent in a header.`);
  }
  return `Bearer ${stripped}`;
}

function tlsCredentials(
  tls: boolean | Pem,
  client: ClientOptions["clientCertificate"],
): ChannelCredentials {
  const roots = typeof tls === "boolean" ? null : pem("tls", tls);
  const key = client ? pem("clientCertificate.key", client.key) : null;
  const chain = client ? pem("clientCertificate.certificate", client.certificate) : null;
  try {
    return ChannelCredentials.createSsl(roots, key, chain);
  } catch (cause) {
    const what = "tls and clientCertificate cannot be used";
    throw new InvalidRequest(`${what}: ${(cause as Error).message}. Nothing was sent.`, {
      code: "INVALID_ARGUMENT",
      cause,
    });
  }
}

function pem(field: string, source: Pem): Buffer {
  if (source instanceof Uint8Array) {
    return Buffer.from(source);
  }
  if (typeof source !== "string" && !(source instanceof URL)) {
    throw check.invalid(field, `is ${typeof source}; pass the path or the bytes of a PEM file.`);
  }
  try {
    return readFileSync(source);
  } catch (cause) {
    throw new InvalidRequest(`${field}: ${(cause as Error).message}. Nothing was sent.`, {
      code: "INVALID_ARGUMENT",
      violations: [{ field, description: "cannot be read" }],
      cause,
    });
  }
}

/** Whether a gRPC address is on this machine. */
export function isLoopback(address: string): boolean {
  const [, scheme = "", rest = ""] = /^([a-z][a-z0-9-]*):(.*)$/.exec(address) ?? [];
  if (scheme === "unix" && rest !== "") {
    return true;
  }
  if (scheme === "ipv4" || scheme === "ipv6") {
    return rest.split(",").every(isLoopbackHost);
  }
  if (scheme === "dns") {
    return isLoopbackHost(rest.slice(rest.lastIndexOf("/") + 1));
  }
  if (/^https?:\/\//.test(address)) {
    const tls = address.startsWith("https") ? " and tls: true" : "";
    throw check.invalid("address", `is a URL, ${address}; give HOST:PORT${tls}.`);
  }
  return isLoopbackHost(address);
}

function isLoopbackHost(text: string): boolean {
  const [, host = "", port = ""] = /^(\[[^\]]+\]|[^:/\s]+):(\d+)$/.exec(text) ?? [];
  if (host === "" || Number(port) > 65_535) {
    throw check.invalid(
      "address",
      `is ${JSON.stringify(text)}; give HOST:PORT, such as localhost:50051 or [::1]:50051.`,
    );
  }
  const bare = host.replace(/^\[|\]$/g, "");
  return bare === "localhost" || bare === "::1" || (isIP(bare) === 4 && bare.startsWith("127."));
}
