//! Random edits of a project.

use crate::{
    context::Entry,
    files,
    generate::Source,
    project::{DIRS, Poke, Project, Step},
    rng::Rng,
};

/// How many variants of a base image there are.
pub const BASES: usize = 6;

/// States that can be gone back to.
const REMEMBERED: usize = 12;

/// An edit that was made.
#[derive(Debug, Clone)]
pub struct Edit {
    /// For a person.
    pub what: String,
    /// The entry of the catalogue that it was aimed at.
    pub aimed_at: Option<&'static str>,
}

/// Edits one project, and remembers how it was.
#[derive(Debug)]
pub struct Editor {
    source: Source,
    past: Vec<Project>,
    good: Option<Project>,
    /// Edits that were aimed at steps: these take turns.
    aimed: usize,
}

impl Editor {
    /// For the project that was made from this source.
    pub fn new(source: Source) -> Self {
        Self { source, past: Vec::new(), good: None, aimed: 0 }
    }

    /// Edits once or twice. `failed`: the project as it is does not build; it is mostly repaired then, since a build
    /// that fails shows little.
    pub fn edit(&mut self, project: &mut Project, failed: bool) -> Vec<Edit> {
        let before = project.clone();
        if !failed {
            self.good = Some(before.clone());
        } else if self.source.rng.percent(75)
            && let Some(good) = &self.good
            && good != project
        {
            *project = good.clone();
            return vec![Edit { what: "back to what built last".into(), aimed_at: None }];
        }
        let count = 1 + usize::from(self.source.rng.percent(20));
        let mut made = Vec::new();
        // Not every edit fits every state: others are tried.
        for _ in 0..200 {
            if made.len() >= count {
                break;
            }
            let state = project.clone();
            made.extend(self.one(project).filter(|_| *project != state));
        }
        if self.past.len() >= REMEMBERED {
            self.past.remove(0);
        }
        self.past.push(before);
        made
    }

    fn one(&mut self, project: &mut Project) -> Option<Edit> {
        let plain = |what: String| Some(Edit { what, aimed_at: None });
        match self.source.rng.below(100) {
            0..55 => self.aimed(project),
            55..73 => anywhere(&mut self.source.rng, project).and_then(plain),
            73..86 => self.dockerfile(project).and_then(plain),
            86..90 => {
                let path = some(&mut self.source.rng, &project.context.files())?;
                touch(project, &path);
                plain(format!("touch {path}"))
            }
            _ => {
                *project = self.source.rng.pick(&self.past)?.clone();
                plain("back to an earlier state".into())
            }
        }
    }

    /// What some step of the project must notice.
    fn aimed(&mut self, project: &mut Project) -> Option<Edit> {
        let mut names: Vec<&'static str> = project.steps().filter(|s| !s.pokes.is_empty()).map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        let name = *names.get(self.aimed % names.len().max(1))?;
        self.aimed += 1;
        let pokes: Vec<Poke> =
            project.steps().filter(|s| s.name == name).flat_map(|s| s.pokes.iter().cloned()).collect();
        let poke = self.source.rng.pick(&pokes)?;
        let what = apply(&mut self.source.rng, project, poke)?;
        Some(Edit { what, aimed_at: Some(name) })
    }

