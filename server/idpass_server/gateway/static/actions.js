// What can be done with the pass in the inspector, and what the buttons know beforehand.

import { violations } from "./api.js";
import { button, make, setText, words } from "./dom.js";
import { requestId, selected, send, tell } from "./hub.js";
import { inFlight } from "./passes.js";
import { prospect } from "./says.js";
import { bar, barred } from "./session.js";

const REASONS = ["abandoned", "superseded", "duplicate", "requested_by_applicant", "fraud_suspected", "other"];
const STEPS = {
  new: { opened: "opens the link" },
  opened: { in_progress: "consents" },
  in_progress: { complete: "is verified", failed: "fails" },
};
const LATE = { complete: "is verified, too late" };

/** Says beside each field what the server refused of it. Returns whether any was found. */
export function besideFields(form, answer) {
  const wrong = answer ? violations(answer) : {};
  let found = false;
  for (const line of form.querySelectorAll(".wrong")) {
    const text = wrong[line.dataset.field] ?? Object.entries(wrong).find(([path]) => path.endsWith(`.${line.dataset.field}`))?.[1];
    setText(line, text ?? "");
    const field = form.querySelector(`[name="${line.dataset.field}"]`);
    field.toggleAttribute("aria-invalid", Boolean(text));
    if (text) field.setAttribute("aria-invalid", "true");
    found ||= Boolean(text);
  }
  return found;
}

/** A labelled field with room for what the server refuses of it. */
export function field(label, name, control, about = "") {
  control.name = name;
  const wrong = make("span", { class: "wrong", "data-field": name, id: `wrong-${name}`, role: "alert" });
  control.setAttribute("aria-describedby", wrong.id);
  return make("label", { class: "field" }, make("span", {}, label, about && make("small", { class: "muted" }, ` ${about}`)), control, wrong);
}

export class Actions {
  /** Args: `reissue(pass)` registers another in its place. */
  constructor(reissue) {
    this.main = button("", () => this.cancel(), { id: "cancel", class: "primary" });
    this.steps = make("div", { class: "steps", role: "group", "aria-label": "The applicant" });
    this.reason = make("select", { id: "reason" }, make("option", { value: "" }, "none given"),
      ...REASONS.map((each) => make("option", { value: each }, words(each))));
    this.note = make("input", { id: "note", type: "text", autocomplete: "off", placeholder: "Up to 500 characters" });
    this.requireRefund = make("input", { type: "checkbox", id: "require-refund" });
    this.validateOnly = make("input", { type: "checkbox", id: "validate-only" });
    this.options = make("details", { class: "options" },
      make("summary", {}, "Options"),
      make("div", { class: "fields" },
        field("Reason", "reason", this.reason), field("Note", "note", this.note),
        make("label", { class: "check" }, this.requireRefund, " Only with a refund"),
        make("label", { class: "check" }, this.validateOnly, " Only check, change nothing")));
    this.options.addEventListener("change", () => this.show(selected()));
    this.reissue = button("Issue again", () => reissue(selected()), { id: "reissue", title: "Register another in its place, in one transaction" });
    this.more = make("div", { class: "more" },
      button("Race…", () => tell("race", selected()), { id: "race-open", title: "Several callers cancel it at once" }),
      this.reissue);
    // On a phone there is room for one button, and one that shows the others.
    const unfold = button("More", () => unfold.setAttribute("aria-expanded", this.element.classList.toggle("open")), { id: "more", "aria-expanded": "false" });
    this.barred = make("p", { class: "muted", id: "barred" });
    this.element = make("div", { class: "actions" }, this.main, unfold, this.more, this.steps, this.options, this.barred);
  }

  /** Updates what the buttons say. */
  show(pass) {
    if (!pass) return;
    setText(this.main, prospect(pass, this.asked(pass)));
    this.main.classList.toggle("primary", inFlight(pass));
    bar(this.main, "cancel");
    bar(this.reissue, "register");
    setText(this.barred, barred("cancel", "advance", "register"));
    const steps = inFlight(pass) ? STEPS[pass.status] : LATE;
    const key = `${pass.id} ${Object.keys(steps)}`;
    if (key === this.shown) return;
    this.shown = key;
    const focused = this.steps.contains(document.activeElement);
    this.steps.replaceChildren(make("span", { class: "muted" }, "The applicant"), ...Object.entries(steps).map(([to, text]) =>
      button(text, () => this.advance(to), { "data-to": to })));
    for (const step of this.steps.querySelectorAll("button")) bar(step, "advance");
    if (focused) this.steps.querySelector("button").focus();
  }

  asked(pass) {
    return { inFlight: inFlight(pass), requireRefund: this.requireRefund.checked, validateOnly: this.validateOnly.checked };
  }

  /** The request that cancels a pass as the options say. */
  request(pass) {
    return {
      id: pass.id,
      request_id: requestId(),
      ...(this.reason.value && { reason: this.reason.value }),
      ...(this.note.value && { note: this.note.value }),
      ...(this.requireRefund.checked && { require_refund: true }),
      ...(this.validateOnly.checked && { validate_only: true }),
    };
  }

  async cancel(pass = selected()) {
    if (!pass || barred("cancel")) return;
    const { ok, answer } = await send("/idpass/cancel", this.request(pass), { pass });
    if (besideFields(this.options, ok ? undefined : answer)) this.options.open = true;
  }

  async cancelAll(passes) {
    if (barred("cancel")) return false;
    const requests = passes.map((pass) => this.request(pass));
    const { ok, answer } = await send("/idpass/batch-cancel", { requests });
    if (besideFields(this.options, ok ? undefined : answer)) this.options.open = true;
    return ok;
  }

  advance(to) {
    const pass = selected();
    return send("/idpass/advance", { id: pass.id, to_status: to, request_id: requestId() }, { pass });
  }
}
