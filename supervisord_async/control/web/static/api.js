// The daemon's HTTP API: questions, actions, and streams that go on.

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
    // Not one of the daemon's own answers: the status has to do.
  }
  throw new Problem(answer.status, document);
}

const path = (name, what = "") => `/v1/processes/${encodeURIComponent(name)}${what && `/${what}`}`;

/** The JSON answer to a question; a connection that hangs is given up after `seconds`. */
export async function get(target, seconds = 20) {
  const answer = await fetch(target, { signal: AbortSignal.timeout(seconds * 1000), cache: "no-store" });
  return (await checked(answer)).json();
}

export const getWhy = (name) => get(path(name, "why"));
export const getHistory = (name) => get(path(name, "history?limit=50"));
export const logAddress = (name, stream, lines) => path(name, `logs?lines=${lines}&stream=${stream}`);

/** start, stop or restart; the result for the one process. Raises Problem. */
export async function act(name, action) {
  const answer = await fetch(path(name, action), { method: "POST" });
  return (await (await checked(answer)).json()).results[0];
}

/** Call `heed` with each piece of text of a stream until it ends, `signal` aborts it, or it is silent for `silence` seconds. */
export async function stream(target, { headers = {}, signal, silence = 0, opened, heed }) {
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
      heed(value);
    }
  } finally {
    clearTimeout(timer);
    own.abort();
    signal.removeEventListener("abort", stop);
  }
}

/** A reader of server-sent events: feed it text, it calls `heed(id, type, data)`. */
export function eventReader(heed) {
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
      if (data) heed(id, type, JSON.parse(data));
    }
  };
}

/** Resolves after `seconds`, or when `signal` aborts. */
export const pause = (seconds, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
