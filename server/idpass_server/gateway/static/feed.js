// The account's events, newest first.

import { pastEvents } from "./api.js";
import { button, byId, flash, foreign, make, money, nameOf, onFrame, setText, words } from "./dom.js";

const KEPT = 60;
const EARLIER = 12; // events shown from before the page was opened
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

export class Feed {
  /** Args: `choose(id)` shows a pass. */
  constructor(passes, choose) {
    Object.assign(this, { passes, choose });
    this.list = byId("feed");
    this.waiting = [];
    this.turn = 0;
    this.show = onFrame(() => this.flush());
  }

  /** Begins anew, with some of what was before. */
  async start({ last_sequence, oldest_sequence = 0 }) {
    const turn = (this.turn += 1);
    this.waiting = [];
    this.list.replaceChildren();
    const after_sequence = Math.max(oldest_sequence, last_sequence - EARLIER, 0);
    if (after_sequence >= last_sequence) return;
    const events = await pastEvents({ after_sequence }, ({ sequence }) => sequence >= last_sequence);
    if (turn !== this.turn) return;
    this.list.append(...events.filter(({ sequence }) => sequence <= last_sequence).reverse().map((event) => this.item(event)));
  }

  take(event) {
    this.waiting.push(event);
    this.show();
  }

  flush() {
    const latest = this.waiting.splice(0).slice(-KEPT);
    this.list.prepend(...latest.reverse().map((event) => this.item(event, "fresh")));
    while (this.list.children.length > KEPT) this.list.lastChild.remove();
  }

  /** A pass is known now, or is called otherwise. */
  named(pass) {
    for (const item of this.list.children) if (item.dataset.id === pass.id) setText(item.querySelector("bdi"), nameOf(pass));
  }

  /** Brings the event with a reference into view. Returns false where it is not here. */
  find(reference) {
    const found = [...this.list.children].find((item) => item.dataset.reference === reference);
    found?.scrollIntoView({ block: "nearest" });
    if (found) flash(found, "fresh");
    return Boolean(found);
  }

  item(event, fresh = "") {
    const { sequence, id_pass_id, from_status, to_status, event_time, refund, caller, erased, reference } = event;
    const pass = this.passes.get(id_pass_id);
    const time = new Date(event_time);
    const today = Date.now() - time < 86_400_000;
    return make("li", { class: fresh, "data-reference": reference, "data-id": id_pass_id },
      make("span", {}, `#${sequence}`),
      button(foreign(pass ? nameOf(pass) : id_pass_id), () => this.choose(id_pass_id), { title: "Show this pass" }),
      make("span", {},
        from_status && !erased && make("span", { class: "muted" }, `${words(from_status)} →`),
        make("span", { class: `status ${to_status}` }, words(to_status)),
        erased && make("span", {}, "applicant erased"),
        refund && make("span", { class: "refund" }, `${money(refund)} refunded`),
        caller !== "demo" && make("span", { class: "muted" }, "by ", foreign(caller))),
      make("time", { datetime: event_time, title: `${event_time}\n${reference}` }, (today ? clock : day).format(time)));
  }
}
