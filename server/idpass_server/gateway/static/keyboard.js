// Keys for what the hand does most, and the overlay that lists them.

import { button, byId, make } from "./dom.js";

const ROWS = [
  [["↓", "↑"], "Next and previous pass"],
  [["Home", "End"], "First and last pass"],
  [["x"], "Tick the pass; with Shift and an arrow, several"],
  [["c"], "Cancel the ticked passes, or the one shown"],
  [["r"], "Replay: the latest request again"],
  [["/"], "Search"],
  [["Esc"], "Leave: the search, the ticks, the pass"],
  [["?"], "These keys"],
];

export class Help {
  constructor() {
    this.dialog = make("dialog", { id: "keys", "aria-label": "Keyboard shortcuts" },
      make("h2", {}, "Keyboard"),
      make("dl", {}, ...ROWS.flatMap(([keys, what]) => [make("dt", {}, ...keys.map((key) => make("kbd", {}, key))), make("dd", {}, what)])),
      button("Close", () => this.dialog.close(), { class: "primary" }));
    this.dialog.addEventListener("click", ({ target }) => target === this.dialog && this.dialog.close());
    document.body.append(this.dialog);
    byId("help").addEventListener("click", () => this.open());
  }

  open() {
    this.dialog.showModal();
  }
}

/** Args: `keys`: what each key does, by its name; it is given the event. */
export function listen(keys) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.metaKey || event.ctrlKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    const typing = event.target.closest("input:not([type=checkbox], [type=radio]), select, textarea");
    if (typing && event.key !== "Escape") return;
    const arrow = event.key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(event.key);
    // Arrows belong to what is focused: a scrolling text, tabs, a radio button.
    if (arrow && event.target !== document.body && !event.target.closest("#list")) return;
    if (event.target.closest("[role=tab]") && arrow) return;
    const action = keys[event.key];
    if (!action) return;
    if (action(event) !== false) event.preventDefault();
  });
}
