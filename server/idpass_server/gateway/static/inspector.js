// The pass that was chosen: what it is, how long it lasts, and what it is linked with.

import { history } from "./api.js";
import { button, byId, copy, countdown, flash, foreign, make, money, nameOf, setText, when, words } from "./dom.js";
import { hub, tell } from "./hub.js";
import { Lifecycle } from "./lifecycle.js";
import { inFlight } from "./passes.js";
import { timeline } from "./timeline.js";

const FACTS = ["Fee", "Link", "Supersedes", "Superseded by", "Registered"];

export class Inspector {
  /** Args: `passes`; `actions` element, on top; `choose(id)` shows another pass; `close()`. */
  constructor({ passes, actions, choose, close }) {
    Object.assign(this, { passes, choose });
    this.name = foreign("", { id: "pass-name" });
    this.pill = make("span");
    this.id = button("", () => copy(this.pass.id, this.id), { class: "plain id", title: "Copy the id" });
    this.facts = Object.fromEntries(FACTS.map((name) => [name, make("dd")]));
    this.lifecycle = new Lifecycle();
    this.events = make("ol", { class: "timeline", "aria-label": "What has happened, newest first" });
    this.empty = make("div", { class: "empty" },
      make("h2", {}, "Life of a pass"),
      make("p", { class: "muted" }, "Choose a pass on the left. Cancel it, and see at once what comes of it: one winner, one refund, and a free retry."),
      make("p", { class: "muted keys" }, make("kbd", {}, "↓"), " next ", make("kbd", {}, "c"), " cancel ", make("kbd", {}, "?"), " all keys"));
    this.body = make("div", { class: "about", tabindex: "0", role: "region", "aria-label": "About the pass" },
      make("dl", { class: "facts" }, ...FACTS.map((name) => make("div", {}, make("dt", {}, name), this.facts[name]))),
      this.lifecycle.element,
      make("h3", {}, "Timeline"), this.events);
    this.full = make("div", { class: "full", hidden: true },
      make("header", {},
        make("div", { class: "title" }, make("h2", {}, this.name), this.pill,
          button("Close", close, { class: "plain close", "aria-label": "Close the pass" })),
        this.id),
      actions, this.body);
    this.resting = make("div", { class: "resting" });
    byId("pass").append(this.empty, this.full);
    this.empty.append(this.resting);
    this.resting.append(this.lifecycle.element);
    this.turn = 0;
    setInterval(() => this.tick(), 1000);
  }

  /** Shows a pass, or none. */
  show(pass) {
    const other = pass?.id !== this.pass?.id;
    this.pass = pass;
    hub.pass = pass;
    this.full.hidden = !pass;
    this.empty.hidden = Boolean(pass);
    if (other) {
      (pass ? this.body : this.resting).insertBefore(this.lifecycle.element, pass ? this.events.previousSibling : null);
      this.events.replaceChildren();
      this.lifecycle.show([], false);
      this.past = [];
    }
    if (pass) this.fill(pass, other);
    tell("selected", pass);
    return pass ? this.trace(pass, other) : undefined;
  }

  fill(pass, other) {
    setText(this.name, nameOf(pass));
    if (setText(this.pill, words(pass.status)) | other) {
      this.pill.className = `status pill ${pass.status}`;
      if (!other) flash(this.pill, "changed");
    }
    setText(this.id, pass.id);
    this.facts.Fee.replaceChildren(money(pass.fee), ...(pass.fee_refunded ? [make("strong", { class: "refund" }, ` refunded`)] : []));
    this.link("Supersedes", pass.supersedes);
    this.link("Superseded by", pass.superseded_by);
    setText(this.facts.Registered, `${when(pass.create_time)}${pass.caller ? ` by ${pass.caller}` : ""}`);
    this.tick();
  }

  link(name, id) {
    const fact = this.facts[name];
    fact.parentElement.hidden = !id;
    if (!id) return;
    const other = this.passes.get(id);
    const text = other ? `${nameOf(other)}, ${words(other.status)}` : id;
    if (fact.dataset.id === id && fact.textContent === text) return; // and the focus stays
    fact.dataset.id = id;
    fact.replaceChildren(make("a", {
      href: `?pass=${id}`,
      onclick: (event) => {
        event.preventDefault();
        this.choose(id);
      },
    }, foreign(text)));
  }

  /** The countdown. */
  tick() {
    const { pass } = this;
    if (!pass) return;
    const fact = this.facts.Link;
    if (inFlight(pass)) {
      const left = Date.parse(pass.expire_time) - Date.now();
      setText(fact, `expires in ${countdown(left)}, ${when(pass.expire_time)}`);
      fact.classList.toggle("soon", left < 86_400_000);
    } else {
      setText(fact, pass.status === "expired" ? `expired ${when(pass.expire_time)}` : `closed ${when(pass.end_time ?? pass.update_time)}`);
      fact.classList.remove("soon");
    }
  }

  async trace(pass, other) {
    const turn = (this.turn += 1);
    const events = await history(pass.id, pass.status);
    if (turn !== this.turn) return;
    const grown = !other && events.length > this.past.length;
    this.past = events;
    this.lifecycle.show(events, grown);
    this.events.replaceChildren(...timeline(events, pass, grown));
  }
}
