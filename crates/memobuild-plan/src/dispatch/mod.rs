//! The instructions of one stage, one after the other: each changes the stage's state and may add a step.
//!
//! One file per family; this one holds what they share: expansion of words, labels, and the way to the right file.

mod add;
mod config;
mod copy;
mod expose;
mod mounts;
mod run;
mod variables;
mod workdir;

use memobuild_dockerfile::Span;
use memobuild_dockerfile::ast::{Kind, Word};
use memobuild_dockerfile::words::{Env, Expansion, Lexer};

use crate::args::EnvList;
use crate::error::Failure;
use crate::hints;
use crate::label;
use crate::model::{Op, StepHints, StepId};
use crate::pass::Pass;
use crate::stages::Command;
use crate::state::State;
use crate::steps::About;

/// A stage on its way.
pub(crate) struct Dispatch<'p, 'f> {
    pass: &'p mut Pass<'f>,
    index: usize,
    pub(crate) state: State,
    /// Steps counted so far, and in all.
    at: usize,
    total: usize,
    /// Hints above the instruction at hand.
    hints: StepHints,
    /// Where the stage's own CMD, ENTRYPOINT and HEALTHCHECK stand.
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    healthcheck: Option<Span>,
}

impl<'p, 'f> Dispatch<'p, 'f> {
    pub(crate) fn new(pass: &'p mut Pass<'f>, index: usize, state: State, at: usize, total: usize) -> Self {
        let hints = StepHints::default();
        Self { pass, index, state, at, total, hints, cmd: None, entrypoint: None, healthcheck: None }
    }

    /// Runs one instruction.
    pub(crate) fn command(&mut self, command: &Command<'f>) -> Result<(), Failure> {
        let origin = &command.instruction.origin;
        self.pass.checks.enter(&origin.comments);
        self.hints = hints::read(origin, &self.pass.file.source)?;
        match &command.instruction.kind {
            Kind::Add(add) => self.add(command, add),
            Kind::Arg(arg) => self.arg(command, arg),
            Kind::Cmd(cmd) => self.cmd(command, cmd),
            Kind::Copy(copy) => self.copy_instruction(command, copy),
            Kind::Entrypoint(line) => self.entrypoint(command, line),
            Kind::Env(env) => self.env(command, env),
            Kind::Expose(expose) => self.expose(command, expose),
            Kind::Healthcheck(check) => self.healthcheck(command, check),
            Kind::Label(label) => self.label(command, label),
            Kind::Maintainer(name) => self.maintainer(name),
            Kind::Onbuild(onbuild) => {
                self.state.image.config.on_build.push(onbuild.expression.clone());
                Ok(())
            }
            Kind::Run(run) => self.run(command, run),
            Kind::Shell(shell) => self.shell(shell),
            Kind::Stopsignal(signal) => self.stopsignal(command, signal),
            Kind::User(user) => self.user(command, user),
            Kind::Volume(paths) => self.volume(command, paths),
            Kind::Workdir(path) => self.workdir(command, path),
        }
    }

    /// A word with its variables replaced.
    fn expand(&mut self, command: &Command<'_>, word: &Word) -> Result<String, Failure> {
        self.expand_with(self.pass.lexer(), command, word).map(|expansion| expansion.text)
    }

    /// As [`Self::expand`], for a flag that may be missing; an empty result is as good as none.
    fn expand_flag(&mut self, command: &Command<'_>, word: Option<&Word>) -> Result<Option<String>, Failure> {
        let text = word.map(|word| self.expand(command, word)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn expand_with(&mut self, lexer: Lexer, command: &Command<'_>, word: &Word) -> Result<Expansion, Failure> {
        let place = command.place(word.span);
        let expansion = lexer.expand(word, &self.state.env).map_err(|e| Failure::expand(place, &e))?;
        self.report_undefined(command, &expansion);
        Ok(expansion)
    }

    fn report_undefined(&mut self, command: &Command<'_>, expansion: &Expansion) {
        let declared = |name: &str| self.state.declared.iter().any(|(known, _)| known == name);
        let names = self.state.env.pairs().iter().map(|(name, _)| name.as_str());
        self.pass.checks.undefined_vars(command.span, &expansion.unmatched, declared, names);
    }

    /// The label of a step that counts.
    fn label_text(&mut self, command: &Command<'_>, lexer: Lexer, addition: &str, env: &dyn Env) -> String {
        self.at += 1;
        let text = label::text(lexer, &format!("{}{addition}", command.instruction.origin.original), env);
        let platform = self.pass.many_platforms().then_some(&self.state.platform);
        let stage = &self.pass.stages[self.index].label;
        let prefix = label::prefix(stage, self.at, self.total, platform, &self.state.env);
        let onbuild = if command.onbuild { "ONBUILD " } else { "" };
        format!("{prefix}{onbuild}{text}")
    }

    /// Adds a step of the instruction at hand.
    fn step(&mut self, command: &Command<'_>, op: Op, label: String) -> StepId {
        let about = self.about(command, label);
        self.pass.graph.add(op, about)
    }

    fn about(&self, command: &Command<'_>, label: String) -> About {
        let stage = &self.pass.stages[self.index];
        About {
            label,
            stage: stage.id.clone(),
            span: Some(command.span),
            platform: self.state.platform.clone(),
            hints: self.hints.clone(),
            ignore_cache: stage.ignore_cache,
        }
    }

    /// The build's context as a step.
    fn context(&mut self) -> StepId {
        let local = self.pass.graph.local(None);
        let about = About {
            label: "[internal] load build context".to_owned(),
            stage: "context".to_owned(),
            span: None,
            platform: self.pass.target_platform.clone(),
            hints: StepHints::default(),
            ignore_cache: false,
        };
        self.pass.graph.add(Op::Local(local), about)
    }

    /// The tree of another stage; none: it comes later.
    fn tree_of(&self, stage: usize) -> Option<StepId> {
        self.pass.stages.get(stage)?.end.as_ref().map(|end| end.root)
    }

    /// `RUN |2 A=b C=d` in history: the ARGs in scope with the values that the command sees.
    fn args_in_scope(&self) -> Vec<String> {
        let mut seen: EnvList = EnvList::default();
        let mut out = Vec::new();
        for (name, default) in &self.state.declared {
            if seen.value(name).is_none() {
                seen.set(name, "");
                let value = self.state.env.value(name).or(default.as_deref()).unwrap_or_default();
                out.push(format!("{name}={value}"));
            }
        }
        out
    }
}
