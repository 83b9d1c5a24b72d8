// The API page, drawn from /openapi.json.

import { byId, make } from "./dom.js";

const nameOf = (reference) => reference.split("/").at(-1);

/** Text with `code` in it. */
const inline = (text) => text.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));

/** Paragraphs and lists of a description. */
function prose(text) {
  const out = make("div", { class: "prose" });
  for (const block of (text ?? "").split(/\n\n+/)) {
    const lines = block.split("\n").filter(Boolean);
    if (lines.length && lines.every((line) => line.startsWith("* "))) {
      out.append(make("ul", {}, ...lines.map((line) => make("li", {}, ...inline(line.slice(2))))));
    } else if (lines.length) {
      out.append(make("p", {}, ...inline(block)));
    }
  }
  return out;
}

/** A schema's type in words, with links to those that are described here. */
function type(schema) {
  if (schema.$ref) return [make("a", { href: `#${nameOf(schema.$ref)}` }, nameOf(schema.$ref))];
  if (schema.type === "array") return ["array of ", ...type(schema.items)];
  const limits = [
    schema.enum && `one of ${schema.enum.join(", ")}`,
    schema.minimum !== undefined && `from ${schema.minimum}`,
    schema.maximum !== undefined && `to ${schema.maximum}`,
    schema.maxLength && `up to ${schema.maxLength} characters`,
  ].filter(Boolean);
  return [[schema.format ?? schema.type, ...limits].join(", ")];
}

function fields(caption, rows) {
  if (!rows.length) return undefined;
  return make("table", {}, caption && make("caption", {}, caption), make("tbody", {},
    ...rows.map(({ name, schema, required, description }) => make("tr", {},
      make("th", { scope: "row" }, make("code", {}, name), required ? make("div", { class: "must" }, "required") : ""),
      make("td", { class: "type" }, ...type(schema)),
      make("td", {}, prose(description))))));
}

function message(name, schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([field, value]) => ({
    name: field,
    schema: value,
    required: schema.additionalProperties === false && schema.required?.includes(field),
    description: value.description,
  }));
  return make("section", { id: name, class: "card" }, make("h2", {}, name), prose(schema.description), fields("", rows));
}

function operation(path, verb, { operationId, summary, description, parameters = [], requestBody, responses }) {
  const body = requestBody?.content["application/json"].schema;
  const answer = responses["200"].content["application/json"]?.schema;
  const line = (label, schema) => schema && make("p", {}, `${label}: `, ...type(schema));
  return make("section", { id: operationId, class: "card" },
    make("h2", {}, make("span", { class: "verb" }, verb.toUpperCase()), make("code", {}, path)),
    make("p", {}, ...inline(summary)),
    prose(description),
    fields("Parameters", parameters.map((each) => ({ ...each, name: `${each.name} (${each.in})` }))),
    line("Body", body),
    line("Answer", answer));
}

const link = (id, text) => make("a", { href: `#${id}` }, text);

async function draw() {
  const api = await (await fetch("/openapi.json")).json();
  const operations = Object.entries(api.paths)
    .flatMap(([path, verbs]) => Object.entries(verbs).map(([verb, each]) => [path, verb, each]));
  const schemas = Object.entries(api.components.schemas);
  byId("contents").append(
    make("h2", {}, "Requests"), ...operations.map(([path, , { operationId }]) => link(operationId, path)),
    make("h2", {}, "Messages"), ...schemas.map(([name]) => link(name, name)));
  byId("api").append(
    make("section", { class: "card" }, make("h2", {}, "In short"), prose(api.info.description)),
    ...operations.map((each) => operation(...each)),
    ...schemas.map((each) => message(...each)));
  if (location.hash) document.querySelector(location.hash)?.scrollIntoView();
}

draw();
