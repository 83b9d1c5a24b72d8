// Where the service has a callers file: asks for a token, says who one is, and lets one leave.

import { button, byId, foreign, make, setText } from "./dom.js";
import { hub } from "./hub.js";
import { enter, forget, lacking, learn, signedIn } from "./session.js";

const GONE = "The service no longer takes the token of this tab: it was replaced or withdrawn.";
const ENDS = { watch: "nothing is shown as it happens" };

export class SignIn {
  constructor() {
    this.token = make("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", "aria-describedby": "token-wrong" });
    this.wrong = make("span", { class: "wrong", id: "token-wrong", role: "alert" });
    this.enter = make("button", { type: "submit", class: "primary", id: "sign-in" }, "Sign in");
    this.panel = make("section", { id: "signin-panel", "aria-labelledby": "signin-title", hidden: true },
      make("form", { class: "card", novalidate: true, onsubmit: (event) => this.submit(event) },
        make("h2", { id: "signin-title" }, "Sign in"),
        make("p", { class: "muted" }, "This service knows its callers. Enter the token of one: the page then shows the passes of its account, and may do what the token may."),
        make("label", { class: "field", for: "token" }, make("span", {}, "Token"), this.token, this.wrong),
        this.enter,
        make("p", { class: "muted" }, "It stays in this tab, is sent to this server alone, and is gone when the tab is closed.")));
    document.querySelector("main").append(this.panel);
  }

  /** Asks for a token. Resolves once there is one that will do. */
  ask() {
    setText(this.wrong, signedIn() ? GONE : "");
    forget();
    this.cover(true);
    this.token.focus();
    return new Promise((done) => { this.done = done; });
  }

  async submit(event) {
    event.preventDefault();
    this.enter.disabled = true;
    const why = await enter(this.token.value.trim());
    this.enter.disabled = false;
    setText(this.wrong, why);
    this.token.setAttribute("aria-invalid", String(Boolean(why)));
    if (why) {
      this.token.select();
      return;
    }
    this.token.value = "";
    this.cover(false);
    this.done();
  }

  /** Covers the page, of which nothing can be reached then. */
  cover(on) {
    this.panel.hidden = !on;
    document.body.classList.toggle("signed-out", on);
    for (const part of document.querySelectorAll("main > :not(#signin-panel)")) part.inert = on;
  }

  /** Says in the bar whose passes are shown, and what cannot be done with them. */
  async admit(account) {
    await learn();
    document.body.classList.toggle("real", !hub.sandbox);
    if (hub.sandbox) return;
    document.title = `ID Pass ${account.id}`;
    document.querySelector(".bar h1 span").replaceChildren(foreign(account.id));
    const missing = lacking();
    byId("signin").replaceChildren(
      make("span", { class: "muted", id: "permits" }, said(missing)),
      ...(signedIn() ? [button("Sign out", () => this.leave(), { id: "sign-out", class: "plain" })] : []));
  }

  /** Forgets the token, and with the page all that it has shown. */
  leave() {
    forget();
    location.replace("/");
  }
}

function said(missing) {
  if (!missing.length) return "real passes";
  const barred = missing.filter((each) => each !== "watch");
  return [
    barred.length && `no permission to ${barred.join(", ")}`,
    missing.includes("watch") && ENDS.watch,
  ].filter(Boolean).join("; ");
}
