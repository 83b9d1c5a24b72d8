// The account's events as they happen, over one stream for all tabs: a browser opens six connections
// to a host over HTTP/1.1, and a stream takes one of them for as long as it lasts.
//
// The tab that holds the lock reads the stream and passes each event on; when it is closed, another
// gets the lock and goes on from where it is. A tab that finds numbers missing fetches them. Where the
// browser has no locks, or the tab has a token of its own, it reads a stream of its own.

import { authorization, pastEvents, readEvents } from "./api.js";

const NAME = "idpass-events";
const AGAIN_MS = 1000;

const pause = (ms) => new Promise((done) => { setTimeout(done, ms); });

export class Stream {
  /**
   * Args: `took(event)` gets each event once, in order; `state(word)` is told "live" or
   * "reconnecting"; `lost()` is called when the stream cannot be resumed, as after a reset.
   */
  constructor({ took, state, lost }) {
    Object.assign(this, { took, state, lost });
    this.run = undefined;
    this.waiting = Promise.resolve();
    this.channel = "BroadcastChannel" in globalThis ? new BroadcastChannel(NAME) : undefined;
    this.channel?.addEventListener("message", ({ data }) => this.heard(data));
  }

  /** Gives events of a history after a sequence from now on. */
  start(history, after) {
    this.stop();
    const run = { history, after, over: new AbortController() };
    this.run = run;
    if (!this.channel || !navigator.locks || authorization().authorization) {
      this.read(run, () => {});
      return;
    }
    navigator.locks.request(NAME, { signal: run.over.signal }, () => this.read(run, (message) => {
      this.channel.postMessage({ ...message, history });
    })).catch(() => {}); // stopped while it waited
    this.channel.postMessage({ hello: true, history });
  }

  stop() {
    this.run?.over.abort();
    this.run = undefined;
  }

  /** Reads the stream, for this tab and for those that `pass` reaches. */
  async read(run, pass) {
    const { signal } = run.over;
    run.leads = true;
    while (!signal.aborted) {
      const status = await this.readOnce(run, pass);
      if (signal.aborted) return;
      if (status === 403) {
        this.say(run, pass, "not permitted to watch");
        return;
      }
      // Not before the next second where nothing was read: it would be refused on and on.
      const refused = status >= 400 && status < 500;
      if (!refused) this.say(run, pass, "reconnecting");
      if (!refused || run.word !== "reconnecting") await pause(AGAIN_MS);
      if (refused && !signal.aborted) {
        pass({ lost: true });
        run.over.abort();
        this.lost();
      }
    }
  }

  /** Resolves to the status of the answer; 0 where there was none. */
  async readOnce(run, pass) {
    const { signal } = run.over;
    const take = (event) => {
      if (signal.aborted) return false;
      pass({ event });
      this.take(run, event);
      return true;
    };
    try {
      return await readEvents({ after_sequence: run.after, history: run.history }, take,
        { signal, opened: () => this.say(run, pass, "live") });
    } catch {
      return 0; // the server is away
    }
  }

  say(run, pass, word) {
    run.word = word;
    pass({ word });
    this.state(word);
  }

  /** What another tab says. */
  heard({ history, event, word, lost, hello }) {
    const { run } = this;
    if (!run || run.over.signal.aborted) return;
    if (hello) {
      if (run.leads && run.word) this.channel.postMessage({ word: run.word, history: run.history });
      return;
    }
    if (lost || history !== run.history) {
      if (lost && history !== run.history) return; // an older one
      this.stop();
      this.lost();
      return;
    }
    if (word) this.state(word);
    // One after the other: the first may have to fetch those before it.
    if (event) this.waiting = this.waiting.then(() => this.catchUp(run, event));
  }

  async catchUp(run, event) {
    if (event.sequence > run.after + 1) {
      const before = event.sequence - 1;
      const missed = await pastEvents(
        { after_sequence: run.after, history: run.history }, ({ sequence }) => sequence >= before);
      for (const each of missed) this.take(run, each);
    }
    this.take(run, event);
  }

  take(run, event) {
    if (run !== this.run || event.sequence <= run.after) return;
    run.after = event.sequence;
    this.took(event);
  }
}
