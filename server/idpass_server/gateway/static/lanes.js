// Lanes in milliseconds: a bar for each call, from its sending to its answer, and the commits that
// they meet at. Everything drawn was measured; it is only drawn slower than it happened.

import { make, still } from "./dom.js";

const SHOWN_MS = 2200; // time in which a picture is drawn, whatever it took
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
const MOST_TICKS = 6;
const GAP = 0.1; // share of the width that a pause takes, however long it was

/** Numbers with the precision that they deserve. */
export const ms = (value) => `${value.toFixed(value < 9.95 ? 1 : 0)} ms`;

/**
 * Draws lanes into an element.
 *
 * `lanes` are { name, title, bars: [{ from, to, tone }], end: { at, text, tone }, choose }, `lines`
 * are { at, to, label }: a moment, or a span within which it was; `pause` is { from, to, label }, a
 * time without news that is drawn shorter than it was. All times are milliseconds.
 * Resolves when everything is drawn, to how many times slower that was.
 */
export async function draw(place, { lanes, lines, pause, summary }) {
  const last = Math.max(...lanes.flatMap(({ bars, end }) => [...bars.map(({ to }) => to), end?.at ?? 0]),
    ...lines.map(({ at, to }) => to ?? at));
  const { at, ticks } = scale(Math.max(last * 1.02, 1), pause);
  const slower = SHOWN_MS / (last - (pause ? pause.to - pause.from : 0));
  const moving = [];
  const move = (element, frames, from, to) => {
    if (still()) return;
    const [begin, end] = [at(from) * SHOWN_MS, at(to) * SHOWN_MS];
    const timing = { delay: begin, duration: Math.max(end - begin, 1), fill: "backwards" };
    moving.push(element.animate(frames, timing));
  };
  const placed = (element, from, to) => {
    element.style.setProperty("--from", at(from));
    element.style.setProperty("--size", at(to) - at(from));
    return element;
  };

  const tracks = lanes.map(({ name, title, bars, end, choose }) => {
    const track = make("div", { class: "track" });
    for (const { from, to, tone } of bars) {
      const bar = placed(make("span", { class: `run ${tone ?? ""}` }), from, to);
      move(bar, [{ transform: "scaleX(0)" }, { transform: "scaleX(1)" }], from, to);
      track.append(bar);
    }
    const said = make("span", { class: `said ${end?.tone ?? ""}` }, end?.text ?? "");
    if (end) move(said, [{ opacity: 0 }, { opacity: 0, offset: 0.99 }, { opacity: 1 }], 0, end.at);
    const label = choose
      ? make("button", { type: "button", class: "name", title: title ?? "Show its request and answer", onclick: choose }, name)
      : make("span", { class: "name" }, name);
    return make("li", { class: "lane" }, label, track, said);
  });

  const marks = lines.map(({ at: from, to, label }) => {
    const line = placed(make("div", { class: to === undefined ? "mark" : "mark span" }, make("span", {}, label)), from, to ?? from);
    move(line, [{ opacity: 0 }, { opacity: 0, offset: 0.99 }, { opacity: 1 }], 0, from);
    return line;
  });
  if (pause) marks.push(placed(make("div", { class: "pause" }, make("span", {}, pause.label)), pause.from, pause.to));
  const ruler = ticks.map((tick) => placed(make("span", { class: "tick" }, `${tick}${tick ? "" : " ms"}`), tick, tick));

  place.replaceChildren(make("div", { class: "lanes", role: "group", "aria-label": summary },
    make("div", { class: "over", "aria-hidden": "true" }, make("div", { class: "field" }, ...marks)),
    make("ol", {}, ...tracks),
    make("div", { class: "ruler", "aria-hidden": "true" }, make("div", { class: "field" }, ...ruler))));
  // A tab in the background draws nothing, and its motions do not end.
  const drawn = Promise.allSettled(moving.map(({ finished }) => finished));
  await Promise.race([drawn, new Promise((end) => { setTimeout(end, moving.length ? SHOWN_MS + 400 : 0); })]);
  return slower;
}

/** Where a time is, as a share of the width, and which times to write below it. */
function scale(whole, pause) {
  const gone = pause ? pause.to - pause.from : 0;
  const room = pause ? 1 - GAP : 1;
  const share = (time) => Math.max(0, time) / (whole - gone) * room;
  const at = (time) => {
    if (!pause || time <= pause.from) return share(time);
    if (time >= pause.to) return share(time - gone) + GAP;
    return share(pause.from) + (time - pause.from) / gone * GAP;
  };
  const step = STEPS.find((each) => (whole - gone) / each <= MOST_TICKS) ?? STEPS.at(-1);
  const times = Array.from({ length: Math.ceil(whole / step) }, (_, i) => i * step);
  const near = (time) => pause && time > pause.from - step / 2 && time < pause.to + step / 4;
  return { at, ticks: times.filter((time) => !near(time) && at(time) < 0.97) };
}

/** The same lanes for those who read: { name, sent, answered, said }, times in milliseconds. */
export function table(caption, rows) {
  const cell = (value) => make("td", { class: "number" }, value === undefined ? "–" : ms(value));
  return make("table", {},
    make("caption", { class: "hidden" }, caption),
    make("thead", {}, make("tr", {},
      ...["Call", "Sent", "Answered", "Outcome"].map((text, i) =>
        make("th", { scope: "col", class: i === 1 || i === 2 ? "number" : undefined }, text)))),
    make("tbody", {}, ...rows.map(({ name, sent, answered, said }) => make("tr", {},
      make("th", { scope: "row" }, name), cell(sent), cell(answered), make("td", {}, said)))));
}
