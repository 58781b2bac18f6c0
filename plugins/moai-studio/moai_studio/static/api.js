// Ask the studio: JSON, bytes, and answers that come line by line.

let session = null;
const key = new URLSearchParams(location.hash.slice(1)).get("key") || sessionStorage.getItem("moai-key") || "";
if (key) { sessionStorage.setItem("moai-key", key); history.replaceState(null, "", location.pathname); }

const headers = (more = {}) => ({ ...(session ? { "X-Moai-Session": session } : {}), ...(key ? { "X-Moai-Key": key } : {}), ...more });

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The studio does not answer. Is moai studio still running?");
  }
  if (!response.ok) throw new Error(await reason(response));
  return response;
}

async function reason(response) {
  try { return sentence((await response.json()).error); } catch { return `The studio answered with ${response.status}.`; }
}

export const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") : "Something went wrong.");

export async function begin() {
  session = (await (await request("/api/session", { method: "POST" })).json()).session;
}

export const json = async (path, options) => (await request(path, options)).json();
export const blobUrl = async (path) => URL.createObjectURL(await (await request(path)).blob());

// Send a request and call `on[event.event]` for each line of its answer; resolves with the last event.
export async function stream(path, body, on = {}, handle = {}) {
  const control = new AbortController();
  let work = null, last = null, stopped = false;
  handle.stop = () => {
    stopped = true;
    if (work) request("/api/stop", { method: "POST", body: JSON.stringify({ work }) }).catch(() => {});
    else control.abort();
  };
  handle.skip = (expert) => work && request("/api/stop", { method: "POST", body: JSON.stringify({ work, expert }) }).catch(() => {});
  const response = await request(path, { method: "POST", body: body === null ? undefined : JSON.stringify(body), signal: control.signal }).catch((error) => {
    if (stopped) return null;
    throw error;
  });
  if (response === null) return { event: "stopped" };
  for await (const event of lines(response.body)) {
    if (event.event === "work") { work = event.id; continue; }
    if (event.event === "error") throw new Error(sentence(event.message));
    last = event;
    if (event.event === "stopped") break;
    on[event.event]?.(event);
  }
  return last;
}

async function* lines(body) {
  const reader = body.getReader(), decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}
