/**
 * The client. This module is the reference: each method documents its arguments and what it throws;
 * `requests` builds requests, `retry` decides on retries.
 *
 * It stands on @grpc/grpc-js, not on connect-node: gRPC's own target names (dns, unix, several
 * addresses), a channel that reconnects by itself, and trailers, deadlines, pushback and keepalive
 * as the service's other clients see them.
 */

import type { Metadata } from "@grpc/grpc-js";

import * as check from "./checks.js";
import { Connection, Failed } from "./connection.js";
import { Endpoint } from "./endpoint.js";
import { BadAnswer, IdPassError, Unavailable } from "./errors.js";
import { closedError, unknown } from "./failures.js";
import type {
  AdvanceOptions,
  CallOptions,
  CancelManyOptions,
  CancelOptions,
  ClientOptions,
  ListOptions,
  RegisterOptions,
  WatchOptions,
} from "./options.js";
import { isForeign } from "./reach.js";
import type {
  Account,
  AdvanceReceipt,
  CancelResult,
  Event,
  IdPass,
  Receipt,
  RegisterReceipt,
} from "./records.js";
import type { Call } from "./requests.js";
import * as requests from "./requests.js";
import { Attempts, Reconnects, Throttle } from "./retry.js";
import type { Status } from "./words.js";

const TIMEOUT_MS = 5_000;
const RECONNECT_FOR_MS = 60_000;
const CALL = ["timeoutMs", "signal"] as const;
const CHANGE = [...CALL, "requestId"] as const;
const HOW = ["reason", "note", "expectedStatus", "requireRefund"] as const;
const NAMES = {
  client: ["tls", "clientCertificate", "token", "timeoutMs", "allowPlaintext", "channelOptions"],
  call: CALL,
  cancel: [...CHANGE, ...HOW, "validateOnly"],
  cancelMany: [...CALL, ...HOW, "batchSize", "inFlight"],
  register: [...CHANGE, "linkValidityDays", "applicantReference", "supersedes"],
  advance: [...CHANGE, "expectedStatus"],
  list: [...CALL, "statuses", "idleBefore", "idleForMs", "applicantReference"],
  watch: ["id", "afterSequence", "history", "reconnectForMs", "signal"],
} as const;

/**
 * A client of the ID Pass service. Creating one does no I/O: it connects at the first call. One
 * client serves a whole process; keep it, and close it in the end.
 *
 * A call that changes something is sent with a request id, so a retry is answered with what the
 * first attempt did. Attempts that end in UNAVAILABLE or a bare CANCELLED are retried within
 * `timeoutMs`, with exponential backoff; attempts that an overloaded server refuses, after the delay
 * that it asks for. `listPasses` and `cancelMany` go at the server's pace, however long that takes.
 *
 * Every error is an IdPassError, but for the reason of a signal that gives a call up.
 */
export class IdPassClient {
  readonly #connection: Connection;
  readonly #timeoutMs: number;
  readonly #throttle = new Throttle();

  /**
   * @param address HOST:PORT, or another gRPC target such as unix:/run/idpass.sock.
   * @throws InvalidRequest: `address` is not an address; or it is on another machine and neither TLS
   *     nor `allowPlaintext` is given; or the token cannot be sent; or a PEM file cannot be read.
   */
  constructor(address: string, options: ClientOptions = {}) {
    check.options(options, NAMES.client);
    this.#connection = new Connection(new Endpoint(address, options));
    this.#timeoutMs = check.duration("timeoutMs", options.timeoutMs ?? TIMEOUT_MS);
  }

  /** Closes the connection. Calls in flight fail; iterations over `watch` end. */
  close(): void {
    this.#connection.close();
  }

  /** As `close`: for `using client = new IdPassClient(…)`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Cancels a pass that is still in flight, and refunds its fee if it was new or opened.
   *
   * @param id UUID of the pass.
   * @throws NotFound: the account has no such pass.
   * @throws AlreadyCancelled: with the first outcome.
   * @throws Complete, Expired, Failed: the pass ended in another way.
   * @throws PassChanged: the pass is not in `expectedStatus`.
   * @throws RefundNotAvailable: `requireRefund` is set and verification has begun.
   * @throws OutcomeUnknown: no answer came; call again with the error's requestId.
   * @throws Overloaded: the server asks for a longer delay than there is time left.
   * @throws Unavailable: no server could be reached; nothing was changed.
   * @throws InvalidRequest: an argument is not what is asked for.
   */
  async cancel(id: string, options: CancelOptions = {}): Promise<Receipt> {
    return this.#run(requests.cancel(id, check.options(options, NAMES.cancel)), options);
  }

