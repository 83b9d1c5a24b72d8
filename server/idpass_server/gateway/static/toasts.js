// What came of a request: a sentence, the code and reference below, and what to do with it.

import { button, byId, copy, make } from "./dom.js";
import { on, sendAll } from "./hub.js";
import { code, outcome } from "./says.js";

const SHOWN_MS = 9000;
const MOST = 3;
let last = []; // the latest requests, sent together

/** Args: `{ text, tone: "fine" | "refused" | "", below, buttons }`. Returns how to take it away. */
export function toast({ text, tone = "", below = [], buttons = [] }) {
  const close = () => element.remove();
  const element = make("div", { class: `toast ${tone}` },
    make("div", { class: "words" },
      make("p", { class: "said" }, text),
      below.length && make("p", { class: "below" }, ...below)),
    make("div", { class: "do" }, ...buttons),
    button("×", close, { class: "plain close", "aria-label": "Dismiss" }));
  const box = byId("toasts");
  box.append(element);
  while (box.children.length > MOST) box.firstChild.remove();
  let timer = setTimeout(close, SHOWN_MS);
  for (const name of ["pointerenter", "focusin"]) element.addEventListener(name, () => clearTimeout(timer));
  for (const name of ["pointerleave", "focusout"]) element.addEventListener(name, () => { timer = setTimeout(close, SHOWN_MS); });
  return close;
}

/** Sends the latest requests again, byte for byte. */
export function replay() {
  return last.length ? sendAll(last, { again: true }) : toast({ text: "Nothing has been sent yet that could be sent again." });
}

export const forget = () => { last = []; };

/**
 * Tells of each exchange, unless it says `quiet`. Args: `known(id)` gives a pass; `showEvent(exchange)`
 * shows the event that it made, and is left out where there is none.
 */
export function tellOfExchanges(known, showEvent) {
  on("exchange", (exchanges, { quiet, again, pass }) => {
    last = exchanges.map(({ path, body }) => ({ path, body }));
    if (quiet) return;
    for (const exchange of exchanges) said(exchange, pass ?? known(exchange.body?.id), again, showEvent);
  });
}

function said(exchange, pass, again, showEvent) {
  const { ok, reference } = exchange;
  const copyable = button(reference, () => copy(reference, copyable), { class: "plain reference", title: "Copy the reference" });
  toast({
    text: outcome(exchange, pass),
    tone: ok ? "fine" : "refused",
    below: [make("code", {}, code(exchange)), reference && copyable].filter(Boolean),
    buttons: [
      !again && button("Replay", replay, { title: "Send the same request again" }),
      ok && showEvent(exchange) && button("Show event", showEvent(exchange)),
    ].filter(Boolean),
  });
}
