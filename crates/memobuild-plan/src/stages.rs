//! The stages of one file for one platform, before anything is dispatched: names, bases, platforms, dependencies.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use memobuild_dockerfile::Span;
use memobuild_dockerfile::ast::{self, Instruction, Kind};
use memobuild_dockerfile::lint::Finding;
use memobuild_dockerfile::words::{Env, Lexer};
use memobuild_image::Platform;

use crate::contexts::Found;
use crate::error::{Failure, PlanErrorKind};
use crate::model::ContextSource;
use crate::pass::Pass;
use crate::reference::ImageName;
use crate::state::{Start, State};

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// Another stage's end.
    Stage(usize),
    /// Nothing.
    Scratch,
    /// An image, by its expanded name.
    Image,
    /// A named context in place of an image.
    Context(Found),
}

/// An instruction with the stages that it reads.
#[derive(Debug, Clone)]
pub(crate) struct Command<'f> {
    pub(crate) instruction: Cow<'f, Instruction>,
    /// For COPY at most one, for RUN one for each mount.
    pub(crate) sources: Vec<Option<usize>>,
    /// It is a trigger of the base; its spans are of no use.
    pub(crate) onbuild: bool,
    /// Where to point at: the instruction, or the FROM that triggered it.
    pub(crate) span: Span,
}

impl Command<'_> {
    /// The place of a word in it.
    pub(crate) fn place(&self, word: Span) -> Span {
        if self.onbuild { self.span } else { word }
    }
}

/// A stage of the file, or an image or context that COPY or a mount names.
#[derive(Debug)]
pub(crate) struct Stage<'f> {
    /// Its base's name, expanded.
    pub(crate) base_name: String,
    pub(crate) base: Base,
    /// The name in the file.
    pub(crate) name: Option<String>,
    /// Name, or number as text.
    pub(crate) id: String,
    /// Name in labels: `stage-0` without one, and nothing if the file has one stage only.
    pub(crate) label: String,
    /// `FROM --platform`.
    pub(crate) platform: Option<Platform>,
    /// The FROM, or the instruction that names it.
    pub(crate) span: Span,
    /// What to run; empty if a named context replaces the stage.
    pub(crate) commands: Vec<Command<'f>>,
    pub(crate) comments: &'f [String],
    pub(crate) ignore_cache: bool,
    /// Whether it stands in the file.
    pub(crate) written: bool,
    /// Triggers of the base were looked for.
    pub(crate) triggered: bool,
    /// The base, once it is known.
    pub(crate) start: Option<Start>,
    /// The end, once its instructions are dispatched.
    pub(crate) end: Option<State>,
}

/// Names to stages: the last one of a name wins.
pub(crate) type Names = HashMap<String, usize>;

impl<'f> Pass<'f> {
    /// Reads all FROMs, in order.
    pub(crate) fn read_stages(&mut self) -> Result<(), Failure> {
        self.check_default_bases();
        let file = self.file;
        for (index, stage) in file.stages.iter().enumerate() {
            self.checks.enter(&stage.origin.comments);
            let read = self.read_stage(index, stage)?;
            if let Some(name) = &read.name {
                self.names.insert(name.to_lowercase(), index);
            }
            self.stages.push(read);
        }
        if let [only] = self.stages.as_mut_slice() {
            only.label.clear();
        }
        Ok(())
    }

