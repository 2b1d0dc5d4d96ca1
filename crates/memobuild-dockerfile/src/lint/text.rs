//! The rules that the text alone decides.

use std::collections::BTreeSet;

use super::{CheckOptions, Finding, Rule};
use crate::ast::{Dockerfile, Instruction, Kind, Origin, Stage, Warning};
use crate::ports::parse_port;
use crate::span::Span;

/// Runs all rules that can be judged from the text alone, and leaves out what `options`, the
/// file's `# check=` or a comment above an instruction skips. In file order.
///
/// Ports with variables in them are not judged here; the plan does so when it has expanded them.
pub fn lint(dockerfile: &Dockerfile, options: &CheckOptions) -> Vec<Finding> {
    let mut run = Run { options: options.merged(&dockerfile.directives.check), findings: Vec::new() };
    for warning in &dockerfile.warnings {
        let Warning::EmptyContinuation(span) = warning else {
            continue;
        };
        run.add(&[], Rule::NoEmptyContinuation, *span, "Empty continuation line".into());
    }
    for arg in &dockerfile.meta_args {
        let keys: Vec<&str> = arg.arg.args.iter().map(|a| a.key.as_str()).collect();
        run.description(&arg.origin, "ARG", &keys);
    }
    run.casing(dockerfile);
    run.stage_names(&dockerfile.stages);
    // Names of stages in which a SHELL has been set, there or in a stage they are based on.
    let mut with_shell: BTreeSet<&str> = BTreeSet::new();
    for stage in &dockerfile.stages {
        run.from(stage);
        let mut has_shell = with_shell.contains(stage.base.to_lowercase().as_str());
        for instruction in &stage.instructions {
            has_shell |= matches!(instruction.kind, Kind::Shell(_));
            run.instruction(instruction, has_shell);
        }
        if let Some(name) = stage.name.as_deref().filter(|_| has_shell) {
            with_shell.insert(name);
        }
        run.used_once(stage);
    }
    run.findings.sort_by_key(|finding| finding.span.start);
    run.findings
}

struct Run {
    options: CheckOptions,
    findings: Vec<Finding>,
}

impl Run {
    fn add(&mut self, comments: &[String], rule: Rule, span: Span, message: String) {
        if self.options.with_comments(comments).allows(rule) {
            self.findings.push(Finding::new(rule, span, message));
        }
    }

    fn add_finding(&mut self, comments: &[String], finding: Finding) {
        self.add(comments, finding.rule, finding.span, finding.message);
    }

    /// All names should be in the case that most of them have.
    fn casing(&mut self, dockerfile: &Dockerfile) {
        let names: Vec<&Origin> = dockerfile
            .stages
            .iter()
            .flat_map(|s| std::iter::once(&s.origin).chain(s.instructions.iter().map(|i| &i.origin)))
            .collect();
        let lower = names.iter().filter(|o| is_lower(&o.name)).count();
        let upper = names.iter().filter(|o| !is_lower(&o.name) && is_upper(&o.name)).count();
        let (right, wanted): (fn(&str) -> bool, _) =
            if lower > upper { (is_lower, "lowercase") } else { (is_upper, "uppercase") };
        for origin in names.into_iter().filter(|o| !right(&o.name)) {
            let message = format!("Command '{}' should match the case of the command majority ({wanted})", origin.name);
            self.add(&origin.comments, Rule::ConsistentInstructionCasing, origin.name.span, message);
        }
    }

    fn stage_names(&mut self, stages: &[Stage]) {
        let mut seen = BTreeSet::new();
        for stage in stages {
            let Some(name) = &stage.name else { continue };
            if matches!(name.as_str(), "context" | "scratch") {
                let message = format!("Stage name should not use the same name as reserved stage {:?}", name.as_str());
                self.add(&stage.origin.comments, Rule::ReservedStageName, name.span, message);
            }
            if !seen.insert(name.as_str()) {
                let message = format!("Duplicate stage name {:?}, stage names should be unique", name.as_str());
                self.add(&stage.origin.comments, Rule::DuplicateStageName, name.span, message);
            }
        }
    }

