// What is played in lanes. Each play does something real and resolves to its picture: { lanes,
// lines, rows, result, also, legend, exchanges }, with all times in milliseconds.

import { call, detail, reason } from "./api.js";
import { money, words } from "./dom.js";
import { inFlight } from "./passes.js";
import { onStage } from "./stage.js";

const IN_GATEWAY = "Times are measured in the sandbox’s gateway, which sends all calls at once over one connection: a browser would hold back all but six.";
const IN_BROWSER = "Times are this browser’s; those of the commit are the server’s own, by its clock.";
const CUT_AFTER_MS = 120; // well within a commit of 400 ms
const id = (what) => `${what}-${crypto.randomUUID()}`;
const many = (number, one, others = `${one}s`) => `${number} ${number === 1 ? one : others}`;

/** An answer in few words, and whether it is good news. */
function told({ ok, path, status, answer }) {
  if (ok && path.endsWith("/cancel")) {
    return { text: `${answer.replayed ? "the first answer again" : `cancelled, ${answer.fee_refunded ? `${money(answer.refund)} back` : "fee kept"}`}`, tone: "won" };
  }
  if (ok && path.endsWith("/register")) return { text: "registered", tone: "won" };
  if (ok) return { text: words(answer.id_pass.status), tone: "won" };
  const info = detail(answer, "ErrorInfo");
  if (info?.metadata?.status) return { text: `told: already ${words(info.metadata.status)}`, tone: "told" };
  return { text: status ? `refused: ${reason(answer)}` : "no answer", tone: "lost" };
}

/** Lanes and rows of calls that were sent together. */
function together(calls, began_ms, names, choose) {
  const exchanges = calls.map((each) => ({ ...each, ms: each.answered_ms - each.sent_ms }));
  const lanes = exchanges.map((each, i) => {
    const said = told(each);
    return {
      name: names[i],
      bars: [{ from: each.sent_ms, to: each.answered_ms, tone: said.tone }],
      end: { at: each.answered_ms, ...said },
      choose: () => choose(each),
    };
  });
  const rows = exchanges.map((each, i) => (
    { name: names[i], sent: each.sent_ms, answered: each.answered_ms, said: told(each).text }
  ));
  return { exchanges, lanes, rows, first: Math.min(...exchanges.map(({ answered_ms }) => answered_ms)) };
}

async function volley(requests, path = "/sandbox/volley", spread_ms = 0) {
  const { ok, answer } = await call(path, { calls: requests, spread_ms });
  if (!ok) throw new Error(answer.message);
  const calls = answer.calls.map((each, i) => ({ ...requests[i], ...each, ok: each.status === 200 }));
  return { began_ms: answer.began_ms, calls };
}

async function done(path, body, send = call) {
  const made = await send(path, body);
  if (!made.ok) throw new Error(made.answer.message);
  return made.answer;
}

const registered = async (applicant_reference, send) =>
  (await done("/idpass/register", { request_id: id("show"), applicant_reference }, send)).id_pass;

/** The commit: from when the service decided, by its clock, to the first answer. */
function commitLine(calls, began_ms, first) {
  const times = calls.map(({ ok, answer }) => (ok ? answer.cancel_time ?? answer.id_pass?.end_time
    : detail(answer, "ErrorInfo")?.metadata?.endTime));
  const decided = Date.parse(times.find(Boolean)) + fraction(times.find(Boolean)) - began_ms;
  if (!(decided > 0 && decided < first)) return { at: first, label: "first answer" };
  return { at: decided, to: first, label: "commit" };
}

/** The part of a time below a millisecond, which Date leaves out. */
const fraction = (time) => Number(`0.${/\.\d{3}(\d*)/.exec(time ?? "")?.[1] || 0}`);

/** How many were cancelled, refunded and told, from the answers alone. */
function counted(calls) {
  const won = calls.filter(({ ok }) => ok);
  const refunds = won.filter(({ answer }) => answer.fee_refunded).length;
  const knows = calls.filter(({ ok, answer }) => !ok && detail(answer, "ErrorInfo")?.metadata?.status);
  const rest = calls.length - won.length - knows.length;
  const same = new Set(knows.map(({ answer }) => JSON.stringify(detail(answer, "ErrorInfo").metadata))).size <= 1;
  return { won, refunds, knows, rest, same };
}

/** Some callers cancel one pass at once: the one given, if it can still be cancelled. */
export async function race({ callers, choose, pass: given }) {
  const pass = given && inFlight(given) ? given : await registered(`Raced by ${callers}`);
  const requests = Array.from({ length: callers }, () => (
    { path: "/idpass/cancel", body: { id: pass.id, request_id: id("race") } }
  ));
  const { began_ms, calls } = await volley(requests);
  const picture = together(calls, began_ms, calls.map((_, i) => `Caller ${i + 1}`), choose);
  const { won, refunds, knows, rest, same } = counted(calls);
  const parts = [`${won.length} cancelled`, many(refunds, "refund"), `${knows.length} told the outcome`];
  if (rest) parts.push(`${rest} otherwise`);
  return {
    ...picture,
    lines: [commitLine(calls, began_ms, picture.first)],
    result: parts.join(" · "),
    also: same && knows.length > 1 ? "Each of them was told the same: when it was cancelled, and what became of the fee." : "",
    legend: `${IN_GATEWAY} The band begins when the service decided, by its clock, and ends with the first answer: in it the commit reached the disk.`,
    pass,
  };
}

