// What the page knows about the daemon, kept up to date: first a list, then each change as an event, and figures while the page is visible.
// A hidden tab keeps no connection (a browser has six for all tabs of a site); when shown again it resumes after the last event it received.
import { act, eventReader, get, pause, Problem, stream } from "./api.js";

const EVENTS_KEPT = 400;
const REFRESH_SECONDS = 0.2;
const FIGURES_SECONDS = 2.5;
/** If an answer takes longer, the page says that what it shows may be outdated. */
const LATE_SECONDS = 4;
/** A silent stream sends a comment every 15 s. */
const SILENCE_SECONDS = 45;
const NOTICE_SECONDS = 8;

export const state = {
  link: "connecting", // connecting, live, lost, denied
  trouble: "",
  late: false, // connected, but the daemon does not answer
  health: null,
  processes: new Map(),
  events: [], // newest first
  busy: new Map(), // name to action
  notices: [],
};

const listeners = new Set();
let lastId = null;
let news = new Set(); // names with an event since their row was fetched
let everything = false;
let refreshing = false;
let visit = null;

export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function changed(part) {
  Object.assign(state, part);
  for (const listener of listeners) listener();
}

/** Starts, now and whenever the page is shown; stops when it is hidden. */
export function begin() {
  const look = () => (document.visibilityState === "visible" ? open() : visit?.abort());
  document.addEventListener("visibilitychange", look);
  look();
}

function open() {
  if (visit && !visit.signal.aborted) return;
  visit = new AbortController();
  follow(visit.signal);
  pollFigures(visit.signal);
}

async function follow(signal) {
  let failures = 0;
  while (!signal.aborted) {
    try {
      await load();
      await stream("/v1/events", {
        headers: { "Last-Event-ID": String(lastId) },
        signal,
        silence: SILENCE_SECONDS,
        opened: () => ((failures = 0), changed({ link: "live", trouble: "", late: false })),
        onText: eventReader(onEvent),
      });
      failures += 1;
    } catch (error) {
      failures += 1;
      if (!signal.aborted) failed(error);
    }
    if (!signal.aborted && state.link === "live") changed({ link: "lost", trouble: "the daemon closed the connection" });
    await pause(state.link === "denied" ? 30 : Math.min(5, 0.25 * 2 ** failures), signal);
  }
}

function failed(error) {
  if (error instanceof Problem && (error.status === 401 || error.status === 403)) changed({ link: "denied", trouble: error.message });
  else changed({ link: "lost", trouble: error instanceof Problem ? error.message : "the daemon does not answer" });
}

/** Fetches everything anew; events after the last known one come by the stream. */
async function load() {
  const [health, list, past] = await Promise.all([
    get("/v1/health"),
    get("/v1/processes"),
    lastId === null ? get("/v1/events?follow=false&limit=100") : null,
  ]);
  if (past) state.events = past.events.reverse();
  if (lastId === null || lastId > health.last_event_id) lastId = past?.events.length ? past.events[0].id : health.last_event_id;
  changed({ health, processes: merged(list, true) });
}

function merged(list, whole) {
  const at = Date.now();
  const rows = whole ? new Map() : new Map(state.processes);
  for (const row of list) {
    const before = state.processes.get(row.name);
    if (row.cpu_percent === null && before && before.pid === row.pid) {
      row.cpu_percent = before.cpu_percent;
      row.memory_bytes = before.memory_bytes;
    }
    row.since = row.uptime_seconds === null ? null : at - row.uptime_seconds * 1000;
    rows.set(row.name, row);
  }
  return rows;
}

function onEvent(id, type, event) {
  if (type === "missed") {
    everything = true;
    refresh();
    return;
  }
  if (id !== null && id <= lastId) return;
  lastId = id ?? lastId;
  state.events = [event, ...state.events].slice(0, EVENTS_KEPT);
  if (event.name !== undefined) {
    news.add(event.name);
    const row = state.processes.get(event.name);
    if (row && event.type === "state") {
      const processes = new Map(state.processes);
      processes.set(event.name, { ...row, state: event.to, cause: event.cause ?? row.cause, run: event.run ?? row.run });
      state.processes = processes;
    }
  } else {
    everything = true;
  }
  changed({});
  refresh();
}

/** Processes that a reload removes are stopped first, and may be unknown when fetched by name; new ones have no row yet. */
function mayBeGone(name) {
  const row = state.processes.get(name);
  return !row || row.state === "STOPPED";
}

/** Fetches the rows that had events: one query for many events. */
async function refresh() {
  if (refreshing) return;
  refreshing = true;
  await pause(REFRESH_SECONDS);
  while (everything || news.size) {
    const names = everything || news.size > 20 || [...news].some(mayBeGone) ? null : [...news];
    news = new Set();
    everything = false;
    try {
      const query = names ? `&name=${names.map(encodeURIComponent).join(",")}` : "";
      const [health, list] = await Promise.all([get("/v1/health"), get(`/v1/processes?figures=false${query}`)]);
      changed({ health, processes: merged(list, !names) });
    } catch {
      // Either a name is gone or the daemon is: fetching everything will tell which.
    }
    await pause(REFRESH_SECONDS);
  }
  refreshing = false;
}

async function pollFigures(signal) {
  let took = 0;
  while (!signal.aborted) {
    await pause(Math.max(FIGURES_SECONDS, 10 * took), signal);
    if (signal.aborted || state.link !== "live") continue;
    const began = performance.now();
    const late = setTimeout(() => changed({ late: true }), LATE_SECONDS * 1000);
    try {
      changed({ processes: merged(await get("/v1/processes"), true), late: false });
    } catch (error) {
      // Otherwise the event stream finds out what is wrong, and reports it.
      changed({ late: error.name === "TimeoutError" });
    }
    clearTimeout(late);
    took = (performance.now() - began) / 1000;
  }
}

/** Starts, stops or restarts `name`, and shows the result. */
export async function command(name, action) {
  if (state.busy.has(name)) return;
  changed({ busy: new Map(state.busy).set(name, action) });
  try {
    const result = await act(name, action);
    notice("good", `${name}: ${result.message || result.state}`);
  } catch (error) {
    const why = error instanceof Problem ? error.results.find((result) => result.name === name)?.message || error.message : "the daemon does not answer";
    notice("bad", `cannot ${action} ${name}: ${why}`);
  }
  const busy = new Map(state.busy);
  busy.delete(name);
  changed({ busy });
}

function notice(kind, text) {
  const one = { kind, text, id: crypto.getRandomValues(new Uint32Array(1))[0] };
  changed({ notices: [...state.notices.slice(-3), one] });
  if (kind === "good") setTimeout(() => dismiss(one), NOTICE_SECONDS * 1000);
}

export const dismiss = (one) => changed({ notices: state.notices.filter((other) => other !== one) });

/** Whether it needs attention. */
export function isTrouble(row) {
  if (["FATAL", "BACKOFF", "UNKNOWN"].includes(row.state) || row.health === "unhealthy" || row.flapping) return true;
  return row.state === "EXITED" && state.health.failed.includes(row.name);
}
