// What the OpenAPI document says, as elements: prose, types, tables. All of it is inserted as text.

import { make } from "./dom.js";
import { ADVICE, BY_STATUS } from "./advice.js";

const nameOf = (reference) => reference.split("/").at(-1);

/** Text with `code` in it. */
export const inline = (text) => text.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));

/** Paragraphs and lists of a description. */
export function prose(text) {
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
export function type(schema) {
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

export function fields(caption, rows) {
  if (!rows.length) return undefined;
  return make("table", { class: "fields" }, caption && make("caption", {}, caption), make("tbody", {},
    ...rows.map(({ name, schema, required, description }) => make("tr", {},
      make("th", { scope: "row" }, make("code", {}, name), required ? make("div", { class: "must" }, "required") : ""),
      make("td", { class: "type" }, ...type(schema)),
      make("td", {}, prose(description))))));
}

/** A table of a schema's fields. */
export function fieldsOf(schema) {
  return fields("", Object.entries(schema.properties ?? {}).map(([name, value]) => ({
    name,
    schema: value,
    required: schema.additionalProperties === false && schema.required?.includes(name),
    description: value.description,
  })));
}

const sentence = (text) => text.replace(/^./, (first) => first.toUpperCase()).replace(/\.$/, "");

/** The errors of an operation: { status, reason, means, todo, value }, as the document lists them. */
function refusals({ responses }, { responses: shared = {}, examples: known = {} }) {
  return Object.entries(responses).flatMap(([status, each]) => {
    if (!/^[45]\d\d$/.test(status)) return [];
    const { description, content } = each.$ref ? shared[nameOf(each.$ref)] : each;
    return Object.entries(content?.["application/json"]?.examples ?? {}).map(([reason, example]) => {
      const { summary, value } = example.$ref ? known[nameOf(example.$ref)] : example;
      return { status, reason, means: sentence(summary ?? description), todo: sentence(BY_STATUS[status] ?? ADVICE[reason] ?? ""), value };
    });
  });
}

function tableOf(rows, show) {
  return make("table", { class: "errors" },
    make("thead", {}, make("tr", {}, ...["Status", "Reason", "Meaning", "What to do"].map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {},
      make("td", { class: "code" }, row.status),
      make("th", { scope: "row" }, make("button", { type: "button", class: "reason", title: "Show such an answer", onclick: () => show(row) }, row.reason)),
      make("td", {}, ...inline(row.means)),
      make("td", {}, ...inline(row.todo))))));
}

/** Which refusals every operation has: told once, folded. */
export function shared(operations, components) {
  const sets = operations.map((each) => new Set(refusals(each, components).map(key)));
  return new Set([...sets[0] ?? []].filter((each) => sets.every((set) => set.has(each) || !set.size)));
}

const key = ({ status, reason }) => `${status} ${reason}`;
const OF_BODIES = new Set(["408", "413", "415"]);

/** The errors of an operation as a table, and folded those that any may get. */
export function errors(operation, components, common, show) {
  const [own, any] = [[], []];
  for (const row of refusals(operation, components)) (common.has(key(row)) || OF_BODIES.has(row.status) ? any : own).push(row);
  return make("div", { class: "refusals" },
    make("h3", {}, "Errors"),
    own.length ? tableOf(own, show) : make("p", { class: "muted" }, "None of its own."),
    any.length > 0 && make("details", {}, make("summary", {}, "Errors that any request may get"), tableOf(any, show)));
}

const ERRORS = /^Errors(?: in the results)?: [A-Z_]+(?:[^.]*)\.\s*/;

/** A description without the list of errors, which stands in the table; what else is said of them stays. */
export const withoutErrors = (description = "") => description.split("\n\n")
  .map((block) => block.replace(/^Errors: none of its own\.\s*/, "").replace(ERRORS, ""))
  .filter(Boolean).join("\n\n");

const TOKENS = /("(?:[^"\\]|\\.)*")(\s*:)?/g;

/** JSON with its names and texts set apart; a text that is none stands as it is. */
export function json(value) {
  if (typeof value === "string") return [value];
  const text = JSON.stringify(value, null, 2) ?? "";
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(TOKENS)) {
    parts.push(text.slice(end, match.index), make("span", { class: match[2] ? "key" : "text" }, match[1]));
    end = match.index + match[1].length;
  }
  return [...parts, text.slice(end)];
}
