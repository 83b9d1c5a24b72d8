// Which passes are looked at: a status and a text, kept in the address so that it can be passed on.

import { button, byId, make, setText, words } from "./dom.js";
import { STATUSES } from "./passes.js";

export class Filters {
  /** Calls `changed` when other passes are wanted. */
  constructor(changed) {
    this.changed = changed;
    this.search = byId("search");
    const asked = new URLSearchParams(location.search);
    this.status = STATUSES.includes(asked.get("status")) ? asked.get("status") : "";
    this.search.value = (asked.get("q") ?? "").slice(0, 200);
    this.chosen = asked.get("pass") ?? "";
    this.buttons = ["", ...STATUSES].map((status) => this.button(status));
    byId("filters").append(...this.buttons.map((each) => each.element));
    this.search.addEventListener("input", () => this.tell());
    this.mark();
  }

  button(status) {
    const count = make("span");
    const name = status ? make("span", { class: `status ${status}` }, words(status)) : make("span", {}, "all");
    const element = button("", () => this.by(status), { "data-status": status });
    element.append(name, " ", count);
    return { status, element, count };
  }

  get text() {
    return this.search.value;
  }

  by(status, text = this.text) {
    this.status = status;
    this.search.value = text;
    this.tell();
  }

  tell() {
    this.mark();
    this.keep();
    this.changed();
  }

  mark() {
    for (const { status, element } of this.buttons) element.setAttribute("aria-pressed", String(status === this.status));
  }

  /** Keeps what is looked at, and the pass in the inspector, in the address. */
  keep(chosen = this.chosen) {
    this.chosen = chosen;
    const asked = new URLSearchParams();
    if (this.status) asked.set("status", this.status);
    if (this.text.trim()) asked.set("q", this.text.trim());
    if (chosen) asked.set("pass", chosen);
    history.replaceState(null, "", `${location.pathname}${String(asked) && `?${asked}`}${location.hash}`);
  }

  count(counts) {
    for (const { status, count } of this.buttons) setText(count, counts[status].toLocaleString("en"));
  }
}
