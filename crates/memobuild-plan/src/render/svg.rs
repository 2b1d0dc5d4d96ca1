//! A plan as an SVG picture, laid out here: no other tool is needed.
//!
//! Stages are boxes, layered from top to bottom; in each, steps are rows in order. A state has a colour, a shape and a
//! word of its own. Files of the build context are a mark on the row, not an edge, since most steps have one.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    State, StateKind, States,
    groups::{self, Group},
    is_target,
    layout::{Layout, Net, layout},
    needs, number, one_line, state,
};
use crate::model::{Op, Plan, Step, StepId};

const ROW: usize = 22;
const WHY: usize = 15;
const HEAD: usize = 26;
const PADDING: usize = 6;
/// Width of a box.
const BOX: usize = 430;
/// Between tracks.
const TRACK: usize = 7;
/// Around the tracks of a gutter or corridor.
const ROOM: usize = 16;
const TOP: usize = 64;
/// Width of the legend.
const LEGEND: usize = 960;
/// Characters of a label; those are of one width.
const LABEL: usize = 45;
const REASON: usize = 62;
/// Colours by which neighbouring edges can be told apart.
const LINES: [&str; 6] = ["#57606a", "#8250df", "#0550ae", "#9a6700", "#bf3989", "#116329"];

const STYLE: &str = "text{font-family:ui-sans-serif,system-ui,'Segoe UI','DejaVu Sans',sans-serif;font-size:12px;fill:#1f2328}\
.c{font-family:ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;font-size:11px}\
.y{font-family:ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;font-size:9.5px;fill:#57606a}\
.t{font-weight:600}.w{font-size:10px;font-weight:600}.n{fill:#57606a}.l{fill:none;stroke-width:1.4;stroke-linejoin:round}";

/// A picture of the plan.
pub fn svg(plan: &Plan, states: States<'_>) -> String {
    let mut groups = groups::of(plan);
    groups.retain(|group| !group.title.is_empty());
    let layout = layout(plan, &groups);
    let places = Places::new(plan, states, &groups, &layout);
    let mut out = String::new();
    let (width, height) = (places.width, places.height);
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <style>{STYLE}</style>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    legend(&mut out, plan, states);
    for (net, colour) in layout.nets.iter().zip(LINES.iter().cycle()) {
        places.net(&mut out, net, colour);
    }
    for (index, group) in groups.iter().enumerate() {
        places.group(&mut out, index, group);
    }
    out.push_str("</svg>\n");
    out
}

fn legend(out: &mut String, plan: &Plan, states: States<'_>) {
    let targets: Vec<String> =
        plan.targets.iter().map(|t| format!("{} ({})", groups::named(&t.stage), t.platform)).collect();
    let title = cut(&format!("{} steps to {}", plan.steps.len(), targets.join(", ")), 80);
    let _ = writeln!(out, "<text class=\"t\" x=\"16\" y=\"24\">{}</text>", escaped(&title));
    let x = 40 + title.chars().count() * 8;
    let _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"12\" width=\"28\" height=\"15\" rx=\"7\" fill=\"#eaeef2\"/>\
         <text class=\"w\" x=\"{}\" y=\"23\">ctx</text><text x=\"{}\" y=\"24\">takes files of a build context</text>",
        x + 5,
        x + 34
    );
    let mut x = 16;
    for kind in StateKind::ALL {
        let Some(states) = states else { break };
        let count = states.iter().filter(|state| state.kind == kind).count();
        glyph(out, kind, x + 6, 44);
        let text = format!("{} ({}): {count}", kind.word(), kind.meaning());
        let _ = writeln!(out, "<text x=\"{}\" y=\"48\">{text}</text>", x + 18);
        x += 40 + text.len() * 7;
    }
}

/// Where everything stands, in pixels.
struct Places<'a> {
    plan: &'a Plan,
    states: States<'a>,
    layout: &'a Layout,
    /// Left edges of the columns, and tops of the layers.
    columns: Vec<usize>,
    layers: Vec<usize>,
    /// Left edge of each gutter's first track, upper edge of each corridor's.
    gutters: Vec<usize>,
    corridors: Vec<usize>,
    /// Height of each group's box.
    heights: Vec<usize>,
    /// Column's left edge and middle of the row, of each step.
    rows: BTreeMap<StepId, (usize, usize)>,
    width: usize,
    height: usize,
}