    fn read_stage(&mut self, index: usize, stage: &'f ast::Stage) -> Result<Stage<'f>, Failure> {
        let span = stage.origin.span;
        let lexer = Lexer::new(self.file.directives.escape);
        let base = lexer.expand(&stage.base, &self.globals.env).map_err(|e| Failure::expand(stage.base.span, &e))?;
        self.checks.undefined_in_from(span, &base.unmatched, &self.globals.declared);
        if base.text.is_empty() {
            let failure =
                Failure::new(stage.base.span, format!("base name ({}) should not be blank", stage.base.as_str()))
                    .expected("a stage, an image or scratch");
            return Err(self.suggest_arg(failure, &base.unmatched));
        }
        let platform = match &stage.platform {
            Some(word) if !word.is_empty() => Some(self.read_platform(stage, word)?),
            _ => None,
        };
        let name = stage.name.as_ref().map(|name| name.text.clone());
        let wanted = platform.clone().unwrap_or_else(|| self.target_platform.clone());
        let replaced = name.as_deref().and_then(|name| self.contexts.find(name, &wanted));
        let is_replaced = replaced.is_some();
        let base_of = match replaced {
            Some(found) => self.context_base(found, span)?,
            None => match self.names.get(base.text.as_str()) {
                Some(&earlier) => Base::Stage(earlier),
                None if base.text == "scratch" => Base::Scratch,
                None => match self.contexts.find(&base.text, &wanted) {
                    Some(found) => self.context_base(found, span)?,
                    None => Base::Image,
                },
            },
        };
        let instructions: &'f [Instruction] = if is_replaced { &[] } else { &stage.instructions };
        let commands = instructions
            .iter()
            .map(|instruction| Command {
                instruction: Cow::Borrowed(instruction),
                sources: Vec::new(),
                onbuild: false,
                span: instruction.origin.span,
            })
            .collect();
        let filter = |wanted: &String| wanted.eq_ignore_ascii_case(name.as_deref().unwrap_or_default());
        Ok(Stage {
            base_name: base.text,
            base: base_of,
            id: name.clone().unwrap_or_else(|| index.to_string()),
            label: name.clone().unwrap_or_else(|| format!("stage-{index}")),
            ignore_cache: self.options.no_cache || self.options.no_cache_filter.iter().any(filter),
            name,
            platform,
            span,
            commands,
            comments: &stage.origin.comments,
            written: true,
            // An image in place of the whole stage is taken as it is.
            triggered: is_replaced,
            start: None,
            end: None,
        })
    }

    fn read_platform(&mut self, stage: &ast::Stage, word: &ast::Word) -> Result<Platform, Failure> {
        let span = stage.origin.span;
        let lexer = Lexer::new(self.file.directives.escape);
        let value = lexer.expand(word, &self.globals.env).map_err(|e| {
            Failure::new(word.span, format!("failed to process arguments for platform {}: {e}", word.as_str()))
        })?;
        self.checks.undefined_in_from(span, &value.unmatched, &self.globals.declared);
        let is_target = self.globals.env.value("TARGETPLATFORM") == Some(value.text.as_str());
        self.checks.redundant_platform(span, word, &value.matched, &value.unmatched, is_target);
        if value.text.is_empty() {
            let failure = Failure::new(word.span, format!("empty platform value from expression {}", word.as_str()))
                .expected("a platform such as linux/amd64");
            return Err(self.suggest_arg(failure, &value.unmatched));
        }
        let platform: Platform = match value.text.parse() {
            Ok(platform) => platform,
            Err(error) => {
                let failure = Failure::new(word.span, format!("failed to parse platform {}: {error}", word.as_str()));
                return Err(self.suggest_arg(failure, &value.unmatched));
            }
        };
        if value.matched.is_empty() && value.unmatched.is_empty() {
            let name = stage.name.as_ref().map_or("", |name| name.as_str());
            self.checks.constant_platform(span, name, &value.text, &platform);
        }
        Ok(platform)
    }

    /// A name near one of the variables that were not there.
    fn suggest_arg(&self, failure: Failure, unmatched: &BTreeSet<String>) -> Failure {
        let names = self.globals.env.names();
        unmatched.iter().fold(failure, |failure, name| failure.suggest(name, names.iter().map(String::as_str)))
    }

    /// What a named context means as a base.
    pub(crate) fn context_base(&self, found: Found, span: Span) -> Result<Base, Failure> {
        match &found.source {
            ContextSource::Target(stage) => {
                let index = self.names.get(&stage.to_lowercase()).copied().ok_or_else(|| {
                    Failure::new(span, format!("context {:?} is target:{stage}, which is no earlier stage", found.name))
                        .kind(PlanErrorKind::Request)
                        .suggest(stage, self.names.keys().map(String::as_str))
                })?;
                Ok(Base::Stage(index))
            }
            ContextSource::Image(name) if name == "scratch" => Ok(Base::Scratch),
            _ => Ok(Base::Context(found)),
        }
    }

    /// Whether each FROM is a possible name when no build arg is given.
    fn check_default_bases(&mut self) {
        let file = self.file;
        let Some(env) = self.default_globals() else {
            return;
        };
        let lexer = Lexer::new(file.directives.escape);
        for stage in &file.stages {
            let Ok(base) = lexer.expand(&stage.base, &env) else {
                return;
            };
            if ImageName::parse(&base.text).is_err() {
                self.checks.enter(&[]);
                self.checks.report(Finding::invalid_default_arg_in_from(stage.origin.span, &stage.base));
            }
        }
    }

    /// The stage to build.
    pub(crate) fn find_target(&self) -> Result<usize, Failure> {
        let Some(wanted) = &self.options.target else {
            return Ok(self.stages.len() - 1);
        };
        self.names.get(&wanted.to_lowercase()).copied().ok_or_else(|| {
            let names: Vec<&str> = self.stages.iter().map(|stage| stage.id.as_str()).collect();
            Failure::new(None, format!("target stage {wanted:?} could not be found"))
                .kind(PlanErrorKind::Request)
                .expected(format!("one of {}", names.join(", ")))
                .suggest(wanted, names.iter().copied())
        })
    }

    /// Finds the stages and images that instructions read.
    pub(crate) fn link_stages(&mut self) -> Result<(), Failure> {
        for index in 0..self.stages.len() {
            let mut commands = std::mem::take(&mut self.stages[index].commands);
            for command in &mut commands {
                self.link(command)?;
            }
            self.stages[index].commands = commands;
        }
        self.check_circles()
    }

    /// Fills in what a command reads; names that are no stage become images.
    pub(crate) fn link(&mut self, command: &mut Command<'f>) -> Result<(), Failure> {
        let mut sources = Vec::new();
        match &command.instruction.kind {
            Kind::Copy(ast::Copy { from: Some(from), .. }) if !from.is_empty() => {
                let span = command.place(from.span);
                self.check_no_variable(from, span)?;
                let index = match from.parse::<i64>() {
                    Ok(number) => self.stage_number(number, span)?,
                    Err(_) => self.stage_or_image(from, span)?,
                };
                sources.push(Some(index));
            }
            Kind::Run(run) => {
                for mount in &run.mounts {
                    let span = command.place(mount.value.span);
                    sources.push(match mount.from() {
                        Some(from) if !from.is_empty() => Some(self.stage_or_image(from, span)?),
                        _ => None,
                    });
                }
            }
            _ => {}
        }
        command.sources = sources;
        Ok(())
    }

    fn check_no_variable(&self, from: &str, span: Span) -> Result<(), Failure> {
        let lexer = Lexer::new(self.file.directives.escape);
        let expanded = lexer.expand(from, &crate::args::EnvList::default()).map_err(|e| Failure::expand(span, &e))?;
        if expanded.text == from {
            return Ok(());
        }
        Err(Failure::new(
            span,
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope \
             as a workaround",
        ))
    }

    fn stage_number(&self, number: i64, span: Span) -> Result<usize, Failure> {
        let written = self.stages.iter().filter(|stage| stage.written).count();
        usize::try_from(number).ok().filter(|&n| n < written).ok_or_else(|| {
            Failure::new(span, format!("invalid stage index {number}"))
                .expected(format!("a stage's name, or a number from 0 to {}", written.saturating_sub(1)))
        })
    }

    fn stage_or_image(&mut self, name: &str, span: Span) -> Result<usize, Failure> {
        if let Some(&index) = self.names.get(&name.to_lowercase()) {
            return Ok(index);
        }
        if let Some(index) = self.stages.iter().position(|stage| !stage.written && stage.base_name == name) {
            return Ok(index);
        }
        let base = match self.contexts.find(name, &self.target_platform) {
            Some(found) => match self.context_base(found, span)? {
                Base::Stage(index) => return Ok(index),
                base => base,
            },
            None if name == "scratch" => Base::Scratch,
            None => Base::Image,
        };
        self.stages.push(Stage {
            base_name: name.to_owned(),
            base,
            name: None,
            id: name.to_owned(),
            label: String::new(),
            platform: None,
            span,
            commands: Vec::new(),
            comments: &[],
            ignore_cache: false,
            written: false,
            triggered: true,
            start: None,
            end: None,
        });
        Ok(self.stages.len() - 1)
    }

    /// Stages that read each other in a circle.
    fn check_circles(&self) -> Result<(), Failure> {
        let mut done = vec![false; self.stages.len()];
        for first in 0..self.stages.len() {
            // A path from `first`: each stage with its sources not yet followed.
            let mut path = vec![(first, self.sources_of(first))];
            while let Some((stage, sources)) = path.last_mut() {
                let Some((next, span)) = sources.pop() else {
                    done[*stage] = true;
                    path.pop();
                    continue;
                };
                if path.iter().any(|(on_path, _)| *on_path == next) {
                    let names: Vec<&str> = path.iter().map(|(stage, _)| self.stages[*stage].id.as_str()).collect();
                    let circle = format!("circular dependency detected on stage: {}", self.stages[next].id);
                    return Err(Failure::new(span, circle).hint(format!(
                        "the circle is {} -> {}",
                        names.join(" -> "),
                        self.stages[next].id
                    )));
                }
                if !done[next] {
                    path.push((next, self.sources_of(next)));
                }
            }
        }
        Ok(())
    }

    fn sources_of(&self, stage: usize) -> Vec<(usize, Span)> {
        let commands = self.stages[stage].commands.iter();
        commands.flat_map(|command| command.sources.iter().flatten().map(|&source| (source, command.span))).collect()
    }

    /// All stages that a stage needs, itself among them, in order.
    pub(crate) fn reachable(&self, target: usize) -> BTreeSet<usize> {
        if self.all_stages {
            return (0..self.stages.len()).collect();
        }
        let mut found = BTreeSet::new();
        let mut todo = vec![target];
        while let Some(stage) = todo.pop() {
            if found.insert(stage) {
                if let Base::Stage(base) = self.stages[stage].base {
                    todo.push(base);
                }
                todo.extend(self.sources_of(stage).into_iter().map(|(source, _)| source));
            }
        }
        found
    }
}
