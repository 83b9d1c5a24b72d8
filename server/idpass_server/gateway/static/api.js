// Calls of the HTTP API, each with what was sent and what came back.

/** Resolves to { path, body, status, ok, answer, ms }; a lost connection has status 0. */
export async function call(path, body) {
  const started = performance.now();
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  let status = 0;
  let answer = { message: "The server cannot be reached.", details: [] };
  try {
    const response = await fetch(path, options);
    status = response.status;
    answer = await response.json();
  } catch {
    // The status says it.
  }
  const ok = status >= 200 && status < 300;
  return { path, body, status, ok, answer, ms: performance.now() - started };
}

/** One of an error's details, by the last part of its type: "ErrorInfo". */
export const detail = (status, name) =>
  (status.details ?? []).find((each) => each["@type"].endsWith(`.${name}`));

export const reason = (status) => detail(status, "ErrorInfo")?.reason ?? "UNREACHABLE";

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

/** The events of one pass up to the one that brought it into `status`. */
export async function history(id, status) {
  const stop = new AbortController();
  const events = [];
  const timer = setTimeout(() => stop.abort(), 5000);
  try {
    const response = await fetch(`/idpass/events?id=${id}`, { signal: stop.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (text + value).split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").find((line) => line.startsWith("data: "));
        if (data) events.push(JSON.parse(data.slice(6)));
      }
      if (events.at(-1)?.to_status === status) break;
    }
  } catch {
    // Show what has been read so far.
  }
  clearTimeout(timer);
  stop.abort();
  return events;
}
