//! Where stages and edges go in a picture: stages in layers from top to bottom, on a grid of columns; edges in the
//! gutters between columns and in the corridors above layers, so that none crosses a box.

use std::collections::BTreeMap;

use super::groups::Group;
use crate::model::{Op, Plan, StepId};

/// Stages side by side at most; more of one layer go into a further one.
const MAX_COLUMNS: usize = 4;

/// Stages on a grid, and the edges between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Layer and column of each group.
    pub(super) cells: Vec<(usize, usize)>,
    pub(super) layers: usize,
    pub(super) columns: usize,
    pub(super) nets: Vec<Net>,
    /// Tracks side by side in each gutter; gutter `c` is left of column `c`, and there is one behind the last.
    pub(super) gutters: Vec<usize>,
    /// Tracks one over the other in the corridor above each layer.
    pub(super) corridors: Vec<usize>,
}

/// All edges from one step to steps of other groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Net {
    pub(super) from: StepId,
    pub(super) to: Vec<StepId>,
    /// The track in each gutter that it uses.
    pub(super) gutters: BTreeMap<usize, usize>,
    /// The track in each corridor that it uses.
    pub(super) corridors: BTreeMap<usize, usize>,
}

/// Lays out the groups of a plan.
pub(super) fn layout(plan: &Plan, groups: &[Group]) -> Layout {
    let home: BTreeMap<StepId, usize> =
        groups.iter().enumerate().flat_map(|(g, group)| group.steps.iter().map(move |id| (*id, g))).collect();
    let mut edges: Vec<(StepId, StepId)> = Vec::new();
    for step in &plan.steps {
        for from in super::needs(&step.op) {
            let local = plan.steps.get(from.0).is_some_and(|from| matches!(from.op, Op::Local(_)));
            if !local && home.contains_key(&from) && home.get(&from) != home.get(&step.id) {
                edges.push((from, step.id));
            }
        }
    }
    let group_edges: Vec<(usize, usize)> =
        edges.iter().filter_map(|(from, to)| Some((*home.get(from)?, *home.get(to)?))).collect();
    let cells = place(groups.len(), &group_edges);
    let layers = cells.iter().map(|(layer, _)| layer + 1).max().unwrap_or_default();
    let columns = cells.iter().map(|(_, column)| column + 1).max().unwrap_or_default();
    let mut layout =
        Layout { cells, layers, columns, nets: Vec::new(), gutters: vec![0; columns + 1], corridors: vec![0; layers] };
    for (from, to) in edges {
        match layout.nets.iter_mut().find(|net| net.from == from) {
            Some(net) => net.to.push(to),
            None => {
                let (gutters, corridors) = (BTreeMap::new(), BTreeMap::new());
                layout.nets.push(Net { from, to: vec![to], gutters, corridors });
            }
        }
    }
    layout.route(&home);
    layout
}

/// Layer and column of each group. A group stands below all that it takes from; of edges against the order of groups
/// (steps that two stages share can make some) none counts.
fn place(count: usize, edges: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut depth = vec![0; count];
    for to in 0..count {
        let above = edges.iter().filter(|(from, t)| *t == to && *from < to).filter_map(|(from, _)| depth.get(*from));
        if let Some(below) = above.max().map(|deepest| deepest + 1) {
            depth[to] = below;
        }
    }
    let mut cells = vec![(0, 0); count];
    let mut layer = 0;
    for wanted in 0..=depth.iter().copied().max().unwrap_or_default() {
        let mut row: Vec<(f64, usize)> = Vec::new();
        for group in (0..count).filter(|group| depth.get(*group) == Some(&wanted)) {
            let above: Vec<f64> = edges
                .iter()
                .filter(|(from, to)| *to == group && *from < group)
                .filter_map(|(from, _)| cells.get(*from).map(|(_, column): &(usize, usize)| *column as f64))
                .collect();
            let middle = above.iter().sum::<f64>() / above.len().max(1) as f64;
            row.push((if above.is_empty() { group as f64 } else { middle }, group));
        }
        row.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for part in row.chunks(MAX_COLUMNS) {
            let mut next = 0;
            for (at, (wish, group)) in part.iter().enumerate() {
                // As near to what it takes from as its neighbours leave room.
                let last = MAX_COLUMNS - (part.len() - at);
                let column = (wish.round() as usize).clamp(next.min(last), last);
                next = column + 1;
                if let Some(cell) = cells.get_mut(*group) {
                    *cell = (layer, column);
                }
            }
            layer += 1;
        }
    }
    // Columns that nothing stands in are left out.
    let mut used: Vec<usize> = cells.iter().map(|(_, column)| *column).collect();
    used.sort_unstable();
    used.dedup();
    for (_, column) in &mut cells {
        *column = used.iter().position(|c| c == column).unwrap_or_default();
    }
    cells
}

