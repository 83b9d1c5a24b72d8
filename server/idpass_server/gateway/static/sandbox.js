// The sandbox page: puts its modules together.
//
// How another module takes part, from its own file and with one line at the end of this one:
//   import { hub, on, tell } from "./hub.js";
//   selected()                      the pass in the inspector, or undefined
//   on("selected", (pass) => …)     it is another one, or it has changed
//   on("exchange", (exchanges, about) => …)   after each request, or several sent at once. An exchange is
//                                   { path, body, status, ok, answer, ms, reference }; status 0: no answer
//   on("event", (event) => …)       each event of the account as it happens, whoever caused it
//   on("account", (account) => …)   its figures
//   on("race", (pass) => …)         the inspector's button "Race…"
//   on("loaded", () => …)           passes and account are there, at first and after a reset
//   send(path, body, about)         → exchange, after everybody was told of it
//   sendAll([{ path, body, signal }], about)   → exchanges; all at once
// `about` goes to the listeners: { quiet: true } shows no toast, { pass } says whom it was about.
//   tell("show", id)                puts a pass into the inspector
//   toast({ text, tone, below, buttons }) from "./toasts.js", replay() from "./toasts.js"
// Places: #guide (a strip across the top; unhide it), #race (.panel over the inspector; unhide it),
// #code (lower part of the inspector; unhide it), #signin (in the bar).

import { showAccount, refreshAccount } from "./account.js";
import { Actions } from "./actions.js";
import { call } from "./api.js";
import { Bulk, MOST } from "./bulk.js";
import { showCode } from "./code.js";
import { button, byId, make, onFrame, setText, words } from "./dom.js";
import { Feed } from "./feed.js";
import { Filters } from "./filters.js";
import { guide } from "./guide.js";
import { hub, on, tell } from "./hub.js";
import { Inbox } from "./inbox.js";
import { Inspector } from "./inspector.js";
import { Help, listen } from "./keyboard.js";
import { List } from "./list.js";
import { Passes } from "./passes.js";
import { race } from "./race.js";
import { Register } from "./register.js";
import { outcome } from "./says.js";
import { bar, barred, restore } from "./session.js";
import { SignIn } from "./signin.js";
import { Stream } from "./stream.js";
import { foldable, tabs } from "./tabs.js";
import { forget, replay, tellOfExchanges, toast } from "./toasts.js";

const passes = new Passes(changed);
const filters = new Filters(() => {
  list.toTop();
  draw();
});
const list = new List({
  wanted: (staying) => passes.matching(filters.status, filters.text, staying),
  chosen,
  ticked: () => bulk.show(),
});
const register = new Register(reveal);
const actions = new Actions((pass) => register.reissue(pass));
const inspector = new Inspector({ passes, actions: actions.element, choose: show, close: () => list.choose(undefined) });
const bulk = new Bulk({
  list,
  ticked: () => [...list.picked].map((id) => passes.get(id)).filter(Boolean),
  filter: () => filters.status,
  cancel: cancelTicked,
});
const feed = new Feed(passes, show);
const inbox = new Inbox(passes);
const stream = new Stream({ took: heard, state: showState, lost: load });
const signIn = new SignIn();
const activity = tabs(byId("activity"));
foldable();

const drawSoon = onFrame(draw);

function draw() {
  list.show();
  const count = list.shown.length;
  setText(byId("range"), passes.complete || count ? `${count.toLocaleString("en")}${count === passes.byId.size ? "" : ` of ${passes.byId.size.toLocaleString("en")}`}` : "");
  filters.count(passes.counts());
  bulk.show();
  byId("bones").hidden = passes.complete || passes.byId.size > 0;
  showNone(count === 0 && passes.complete);
}

function showNone(none) {
  byId("none").hidden = !none;
  if (!none) return;
  const anything = passes.byId.size > 0;
  const looked = [filters.status && `that is ${words(filters.status)}`, filters.text && `with “${filters.text}”`].filter(Boolean).join(" ");
  const offer = anything
    ? button("Show all passes", () => filters.by("", ""), { id: "show-all" })
    : button("Register a pass", () => register.open());
  if (!anything) bar(offer, "register");
  byId("none").replaceChildren(
    make("p", {}, anything ? "No pass " : "No passes yet.", anything && make("bdi", {}, looked), anything && "."),
    offer);
}

/** Passes are others than before, or one of them is. */
function changed(pass) {
  if (pass && filters.status && list.ids.has(pass.id)) list.stay(pass.id);
  if (pass && pass.id === list.current) chosen(pass.id);
  if (pass) feed.named(pass);
  drawSoon();
}

/** A pass, or none, is in the inspector. */
function chosen(id, byHand = false) {
  const pass = passes.get(id);
  if (pass?.stale) {
    pass.stale = false;
    passes.refresh(id);
  }
  actions.show(pass);
  inspector.show(pass);
  filters.keep(pass?.id ?? "");
  document.body.classList.toggle("inspecting", Boolean(pass));
  if (byHand && pass) byId("rows").focus({ preventScroll: true });
}

