// The latest request, also as commands to copy, and its answer.

import { detail, reason } from "./api.js";
import { curl, grpcurl, http } from "./commands.js";
import { byId, make } from "./dom.js";
import { outcome } from "./says.js";

const ORDER = ["First", "Second"];
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
    byId("code").hidden = false;
    byId("code").replaceChildren(bar, text, ...exchanges.map((each, i) => answered(each, titles[i])));
  }
}