impl<'a> Places<'a> {
    fn new(plan: &'a Plan, states: States<'a>, groups: &[Group], layout: &'a Layout) -> Self {
        let heights: Vec<usize> = groups
            .iter()
            .map(|group| {
                let rows = group.steps.iter().map(|id| ROW + if why(states, *id).is_some() { WHY } else { 0 });
                HEAD + rows.sum::<usize>() + PADDING
            })
            .collect();
        let room = |tracks: usize| ROOM + tracks * TRACK;
        let (mut columns, mut gutters, mut x) = (Vec::new(), Vec::new(), 0);
        for (at, tracks) in layout.gutters.iter().enumerate() {
            gutters.push(x + ROOM / 2 + TRACK / 2);
            x += room(*tracks);
            if at < layout.columns {
                columns.push(x);
                x += BOX;
            }
        }
        let (mut layers, mut corridors, mut y) = (Vec::new(), Vec::new(), TOP);
        for (layer, tracks) in layout.corridors.iter().enumerate() {
            corridors.push(y + ROOM / 2 + TRACK / 2);
            y += room(*tracks);
            layers.push(y);
            let of_layer = layout.cells.iter().zip(&heights).filter(|((l, _), _)| *l == layer);
            y += of_layer.map(|(_, height)| *height).max().unwrap_or_default();
        }
        let mut rows = BTreeMap::new();
        for (group, (layer, column)) in groups.iter().zip(&layout.cells) {
            let (Some(left), Some(top)) = (columns.get(*column), layers.get(*layer)) else { continue };
            let mut y = top + HEAD;
            for id in &group.steps {
                rows.insert(*id, (*left, y + ROW / 2));
                y += ROW + if why(states, *id).is_some() { WHY } else { 0 };
            }
        }
        let (width, height) = (x.max(LEGEND), y + ROOM);
        Self { plan, states, layout, columns, layers, gutters, corridors, heights, rows, width, height }
    }

    fn group(&self, out: &mut String, index: usize, group: &Group) {
        let Some(((layer, column), height)) = self.layout.cells.get(index).zip(self.heights.get(index)) else { return };
        let (Some(x), Some(y)) = (self.columns.get(*column), self.layers.get(*layer)) else { return };
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{BOX}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#8c959f\"/>\n\
             <text class=\"t\" x=\"{}\" y=\"{}\">{}</text>",
            x + 10,
            y + 18,
            escaped(&cut(&group.title, 50))
        );
        for id in &group.steps {
            if let (Some(step), Some((x, y))) = (self.plan.steps.get(id.0), self.rows.get(id)) {
                self.inside(out, group, step);
                self.row(out, step, *x, *y);
            }
        }
    }

    /// Lines to a row from the rows above it in the same box.
    fn inside(&self, out: &mut String, group: &Group, step: &Step) {
        let place = |id: &StepId| group.steps.iter().position(|other| other == id);
        for from in needs(&step.op) {
            let (Some(a), Some(b)) = (place(&from), place(&step.id)) else { continue };
            let (Some((x, above)), Some((_, below))) = (self.rows.get(&from), self.rows.get(&step.id)) else {
                continue;
            };
            let x = x + 16;
            let path = match b.checked_sub(a) {
                Some(1) => format!("M{x} {}V{}", above + 7, below - 7),
                // Past the rows in between.
                _ => format!("M{} {above}H{}V{below}H{}", x - 7, x - 11, x - 7),
            };
            let _ = writeln!(out, "<path class=\"l\" stroke=\"#8c959f\" d=\"{path}\"/>");
        }
    }

    fn row(&self, out: &mut String, step: &Step, x: usize, y: usize) {
        let state = state(self.states, step.id);
        let title = match state.and_then(|state| state.why.as_deref()) {
            Some(why) => format!("#{} {}: {why}", number(step.id), step.label),
            None => format!("#{} {}", number(step.id), step.label),
        };
        let _ = write!(out, "<g><title>{}</title>", escaped(&one_line(&title)));
        let tint = match state.map(|state| state.kind) {
            Some(StateKind::Hit) => "#eefbf1",
            Some(StateKind::Run) => "#fff1e5",
            Some(StateKind::Unknown) => "#f6f8fa",
            Some(StateKind::Source) => "#eef7ff",
            None => "#f6f8fa",
        };
        let reason = why(self.states, step.id);
        let height = ROW - 2 + if reason.is_some() { WHY } else { 0 };
        let _ = write!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{height}\" rx=\"4\" fill=\"{tint}\"{}/>",
            x + 4,
            y - ROW / 2 + 1,
            BOX - 8,
            if is_target(self.plan, step.id) { " stroke=\"#1f2328\" stroke-width=\"2\"" } else { "" }
        );
        match state {
            Some(state) => glyph(out, state.kind, x + 16, y),
            None => {
                let _ = write!(out, "<circle cx=\"{}\" cy=\"{y}\" r=\"4\" fill=\"#57606a\"/>", x + 16);
            }
        }
        let mut right = x + BOX - 10;
        let mut mark = |out: &mut String, text: &str, fill: &str| {
            let width = text.len() * 6 + 10;
            right -= width;
            let _ = write!(
                out,
                "<rect x=\"{right}\" y=\"{}\" width=\"{width}\" height=\"15\" rx=\"7\" fill=\"{fill}\"/>\
                 <text class=\"w\" x=\"{}\" y=\"{}\">{text}</text>",
                y - 8,
                right + 5,
                y + 3
            );
            right -= 3;
        };
        if let Some(state) = state.filter(|state| state.kind != StateKind::Source) {
            let word = if state.kind == StateKind::Unknown { "?" } else { state.kind.word() };
            mark(out, word, colours(state.kind).1);
        }
        if is_target(self.plan, step.id) {
            mark(out, "target", "#d0d7de");
        }
        if takes_context(self.plan, step) {
            mark(out, "ctx", "#eaeef2");
        }
        let room = (right.saturating_sub(x + 30)) * 10 / 67;
        let text = cut(&format!("#{} {}", number(step.id), instruction(step)), room.min(LABEL + 8));
        let _ = write!(out, "<text class=\"c\" x=\"{}\" y=\"{}\">{}</text>", x + 30, y + 4, escaped(&text));
        if let Some(reason) = reason {
            let text = escaped(&cut(&one_line(reason), REASON));
            let _ = write!(out, "<text class=\"y\" x=\"{}\" y=\"{}\">{text}</text>", x + 30, y + ROW / 2 + 7);
        }
        out.push_str("</g>\n");
    }

    /// The lines from one step to steps in other boxes.
    fn net(&self, out: &mut String, net: &Net, colour: &str) {
        let Some((x, y)) = self.rows.get(&net.from) else { return };
        let gutter_of = |left: usize| self.columns.iter().position(|column| *column == left);
        let track = |gutter: usize| {
            let (left, track) = (self.gutters.get(gutter)?, net.gutters.get(&gutter)?);
            Some(left + track * TRACK)
        };
        let Some(column) = gutter_of(*x) else { return };
        let Some(down) = track(column + 1) else { return };
        for to in &net.to {
            let Some((to_x, to_y)) = self.rows.get(to) else { continue };
            let Some(arrive) = gutter_of(*to_x) else { continue };
            let mut path = format!("M{} {y}H{down}", x + BOX);
            if arrive != column + 1 {
                let layer = self.layers.iter().rposition(|top| top <= to_y).unwrap_or_default();
                let corridor = self.corridors.get(layer).zip(net.corridors.get(&layer));
                let (Some((top, lane)), Some(across)) = (corridor, track(arrive)) else { continue };
                let _ = write!(path, "V{}H{across}", top + lane * TRACK);
            }
            let _ = write!(path, "V{to_y}H{}", to_x - 5);
            let (tip, up, low) = (to_x, to_y - 4, to_y + 4);
            let _ = writeln!(
                out,
                "<path class=\"l\" stroke=\"{colour}\" d=\"{path}\"/><path fill=\"{colour}\" d=\"M{} {up}L{tip} {to_y}L{} {low}z\"/>",
                tip - 7,
                tip - 7
            );
        }
    }
}

