// The daemon's HTTP API: queries, actions, and endless streams.

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `HTTP ${status}`);
    this.status = status;
    this.results = document.results ?? [];
  }
}

async function checked(answer) {
  if (answer.ok) return answer;
  let document = {};
  try {
    document = await answer.json();
  } catch {
    // Not one of the daemon's own answers: only the status is known.
  }
  throw new Problem(answer.status, document);
}

const path = (name, what = "") => `/v1/processes/${encodeURIComponent(name)}${what && `/${what}`}`;

/** The JSON answer to a query; fails if the connection hangs for `seconds`. */
export async function get(target, seconds = 20) {
  const answer = await fetch(target, { signal: AbortSignal.timeout(seconds * 1000), cache: "no-store" });
  return (await checked(answer)).json();
}

export const getWhy = (name) => get(path(name, "why"));
export const getHistory = (name) => get(path(name, "history?limit=50"));
export const logAddress = (name, stream, lines) => path(name, `logs?lines=${lines}&stream=${stream}`);

/** start, stop or restart; returns the result for the process. Throws Problem. */
export async function act(name, action) {
  const answer = await fetch(path(name, action), { method: "POST" });
  return (await (await checked(answer)).json()).results[0];
}

/** Calls `onText` with each piece of a stream's text, until the stream ends, `signal` aborts it, or it is silent for `silence` seconds. */
export async function stream(target, { headers = {}, signal, silence = 0, opened, onText }) {
  const own = new AbortController();
  const stop = () => own.abort();
  signal.addEventListener("abort", stop);
  if (signal.aborted) stop();
  let timer = 0;
  const alive = () => {
    clearTimeout(timer);
    if (silence) timer = setTimeout(stop, silence * 1000);
  };
  try {
    alive();
    const answer = await checked(await fetch(target, { headers, signal: own.signal, cache: "no-store" }));
    opened?.();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      alive();
      onText(value);
    }
  } finally {
    clearTimeout(timer);
    own.abort();
    signal.removeEventListener("abort", stop);
  }
}

/** A parser of server-sent events: given text, it calls `onEvent(id, type, data)` for each event. */
export function eventReader(onEvent) {
  let rest = "";
  return (text) => {
    const blocks = (rest + text).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      let [id, type, data] = [null, "message", ""];
      for (const line of block.split("\n")) {
        const colon = line.indexOf(": ");
        const [field, value] = [line.slice(0, colon), line.slice(colon + 2)];
        if (field === "id") id = Number(value);
        else if (field === "event") type = value;
        else if (field === "data") data += value;
      }
      if (data) onEvent(id, type, JSON.parse(data));
    }
  };
}

/** Resolves after `seconds`, or when `signal` aborts. */
export const pause = (seconds, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
