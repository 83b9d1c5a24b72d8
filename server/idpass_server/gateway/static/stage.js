// A stage: a server of the show's own, with faults. It lasts as long as its news are read.

const AGAIN_MS = 300;
const PATIENCE_MS = 12_000; // for a show in another tab to end
const SAME_CLOCK_MS = 50; // news that take no longer come from a clock that agrees with ours
const NO_ANSWER = { message: "The server cannot be reached.", details: [] };

/** Opens a stage with faults for as long as `play` takes; `told` is told what is waited for. */
export async function onStage(faults, told, play) {
  const leave = new AbortController();
  const response = await opened(faults, leave.signal, told);
  const stage = new Stage(response.body, leave);
  try {
    await stage.until("stage");
    return await play(stage);
  } finally {
    leave.abort();
  }
}

async function opened(faults, signal, told) {
  const giveUp = performance.now() + PATIENCE_MS;
  for (;;) {
    const response = await fetch("/sandbox/stage", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(faults),
      signal,
    });
    if (response.ok) return response;
    const { message } = await response.json();
    if (response.status !== 429 || performance.now() > giveUp) throw new Error(message);
    told("Another tab has the stage; waiting for it …");
    await new Promise((again) => { setTimeout(again, AGAIN_MS); });
  }
}

class Stage {
  constructor(body, leave) {
    this.news = [];
    this.waiting = [];
    this.leave = leave;
    this.ended = undefined;
    this.read(body.pipeThrough(new TextDecoderStream()).getReader());
  }

  async read(reader) {
    let fault = "The show’s server has ended.";
    try {
      for (let text = ""; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        const lines = (text + value).split("\n");
        text = lines.pop();
        for (const line of lines) this.hear(JSON.parse(line));
      }
    } catch {
      fault = "The sandbox cannot be reached.";
    }
    this.ended = new Error(fault);
    for (const { fail } of this.waiting.splice(0)) fail(this.ended);
  }

  hear(news) {
    news.heard_ms = now();
    this.news.push(news);
    if (news.event === "stage") this.base = `/sandbox/stage/${news.stage}`;
    const waiting = this.waiting.splice(0);
    for (const each of waiting) {
      if (each.wanted(news)) each.tell(news);
      else if (news.event === "failed") each.fail(new Error(`The show’s server has failed: ${news.why}`));
      else if (news.event === "over") each.fail(new Error(`The show took longer than ${news.after_s} s.`));
      else this.waiting.push(each);
    }
  }

  /** The first news of a kind, about a kind of command if one is given, after other news. */
  until(event, command, after) {
    const wanted = (news) => news.event === event && (!command || news.commands.includes(command));
    const found = this.news.slice(this.news.indexOf(after) + 1).find(wanted);
    if (found) return Promise.resolve(found);
    if (this.ended) return Promise.reject(this.ended);
    return new Promise((tell, fail) => { this.waiting.push({ wanted, tell, fail }); });
  }

  /** When news happened, on this browser's clock; the server's may be another machine's. */
  at({ time_ms }) {
    const apart = Math.min(...this.news.map((each) => each.heard_ms - each.time_ms));
    return time_ms + (apart >= 0 && apart < SAME_CLOCK_MS ? 0 : apart);
  }

  /** As `call`, with the moments of sending and answer, on this browser's clock. */
  async send(path, body, signal) {
    const done = { path: this.base + path, body, status: 0, ok: false, answer: NO_ANSWER, sent_ms: now() };
    try {
      const response = await fetch(done.path, body === undefined ? { signal } : {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
        signal,
      });
      const answer = await response.json();
      Object.assign(done, { status: response.status, ok: response.ok, answer });
    } catch {
      // The status says it.
    }
    done.answered_ms = now();
    return { ...done, ms: done.answered_ms - done.sent_ms };
  }
}

/** The wall clock, milliseconds, as finely as the browser gives it. */
export const now = () => performance.timeOrigin + performance.now();
