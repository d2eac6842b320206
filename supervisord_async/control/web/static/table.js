// The table of processes: filter, order, one row each with its actions.
import { command, isTrouble } from "./store.js";
import { Component, html, useEffect, useState } from "./ui.js";
import { percent, plain, size, uptime } from "./text.js";

const ROWS_AT_FIRST = 200;
const RUNS = new Set(["RUNNING", "STARTING", "BACKOFF", "WAITING", "STOPPING"]);
const SEVERITY = { FATAL: 0, UNKNOWN: 1, BACKOFF: 2, EXITED: 4, STOPPING: 5, STARTING: 6, WAITING: 7, STOPPED: 8, RUNNING: 9 };

// [title, class, value to sort by; null: not sortable]
const COLUMNS = [
  ["Process", "name", (row) => row.name],
  ["State", "state", (row) => (isTrouble(row) ? 0 : 10) + (SEVERITY[row.state] ?? 3)],
  ["Health", "health", (row) => row.health],
  ["PID", "pid number", (row) => row.pid ?? -1],
  ["Uptime", "uptime number", (row) => (row.since === null ? Infinity : row.since)],
  ["Restarts", "restarts number", (row) => -row.restarts],
  ["Cause", "cause", (row) => row.cause ?? ""],
  ["CPU", "cpu number", (row) => -(row.cpu_percent ?? -1)],
  ["Memory", "memory number", (row) => -(row.memory_bytes ?? -1)],
  ["Actions", "actions", null],
];

export const GROUPS = [
  ["all", "All", () => true],
  ["running", "Running", (row) => row.state === "RUNNING"],
  ["trouble", "In trouble", isTrouble],
  ["down", "Not running", (row) => row.pid === null],
];

