// Elements, icons, and numbers for people. Text becomes text: nothing here takes markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.setAttribute("class", value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== undefined && child !== null && child !== false) node.append(child);
  }
  return node;
}

export const el = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const svg = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);
export const hidden = (text) => el("span", { class: "hidden" }, text);

/** Sets text only where it changed: a screen reader or a selection is not disturbed without need. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A bar of shares, each `[class, 0..1]`. Decoration: what it says stands beside it. */
export function meter(shares) {
  const bar = el("div", { class: "meter", "aria-hidden": "true" });
  setMeter(bar, shares);
  return bar;
}

export function setMeter(bar, shares) {
  while (bar.children.length < shares.length) bar.append(el("span"));
  shares.forEach(([kind, share], at) => {
    const part = bar.children[at];
    part.className = kind;
    part.style.setProperty("--share", `${Math.min(1, Math.max(0, share)) * 100}%`);
  });
}

/** How far the steps of a build are, as shares of a meter. */
export function progress({ total, ended, running, cached, executed, failed }) {
  const all = total || 1;
  const idle = Math.max(0, ended - cached - executed - failed);
  const parts = { idle, hit: cached, ran: executed, bad: failed, run: running };
  return Object.entries(parts).map(([kind, part]) => [kind, part / all]);
}

// What each state looks like and is called. Shapes differ, so that colour is never the only sign.
const SHAPES = {
  pending: "M8 2.5a5.5 5.5 0 1 1 0 11 5.5 5.5 0 0 1 0-11Z",
  running: "M8 2a6 6 0 1 0 6 6",
  cached: "M9 1.5 3.5 9H8l-1 5.5L12.500 7H8Z",
  loaded: "M8 2v8M4.500 7 8 10.500 11.500 7M3 13.500h10",
  done: "m3 8.500 3.500 3.500L13 4.500",
  succeeded: "m3 8.500 3.500 3.500L13 4.500",
  failed: "m4 4 8 8M12 4l-8 8",
  cancelled: "M4 4h8v8H4Z",
  skipped: "M3.500 8h9",
  lost: "M5.500 6a2.500 2.500 0 1 1 3.700 2.200C8.300 8.700 8 9.200 8 10M8 12.800v.4",
};
const NAMES = {
  pending: "Waiting", running: "Running", cached: "Cached", loaded: "Loaded", done: "Ran", succeeded: "Succeeded",
  failed: "Failed", cancelled: "Stopped", skipped: "Not reached", lost: "Lost",
};

export const nameOf = (state) => NAMES[state] ?? state;

export function icon(state) {
  const known = state in SHAPES ? state : "pending";
  const solid = known === "cached";
  const path = svg("path", {
    d: SHAPES[known], class: known === "running" ? "spin" : undefined, fill: solid ? "currentColor" : "none",
    stroke: "currentColor", "stroke-width": solid ? 1 : 2, "stroke-linecap": "round", "stroke-linejoin": "round",
  });
  return svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" }, path);
}

/** A state as a sign and a word. */
export function badge(state) {
  const node = el("span", { class: "badge" });
  setBadge(node, state);
  return node;
}

export function setBadge(node, state) {
  if (node.dataset.state === state) return;
  node.dataset.state = state;
  node.className = `badge tone-${state}`;
  node.replaceChildren(icon(state), nameOf(state));
}

const plural = (n, one, many) => `${n.toLocaleString()} ${n === 1 ? one : many}`;
export const count = plural;

/** Milliseconds as 0.4 s, 12.3 s, 4 m 05 s, 3 h 20 m. */
export function took(ms) {
  if (ms === undefined || ms === null) return "–";
  if (ms > 0 && ms < 50) return `${Math.max(1, Math.round(ms))} ms`;
  const seconds = ms / 1000;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${String(whole % 60).padStart(2, "0")} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} m`;
  return `${(minutes / 1440).toFixed(1)} d`;
}

/** The same for what counts up: whole seconds, so that it does not flicker. */
export const elapsed = (ms) => (ms < 60_000 ? `${Math.max(0, Math.floor(ms / 1000))} s` : took(ms));

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) {
    n /= 1024;
    at += 1;
  }
  return `${at === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[at]}`;
}

export const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(share * 100)} %`);

/** The share of steps that came from a cache; null without any. */
export function hitRate({ cached, executed, failed }) {
  const all = cached + executed + failed;
  return all ? cached / all : null;
}

export function ago(ms) {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ago`;
  return `${plural(Math.floor(minutes / 1440), "day", "days")} ago`;
}

export const when = (ms) => new Date(ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
