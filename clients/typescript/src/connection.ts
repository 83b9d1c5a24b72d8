/** The calls themselves: one attempt, one stream, one pause, over a channel made at the first call. */

import { Client, status as Grpc, type Metadata } from "@grpc/grpc-js";

import type { Endpoint } from "./endpoint.js";
import { IdPassError, Unauthenticated, Unavailable } from "./errors.js";
import { closedError } from "./failures.js";
import { type Failure, neverSent } from "./reach.js";
import type { Call } from "./requests.js";

/** How long a channel may try to connect before it is replaced: grpc-js sets no limit. */
const CONNECT_MS = 5_000;

/** Something that closing the client ends. */
interface Open {
  cancel(): void;
}

/** An attempt that failed. */
export class Failed implements Failure {
  constructor(
    readonly error: Failure["error"],
    readonly headers: Failure["headers"],
  ) {}
}

/** A stream that has begun. */
export interface Stream {
  readonly answers: AsyncIterable<unknown>;
  /** What the answer began with, once it has. */
  readonly headers: Metadata | undefined;
  /** Whether it was cancelled here, since the server did not begin to answer in time. */
  readonly gaveUp: boolean;
  end(): void;
}

/** Where a client's calls go. Closing it ends all that is under way. */
export class Connection {
  readonly #open = new Set<Open>();
  #channel: { readonly client: Client; readonly madeMs: number } | undefined;
  #closed = false;

  constructor(readonly endpoint: Endpoint) {}

  get closed(): boolean {
    return this.#closed;
  }

  close(): void {
    this.#closed = true;
    for (const open of this.#open) {
      open.cancel();
    }
    this.#channel?.client.close();
    this.#channel = undefined;
  }

  /** The answer to one attempt, or how it failed. */
  async attempt(
    call: Call<unknown>,
    remainingMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array | Failed> {
    const deadline = Date.now() + remainingMs;
    const metadata = await this.#metadata(call.requestId, remainingMs, signal);
    signal?.throwIfAborted();
    const client = this.#grpc();
    return new Promise((resolve, reject) => {
      let headers: Metadata | undefined;
      const abort = () => {
        rpc.cancel();
        reject(signal?.reason);
      };
      const { path, request } = call;
      const rpc = client.makeUnaryRequest(
        ...([path, same, same, request, metadata, { deadline }] as const),
        (error, answer) => {
          this.#open.delete(rpc);
          signal?.removeEventListener("abort", abort);
          if (error) {
            const failed = new Failed(error, headers);
            this.#replaceIfStuck(failed, client);
            resolve(failed);
          } else {
            resolve(answer as Uint8Array);
          }
        },
      );
      rpc.on("metadata", (received: Metadata) => {
        headers = received;
      });
      this.#open.add(rpc);
      signal?.addEventListener("abort", abort);
    });
  }

  /**
   * Begins a stream; it is cancelled if the server does not begin to answer in time.
   *
   * @param opened called with what the answer begins with.
   */
  async stream(
    { path, request }: Call<unknown>,
    patienceMs: number,
    signal: AbortSignal | undefined,
    opened: (headers: Metadata) => void,
  ): Promise<Stream> {
    const metadata = await this.#metadata(null, patienceMs, signal);
    signal?.throwIfAborted();
    const rpc = this.#grpc().makeServerStreamRequest(path, same, same, request, metadata, {});
    const cancel = () => rpc.cancel();
    const stream = {
      answers: rpc as AsyncIterable<unknown>,
      headers: undefined as Metadata | undefined,
      gaveUp: false,
      end: () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", cancel);
        this.#open.delete(rpc);
        rpc.cancel();
      },
    };
    const timer = setTimeout(() => {
      stream.gaveUp = true;
      rpc.cancel();
    }, patienceMs);
    signal?.addEventListener("abort", cancel);
    this.#open.add(rpc);
    rpc.on("error", () => {}); // whoever reads the answers is told; nobody reads after the end
    rpc.on("metadata", (headers: Metadata) => {
      clearTimeout(timer);
      stream.headers = headers;
      opened(headers);
    });
    return stream;
  }

  /** The metadata of an attempt; a token function has no longer than the attempt. */
  #metadata(
    requestId: string | null,
    remainingMs: number,
    signal: AbortSignal | undefined,
  ): Metadata | Promise<Metadata> {
    const refused = (cause: unknown) =>
      cause instanceof IdPassError
        ? cause
        : new Unauthenticated("The token function failed. Nothing was sent.", {
            code: "UNAUTHENTICATED",
            requestId,
            cause,
          });
    let metadata: Metadata | Promise<Metadata>;
    try {
      metadata = this.endpoint.metadata();
    } catch (error) {
      throw refused(error);
    }
    if (!(metadata instanceof Promise)) {
      return metadata;
    }
    const answer = metadata;
    return new Promise((resolve, reject) => {
      const late = () => {
        const what = `The token function took longer than ${Math.round(remainingMs)} ms.`;
        const code = "DEADLINE_EXCEEDED";
        end(() => reject(new Unavailable(`${what} Nothing was sent.`, { code, requestId })));
      };
      const abort = () => end(() => reject(signal?.reason));
      const end = (settle: () => void) => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        settle();
      };
      const timer = setTimeout(late, remainingMs);
      signal?.addEventListener("abort", abort);
      answer.then(
        (value) => end(() => resolve(value)),
        (error: unknown) => end(() => reject(refused(error))),
      );
    });
  }

  /** Waits; closing the client ends it. */
  pause(delayMs: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = () => {
        clearTimeout(timer);
        this.#open.delete(open);
        signal?.removeEventListener("abort", abort);
      };
      const abort = () => {
        end();
        reject(signal?.reason);
      };
      const finish = () => {
        end();
        resolve();
      };
      const open: Open = { cancel: finish };
      const timer = setTimeout(finish, delayMs);
      this.#open.add(open);
      signal?.addEventListener("abort", abort);
      if (signal?.aborted) {
        abort();
      }
    });
  }

  #grpc(): Client {
    if (this.#closed) {
      throw closedError({ requestId: null });
    }
    if (!this.#channel) {
      const { address, credentials, channelOptions } = this.endpoint;
      const client = new Client(address, credentials, channelOptions);
      this.#channel = { client, madeMs: performance.now() };
    }
    return this.#channel.client;
  }

  /** Gives up a connection that is never made: the next call tries anew, perhaps elsewhere. */
  #replaceIfStuck(failed: Failed, client: Client): void {
    const channel = this.#channel;
    if (
      channel?.client === client &&
      failed.error.code === Grpc.DEADLINE_EXCEEDED &&
      neverSent(failed) &&
      performance.now() - channel.madeMs > CONNECT_MS
    ) {
      this.#channel = undefined;
      client.close();
    }
  }
}

/** Messages pass as bytes: what cannot be read is told in our own words. */
function same(bytes: Buffer): Buffer {
  return bytes;
}