/// Stretches of tracks that are taken: by track, from where to where.
type Taken = BTreeMap<usize, Vec<(usize, usize, usize)>>;

/// The lowest track on which nothing overlaps this stretch.
fn free_track(taken: &mut Taken, at: usize, from: usize, to: usize) -> usize {
    let all = taken.entry(at).or_default();
    let clash = |track: usize| all.iter().any(|(t, a, b)| *t == track && *a <= to && from <= *b);
    let track = (0..).find(|track| !clash(*track)).unwrap_or_default();
    all.push((track, from, to));
    track
}

impl Layout {
    /// The gutter that a net goes down in, and the one in which it comes to a cell.
    pub(super) fn gutters_of(from: (usize, usize), to: (usize, usize)) -> (usize, usize) {
        (from.1 + 1, to.1)
    }

    fn route(&mut self, home: &BTreeMap<StepId, usize>) {
        let (mut in_gutters, mut in_corridors) = (Taken::new(), Taken::new());
        let cell_of = |id: &StepId, cells: &[(usize, usize)]| home.get(id).and_then(|g| cells.get(*g)).copied();
        let mut nets = std::mem::take(&mut self.nets);
        for net in &mut nets {
            let Some(from) = cell_of(&net.from, &self.cells) else { continue };
            // From where to where it goes in each gutter, in layers, and in each corridor, in gutters.
            let mut down: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
            let mut across: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
            let widen = |all: &mut BTreeMap<usize, (usize, usize)>, at: usize, a: usize, b: usize| {
                let known = all.entry(at).or_insert((a.min(b), a.max(b)));
                *known = (known.0.min(a).min(b), known.1.max(a).max(b));
            };
            for to in net.to.iter().filter_map(|to| cell_of(to, &self.cells)) {
                let (out, arrive) = Self::gutters_of(from, to);
                // Twice the layer is its corridor, one more its boxes.
                let (leave, corridor, end) = (2 * from.0 + 1, 2 * to.0, 2 * to.0 + 1);
                if out == arrive {
                    widen(&mut down, out, leave, end);
                } else {
                    widen(&mut down, out, leave, corridor);
                    widen(&mut across, to.0, out, arrive);
                    widen(&mut down, arrive, corridor, end);
                }
            }
            net.gutters = down.into_iter().map(|(g, (a, b))| (g, free_track(&mut in_gutters, g, a, b))).collect();
            net.corridors = across.into_iter().map(|(c, (a, b))| (c, free_track(&mut in_corridors, c, a, b))).collect();
            for (gutter, track) in &net.gutters {
                if let Some(count) = self.gutters.get_mut(*gutter) {
                    *count = (*count).max(track + 1);
                }
            }
            for (corridor, track) in &net.corridors {
                if let Some(count) = self.corridors.get_mut(*corridor) {
                    *count = (*count).max(track + 1);
                }
            }
        }
        self.nets = nets;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stand_below_what_they_take_from() {
        // A diamond, and a loner.
        assert_eq!(place(5, &[(0, 1), (0, 2), (1, 3), (2, 3)]), [(0, 0), (1, 0), (1, 1), (2, 1), (0, 2)]);
        // An edge against the order does not count.
        assert_eq!(place(2, &[(0, 1), (1, 0)]), [(0, 0), (1, 0)]);
        // More than fit side by side.
        let wide = place(6, &[]);
        assert_eq!(wide.iter().map(|(layer, _)| *layer).collect::<Vec<_>>(), [0, 0, 0, 0, 1, 1]);
        assert!(place(0, &[]).is_empty());
    }

    #[test]
    fn what_overlaps_gets_tracks_of_its_own() {
        let mut taken = Taken::new();
        let mut track = |from, to| free_track(&mut taken, 0, from, to);
        assert_eq!([track(0, 3), track(2, 4), track(4, 5), track(5, 9)], [0, 1, 0, 1]);
    }
}
