// The document's examples with the sandbox's own passes in them, so that they work when they are pasted.

import { call } from "./api.js";

const IN_FLIGHT = ["new", "opened", "in_progress"];
const LEADS_TO = { opened: ["new"], in_progress: ["opened"], complete: ["in_progress"], failed: ["in_progress"], expired: IN_FLIGHT };
const asIs = (request) => request;
/** What is asked in place of a request, by how the operation is called, so that nothing is changed. */
const ASK = { Get: asIs, List: asIs, CancelIdPass: (request) => ({ ...request, validate_only: true }) };
const unused = () => `docs-${crypto.randomUUID().slice(0, 8)}`;

/** The sandbox's passes, each given out once while there are enough; undefined where there is no sandbox. */
export async function look() {
  const place = await call("/sandbox");
  if (!place.ok || !place.answer.sandbox) return undefined;
  const [passes, inbox] = await Promise.all([call("/idpass/list", { page_size: 200 }), call("/sandbox/inbox")]);
  if (!passes.ok) return undefined;
  return new Live(passes.answer.id_passes, inbox.ok ? inbox.answer.webhook : null);
}

class Live {
  constructor(passes, webhook) {
    this.passes = passes;
    this.webhook = webhook?.id;
  }

  /** The id of a pass in one of these statuses, which is given out last from then on. */
  pass(statuses) {
    const index = this.passes.findIndex(({ status }) => statuses.includes(status));
    if (index < 0) return undefined;
    const [found] = this.passes.splice(index, 1);
    this.passes.push(found);
    return found.id;
  }

  /**
   * An operation's examples with ids that work; a value that comes twice stays one value. Answers are
   * the service's own, where asking changes nothing.
   */
  async fill(operation, examples) {
    const { operationId, path, parameters = [] } = operation;
    const instead = new Map();
    for (const each of parameters) if (each.in === "path") each.example = this.pass(["opened", "new"]);
    const asked = parameters.reduce((so, { name, example }) => so.replace(`{${name}}`, example), path);
    for (const { request } of examples) this.learn(operationId, request, instead);
    const filled = examples.map((each) => ({
      ...each,
      request: replaced(each.request, instead),
      answer: replaced(each.answer, instead),
    }));
    const [, ask] = Object.entries(ASK).find(([name]) => operationId.startsWith(name)) ?? [];
    await Promise.all(filled.map(async (each) => {
      const { ok, answer } = ask ? await call(asked, ask(each.request)) : {};
      if (ok) each.answer = { ...answer, ...("replayed" in answer && { replayed: each.answer?.replayed ?? false }) };
    }));
    return filled;
  }

  learn(operation, request, instead) {
    for (const [name, value] of Object.entries(request ?? {})) {
      if (Array.isArray(value)) value.forEach((item) => typeof item === "object" && this.learn(operation, item, instead));
      else if (!instead.has(value)) {
        const found = this.instead(operation, name, request);
        if (found) instead.set(value, found);
      }
    }
  }

  instead(operation, name, request) {
    if (name === "request_id") return unused();
    if (name === "supersedes") return this.pass(["new", "opened"]);
    if (name !== "id") return undefined;
    if (operation.includes("Webhook")) return this.webhook;
    if (request.to_status) return this.pass(LEADS_TO[request.to_status] ?? IN_FLIGHT);
    return this.pass(request.expected_status ? [request.expected_status] : ["opened", "new"]);
  }
}

function replaced(value, instead) {
  if (Array.isArray(value)) return value.map((each) => replaced(each, instead));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, replaced(each, instead)]));
  }
  return instead.get(value) ?? value;
}
