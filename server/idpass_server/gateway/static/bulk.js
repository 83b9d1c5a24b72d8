// The bar for several passes: how many are ticked, wherever they are, and what can be done with them.

import { button, byId, make, setText, words } from "./dom.js";
import { inFlight } from "./passes.js";
import { bar } from "./session.js";

export const MOST = 1000; // passes in one batch

export class Bulk {
  /** Args: `list`; `ticked()` gives the ticked passes; `filter()` the status filtered by; `cancel(passes)`. */
  constructor({ list, ticked, filter, cancel }) {
    Object.assign(this, { list, ticked, filter });
    this.count = make("strong", { role: "status" });
    this.away = make("span", { class: "muted" });
    this.all = button("", () => list.tickAll(), { id: "select-all", class: "plain" });
    this.main = button("", () => cancel(ticked()), { id: "cancel-ticked", class: "primary" });
    byId("bulk").append(this.count, this.away, this.all, make("span", { class: "grow" }),
      button("Clear", () => list.untick(), { id: "untick", class: "plain" }), this.main);
  }

  show() {
    const passes = this.ticked();
    byId("bulk").hidden = !passes.length;
    if (!passes.length) return;
    const unseen = passes.filter(({ id }) => !this.list.ids.has(id)).length;
    const shown = this.list.shown.length;
    const possible = passes.filter(inFlight).length;
    setText(this.count, `${passes.length.toLocaleString("en")} selected`);
    setText(this.away, unseen ? `${unseen} of them not shown` : "");
    this.all.hidden = passes.length - unseen === shown;
    setText(this.all, `Select all ${shown.toLocaleString("en")} ${words(this.filter()) || "passes"}`);
    setText(this.main, passes.length > MOST ? `Cancel the first ${MOST.toLocaleString("en")}` : `Cancel ${passes.length} ${passes.length === 1 ? "pass" : "passes"}`);
    this.main.title = `${possible} of them can be cancelled; the others will be refused`;
    bar(this.main, "cancel");
  }
}
