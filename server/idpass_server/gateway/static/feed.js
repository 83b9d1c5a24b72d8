// The live feed: the account's events as they happen.

import { byId, make, money, onFrame, setText, words } from "./dom.js";

const KEPT = 60;
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

export class Feed {
  /** Calls `heard` for each event after `after`, and `lost` if the stream cannot be resumed. */
  constructor(passes, heard, lost) {
    this.passes = passes;
    this.heard = heard;
    this.lost = lost;
    this.waiting = [];
    this.show = onFrame(() => this.flush());
  }

  start(after, before) {
    this.after = after;
    byId("feed").replaceChildren();
    this.stop();
    const source = new EventSource(`/idpass/events?after_sequence=${Math.max(0, before)}`);
    this.source = source;
    let opened = false;
    source.addEventListener("open", () => {
      this.live("live", true);
      // A reset may have been missed; after one, old sequences stand for new events.
      if (opened) this.lost();
      opened = true;
    });
    source.addEventListener("message", ({ data }) => this.take(JSON.parse(data)));
    source.addEventListener("error", () => {
      this.live("reconnecting", false);
      // The browser reconnects by itself, unless the stream was refused.
      if (source.readyState !== EventSource.CLOSED) return;
      // There may be no events as far back as that: numbers skip ahead where a backup was restored.
      if (!opened && before !== after && source === this.source) return this.start(after, after);
      setTimeout(() => source === this.source && this.lost(), 1000);
    });
  }

  /** Ignores events until the next start: they may be from before a reset. */
  stop() {
    this.source?.close();
    this.waiting = [];
    this.live("connecting", false);
  }

  live(text, on) {
    setText(byId("live"), text);
    byId("live").classList.toggle("on", on);
  }

  take(event) {
    this.waiting.push(event);
    if (event.sequence > this.after) this.heard(event);
    this.show();
  }

  flush() {
    const list = byId("feed");
    const latest = this.waiting.splice(0).slice(-KEPT);
    list.prepend(...latest.reverse().map((event) => this.item(event)));
    while (list.children.length > KEPT) list.lastChild.remove();
  }

  item(event) {
    const {
      sequence, id_pass_id, from_status, to_status, event_time, refund, caller, erased, reference,
    } = event;
    const name = this.passes.get(id_pass_id)?.applicant_reference || id_pass_id;
    const time = new Date(event_time);
    const today = Date.now() - time < 86_400_000;
    return make("li", { class: sequence > this.after && "fresh" },
      make("span", {}, `#${sequence}`),
      make("span", {},
        name, ": ",
        from_status && !erased ? `${words(from_status)} → ` : "",
        make("span", { class: `status ${to_status}` }, words(to_status)),
        erased ? ", applicant erased" : "",
        refund ? make("span", { class: "refund" }, ` ${money(refund)} refunded`) : "",
        caller === "demo" ? "" : ` by ${caller}`,
        make("code", {}, reference)),
      make("time", { datetime: event_time, title: event_time }, (today ? clock : day).format(time)));
  }
}