/** Puts a pass into the inspector, and into view if it is in the list. */
function show(id) {
  if (!passes.get(id)) passes.refresh(id);
  list.reveal(id);
}

/** As `show`, whatever was looked at. */
function reveal(pass) {
  if (!passes.get(pass.id)) passes.put(pass);
  draw();
  if (!list.ids.has(pass.id)) filters.by("", "");
  show(pass.id);
}

async function cancelTicked(ticked) {
  const asked = ticked.slice(0, MOST);
  if (await actions.cancelAll(asked)) list.untick(asked);
}

function heard(event) {
  passes.apply(event);
  feed.take(event);
  refreshAccount();
  if (hub.sandbox) inbox.soon();
  tell("event", event);
}

function showState(word) {
  setText(byId("live"), { live: "live", reconnecting: "server away" }[word] ?? word);
  byId("live").className = `live ${{ live: "on", reconnecting: "off" }[word] ?? ""}`;
}

async function reset() {
  byId("reset").disabled = true;
  const done = await call("/sandbox/reset", {});
  if (done.ok) {
    forget();
    await load();
  }
  byId("reset").disabled = false;
  toast(done.ok ? { text: "The mock data are as they were in the beginning.", tone: "fine" } : { text: outcome(done), tone: "refused" });
}

let loading;
let loads = 0;

/**
 * Everything anew: at the start, after a reset, and when the stream could not be resumed. Resolves
 * when all is shown as it was asked for last: an earlier load that is overtaken waits for the later.
 */
function load() {
  loads += 1;
  loading = loadUntilDone(loads);
  return loading;
}

async function loadUntilDone(turn) {
  stream.stop();
  for (;;) {
    const fault = await loadOnce(() => turn === loads);
    if (turn !== loads) return loading;
    if (!fault) return undefined;
    showState(fault);
    byId("live").className = "live off";
    await new Promise((again) => { setTimeout(again, 1000); });
    if (turn !== loads) return loading;
  }
}

/** Resolves to what went wrong, in words, or undefined. */
async function loadOnce(wanted) {
  const [account, page] = await Promise.all([call("/idpass/account"), call("/sandbox")]);
  if (!wanted()) return undefined;
  document.body.classList.toggle("real", page.ok && !page.answer.sandbox);
  if (account.status === 401) return askWho(wanted);
  if (!account.ok || !page.ok) return outcome(account.ok ? page : account);
  hub.grpcAddress = page.answer.grpc_address ?? "HOST:PORT";
  hub.sandbox = page.answer.sandbox;
  await signIn.admit(account.answer);
  bar(byId("register"), "register");
  showAccount(account.answer, false);
  list.untick();
  const error = await passes.load();
  if (error) return error.message;
  if (!wanted()) return undefined;
  if (barred("watch")) showState("not live");
  else stream.start(account.answer.history, account.answer.last_sequence);
  feed.start(account.answer);
  if (hub.sandbox) inbox.look();
  const current = list.current ?? filters.chosen;
  if (passes.get(current)) list.reveal(current);
  else list.choose(undefined);
  tell("loaded");
  return undefined;
}

/** Who was shown something is shown nothing of it any more: the page begins anew. */
async function askWho(wanted) {
  if (hub.account) {
    location.reload();
    return new Promise(() => {});
  }
  showState("signed out");
  await signIn.ask();
  return loadOnce(wanted);
}

on("exchange", (exchanges) => {
  if (exchanges.some(({ status }) => status === 401)) load();
  // Whoever may not watch sees at least what comes of the own requests.
  if (barred("watch")) for (const { body } of exchanges) for (const { id } of body.requests ?? [body]) if (id) passes.refresh(id);
});
tellOfExchanges((id) => passes.get(id), ({ answer }) => answer.reference && (() => {
  activity.show("events");
  feed.find(answer.reference);
}));

on("show", show);

const help = new Help();
listen({
  ArrowDown: (event) => move(event, 1),
  ArrowUp: (event) => move(event, -1),
  PageDown: (event) => move(event, 10),
  PageUp: (event) => move(event, -10),
  Home: (event) => move(event, -Infinity),
  End: (event) => move(event, Infinity),
  " ": ({ target }) => target === byId("rows") && list.current && list.tick(list.current),
  x: () => list.current && list.tick(list.current),
  c: () => (list.picked.size ? cancelTicked(bulk.ticked()) : actions.cancel()),
  r: replay,
  "/": () => byId("search").select(),
  "?": () => help.open(),
  Escape: leave,
});

function move({ shiftKey }, by) {
  if (shiftKey && list.current) list.tick(list.current, true);
  list.step(by);
  if (shiftKey) list.tick(list.current, true);
}

function leave({ target }) {
  if (target === byId("search")) {
    byId("search").value = "";
    filters.tell();
    byId("rows").focus();
  } else if (list.picked.size) list.untick();
  else list.choose(undefined);
}

byId("register").addEventListener("click", () => register.open());
byId("reset").addEventListener("click", reset);
setInterval(drawSoon, 30_000); // passes age
restore();
showCode();
race();
guide(reveal);
load();