/** A cancel against the result of the verification, sent in an order drawn by lot. */
export async function completion({ choose, tally }) {
  const pass = await registered("Raced to the end");
  for (const to_status of ["opened", "in_progress"]) {
    await done("/idpass/advance", { id: pass.id, to_status, request_id: id("show") });
  }
  const requests = [
    { path: "/idpass/cancel", body: { id: pass.id, request_id: id("race") } },
    { path: "/idpass/advance", body: { id: pass.id, to_status: "complete", request_id: id("race") } },
  ];
  if (crypto.getRandomValues(new Uint8Array(1))[0] % 2) requests.reverse();
  const { began_ms, calls } = await volley(requests);
  const names = calls.map(({ path }) => (path.endsWith("cancel") ? "Cancel" : "Completion"));
  const picture = together(calls, began_ms, names, choose);
  const { won, knows, rest } = counted(calls);
  const winner = won.length === 1 && won[0].path.endsWith("cancel") ? "cancel" : "complete";
  tally[winner] += won.length;
  const what = winner === "cancel" ? "The cancel won: 1 cancelled, the fee is kept" : "The completion won: 1 complete, nothing to cancel";
  return {
    ...picture,
    lines: [commitLine(calls, began_ms, picture.first)],
    result: `${what} · ${knows.length} told the outcome${rest ? ` · ${rest} otherwise` : ""}`,
    also: `So far in this tab: the cancel won ${tally.cancel}, the completion ${tally.complete}. Either may; never both.`,
    legend: `${IN_GATEWAY} Which is sent first is drawn by lot.`,
    pass,
  };
}

/** The retry of one request, of which the first answer did not arrive: what both plays draw. */
function retried(stage, { first, second, taken, committed, choose, pause, lines = [], server = [] }) {
  const start = first.sent_ms;
  const since = (time) => time - start;
  const lane = (name, each, end) => ({
    name,
    bars: [{ from: since(each.sent_ms), to: since(each.answered_ms), tone: end.tone }],
    end: { at: since(each.answered_ms), ...end },
    choose: () => choose(each),
  });
  const again = told(second);
  const lost = { text: "no answer: outcome unknown", tone: "lost" };
  const row = (name, each, said) => ({ name, sent: since(each.sent_ms), answered: since(each.answered_ms), said });
  const commit = { at: since(stage.at(taken)), to: since(stage.at(committed)), label: "commit" };
  return {
    exchanges: [first, second],
    lanes: [lane("First try", first, lost), ...server.map((each) => each(since)), lane("Retry", second, again)],
    lines: [commit, ...lines.map(({ at, label }) => ({ at: since(at), label }))],
    rows: [row("First try", first, lost.text), row("Retry", second, again.text)],
    pause: pause && { from: since(pause.from), to: since(pause.to), label: pause.label },
    legend: `${IN_BROWSER}${pause ? " The hatched pause is drawn shorter than it was." : ""}`,
  };
}

const refundedOnce = (account, answer) =>
  `${answer.replayed ? "The retry got the first answer" : "The retry was the first to arrive"} · ${money(account.fees_refunded)} refunded in all`;

/** A request that is surely being carried out when the page cuts its connection. */
export function lost({ choose, progress }) {
  return onStage({ slow_ms: 400 }, progress, async (stage) => {
    await stage.until("serving");
    const send = (path, body) => stage.send(path, body);
    const pass = await registered("Cut off", send);
    const body = { id: pass.id, request_id: id("lost") };
    const cut = new AbortController();
    progress("Cancel sent; its commit takes 400 ms …");
    const sent = stage.send("/idpass/cancel", body, cut.signal);
    const taken = await stage.until("taken", "cancel");
    await new Promise((later) => { setTimeout(later, CUT_AFTER_MS); });
    cut.abort();
    const first = await sent;
    progress("Connection cut by this page. The same request again …");
    const second = await stage.send("/idpass/cancel", body);
    const committed = await stage.until("committed", "cancel");
    const account = await done("/idpass/account", undefined, send);
    return {
      ...retried(stage, { first, second, taken, committed, choose, lines: [{ at: first.answered_ms, label: "cut" }] }),
      result: refundedOnce(account, second.answer),
      also: "The server had begun the commit and finished it, though nobody waited. The same request_id brought its answer.",
    };
  });
}

