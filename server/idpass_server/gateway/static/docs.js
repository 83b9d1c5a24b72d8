// The API page, drawn from /openapi.json, at once and not bit by bit: nothing moves under the reader's
// eyes. In a sandbox its examples are of the sandbox's own passes.

import { errors, fields, fieldsOf, inline, prose, shared, withoutErrors } from "./describe.js";
import { byId, make } from "./dom.js";
import { look } from "./live.js";
import { restore, signedIn } from "./session.js";
import { Try } from "./try.js";

const JSON_TYPE = "application/json";

/** The document's examples of an operation, each with the answer of the same name. */
function examplesOf({ operationId, requestBody, responses }, schemas) {
  const { schema, examples = {} } = requestBody?.content[JSON_TYPE] ?? {};
  const [{ examples: answers = {} } = {}] = Object.values(responses["200"]?.content ?? {});
  const names = Object.keys(requestBody ? examples : answers);
  if (names.length) {
    return names.map((name) => ({
      summary: (examples[name] ?? answers[name]).summary ?? name,
      request: examples[name]?.value,
      answer: answers[name]?.value,
    }));
  }
  const { required = [] } = schemas[schema?.$ref?.split("/").at(-1)] ?? {};
  return [{ summary: operationId, request: requestBody && Object.fromEntries(required.map((name) => [name, `{${name}}`])) }];
}

/** A message as part of the request that alone has it, or by itself. */
const message = (name, schema, heading = "h2") => make("section", { id: name, class: "message", "aria-labelledby": `${name}-title` },
  make(heading, { id: `${name}-title` }, name), heading === "h2" && prose(schema.description), fieldsOf(schema));

function operation(each, { components, common, place, inside }) {
  const { path, verb, operationId, summary, description, parameters = [] } = each;
  const column = new Try(each, each.examples, place);
  return make("section", { id: operationId, class: "operation", "aria-labelledby": `${operationId}-title` },
    make("div", { class: "said" },
      make("h2", { id: `${operationId}-title` },
        make("span", { class: "verb" }, verb.toUpperCase()), make("code", {}, path),
        make("a", { class: "here", href: `#${operationId}`, "aria-label": `Link to ${operationId}` }, "#")),
      make("p", { class: "summary" }, ...inline(summary)),
      prose(withoutErrors(description)),
      fields("Parameters", parameters.map((one) => ({ ...one, name: `${one.name} (${one.in})` }))),
      ...messagesOf(each).map((name) => (inside.get(name) === operationId
        ? message(name, components.schemas[name], "h3")
        : make("p", {}, make("a", { href: `#${name}` }, name))))),
    column.element,
    errors(each, components, common, (row) => column.example(row)));
}

/** Names of an operation's request and answer. */
const messagesOf = ({ requestBody, responses }) => [requestBody?.content, responses["200"]?.content]
  .map((content) => content?.[JSON_TYPE]?.schema?.$ref?.split("/").at(-1)).filter(Boolean);

/** By the name of each request and answer, the operation that it stands with: the first that has it. */
function insideOf(operations) {
  const found = new Map();
  for (const each of operations) {
    for (const name of messagesOf(each)) if (!found.has(name)) found.set(name, each.operationId);
  }
  return found;
}

/** Operations by what they are about, as the document groups them. */
function groups(operations) {
  const found = new Map();
  for (const each of operations) {
    const [name = "Requests"] = each.tags ?? [];
    found.set(name, [...found.get(name) ?? [], each]);
  }
  return [...found];
}

/** The list at the side, and the select that takes its place on a phone. */
function contents(operations, messages) {
  const link = (id, text) => make("a", { href: `#${id}` }, text);
  const option = (id, text) => make("option", { value: id }, text);
  const short = (path) => path.replace("/idpass/", "");
  byId("contents").append(
    ...groups(operations).flatMap(([name, each]) => [make("h2", {}, name), ...each.map(({ operationId, path }) => link(operationId, short(path)))]),
    make("h2", {}, "Messages"), ...messages.map((name) => link(name, name)));
  byId("go").append(
    option("start", "In short"),
    ...groups(operations).map(([label, each]) => make("optgroup", { label }, ...each.map(({ operationId, path }) => option(operationId, path)))),
    make("optgroup", { label: "Messages" }, ...messages.map((name) => option(name, name))));
  byId("go").addEventListener("change", ({ target }) => { location.hash = target.value; });
}

/** Marks what is being read, in the list and in the select. */
function follow() {
  const inView = new Set();
  const sections = [...document.querySelectorAll("main > section")];
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target);
    const first = sections.find((section) => inView.has(section));
    if (first) mark(first.id);
  }, { rootMargin: "-10% 0px -60% 0px" });
  for (const section of sections) observer.observe(section);
}

function mark(id) {
  byId("go").value = id;
  for (const link of document.querySelectorAll("#contents a")) {
    if (link.hash === `#${id}`) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

async function draw() {
  restore();
  const [api, live] = await Promise.all([fetch("/openapi.json").then((response) => response.json()), look()]);
  const place = { sandbox: Boolean(live), account: live ? "demo" : "", signedIn: signedIn() };
  const operations = Object.entries(api.paths)
    .flatMap(([path, verbs]) => Object.entries(verbs).map(([verb, each]) => ({ path, verb, ...each })));
  const { components } = api;
  await Promise.all(operations.map(async (each) => {
    const examples = examplesOf(each, components.schemas);
    each.examples = live ? await live.fill(each, examples) : examples;
  }));
  const inside = insideOf(operations);
  const common = shared(operations, components);
  const messages = Object.keys(components.schemas).filter((name) => !inside.has(name));
  contents(operations, messages);
  byId("api").append(
    make("section", { id: "start", class: "message", "aria-label": "In short" }, make("h2", {}, "In short"), prose(api.info.description)),
    ...operations.map((each) => operation(each, { components, common, place, inside })),
    ...messages.map((name) => message(name, components.schemas[name])));
  follow();
  byId(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

draw();
