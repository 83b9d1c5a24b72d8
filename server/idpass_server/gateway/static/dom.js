// Makes elements. Text is only ever inserted as text, never as HTML.

/** An element: make("p", { class: "muted" }, "text", otherElement). */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Sets an element's text; returns whether it changed. */
export function setText(element, text) {
  if (element.textContent === text) return false;
  element.textContent = text;
  return true;
}

/** A text of a stranger's: whichever way it is written, it does not turn what stands beside it. */
export const foreign = (text, attributes = {}) => make("bdi", attributes, text);

/** A button: button("Copy", copy, { class: "plain" }). */
export const button = (text, onclick, attributes = {}) => make("button", { type: "button", onclick, ...attributes }, text);

export const words = (status) => status.replaceAll("_", " ");

export const money = (value) => (value ? `${value.currency} ${value.amount}` : "–");

/** What a pass is called. */
export const nameOf = (pass) => pass.applicant_reference || pass.id;

/** How long ago, in the largest unit that fits. */
export function age(time, now = Date.now()) {
  const minutes = Math.max(0, (now - Date.parse(time)) / 60_000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${Math.floor(minutes)} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h`;
  return `${Math.floor(minutes / 1440)} d`;
}

/** A time span in its two largest units: "6 d 3 h", "12 s". */
export function span(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [d, h, m, s] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60];
  if (d) return h ? `${d} d ${h} h` : `${d} d`;
  if (h) return m ? `${h} h ${m} min` : `${h} h`;
  if (m) return m < 10 && s ? `${m} min ${s} s` : `${m} min`;
  return `${s} s`;
}

/** What is left of a time span, to the second: "6 d 23:04:09". */
export function countdown(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const two = (number) => String(number).padStart(2, "0");
  const days = Math.floor(seconds / 86_400);
  const clock = [Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60].map(two).join(":");
  return days ? `${days} d ${clock}` : clock;
}

const moment = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

export const when = (time) => moment.format(new Date(time));

/** Whether the reader asked for no motion. */
export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Runs a task once before the next frame, however often it is asked for. */
export function onFrame(task) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      task();
    });
  };
}

/** Gives a class anew, so that its animation begins. */
export function flash(element, name) {
  element.classList.remove(name);
  void element.offsetWidth; // the browser notices the removal only so
  element.classList.add(name);
}

/** Puts a text on the clipboard and says so on the button that was clicked. */
export async function copy(text, target) {
  const before = target.textContent;
  try {
    await navigator.clipboard.writeText(text);
    setText(target, "Copied");
  } catch {
    setText(target, "Not allowed");
  }
  setTimeout(() => setText(target, before), 1200);
}
