/** From a google.rpc.Status to the error that the client throws, by one table. */

import { fromBinary, type Message } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import { type Any, anyUnpack } from "@bufbuild/protobuf/wkt";
import type { ServiceError } from "@grpc/grpc-js";

import * as errors from "./errors.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";
import { type Status, StatusSchema } from "./gen/google/rpc/status_pb.js";
import type { ErrorReason } from "./gen/idpass/v1/error_reason_pb.js";

const DOMAIN = "idpass.v1";

type ErrorClass = new (message: string, facts: errors.ErrorFacts) => errors.IdPassError;
type Reason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED">;

/** Complete by its type: a reason that is added to the contract does not compile without a class. */
export const BY_REASON: Readonly<Record<Reason, ErrorClass>> = {
  INVALID_REQUEST: errors.InvalidRequest,
  REQUEST_ID_REUSED: errors.RequestIdReused,
  UNAUTHENTICATED_CALLER: errors.Unauthenticated,
  METHOD_NOT_PERMITTED: errors.PermissionDenied,
  ACCOUNT_DISABLED: errors.AccountDisabled,
  PASS_NOT_FOUND: errors.NotFound,
  PASS_ALREADY_CANCELLED: errors.AlreadyCancelled,
  PASS_COMPLETE: errors.Complete,
  PASS_EXPIRED: errors.Expired,
  PASS_FAILED: errors.Failed,
  TRANSITION_NOT_ALLOWED: errors.TransitionNotAllowed,
  REFUND_NOT_AVAILABLE: errors.RefundNotAvailable,
  HISTORY_LOST: errors.HistoryLost,
  PASS_CHANGED: errors.PassChanged,
  NO_FREE_SLOT: errors.NoFreeSlot,
  DAILY_QUOTA_EXHAUSTED: errors.DailyQuotaExhausted,
  WEBHOOKS_DISABLED: errors.WebhooksDisabled,
  WEBHOOK_NOT_FOUND: errors.NotFound,
  TOO_MANY_WEBHOOKS: errors.TooManyWebhooks,
  OVERLOADED: errors.Overloaded,
  STORE_UNAVAILABLE: errors.Unavailable,
  INTERNAL: errors.Internal,
};

const BY_CODE: Readonly<Partial<Record<errors.Code, ErrorClass>>> = {
  INVALID_ARGUMENT: errors.InvalidRequest,
  UNAUTHENTICATED: errors.Unauthenticated,
  PERMISSION_DENIED: errors.PermissionDenied,
  NOT_FOUND: errors.NotFound,
  FAILED_PRECONDITION: errors.FailedPrecondition,
  ABORTED: errors.Aborted,
  RESOURCE_EXHAUSTED: errors.ResourceExhausted,
  UNAVAILABLE: errors.Unavailable,
  DEADLINE_EXCEEDED: errors.DeadlineExceeded,
  INTERNAL: errors.Internal,
  UNIMPLEMENTED: errors.Unimplemented,
};

export function codeOf(number: number): errors.Code {
  return CODES_BUT_OK[number] ?? "UNKNOWN";
}

// An error with the code OK is none that anybody could handle.
const CODES_BUT_OK: readonly (errors.Code | undefined)[] = [undefined, ...errors.CODES.slice(1)];

/** The error of a call, with the details in its trailers if there are any that can be read. */
export function fromServiceError(
  error: ServiceError,
  requestId: string | null,
): errors.IdPassError {
  for (const value of error.metadata?.get("grpc-status-details-bin") ?? []) {
    const status = unlessBroken(() => fromBinary(StatusSchema, value as Buffer));
    if (status) {
      return fromStatus(status, requestId, error);
    }
  }
  return make(codeOf(error.code), error.details, { requestId, cause: error });
}

/** The error for the status of a call, or of one item of a batch. */
export function fromStatus(
  status: Status,
  requestId: string | null,
  cause?: unknown,
): errors.IdPassError {
  const found = detail(status, ErrorInfoSchema);
  const info = found?.domain === DOMAIN ? found : undefined;
  const delay = detail(status, RetryInfoSchema)?.retryDelay;
  return make(codeOf(status.code), status.message, {
    reason: info?.reason,
    metadata: info?.metadata,
    reference: detail(status, RequestInfoSchema)?.requestId || null,
    requestId,
    violations: detail(status, BadRequestSchema)?.fieldViolations.map(({ field, description }) => ({
      field,
      description,
    })),
    retryAfterMs: delay && Number(delay.seconds) * 1000 + Math.floor(delay.nanos / 1e6),
    cause,
  });
}

function make(code: errors.Code, message: string, facts: errors.ErrorFacts): errors.IdPassError {
  const { reason } = facts;
  const known =
    reason && Object.hasOwn(BY_REASON, reason) ? BY_REASON[reason as Reason] : undefined;
  const Kind = known ?? BY_CODE[code] ?? errors.IdPassError;
  return new Kind(message || `The call failed with ${code}.`, { ...facts, code });
}

function detail<M extends Message>(status: Status, schema: GenMessage<M>): M | undefined {
  for (const packed of status.details) {
    const found = unlessBroken(() => anyUnpack(packed as Any, schema)) as M | undefined;
    if (found) {
      return found;
    }
  }
  return undefined;
}

function unlessBroken<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