  /**
   * Cancels any number of passes, and yields a result for each, in order.
   *
   * Each is decided by itself, as by `cancel`; a refused one does not affect the others. `ids` is
   * read as results are consumed, so it need not fit into memory. If a batch fails as a whole, no
   * more ids are read, the results of its items carry the error, and it is thrown after the last
   * result. Running again with all ids is safe: cancelled passes are answered with AlreadyCancelled,
   * and nothing is refunded twice.
   *
   * It goes at the server's pace: a batch that is refused as Overloaded changed nothing, and is sent
   * again after each delay that the server asks for, with `timeoutMs` starting over.
   *
   * @throws IdPassError: a batch failed as a whole.
   */
  cancelMany(
    ids: Iterable<string> | AsyncIterable<string>,
    options: CancelManyOptions = {},
  ): AsyncGenerator<CancelResult, void, undefined> {
    const batches = new requests.Batches(check.options(options, NAMES.cancelMany));
    if (typeof ids !== "object" || ids === null || !(Symbol.asyncIterator in ids)) {
      check.several("ids", ids);
    }
    return this.#cancelBatches(batches.of(ids), batches.inFlight, options);
  }

  async *#cancelBatches(
    batches: AsyncGenerator<requests.Batch, void>,
    inFlight: number,
    { timeoutMs, signal }: CallOptions,
  ): AsyncGenerator<CancelResult, void, undefined> {
    const stop = new AbortController();
    const either = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    const waiting: { batch: requests.Batch; answer: Promise<CancelResult[]> }[] = [];
    const failures: unknown[] = [];
    let more = true;
    try {
      for (;;) {
        while (more && failures.length === 0 && waiting.length < inFlight) {
          const next = await batches.next().catch((error: unknown) => void failures.push(error));
          if (next && !next.done) {
            const answer = this.#run(next.value.call, { timeoutMs, signal: either }, true);
            answer.catch(() => {}); // it is awaited below, unless the caller stops before
            waiting.push({ batch: next.value, answer });
          } else {
            more = false;
          }
        }
        const oldest = waiting.shift();
        if (!oldest) {
          break;
        }
        try {
          yield* await oldest.answer;
        } catch (error) {
          if (!(error instanceof IdPassError)) {
            throw error;
          }
          failures.push(error);
          yield* oldest.batch.failed(error);
        }
      }
    } finally {
      stop.abort();
      await batches.return();
    }
    if (failures.length > 0) {
      throw failures[0];
    }
  }

  /**
   * Registers a pass in the status new, charges the account's fee and takes a slot.
   *
   * @throws NoFreeSlot: every slot of the account is in use.
   * @throws DailyQuotaExhausted: the account has registered as many passes today as it may.
   * @throws NotFound, AlreadyCancelled, Complete, Expired, Failed: the pass in `supersedes` does not
   *     exist or is not in flight.
   * @throws OutcomeUnknown: no answer came; call again with the error's requestId.
   */
  async register(options: RegisterOptions = {}): Promise<RegisterReceipt> {
    return this.#run(requests.register(check.options(options, NAMES.register)), options);
  }

  /**
   * Advances a pass along its lifecycle as the applicant and the verification proceed.
   *
   * @param toStatus "opened", "in_progress", "complete", "failed" or "expired".
   * @throws NotFound: the account has no such pass.
   * @throws TransitionNotAllowed: its status does not lead there; see `allowed`.
   * @throws AlreadyCancelled, Complete, Expired, Failed: its status can no longer change.
   * @throws PassChanged: the pass is not in `expectedStatus`.
   * @throws OutcomeUnknown: no answer came; call again with the error's requestId.
   */
  async advance(
    id: string,
    toStatus: Status,
    options: AdvanceOptions = {},
  ): Promise<AdvanceReceipt> {
    return this.#run(
      requests.advance(id, toStatus, check.options(options, NAMES.advance)),
      options,
    );
  }

  /**
   * One pass, as it is now.
   *
   * @throws NotFound: the account has no such pass.
   */
  async get(id: string, options: CallOptions = {}): Promise<IdPass> {
    return this.#run(requests.get(id), check.options(options, NAMES.call));
  }

  /** The caller's account, as it is now. */
  async account(options: CallOptions = {}): Promise<Account> {
    return this.#run(requests.account(), check.options(options, NAMES.call));
  }

  /**
   * Passes, newest first; further pages are requested as they are needed. A pass that exists and
   * matches throughout the listing is returned exactly once. `timeoutMs` is that of a page, and
   * starts over after each delay that an overloaded server asks for.
   */
  listPasses(options: ListOptions = {}): AsyncGenerator<IdPass, void, undefined> {
    return this.#pages(new requests.Listing(check.options(options, NAMES.list)), options);
  }

  async *#pages(
    listing: requests.Listing,
    options: CallOptions,
  ): AsyncGenerator<IdPass, void, undefined> {
    while (!listing.done) {
      yield* await this.#run(listing.nextPage(), options, true);
    }
  }

  /**
   * The account's events in commit order: past ones first, then each as it happens.
   *
   * After a broken connection it reconnects and resumes after the last event, so none is missed or
   * repeated; an overloaded server is given the delay that it asks for. The iteration ends when the
   * client is closed.
   *
   * @throws NotFound: the account has no such pass.
   * @throws HistoryLost: the database was restored from an older backup, or events that were yet to
   *     come were purged.
   * @throws Unavailable: the service was out of reach for longer than `reconnectForMs`.
   * @throws Overloaded: the server has no room for the stream: at its start, or for longer than
   *     `reconnectForMs`.
   */
  watch(options: WatchOptions = {}): AsyncGenerator<Event, void, undefined> {
    const { reconnectForMs = RECONNECT_FOR_MS, signal } = check.options(options, NAMES.watch);
    check.duration("reconnectForMs", reconnectForMs);
    return this.#events(new requests.Watching(options), reconnectForMs, signalOf(signal));
  }

  async *#events(
    watching: requests.Watching,
    reconnectForMs: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Event, void, undefined> {
    const connection = this.#connection;
    const { endpoint } = connection;
    const reconnects = new Reconnects(reconnectForMs, performance.now(), endpoint);
    const opened = (headers: Metadata) => {
      if (!isForeign(headers)) {
        // a proxy's page is no stream
        reconnects.connected();
        watching.opened(headers.get("idpass-history")[0]?.toString());
      }
    };
    while (!connection.closed) {
      signal?.throwIfAborted();
      const patienceMs = reconnects.remainingMs(performance.now());
      const call = watching.nextStream();
      const stream = await connection
        .stream(call, patienceMs, signal, opened)
        .catch((error: unknown) => {
          if (!connection.closed) {
            throw error;
          }
        });
      if (!stream) {
        return;
      }
      let failed: Failed;
      try {
        for await (const answer of stream.answers) {
          yield this.#read(call, answer as Uint8Array);
        }
        return; // the stream has ended by itself
      } catch (error) {
        signal?.throwIfAborted();
        if (connection.closed) {
          return;
        }
        if (error instanceof IdPassError) {
          throw error;
        }
        if (stream.gaveUp) {
          const late = `did not begin to answer within ${Math.round(patienceMs)} ms.`;
          const facts = { code: "UNAVAILABLE", cause: error } as const;
          throw new Unavailable(`The server at ${endpoint.address} ${late}`, facts);
        }
        failed = new Failed(error as Failed["error"], stream.headers);
      } finally {
        stream.end();
      }
      await connection.pause(reconnects.failed(failed, performance.now()), signal);
    }
  }

  async #run<T>(call: Call<T>, options: CallOptions, patient = false): Promise<T> {
    const timeoutMs =
      options.timeoutMs === undefined
        ? this.#timeoutMs
        : check.duration("timeoutMs", options.timeoutMs);
    const signal = signalOf(options.signal);
    const connection = this.#connection;
    const startedMs = performance.now();
    let remainingMs = timeoutMs;
    let attempts: Attempts | undefined;
    for (;;) {
      signal?.throwIfAborted();
      if (connection.closed) {
        throw attempts?.gaveUp() ?? closedError(call);
      }
      const outcome = await connection
        .attempt(call, remainingMs, signal)
        .catch((error: unknown) => {
          throw (error instanceof IdPassError && attempts?.cutShort(error)) || error;
        });
      if (!(outcome instanceof Failed)) {
        this.#throttle.succeeded();
        return this.#read(call, outcome);
      }
      attempts ??= new Attempts(
        call,
        connection.endpoint,
        timeoutMs,
        startedMs,
        this.#throttle,
        patient,
      );
      await connection.pause(
        attempts.failed(outcome, performance.now(), connection.closed),
        signal,
      );
      remainingMs = attempts.remainingMs(performance.now());
    }
  }

  #read<T>(call: Call<T>, answer: Uint8Array): T {
    try {
      return call.read(answer);
    } catch (cause) {
      const { name, requestId } = call;
      const what =
        `The answer of ${name} cannot be read: what answers at ${this.#connection.endpoint.address} may be ` +
        "another service, or a proxy that changes what it passes on.";
      const error =
        cause instanceof IdPassError
          ? cause
          : new BadAnswer(what, { code: "INTERNAL", requestId, cause });
      throw call.changes ? unknown(call, `${error.code}: ${error.message}`, error) : error;
    }
  }
}

function signalOf(signal: unknown): AbortSignal | undefined {
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw check.invalid("signal", "is not an AbortSignal; pass that of an AbortController.");
  }
  return signal;
}
