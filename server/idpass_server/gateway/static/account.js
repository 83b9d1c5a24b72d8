// The account's figures. Money counts up to where it is, and the slot meter steps back.

import { call } from "./api.js";
import { byId, money, setText, still } from "./dom.js";
import { hub, tell } from "./hub.js";

const COUNTS_MS = 700;
const SOON_MS = 60;
const counting = new Map();

/** Shows an amount, counting from the one that stood there. */
function countTo(output, value) {
  cancelAnimationFrame(counting.get(output));
  const [from, to] = [Number(output.dataset.amount), Number(value.amount)];
  output.dataset.amount = value.amount;
  const decimals = value.amount.split(".")[1].length;
  const began = performance.now();
  const step = (now) => {
    const part = Math.min(1, (now - began) / COUNTS_MS);
    const amount = part === 1 ? value.amount : (from + (to - from) * (1 - (1 - part) ** 3)).toFixed(decimals);
    setText(output, `${value.currency} ${amount}`);
    if (part < 1) counting.set(output, requestAnimationFrame(step));
  };
  step(still() || Number.isNaN(from) ? Infinity : began);
}

function mark(output) {
  output.classList.add("changed");
  setTimeout(() => output.classList.remove("changed"), COUNTS_MS);
}

export function showAccount(account, changed = true) {
  hub.account = account;
  if (setText(byId("slots"), `${account.slots_in_use} of ${account.slot_limit}`) && changed) mark(byId("slots"));
  const amounts = { fee: account.fee, "fees-charged": account.fees_charged, "fees-refunded": account.fees_refunded };
  for (const [id, value] of Object.entries(amounts)) {
    const output = byId(id);
    if (!value || output.dataset.amount === value.amount) {
      if (!value) setText(output, money(value));
      continue;
    }
    if (!changed) delete output.dataset.amount;
    else mark(output);
    countTo(output, value);
  }
  const meter = byId("slots-meter");
  meter.setAttribute("aria-valuemax", account.slot_limit || 1);
  meter.setAttribute("aria-valuenow", account.slots_in_use);
  meter.setAttribute("aria-valuetext", byId("slots").textContent);
  meter.firstElementChild.style.transform = `scaleX(${Math.min(1, account.slots_in_use / (account.slot_limit || 1))})`;
  tell("account", account);
}

let timer;

/** Asks for the figures soon, since something has happened. */
export function refreshAccount() {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const { ok, answer } = await call("/idpass/account");
    if (ok) showAccount(answer);
  }, SOON_MS);
}