/** The present time in ms; a component that uses it is redrawn once a second while the page is visible. */
function useNow() {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === "visible" && setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

export function Table({ rows, busy, chosen, choose, filter, group }) {
  const now = useNow();
  const [order, setOrder] = useState({ column: null, down: false });
  const [limit, setLimit] = useState(ROWS_AT_FIRST);
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = GROUPS.find(([key]) => key === group)[2];
  const fits = (row) => {
    const text = `${row.name} ${row.group} ${row.state} ${row.health} ${row.cause ?? ""} ${row.description} ${row.pid ?? ""}`.toLowerCase();
    return wanted(row) && words.every((word) => text.includes(word));
  };
  const found = rows.filter(fits);
  if (order.column !== null) {
    const key = COLUMNS[order.column][2];
    const sign = order.down ? -1 : 1;
    found.sort((a, b) => (key(a) < key(b) ? -sign : key(a) > key(b) ? sign : 0));
  }
  const shown = Math.max(limit, found.findIndex((row) => row.name === chosen) + 1); // a link may lead to a row further down
  const turn = (column) => () =>
    setOrder((old) => (old.column !== column ? { column, down: false } : old.down ? { column: null, down: false } : { column, down: true }));
  return html`<table role="table" aria-label="processes">
      <thead role="rowgroup"><tr role="row">${COLUMNS.map(
        ([title, kind, key], i) => html`<th role="columnheader" scope="col" class=${kind} aria-sort=${order.column === i ? (order.down ? "descending" : "ascending") : undefined}>
          ${key ? html`<button class="sort" onClick=${turn(i)}>${title}${order.column === i ? (order.down ? " ↓" : " ↑") : ""}</button>` : html`<span class="unseen">${title}</span>`}
        </th>`,
      )}</tr></thead>
      <tbody role="rowgroup">${found.slice(0, shown).map(
        (row) => html`<${Row} key=${row.name} row=${row} busy=${busy.get(row.name)} chosen=${row.name === chosen} choose=${choose}
          up=${row.since === null ? "–" : uptime(Math.max(0, now - row.since) / 1000)} due=${due(row, now)} />`,
      )}</tbody>
    </table>
    ${found.length > shown && html`<p class="hint"><button onClick=${() => setLimit(found.length)}>Show the other ${found.length - shown}</button></p>`}
    ${!found.length && html`<p class="hint">${rows.length ? "No process fits the filter." : "No processes."}</p>`}`;
}

function due(row, now) {
  if (!row.next_at) return "";
  const seconds = Math.max(0, Math.round((Date.parse(row.next_at) - now) / 1000));
  const what = { STOPPING: "KILL", BACKOFF: "next try", FATAL: "next try" }[row.state] ?? "next start";
  return `${what} in ${uptime(seconds)}`;
}

class Row extends Component {
  // There may be many rows: only those that changed are redrawn.
  shouldComponentUpdate(next) {
    return ["row", "busy", "chosen", "up", "due"].some((key) => next[key] !== this.props[key]);
  }

  render({ row, busy, chosen, choose, up, due: next }) {
    const runs = RUNS.has(row.state);
    const open = (event) => event.target.closest("button") || choose(chosen ? null : row.name);
    const tone = row.state.toLowerCase();
    const action = (label, word, possible, run) => html`<button class=${word} aria-label=${`${label} ${row.name}`} aria-disabled=${!possible || !!busy}
      onClick=${() => possible && !busy && run()}>${busy === word ? html`<span class="spin" aria-hidden="true"></span>` : ""}${label}</button>`;
    return html`<tr role="row" class=${`${chosen ? "chosen" : ""} ${isTrouble(row) ? "trouble" : ""}`} onClick=${open}>
      <td role="cell" class="name"><button class="choose" aria-pressed=${chosen} onClick=${() => choose(chosen ? null : row.name)}>${plain(row.name)}</button>
        <span class="description" title=${plain(row.description)}>${plain(row.description)}</span></td>
      <td role="cell" class="state"><span class=${`badge ${tone}`}>${row.state}</span>${row.flapping && html` <span class="badge flapping">flapping</span>`}
        ${next && html`<span class="due">${next}</span>`}</td>
      <td role="cell" class=${`health ${row.health}`} data-label="health">${row.health === "none" ? "–" : row.health}</td>
      <td role="cell" class=${`pid number ${row.pid === null ? "empty" : ""}`} data-label="pid">${row.pid ?? "–"}</td>
      <td role="cell" class=${`uptime number ${row.since === null ? "empty" : ""}`} data-label="up">${up}</td>
      <td role="cell" class=${`restarts number ${row.restarts ? "some" : ""}`} data-label="restarts">${row.restarts}</td>
      <td role="cell" class="cause" data-label="cause">${plain(row.cause ?? "–")}</td>
      <td role="cell" class=${`cpu number ${row.cpu_percent === null ? "empty" : ""}`} data-label="cpu">${percent(row.cpu_percent)}</td>
      <td role="cell" class=${`memory number ${row.memory_bytes === null ? "empty" : ""}`} data-label="memory">${size(row.memory_bytes)}</td>
      <td role="cell" class="actions">
        ${action("Start", "start", !runs, () => command(row.name, "start"))}
        ${action("Restart", "restart", row.state !== "STOPPING", () => command(row.name, "restart"))}
        ${action("Stop", "stop", runs && row.state !== "STOPPING", () => askToStop(row.name))}
      </td>
    </tr>`;
  }
}

let ask = () => {};
const askToStop = (name) => ask(name);

/** Asks before a stop. */
export class StopQuestion extends Component {
  state = { name: "" };

  componentDidMount() {
    ask = (name) => {
      this.setState({ name }, () => this.dialog.showModal());
    };
  }

  render(_, { name }) {
    const answer = (yes) => () => {
      this.dialog.close();
      if (yes) command(name, "stop");
    };
    return html`<dialog ref=${(dialog) => (this.dialog = dialog)} aria-labelledby="stop-title">
      <h2 id="stop-title">Stop ${plain(name)}?</h2>
      <p>It stays down until somebody starts it.</p>
      <div class="answers"><button autofocus onClick=${answer(false)}>Cancel</button><button class="danger" onClick=${answer(true)}>Stop it</button></div>
    </dialog>`;
  }
}
