// The dialog that registers a pass.

import { besideFields, field } from "./actions.js";
import { button, make } from "./dom.js";
import { hub, requestId, send } from "./hub.js";

const NAMES = ["Ada Park", "Ben Whaanga", "Cleo Marsh", "Dev Anand", "Eve Lindqvist", "Finn Doyle", "Gia Romano", "Hana Sato"];

export class Register {
  /** Args: `registered(pass)`. */
  constructor(registered) {
    this.registered = registered;
    this.name = make("input", { type: "text", autocomplete: "off", spellcheck: "false" });
    this.days = make("input", { type: "number", placeholder: "7" });
    this.form = make("form", { method: "dialog", novalidate: true },
      make("h2", {}, "Register a pass"),
      field("Applicant", "applicant_reference", this.name, "your own reference"),
      field("Link is valid for", "link_validity_days", this.days, "days, 1 to 14"),
      make("div", { class: "ends" },
        button("Cancel", () => this.dialog.close(), { class: "plain" }),
        make("button", { type: "submit", class: "primary", id: "register-now" }, "Register")));
    this.dialog = make("dialog", { id: "register-dialog", "aria-label": "Register a pass" }, this.form);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    document.body.append(this.dialog);
  }

  open() {
    besideFields(this.form, undefined);
    this.name.value = hub.sandbox ? NAMES[Math.floor(Math.random() * NAMES.length)] : "";
    this.days.value = "";
    this.dialog.showModal();
    this.name.select();
  }

  async submit() {
    const done = await this.send({
      applicant_reference: this.name.value,
      ...(this.days.value && { link_validity_days: Number(this.days.value) }),
    });
    if (!besideFields(this.form, done.ok ? undefined : done.answer)) this.dialog.close();
  }

  /** Registers another pass in a prior one's place. */
  reissue(prior) {
    return this.send({ applicant_reference: prior.applicant_reference, supersedes: prior.id }, prior);
  }

  async send(body, pass) {
    const done = await send("/idpass/register", { request_id: requestId(), ...body }, { pass });
    if (done.ok) this.registered(done.answer.id_pass);
    return done;
  }
}
