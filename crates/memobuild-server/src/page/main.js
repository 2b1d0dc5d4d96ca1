// Which view is shown, and what all views share: the theme, the connection, announcements.

import { Live } from "/assets/api.js";
import { BuildView } from "/assets/build.js";
import { el, nameOf } from "/assets/dom.js";
import { Overview } from "/assets/overview.js";

const main = document.getElementById("main");
const announcer = document.getElementById("announcer");
let view = null;

// --- theme

const THEMES = ["auto", "light", "dark"];
const button = document.getElementById("theme");

function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  button.textContent = `Theme: ${name}`;
  button.dataset.theme = name;
}

function stored() {
  try {
    return localStorage.getItem("memobuild.theme");
  } catch {
    return null;
  }
}

button.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(button.dataset.theme) + 1) % THEMES.length];
  theme(next);
  try {
    localStorage.setItem("memobuild.theme", next);
  } catch {
    // It holds until the page is left.
  }
});
theme(THEMES.includes(stored()) ? stored() : "auto");

// --- connection

const STATES = { live: "Live", polling: "Every 5 s", offline: "No answer", connecting: "Connecting" };

function state(name) {
  document.getElementById("status").dataset.state = name;
  document.getElementById("status-text").textContent = STATES[name];
}

/** States of builds that were seen, so that an end is announced once. */
const seen = new Map();

function announce(build) {
  const before = seen.get(build.id);
  seen.set(build.id, build.state);
  if (before === build.state || (before === undefined && build.state !== "running")) return;
  announcer.textContent = `${build.name || "A build"}: ${before === undefined ? "began" : nameOf(build.state)}`;
}

const live = new Live({
  message(told) {
    if (told.type === "build") announce(told.build);
    view?.told(told);
  },
  refresh: () => refresh(),
  state,
});

/** Whether there was an answer. */
async function refresh() {
  try {
    await view?.refresh();
    live.connect();
    return true;
  } catch (error) {
    view?.failed(error);
    return false;
  }
}

// --- views

function route() {
  const match = /^#\/builds\/([0-9a-z-]{8,64})(?:\/(\d+))?$/.exec(location.hash);
  if (match && view instanceof BuildView && view.id === match[1]) {
    view.show(match[2]);
    return;
  }
  // The skip link, and nothing that is known.
  if (!match && view instanceof Overview) return;
  const first = view === null;
  view = match ? new BuildView(match[1], match[2], title) : new Overview(title);
  main.replaceChildren(view.node);
  window.scrollTo(0, 0);
  live.watch(match ? match[1] : null);
  refresh();
  if (!first) view.node.querySelector("h1")?.focus();
}

function title(text) {
  document.title = text ? `${text} – memobuild` : "memobuild";
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("hashchange", route);
setInterval(() => view?.tick(), 1000);
main.replaceChildren(el("p", { class: "muted" }, "Loading…"));
route();
