// All builds: those that run, those that ran, what was saved, and what the storage holds.

import { get, now } from "/assets/api.js";
import {
  ago, badge, bytes, count, el, elapsed, hidden, hitRate, meter, percent, progress, say, setBadge, setMeter, svg, took, when,
} from "/assets/dom.js";

const PAGE = 30;

/** What tells builds apart, and where that is: `app:1` of `registry.example/team`. */
function named({ name, id }) {
  if (!name) return [`Build ${id.slice(0, 8)}`, ""];
  const at = name.lastIndexOf("/");
  return at < 0 ? [name, ""] : [name.slice(at + 1), name.slice(0, at)];
}
/** A build that runs. */
class Card {
  constructor(build) {
    this.name = el("strong", { title: build.name });
    this.time = el("span", { class: "muted" });
    this.bar = meter([]);
    this.badge = badge("running");
    this.text = el("span", { class: "muted small" });
    this.node = el("li", {}, el("a", { class: "card", href: `#/builds/${build.id}` },
      el("span", { class: "line" }, this.name, this.time), this.bar, el("span", { class: "line" }, this.badge, this.text)));
    this.update(build);
  }

  update(build) {
    this.build = build;
    const { steps } = build;
    say(this.name, named(build)[0]);
    setMeter(this.bar, progress(steps));
    const parts = [`${steps.ended} of ${count(steps.total, "step", "steps")}`];
    if (steps.cached) parts.push(`${steps.cached} cached`);
    say(this.text, steps.total ? parts.join(", ") : "getting ready");
    this.tick();
  }

  tick() {
    say(this.time, elapsed(now() - this.build.started));
  }
}

/** A build in the history. */
class Row {
  constructor(build) {
    this.state = badge(build.state);
    this.name = el("strong");
    this.about = el("span", { class: "muted small" });
    this.bar = meter([]);
    this.rate = el("span", { class: "number" });
    this.took = el("span", { class: "number took" });
    this.saved = el("span", { class: "number saved" });
    this.when = el("time", { class: "number when muted small" });
    this.node = el("li", {}, el("a", { class: "row", href: `#/builds/${build.id}` },
      el("span", { class: "state" }, this.state), el("span", { class: "name" }, this.name, this.about),
      el("span", { class: "rate" }, this.bar, el("span", { class: "number" }, hidden("cached: "), this.rate)),
      el("span", { class: "number took" }, hidden("took "), this.took),
      el("span", { class: "number saved" }, hidden("saved "), this.saved), this.when));
    this.update(build);
  }

  update(build) {
    this.build = build;
    const { steps } = build;
    setBadge(this.state, build.state);
    const [name, place] = named(build);
    say(this.name, name);
    this.name.title = build.name;
    const client = build.client === "-" ? "" : ` by ${build.client}`;
    const error = build.state === "failed" && build.error ? build.error.split("\n", 1)[0] : "";
    const about = [place, count(steps.total, "step", "steps"), `${steps.executed} ran${client}`].filter(Boolean).join(", ");
    say(this.about, error || about);
    this.about.classList.toggle("error", error !== "");
    this.about.classList.toggle("muted", error === "");
    const rate = hitRate(steps);
    setMeter(this.bar, [["hit", rate ?? 0]]);
    say(this.rate, percent(rate));
    say(this.saved, build.saved_ms >= 50 ? took(build.saved_ms) : "–");
    this.when.setAttribute("datetime", new Date(build.started).toISOString());
    this.when.setAttribute("title", when(build.started));
    this.tick();
  }

  tick() {
    const { build } = this;
    say(this.took, build.state === "running" ? elapsed(now() - build.started) : took(build.duration_ms));
    say(this.when, ago(now() - build.started));
  }
}

