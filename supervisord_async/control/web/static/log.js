// One process's output, followed live. Lines are drawn once and appended; output is never interpreted as markup.
import { logAddress, pause, Problem, stream } from "./api.js";
import { Component, html } from "./ui.js";
import { draw, newLook, pieces } from "./text.js";

const LINES_ASKED = 500;
const LINES_KEPT = 3000;
/** Longer lines are cut on the page; the file has them in full. */
const CHARACTERS_SHOWN = 4000;
/** Within this distance of the end the log counts as scrolled to the end. */
const NEAR_PIXELS = 30;

export class Log extends Component {
  state = { trouble: "", following: true };
  #box = null;
  #rest = "";
  #look = newLook();
  #tail = null; // the element of the last line, if it has no line end yet
  #waiting = [];
  #scheduled = false;
  #visit = null;

  componentDidMount() {
    document.addEventListener("visibilitychange", this.#seen);
    this.#seen();
  }

  componentWillUnmount() {
    document.removeEventListener("visibilitychange", this.#seen);
    this.#visit?.abort();
  }

  shouldComponentUpdate(props, state) {
    return state !== this.state || props.wrap !== this.props.wrap;
  }

  #seen = () => {
    if (document.visibilityState !== "visible") this.#visit?.abort();
    else if (!this.#visit || this.#visit.signal.aborted) this.#follow((this.#visit = new AbortController()).signal);
  };

  async #follow(signal) {
    const { name, source } = this.props;
    let failures = 0;
    while (!signal.aborted) {
      let opened = false;
      try {
        await stream(`${logAddress(name, source, LINES_ASKED)}&follow=true`, {
          signal,
          opened: () => {
            opened = true;
            failures = 0;
            this.#clear();
            this.#box.dataset.open = "";
            if (this.state.trouble) this.setState({ trouble: "" });
          },
          onText: (text) => this.#add(text),
        });
      } catch (error) {
        if (signal.aborted) return;
        if (!opened || error instanceof Problem) this.setState({ trouble: error instanceof Problem ? error.message : "the daemon does not answer; trying again" });
      }
      failures += 1;
      await pause(Math.min(5, 0.5 * 2 ** failures), signal);
    }
  }

  #clear() {
    this.#box?.replaceChildren();
    this.#rest = "";
    this.#look = newLook();
    this.#tail = null;
    this.#waiting = [];
  }

  #add(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop().slice(-100_000);
    this.#waiting.push(...lines);
    if (this.#waiting.length > LINES_KEPT) this.#waiting.splice(0, this.#waiting.length - LINES_KEPT);
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.#draw();
    });
  }

  #draw() {
    const box = this.#box;
    if (!box) return;
    const added = document.createDocumentFragment();
    for (const line of this.#waiting) added.append(this.#line(line, this.#look));
    this.#waiting = [];
    this.#tail?.remove();
    this.#tail = this.#rest ? this.#line(this.#rest, { ...this.#look }) : null;
    if (this.#tail) added.append(this.#tail);
    box.append(added);
    while (box.childElementCount > LINES_KEPT) box.firstElementChild.remove();
    if (this.state.following) box.scrollTop = box.scrollHeight;
  }

  #line(line, look) {
    const element = document.createElement("div");
    const visible = line.replace(/\r+$/, "").split("\r").pop(); // of a progress bar only the last state
    draw(element, pieces(visible.slice(0, CHARACTERS_SHOWN), look));
    if (visible.length > CHARACTERS_SHOWN) element.append(` … ${visible.length - CHARACTERS_SHOWN} more`);
    if (!element.firstChild) element.append("\u200b");
    return element;
  }

  #scrolled = () => {
    const box = this.#box;
    if (!box) return; // a scroll event may arrive after the element is gone
    const following = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PIXELS;
    if (following !== this.state.following) this.setState({ following });
  };

  #keep = (box) => {
    this.#box = box;
  };

  #toEnd = () => {
    this.setState({ following: true });
    this.#box.scrollTop = this.#box.scrollHeight;
    this.#box.focus();
  };

  render({ name, wrap }, { trouble, following }) {
    return html`<div class="log-frame">
      ${trouble && html`<p class="hint">${trouble}</p>`}
      <div class=${`log ${wrap ? "wrap" : ""}`} tabindex="0" role="log" aria-live="off" aria-label=${`output of ${name}`} ref=${this.#keep} onScroll=${this.#scrolled}></div>
      ${!following && html`<button class="to-end" onClick=${this.#toEnd}>↓ follow</button>`}
    </div>`;
  }
}
