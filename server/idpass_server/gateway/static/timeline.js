// What has happened to a pass: who, why, when, and the reference to ask about.

import { button, copy, foreign, make, money, when, words } from "./dom.js";

/** List items, newest first. Args: `events`, oldest first; `grown`: whether the last one has just come. */
export function timeline(events, pass, grown) {
  return events.map((event, index) => item(event, pass, grown && index === events.length - 1)).reverse();
}

function item(event, pass, fresh) {
  const { to_status, event_time, caller, reason, refund, erased, reference } = event;
  const note = to_status === "cancelled" && !erased && pass.cancellation?.note;
  const copyable = button(reference, () => copy(reference, copyable), { class: "plain reference", title: "Copy the reference" });
  return make("li", { class: `${to_status} ${fresh ? "fresh" : ""}`, "data-sequence": event.sequence },
    make("div", { class: "what" },
      make("span", { class: `status ${to_status}` }, erased ? "applicant erased" : words(to_status)),
      refund && make("span", { class: "refund" }, `${money(refund)} refunded`),
      to_status === "cancelled" && !refund && !erased && make("span", { class: "muted" }, "fee kept"),
      make("time", { datetime: event_time, title: event_time }, when(event_time))),
    make("div", { class: "muted" },
      "by ", foreign(caller), reason && ` · ${words(reason)}`, note && " · “", note && foreign(note), note && "”", " · ", copyable));
}
