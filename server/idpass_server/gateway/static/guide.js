// A strip of six steps through what cancelling is about. Each does one thing for real and says what to
// look at; a step is done when the service has answered so, whoever asked it.

import { call, detail, reason } from "./api.js";
import { button, byId, make, money, nameOf, setText, words } from "./dom.js";
import { on, requestId, selected, send, tell } from "./hub.js";
import { inFlight } from "./passes.js";

const IDLE_DAYS = 3;
const MOST = 1000; // passes in one batch
const KEPT = "idpass-guide";

const isCancel = ({ path }) => path.endsWith("/cancel");

const STEPS = [
  {
    key: "cancel",
    name: "Cancel",
    text: "Choose a pass that is new, and press its cancel button: it says beforehand what goes back.",
    act: "Choose a new pass",
    look: "The fee is counted back in the bar above, a slot is free again, and the answer has a reference.",
    does: (guide) => guide.choose(["new"], "cancel"),
    done: ({ ok, body, answer }) => ok && answer.fee_refunded && !answer.replayed && !body.validate_only,
    of: isCancel,
  },
  {
    key: "again",
    name: "Again",
    text: "Cancel a pass that is already cancelled, as a caller would who lost the first answer.",
    act: "Cancel it again",
    look: "Refused, yet it settles the matter: when it was cancelled, and that the fee went back once.",
    does: (guide) => guide.again(),
    done: ({ ok, answer }) => !ok && reason(answer) === "PASS_ALREADY_CANCELLED",
    of: isCancel,
  },
  {
    key: "race",
    name: "Race",
    text: "Twenty callers cancel one pass at the same moment.",
    act: "Race 20 callers",
    look: "They meet at one commit: one cancels, one fee goes back, nineteen are told.",
    does: () => tell("play", "race"),
  },
  {
    key: "replay",
    name: "Replay",
    text: "Send a cancel again byte for byte, with the same request_id.",
    act: "Replay a cancel",
    look: "The first answer again, with “replayed”: the same reference, and nothing refunded twice.",
    does: (guide) => guide.replay(),
    done: ({ ok, answer }) => ok && answer.replayed,
    of: isCancel,
  },
  {
    key: "supersede",
    name: "Supersede",
    text: "Issue a pass again: the prior one is cancelled and a new one takes its slot, in one transaction.",
    act: "Issue one again",
    look: "The slots in use stay the same. The two passes are linked in the inspector, both ways.",
    does: (guide) => guide.supersede(),
    done: ({ ok, answer }) => ok && answer.superseded,
    of: ({ path }) => path.endsWith("/register"),
  },
  {
    key: "cleanup",
    name: "Clean up",
    text: `Find the passes on which nothing has happened for ${IDLE_DAYS} days, and cancel them together.`,
    act: "Preview",
    look: "Each is decided by itself, from the status that it has at that moment.",
    does: (guide) => guide.preview(),
    done: ({ ok, body }) => ok && body.requests.every(({ validate_only, reason: why }) => !validate_only && why === "abandoned"),
    of: ({ path }) => path.endsWith("/batch-cancel"),
  },
];

class Guide {
  /** Args: `reveal(pass)` puts a pass into list and inspector, whatever was looked at. */
  constructor(place, reveal) {
    this.reveal = reveal;
    const kept = read();
    this.done = new Set(kept.done ?? []);
    this.steps = STEPS.map((step, i) => button("", () => this.go(step.key), { class: "step", "data-step": step.key, title: step.text }));
    STEPS.forEach(({ name }, i) => this.steps[i].append(make("b", { "aria-hidden": "true" }, String(i + 1)), make("span", {}, name), make("i", { class: "hidden" })));
    this.text = make("p", { class: "text" });
    this.said = make("p", { class: "said muted", role: "status" });
    this.act = button("", () => this.run(), { class: "act" });
    this.leave = button("×", () => { place.hidden = true; }, { class: "plain leave", "aria-label": "Hide the guide" });
    place.append(make("div", { class: "steps-of", role: "group", "aria-label": "Steps" }, ...this.steps),
      make("div", { class: "now" }, this.text, this.said), this.act, this.leave);
    on("exchange", (exchanges, { quiet }) => this.heard(exchanges, quiet));
    on("played", (name) => name === "race" && this.finish("race", STEPS[2].look));
    on("loaded", () => { this.cancelled = undefined; });
    this.go(STEPS.some(({ key }) => key === kept.step) ? kept.step : STEPS[0].key);
    this.follow();
    addEventListener("hashchange", () => this.follow());
  }

  /** Goes to the step that the address names. */
  follow() {
    const key = location.hash.slice(1);
    if (STEPS.some((step) => step.key === key)) this.go(key);
  }

  get step() {
    return STEPS.find(({ key }) => key === this.key);
  }

  go(key) {
    this.key = key;
    byId("guide").hidden = false;
    const { text, act } = this.step;
    setText(this.text, text);
    setText(this.act, act);
    setText(this.said, "");
    this.run = this.guarded(() => this.step.does(this));
    this.mark();
  }

