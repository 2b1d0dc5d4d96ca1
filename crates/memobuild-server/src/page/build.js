// One build: how far it is, why each step ran, and what it wrote.

import { get, now } from "/assets/api.js";
import {
  badge, bytes, el, elapsed, hitRate, meter, percent, progress, say, setBadge, setMeter, svg, took, when,
} from "/assets/dom.js";
import { Graph } from "/assets/graph.js";

/** What a step in that state says where no reason was given. */
const WHY = {
  pending: "It waits for the steps before it.",
  cached: "Its inputs are those of an earlier run, whose result was taken.",
  loaded: "It brings files in; there is nothing to run.",
  cancelled: "It was stopped.",
  skipped: "The build ended before it.",
};

/** The colour of what a step took. */
const KINDS = { failed: "bad", cached: "hit", loaded: "idle", running: "run", cancelled: "idle" };

/** A step in the list. */
class StepView {
  constructor(step) {
    this.badge = badge(step.state);
    this.label = el("span", { class: "label" });
    this.bar = meter([]);
    this.time = el("span", { class: "number muted" });
    this.why = el("dl", { class: "why" });
    this.cut = el("p", { class: "muted small", hidden: true }, "Only the end of the output is kept.");
    this.log = el("pre", { tabindex: 0, role: "region", hidden: true });
    const caret = svg("svg", { class: "caret", viewBox: "0 0 10 10", "aria-hidden": "true" },
      svg("path", { d: "M3 1l4 4-4 4", fill: "none", stroke: "currentColor", "stroke-width": 1.8 }));
    const summary = el("summary", {}, caret, this.badge, this.label, this.bar, this.time);
    // What a person opened or closed stays so.
    summary.addEventListener("click", () => { this.touched = true; });
    this.details = el("details", { class: "step" }, summary, el("div", { class: "inside" }, this.why, this.cut, this.log));
    this.node = el("li", {}, this.details);
    this.update(step);
  }

