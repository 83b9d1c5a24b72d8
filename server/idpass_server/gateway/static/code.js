// What was just done: the request in several languages, and its answer, as facts first.

import { authorization, detail, reason } from "./api.js";
import { button, byId, copy, make, setText } from "./dom.js";
import { Forms } from "./forms.js";
import { hub, on } from "./hub.js";
import { outcome } from "./says.js";

const MARKED = new Set(["reference", "fee_refunded"]);
const LINE = /^(\s*)("(?:[^"\\]|\\.)*")(: )?(.*)$/;

/** JSON with its names and texts set apart, and what callers keep marked. */
function json(value) {
  const lines = JSON.stringify(value, null, 2).split("\n").flatMap((line) => {
    const found = LINE.exec(line);
    if (!found) return [line, "\n"];
    const [, indent, first, colon, rest] = found;
    if (!colon) return [indent, make("span", { class: "text" }, first), rest, "\n"];
    const pair = [make("span", { class: "key" }, first), colon, rest.startsWith('"') ? make("span", { class: "text" }, rest) : rest];
    return [indent, ...(MARKED.has(JSON.parse(first)) ? [make("mark", {}, ...pair)] : pair), "\n"];
  });
  return make("pre", { tabindex: "0", "aria-label": "Answer in JSON" }, ...lines.slice(0, -1));
}

/** What an error says, by name. */
function facts(answer) {
  const info = detail(answer, "ErrorInfo");
  if (!info) return undefined;
  const violations = detail(answer, "BadRequest")?.field_violations ?? [];
  const rows = [
    ["reason", info.reason],
    ...Object.entries(info.metadata ?? {}),
    ...violations.map(({ field, description }) => [field, description]),
    ["reference", detail(answer, "RequestInfo")?.request_id],
  ];
  return make("dl", {}, ...rows.filter(([, value]) => value)
    .flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function answered(exchange) {
  const { ok, status, answer, ms } = exchange;
  return [
    make("p", { class: "line" },
      make("strong", { class: ok ? "fine" : "refused" }, `${status || "no answer"} ${ok ? "OK" : reason(answer)}`),
      make("span", { class: "muted" }, `${ms.toFixed(ms < 10 ? 1 : 0)} ms`)),
    make("p", { class: "message" }, ok ? outcome(exchange) : answer.message),
    ok ? undefined : facts(answer),
    ok ? json(answer) : make("details", {}, make("summary", {}, "The error in JSON"), json(answer)),
  ].filter(Boolean);
}

export class Code {
  /** In an element; every panel remembers which language was chosen. */
  constructor(place) {
    this.place = place;
    this.language = "curl";
    this.text = make("pre", { tabindex: "0", class: "request", "aria-label": "Request" });
    this.languages = make("fieldset", { class: "languages" });
    this.copy = button("Copy", () => copy(this.text.textContent, this.copy), { class: "copy" });
    this.which = make("select", { "aria-label": "Which of the calls", onchange: () => this.one(Number(this.which.value)) });
    this.answer = make("div", { class: "answer" });
    this.gone = make("p", { class: "muted", hidden: true }, "That server was the show’s own; it is gone by now.");
    place.classList.add("code");
    place.append(make("div", { class: "code-bar" }, this.languages, this.which, this.copy), this.text, this.gone, this.answer);
  }

  /** Shows one exchange, or several that were sent together, one at a time. */
  show(exchanges, address = hub.grpcAddress) {
    if (!exchanges.length) return;
    this.exchanges = exchanges;
    this.address = address;
    this.which.hidden = exchanges.length < 2;
    this.which.replaceChildren(...exchanges.map((each, i) =>
      make("option", { value: i }, `${i + 1} of ${exchanges.length}: ${each.ok ? "OK" : reason(each.answer)}`)));
    this.place.hidden = false;
    this.one(Math.max(0, exchanges.findIndex(({ ok }) => ok)));
  }

  one(index) {
    const exchange = this.exchanges[index];
    this.which.value = String(index);
    const forms = new Forms({
      origin: location.origin, address: this.address, token: "authorization" in authorization(),
    }).all(exchange);
    const known = this.language in forms ? this.language : "curl";
    this.languages.replaceChildren(make("legend", { class: "hidden" }, "Show the request as"),
      ...Object.keys(forms).map((name) => make("label", {}, make("input", {
        type: "radio", name: `language-${this.place.id}`, value: name, checked: name === known,
        onchange: () => {
          this.language = name;
          setText(this.text, forms[name]());
        },
      }), name)));
    setText(this.text, forms[known]());
    this.gone.hidden = !exchange.path.startsWith("/sandbox/stage");
    this.answer.replaceChildren(...answered(exchange));
  }
}

/** Shows each exchange of the page in the inspector's lower part. */
export function showCode() {
  const code = new Code(byId("code"));
  on("exchange", (exchanges) => code.show(exchanges));
}
