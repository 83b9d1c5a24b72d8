// A request in other words: as HTTP, as shell commands, in Python and in TypeScript, each of which
// does the same when it is run. What a request says becomes a quoted literal, never code.

const ENUMS = {
  reason: "CANCEL_REASON_",
  to_status: "ID_PASS_STATUS_",
  expected_status: "ID_PASS_STATUS_",
  statuses: "ID_PASS_STATUS_",
};
const METHODS = {
  "/idpass/cancel": { rpc: "CancelIdPass", name: "cancel", takes: ["id"] },
  "/idpass/batch-cancel": { rpc: "BatchCancelIdPasses" },
  "/idpass/register": { rpc: "RegisterIdPass", name: "register", takes: [] },
  "/idpass/advance": { rpc: "AdvanceIdPass", name: "advance", takes: ["id", "to_status"] },
  "/idpass/details": { rpc: "GetIdPass", name: "get", takes: ["id"] },
  "/idpass/list": { rpc: "ListIdPasses", name: "list", takes: [] },
  "/idpass/account": { rpc: "GetAccount", name: "account", takes: [] },
};
const PAGING = new Set(["page_size", "page_token"]); // the clients turn pages by themselves
const TOKEN = "IDPASS_TOKEN"; // the environment variable that the commands take a token from