    fn dockerfile(&mut self, project: &mut Project) -> Option<String> {
        let stage = self.source.rng.below(project.stages.len());
        let names: Vec<String> = project.stages.iter().take(stage).map(|s| s.name.clone()).collect();
        match self.source.rng.below(10) {
            0 | 1 => {
                let way = *self.source.rng.pick(&self.source.ways.clone())?;
                let new = self.source.draw(way, &mut project.context, names);
                let stage = project.stages.get_mut(stage)?;
                let mut at = self.source.rng.below(stage.steps.len() + 1);
                for step in new {
                    stage.steps.insert(at, step);
                    at += 1 + self.source.rng.below(stage.steps.len() - at);
                }
                Some(format!("new steps {} in stage {}", way.name, stage.name))
            }
            2 => {
                let stage = project.stages.get_mut(stage)?;
                let at = removable(&mut self.source.rng, &stage.steps)?;
                let step = stage.steps.remove(at);
                Some(format!("without a step {} in stage {}", step.name, stage.name))
            }
            3 | 4 => {
                let stage = project.stages.get_mut(stage)?;
                let step = stage.steps.remove(removable(&mut self.source.rng, &stage.steps)?);
                let to = self.source.rng.below(stage.steps.len() + 1);
                let name = step.name;
                stage.steps.insert(to, step);
                Some(format!("a step {name} moves in stage {}", stage.name))
            }
            5 => {
                let lines = ["b/x/h1.txt", "**/extra1.txt", "data/sub/w*", "a/deep/g[0-3].txt", "!a/deep/g1.txt"];
                let line = self.source.rng.word(&lines);
                match project.ignored.iter().position(|l| *l == line) {
                    Some(at) => drop(project.ignored.remove(at)),
                    None => project.ignored.push(line.clone()),
                }
                Some(format!(".dockerignore: {line}"))
            }
            6 => {
                let value = format!("value{}", self.source.rng.below(4));
                project.args = vec![("COMMON".into(), value.clone())];
                Some(format!("--build-arg COMMON={value}"))
            }
            _ => {
                let n = self.source.rng.below(3);
                let places: Vec<(usize, usize, usize)> = (project.stages.iter().enumerate())
                    .flat_map(|(s, stage)| stage.steps.iter().enumerate().map(move |(i, step)| (s, i, step)))
                    .flat_map(|(s, i, step)| (0..step.lines.len()).map(move |l| (s, i, l, step)))
                    .filter(|(_, _, l, step)| step.lines.get(*l).is_some_and(|line| line.contains("value")))
                    .map(|(s, i, l, _)| (s, i, l))
                    .collect();
                let (s, i, l) = *self.source.rng.pick(&places)?;
                let line = project.stages.get_mut(s)?.steps.get_mut(i)?.lines.get_mut(l)?;
                let at = line.find("value")? + "value".len();
                line.replace_range(at..=at, &n.to_string());
                Some(line.clone())
            }
        }
    }
}

/// The steps that gather other stages stay where they are.
fn removable(rng: &mut Rng, steps: &[Step]) -> Option<usize> {
    let places: Vec<usize> = steps.iter().enumerate().filter(|(_, s)| s.name != "gather").map(|(i, _)| i).collect();
    rng.pick(&places).copied()
}

fn some(rng: &mut Rng, of: &[&str]) -> Option<String> {
    rng.pick(of).map(|p| (*p).to_owned())
}

/// Any edit of the context, wherever.
fn anywhere(rng: &mut Rng, project: &mut Project) -> Option<String> {
    let context = &project.context;
    let file = some(rng, &context.files())?;
    // The top directories are named by COPY.
    let dirs: Vec<&str> = context.dirs().into_iter().filter(|d| !DIRS.contains(d)).collect();
    let dir = some(rng, &dirs)?;
    let link = some(rng, &context.paths(|e| matches!(e, Entry::Link(_))));
    let poke = match rng.below(10) {
        0 | 1 => Poke::Content(file),
        2 => Poke::Exist(file),
        3 => Poke::Member(some(rng, &context.dirs())?),
        4 => Poke::Mode(if rng.percent(50) { file } else { dir }),
        5 => Poke::Target(link?),
        6 => Poke::Kind(if rng.percent(50) { file } else { dir }),
        7 => {
            let from = if rng.percent(60) { file } else { dir };
            let to = format!("{}.other", from);
            return project.context.rename(&from, &to).then(|| format!("{from} is now {to}"));
        }
        8 => {
            let to = format!("{}/{}", some(rng, &context.dirs())?, file.rsplit('/').next().unwrap_or("x"));
            return project.context.rename(&file, &to).then(|| format!("{file} is now {to}"));
        }
        _ => Poke::Base,
    };
    apply(rng, project, &poke)
}

fn touch(project: &mut Project, path: &str) {
    if let Some(Entry::File { content, mode, touched }) = project.context.get(path).cloned() {
        project.context.put(path, Entry::File { content, mode, touched: touched + 1 });
    }
}

