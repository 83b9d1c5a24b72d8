// The example column of an operation: the request, which can be changed and sent, as curl, and its answer.

import { call, readEvents, reason } from "./api.js";
import { button, copy, make, setText } from "./dom.js";
import { json } from "./describe.js";

const LISTENS_MS = 3000;
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Whether an operation changes something: Get, List and Watch do not. */
export const changes = (operation) => !/^(Get|List|Watch)/.test(operation);

/** The example column. `place`: { sandbox, account, signedIn }, of the server. */
export class Try {
  constructor({ path, verb, operationId, parameters = [] }, examples, place) {
    Object.assign(this, { path, verb, operationId, place, examples });
    this.id = (name) => `${operationId}-${name}`;
    this.values = new Map();
    this.inputs = parameters.filter(({ in: where }) => where !== "header").map((each) => this.input(each));
    this.request = verb === "get" ? undefined : make("textarea", {
      id: this.id("request"), rows: "4", spellcheck: "false", autocomplete: "off", oninput: () => this.changed(),
      onkeydown: (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.send(),
    });
    this.wrong = make("span", { class: "wrong", id: this.id("wrong"), role: "status" });
    this.curl = make("pre", { tabindex: "0", role: "group", "aria-label": "As a curl command" });
    this.line = make("p", { class: "line", role: "status" });
    this.answer = make("pre", { tabindex: "0", role: "group", "aria-label": "Answer" });
    this.go = button(this.label(), () => this.send(), { class: changes(operationId) ? "" : "primary" });
    this.element = this.draw();
    this.choose(0);
  }

  label() {
    return changes(this.operationId) ? "Send: this changes data" : "Send";
  }

  draw() {
    const note = changes(this.operationId)
      ? `Changes ${this.place.sandbox ? "mock" : "real"} data${this.place.account ? ` of account ${this.place.account}` : ""}.`
      : "Only reads.";
    const named = this.examples.length > 1 && make("select", {
      id: this.id("which"), onchange: ({ target }) => this.choose(target.selectedIndex),
    }, ...this.examples.map(({ summary }) => make("option", {}, summary)));
    return make("form", { class: "try", "aria-label": `Example of ${this.operationId}`, novalidate: true, onsubmit: (event) => {
      event.preventDefault();
      this.send();
    } },
      named && make("label", { class: "which" }, make("span", { class: "hidden" }, "Example"), named),
      ...this.inputs.map(({ label }) => label),
      this.request && make("label", { for: this.id("request") }, "Request"),
      this.request, this.wrong,
      make("div", { class: "send" }, this.go, make("span", { class: "muted" }, note)),
      make("div", { class: "head" }, make("h3", {}, "curl"), button("Copy", ({ target }) => copy(this.curl.textContent, target), { class: "plain" })),
      this.curl,
      make("div", { class: "head" }, make("h3", {}, "Answer")),
      this.line, this.answer);
  }

  input({ name, in: where, description, required, example = "" }) {
    const field = make("input", {
      id: this.id(name), autocomplete: "off", spellcheck: "false", placeholder: required ? "" : "not set", title: description, oninput: () => {
        this.values.set(name, field.value.trim());
        this.changed();
      },
    });
    return { name, where, field, example, label: make("label", { class: "input" }, make("code", {}, name), field) };
  }

  choose(index) {
    const { request, answer } = this.examples[index] ?? {};
    for (const { name, field, example } of this.inputs) {
      field.value = example;
      this.values.set(name, field.value);
    }
    if (this.request) {
      this.request.value = JSON.stringify(request ?? {}, null, 2);
      this.request.rows = this.request.value.split("\n").length;
    }
    if (answer === undefined) setText(this.line, "Send it to see.");
    else this.example({ status: 200, reason: "OK", value: answer });
    this.changed();
  }

  show(answer) {
    this.answer.hidden = answer === undefined;
    this.answer.replaceChildren(...json(answer));
  }

  /** Shows an answer that the document has, such as an error. */
  example({ status, reason: why, value }) {
    this.line.className = `line ${status < 400 ? "" : "refused"}`;
    setText(this.line, `${status} ${why} · an example`);
    this.show(value);
  }

  /** The path with its parameters in it. */
  target() {
    let path = this.path;
    const query = new URLSearchParams();
    for (const { name, where } of this.inputs) {
      const value = this.values.get(name);
      if (where === "path") path = path.replace(`{${name}}`, encodeURIComponent(value || `{${name}}`));
      else if (value) query.set(name, value);
    }
    return query.size ? `${path}?${query}` : path;
  }

  changed() {
    this.sure = false;
    setText(this.go, this.label());
    setText(this.wrong, "");
    this.request?.removeAttribute("aria-invalid");
    const lines = [`curl ${quoted(location.origin + this.target())}`];
    if (this.place.signedIn) lines.push(`-H "Authorization: Bearer $IDPASS_TOKEN"`);
    if (this.request) lines.push("-H 'Content-Type: application/json'", `-d ${quoted(compact(this.request.value))}`);
    setText(this.curl, lines.join(" \\\n  "));
  }

  /** The request as it is written, or undefined if it is no JSON object, which is said beside it. */
  body() {
    try {
      const body = JSON.parse(this.request.value);
      if (body && typeof body === "object" && !Array.isArray(body)) return body;
      setText(this.wrong, "This is JSON, and no object: begin with {.");
    } catch (error) {
      setText(this.wrong, `This is no JSON: ${error.message}.`);
    }
    this.request.setAttribute("aria-invalid", "true");
    this.request.setAttribute("aria-describedby", this.wrong.id);
    this.request.focus();
    return undefined;
  }

  async send() {
    const body = this.request && this.body();
    if (this.request && !body) return;
    if (changes(this.operationId) && !this.place.sandbox && !this.sure) {
      this.sure = true;
      setText(this.go, "Really: send it, and change real data");
      return;
    }
    this.go.disabled = true;
    setText(this.line, "Sending …");
    if (this.operationId === "WatchIdPasses") await this.listen();
    else this.told(await call(this.target(), body));
    this.go.disabled = false;
    this.changed();
  }

  told({ ok, status, answer, ms }) {
    this.line.className = `line ${ok ? "fine" : "refused"}`;
    setText(this.line, `${status || "No answer"} ${ok ? "OK" : reason(answer)} · ${Math.round(ms)} ms`);
    this.show(answer);
  }

  /** Reads the stream for a while. */
  async listen() {
    const events = [];
    const started = performance.now();
    const stop = AbortSignal.timeout(LISTENS_MS);
    const refused = await readEvents(Object.fromEntries([...this.values].filter(([, value]) => value)), (event) => {
      events.push(event);
      this.show(events);
      return events.length < 20;
    }, { signal: stop }).then((status) => status !== 200, () => false);
    // What refuses a stream is told by the same request as a call.
    if (refused) this.told(await call(this.target()));
    else this.told({ ok: true, status: 200, answer: events, ms: performance.now() - started });
  }
}

/** JSON without its spaces; what is no JSON stays as it is. */
function compact(text) {
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    return text;
  }
}
