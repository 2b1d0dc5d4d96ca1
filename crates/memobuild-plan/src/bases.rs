//! Base images: which stages need which, all asked for at once; and the ONBUILD triggers that they bring.

use std::borrow::Cow;
use std::collections::BTreeSet;

use memobuild_dockerfile::ast::Kind;
use memobuild_dockerfile::parse_trigger;
use memobuild_image::Platform;

use crate::contexts::Found;
use crate::error::{Failure, PlanErrorKind};
use crate::image;
use crate::model::{BaseRequest, ContextSource, Http, Op};
use crate::pass::Pass;
use crate::reference::ImageName;
use crate::stages::{Base, Command, Stage};
use crate::state::Start;

/// Images that many files start from, for suggestions.
const COMMON: [&str; 10] =
    ["alpine", "busybox", "centos", "debian", "fedora", "golang", "node", "python", "ubuntu", "scratch"];

impl<'f> Pass<'f> {
    /// Finds the bases of all stages that the target needs. Triggers may make it need more, so it goes on until
    /// nothing new turns up. Gives the stages needed.
    pub(crate) fn find_bases(&mut self, target: usize) -> Result<BTreeSet<usize>, Failure> {
        self.check_names()?;
        loop {
            let reachable = self.reachable(target);
            self.resolve(&reachable)?;
            let mut more = false;
            for &index in &reachable {
                more |= self.add_triggers(index)?;
            }
            if !more {
                return Ok(reachable);
            }
        }
    }

    /// Names that can be no image are errors in unused stages too.
    fn check_names(&self) -> Result<(), Failure> {
        for stage in self.stages.iter().filter(|stage| matches!(stage.base, Base::Image)) {
            image_name(stage)?;
        }
        Ok(())
    }

    fn resolve(&mut self, reachable: &BTreeSet<usize>) -> Result<(), Failure> {
        let todo: Vec<usize> = reachable
            .iter()
            .copied()
            .filter(|&index| self.stages[index].start.is_none() && !matches!(self.stages[index].base, Base::Stage(_)))
            .collect();
        let mut wanted: Vec<(BaseRequest, BaseRequest, usize)> = Vec::new();
        for &index in &todo {
            if let Some((request, canonical)) = self.request(index)?
                && self.graph.image(&canonical).is_none()
                && !wanted.iter().any(|(_, known, _)| *known == canonical)
            {
                wanted.push((request, canonical, index));
            }
        }
        if !wanted.is_empty() {
            let requests: Vec<BaseRequest> = wanted.iter().map(|(request, ..)| request.clone()).collect();
            let mut answers = self.resolver.resolve(&requests).into_iter();
            for (request, canonical, index) in wanted {
                let answer = answers.next().unwrap_or_else(|| Err("no answer".to_owned()));
                let found = answer.map_err(|error| self.not_found(index, &request, &error))?;
                self.graph.add_image(canonical, request.name, found);
            }
        }
        for index in todo {
            let start = self.start(index)?;
            self.stages[index].start = Some(start);
        }
        Ok(())
    }

    /// The platform that a stage asks its base for.
    fn base_platform(&self, index: usize) -> Platform {
        self.stages[index].platform.clone().unwrap_or_else(|| self.target_platform.clone())
    }

    /// What to ask the resolver for, as written and in a form in which equal wishes are equal.
    fn request(&self, index: usize) -> Result<Option<(BaseRequest, BaseRequest)>, Failure> {
        let stage = &self.stages[index];
        let platform = self.base_platform(index);
        let (name, context) = match &stage.base {
            Base::Image => (image_name(stage)?.full(), None),
            Base::Context(Found { source: source @ (ContextSource::Image(_) | ContextSource::OciLayout(_)), name }) => {
                (name.clone(), Some(source.clone()))
            }
            _ => return Ok(None),
        };
        let canonical = BaseRequest { name, context, platform };
        let request = BaseRequest { name: stage.base_name.clone(), ..canonical.clone() };
        Ok(Some((request, canonical)))
    }

    fn not_found(&self, index: usize, request: &BaseRequest, error: &str) -> Failure {
        let names: Vec<&str> = self.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        let known = names.into_iter().chain(self.contexts.names()).chain(COMMON);
        Failure::new(self.stages[index].span, format!("{}: {error}", request.name))
            .kind(PlanErrorKind::BaseImage)
            .suggest(&request.name, known)
    }

