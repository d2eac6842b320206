// The page as a whole: header, banners, table, panel, and the address that tells what is selected.
import { begin, dismiss, isTrouble, state, subscribe } from "./store.js";
import { Events, Panel, TABS } from "./panel.js";
import { GROUPS, StopQuestion, Table } from "./table.js";
import { html, render, useEffect, useReducer, useRef, useState } from "./ui.js";
import { plain } from "./text.js";

/** #NAME/TAB: what is selected, so that a link can lead to it and going back works. */
function addressed() {
  let [name, tab] = [location.hash.slice(1), "log"];
  const slash = name.lastIndexOf("/");
  if (slash >= 0) [name, tab] = [name.slice(0, slash), name.slice(slash + 1)];
  try {
    name = decodeURIComponent(name);
  } catch {
    name = "";
  }
  return { name: name || null, tab: TABS.some(([key]) => key === tab) ? tab : "log" };
}

function useAddress() {
  const [place, setPlace] = useState(addressed());
  useEffect(() => {
    const handle = () => setPlace(addressed());
    const events = ["hashchange", "popstate"];
    for (const event of events) window.addEventListener(event, handle);
    return () => events.forEach((event) => window.removeEventListener(event, handle));
  }, []);
  const go = (name, tab = "log") => {
    const hash = name ? `#${encodeURIComponent(name)}/${tab}` : location.pathname;
    // On a narrow screen the panel covers the page: going back closes it.
    if (name && !addressed().name) history.pushState(null, "", hash);
    else history.replaceState(null, "", hash);
    setPlace({ name, tab });
  };
  return [place, go];
}

const LINKS = { connecting: "connecting …", live: "live", late: "no answer", lost: "connection lost", denied: "not allowed" };

function Header({ rows, filter, setFilter, group, setGroup }) {
  const input = useRef();
  useEffect(() => {
    const handle = (event) => {
      const typing = event.target.closest("input, select, textarea, dialog");
      if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      input.current.focus();
      input.current.select();
    };
    document.addEventListener("keydown", handle);
    return () => document.removeEventListener("keydown", handle);
  }, []);
  const { health } = state;
  const link = state.link === "live" && state.late ? "late" : state.link;
  return html`<header>
    <h1>${plain(health?.name ?? "asupd")}</h1>
    <span class=${`link ${link}`} role="status">${LINKS[link]}</span>
    <nav aria-label="which processes">${GROUPS.map(([key, title, fits]) => {
      const count = rows.filter(fits).length;
      return html`<button class=${`chip ${key} ${count ? "some" : ""}`} aria-pressed=${group === key} onClick=${() => setGroup(key)}>${title} <b>${count}</b></button>`;
    })}</nav>
    <input class="filter" type="search" placeholder="Filter ( / )" aria-label="filter processes" value=${filter} ref=${input}
      onInput=${(event) => setFilter(event.target.value)} onKeyDown=${(event) => event.key === "Escape" && (setFilter(""), input.current.blur())} />
    ${health && html`<span class="about" title=${plain(health.file)}>supervisord_async ${health.version} · pid ${health.pid}</span>`}
  </header>`;
}

function Banners() {
  const { health, link, late, trouble } = state;
  const refused = health?.refused ?? [];
  return html`<div class="banners">
    ${link === "lost" && html`<div class="banner bad" role="alert"><b>Connection lost:</b> ${trouble}. What you see may be old; trying again.</div>`}
    ${link === "live" && late && html`<div class="banner warn" role="alert"><b>The daemon does not answer.</b> What you see may be old; still waiting.</div>`}
    ${link === "denied" && html`<div class="banner bad" role="alert"><b>Not allowed.</b> Run <code>asupctl web</code> and open the address that it prints.</div>`}
    ${health?.shutting_down && html`<div class="banner bad" role="status">The daemon is shutting down.</div>`}
    ${refused.length > 0 && html`<div class="banner bad refused" role="alert">
      <b>The configuration on disk was refused;</b> what runs is the one before it.
      <ul>${refused.slice(0, 8).map((problem) => html`<li><code>${plain(problem.text)}</code></li>`)}</ul>
      ${refused.length > 8 && html`<p>and ${refused.length - 8} more</p>`}
    </div>`}
    ${health?.history_trouble && html`<div class="banner warn" role="status">The history is not kept at present: ${plain(health.history_trouble)}</div>`}
  </div>`;
}

function App() {
  const [, draw] = useReducer((count) => count + 1, 0);
  useEffect(() => {
    const leave = subscribe(draw);
    begin();
    return leave;
  }, []);
  const [place, go] = useAddress();
  const [filter, setFilter] = useState("");
  const [group, setGroup] = useState("all");
  const rows = [...state.processes.values()];
  const row = state.processes.get(place.name);
  const choose = (name) => go(name, place.tab);
  useEffect(() => {
    const count = rows.filter(isTrouble).length;
    document.title = `${count ? `(${count}) ` : ""}${plain(state.health?.name ?? "asupd")}`;
  });
  const former = useRef();
  useEffect(() => {
    document.querySelector("tr.chosen")?.scrollIntoView({ block: "nearest" });
    if (!row && document.activeElement === document.body)
      [...document.querySelectorAll("td .choose")].find((button) => button.textContent === former.current)?.focus(); // where the panel was opened
    former.current = row && plain(row.name);
  }, [row?.name]);
  useEffect(() => {
    const handle = (event) => event.key === "Escape" && !event.defaultPrevented && !event.target.closest("dialog, input") && go(null);
    document.addEventListener("keydown", handle);
    return () => document.removeEventListener("keydown", handle);
  }, []);
  return html`<${Header} rows=${rows} filter=${filter} setFilter=${setFilter} group=${group} setGroup=${setGroup} />
    <${Banners} />
    <main class=${row ? "split" : ""}>
      <div class="table">${state.health ? html`<${Table} rows=${rows} busy=${state.busy} chosen=${row?.name} choose=${choose} filter=${filter} group=${group} />` : html`<p class="hint">${LINKS[state.link]}</p>`}</div>
      ${row
        ? html`<${Panel} row=${row} tab=${place.tab} setTab=${(tab) => go(row.name, tab)} events=${state.events} close=${() => go(null)} choose=${choose} />`
        : html`<section class="panel" aria-label="recent events"><div class="bar"><h2>Recent events</h2></div>
            <div class="content"><${Events} events=${state.events} choose=${choose} named /></div></section>`}
    </main>
    <div class="notices" role="status" aria-live="polite">${state.notices.map(
      (one) => html`<div key=${one.id} class=${`notice ${one.kind}`}><span>${plain(one.text)}</span><button aria-label="dismiss" onClick=${() => dismiss(one)}>✕</button></div>`,
    )}</div>
    <${StopQuestion} />`;
}

render(html`<${App} />`, document.getElementById("app"));