/** A server that is killed when the cancel is on disk and not answered yet. */
export function killed({ choose, progress }) {
  return onStage({ kills: true }, progress, async (stage) => {
    const before = await stage.until("serving");
    progress(`A server of this show’s own serves as process ${before.pid}. Cancel sent …`);
    const send = (path, body) => stage.send(path, body);
    const pass = await registered("Killed off", send);
    const body = { id: pass.id, request_id: id("killed") };
    const first = await stage.send("/idpass/cancel", body);
    const dead = await stage.until("killed");
    progress(`Process ${dead.pid} was killed (SIGKILL) after the commit. Another one starts on its file …`);
    const after = await stage.until("serving", "", dead);
    const second = await stage.send("/idpass/cancel", body);
    const taken = await stage.until("taken", "cancel");
    const committed = await stage.until("committed", "cancel");
    const account = await done("/idpass/account", undefined, send);
    const server = (news, from, to, text) => (since) => ({
      name: `Process ${news.pid}`,
      bars: [{ from: Math.max(since(from), 0), to: since(to), tone: "server" }],
      end: { at: since(to), text, tone: text === "killed" ? "lost" : "" },
    });
    return {
      ...retried(stage, {
        first, second, taken, committed, choose,
        pause: { from: first.answered_ms + 5, to: stage.at(after) - 5, label: "another process starts" },
        server: [
          server(before, stage.at(before), stage.at(committed), "killed"),
          server(after, stage.at(after), second.answered_ms, "serves the same file"),
        ],
      }),
      result: refundedOnce(account, second.answer),
      also: `The request ended with ${first.status || "no answer"}, outcome unknown. The commit was on disk: the next process found it there.`,
    };
  });
}

/** Twenty callers, one after the other, at a server whose disk is slow. */
export function slow({ choose, progress }) {
  return onStage({ slow_ms: 60 }, progress, async (stage) => {
    await stage.until("serving");
    progress("Twenty passes are registered, then cancelled by a caller each, 10 ms apart …");
    const path = `${stage.base}/volley`;
    const made = await volley(Array.from({ length: 20 }, () => ({ path: "/idpass/register", body: { request_id: id("slow") } })), path);
    const { began_ms, calls } = await volley(made.calls.map(({ answer }) => (
      { path: "/idpass/cancel", body: { id: answer.id_pass.id, request_id: id("slow") } }
    )), path, 190);
    const sizes = () => stage.news.filter(({ event, commands }) => event === "committed" && commands.includes("cancel"));
    const committed = () => sizes().reduce((sum, { events }) => sum + events, 0);
    while (committed() < calls.length) await stage.until("committed", "cancel", stage.news.at(-1));
    const picture = together(calls, began_ms, calls.map((_, i) => `Caller ${i + 1}`), choose);
    const { won } = counted(calls);
    return {
      ...picture,
      lines: sizes().map((each) => ({ at: each.time_ms - began_ms, label: String(each.events) })),
      result: `${won.length} cancelled in ${many(sizes().length, "commit")} of ${sizes().map(({ events }) => events).join(", ")}`,
      also: "While one commit is on its way to the disk the next batch gathers: nobody waits for more than two.",
      legend: `${IN_GATEWAY} This server’s commits take 60 ms longer each. A line is a commit, its number the calls that share it.`,
    };
  });
}

/** Passes are registered until no slot is free; a cancel frees one. */
export function slots({ choose, progress }) {
  const limit = 5;
  return onStage({ slots: limit }, progress, async (stage) => {
    await stage.until("serving");
    const steps = [];
    const step = async (name, path, body) => {
      const each = await stage.send(path, body);
      steps.push({ name, ...each });
      return each;
    };
    const bodies = Array.from({ length: limit + 1 }, () => ({ request_id: id("slots") }));
    const made = [];
    for (const [i, body] of bodies.entries()) made.push(await step(`Register ${i + 1}`, "/idpass/register", body));
    await step("Cancel 1", "/idpass/cancel", { id: made[0].answer.id_pass?.id, request_id: id("slots") });
    await step(`Register ${limit + 1} again`, "/idpass/register", bodies[limit]);
    const account = await done("/idpass/account", undefined, (path, body) => stage.send(path, body));
    const start = steps[0].sent_ms;
    const calls = steps.map((each) => ({ ...each, sent_ms: each.sent_ms - start, answered_ms: each.answered_ms - start }));
    const picture = together(calls, start, calls.map(({ name }) => name), choose);
    const refused = steps.filter(({ answer }) => reason(answer) === "NO_FREE_SLOT").length;
    return {
      ...picture,
      lines: [],
      result: `${many(limit, "slot")} filled · ${refused} refused with NO_FREE_SLOT · 1 freed by a cancel · ${account.slots_in_use} of ${account.slot_limit} in use again`,
      also: "The refused request was sent again with its own request_id: a refusal is decided anew, only success is remembered.",
      legend: IN_BROWSER.split(";")[0] + ".",
    };
  });
}
