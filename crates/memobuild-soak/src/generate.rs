//! A random project from a seed: some 80 files in 13 directories, two or three stages, eight steps or more.

use std::collections::VecDeque;

use crate::{
    catalogue::{self, Draw, Need, Way},
    context::{Context, Entry},
    files,
    project::{Features, Flavor, From, Project, Stage, Step},
    rng::Rng,
};

/// Draws from the catalogue for a project.
const DRAWS: usize = 11;

/// Of so many projects, the last is on the full base image.
const FULL_EVERY: u64 = 5;

/// Which base images the project of a seed takes, where both can be made.
pub fn flavor(seed: u64) -> Flavor {
    if seed % FULL_EVERY == FULL_EVERY - 1 { Flavor::Full } else { Flavor::Small }
}

/// What a project is made of and goes on to be edited with.
#[derive(Debug)]
pub struct Source {
    /// Where all choices come from.
    pub rng: Rng,
    /// What of the catalogue can be used.
    pub ways: Vec<Way>,
    /// Numbers that were used for names.
    pub next: u32,
}

impl Source {
    /// The source of this seed.
    pub fn new(seed: u64, flavor: Flavor, features: Features) -> Self {
        let ways = catalogue::all().into_iter().filter(|w| w.fits(flavor, features)).collect();
        Self { rng: Rng::new(seed), ways, next: 0 }
    }

    /// Steps of an entry.
    pub fn draw(&mut self, way: Way, context: &mut Context, stages: Vec<String>) -> Vec<Step> {
        way.draw(&mut Draw::new(&mut self.rng, context, &mut self.next, stages))
    }
}

/// The project of this seed. Projects of neighbouring seeds go through the catalogue in turn, so that a few of them
/// have every entry.
pub fn project(source: &mut Source, seed: u64, flavor: Flavor) -> Project {
    let mut context = skeleton(&mut source.rng);
    let count = 2 + usize::from(source.rng.percent(25));
    let mut order = source.ways.clone();
    // The order in which they take turns is the same for all seeds.
    Rng::new(order.len() as u64).shuffle(&mut order);
    // What needs the full base has a turn only there, and comes first.
    order.sort_by_key(|way| way.need != Need::Full);
    let turn = if flavor == Flavor::Full { seed / FULL_EVERY } else { seed - seed / FULL_EVERY };
    let first = (turn as usize).wrapping_mul(DRAWS) % order.len().max(1);
    let drawn: Vec<Way> = order.iter().cycle().skip(first).take(DRAWS.min(order.len())).copied().collect();
    let mut stages: Vec<Stage> = Vec::new();
    for (number, name) in ["one", "two", "three"].into_iter().take(count).enumerate() {
        let before: Vec<String> = stages.iter().map(|s| s.name.clone()).collect();
        let mine = drawn.iter().skip(number).step_by(count);
        let groups: Vec<Vec<Step>> = mine.map(|way| source.draw(*way, &mut context, before.clone())).collect();
        let from = if number > 0 && source.rng.percent(35) { From::Stage(number - 1) } else { From::Base };
        let whole = source.rng.percent(50);
        stages.push(Stage { name: name.into(), from, whole, steps: merge(&mut source.rng, groups) });
    }
    let gathered: Vec<Step> = stages.iter().rev().skip(1).map(|s| gather(&s.name)).collect();
    if let Some(last) = stages.last_mut() {
        last.steps.extend(gathered);
    }
    Project { flavor, base: 0, context, ignored: vec!["*.md".into()], args: Vec::new(), stages }
}

/// Brings what another stage made into the image that is compared.
fn gather(stage: &str) -> Step {
    let copy = |dir: &&str| format!("COPY --from={stage} /{dir} /got/{stage}/{dir}");
    Step { name: "gather", lines: ["out", "w", "src", "etc"].iter().map(copy).collect(), pokes: Vec::new() }
}

/// One sequence in which the steps of each group keep their order.
fn merge(rng: &mut Rng, groups: Vec<Vec<Step>>) -> Vec<Step> {
    let mut groups: Vec<VecDeque<Step>> = groups.into_iter().map(VecDeque::from).collect();
    let mut out = Vec::new();
    while !groups.is_empty() {
        let i = rng.below(groups.len());
        match groups.get_mut(i).and_then(VecDeque::pop_front) {
            Some(step) => out.push(step),
            None => drop(groups.swap_remove(i)),
        }
    }
    out
}

fn skeleton(rng: &mut Rng) -> Context {
    let mut context = Context::default();
    let mut file = |path: String, mode: u32| {
        let content = files::content(rng, &path);
        context.put(&path, Entry::File { content, mode, touched: 0 });
    };
    for (dir, name, count, extension, mode) in [
        ("a", "f", 12, "txt", 0o644),
        ("a/deep", "g", 8, "txt", 0o644),
        ("b", "f", 12, "txt", 0o644),
        ("b/x", "h", 6, "txt", 0o644),
        ("data", "v", 8, "dat", 0o644),
        ("data/sub", "w", 6, "dat", 0o644),
        ("lib", "s", 6, "sh", 0o755),
        ("py", "mod", 4, "py", 0o644),
        ("conf", "c", 6, "txt", 0o644),
    ] {
        for i in 0..count {
            file(format!("{dir}/{name}{i}.{extension}"), mode);
        }
    }
    for path in ["c/main.c", "c/util.c", "c/util.h", "c/inc2/conf.h", "data/pack.tar", "README.md"] {
        file(path.into(), 0o644);
    }
    context.put("c/notes", Entry::file("notes\n"));
    for dir in ["c/inc1", "data/empty"] {
        context.put(dir, Entry::Dir { mode: 0o755 });
    }
    for (path, target) in [
        ("a/l0", "f0.txt"),
        ("a/l1", "../b/f1.txt"),
        ("b/up", "../a"),
        ("data/dang", "nowhere"),
        ("data/dirl", "sub"),
        ("lib/cur", "s0.sh"),
    ] {
        context.put(path, Entry::Link(target.into()));
    }
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEATURES: Features = Features { users: true, probe: true, uring: true, blocks: true };

    #[test]
    fn projects_are_large_enough_and_the_same_for_the_same_seed() {
        for seed in 0..40 {
            let make = || project(&mut Source::new(seed, Flavor::Full, FEATURES), seed, Flavor::Full);
            let project = make();
            assert_eq!(project, make());
            assert!(project.context.files().len() >= 60 && project.context.dirs().len() >= 6);
            assert!(project.stages.len() >= 2 && project.steps().count() >= 8);
        }
    }

    #[test]
    fn a_few_seeds_have_every_entry() {
        let mut lacking: Vec<&str> = catalogue::all().iter().map(|w| w.name).collect();
        for seed in 1..13 {
            let flavor = flavor(seed);
            let project = project(&mut Source::new(seed, flavor, FEATURES), seed, flavor);
            lacking.retain(|name| project.steps().all(|s| s.name != *name));
        }
        assert!(lacking.is_empty(), "{lacking:?}");
    }
}
