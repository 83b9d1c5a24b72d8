// The latest request, also as commands to copy, and its answer.

import { detail, reason } from "./api.js";
import { curl, grpcurl, http } from "./commands.js";
import { byId, make, money, words } from "./dom.js";

export const ORDER = ["First", "Second"];
const TOKENS = /("(?:[^"\\]|\\.)*")(\s*:)?/g;

/** JSON with its names and texts set apart. */
function json(value) {
  const text = JSON.stringify(value, null, 2);
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(TOKENS)) {
    parts.push(text.slice(end, match.index), make("span", { class: match[2] ? "key" : "text" }, match[1]));
    end = match.index + match[1].length;
  }
  return make("pre", { tabindex: "0", "aria-label": "Answer in JSON" }, ...parts, text.slice(end));
}

/** The outcome in one line. */
export function outcome({ ok, path, body, answer, status }) {
  if (!ok) return `Refused: ${status || "no answer"} ${reason(answer)}`;
  const checked = (body.requests?.[0] ?? body).validate_only ? "Checked only, nothing changed. It would be: " : "";
  return checked + said(path, answer);
}

function said(path, answer) {
  if (path === "/idpass/batch-cancel") return batch(answer);
  const again = answer.replayed ? "The first answer again, nothing changed now: " : "";
  if (path === "/idpass/cancel") {
    const from = answer.previous_status ? ` from ${words(answer.previous_status)}` : "";
    return `${again}Cancelled${from}, ${answer.fee_refunded ? `${money(answer.refund)} refunded` : "fee kept"}.`;
  }
  const superseded = answer.superseded ? ` in place of the prior one, ${answer.superseded.fee_refunded ? `${money(answer.superseded.refund)} refunded` : "whose fee is kept"}` : "";
  const what = path === "/idpass/register" ? `Registered${superseded}` : `Now ${words(answer.id_pass.status)}`;
  return `${again}${what}.`;
}

function batch({ results, cancelled_count, refund_totals }) {
  const refused = results.length - cancelled_count;
  const replayed = results.filter(({ response }) => response?.replayed).length;
  const refunds = refund_totals.map(money).join(", ") || "nothing";
  const parts = [`${cancelled_count} cancelled`, `${refunds} refunded`];
  if (refused) parts.push(`${refused} refused`);
  const told = `${parts.join(", ")}.`;
  if (!replayed) return told;
  if (replayed === cancelled_count) return `The first answers again, nothing changed now: ${told}`;
  return `${replayed} of them answered as before, nothing changed for these: ${told}`;
}

function facts(answer) {
  const info = detail(answer, "ErrorInfo");
  if (!info) return undefined;
  const rows = [["reason", info.reason], ...Object.entries(info.metadata ?? {})];
  const violations = detail(answer, "BadRequest")?.field_violations ?? [];
  rows.push(...violations.map(({ field, description }) => [field, description]));
  return make("dl", {}, ...rows.filter(([, value]) => value)
    .flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function answered(exchange, title) {
  const { ok, status, answer, ms } = exchange;
  return make("div", { class: `answer ${ok ? "fine" : "refused"}` },
    make("div", { class: "line" },
      title && make("strong", {}, title),
      make("span", { class: "code" }, `${status || "–"} ${ok ? "OK" : reason(answer)}`),
      make("span", { class: "took" }, `${ms.toFixed(0)} ms`)),
    make("p", { class: "message" }, ok ? outcome(exchange) : answer.message),
    ok ? undefined : facts(answer),
    json(answer));
}

export class Exchange {
  constructor(grpcAddress) {
    this.forms = { HTTP: http, curl, grpcurl: (request) => grpcurl(request, grpcAddress) };
    this.form = "HTTP";
  }

  /** Shows one exchange, or several that raced. */
  show(...exchanges) {
    const text = make("pre", { tabindex: "0", "aria-label": "Request" });
    const fill = () => {
      text.textContent = exchanges.map(this.forms[this.form]).join("\n\n");
    };
    fill();
    const copied = make("span", { class: "muted", role: "status" });
    const tab = (form) => make("label", {}, make("input", {
      type: "radio", name: "form", value: form, checked: form === this.form,
      onchange: () => {
        this.form = form;
        fill();
      },
    }), form);
    const copy = async () => {
      await navigator.clipboard.writeText(text.textContent);
      copied.textContent = "copied";
      setTimeout(() => { copied.textContent = ""; }, 1500);
    };
    const bar = make("div", { class: "bar" },
      make("fieldset", {}, make("legend", { class: "hidden" }, "Show request as"),
        ...Object.keys(this.forms).map(tab)),
      make("span", { class: "grow" }), copied,
      make("button", { type: "button", onclick: copy }, "Copy"));
    const titles = exchanges.length > 1 ? ORDER : [];
    byId("exchange").replaceChildren(bar, text, ...exchanges.map((each, i) => answered(each, titles[i])));
  }
}
