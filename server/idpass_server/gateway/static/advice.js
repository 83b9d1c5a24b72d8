// What to do about each error, in the words of errors.md: a test compares them.

/** By reason. */
export const ADVICE = {
  INVALID_REQUEST: "correct the fields listed in `BadRequest` (20 at most; the message counts the rest)",
  REQUEST_ID_REUSED: "use a new `request_id` for a new request",
  UNAUTHENTICATED_CALLER: "send valid credentials",
  METHOD_NOT_PERMITTED: "request the permission named in `metadata`",
  ACCOUNT_DISABLED: "nothing was changed; read what you need, and ask the service's operator",
  PASS_NOT_FOUND: "check the id, and which account your credentials act for",
  PASS_ALREADY_CANCELLED: "nothing: `metadata` has the outcome",
  PASS_COMPLETE: "nothing: the pass has ended",
  PASS_EXPIRED: "nothing: the pass has ended",
  PASS_FAILED: "nothing: the pass has ended",
  TRANSITION_NOT_ALLOWED: "take one of the transitions listed in `metadata`",
  REFUND_NOT_AVAILABLE: "cancel without `require_refund`, or let the pass run",
  HISTORY_LOST: "list the passes, and watch on after the account's `last_sequence`",
  PASS_CHANGED: "read the pass and decide again",
  NO_FREE_SLOT: "cancel a pass, or have the account's slot limit raised",
  DAILY_QUOTA_EXHAUSTED: "register after `resetTime` in `metadata`, or have the account's quota raised",
  WEBHOOKS_DISABLED: "have the server given a webhook key, or watch the events",
  WEBHOOK_NOT_FOUND: "check the id, and which account your credentials act for",
  TOO_MANY_WEBHOOKS: "delete a webhook",
  OVERLOADED: "nothing was changed; retry after the delay in `RetryInfo`. `cause` in `metadata` is `rate` (your own) or `server`",
  STORE_UNAVAILABLE: "retry with the same `request_id` after the delay in `RetryInfo`; `outcome` in `metadata` is `not_committed` or `unknown`",
  INTERNAL: "report the reference",
};

/** By HTTP status, of what the gateway refuses by itself. */
export const BY_STATUS = {
  408: "send the body at once",
  413: "send fewer or shorter values",
  415: "send `Content-Type: application/json`",
  504: "retry with the same `request_id` to learn the outcome",
};
