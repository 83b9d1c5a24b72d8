// The race: real calls that meet at one commit, and what becomes of them when something breaks.

import { draw, table } from "./lanes.js";
import { make, setText } from "./dom.js";
import * as plays from "./plays.js";

const CALLERS = [2, 5, 20];

/** By the name that an address has behind its #. */
const SHOWS = {
  race: {
    name: "One pass, many callers",
    about: "Several callers cancel the same pass at the same moment.",
    look: "One commit decides for all of them. One caller cancels, one fee goes back, everybody else is told what happened.",
    play: (race) => plays.race(race),
  },
  completion: {
    name: "Cancel against completion",
    about: "A business cancels a pass while its applicant is being verified, and the result comes in at the same moment.",
    look: "Either may win; the loser is told by whom it was beaten.",
    play: (race) => plays.completion(race),
  },
  lost: {
    name: "Lost answer",
    about: "This page cuts its own connection while its cancel is on the way to a slow disk, and sends the same request again.",
    look: "The retry has the same request_id, so it gets the first answer: replayed, and nothing refunded twice.",
    play: (race) => plays.lost(race),
  },
  killed: {
    name: "Server killed",
    about: "A server’s process is killed when a cancel is on disk and not answered yet. Another one starts on its file.",
    look: "The caller cannot know what happened, and need not: it asks again, and gets the first answer.",
    play: (race) => plays.killed(race),
  },
  slow: {
    name: "Slow disk",
    about: "Twenty callers cancel a pass each, 10 ms apart, at a server whose commits take 60 ms longer.",
    look: "While a commit is under way, the next batch gathers. Twenty calls need a handful of commits.",
    play: (race) => plays.slow(race),
  },
  slots: {
    name: "Full slots",
    about: "Passes are registered until an account with five slots has none left. Then one is cancelled.",
    look: "The sixth is refused. A cancel frees a slot at once, and the same request succeeds.",
    play: (race) => plays.slots(race),
  },
};

export class Race {
  /** In `section`; `chosen` gets the exchange of a lane that is to be looked at. */
  constructor(section, chosen) {
    this.chosen = chosen;
    this.tally = { cancel: 0, complete: 0 };
    this.playing = false;
    this.parts = {
      about: make("p", { class: "about" }),
      look: make("p", { class: "muted" }),
      status: make("p", { class: "result", role: "status" }),
      also: make("p", { class: "also" }),
      place: make("div", { class: "place" }),
      legend: make("p", { class: "legend" }),
      times: make("details", { class: "times", hidden: true }, make("summary", {}, "As a table")),
      start: make("button", { type: "button", class: "primary", onclick: () => this.play() }, "Start"),
    };
    this.tabs = Object.entries(SHOWS).map(([key, { name }]) => make("button", {
      type: "button", id: `show-${key}`, onclick: () => this.show(key),
    }, name));
    this.callers = make("fieldset", { class: "callers" }, make("legend", {}, "Callers"), ...CALLERS.map((number) =>
      make("label", {}, make("input", {
        type: "radio", name: "callers", value: number, checked: number === CALLERS.at(-1),
      }), String(number))));
    const { about, look, status, also, place, legend, times, start } = this.parts;
    section.classList.add("race");
    section.append(
      make("div", { class: "shows", role: "group", "aria-label": "What to race" }, ...this.tabs),
      make("div", { class: "billing" }, make("div", {}, about, look), this.callers, start),
      status, also, place, legend, times,
    );
    this.show("race");
  }

  /** Whether an address names a show here. */
  static has(name) {
    return name in SHOWS;
  }

  show(name) {
    if (this.playing) return;
    this.name = name;
    for (const tab of this.tabs) tab.setAttribute("aria-pressed", String(tab.id === `show-${name}`));
    const { about, look, status, also, place, legend, times } = this.parts;
    setText(about, SHOWS[name].about);
    setText(look, SHOWS[name].look);
    for (const part of [status, also, legend]) setText(part, "");
    status.className = "result";
    place.replaceChildren();
    times.hidden = true;
    this.callers.hidden = name !== "race";
  }

  progress(text) {
    setText(this.parts.status, text);
  }

  /** Plays what is shown; resolves to whether it was played to the end. */
  async play() {
    if (this.playing) return false;
    const { name, parts } = this;
    this.show(name);
    this.playing = true;
    for (const each of [parts.start, ...this.tabs]) each.disabled = true;
    this.progress(SHOWS[name].play.length && ["race", "completion"].includes(name) ? "They are off …" : "A server of this show’s own starts …");
    try {
      const picture = await SHOWS[name].play({
        callers: Number(this.callers.querySelector(":checked").value),
        choose: this.chosen,
        tally: this.tally,
        progress: (text) => this.progress(text),
      });
      await this.draw(picture);
      return true;
    } catch (error) {
      this.progress(error.message);
      parts.status.classList.add("refused");
      return false;
    } finally {
      this.playing = false;
      for (const each of [parts.start, ...this.tabs]) each.disabled = false;
      parts.start.textContent = "Again";
    }
  }

  async draw({ lanes, lines, rows, result, also, legend }) {
    const { status, place, times } = this.parts;
    const slower = await draw(place, { lanes, lines, summary: `${SHOWS[this.name].name}: ${result}` });
    this.progress(result);
    status.classList.add("fine");
    setText(this.parts.also, also);
    setText(this.parts.legend, `${legend}${slower > 1.5 ? ` Drawn ${Math.round(slower)} times slower than it was.` : ""}`);
    times.replaceChildren(times.firstChild, table(SHOWS[this.name].name, rows));
    times.hidden = false;
  }
}
