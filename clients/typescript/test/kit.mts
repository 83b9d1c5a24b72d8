/** What the tests share: a service that answers as it is told, and the real one. */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";

import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import type { ClientOptions } from "idpass-client";
import { IdPassClient, IdPassError } from "idpass-client";

import { ErrorInfoSchema, RetryInfoSchema } from "../dist/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../dist/gen/google/rpc/status_pb.js";
import { IdPassService } from "../dist/gen/idpass/v1/id_pass_service_pb.js";

export const RPC = IdPassService.method;
export type MethodName = keyof typeof RPC;
type Input<M extends MethodName> = MessageShape<(typeof RPC)[M]["input"]>;
type Output<M extends MethodName> = MessageInitShape<(typeof RPC)[M]["output"]>;

/** How one call is answered: with a message, an error, or as a function of the call says. */
export type Step<M extends MethodName> =
  | Output<M>
  | grpc.ServiceError
  | ((request: Input<M>, call: grpc.ServerUnaryCall<Buffer, Buffer>) => Output<M> | undefined);

/** An error as the service says it; of the reason's metadata, `pushback` and `delay` are in ms. */
export function refusal(
  code: grpc.status,
  reason?: string,
  { pushback, delay, ...metadata }: Record<string, string> = {},
  domain = "idpass.v1",
): grpc.ServiceError {
  const trailers = new grpc.Metadata();
  if (pushback !== undefined) {
    trailers.set("grpc-retry-pushback-ms", pushback);
  }
  if (reason) {
    const details = [
      anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason, domain, metadata })),
    ];
    if (delay !== undefined) {
      const ms = Number(delay);
      const retryDelay = { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1e6 };
      details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })));
    }
    const status = create(StatusSchema, { code, message: "no", details });
    trailers.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, status)));
  }
  return Object.assign(new Error("no"), { code, details: "no", metadata: trailers });
}

export const LOST = refusal(grpc.status.UNAVAILABLE);

/** A service whose every answer is scripted; after the last step it goes on with it. */
export class Script {
  readonly requests: unknown[] = [];
  readonly calls: grpc.ServerUnaryCall<Buffer, Buffer>[] = [];
  readonly #server = new grpc.Server();
  readonly #steps = new Map<MethodName, unknown[]>();
  address = "";

  static async start(
    t: TestContext,
    {
      at = "127.0.0.1:0",
      host = "127.0.0.1",
      credentials = grpc.ServerCredentials.createInsecure(),
    } = {},
  ): Promise<Script> {
    const script = new Script();
    for (const name of Object.keys(RPC) as MethodName[]) {
      script.#serve(name);
    }
    const port = await new Promise<number>((resolve, reject) => {
      script.#server.bindAsync(at, credentials, (error, bound) =>
        error ? reject(error) : resolve(bound),
      );
    });
    script.address = at.startsWith("unix") ? at : `${host}:${port}`;
    t.after(() => script.#server.forceShutdown());
    return script;
  }

  answer<M extends MethodName>(method: M, ...steps: Step<M>[]): void {
    this.#steps.set(method, steps);
  }

  #serve(name: MethodName): void {
    const { input, output, parent, methodKind } = RPC[name];
    const read = (bytes: Buffer) => bytes;
    const stream = methodKind === "server_streaming";
    const next = (call: grpc.ServerUnaryCall<Buffer, Buffer>): unknown => {
      const request = fromBinary(input as DescMessage, call.request);
      this.requests.push(request);
      this.calls.push(call);
      const steps = this.#steps.get(name) ?? [];
      const step = steps.length > 1 ? steps.shift() : steps[0];
      return typeof step === "function" ? step(request, call) : step;
    };
    const bytes = (message: unknown) =>
      Buffer.from(toBinary(output as DescMessage, create(output as DescMessage, message as never)));
    const unary: grpc.handleUnaryCall<Buffer, Buffer> = (call, callback) => {
      const answer = next(call);
      if (answer instanceof Error) {
        callback(answer as grpc.ServiceError);
      } else if (answer !== undefined) {
        callback(null, bytes(answer));
      }
    };
    const streaming: grpc.handleServerStreamingCall<Buffer, Buffer> = (call) => {
      call.sendMetadata(new grpc.Metadata());
      const answer = next(call as never);
      if (answer instanceof Error) {
        call.emit("error", answer);
      } else if (answer !== undefined) {
        call.write(bytes(answer));
        call.end();
      }
    };
    this.#server.register(
      `/${parent.typeName}/${RPC[name].name}`,
      stream ? streaming : (unary as never),
      read,
      read,
      stream ? "serverStream" : "unary",
    );
  }
}