    fn from(&mut self, stage: &Stage) {
        let origin = &stage.origin;
        let (Some(name), Some(keyword), Some(written)) = (&stage.name, &stage.as_keyword, &stage.name_as_written)
        else {
            return;
        };
        if name.as_str() != written {
            let message = format!("Stage name '{written}' should be lowercase");
            self.add(&origin.comments, Rule::StageNameCasing, name.span, message);
        }
        // A FROM in mixed case is another rule's business.
        let matching = (is_lower(&origin.name) && is_lower(keyword))
            || (is_upper(&origin.name) && is_upper(keyword))
            || (!is_lower(&origin.name) && !is_upper(&origin.name));
        if !matching {
            let message = format!("'{keyword}' and '{}' keywords' casing do not match", origin.name);
            self.add(&origin.comments, Rule::FromAsCasing, keyword.span, message);
        }
        self.description(origin, "FROM", &[name]);
    }

    /// The last comment above a named stage or an argument should begin with its name.
    fn description(&mut self, origin: &Origin, instruction: &str, keys: &[&str]) {
        let (Some(comment), Some(first)) = (origin.comments.last(), keys.first()) else {
            return;
        };
        let word = comment.split(' ').next().unwrap_or_default();
        if keys.contains(&word) {
            return;
        }
        let key = if keys.len() > 1 { "<arg_key>" } else { first };
        let message = format!("Comment for {instruction} should follow the format: `# {key} <description>`");
        self.add(&origin.comments, Rule::InvalidDefinitionDescription, origin.span, message);
    }

    fn instruction(&mut self, instruction: &Instruction, has_shell: bool) {
        let origin = &instruction.origin;
        match &instruction.kind {
            Kind::Arg(arg) => {
                let keys: Vec<&str> = arg.args.iter().map(|a| a.key.as_str()).collect();
                self.description(origin, "ARG", &keys);
            }
            // Who sets a SHELL has thought about what runs the command.
            Kind::Cmd(line) | Kind::Entrypoint(line) if !line.exec && !has_shell => {
                let message = format!(
                    "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                    origin.name
                );
                self.add(&origin.comments, Rule::JsonArgsRecommended, origin.span, message);
            }
            Kind::Maintainer(_) => {
                let message = "Maintainer instruction is deprecated in favor of using label";
                self.add(&origin.comments, Rule::MaintainerDeprecated, origin.span, message.into());
            }
            Kind::Env(crate::ast::Env { pairs }) | Kind::Label(crate::ast::Label { pairs }) => {
                for _ in pairs.iter().filter(|pair| pair.legacy) {
                    let name = &origin.name;
                    let message =
                        format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
                    self.add(&origin.comments, Rule::LegacyKeyValueFormat, origin.span, message);
                }
            }
            Kind::Expose(expose) => {
                for port in expose.ports.iter().filter(|port| !port.contains('$')) {
                    let Ok(spec) = parse_port(port) else { continue };
                    if spec.odd_case {
                        self.add_finding(&origin.comments, Finding::expose_proto_casing(port.span, port));
                    }
                    if spec.host_part {
                        self.add_finding(&origin.comments, Finding::expose_invalid_format(port.span, port));
                    }
                }
            }
            _ => {}
        }
    }

    /// Of several `CMD`, `ENTRYPOINT` or `HEALTHCHECK` in a stage only the last one counts.
    fn used_once(&mut self, stage: &Stage) {
        for name in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
            let same: Vec<&Origin> =
                stage.instructions.iter().filter(|i| i.kind.name() == name).map(|i| &i.origin).collect();
            for pair in same.windows(2) {
                let [unused, next] = pair else { continue };
                let message = format!(
                    "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                    next.name
                );
                self.add(&next.comments, Rule::MultipleInstructionsDisallowed, unused.span, message);
            }
        }
    }
}

fn is_lower(name: &str) -> bool {
    name == name.to_lowercase()
}

fn is_upper(name: &str) -> bool {
    name == name.to_uppercase()
}
