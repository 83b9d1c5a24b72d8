// The list of passes. Only the rows in view, and a few around them, exist as elements.

import { byId, flash, foreign, make, money, age, nameOf, setText, words } from "./dom.js";

const AROUND = 8; // rows kept above and below those in view
const STAYS_MS = 1400; // a pass whose status was changed stays under a filter that it no longer fits

export class List {
  /**
   * Args: `wanted` gives the passes to show, newest first; `chosen` is called with the pass that is
   * now in the inspector, and whether a person chose it; `ticked` when the ticked ones change.
   */
  constructor({ wanted, chosen, ticked }) {
    Object.assign(this, { wanted, chosen, ticked });
    this.rows = new Map();
    this.shown = [];
    this.ids = new Map(); // id → its index in `shown`
    this.current = undefined;
    this.picked = new Set();
    this.staying = new Map();
    this.box = byId("rows");
    this.scroller = byId("scroller");
    this.scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.scroller);
    this.box.addEventListener("click", (event) => this.clicked(event));
    this.anchor = undefined;
  }

  get height() {
    this.measured ??= parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
    return this.measured;
  }

  clicked(event) {
    const id = event.target.closest(".row")?.dataset.id;
    if (!id || String(getSelection())) return;
    if (event.target.matches(".box") || event.metaKey || event.ctrlKey) this.tick(id);
    else if (event.shiftKey) this.tickTo(id);
    else this.choose(id, true);
  }

  /** Puts a pass into the inspector. */
  choose(id, byHand = false) {
    this.current = id;
    this.anchor = id;
    this.draw();
    this.chosen(id, byHand);
  }

  /** Goes some rows up or down. */
  step(by) {
    if (!this.shown.length) return;
    const from = this.ids.get(this.current) ?? (by > 0 ? -1 : this.shown.length);
    const to = Math.max(0, Math.min(this.shown.length - 1, from + by));
    this.scrollTo(to);
    this.choose(this.shown[to].id);
  }

  tick(id, on = !this.picked.has(id)) {
    if (on) this.picked.add(id);
    else this.picked.delete(id);
    this.anchor = id;
    this.changedTicks();
  }

  /** Ticks everything from where one was to here. */
  tickTo(id) {
    const ends = [this.ids.get(this.anchor) ?? this.ids.get(id), this.ids.get(id)].sort((a, b) => a - b);
    for (const pass of this.shown.slice(ends[0], ends[1] + 1)) this.picked.add(pass.id);
    this.changedTicks();
  }

  tickAll() {
    for (const { id } of this.shown) this.picked.add(id);
    this.changedTicks();
  }

  /** Args: `passes`: those; by default all. */
  untick(passes) {
    if (passes) for (const { id } of passes) this.picked.delete(id);
    else this.picked.clear();
    this.changedTicks();
  }

  changedTicks() {
    this.draw();
    this.ticked();
  }

  /** Keeps a pass in view for a moment, so that what became of it can be seen. */
  stay(id) {
    clearTimeout(this.staying.get(id));
    this.staying.set(id, setTimeout(() => {
      this.staying.delete(id);
      this.show();
    }, STAYS_MS));
  }

  /** Selects a pass and brings it into view. */
  reveal(id) {
    const index = this.ids.get(id);
    if (index !== undefined) this.scrollTo(index);
    this.choose(id);
  }

  scrollTo(index) {
    const [top, view] = [index * this.height, this.scroller.clientHeight];
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + this.height > this.scroller.scrollTop + view) this.scroller.scrollTop = top + this.height - view;
  }

  toTop() {
    this.scroller.scrollTop = 0;
  }

  /** Asks anew which passes are wanted, and draws them. */
  show() {
    this.shown = this.wanted(this.staying);
    this.ids = new Map(this.shown.map((pass, index) => [pass.id, index]));
    this.box.style.height = `${this.shown.length * this.height}px`;
    this.draw();
  }

  /** A row stays with its pass, so that what changes on it can be seen to change. */
  draw() {
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / this.height) - AROUND);
    const count = Math.ceil((this.scroller.clientHeight || 600) / this.height) + 2 * AROUND;
    const passes = this.shown.slice(first, first + count);
    const wanted = new Set(passes.map(({ id }) => id));
    if (this.current && !wanted.has(this.current)) this.box.removeAttribute("aria-activedescendant");
    for (const [id, row] of this.rows) {
      if (wanted.has(id)) continue;
      row.element.remove();
      this.rows.delete(id);
    }
    passes.forEach((pass, at) => {
      const row = this.rows.get(pass.id) ?? this.make(pass.id);
      this.fill(row, pass, first + at);
    });
  }

  make(id) {
    const row = {
      box: make("span", { class: "box" }),
      who: foreign("", { class: "who" }),
      status: make("span"),
      fee: make("span"),
      old: make("span", { class: "old number" }),
    };
    row.element = make("div", { class: "row", role: "option", id: `row-${id}`, "data-id": id }, row.box, row.who, row.status, row.fee, row.old);
    this.rows.set(id, row);
    return row;
  }

  fill(row, pass, index) {
    const { element } = row;
    if (row.index !== index) {
      row.index = index;
      element.style.transform = `translateY(${index * this.height}px)`;
      element.setAttribute("aria-posinset", index + 1);
    }
    if (!element.isConnected) this.place(element, index);
    element.setAttribute("aria-setsize", this.shown.length);
    element.setAttribute("aria-selected", this.picked.has(pass.id));
    const current = pass.id === this.current;
    element.classList.toggle("current", current);
    if (current) this.box.setAttribute("aria-activedescendant", element.id);
    element.classList.toggle("leaving", this.staying.has(pass.id));
    setText(row.who, nameOf(pass));
    if (setText(row.status, words(pass.status))) {
      const changed = row.known;
      row.status.className = `status ${pass.status}`;
      if (changed) flash(row.status, "changed");
      row.known = true;
    }
    setText(row.fee, `${money(pass.fee)}${pass.fee_refunded ? " refunded" : ""}`);
    row.fee.className = `fee number ${pass.fee_refunded ? "back" : ""}`;
    setText(row.old, age(pass.create_time));
  }

  /** Among the elements as in the list: that is the order in which they are read out. */
  place(element, index) {
    element.dataset.index = index;
    const after = [...this.box.children].find((other) => this.ids.get(other.dataset.id) > index);
    this.box.insertBefore(element, after ?? null);
  }
}