  update(step) {
    const before = this.step?.state;
    this.step = step;
    setBadge(this.badge, step.state);
    say(this.label, step.label);
    this.label.title = step.label;
    this.log.setAttribute("aria-label", `Output of ${step.label}`);
    if (!this.touched && before !== step.state) {
      if (step.state === "running" || step.state === "failed") this.details.open = true;
      else if (before === "running") this.details.open = false;
    }
    const texts = [];
    if (step.message) texts.push(["Failed with", step.message]);
    const why = step.reason ?? WHY[step.state];
    if (why) texts.push([step.reason ? (step.again ? "Why it ran again" : "Why it ran") : "Why", why]);
    if (step.state === "cached" && step.saved_ms >= 50) {
      texts.push(["Saved", `about ${took(step.saved_ms)}, what it took when it last ran`]);
    }
    if (step.line) texts.push(["Where", `line ${step.line}`]);
    const text = JSON.stringify(texts);
    if (this.shown !== text) {
      this.shown = text;
      this.why.replaceChildren(...texts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
    }
    this.tick();
  }

  /** `longest`: what the longest step took; the bar is a share of it. */
  measure(longest) {
    const { state, duration_ms: ms } = this.step;
    const kind = KINDS[state] ?? "ran";
    setMeter(this.bar, [[kind, (this.ms ?? ms ?? 0) / (longest || 1)]]);
  }

  output({ text, cut }) {
    const atEnd = this.log.hidden || this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8;
    this.log.hidden = text === "" && !cut;
    this.cut.hidden = !cut;
    say(this.log, text);
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  tick() {
    const { state, began, duration_ms: ms } = this.step;
    const running = state === "running" && began !== null;
    this.ms = running ? Math.max(0, now() - began) : ms;
    say(this.time, running ? elapsed(this.ms) : ms === null ? "" : took(ms));
  }
}

export class BuildView {
  constructor(id, step, title) {
    this.id = id;
    this.wanted = step;
    this.title = title;
    this.updated = 0;
    this.steps = new Map();
    this.graph = null;
    this.heading = el("h1", { tabindex: -1 }, "Build");
    this.badge = badge("pending");
    this.facts = el("dl", { class: "facts small" });
    this.bar = meter([]);
    this.problemText = el("pre", { tabindex: 0, role: "region", "aria-label": "What it failed with" });
    this.problem = el("section", { class: "panel problem", "aria-labelledby": "h-problem", hidden: true },
      el("h2", { id: "h-problem" }, "The build failed"), this.problemText);
    this.absent = el("p", { class: "panel problem error", role: "alert", hidden: true });
    this.graphBox = el("div", { class: "graph", tabindex: 0, role: "region", "aria-label": "Graph, scrolls sideways" });
    this.graphPanel = this.panel("h-graph", "Graph", this.graphBox);
    this.list = el("ol", { class: "steps" });
    this.stepsPanel = this.panel("h-steps", "Steps", this.list);
    this.warnings = el("ul", { class: "bulleted body" });
    this.warningsPanel = this.panel("h-warnings", "Warnings", this.warnings);
    this.layers = el("ol", { class: "layers body" });
    this.layersPanel = this.panel("h-layers", "Layers of the image", this.layers);
    this.node = el("div", { class: "view" },
      el("nav", { "aria-label": "Back" }, el("a", { href: "#/" }, "← All builds")),
      el("div", { class: "head" }, this.heading, this.badge),
      this.facts, this.bar, this.absent, this.problem, this.graphPanel, this.stepsPanel, this.warningsPanel, this.layersPanel);
    for (const part of [this.graphPanel, this.stepsPanel, this.warningsPanel, this.layersPanel]) part.hidden = true;
  }

  panel(id, heading, body) {
    const title = el("div", { class: "title" }, el("h2", { id }, heading));
    return el("section", { class: "panel", "aria-labelledby": id }, title, body);
  }

  failed(error) {
    this.absent.hidden = false;
    const gone = "There is no such build. It may have been removed: old ones go.";
    say(this.absent, error.status === 404 ? gone : `The server gives no answer: ${error.message}`);
  }

  async refresh() {
    const build = await get(`/api/builds/${this.id}`);
    this.absent.hidden = true;
    this.updated = build.updated;
    this.sandbox = build.sandbox;
    this.plan(build.plan);
    for (const log of build.logs) this.steps.get(log.step)?.output(log);
    this.warnings.replaceChildren(...build.warnings.map((text) => el("li", {}, text)));
    this.warningsPanel.hidden = !build.warnings.length;
    const most = build.layers[0]?.size || 1;
    this.layers.replaceChildren(...build.layers.map(({ digest, size }) => el("li", {},
      el("span", { class: "mono ellipsis", title: digest }, digest), el("span", {}, bytes(size)), meter([["ran", size / most]]))));
    this.layersPanel.hidden = !build.layers.length;
    this.update(build);
    if (this.wanted !== undefined) this.show(this.wanted);
  }

  again() {
    this.refresh().catch((error) => this.failed(error));
  }

  /** Steps that are the same as before keep their nodes: what is open stays open. */
  plan(steps) {
    const known = ({ id, label }) => this.steps.get(id)?.step.label === label;
    const same = steps.length === this.steps.size && steps.every(known);
    if (!same) {
      this.steps = new Map(steps.map((step) => [step.id, new StepView(step)]));
      this.list.replaceChildren(...[...this.steps.values()].map(({ node }) => node));
      this.graph = new Graph(steps, (id) => `#/builds/${this.id}/${id}`);
      this.graphBox.replaceChildren(this.graph.node);
    }
    for (const step of steps) this.step(step);
    this.graphPanel.hidden = !steps.length;
    this.stepsPanel.hidden = !steps.length;
  }

  step(step) {
    this.steps.get(step.id)?.update(step);
    this.graph?.update(step);
  }

  update(build) {
    this.build = build;
    const name = build.name || `Build ${build.id.slice(0, 8)}`;
    say(this.heading, name);
    this.title(name);
    setBadge(this.badge, build.state);
    const { steps } = build;
    setMeter(this.bar, progress(steps));
    this.problem.hidden = build.state !== "failed";
    say(this.problemText, build.error ?? "It ended without saying why.");
    this.measure();
    this.tick();
  }

  measure() {
    const longest = Math.max(0, ...[...this.steps.values()].map(({ ms }) => ms ?? 0));
    for (const step of this.steps.values()) step.measure(longest);
  }

  /** Opens a step and goes to it. */
  show(id) {
    this.wanted = undefined;
    const step = this.steps.get(Number(id));
    if (!step) return;
    for (const other of this.steps.values()) other.details.classList.toggle("target", other === step);
    step.details.open = true;
    step.touched = true;
    step.details.querySelector("summary").focus({ preventScroll: true });
    step.node.scrollIntoView({ block: "center" });
  }

  told(message) {
    if (message.type === "build" && message.build.id === this.id) {
      const ended = this.build?.state === "running" && message.build.state !== "running";
      if (message.build.updated < this.updated) return;
      this.update(message.build);
      // Layers, warnings, and outputs as they are kept.
      if (ended) this.again();
    }
    if (message.type === "watching" && message.build === this.id && this.updated) this.again();
    if (message.type !== "steps" || message.build !== this.id || message.updated < this.updated) return;
    if (message.reload) {
      this.again();
      return;
    }
    for (const step of message.steps) this.step(step);
    for (const log of message.logs) this.steps.get(log.step)?.output(log);
    this.measure();
  }

  tick() {
    if (!this.build) return;
    const { build } = this;
    const { steps } = build;
    const running = build.state === "running";
    const facts = [
      [running ? "Running for" : "Took", running ? elapsed(now() - build.started) : took(build.duration_ms)],
      ["Steps", `${steps.ended} of ${steps.total}`],
      ["Cached", `${steps.cached} (${percent(hitRate(steps))})`],
      ["Ran", String(steps.executed)],
      ["Saved", build.saved_ms >= 50 ? `about ${took(build.saved_ms)}` : "–"],
      ["Began", when(build.started)],
    ];
    if (build.client !== "-") facts.push(["By", build.client]);
    if (this.sandbox) facts.push(["Sandbox", this.sandbox]);
    // Nodes stay, so that a selection does.
    while (this.facts.children.length > facts.length) this.facts.lastChild.remove();
    facts.forEach(([name, value], at) => {
      const line = this.facts.children[at] ?? this.facts.appendChild(el("div", {}, el("dt"), el("dd")));
      say(line.children[0], name);
      say(line.children[1], value);
    });
    if (!running) return;
    for (const step of this.steps.values()) if (step.step.state === "running") step.tick();
    this.measure();
  }
}