/** Bars of steps by day, the last days of the period. */
function chart(byDay, days, until) {
  const shown = Math.min(days, 30);
  const found = new Map(byDay.map((day) => [day.day, day]));
  const list = [];
  for (let back = shown - 1; back >= 0; back -= 1) {
    const day = new Date(until - back * 86_400_000).toISOString().slice(0, 10);
    list.push(found.get(day) ?? { day, cached: 0, executed: 0, builds: 0 });
  }
  const width = 288;
  const height = 84;
  const most = Math.max(1, ...list.map((day) => day.cached + day.executed));
  const step = width / shown;
  const wide = Math.min(22, step * 0.72);
  const bars = list.flatMap((day, at) => {
    const x = at * step + (step - wide) / 2;
    const ran = (day.executed / most) * height;
    const hit = (day.cached / most) * height;
    const builds = count(day.builds, "build", "builds");
    const title = svg("title", {}, `${day.day}: ${builds}, ${day.cached} cached, ${day.executed} ran`);
    const bar = (kind, y, high) => high > 0
      && svg("rect", { class: kind, x, y, width: wide, height: Math.max(1, high - 1), rx: 1.5 });
    return [svg("g", {}, title, bar("ran", height - ran, ran), bar("hit", height - ran - hit, hit))];
  });
  const label = (text, x, anchor) => svg("text", { x, y: height + 15, "text-anchor": anchor }, text);
  const format = { month: "short", day: "numeric", timeZone: "UTC" };
  const short = (day) => new Date(`${day}T12:00:00Z`).toLocaleDateString(undefined, format);
  const sum = (field) => list.reduce((all, day) => all + day[field], 0);
  return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height + 20}`, role: "img",
    "aria-label": `Steps by day over ${shown} days: ${sum("cached")} cached, ${sum("executed")} ran` },
  svg("line", { class: "axis", x1: 0, x2: width, y1: height + 0.5, y2: height + 0.5 }), bars,
  label(short(list[0].day), 0, "start"), label("today", width, "end"));
}

export class Overview {
  constructor(title) {
    title("");
    this.days = 30;
    this.cards = new Map();
    this.rows = new Map();
    this.next = null;
    this.older = false;
    this.period = [7, 30, 90].map((days) => el("button", {
      type: "button", class: "button", "aria-pressed": String(days === this.days), onclick: () => this.choose(days),
    }, count(days, "day", "days")));
    this.tiles = ["Hit rate", "Time saved", "Builds", "Storage"].map((name) => ({
      name, value: el("dd", { class: "value" }, "–"), about: el("dd", { class: "about" }, "\u00a0"),
    }));
    this.running = el("ul", { class: "live" });
    this.idle = el("p", { class: "empty", hidden: true }, "Nothing is being built.");
    this.runningCount = el("span", { class: "muted small" });
    this.history = el("ul", { class: "rows" });
    this.none = el("div", { class: "empty", hidden: true },
      el("p", {}, "No build has been reported yet. Point a build at this server, and it shows up while it runs:"),
      el("p", {}, el("code", {}, `MEMOBUILD_REMOTE_URL=${location.origin} memobuild build .`)));
    this.moreButton = el("button", { type: "button", class: "button", onclick: () => this.more() }, "Show older builds");
    this.moreLine = el("div", { class: "more", hidden: true }, this.moreButton);
    this.chart = el("div", { class: "body" });
    this.storage = el("div", { class: "body" });
    this.layers = el("div", { class: "body" });
    this.problem = el("p", { class: "problem panel error", role: "alert", hidden: true });
    const names = ["State", "Build", "Cached", "Took", "Saved", "Began"];
    const classes = ["state", "name", "rate", "number took", "number saved", "number when"];
    this.names = el("div", { class: "row names", "aria-hidden": "true", hidden: true },
      names.map((name, at) => el("span", { class: classes[at] }, name)));
    const panel = (id, heading, beside, ...children) => el("section", { class: "panel", "aria-labelledby": id },
      el("div", { class: "title" }, el("h2", { id }, heading), beside), ...children);
    this.node = el("div", { class: "view" },
      el("div", { class: "head" }, el("h1", { tabindex: -1 }, "Builds"),
        el("div", { class: "group", role: "group", "aria-label": "Period" }, this.period)),
      this.problem,
      el("dl", { class: "tiles" },
        this.tiles.map(({ name, value, about }) => el("div", { class: "tile" }, el("dt", {}, name), value, about))),
      el("div", { class: "columns" },
        el("div", {},
          panel("h-live", "Running now", this.runningCount, this.idle, this.running),
          panel("h-history", "History", null, this.names, this.none, this.history, this.moreLine)),
        el("div", {},
          panel("h-days", "Steps by day", null, this.chart),
          panel("h-storage", "Storage", null, this.storage),
          panel("h-layers", "Largest layers", null, this.layers))));
  }

  choose(days) {
    this.days = days;
    for (const button of this.period) button.setAttribute("aria-pressed", String(button.textContent.startsWith(`${days} `)));
    this.sums().catch((error) => this.failed(error));
  }

  failed(error) {
    this.problem.hidden = false;
    say(this.problem, `The server gives no answer: ${error.message}`);
  }

  async refresh() {
    const [list] = await Promise.all([get(`/api/builds?limit=${PAGE}`), this.sums(), this.largest()]);
    this.problem.hidden = true;
    for (const build of list.builds) this.put(build);
    if (!this.older) this.next = list.next;
    this.arrange();
  }

  async sums() {
    const days = this.days;
    const { totals, by_day: byDay, storage, now: at } = await get(`/api/analytics?days=${days}`);
    // Another period may have been chosen meanwhile.
    if (days !== this.days) return;
    const failed = totals.failed ? `${totals.failed} failed` : "none failed";
    const full = storage.max_bytes ? `of ${bytes(storage.max_bytes)}` : count(storage.blobs, "blob", "blobs");
    const steps = count(totals.cached + totals.executed, "step", "steps");
    const texts = [
      [percent(totals.hit_rate), `${totals.cached.toLocaleString()} of ${steps}`],
      [totals.saved_ms >= 50 ? took(totals.saved_ms) : "–", `builds took ${took(totals.duration_ms)}`],
      [totals.builds.toLocaleString(), failed],
      [bytes(storage.bytes), full],
    ];
    this.tiles.forEach(({ value, about }, at) => {
      say(value, texts[at][0]);
      say(about, texts[at][1]);
    });
    this.chart.replaceChildren(chart(byDay, days, at), el("p", { class: "legend" },
      el("span", {}, el("i", { class: "hit" }), "cached"), el("span", {}, el("i"), "ran")));
    const share = storage.max_bytes ? storage.bytes / storage.max_bytes : 0;
    this.storage.replaceChildren(...[
      el("p", {}, el("strong", {}, bytes(storage.bytes)),
        storage.max_bytes ? ` of ${bytes(storage.max_bytes)}, ${percent(share)}` : ", no limit set"),
      storage.max_bytes ? meter([[share > 0.9 ? "run" : "hit", share]]) : null,
      el("p", { class: "muted small" }, `${count(storage.blobs, "blob", "blobs")}, ${count(storage.records, "record", "records")}`),
    ].filter(Boolean));
  }

  async largest() {
    const { layers } = await get("/api/layers?limit=8");
    if (!layers.length) {
      this.layers.replaceChildren(el("p", { class: "muted" }, "No image has been built yet."));
      return;
    }
    const most = layers[0].size || 1;
    this.layers.replaceChildren(el("ol", { class: "layers" }, layers.map((layer) => el("li", {},
      el("a", { class: "ellipsis", href: `#/builds/${layer.build}`, title: layer.name },
        named({ name: layer.name, id: layer.build })[0]),
      el("span", {}, bytes(layer.size)),
      el("span", { class: "mono muted ellipsis", title: layer.digest }, layer.digest.slice(0, 19)),
      el("span", { class: "muted small" }, count(layer.builds, "build", "builds")),
      meter([["ran", layer.size / most]])))));
  }

  put(build) {
    const row = this.rows.get(build.id);
    if (row) {
      // What was asked for may be older than what was told.
      if (build.updated >= row.build.updated) row.update(build);
    } else {
      this.rows.set(build.id, new Row(build));
    }
    if (build.state === "running") {
      const card = this.cards.get(build.id);
      if (card) card.update(build);
      else this.cards.set(build.id, new Card(build));
    } else if (this.cards.has(build.id)) {
      this.cards.get(build.id).node.remove();
      this.cards.delete(build.id);
    }
  }

  /** Puts nodes where they belong, and touches only those that are not there. */
  arrange() {
    const newest = (a, b) => b.build.number - a.build.number;
    const place = (list, items) => items.sort(newest).forEach(({ node }, at) => {
      if (list.children[at] !== node) list.insertBefore(node, list.children[at] ?? null);
    });
    place(this.running, [...this.cards.values()]);
    place(this.history, [...this.rows.values()]);
    this.idle.hidden = this.cards.size > 0;
    this.running.hidden = !this.cards.size;
    say(this.runningCount, this.cards.size ? count(this.cards.size, "build", "builds") : "");
    this.none.hidden = this.rows.size > 0;
    this.names.hidden = !this.rows.size;
    this.moreLine.hidden = this.next === null;
  }

  async more() {
    this.moreButton.disabled = true;
    try {
      const list = await get(`/api/builds?limit=${PAGE}&before=${this.next}`);
      this.older = true;
      this.next = list.next;
      for (const build of list.builds) this.put(build);
      this.arrange();
    } catch (error) {
      this.failed(error);
    } finally {
      this.moreButton.disabled = false;
    }
  }

  told(message) {
    if (message.type !== "build") return;
    this.put(message.build);
    this.arrange();
    if (message.build.state !== "running") Promise.all([this.sums(), this.largest()]).catch((error) => this.failed(error));
  }

  tick() {
    for (const card of this.cards.values()) card.tick();
    for (const row of this.rows.values()) row.tick();
  }
}
