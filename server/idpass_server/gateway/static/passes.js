// The passes: loaded once, kept up to date by events.

import { call, listAll } from "./api.js";

export const STATUSES = ["new", "opened", "in_progress", "complete", "failed", "expired", "cancelled"];
export const IN_FLIGHT = new Set(["new", "opened", "in_progress"]);

export class Passes {
  /** Calls `changed` when there is something new to show. */
  constructor(changed) {
    this.changed = changed;
    this.byId = new Map();
    this.unknown = new Set();
    this.sorted = null;
    this.turn = 0;
  }

  /**
   * Forgets everything and loads anew; what an earlier load still brings is dropped, since it may be
   * from before a reset. Resolves to an error, or undefined.
   */
  async load() {
    const turn = (this.turn += 1);
    this.byId.clear();
    this.unknown.clear();
    this.sorted = null;
    return listAll((page) => {
      if (turn !== this.turn) return false;
      for (const pass of page) this.byId.set(pass.id, pass);
      this.sorted = null;
      this.changed();
      return true;
    });
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
    return counts;
  }

  /** Passes with a status (or any) and a text in their id or applicant. */
  matching(status, text) {
    const wanted = text.trim().toLowerCase();
    return this.all().filter(
      (pass) =>
        (!status || pass.status === status) &&
        (!wanted || pass.id.includes(wanted) ||
          (pass.applicant_reference ?? "").toLowerCase().includes(wanted)),
    );
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
      if (pass.cancellation) pass.cancellation.note = "";
      this.changed();
      return;
    }
    pass.status = event.to_status;
    pass.update_time = event.event_time;
    if (event.refund) pass.fee_refunded = true;
    this.changed();
  }

  /** Fetches the passes that appeared in events and not in the list. */
  async learn() {
    const turn = this.turn;
    const ids = [...this.unknown];
    this.unknown.clear();
    for (const id of ids) {
      const { ok, answer } = await call("/idpass/details", { id });
      if (turn !== this.turn) return;
      if (ok) this.byId.set(id, answer.id_pass);
      this.sorted = null;
      this.changed();
    }
  }
}
