// Events and webhooks share a place below the list, which can be folded.

import { byId, setText } from "./dom.js";

/** Makes tabs of the buttons in an element. Returns { show(id) }. */
export function tabs(element) {
  const all = [...element.querySelectorAll("[role=tab]")];
  const show = (id) => {
    fold(false);
    for (const tab of all) {
      const on = tab.getAttribute("aria-controls") === id;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = !on;
    }
  };
  for (const tab of all) {
    tab.addEventListener("click", () => show(tab.getAttribute("aria-controls")));
    tab.addEventListener("keydown", ({ key }) => {
      if (key !== "ArrowLeft" && key !== "ArrowRight") return;
      const next = all.filter(({ hidden }) => !hidden).find((other) => other !== tab);
      next?.focus();
      next?.click();
    });
  }
  return { show };
}

function fold(on) {
  byId("activity").classList.toggle("folded", on);
  byId("fold").setAttribute("aria-expanded", !on);
  setText(byId("fold"), on ? "Show" : "Hide");
}

export function foldable() {
  byId("fold").addEventListener("click", () => fold(!byId("activity").classList.contains("folded")));
}