/// Makes an edit; `None`: it does not fit.
fn apply(rng: &mut Rng, project: &mut Project, poke: &Poke) -> Option<String> {
    let context = &mut project.context;
    let entry = |path: &String| context.get(path).cloned();
    match poke {
        Poke::Content(path) => match entry(path) {
            Some(Entry::File { content, mode, touched }) => {
                let new = if rng.percent(35) && !path.ends_with(".tar") {
                    files::one_letter(rng, &content)
                } else {
                    files::content(rng, path)
                };
                if new == content {
                    return None;
                }
                context.put(path, Entry::File { content: new, mode, touched });
                Some(format!("{path} holds something else"))
            }
            None => {
                let new = Entry::file(files::content(rng, path));
                context.put(path, new).then(|| format!("{path} is new"))
            }
            _ => None,
        },
        Poke::Exist(path) => {
            if context.get(path).is_some() {
                context.remove(path);
                Some(format!("{path} is gone"))
            } else {
                let mode = if path.contains(".sh") || path.ends_with("tool") { 0o755 } else { 0o644 };
                let new = Entry::File { content: files::content(rng, path), mode, touched: 0 };
                context.put(path, new).then(|| format!("{path} is new"))
            }
        }
        Poke::Member(dir) => {
            let path = format!("{dir}/new{}.txt", rng.below(3));
            apply(rng, project, &Poke::Exist(path))
        }
        Poke::Mode(path) => match entry(path)? {
            Entry::File { content, mode, touched } => {
                let new = *rng.pick(&[0o644, 0o755, 0o600, 0o640])?;
                context.put(path, Entry::File { content, mode: new, touched });
                (new != mode).then(|| format!("{path} has mode {new:o}"))
            }
            Entry::Dir { mode } => {
                let new = *rng.pick(&[0o755, 0o700, 0o750, 0o711])?;
                context.put(path, Entry::Dir { mode: new });
                (new != mode).then(|| format!("{path} has mode {new:o}"))
            }
            Entry::Link(_) => None,
        },
        Poke::Target(path) => {
            let target =
                rng.word(&["f0.txt", "f1.txt", "s1.sh", "sub", "deep", "nowhere", "../b/f1.txt", "../a", "../b/x"]);
            match entry(path) {
                Some(Entry::Link(old)) if old == target => None,
                Some(Entry::Dir { .. } | Entry::File { .. }) if rng.percent(70) => None,
                _ => context.put(path, Entry::Link(target.clone())).then(|| format!("{path} points to {target}")),
            }
        }
        Poke::Kind(path) => {
            let choice = rng.below(2);
            let (new, what) = match (entry(path), choice) {
                (Some(Entry::Dir { .. }), 0) | (Some(Entry::Link(_)), 0) | (None, 0) => {
                    (Entry::file(files::content(rng, path)), "a file")
                }
                (Some(Entry::File { .. }), 0) | (Some(Entry::Link(_)), _) | (None, _) => {
                    (Entry::Dir { mode: 0o755 }, "a directory")
                }
                (Some(Entry::Dir { .. } | Entry::File { .. }), _) => (Entry::Link("../a/f2.txt".into()), "a link"),
            };
            context.put(path, new).then(|| format!("{path} is now {what}"))
        }
        Poke::Knob(path, values) => {
            let old = entry(path);
            let is_old = |value: &str| matches!(&old, Some(Entry::File { content, .. }) if content == value.as_bytes());
            let others: Vec<&str> = values.iter().copied().filter(|value| !is_old(value)).collect();
            let value = *rng.pick(&others)?;
            context.put(path, Entry::file(value)).then(|| format!("{path} holds {value:?}"))
        }
        Poke::Base => {
            let new = rng.below(BASES);
            let old = std::mem::replace(&mut project.base, new);
            (old != new).then(|| format!("base image {new}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generate,
        project::{Features, Flavor},
    };

    #[test]
    fn edits_are_the_same_for_the_same_seed_and_change_something() {
        let features = Features { users: true, probe: true, uring: true, blocks: true };
        let run = |seed| {
            let mut source = Source::new(seed, Flavor::Small, features);
            let mut project = generate::project(&mut source, seed, Flavor::Small);
            let mut editor = Editor::new(source);
            let mut told = Vec::new();
            for _ in 0..50 {
                let before = project.clone();
                let edits = editor.edit(&mut project, false);
                assert!(!edits.is_empty() && (project != before || edits.len() > 1), "{edits:?}");
                told.extend(edits.into_iter().map(|e| e.what));
            }
            told
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }
}