// Characters that one cannot see, or that turn a line around.
const HIDDEN = /[\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const escaped = (text) => text.replace(HIDDEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** A string literal, in JSON, Python and TypeScript alike. */
const literal = (text) => escaped(JSON.stringify(text));

/** One word of a shell, whatever is in it. */
const word = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

const compact = (value, replace) => escaped(JSON.stringify(value, replace));

export const knows = (path) => path in METHODS;

/** The commands for a service and its HTTP gateway; `token`, whether its callers need one. */
export class Forms {
  constructor({ origin, address, token = false }) {
    Object.assign(this, { origin, address, token });
  }

  /** What is to be read for the names of the languages. */
  all(request) {
    const { path } = request;
    return {
      HTTP: () => this.http(request),
      curl: () => this.curl(request),
      ...(knows(path) && {
        grpcurl: () => this.grpcurl(request),
        Python: () => this.python(request),
        TypeScript: () => this.typescript(request),
      }),
    };
  }

  http({ path, body }) {
    const head = `${body === undefined ? "GET" : "POST"} ${path} HTTP/1.1\nHost: ${new URL(this.origin).host}\n`;
    const authorization = this.token ? "Authorization: Bearer …\n" : "";
    if (body === undefined) return `${head}${authorization}`;
    return `${head}${authorization}Content-Type: application/json\n\n${escaped(JSON.stringify(body, null, 2))}`;
  }

  curl({ path, body }) {
    const parts = [`curl ${word(this.origin + path)}`];
    if (this.token) parts.push(`-H "Authorization: Bearer $${TOKEN}"`);
    if (body !== undefined) {
      parts.push("-H 'Content-Type: application/json'", `-d ${word(compact(body))}`);
    }
    return parts.join(" \\\n  ");
  }

  /** In protobuf's JSON the enums have their full names. */
  grpcurl({ path, body = {} }) {
    const full = (prefix, value) => prefix + value.toUpperCase();
    const named = (key, value) => {
      if (!(key in ENUMS)) return value;
      return Array.isArray(value) ? value.map((each) => full(ENUMS[key], each)) : full(ENUMS[key], value);
    };
    const authorization = this.token ? ` -H "Authorization: Bearer $${TOKEN}"` : "";
    return `grpcurl -plaintext${authorization} -d ${word(compact(body, named))} \\\n` +
      `  ${word(this.address)} idpass.v1.IdPassService/${METHODS[path].rpc}`;
  }

  python({ path, body = {} }) {
    const imports = [...(this.token ? ["import os"] : []), ...(body.idle_before ? ["from datetime import datetime"] : [])];
    const token = this.token ? `, token=os.environ["${TOKEN}"]` : "";
    const lines = path === "/idpass/batch-cancel" ? pythonBatch(body) : pythonCall(METHODS[path], body);
    return [
      ...imports, ...(imports.length ? [""] : []),
      "from idpass import IdPassClient",
      "",
      `with IdPassClient(${literal(this.address)}${token}) as client:`,
      ...lines.map((line) => line && `    ${line}`),
    ].join("\n");
  }

  typescript({ path, body = {} }) {
    const token = this.token ? `, { token: process.env.${TOKEN} }` : "";
    const lines = path === "/idpass/batch-cancel" ? typescriptBatch(body) : typescriptCall(METHODS[path], body);
    return [
      'import { IdPassClient } from "idpass-client";',
      "",
      `const client = new IdPassClient(${literal(this.address)}${token});`,
      ...lines,
      "client.close();",
    ].join("\n");
  }
}

const entries = (body, but) => Object.entries(body).filter(([name]) => !but.includes(name) && !PAGING.has(name));

// Python

function pythonValue(name, value) {
  if (name === "idle_before") return `datetime.fromisoformat(${literal(value.replace("Z", "+00:00"))})`;
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map((each) => pythonValue("", each)).join(", ")}]`;
  return typeof value === "string" ? literal(value) : String(value);
}

const pythonArguments = (body, but) =>
  entries(body, but).map(([name, value]) => `${name}=${pythonValue(name, value)},`);

function pythonCall({ name, takes }, body) {
  const given = [...takes.map((each) => `${pythonValue(each, body[each] ?? "")},`), ...pythonArguments(body, takes)];
  if (!given.length) return [`print(client.${name}())`];
  const call = [`client.${name}(`, ...given.map((line) => `    ${line}`)];
  if (name === "list") return [`for id_pass in ${call[0]}`, ...call.slice(1), "):", "    print(id_pass)"];
  return [`answer = ${call[0]}`, ...call.slice(1), ")", "print(answer)"];
}

/** What all items of a batch have in common, but for the names of passes and requests. */
function common(requests) {
  const [first] = requests;
  const rest = (item) => JSON.stringify({ ...item, id: "", request_id: "" });
  return requests.every((each) => rest(each) === rest(first)) && !first.validate_only && !first.expected_status
    ? first : undefined;
}

function pythonBatch({ requests }) {
  const shared = common(requests);
  if (shared) {
    return [
      "# It gives each pass a request_id of its own, and goes on beyond 1,000.",
      "for result in client.cancel_many(",
      "    [",
      ...requests.map(({ id }) => `        ${literal(id)},`),
      "    ],",
      ...pythonArguments(shared, ["id", "request_id"]).map((line) => `    ${line}`),
      "):",
      "    print(result)",
    ];
  }
  return requests.flatMap((each) => pythonCall(METHODS["/idpass/cancel"], each));
}

// TypeScript

const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());

function typescriptValue(name, value) {
  if (name === "idle_before") return `new Date(${literal(value)})`;
  if (Array.isArray(value)) return `[${value.map((each) => typescriptValue("", each)).join(", ")}]`;
  return typeof value === "string" ? literal(value) : String(value);
}

const typescriptOptions = (body, but) =>
  entries(body, but).map(([name, value]) => `  ${camel(name)}: ${typescriptValue(name, value)},`);

function typescriptCall({ name, takes }, body) {
  const options = typescriptOptions(body, takes);
  const given = [...takes.map((each) => typescriptValue(each, body[each] ?? "")), ...(options.length ? [`{\n${options.join("\n")}\n}`] : [])];
  const call = `client.${name === "list" ? "listPasses" : name}(${given.join(", ")})`;
  const text = name === "list"
    ? `for await (const idPass of ${call}) console.log(idPass);`
    : `const answer = await ${call};\nconsole.log(answer);`;
  return text.split("\n");
}

function typescriptBatch({ requests }) {
  const shared = common(requests);
  if (shared) {
    const options = typescriptOptions(shared, ["id", "request_id"]);
    return [
      "// It gives each pass a requestId of its own, and goes on beyond 1,000.",
      "const ids = [",
      ...requests.map(({ id }) => `  ${literal(id)},`),
      "];",
      options.length
        ? ["for await (const result of client.cancelMany(ids, {", ...options, "})) console.log(result);"]
        : ["for await (const result of client.cancelMany(ids)) console.log(result);"],
    ].flat();
  }
  return requests.flatMap((each) => ["{", ...typescriptCall(METHODS["/idpass/cancel"], each).map((line) => `  ${line}`), "}"]);
}
