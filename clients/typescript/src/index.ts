/** The client of the ID Pass service. `idpass-client/webhooks` is for receivers of webhooks. */

export { IdPassClient } from "./client.js";
export * from "./errors.js";
export type {
  AdvanceOptions,
  CallOptions,
  CancelManyOptions,
  CancelOptions,
  ChangeOptions,
  ClientOptions,
  ListOptions,
  Pem,
  RegisterOptions,
  Token,
  WatchOptions,
} from "./options.js";
export type {
  Account,
  AdvanceReceipt,
  Cancellation,
  CancelResult,
  Event,
  IdPass,
  Money,
  Receipt,
  RegisterReceipt,
} from "./records.js";
export { VERSION } from "./version.js";
export {
  CANCEL_REASONS,
  type CancelReason,
  type OrNewer,
  STATUSES,
  type Status,
} from "./words.js";
