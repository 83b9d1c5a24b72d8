// The passes: loaded once, kept up to date by events.

import { call, listAll } from "./api.js";

export const STATUSES = ["new", "opened", "in_progress", "complete", "failed", "expired", "cancelled"];
export const IN_FLIGHT = new Set(["new", "opened", "in_progress"]);

/** Whether a change of status is still possible: an overdue pass expires as soon as it is touched. */
export const inFlight = (pass) => IN_FLIGHT.has(pass.status) && Date.parse(pass.expire_time) > Date.now();

export class Passes {
  /** Calls `changed` when there is something new to show, with the pass if it is one. */
  constructor(changed) {
    this.changed = changed;
    this.byId = new Map();
    this.unknown = new Set();
    this.sorted = null;
    this.turn = 0;
    this.complete = false;
  }

  /**
   * Loads everything anew; what an earlier load still brings is dropped, since it may be from before
   * a reset. What was known stays to be seen until the first page is there. Resolves to an error, or
   * undefined.
   */
  async load() {
    const turn = (this.turn += 1);
    let first = true;
    this.unknown.clear();
    this.complete = false;
    const error = await listAll((page) => {
      if (turn !== this.turn) return false;
      if (first) this.byId.clear();
      first = false;
      for (const pass of page) this.put(pass);
      this.changed();
      return true;
    });
    if (turn === this.turn && !error) this.complete = true;
    this.changed();
    return error;
  }

  put(pass) {
    pass.text = `${pass.id} ${pass.applicant_reference ?? ""}`.toLowerCase(); // what a search looks at
    this.byId.set(pass.id, pass);
    this.sorted = null;
  }

  get(id) {
    return this.byId.get(id);
  }

  /** Newest first: ids are ordered by time. */
  all() {
    this.sorted ??= [...this.byId.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
    return this.sorted;
  }

  counts() {
    const counts = Object.fromEntries(STATUSES.map((status) => [status, 0]));
    for (const pass of this.byId.values()) counts[pass.status] += 1;
    counts[""] = this.byId.size;
    return counts;
  }

  /** Passes with a status (or any) and a text in their id or applicant, and those to `keep`. */
  matching(status, text, keep = new Set()) {
    const wanted = text.trim().toLowerCase();
    const fits = (pass) => !wanted || pass.text.includes(wanted);
    return this.all().filter((pass) => (!status || pass.status === status || keep.has(pass.id)) && fits(pass));
  }

  apply(event) {
    const pass = this.byId.get(event.id_pass_id);
    if (!pass) {
      this.unknown.add(event.id_pass_id);
      if (this.unknown.size === 1) setTimeout(() => this.learn(), 50);
      return;
    }
    // The list may have been newer than the event.
    if (Date.parse(event.event_time) < Date.parse(pass.update_time)) return;
    if (event.erased) {
      pass.applicant_reference = "";
      pass.text = pass.id;
      if (pass.cancellation) pass.cancellation.note = "";
    } else {
      pass.status = event.to_status;
      pass.update_time = event.event_time;
      if (event.refund) pass.fee_refunded = true;
      pass.stale = true; // an event does not tell all that it changed
    }
    this.changed(pass);
  }

  /** Fetches the passes that appeared in events and not in the list. */
  async learn() {
    const ids = [...this.unknown];
    this.unknown.clear();
    for (const id of ids) if (!(await this.refresh(id))) return;
  }

  /** Fetches one pass. Resolves to it, or undefined where that is no longer wanted or not possible. */
  async refresh(id) {
    const turn = this.turn;
    const { ok, answer } = await call("/idpass/details", { id });
    if (turn !== this.turn || !ok) return undefined;
    this.put(answer.id_pass);
    this.changed(answer.id_pass);
    return answer.id_pass;
  }
}