/// Why a step runs: shown below its row.
fn why(states: States<'_>, id: StepId) -> Option<&str> {
    match state(states, id) {
        Some(State { kind: StateKind::Run, why: Some(why) }) => Some(why),
        _ => None,
    }
}

fn takes_context(plan: &Plan, step: &Step) -> bool {
    let local = |id: StepId| plan.steps.get(id.0).is_some_and(|from| matches!(from.op, Op::Local(_)));
    needs(&step.op).into_iter().any(local)
}

/// The label without the part in brackets, which the box says.
fn instruction(step: &Step) -> String {
    let label = one_line(&step.label);
    match label.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, rest)) => rest.to_owned(),
        None => label,
    }
}

/// Line and fill of a state.
fn colours(kind: StateKind) -> (&'static str, &'static str) {
    match kind {
        StateKind::Hit => ("#1a7f37", "#aceebb"),
        StateKind::Run => ("#bc4c00", "#ffc680"),
        StateKind::Unknown => ("#57606a", "#d0d7de"),
        StateKind::Source => ("#0969da", "#b6e3ff"),
    }
}

/// A circle with a tick, a triangle, a question mark in a diamond, a square.
fn glyph(out: &mut String, kind: StateKind, x: usize, y: usize) {
    let (line, _) = colours(kind);
    let shape = match kind {
        StateKind::Hit => format!(
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"6\" fill=\"{line}\"/>\
             <path d=\"M{} {y}l2.4 2.6l4 -5\" fill=\"none\" stroke=\"#ffffff\" stroke-width=\"1.6\"/>",
            x - 3
        ),
        StateKind::Run => format!("<path d=\"M{} {}l12 7l-12 7z\" fill=\"{line}\"/>", x - 5, y - 7),
        StateKind::Unknown => format!(
            "<path d=\"M{x} {}l7 7l-7 7l-7 -7z\" fill=\"#ffffff\" stroke=\"{line}\" stroke-width=\"1.4\"/>\
             <text class=\"w\" x=\"{}\" y=\"{}\">?</text>",
            y - 7,
            x - 3,
            y + 4
        ),
        StateKind::Source => {
            format!("<rect x=\"{}\" y=\"{}\" width=\"11\" height=\"11\" fill=\"{line}\"/>", x - 5, y - 5)
        }
    };
    out.push_str(&shape);
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    format!("{}…", text.chars().take(most.saturating_sub(1)).collect::<String>())
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // Not allowed in XML at all.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