export function client(t: TestContext, address: string, options: ClientOptions = {}): IdPassClient {
  const made = new IdPassClient(address, options);
  t.after(() => made.close());
  return made;
}

/** The error that something is rejected with, which is of the class and of the tree. */
export async function refused<E extends IdPassError>(
  promise: Promise<unknown>,
  kind: new (...args: never[]) => E,
): Promise<E> {
  const error = await promise.then(
    (answer) => assert.fail(`was not refused: ${JSON.stringify(answer)}`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof IdPassError, String(error));
  assert.equal(error.constructor, kind, String(error));
  return error as E;
}

export async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) {
    found.push(item);
  }
  return found;
}

/** The first items; the iteration is ended then. */
export async function first<T>(count: number, items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) {
    if (found.push(item) === count) {
      break;
    }
  }
  return found;
}

/** `idpass-server serve` in a process of its own, which can be stopped and started again. */
export class ServerProcess {
  readonly #db = join(mkdtempSync(join(tmpdir(), "idpass-")), "idpass.db");
  #process: ChildProcess | undefined;
  address = "127.0.0.1:0";

  static async start(t: TestContext): Promise<ServerProcess> {
    const server = new ServerProcess();
    t.after(() => server.stop("SIGKILL"));
    await server.start();
    return server;
  }

  async start(): Promise<void> {
    const python = process.env.IDPASS_SERVER_PYTHON ?? "python3";
    const options = ["--db", `sqlite:///${this.#db}`, "--listen", this.address, "--rate", "0"];
    const server = spawn(python, ["-m", "idpass_server", "serve", ...options], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#process = server;
    this.address = await new Promise((resolve, reject) => {
      server.once("exit", () => reject(new Error("the server did not start")));
      // Always read, or its log fills the pipe.
      createInterface(server.stderr).on("line", (line) => {
        const said = line.startsWith("{") ? JSON.parse(line) : {};
        if (said.event === "serving") {
          resolve(said.listen);
        }
      });
    });
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const server = this.#process;
    if (server && server.exitCode === null && server.signalCode === null) {
      const ended = new Promise((resolve) => server.once("exit", resolve));
      server.kill(signal);
      await ended;
    }
  }
}

/**
 * A TCP proxy that loses answers: while `lose` is above 0, a connection is reset in the moment that
 * the service begins to answer a call on it.
 */
export class LosingProxy {
  lose = 0;
  address = "";
  readonly #sockets = new Set<Socket>();

  static async start(t: TestContext, upstream: string): Promise<LosingProxy> {
    const proxy = new LosingProxy();
    const [host, port] = upstream.split(":");
    const listener = createServer((down) => proxy.#pass(down, connect(Number(port), host)));
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    proxy.address = `127.0.0.1:${(listener.address() as AddressInfo).port}`;
    t.after(() => {
      listener.close();
      for (const socket of proxy.#sockets) {
        socket.destroy();
      }
    });
    return proxy;
  }

  /** Breaks every connection that there is. */
  breakAll(): void {
    for (const socket of this.#sockets) {
      socket.resetAndDestroy();
    }
    this.#sockets.clear();
  }

  #pass(down: Socket, up: Socket): void {
    let unread = Buffer.alloc(0);
    const cut = () => {
      down.resetAndDestroy();
      up.resetAndDestroy();
    };
    for (const socket of [down, up]) {
      this.#sockets.add(socket);
      socket.on("error", cut).on("close", cut);
    }
    down.on("data", (data) => up.write(data));
    up.on("data", (data: Buffer) => {
      unread = Buffer.concat([unread, data]);
      while (unread.length >= 9 && unread.length >= 9 + unread.readUIntBE(0, 3)) {
        const frame = unread.subarray(0, 9 + unread.readUIntBE(0, 3));
        unread = unread.subarray(frame.length);
        if (frame[3] === HEADERS && this.lose > 0) {
          this.lose -= 1;
          cut();
          return;
        }
        down.write(frame);
      }
    });
  }
}

const HEADERS = 1;
