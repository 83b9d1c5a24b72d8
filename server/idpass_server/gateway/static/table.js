// The table of passes: a page of rows, filters, search and selection.

import { byId, make, money, age, setText, words } from "./dom.js";
import { IN_FLIGHT, STATUSES } from "./passes.js";

const PAGE = 12;

export class Table {
  /** Calls `selected` when the selection changes. */
  constructor(passes, selected) {
    this.passes = passes;
    this.selected = selected;
    this.picked = new Set();
    this.status = "";
    this.page = 0;
    this.rows = new Map();
    this.filters = ["", ...STATUSES].map((status) => this.filter(status));
    byId("filters").append(...this.filters.map((filter) => filter.button));
    byId("search").addEventListener("input", () => this.turn(-Infinity));
    byId("previous").addEventListener("click", () => this.turn(-1));
    byId("next").addEventListener("click", () => this.turn(1));
    byId("pick-all").addEventListener("change", ({ target }) => {
      for (const id of this.rows.keys()) this.pick(id, target.checked);
      this.changed();
    });
  }

  filter(status) {
    const count = make("span");
    const name = status ? words(status) : "all";
    const button = make("button", {
      type: "button",
      class: status,
      "aria-pressed": String(status === ""),
      onclick: () => {
        this.filterBy(status);
        this.turn(-Infinity);
      },
    }, status ? make("span", { class: `status ${status}` }, name) : name, " ", count);
    return { status, button, count };
  }

  filterBy(status) {
    this.status = status;
    for (const each of this.filters) each.button.setAttribute("aria-pressed", String(each.status === status));
  }

  turn(by) {
    this.page = Math.max(0, this.page + by);
    this.show();
  }

  pick(id, on) {
    if (on) this.picked.add(id);
    else this.picked.delete(id);
  }

  pickOnly(id) {
    this.picked.clear();
    this.picked.add(id);
    this.changed();
  }

  /** Selects only one pass, and turns to its page. */
  reveal(id) {
    if (!this.found().some((pass) => pass.id === id)) {
      byId("search").value = "";
      this.filterBy("");
    }
    this.page = Math.max(0, Math.floor(this.found().findIndex((pass) => pass.id === id) / PAGE));
    this.pickOnly(id);
  }

  clear() {
    this.picked.clear();
    this.changed();
  }

  /** The passes that match the filter and the search. */
  found() {
    return this.passes.matching(this.status, byId("search").value);
  }

  /** The selected passes, the latest selected last. */
  selection() {
    return [...this.picked].map((id) => this.passes.get(id)).filter(Boolean);
  }

  changed() {
    this.show();
    this.selected();
  }

  show() {
    const counts = this.passes.counts();
    counts[""] = this.passes.byId.size;
    for (const { status, count } of this.filters) setText(count, String(counts[status]));

    const found = this.found();
    const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
    this.page = Math.min(this.page, last);
    const start = this.page * PAGE;
    const shown = found.slice(start, start + PAGE);
    this.showRows(shown);
    byId("none").hidden = found.length > 0;
    byId("previous").disabled = this.page === 0;
    byId("next").disabled = this.page === last;
    setText(byId("range"), found.length ? `${start + 1}–${start + shown.length} of ${found.length.toLocaleString("en")}` : "");
    byId("pick-all").checked = shown.length > 0 && shown.every(({ id }) => this.picked.has(id));
  }

  /** A row stays with its pass, so that the keyboard focus is kept. */
  showRows(shown) {
    const body = byId("rows");
    const wanted = new Set(shown.map(({ id }) => id));
    for (const [id, row] of this.rows) {
      if (!wanted.has(id)) {
        row.element.remove();
        this.rows.delete(id);
      }
    }
    shown.forEach((pass, index) => {
      const row = this.rows.get(pass.id) ?? this.row(pass);
      this.rows.set(pass.id, row);
      if (body.children[index] !== row.element) body.insertBefore(row.element, body.children[index] ?? null);
      this.fill(row, pass);
    });
  }

  row({ id, applicant_reference }) {
    const box = make("input", {
      type: "checkbox",
      onchange: () => {
        this.pick(id, box.checked);
        this.changed();
      },
    });
    const name = applicant_reference || "No reference";
    const status = make("span");
    const refund = make("small");
    const fee = make("span");
    const slot = make("td", { class: "wide muted" });
    const old = make("td", { class: "number muted" });
    const element = make("tr", { "data-id": id },
      make("td", { class: "pick" }, box),
      make("td", { class: "who" }, name, make("code", {}, id)),
      make("td", {}, status),
      make("td", { class: "number money" }, fee, refund),
      slot,
      old,
    );
    element.addEventListener("click", ({ target }) => {
      if (target !== box && !String(getSelection())) this.pickOnly(id);
    });
    return { element, box, name, status, fee, refund, slot, old };
  }

  fill(row, pass) {
    const on = this.picked.has(pass.id);
    row.box.checked = on;
    row.box.setAttribute("aria-label", `${row.name}, ${words(pass.status)}`);
    row.element.classList.toggle("picked", on);
    row.status.className = `status ${pass.status}`;
    setText(row.status, words(pass.status));
    setText(row.fee, money(pass.fee));
    setText(row.refund, pass.fee_refunded ? "refunded" : "");
    setText(row.slot, IN_FLIGHT.has(pass.status) ? "in use" : "released");
    setText(row.old, age(pass.create_time));
  }
}
