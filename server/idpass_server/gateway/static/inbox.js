// The inbox: what a real receiver of the account's webhooks gets, and what the service does about it.

import { call } from "./api.js";
import { byId, foreign, make, nameOf, setText, words } from "./dom.js";

const SHOWN = 12;
const AFTER_MS = 250; // an event reaches the receiver in far less
const AGAIN_MS = 1000; // while something waits for another attempt

export class Inbox {
  constructor(passes) {
    this.passes = passes;
    this.timer = undefined;
    this.turn = 0;
    byId("inbox-fails").addEventListener("change", ({ target }) => this.change(
      "/sandbox/inbox/switch", { fails: target.checked },
    ));
  }

  /** Looks soon, since something has happened. */
  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), AFTER_MS);
  }

  async change(path, body) {
    await call(path, body);
    await this.look();
  }

  async look() {
    const turn = (this.turn += 1);
    const { ok, answer } = await call("/sandbox/inbox");
    if (turn !== this.turn) return;
    byId("tab-inbox").hidden = !(ok && answer.webhook);
    if (!ok || !answer.webhook) return;
    const { id } = answer.webhook;
    const deliveries = await call("/idpass/webhooks/deliveries", { id, page_size: SHOWN });
    if (turn !== this.turn || !deliveries.ok) return;
    this.show(answer, deliveries.answer.deliveries);
    clearTimeout(this.timer);
    if (deliveries.answer.deliveries.some(({ state }) => state === "pending")) {
      this.timer = setTimeout(() => this.look(), AGAIN_MS);
    }
  }

  show({ webhook, fails, received }, deliveries) {
    byId("inbox-fails").checked = fails;
    setText(byId("inbox-url"), webhook.url);
    byId("inbox-none").hidden = deliveries.length > 0;
    const checked = new Map(received.map((each) => [each.message_id, each]));
    byId("deliveries").replaceChildren(
      ...deliveries.map((each) => this.item(webhook.id, each, checked.get(each.message_id))),
    );
  }

  item(webhook, delivery, request) {
    const pass = this.passes.get(delivery.id_pass_id);
    const name = pass ? nameOf(pass) : delivery.id_pass_id;
    const pending = delivery.state === "pending";
    const last = delivery.attempts.at(-1);
    const facts = [
      request && (request.verified ? "signature checked" : "signature refused"),
      last && `answered ${last.status_code || last.error}`,
      delivery.attempt_count > 1 && `${delivery.attempt_count} attempts`,
      pending && again(delivery.next_attempt_time),
    ];
    return make("li", {},
      make("span", {}, `#${delivery.sequence}`),
      make("span", {},
        make("code", {}, delivery.type), " ", foreign(name),
        make("small", {}, facts.filter(Boolean).join(" · "))),
      make("span", { class: `delivery ${delivery.state}` }, words(delivery.state)),
      make("button", {
        type: "button",
        disabled: pending,
        "aria-label": `Redeliver event ${delivery.sequence}`,
        onclick: () => this.change("/idpass/webhooks/redeliver", {
          id: webhook, sequence: delivery.sequence,
        }),
      }, "Redeliver"));
  }
}

/** When it is tried again, in words. */
function again(time) {
  if (!time) return "waits for the event before it";
  const seconds = Math.max(0, Math.round((Date.parse(time) - Date.now()) / 1000));
  return seconds < 120 ? `again in ${seconds} s` : `again in ${Math.round(seconds / 60)} min`;
}