    fn start(&mut self, index: usize) -> Result<Start, Failure> {
        let platform = self.base_platform(index);
        let plain = |op, label: String, platform: Platform| Start {
            op,
            label,
            counted: false,
            image: image::empty(&platform),
            base: None,
            platform,
        };
        if let Some((_, canonical)) = self.request(index)? {
            let Some(place) = self.graph.image(&canonical) else {
                return Err(Failure::new(self.stages[index].span, format!("{}: not found", canonical.name)));
            };
            return Ok(self.image_start(index, place, &canonical));
        }
        let stage = &self.stages[index];
        Ok(match &stage.base {
            Base::Context(Found { name, source }) => {
                let label = format!("[context {name}] load {}", stage.base_name);
                let op = match source {
                    ContextSource::Git(git) => Op::Git(git.clone()),
                    ContextSource::Http(url) => {
                        Op::Http(Http { url: url.clone(), filename: "context".into(), checksum: None })
                    }
                    _ => {
                        let name = name.clone();
                        Op::Local(self.graph.local(Some(&name)))
                    }
                };
                plain(op, label, platform)
            }
            // `scratch` is for the target's platform, whatever FROM says.
            _ => plain(Op::Scratch, "FROM scratch".to_owned(), self.target_platform.clone()),
        })
    }

    fn image_start(&mut self, index: usize, place: usize, canonical: &BaseRequest) -> Start {
        let stage = &self.stages[index];
        let found = &self.graph.images[place];
        let name = match (&stage.base, ImageName::parse(&stage.base_name)) {
            (Base::Image, Ok(name)) => name.pinned(&found.digest),
            _ => stage.base_name.clone(),
        };
        let start = Start {
            op: Op::Image(place),
            label: format!("FROM {name}"),
            counted: true,
            image: image::inherited(&found.config),
            base: Some(place),
            platform: canonical.platform.clone(),
        };
        if stage.written && matches!(stage.base, Base::Image) {
            let (span, base_name) = (stage.span, stage.base_name.clone());
            let comments = stage.comments;
            let actual = found.config.platform.clone();
            self.checks.enter(comments);
            self.checks.base_platform(span, &base_name, &canonical.platform, &actual);
        }
        start
    }

    /// Puts the base's triggers in front of a stage's instructions. Says whether they read other stages.
    fn add_triggers(&mut self, index: usize) -> Result<bool, Failure> {
        if std::mem::replace(&mut self.stages[index].triggered, true) {
            return Ok(false);
        }
        let stage = &self.stages[index];
        let triggers: Vec<String> = match (&stage.base, &stage.start) {
            (Base::Stage(base), _) => self.stages[*base]
                .commands
                .iter()
                .filter_map(|command| match &command.instruction.kind {
                    Kind::Onbuild(onbuild) if !command.onbuild => Some(onbuild.expression.clone()),
                    _ => None,
                })
                .collect(),
            (_, Some(start)) => start.image.config.on_build.clone(),
            _ => Vec::new(),
        };
        let span = stage.span;
        let mut more = false;
        let mut commands = Vec::with_capacity(triggers.len());
        for trigger in triggers {
            let instruction = parse_trigger(&trigger, "ONBUILD").map_err(|error| {
                let first = trigger.lines().next().unwrap_or_default();
                Failure::new(span, format!("ONBUILD trigger {first:?} of the base: {}", error.diagnostic().message))
            })?;
            let mut command =
                Command { instruction: Cow::Owned(instruction), sources: Vec::new(), onbuild: true, span };
            self.link(&mut command)?;
            more |= command.sources.iter().any(Option::is_some);
            commands.push(command);
        }
        let stage = &mut self.stages[index];
        commands.append(&mut stage.commands);
        stage.commands = commands;
        Ok(more)
    }
}

fn image_name(stage: &Stage<'_>) -> Result<ImageName, Failure> {
    ImageName::parse(&stage.base_name).map_err(|error| {
        Failure::new(stage.span, format!("failed to parse stage name {:?}: {error}", stage.base_name))
            .expected("a stage, an image such as debian:13, or scratch")
    })
}
