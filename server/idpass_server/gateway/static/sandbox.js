// The sandbox page: what the buttons do, and what they update.

import { call, history } from "./api.js";
import { byId, make, money, onFrame, setText, words } from "./dom.js";
import { Exchange, ORDER, outcome } from "./exchange.js";
import { Feed } from "./feed.js";
import { Inbox } from "./inbox.js";
import { Lifecycle } from "./lifecycle.js";
import { Passes } from "./passes.js";
import { Table } from "./table.js";

const NAMES = ["Ada Park", "Ben Whaanga", "Cleo Marsh", "Dev Anand", "Eve Lindqvist", "Finn Doyle", "Gia Romano", "Hana Sato"];
const EARLIER = 12; // events shown from before the page was opened
const LIFECYCLE_STEPS = document.querySelectorAll("[data-to]");

const show = onFrame(() => table.show());
const passes = new Passes(show);
const table = new Table(passes, selected);
const lifecycle = new Lifecycle();
const feed = new Feed(passes, heard, load);
const inbox = new Inbox(passes);
let exchange = new Exchange("localhost:50051");
let last = []; // the latest requests, sent together

function report(text, fine) {
  const line = byId("outcome");
  setText(line, text);
  line.className = `outcome ${fine ? "fine" : "refused"}`;
}

/** Sends changes at once, shows them, and keeps them so that they can be sent again. */
async function sendAll(requests) {
  last = requests;
  byId("replay").disabled = false;
  const done = await Promise.all(requests.map(({ path, body }) => call(path, body)));
  exchange.show(...done);
  return done;
}

async function send(path, body) {
  const [done] = await sendAll([{ path, body }]);
  report(outcome(done), done.ok);
  return done;
}

async function replay() {
  const done = await sendAll(last);
  const said = done.length === 1 ? done.map(outcome) : done.map((each, i) => `${ORDER[i]}: ${outcome(each)}`);
  report(said.join(" "), done.some(({ ok }) => ok));
}

const requestId = () => `sandbox-${crypto.randomUUID()}`;

function cancelBody(pass) {
  return {
    id: pass.id,
    request_id: requestId(),
    ...(byId("reason").value && { reason: byId("reason").value }),
    ...(byId("require-refund").checked && { require_refund: true }),
    ...(byId("validate-only").checked && { validate_only: true }),
  };
}

async function cancel() {
  const chosen = table.selection();
  if (chosen.length === 1) await send("/idpass/cancel", cancelBody(chosen[0]));
  else await send("/idpass/batch-cancel", { requests: chosen.slice(0, 1000).map(cancelBody) });
}

async function race() {
  const pass = table.selection().at(-1);
  const both = await sendAll([1, 2].map(() => ({ path: "/idpass/cancel", body: cancelBody(pass) })));
  const won = both.filter(({ ok }) => ok).length;
  report(won === 1 ? "One of the two cancelled; the other was told so." : `${won} of the two cancelled.`, won > 0);
}

const anyone = () => NAMES[Math.floor(Math.random() * NAMES.length)];

async function register(supersedes) {
  const done = await send("/idpass/register", {
    request_id: requestId(),
    applicant_reference: supersedes?.applicant_reference || anyone(),
    ...(supersedes && { supersedes: supersedes.id }),
  });
  if (!done.ok) return;
  const pass = done.answer.id_pass;
  if (!passes.get(pass.id)) passes.byId.set(pass.id, pass);
  passes.sorted = null;
  table.reveal(pass.id);
}

async function reset() {
  byId("reset").disabled = true;
  report("Making the mock data anew …", true);
  const done = await call("/sandbox/reset", {});
  if (done.ok) {
    last = [];
    byId("replay").disabled = true;
    await load();
  }
  byId("reset").disabled = false;
  report(done.ok ? "The mock data are as they were in the beginning." : outcome(done), done.ok);
}

/** Updates texts, buttons and the diagram for the selection. */
function selected() {
  const chosen = table.selection();
  const one = chosen.length === 1;
  const pass = chosen.at(-1);
  let text = "Select a pass, or several.";
  if (one) text = `${pass.applicant_reference || pass.id} is ${words(pass.status)}.`;
  else if (pass) text = `${chosen.length} passes selected.`;
  setText(byId("selection"), text);
  setText(byId("cancel"), chosen.length > 1 ? `Cancel ${chosen.length} passes` : "Cancel pass");
  byId("cancel").disabled = !pass;
  for (const button of [...LIFECYCLE_STEPS, byId("race"), byId("reissue")]) button.disabled = !one;
  trace(pass);
}

let traced = 0;
async function trace(pass) {
  const turn = (traced += 1);
  const events = pass ? await history(pass.id, pass.status) : [];
  if (turn === traced) lifecycle.show(pass, events);
}

const refreshAccount = (() => {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const { ok, answer } = await call("/idpass/account");
      if (ok) showAccount(answer, true);
    }, 60);
  };
})();

function showAccount(account, mark) {
  const values = {
    slots: `${account.slots_in_use} of ${account.slot_limit}`,
    fee: money(account.fee),
    "fees-charged": money(account.fees_charged),
    "fees-refunded": money(account.fees_refunded),
  };
  for (const [id, value] of Object.entries(values)) {
    if (setText(byId(id), value) && mark) {
      byId(id).classList.add("changed");
      setTimeout(() => byId(id).classList.remove("changed"), 700);
    }
  }
  setText(byId("account-name"), account.id);
  Object.assign(byId("slots-meter"), { max: account.slot_limit || 1, value: account.slots_in_use });
}

function heard(event) {
  passes.apply(event);
  refreshAccount();
  inbox.soon();
  if (table.picked.has(event.id_pass_id)) selected();
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
  feed.stop();
  let reported = "";
  for (;;) {
    const fault = await loadOnce(() => turn === loads);
    if (turn !== loads) return loading;
    if (!fault && byId("outcome").textContent === reported) report("", true);
    if (!fault) return undefined;
    reported = fault;
    report(fault, false);
    await new Promise((again) => { setTimeout(again, 1000); });
    if (turn !== loads) return loading;
  }
}

/** Resolves to what went wrong, in words, or undefined. */
async function loadOnce(wanted) {
  const [account, page] = await Promise.all([call("/idpass/account"), call("/sandbox")]);
  if (!wanted()) return undefined;
  if (!account.ok || !page.ok) return outcome(account.ok ? page : account);
  if (account.answer.id !== "demo") return "Only the account demo can be shown here.";
  exchange = new Exchange(page.answer.grpc_address);
  showAccount(account.answer, false);
  table.clear();
  const error = await passes.load();
  if (error) return error.message;
  if (!wanted()) return undefined;
  feed.start(account.answer.last_sequence, account.answer.last_sequence - EARLIER);
  inbox.look();
  return undefined;
}

byId("cancel").addEventListener("click", cancel);
byId("race").addEventListener("click", race);
byId("replay").addEventListener("click", replay);
byId("register").addEventListener("click", () => register());
byId("reissue").addEventListener("click", () => register(table.selection().at(-1)));
byId("reset").addEventListener("click", reset);
for (const button of LIFECYCLE_STEPS) {
  button.addEventListener("click", () => send("/idpass/advance", {
    id: table.selection().at(-1).id,
    to_status: button.dataset.to,
    request_id: requestId(),
  }));
}
setInterval(show, 30_000); // passes age
load();
