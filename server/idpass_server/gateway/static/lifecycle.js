// The diagram of the lifecycle, with the path of one pass highlighted.

import { make, words } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const NODES = {
  new: [14, 108], opened: [140, 108], in_progress: [266, 108],
  complete: [412, 62], failed: [412, 154], expired: [140, 14], cancelled: [140, 206],
};
const [WIDTH, HEIGHT] = [94, 32];
const EDGES = {
  "new opened": "M108 124 H134",
  "opened in_progress": "M234 124 H260",
  "in_progress complete": "M360 118 C385 112 385 82 406 79",
  "in_progress failed": "M360 130 C385 136 385 166 406 169",
  "new expired": "M61 108 C63 60 90 34 134 31",
  "opened expired": "M187 108 V52",
  "in_progress expired": "M313 108 C311 60 285 34 240 31",
  "new cancelled": "M61 140 C63 190 90 219 134 222",
  "opened cancelled": "M187 140 V200",
  "in_progress cancelled": "M313 140 C311 190 285 219 240 222",
};
const NOTES = [
  ["fee refunded", 40, 214], ["fee refunded", 228, 174], ["fee kept", 322, 214],
];

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const arrow = (id) =>
  svg("marker", {
    id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8,
    markerUnits: "userSpaceOnUse", orient: "auto",
  }, svg("path", { d: "M0 0.5 L8 4 L0 7.5 Z" }));

export class Lifecycle {
  constructor() {
    this.nodes = {};
    this.edges = {};
    const drawing = svg("svg", { viewBox: "0 0 520 252", role: "img", "aria-label": "Life of a pass" },
      svg("defs", {}, arrow("arrow"), arrow("arrow-lit")));
    for (const [key, d] of Object.entries(EDGES)) {
      this.edges[key] = svg("path", { d, pathLength: 1, "marker-end": "url(#arrow)" });
      drawing.append(this.edges[key]);
    }
    for (const [text, x, y] of NOTES) drawing.append(svg("text", { class: "note", x, y }, text));
    for (const [status, [x, y]] of Object.entries(NODES)) {
      this.nodes[status] = svg("g", { class: status },
        svg("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 8 }),
        svg("text", { x: x + WIDTH / 2, y: y + 20.5 }, words(status)));
      drawing.append(this.nodes[status]);
    }
    this.element = make("figure", { class: "lifecycle" }, drawing);
    this.drawing = drawing;
  }

  /** Highlights the path of a pass, from its events, oldest first. Args: `grown`: draw its last edge. */
  show(events, grown) {
    const way = events.filter(({ erased }) => !erased).map(({ to_status }) => to_status);
    for (const [status, node] of Object.entries(this.nodes)) {
      node.classList.toggle("lit", way.includes(status));
      node.classList.toggle("now", way.at(-1) === status);
    }
    const steps = way.slice(1).map((status, index) => `${way[index]} ${status}`);
    for (const [key, edge] of Object.entries(this.edges)) {
      edge.classList.toggle("lit", steps.includes(key));
      edge.classList.toggle("drawn", Boolean(grown) && steps.at(-1) === key);
    }
    this.drawing.setAttribute("aria-label", way.length ? `The way it went: ${way.map(words).join(" → ")}` : "Life of a pass");
  }
}