  mark() {
    STEPS.forEach(({ key }, i) => {
      this.steps[i].setAttribute("aria-current", key === this.key ? "step" : "false");
      this.steps[i].classList.toggle("done", this.done.has(key));
      setText(this.steps[i].lastChild, this.done.has(key) ? ", done" : "");
    });
    write({ step: this.key, done: [...this.done] });
  }

  /** Something to do that says itself what went wrong, once at a time. */
  guarded(work) {
    return async () => {
      this.act.disabled = true;
      try {
        await work();
      } catch (error) {
        this.say(error.message);
      }
      this.act.disabled = false;
    };
  }

  say(text) {
    setText(this.said, text);
  }

  /** Another thing to do next, within a step. */
  offer(label, work) {
    setText(this.act, label);
    this.run = this.guarded(work);
  }

  heard(exchanges, quiet) {
    for (const exchange of exchanges) {
      if (exchange.ok && isCancel(exchange) && !exchange.body.validate_only) this.cancelled = exchange.body;
      if (quiet) continue;
      for (const step of STEPS) if (step.of?.(exchange) && step.done(exchange)) this.finish(step.key, step.look);
    }
  }

  /** A step is done: says what to look at, and offers the next one. */
  finish(key, look) {
    this.done.add(key);
    if (key === this.key) {
      this.say(look);
      const next = STEPS[STEPS.findIndex((step) => step.key === key) + 1];
      this.offer(next ? `Next: ${next.name}` : "Begin again", () => this.go(next?.key ?? STEPS[0].key));
    }
    this.mark();
  }

  /** The newest pass in one of some statuses, registered if there is none. */
  async newest(statuses) {
    const { ok, answer } = await call("/idpass/list", { statuses, page_size: 1 });
    if (ok && answer.id_passes.length) return answer.id_passes[0];
    const made = await call("/idpass/register", { request_id: requestId(), applicant_reference: "Guide" });
    if (!made.ok) throw new Error(made.answer.message);
    return made.answer.id_pass;
  }

  async choose(statuses, focus) {
    const pass = await this.newest(statuses);
    this.reveal(pass);
    this.say(`${nameOf(pass)} is ${words(pass.status)}. Its button is in the inspector; the key c does the same.`);
    byId(focus)?.focus();
  }

  async again() {
    const id = this.cancelled?.id ?? (selected()?.status === "cancelled" ? selected().id : (await this.newest(["cancelled"])).id);
    await send("/idpass/cancel", { id });
  }

  async replay() {
    if (!this.cancelled?.request_id) await send("/idpass/cancel", { id: (await this.newest(["new", "opened"])).id, request_id: requestId() }, { quiet: true });
    if (this.cancelled) await send("/idpass/cancel", this.cancelled);
  }

  async supersede() {
    const prior = selected() && inFlight(selected()) ? selected() : await this.newest(["new", "opened"]);
    const { ok, answer } = await send("/idpass/register", {
      request_id: requestId(), applicant_reference: prior.applicant_reference, supersedes: prior.id,
    });
    if (ok) this.reveal(answer.id_pass);
  }

  /** Finds the abandoned passes, asks what cancelling them would bring, and offers that. */
  async preview() {
    const idle_before = new Date(Date.now() - IDLE_DAYS * 86_400_000).toISOString();
    const { id_passes, next_page_token } = await answered("/idpass/list", {
      statuses: ["new", "opened", "in_progress"], idle_before, page_size: MOST,
    });
    const ids = id_passes.map(({ id }) => id);
    if (!ids.length) {
      this.say(`No pass has been idle for ${IDLE_DAYS} days. Reset the mock data, and there are some.`);
      return;
    }
    const answer = await answered("/idpass/batch-cancel", batch(ids, true));
    const kept = answer.cancelled_count - answer.refunded_count;
    this.say(`Idle for ${IDLE_DAYS} days${next_page_token ? `, the newest ${MOST}` : ""}: ${count(answer.cancelled_count)}, ${back(answer)} back${kept ? `, ${kept} whose fee is kept` : ""}. Only checked so far.`);
    this.offer(`Cancel ${count(ids.length)}`, () => this.clean(ids));
  }

  async clean(ids) {
    const answer = await answered("/idpass/batch-cancel", batch(ids, false), {});
    this.say(`${count(answer.cancelled_count)} cancelled, ${back(answer)} back. ${this.step.look}`);
  }
}

/** Sends something, by default without a toast; resolves to the answer. */
async function answered(path, body, about = { quiet: true }) {
  const { ok, answer } = await send(path, body, about);
  if (!ok) throw new Error(answer.message);
  return answer;
}

const count = (number) => `${number} ${number === 1 ? "pass" : "passes"}`;
const back = ({ refund_totals }) => refund_totals.map(money).join(" and ") || "nothing";

const batch = (ids, validate_only) => ({
  requests: ids.map((id) => ({ id, request_id: requestId(), reason: "abandoned", ...(validate_only && { validate_only }) })),
});

// A browser may refuse to keep anything.

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
}

function write(state) {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(state));
  } catch {
    // It is forgotten with the page then.
  }
}

export const guide = (reveal) => new Guide(byId("guide"), reveal);
