// What the service answered, in words. A code is said below them, never instead.

import { detail, reason, violations } from "./api.js";
import { money, span, words } from "./dom.js";

const ago = (time) => `${span(Date.now() - Date.parse(time))} ago`;

const REFUSED = {
  PASS_ALREADY_CANCELLED: ({ cancelTime, feeRefunded }, fee) =>
    `Already cancelled ${ago(cancelTime)}; ${feeRefunded === "true" ? `${fee} was refunded then` : "the fee was kept then"}.`,
  PASS_COMPLETE: ({ endTime }) => `Verified ${ago(endTime)}: a complete pass cannot be cancelled, its fee is kept.`,
  PASS_EXPIRED: ({ endTime }) => `Expired ${ago(endTime)}: there is nothing left to cancel.`,
  PASS_FAILED: ({ endTime }) => `Failed ${ago(endTime)}: there is nothing left to cancel.`,
  REFUND_NOT_AVAILABLE: () => "Not cancelled: the applicant has consented, so there would be no refund.",
  PASS_CHANGED: ({ status }) => `Not changed: it is ${words(status)} by now.`,
  TRANSITION_NOT_ALLOWED: ({ status, allowed }) => `Not possible: from ${words(status)} a pass becomes ${words(allowed ?? "").replaceAll(",", " or ")}.`,
  NO_FREE_SLOT: ({ slotLimit }) => `All ${slotLimit} slots are in use: cancel a pass, and its slot is free.`,
  PASS_NOT_FOUND: () => "There is no such pass.",
  REQUEST_ID_REUSED: () => "Not done: this request_id stands for another request.",
  UNREACHABLE: () => "No answer: the server cannot be reached. Send it again with the same request_id; it is done once at most.",
};

/** The outcome of an exchange in a sentence. Args: `pass` that it was about, if known. */
export function outcome(exchange, pass) {
  const { ok, path, body, answer } = exchange;
  if (!ok) return refused(answer, pass);
  const checked = (body?.requests?.[0] ?? body)?.validate_only ? "Only checked, nothing was changed. It would be: " : "";
  return checked + done(path, answer);
}

function refused(answer, pass) {
  const code = reason(answer);
  const wrong = Object.entries(violations(answer));
  if (code === "INVALID_REQUEST" && wrong.length) return `Not sent well: ${wrong.map(([field, text]) => `${field} ${text}`).join("; ")}.`;
  return REFUSED[code]?.(detail(answer, "ErrorInfo")?.metadata ?? {}, pass ? money(pass.fee) : "its fee") ?? answer.message;
}

function done(path, answer) {
  if (path.endsWith("/batch-cancel")) return batch(answer);
  const again = answer.replayed ? "The first answer again, nothing was changed now: " : "";
  const back = (cancelled) => (cancelled.fee_refunded ? `${money(cancelled.refund)} refunded` : "fee kept");
  if (path.endsWith("/cancel")) {
    const from = answer.previous_status ? ` from ${words(answer.previous_status)}` : "";
    return `${again}Cancelled${from}, ${back(answer)}.`;
  }
  if (path.endsWith("/register")) {
    const prior = answer.superseded ? ` in place of the prior one, ${back(answer.superseded)}` : "";
    return `${again}Registered${prior}.`;
  }
  return answer.id_pass ? `${again}Now ${words(answer.id_pass.status)}.` : "Done.";
}

function batch({ results, cancelled_count, refund_totals }) {
  const unlike = results.length - cancelled_count;
  const replayed = results.filter(({ response }) => response?.replayed).length;
  const parts = [`${cancelled_count} cancelled`, `${refund_totals.map(money).join(", ") || "nothing"} refunded`];
  if (unlike) parts.push(`${unlike} refused`);
  const told = `${parts.join(", ")}.`;
  if (!replayed) return told;
  if (replayed === cancelled_count) return `The first answers again, nothing was changed now: ${told}`;
  return `${replayed} of them answered as before, nothing was changed for these: ${told}`;
}

/** The code that stands below the words. */
export const code = ({ ok, status, answer }) => (ok ? `${status} OK` : `${status || "no answer"} ${reason(answer)}`);

/** What cancelling would do to a pass now, for the button. */
export function prospect(pass, { inFlight, requireRefund, validateOnly }) {
  const refunds = pass.status !== "in_progress";
  const verb = validateOnly ? "Check" : "Cancel";
  if (!inFlight || (requireRefund && !refunds)) return `${validateOnly ? "Check" : "Try to cancel"} (will be refused)`;
  return refunds ? `${verb} · refunds ${money(pass.fee)}` : `${verb} · fee kept`;
}
