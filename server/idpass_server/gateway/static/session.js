// Who calls: a token, which stays in this tab, and what it permits.
//
// The token is sent as a header and nowhere else: it is in no address, in no request that the page
// shows, and in no storage but sessionStorage, which is this tab's and ends with it.

import { authorize, call } from "./api.js";

const KEY = "idpass-token";
const TOKEN = /^[!-~]{1,4000}$/;

/**
 * By permission, a request that changes nothing: the service examines the permission first, and then
 * refuses it for what it asks. 403 is a permission that is not there.
 */
const ASKS = {
  register: ["/idpass/register", { link_validity_days: 99 }],
  advance: ["/idpass/advance", {}],
  cancel: ["/idpass/cancel", {}],
  watch: ["/idpass/events?id=00000000-0000-0000-0000-000000000000"],
};
const WHY = {
  401: "The service knows no caller with this token.",
  403: "This token lacks the permission read, which this page needs.",
};

const session = { token: "", lacking: new Set(), known: false };

/** Whether there is a token. */
export const signedIn = () => Boolean(session.token);

/** Permissions that the token lacks. */
export const lacking = () => [...session.lacking];

/** Why something cannot be done, or "" if it can. Args: the permissions that it needs. */
export function barred(...permissions) {
  const missing = permissions.filter((each) => session.lacking.has(each));
  return missing.length ? `Your token lacks the permission${missing.length > 1 ? "s" : ""} ${missing.join(", ")}.` : "";
}

/** Disables a control for whoever lacks its permission, and says why. */
export function bar(control, permission) {
  const why = barred(permission);
  if (!why) return;
  control.disabled = true;
  control.title = why;
}

function keep(token) {
  Object.assign(session, { token, lacking: new Set(), known: false });
  authorize(token);
  try {
    if (token) sessionStorage.setItem(KEY, token);
    else sessionStorage.removeItem(KEY);
  } catch {
    // The browser keeps nothing: a reload asks for the token again.
  }
}

/** Takes up the token that this tab has kept over a reload. */
export function restore() {
  try {
    keep(sessionStorage.getItem(KEY) ?? "");
  } catch {
    keep("");
  }
}

export const forget = () => keep("");

/** Tries a token. Resolves to why it will not do, or "". */
export async function enter(token) {
  if (!token) return "Enter a token.";
  if (!TOKEN.test(token)) return "This is no token: a token has no spaces, and only letters, digits and signs of ASCII.";
  authorize(token);
  const { ok, status, answer } = await call("/idpass/account");
  if (ok) keep(token);
  else forget();
  return ok ? "" : WHY[status] ?? answer.message;
}

/** Learns what the token permits, once. */
export async function learn() {
  if (!session.token || session.known) return;
  const asked = Object.entries(ASKS).map(async ([permission, [path, body]]) => {
    const { status } = await call(path, body);
    return status === 403 && permission;
  });
  session.lacking = new Set((await Promise.all(asked)).filter(Boolean));
  session.known = true;
}
