// A build's steps as a graph: a lane for each stage, from left to right in the order in which steps need each other.

import { icon, nameOf, svg } from "/assets/dom.js";

const WIDE = 148;
const HIGH = 46;
const GAP = 34;
const BETWEEN = 10;
const LABEL = 22;
const LANE_GAP = 14;

/** `[stage 2/5] RUN make all` as verb and rest. */
function parts(label) {
  const text = label.replace(/^\[[^\]]*\]\s*/, "") || label;
  const at = text.search(/\s/);
  return at > 0 ? [text.slice(0, at), text.slice(at + 1).trim()] : [text, ""];
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** Where each step stands. Inputs come before their users: the server sees to that. */
function layout(steps) {
  const depth = new Map();
  for (const { id, inputs } of steps) depth.set(id, Math.max(-1, ...inputs.map((input) => depth.get(input) ?? -1)) + 1);
  const lanes = new Map();
  for (const step of steps) {
    const stage = step.stage || "";
    if (!lanes.has(stage)) lanes.set(stage, new Map());
    const columns = lanes.get(stage);
    const column = depth.get(step.id);
    columns.set(column, [...(columns.get(column) ?? []), step.id]);
  }
  const places = new Map();
  const bands = [];
  let top = 0;
  for (const [stage, columns] of lanes) {
    const rows = Math.max(...[...columns.values()].map((ids) => ids.length));
    const height = LABEL + rows * (HIGH + BETWEEN) - BETWEEN + 10;
    bands.push({ stage, top, height });
    for (const [column, ids] of columns) {
      ids.forEach((id, row) => places.set(id, { x: 12 + column * (WIDE + GAP), y: top + LABEL + row * (HIGH + BETWEEN) }));
    }
    top += height + LANE_GAP;
  }
  const width = 24 + (Math.max(0, ...depth.values()) + 1) * (WIDE + GAP) - GAP;
  return { places, bands, width, height: Math.max(0, top - LANE_GAP) };
}

export class Graph {
  /** `link`: where a step's node leads. */
  constructor(steps, link) {
    const { places, bands, width, height } = layout(steps);
    this.nodes = new Map();
    const lanes = bands.map(({ stage, top, height: high }) => svg("g", {},
      svg("rect", { class: "band", x: 0, y: top, width, height: high, rx: 8 }),
      svg("text", { class: "lane", x: 12, y: top + 15 }, /^\d+$/.test(stage) ? `stage-${stage}` : stage)));
    const edges = steps.flatMap(({ id, inputs }) => inputs.map((input) => {
      const from = places.get(input);
      const to = places.get(id);
      if (!from || !to) return null;
      const [x1, y1, x2, y2] = [from.x + WIDE, from.y + HIGH / 2, to.x, to.y + HIGH / 2];
      const bend = Math.max(GAP / 2, Math.min(60, (x2 - x1) / 2));
      return svg("path", { class: "edge", d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` });
    }));
    const nodes = steps.map((step) => {
      const { x, y } = places.get(step.id);
      const [verb, rest] = parts(step.label);
      const mark = svg("g", { transform: `translate(${x + WIDE - 24} ${y + 7})` });
      const node = svg("a", { href: link(step.id) },
        svg("title", {}, step.label),
        svg("rect", { x, y, width: WIDE, height: HIGH, rx: 8 }),
        svg("text", { class: "verb", x: x + 10, y: y + 19 }, cut(verb, 16)),
        svg("text", { class: "rest", x: x + 10, y: y + 36 }, cut(rest, 19)), mark);
      this.nodes.set(step.id, { node, mark, label: step.label });
      this.update(step);
      return node;
    });
    const size = { width, height, viewBox: `0 0 ${width} ${height}` };
    this.node = svg("svg", { class: "dag", ...size, role: "group", "aria-label": "Steps as a graph" },
      lanes, edges.filter(Boolean), nodes);
  }

  update(step) {
    const known = this.nodes.get(step.id);
    if (!known || known.state === step.state) return;
    known.state = step.state;
    known.node.setAttribute("class", `node tone-${step.state}`);
    known.node.setAttribute("aria-label", `${known.label}: ${nameOf(step.state)}`);
    known.mark.replaceChildren(icon(step.state));
  }
}
