// The details of one process, or the events of all.
import { getHistory, getWhy, logAddress } from "./api.js";
import { Log } from "./log.js";
import { html, useEffect, useRef, useState } from "./ui.js";
import { clock, draw, ending, newLook, percent, pieces, plain, size, span } from "./text.js";

const EVENTS_SHOWN = 200;
/** The history is written shortly after the event. */
const HISTORY_LATE_MS = 1200;
const LOG_LINES_AS_TEXT = 100_000;
export const TABS = [["log", "Log"], ["why", "Why"], ["events", "Events"], ["runs", "Runs"]];

export function Panel({ row, tab, setTab, events, close, choose }) {
  const buttons = useRef({});
  const [source, setSource] = useState("stdout");
  const [wrap, setWrap] = useState(true);
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const keys = TABS.map(([key]) => key);
    const next = keys[(keys.indexOf(tab) + step + keys.length) % keys.length];
    setTab(next);
    buttons.current[next].focus();
    event.preventDefault();
  };
  const { name } = row;
  useEffect(() => buttons.current[tab].focus({ preventScroll: true }), [name]); // else Tab would first pass all rows below the chosen one
  return html`<section class="panel" aria-label=${name}>
    <div class="bar">
      <h2>${plain(name)}</h2>
      <div role="tablist" aria-label="what to show" onKeyDown=${move}>${TABS.map(
        ([key, title]) => html`<button role="tab" id=${`tab-${key}`} aria-selected=${key === tab} aria-controls="panel" tabindex=${key === tab ? 0 : -1}
          ref=${(button) => (buttons.current[key] = button)} onClick=${() => setTab(key)}>${title}</button>`,
      )}</div>
      ${tab === "log" && html`<div class="tools">
        <select aria-label="stream" value=${source} onChange=${(event) => setSource(event.target.value)}><option>stdout</option><option>stderr</option></select>
        <label><input type="checkbox" checked=${wrap} onChange=${(event) => setWrap(event.target.checked)} /> wrap</label>
        <a href=${logAddress(name, source, LOG_LINES_AS_TEXT)} target="_blank" rel="noopener">as text</a>
      </div>`}
      <button class="close" aria-label=${`close ${name}`} onClick=${close}>✕</button>
    </div>
    <div role="tabpanel" id="panel" aria-labelledby=${`tab-${tab}`} class="content">
      ${tab === "log" && html`<${Log} key=${`${name} ${source}`} name=${name} source=${source} wrap=${wrap} />`}
      ${tab === "why" && html`<${Why} key=${name} row=${row} />`}
      ${tab === "events" && html`<${Events} events=${events.filter((event) => event.name === name)} choose=${choose} />`}
      ${tab === "runs" && html`<${Runs} key=${name} row=${row} />`}
    </div>
  </section>`;
}

