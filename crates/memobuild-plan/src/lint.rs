//! Checks that need planning: what BuildKit's rules say about variables, platforms, paths and repeated instructions.
//!
//! `memobuild_dockerfile::lint` judges the text alone, all stages of it, without knowing bases. Of its findings those
//! stand that no planning can better; the others are found here, for the stages that are planned.

use std::collections::BTreeSet;

use memobuild_dockerfile::lint::{CheckOptions, Finding, Rule, lint};
use memobuild_dockerfile::{Dockerfile, Span};
use memobuild_image::Platform;

use crate::args::NO_ENV;

/// Rules that planning does not look at.
const TEXT_ONLY: [Rule; 8] = [
    Rule::StageNameCasing,
    Rule::FromAsCasing,
    Rule::NoEmptyContinuation,
    Rule::ConsistentInstructionCasing,
    Rule::DuplicateStageName,
    Rule::ReservedStageName,
    Rule::MaintainerDeprecated,
    Rule::InvalidDefinitionDescription,
];

/// Where findings go.
#[derive(Debug)]
pub(crate) struct Checks {
    options: CheckOptions,
    /// In force now: the file's options and those of the comments above the instruction at hand.
    scope: CheckOptions,
    findings: Vec<Finding>,
    /// What only the text says of rules that planning judges better.
    rough: Vec<Finding>,
}

impl Checks {
    /// Starts with what the text tells.
    pub(crate) fn new(file: &Dockerfile, options: CheckOptions) -> Self {
        let (findings, rough) = lint(file, &options).into_iter().partition(|f| TEXT_ONLY.contains(&f.rule));
        Self { scope: options.clone(), options, findings, rough }
    }

    /// What was found, in file order.
    pub(crate) fn finish(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|finding| finding.span);
        self.findings
    }

    /// What was found when planning came to an early end: the rest of the file is judged by its text.
    pub(crate) fn broken_off(mut self) -> Vec<Finding> {
        for rough in std::mem::take(&mut self.rough) {
            let known = |f: &Finding| f.rule == rough.rule && f.span.first_line() == rough.span.first_line();
            if !self.findings.iter().any(known) {
                self.findings.push(rough);
            }
        }
        self.finish()
    }

    /// From here on, what these comments skip is skipped.
    pub(crate) fn enter(&mut self, comments: &[String]) {
        self.scope = self.options.with_comments(comments);
    }

    /// Notes a finding, unless it is skipped or known.
    pub(crate) fn report(&mut self, finding: Finding) {
        if self.scope.allows(finding.rule) && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Variables that were used and are nowhere declared.
    pub(crate) fn undefined_vars<'a>(
        &mut self,
        span: Span,
        unmatched: &BTreeSet<String>,
        declared: impl Fn(&str) -> bool,
        env: impl Iterator<Item = &'a str> + Clone,
    ) {
        for name in unmatched.iter().filter(|name| !declared(name) && !NO_ENV.contains(&name.as_str())) {
            self.report(Finding::undefined_var(span, name, env.clone()));
        }
    }

    /// Variables in a FROM that no ARG declares.
    pub(crate) fn undefined_in_from(&mut self, span: Span, unmatched: &BTreeSet<String>, declared: &[String]) {
        for name in unmatched.iter().filter(|name| !declared.contains(name)) {
            self.report(Finding::undefined_arg_in_from(span, name, declared.iter().map(String::as_str)));
        }
    }

    /// `FROM --platform=$TARGETPLATFORM` says what is so anyway.
    pub(crate) fn redundant_platform(
        &mut self,
        span: Span,
        written: &str,
        matched: &BTreeSet<String>,
        unmatched: &BTreeSet<String>,
        is_target: bool,
    ) {
        if matched.len() == 1 && unmatched.is_empty() && matched.contains("TARGETPLATFORM") && is_target {
            self.report(Finding::redundant_target_platform(span, written));
        }
    }

    /// `FROM --platform=linux/arm64` in a stage whose name does not say so.
    pub(crate) fn constant_platform(&mut self, span: Span, stage: &str, value: &str, platform: &Platform) {
        if !stage.contains(&platform.os) && !stage.contains(&platform.architecture) {
            self.report(Finding::from_platform_const(span, value));
        }
    }

    /// The base image is not for the platform it was asked for.
    pub(crate) fn base_platform(&mut self, span: Span, image: &str, wanted: &Platform, found: &Platform) {
        if wanted.os != found.os || wanted.architecture != found.architecture {
            let (found, wanted) = (found.normalised().to_string(), wanted.normalised().to_string());
            self.report(Finding::invalid_base_image_platform(span, image, &found, &wanted));
        }
    }

    /// An ARG or ENV whose name sounds like a secret.
    pub(crate) fn secret_name(&mut self, span: Span, instruction: &str, name: &str) {
        if memobuild_dockerfile::lint::is_secret_name(name) {
            self.report(Finding::secret_in_arg_or_env(span, instruction, name));
        }
    }

    /// `ENV a b`.
    pub(crate) fn legacy_pair(&mut self, span: Span, name: &str) {
        let message = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        self.report(Finding::new(Rule::LegacyKeyValueFormat, span, message));
    }

    /// CMD or ENTRYPOINT in shell form where neither the file nor the base sets a SHELL.
    pub(crate) fn shell_form(&mut self, span: Span, name: &str) {
        let message =
            format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
        self.report(Finding::new(Rule::JsonArgsRecommended, span, message));
    }

    /// An instruction that a later one of its kind overrides; the place is that of the earlier one.
    pub(crate) fn overridden(&mut self, earlier: Span, name: &str) {
        let message = format!(
            "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        );
        self.report(Finding::new(Rule::MultipleInstructionsDisallowed, earlier, message));
    }
}
