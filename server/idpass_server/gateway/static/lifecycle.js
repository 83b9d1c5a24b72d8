// The diagram of the lifecycle, with the path of one pass highlighted.

import { make, words } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const NODES = {
  new: [14, 82], opened: [140, 82], in_progress: [266, 82],
  complete: [412, 52], failed: [412, 112], expired: [140, 6], cancelled: [140, 158],
};
const [WIDTH, HEIGHT] = [94, 32];
const EDGES = {
  "new opened": "M108 98 H134",
  "opened in_progress": "M234 98 H260",
  "in_progress complete": "M360 92 C385 87 385 72 406 69",
  "in_progress failed": "M360 104 C385 109 385 124 406 127",
  "new expired": "M61 82 C63 46 90 26 134 23",
  "opened expired": "M187 82 V44",
  "in_progress expired": "M313 82 C311 46 285 26 240 23",
  "new cancelled": "M61 114 C63 150 90 171 134 174",
  "opened cancelled": "M187 114 V152",
  "in_progress cancelled": "M313 114 C311 150 285 171 240 174",
};
const NOTES = [
  ["fee refunded", 46, 170], ["fee refunded", 231, 138], ["fee kept", 324, 170],
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
    const drawing = svg("svg", { viewBox: "4 0 508 196", role: "img", "aria-label": "Life of a pass" },
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
