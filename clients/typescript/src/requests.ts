/** For each rpc: how its request is built and its answer read. No I/O in here. */

import { randomUUID } from "node:crypto";

import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";

import * as check from "./checks.js";
import { BadAnswer, type IdPassError } from "./errors.js";
import { factsOf } from "./failures.js";
import { IdPassSchema } from "./gen/idpass/v1/id_pass_pb.js";
import {
  type BatchCancelResponse,
  type CancelRequestSchema,
  IdPassService,
} from "./gen/idpass/v1/id_pass_service_pb.js";
import type * as options from "./options.js";
import type { CancelManyOptions, CancelOptions, ListOptions, WatchOptions } from "./options.js";
import * as read from "./read.js";
import type {
  Account,
  AdvanceReceipt,
  CancelResult,
  Event,
  IdPass,
  Receipt,
  RegisterReceipt,
} from "./records.js";
import { fromStatus } from "./status.js";
import {
  CANCEL_REASONS,
  type CancelReason,
  reasonNumber,
  STATUSES,
  type Status,
  statusNumber,
} from "./words.js";

const PAGE_SIZE = 500;
const MAX_BATCH_SIZE = 1_000;
const MAX_DAYS = 2 ** 31 - 1; // of an int32: the limit is the service's to say
const RPC = IdPassService.method;

/** One rpc, ready to be sent as often as it takes. */
export interface Call<T> {
  /** Name of the rpc. */
  readonly name: string;
  readonly path: string;
  readonly request: Buffer;
  /** Turns the answer into what the client returns. */
  readonly read: (answer: Uint8Array) => T;
  /** Whether the call changes anything on the server. */
  readonly changes: boolean;
  /** What the call is sent with, or null. */
  readonly requestId: string | null;
}

type Method<I extends DescMessage, O extends DescMessage> = DescMethod & { input: I; output: O };

function call<I extends DescMessage, O extends DescMessage, T>(
  method: Method<I, O>,
  request: MessageInitShape<I>,
  reader: (answer: MessageShape<O>) => T,
  { changes = false, requestId = null as string | null } = {},
): Call<T> {
  const bytes = toBinary(method.input, create(method.input, request));
  return {
    name: method.name,
    path: `/${method.parent.typeName}/${method.name}`,
    request: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    read: (answer) => reader(fromBinary(method.output, answer)),
    changes,
    requestId,
  };
}

type PlainCancel = MessageInitShape<typeof CancelRequestSchema>;

/** What a single cancellation and each of many are asked with. */
function cancellation(given: Omit<CancelOptions, "requestId">): PlainCancel {
  return {
    reason: reason(given.reason),
    note: optional(given.note, "", (value) => check.text("note", value)),
    expectedStatus: status("expectedStatus", given.expectedStatus),
    requireRefund: optional(given.requireRefund, false, (value) =>
      check.flag("requireRefund", value),
    ),
  };
}

export function cancel(pass: string, given: CancelOptions): Call<Receipt> {
  const id = check.id("id", pass);
  const validateOnly = optional(given.validateOnly, false, (value) =>
    check.flag("validateOnly", value),
  );
  const requestId = requestIdOf(given, !validateOnly);
  return call(
    RPC.cancelIdPass,
    { ...cancellation(given), id, requestId, validateOnly },
    (answer) => read.receipt(answer, id, requestId),
    { changes: !validateOnly, requestId: requestId || null },
  );
}

export function register(given: options.RegisterOptions): Call<RegisterReceipt> {
  const requestId = requestIdOf(given);
  const prior = optional(given.supersedes, "", (value) => check.id("supersedes", value));
  return call(
    RPC.registerIdPass,
    {
      requestId,
      linkValidityDays: optional(given.linkValidityDays, 0, (value) =>
        check.integer("linkValidityDays", value, 0, MAX_DAYS),
      ),
      applicantReference: optional(given.applicantReference, "", (value) =>
        check.text("applicantReference", value),
      ),
      supersedes: prior,
    },
    ({ idPass, superseded, reference, replayed }) => ({
      idPass: passOf(idPass),
      superseded: superseded ? read.receipt(superseded, prior, requestId) : null,
      reference,
      replayed,
      requestId,
    }),
    { changes: true, requestId },
  );
}

export function advance(
  pass: string,
  toStatus: Status,
  given: options.AdvanceOptions,
): Call<AdvanceReceipt> {
  const requestId = requestIdOf(given);
  return call(
    RPC.advanceIdPass,
    {
      id: check.id("id", pass),
      toStatus: statusNumber(check.word("toStatus", toStatus, STATUSES)),
      requestId,
      expectedStatus: status("expectedStatus", given.expectedStatus),
    },
    ({ idPass, reference, replayed }) => ({
      idPass: passOf(idPass),
      reference,
      replayed,
      requestId,
    }),
    { changes: true, requestId },
  );
}

export function get(pass: string): Call<IdPass> {
  return call(RPC.getIdPass, { id: check.id("id", pass) }, (answer) => passOf(answer.idPass));
}

export function account(): Call<Account> {
  return call(RPC.getAccount, {}, read.account);
}

/** The position of an iteration over pages. */
export class Listing {
  readonly #request;
  done = false;