/** The answer to `ask`, which is repeated when one of `stamps` changes, and once more `later` ms after that; the previous answer stays until then. */
function useAnswer(ask, stamps, later = 0) {
  const [found, setFound] = useState({ answer: null, trouble: "" });
  useEffect(() => {
    let wanted = true;
    const askNow = () =>
      ask().then(
        (answer) => wanted && setFound({ answer, trouble: "" }),
        (error) => wanted && setFound((old) => ({ ...old, trouble: error.message })),
      );
    askNow();
    const timer = later ? setTimeout(askNow, later) : 0;
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, stamps);
  return found;
}

const whose = (one) => `run ${one.run}${one.earlier_daemon ? " of an earlier daemon" : ""}`;
const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;

function Use({ uses }) {
  const files = uses.open_files === null ? "" : `, ${counted(uses.open_files, "open file")}`;
  return html`<p class="uses">It uses ${percent(uses.cpu_percent)} CPU, ${size(uses.memory_bytes)} of memory, ${counted(uses.processes, "process")}, ${counted(uses.threads, "thread")}${files}</p>`;
}

function Why({ row }) {
  const { answer: why, trouble } = useAnswer(() => getWhy(row.name), [row.name, row.state, row.run, row.cause, row.health, row.next_at]);
  if (!why) return html`<p class="hint">${trouble || "asking …"}</p>`;
  const end = why.last_end;
  return html`<div class="why">
    ${trouble && html`<p class="hint">${trouble}</p>`}
    <p class="headline">${plain(why.headline)}</p>
    ${why.failing_since && html`<p class="since">In trouble since <time datetime=${why.failing_since}>${clock(why.failing_since)}</time></p>`}
    ${why.uses && html`<${Use} uses=${why.uses} />`}
    ${why.checks.length > 0 && html`<h3>Checks</h3><ul class="checks">${why.checks.map((check) => html`<li>${check.name}: ${check.health}${check.detail && `: ${plain(check.detail)}`}</li>`)}</ul>`}
    ${why.rule.length > 0 && html`<h3>Decided by</h3><ul>${why.rule.map((words) => html`<li>${plain(words)}</li>`)}</ul>`}
    ${why.chain.length > 0 && html`<h3>What led here, newest first</h3>
      <ol class="chain">${why.chain.map((link) => html`<li><time datetime=${link.at}>${clock(link.at)}</time> <span>${plain(link.text)}</span></li>`)}</ol>`}
    ${end && html`<h3>How ${whose(end)} ended</h3>
      <p>${ending(end.exit_status)}, up ${span(end.duration_seconds)}${end.peak_memory_bytes !== null ? `, peak memory ${size(end.peak_memory_bytes)}` : ""}${end.cpu_seconds !== null ? `, CPU ${end.cpu_seconds.toFixed(2)} s` : ""}</p>`}
    ${why.output.map((one) => html`<h3>Last output of ${whose(one)} (${one.stream})</h3><${Lines} lines=${one.lines} />`)}
    ${why.keys.length > 0 && html`<h3>To change it</h3><ul>${why.keys.map((key) => html`<li><code>${plain(key)}</code></li>`)}</ul>`}
  </div>`;
}

function Lines({ lines }) {
  const fill = (box) => {
    if (!box) return;
    const look = newLook();
    box.replaceChildren(...lines.map((line) => {
      const element = document.createElement("div");
      draw(element, pieces(line, look));
      return element;
    }));
  };
  return html`<div class="log wrap still" ref=${fill}></div>`;
}

function Runs({ row }) {
  const { answer, trouble } = useAnswer(() => getHistory(row.name), [row.name, row.state, row.run], HISTORY_LATE_MS);
  if (!answer) return html`<p class="hint">${trouble || "asking …"}</p>`;
  if (!answer.runs.length) return html`<p class="hint">No run yet.</p>`;
  return html`<div class="runs">
    <p class="hint">${answer.restarts_total} restarts since the history began</p>
    <table><thead><tr><th class="number">Run</th><th>Started</th><th>Because</th><th>Ended</th><th>How</th><th class="number">Up</th><th class="number">Memory</th><th class="number">CPU</th></tr></thead>
    <tbody>${answer.runs.map(
      (run) => html`<tr key=${`${run.run} ${run.started_at}`}><td class="number">${run.run}</td><td>${clock(run.started_at)}</td><td>${plain(run.cause ?? "–")}</td>
        <td>${run.ended_at ? clock(run.ended_at) : "runs"}</td><td>${run.ended_at ? `${ending(run.exit_status)}${run.end_cause && run.end_cause !== "exited" ? `, ${run.end_cause}` : ""}` : ""}</td>
        <td class="number">${span(run.duration_seconds)}</td><td class="number">${size(run.peak_memory_bytes)}</td>
        <td class="number">${run.cpu_seconds === null ? "–" : span(run.cpu_seconds)}</td></tr>`,
    )}</tbody></table>
  </div>`;
}

export function Events({ events, choose, named = false }) {
  if (!events.length) return html`<p class="hint">No events yet.</p>`;
  return html`<ol class="events">${events.slice(0, EVENTS_SHOWN).map(
    (event) => html`<li key=${event.id} class=${(event.from ? event.to : event.type).toLowerCase()}>
      <time datetime=${event.at} title=${event.at}>${clock(event.at)}</time>
      ${named && (event.name ? html`<button class="choose" onClick=${() => choose(event.name)}>${plain(event.name)}</button>` : html`<span class="daemon">daemon</span>`)}
      <span class="what">${event.from ? `${event.from} → ${event.to}` : event.type.replaceAll("_", " ")}</span>
      <span class="message">${plain(event.message)}</span>
    </li>`,
  )}</ol>`;
}
