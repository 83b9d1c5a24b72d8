// The race: real calls that meet at one commit, and what becomes of them when something breaks.

import { Code } from "./code.js";
import { button, byId, make, nameOf, setText } from "./dom.js";
import { on, tell } from "./hub.js";
import { draw, table } from "./lanes.js";
import { inFlight } from "./passes.js";
import * as plays from "./plays.js";

const CALLERS = [2, 5, 20];

/** By the name that an address has behind its #. */
const SHOWS = {
  race: {
    name: "Many callers",
    about: "Several callers cancel the same pass at the same moment.",
    look: "One commit decides for all of them. One caller cancels, one fee goes back, everybody else is told what happened.",
    play: plays.race,
  },
  completion: {
    name: "Against completion",
    about: "A business cancels a pass while its applicant is being verified, and the result comes in at the same moment.",
    look: "Either may win; the loser is told by whom it was beaten.",
    lanes: 2,
    play: plays.completion,
  },
  lost: {
    name: "Lost answer",
    about: "This page cuts its own connection while its cancel is on the way to a slow disk, and sends the same request again.",
    look: "The retry has the same request_id, so it gets the first answer: replayed, and nothing refunded twice.",
    lanes: 2,
    play: plays.lost,
    staged: true,
  },
  killed: {
    name: "Server killed",
    about: "A server’s process is killed when a cancel is on disk and not answered yet. Another one starts on its file.",
    look: "The caller cannot know what happened, and need not: it asks again, and gets the first answer.",
    lanes: 4,
    play: plays.killed,
    staged: true,
  },
  slow: {
    name: "Slow disk",
    about: "Twenty callers cancel a pass each, 10 ms apart, at a server whose commits take 60 ms longer.",
    look: "While a commit is under way, the next batch gathers. Twenty calls need a handful of commits.",
    lanes: 20,
    play: plays.slow,
    staged: true,
  },
  slots: {
    name: "Full slots",
    about: "Passes are registered until an account with five slots has none left. Then one is cancelled.",
    look: "The sixth is refused. A cancel frees a slot at once, and the same request succeeds.",
    lanes: 8,
    play: plays.slots,
    staged: true,
  },
};

class Race {
  constructor(section) {
    this.section = section;
    this.tally = { cancel: 0, complete: 0 };
    this.playing = false;
    this.parts = {
      about: make("p", { class: "pitch" }),
      look: make("p", { class: "muted" }),
      status: make("p", { class: "result", role: "status" }),
      also: make("p", { class: "also" }),
      place: make("div", { class: "place" }),
      legend: make("p", { class: "legend" }),
      times: make("details", { class: "times", hidden: true }, make("summary", {}, "As a table")),
      start: button("Start", () => this.play(), { class: "primary", id: "race-start" }),
      code: make("div", { id: "race-code", hidden: true }),
    };
    this.code = new Code(this.parts.code);
    this.title = make("h2", { tabindex: "-1" }, "Race");
    this.tabs = Object.entries(SHOWS).map(([name, { name: text }]) => button(text, () => this.open(name), { "data-show": name }));
    this.callers = make("fieldset", { class: "callers" }, make("legend", {}, "Callers"), ...CALLERS.map((number) =>
      make("label", {}, make("input", {
        type: "radio", name: "callers", value: number, checked: number === CALLERS.at(-1),
      }), String(number))));
    const { about, look, status, also, place, legend, times, start, code } = this.parts;
    section.classList.add("race");
    section.append(
      make("header", {}, this.title, button("Close", () => this.close(), { class: "plain" })),
      make("div", { class: "shows", role: "group", "aria-label": "What to race" }, ...this.tabs),
      make("div", { class: "billing" }, make("div", {}, about, look), this.callers, start),
      status, place, also, legend, times, code,
    );
    this.callers.addEventListener("change", () => this.reserve());
    section.addEventListener("keydown", (event) => {
      // The page's own keys are about the pass below this panel.
      event.stopPropagation();
      if (event.key === "Escape") this.close();
    });
    on("race", (pass) => this.open("race", pass));
    on("play", (name) => this.open(name) && this.play());
    addEventListener("hashchange", () => this.follow());
    this.show("race");
    this.follow();
  }

  /** Opens what the address names. */
  follow() {
    const name = location.hash.slice(1);
    if (Object.hasOwn(SHOWS, name)) this.open(name);
  }

  /** Opens the panel with a show; returns false while another one is played. */
  open(name, pass) {
    if (this.playing) return false;
    this.pass = pass;
    if (this.section.hidden) {
      this.before = document.activeElement;
      this.section.hidden = false;
      this.title.focus({ preventScroll: true });
    }
    this.show(name);
    window.history.replaceState(null, "", `#${name}`);
    return true;
  }

  close() {
    this.section.hidden = true;
    window.history.replaceState(null, "", `${location.pathname}${location.search}`);
    if (this.before?.isConnected) this.before.focus();
  }

  show(name) {
    this.name = name;
    for (const tab of this.tabs) tab.setAttribute("aria-pressed", String(tab.dataset.show === name));
    const { about, look, status, also, place, legend, times, start, code } = this.parts;
    const own = name === "race" && this.pass && inFlight(this.pass);
    about.replaceChildren(SHOWS[name].about, ...(own ? [" They race for ", make("bdi", {}, nameOf(this.pass)), "."] : []));
    setText(look, SHOWS[name].look);
    for (const part of [status, also, legend]) setText(part, "");
    status.className = "result";
    place.replaceChildren();
    times.hidden = true;
    code.hidden = true;
    start.textContent = "Start";
    this.callers.hidden = name !== "race";
    this.reserve();
  }

  /** Keeps the room that the lanes will take, so that nothing moves when they come. */
  reserve() {
    const lanes = SHOWS[this.name].lanes ?? this.callers.querySelector(":checked").value;
    this.parts.place.style.setProperty("--lanes", lanes);
  }

  progress(text) {
    setText(this.parts.status, text);
  }

  async play() {
    if (this.playing) return;
    const { name, parts } = this;
    const show = SHOWS[name];
    this.show(name);
    this.playing = true;
    for (const each of [parts.start, ...this.tabs]) each.disabled = true;
    this.progress(show.staged ? "A server of this show’s own starts …" : "They are off …");
    try {
      const picture = await show.play({
        callers: Number(this.callers.querySelector(":checked").value),
        pass: this.pass,
        tally: this.tally,
        choose: (exchange) => this.code.show([exchange], exchange.address),
        progress: (text) => this.progress(text),
      });
      await this.draw(picture);
      tell("played", name);
    } catch (error) {
      this.progress(error.message);
      parts.status.classList.add("refused");
    }
    this.playing = false;
    for (const each of [parts.start, ...this.tabs]) each.disabled = false;
    parts.start.textContent = "Again";
    if (document.activeElement === document.body && !this.section.hidden) parts.start.focus();
  }

  async draw({ lanes, lines, pause, rows, result, also, legend, exchanges }) {
    const { status, place, times } = this.parts;
    const { name } = SHOWS[this.name];
    const slower = await draw(place, { lanes, lines, pause, summary: `${name}: ${result}` });
    this.progress(result);
    status.classList.add("fine");
    setText(this.parts.also, also);
    setText(this.parts.legend, `${legend}${slower > 1.5 ? ` Drawn ${Math.round(slower)} times slower than it was.` : ""}`);
    times.replaceChildren(times.firstChild, table(name, rows));
    times.hidden = false;
    this.code.show(exchanges);
  }
}

export const race = () => new Race(byId("race"));
