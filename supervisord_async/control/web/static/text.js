// Text for people. Whatever programs print is data: it becomes text nodes, and characters that could mislead a reader are made visible.

// Control characters (C0 except tab, DEL, C1), and characters that are invisible or change the direction of text.
const INVISIBLE = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

const shown = (character) => {
  const code = character.charCodeAt(0);
  if (code < 0x20 || code === 0x7f) return `^${String.fromCharCode(code ^ 0x40)}`;
  return `\u27e8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
};

/** The text with every control or invisible character replaced by a visible one. */
export const plain = (text) => String(text ?? "").replace(INVISIBLE, shown);

// An escape sequence: CSI with its parameters and final byte, a string (OSC, DCS, …) up to its end, or another two-character one.
const ESCAPE = /\u001b(?:\[([0-?]*)[ -/]*([@-~])|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[ -/]*[0-~])/g;

/** A style: that of text before any escape sequence. */
export const newLook = () => ({ bold: false, faint: false, italic: false, underline: false, strike: false, inverse: false, fg: null, bg: null });

/** One line of output in pieces of one style each; `look` is the style at the end of the previous line, and becomes that at the end of this one. */
export function pieces(line, look) {
  const found = [];
  let at = 0;
  const push = (text) => {
    if (text) found.push({ text: plain(text), look: { ...look } });
  };
  for (const match of line.matchAll(ESCAPE)) {
    push(line.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[2] === "m") applySgr(look, match[1]);
  }
  push(line.slice(at));
  return found;
}

const FLAGS = { 1: ["bold", true], 2: ["faint", true], 3: ["italic", true], 4: ["underline", true], 7: ["inverse", true], 9: ["strike", true], 23: ["italic", false], 24: ["underline", false], 27: ["inverse", false], 29: ["strike", false], 39: ["fg", null], 49: ["bg", null] };

function applySgr(look, words) {
  const codes = words.split(/[;:]/).map((word) => (word === "" ? 0 : Number(word)));
  for (let i = 0; i < codes.length; i += 1) {
    const code = codes[i];
    if (code === 0) Object.assign(look, newLook());
    else if (code === 22) look.bold = look.faint = false;
    else if (FLAGS[code]) look[FLAGS[code][0]] = FLAGS[code][1];
    else if (code >= 30 && code <= 37) look.fg = code - 30;
    else if (code >= 40 && code <= 47) look.bg = code - 40;
    else if (code >= 90 && code <= 97) look.fg = code - 82;
    else if (code >= 100 && code <= 107) look.bg = code - 92;
    else if (code === 38 || code === 48) i += extended(look, code === 38 ? "fg" : "bg", codes.slice(i + 1));
  }
}

/** Sets a colour from 5;N or 2;R;G;B; returns how many codes that took. */
function extended(look, side, rest) {
  const byte = (value) => Math.min(255, Math.max(0, value | 0));
  if (rest[0] === 5 && rest.length > 1) {
    look[side] = palette(byte(rest[1]));
    return 2;
  }
  if (rest[0] === 2 && rest.length > 3) {
    look[side] = `rgb(${byte(rest[1])} ${byte(rest[2])} ${byte(rest[3])})`;
    return 4;
  }
  return rest.length;
}

/** The 256 colours: a number below 16 is the page's own, others are fixed. */
function palette(n) {
  if (n < 16) return n;
  if (n >= 232) return `rgb(${8 + (n - 232) * 10} ${8 + (n - 232) * 10} ${8 + (n - 232) * 10})`;
  const level = (step) => (step ? 55 + step * 40 : 0);
  const cube = n - 16;
  return `rgb(${level(Math.floor(cube / 36))} ${level(Math.floor(cube / 6) % 6)} ${level(cube % 6)})`;
}

/** Appends elements for the pieces of a line to `parent`. Numbered colours are classes; others are set as properties. */
export function draw(parent, parts) {
  for (const { text, look } of parts) {
    const names = ["bold", "faint", "italic", "underline", "strike"].filter((name) => look[name]);
    const [fg, bg] = look.inverse ? [look.bg ?? "back", look.fg ?? "fore"] : [look.fg, look.bg];
    if (!names.length && fg === null && bg === null) {
      parent.append(text);
      continue;
    }
    const span = document.createElement("span");
    span.textContent = text;
    for (const [side, colour] of [["fg", fg], ["bg", bg]]) {
      if (typeof colour === "number" || colour === "back" || colour === "fore") names.push(`${side}-${colour}`);
      else if (colour !== null) span.style[side === "fg" ? "color" : "backgroundColor"] = colour;
    }
    span.className = names.join(" ");
    parent.append(span);
  }
}

/** 850 ms, 4.2 s, 3 min 20 s, 5 h 12 min, 3 d 4 h. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  const pair = (big, small, unit, next) => `${big} ${unit}${small ? ` ${small} ${next}` : ""}`;
  if (whole < 3600) return pair(Math.floor(whole / 60), whole % 60, "min", "s");
  if (whole < 86400) return pair(Math.floor(whole / 3600), Math.floor(whole / 60) % 60, "h", "min");
  return pair(Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, "d", "h");
}

/** The same in whole seconds, for a figure that counts up. */
export const uptime = (seconds) => (seconds === null ? "–" : seconds < 10 ? `${Math.max(0, Math.floor(seconds))} s` : span(seconds));

/** 512 B, 14 MiB, 1.2 GiB. */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  let value = bytes;
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1000 || unit === "TiB") return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1024;
  }
  return "";
}

export const percent = (value) => (value === null || value === undefined ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} %`);

/** How a run ended, in words. */
export function ending(status) {
  if (!status) return "–";
  if (status.signal) return `${status.signal}${status.core ? " (core)" : ""}`;
  if (status.unknown) return "unknown";
  return `exit code ${status.code}`;
}

const pad = (number) => String(number).padStart(2, "0");

/** The local time of day; with the date, unless it is today. */
export function clock(iso) {
  if (!iso) return "–";
  const at = new Date(iso);
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  const today = at.toDateString() === new Date().toDateString();
  return today ? time : `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${time}`;
}