  constructor({ statuses = [], idleBefore, idleForMs, applicantReference }: ListOptions) {
    if (idleBefore !== undefined && idleForMs !== undefined) {
      throw check.invalid("idleForMs", "is given beside idleBefore; give one of them.");
    }
    // Once for all pages: a page token is valid for the same moment only.
    const before =
      idleForMs === undefined
        ? idleBefore && check.moment("idleBefore", idleBefore)
        : new Date(Date.now() - check.duration("idleForMs", idleForMs));
    this.#request = {
      pageSize: PAGE_SIZE,
      pageToken: "",
      statuses: Array.from(check.several<Status>("statuses", statuses), (each) =>
        status("statuses", each),
      ),
      applicantReference: optional(applicantReference, "", (value) =>
        check.text("applicantReference", value),
      ),
      ...(before && { idleBefore: timestampFromDate(before) }),
    };
  }

  nextPage(): Call<IdPass[]> {
    return call(RPC.listIdPasses, this.#request, (answer) => {
      this.#request.pageToken = answer.nextPageToken;
      this.done = answer.nextPageToken === "";
      return answer.idPasses.map(read.idPass);
    });
  }
}

/** The position of an iteration over events: after the newest that was read. */
export class Watching {
  readonly #request;

  constructor({ id, afterSequence, history }: WatchOptions) {
    this.#request = {
      afterSequence: BigInt(
        optional(afterSequence, 0, (value) =>
          check.integer("afterSequence", value, 0, Number.MAX_SAFE_INTEGER),
        ),
      ),
      id: optional(id, "", (value) => check.id("id", value)),
      history: optional(history, "", (value) => check.text("history", value)),
    };
  }

  /** Takes note of the history that the events are from. */
  opened(history: string | undefined): void {
    if (history !== undefined) {
      this.#request.history = history;
    }
  }

  nextStream(): Call<Event> {
    return call(RPC.watchIdPasses, this.#request, (message) => {
      this.#request.afterSequence = message.sequence;
      return read.event(message);
    });
  }
}

/** Passes that are cancelled in one call. */
export class Batch {
  readonly call: Call<CancelResult[]>;
  readonly #items: readonly { readonly id: string; readonly requestId: string }[];

  constructor(ids: readonly string[], template: PlainCancel) {
    this.#items = ids.map((id) => ({ id, requestId: newRequestId() }));
    const requests = this.#items.map((item) => ({ ...template, ...item }));
    this.call = call(RPC.batchCancelIdPasses, { requests }, (answer) => this.#read(answer), {
      changes: true,
    });
  }

  #read({ results }: BatchCancelResponse): CancelResult[] {
    if (results.length !== this.#items.length) {
      throw new BadAnswer(
        `${results.length} results came for ${this.#items.length} passes: the answer cannot be read.`,
        { code: "INTERNAL" },
      );
    }
    return this.#items.map(({ id, requestId }, index) => {
      const result = results[index]?.result;
      switch (result?.case) {
        case "response":
          return { id, requestId, receipt: read.receipt(result.value, id, requestId), error: null };
        case "error":
          return { id, requestId, receipt: null, error: fromStatus(result.value, requestId) };
        default: {
          const what = "The service gave a kind of result that this version does not know.";
          return { id, requestId, receipt: null, error: new BadAnswer(what, { requestId }) };
        }
      }
    });
  }

  /** The results of the items if the call failed as a whole. */
  failed(error: IdPassError): CancelResult[] {
    const Kind = error.constructor as new (message: string, facts: object) => IdPassError;
    return this.#items.map(({ id, requestId }) => {
      const own = new Kind(error.message, { ...factsOf(error), reference: null, requestId });
      return { id, requestId, receipt: null, error: own };
    });
  }
}

/** Splits ids into batches. */
export class Batches {
  readonly size: number;
  readonly inFlight: number;
  readonly #template: PlainCancel;

  constructor(given: CancelManyOptions) {
    this.size = optional(given.batchSize, 500, (value) =>
      check.integer("batchSize", value, 1, MAX_BATCH_SIZE),
    );
    this.inFlight = optional(given.inFlight, 2, (value) =>
      check.integer("inFlight", value, 1, 100),
    );
    this.#template = cancellation(given);
  }

  async *of(ids: Iterable<string> | AsyncIterable<string>): AsyncGenerator<Batch, void> {
    let chunk: string[] = [];
    for await (const id of ids) {
      chunk.push(check.id("ids", id));
      if (chunk.length === this.size) {
        yield new Batch(chunk, this.#template);
        chunk = [];
      }
    }
    if (chunk.length > 0) {
      yield new Batch(chunk, this.#template);
    }
  }
}

/** A UUIDv7 (RFC 9562): ids made one after another are neighbours in the server's index. */
export function newRequestId(): string {
  const time = Date.now().toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`;
}

function requestIdOf({ requestId }: { requestId?: string | undefined }, make = true): string {
  const given = optional(requestId, "", (value) => check.text("requestId", value));
  return given || !make ? given : newRequestId();
}

function passOf(message: MessageShape<typeof IdPassSchema> | undefined): IdPass {
  return read.idPass(message ?? create(IdPassSchema));
}

function status(field: string, value: Status | undefined): number {
  return optional(value, 0, (word) => statusNumber(check.word(field, word, STATUSES)));
}

function reason(value: CancelReason | undefined): number {
  return optional(value, 0, (word) => reasonNumber(check.word("reason", word, CANCEL_REASONS)));
}

/** Only undefined counts as not given: null in its place is more often a mistake. */
function optional<T, R>(value: T | undefined, otherwise: R, read: (value: T) => R): R {
  return value === undefined ? otherwise : read(value);
}
