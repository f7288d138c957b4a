// How does the page talk to its service? Every request goes through here: relative addresses, the key, one kind of error.

const HELD = "karyon-key";
const BASE = new URL("./", document.baseURI);

/** The service answered that it will not: title and detail are written for people. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The service answered ${status}.`);
    this.status = status;
    this.title = body.title || "The service could not do this";
    this.slug = (body.type || "").split(":").pop();
    this.body = body;
  }
}

/** There was no answer at all. */
export class Unreachable extends Error {
  constructor() {
    super("The service does not answer. The page tries this again as soon as it does.");
    this.title = "Service unreachable";
  }
}

/** There was no answer to one request, though the service is there. */
export class Broken extends Error {
  constructor() {
    super("The service is there, but the connection broke before it answered. A file must not change while it is sent.");
    this.title = "Connection broken";
  }
}

/** The API key of this tab; it is forgotten when the tab is closed. */
export const key = {
  get: () => sessionStorage.getItem(HELD) || "",
  set: (value) => (value ? sessionStorage.setItem(HELD, value) : sessionStorage.removeItem(HELD)),
};

/** Headers that carry the key, if there is one. */
export const keyHeaders = () => (key.get() ? { Authorization: `Bearer ${key.get()}` } : {});

/** The whole address of a path. */
export const address = (path) => new URL(path, BASE).href;

/** An answer, or a `Problem`, or `Unreachable`. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(address(path), { ...options, headers: { ...keyHeaders(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (!answer.ok) throw await problemOf(answer.status, () => answer.json());
  return answer;
}

/** An answer's JSON. */
export async function askJson(path, options = {}) {
  const answer = await ask(path, options);
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable(); // the connection broke in the middle
  }
}

/** Send JSON, get JSON. */
export function sendJson(path, body, method = "POST") {
  return askJson(path, { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
}

async function problemOf(status, read) {
  try {
    return new Problem(status, await read());
  } catch {
    return new Problem(status, {});
  }
}

/** Upload a file with progress, which `fetch` does not tell. */
export function upload(path, file, type, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(path));
    for (const [name, value] of Object.entries(keyHeaders())) request.setRequestHeader(name, value);
    request.setRequestHeader("Content-Type", type);
    request.upload.onprogress = (event) => onProgress(event.loaded, event.total || file.size);
    request.onload = async () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(await problemOf(request.status, () => JSON.parse(request.responseText)));
    };
    request.onerror = () => reject(new Unreachable());
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

/** The JSON of each server-sent event; a stream that carries headers, which `EventSource` cannot. */
export async function* events(path, signal) {
  const answer = await ask(path, { headers: { Accept: "text/event-stream" }, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (text + value).replaceAll("\r\n", "\n").split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        const lines = part.split("\n").filter((line) => line.startsWith("data:"));
        if (lines.length) yield JSON.parse(lines.map((line) => line.slice(5)).join("\n"));
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable();
  } finally {
    reader.cancel().catch(() => {}); // nobody reads the rest
  }
}
