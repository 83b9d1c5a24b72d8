// Calls of the HTTP API, each with what was sent and what came back.

const credentials = {};

/** Sends a token with each call from now on; an empty one sends none. It stays in this tab's memory. */
export function authorize(token) {
  if (token) credentials.authorization = `Bearer ${token}`;
  else delete credentials.authorization;
}

/** The headers that say who calls. */
export const authorization = () => ({ ...credentials });

/**
 * Resolves to an exchange: { path, body, status, ok, answer, ms, reference }; a lost connection has
 * status 0. `signal` aborts it.
 */
export async function call(path, body, { signal, headers = {} } = {}) {
  const started = performance.now();
  const options = { signal, headers: { ...credentials, ...headers } };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let status = 0;
  let reference = "";
  let answer = { message: "The server cannot be reached.", details: [] };
  try {
    const response = await fetch(path, options);
    status = response.status;
    reference = response.headers.get("idpass-reference") ?? "";
    answer = await response.json();
  } catch {
    // The status says it.
  }
  const ok = status >= 200 && status < 300;
  reference = answer.reference ?? detail(answer, "RequestInfo")?.request_id ?? reference;
  return { path, body, status, ok, answer, ms: performance.now() - started, reference };
}

/** One of an error's details, by the last part of its type: "ErrorInfo". */
export const detail = (status, name) =>
  (status.details ?? []).find((each) => each["@type"].endsWith(`.${name}`));

export const reason = (status) => detail(status, "ErrorInfo")?.reason ?? "UNREACHABLE";

/** What is wrong with a request's fields: { note: "is longer than …" }. */
export const violations = (status) => Object.fromEntries(
  (detail(status, "BadRequest")?.field_violations ?? []).map(({ field, description }) => [field, description]));

/** All pages of passes, newest first; `page` gets each as it arrives, and returns whether to go on. */
export async function listAll(page) {
  let page_token;
  let page_size = 100; // a first page that is there at once
  do {
    const { ok, answer } = await call("/idpass/list", { page_size, ...(page_token && { page_token }) });
    if (!ok) return answer;
    if (!page(answer.id_passes)) return undefined;
    page_token = answer.next_page_token;
    page_size = 1000;
  } while (page_token);
  return undefined;
}

/**
 * Reads server-sent events and gives each to `take` until it returns false or the stream ends;
 * `signal` aborts it. Resolves to the HTTP status; `opened` is called once that is 200.
 */
export async function readEvents(query, take, { signal, opened } = {}) {
  const response = await fetch(`/idpass/events?${new URLSearchParams(query)}`, { signal, headers: authorization() });
  if (response.status !== 200) return response.status;
  opened?.();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return 200;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const data = lines.find((line) => line.startsWith("data: "));
      if (lines.includes("event: error")) return 200;
      if (data && take(JSON.parse(data.slice(6))) === false) return 200;
    }
  }
}

/** The events that have happened, until `enough` says that all are there. */
export async function pastEvents(query, enough) {
  const stop = new AbortController();
  const events = [];
  const timer = setTimeout(() => stop.abort(), 5000);
  try {
    await readEvents(query, (event) => {
      events.push(event);
      return !enough(event);
    }, { signal: stop.signal });
  } catch {
    // Show what has been read so far.
  }
  clearTimeout(timer);
  stop.abort();
  return events;
}

/** The events of one pass up to the one that brought it into `status`. */
export const history = (id, status) => pastEvents({ id }, (event) => event.to_status === status);
