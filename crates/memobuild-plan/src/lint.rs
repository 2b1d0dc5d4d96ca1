//! Checks that need planning: what BuildKit's rules say about variables, platforms, paths and repeated instructions.
//!
//! Those that the text alone decides are `memobuild_dockerfile::lint`'s. Messages are BuildKit's, which tools match.

use std::collections::BTreeSet;

use memobuild_dockerfile::Span;
use memobuild_dockerfile::diagnostic::nearest;
use memobuild_dockerfile::lint::{CheckOptions, Finding, Rule};
use memobuild_image::Platform;

use crate::args::NO_ENV;

/// Where findings go.
#[derive(Debug)]
pub(crate) struct Checks {
    options: CheckOptions,
    /// In force now: the file's options and those of the comments above the instruction at hand.
    scope: CheckOptions,
    pub(crate) findings: Vec<Finding>,
}

impl Checks {
    pub(crate) fn new(options: CheckOptions, findings: Vec<Finding>) -> Self {
        Self { scope: options.clone(), options, findings }
    }

    /// From here on, what these comments skip is skipped.
    pub(crate) fn enter(&mut self, comments: &[String]) {
        self.scope = self.options.with_comments(comments);
    }

    /// Notes a finding, unless it is skipped or known.
    pub(crate) fn report(&mut self, rule: Rule, span: Span, message: String) {
        let finding = Finding::new(rule, span, message);
        let known = |other: &Finding| {
            other.rule == rule && other.message == finding.message && other.span.first_line() == span.first_line()
        };
        if self.scope.allows(rule) && !self.findings.iter().any(known) {
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
            let hint = nearest(name, env.clone(), false).map(|n| format!(" (did you mean ${n}?)")).unwrap_or_default();
            self.report(Rule::UndefinedVar, span, format!("Usage of undefined variable '${name}'{hint}"));
        }
    }

    /// Variables in a FROM that no ARG declares.
    pub(crate) fn undefined_in_from(&mut self, span: Span, unmatched: &BTreeSet<String>, declared: &[String]) {
        for name in unmatched.iter().filter(|name| !declared.contains(name)) {
            let hint = nearest(name, declared.iter().map(String::as_str), false)
                .map(|n| format!(" (did you mean {n}?)"))
                .unwrap_or_default();
            self.report(Rule::UndefinedArgInFrom, span, format!("FROM argument '{name}' is not declared{hint}"));
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
            let message = format!(
                "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
            );
            self.report(Rule::RedundantTargetPlatform, span, message);
        }
    }

    /// `FROM --platform=linux/arm64` in a stage whose name does not say so.
    pub(crate) fn constant_platform(&mut self, span: Span, stage: &str, value: &str, platform: &Platform) {
        if !stage.contains(&platform.os) && !stage.contains(&platform.architecture) {
            let message = format!("FROM --platform flag should not use constant value {value:?}");
            self.report(Rule::FromPlatformFlagConstDisallowed, span, message);
        }
    }

    /// The base image is not for the platform it was asked for.
    pub(crate) fn base_platform(&mut self, span: Span, image: &str, wanted: &Platform, found: &Platform) {
        if wanted.os != found.os || wanted.architecture != found.architecture {
            let message = format!(
                "Base image {image} was pulled with platform \"{}\", expected \"{}\" for current build",
                found.normalised(),
                wanted.normalised()
            );
            self.report(Rule::InvalidBaseImagePlatform, span, message);
        }
    }

    /// An ARG or ENV whose name sounds like a secret.
    pub(crate) fn secret_name(&mut self, span: Span, instruction: &str, name: &str) {
        const SECRET: [&str; 10] =
            ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
        const HARMLESS: [&str; 3] = ["public", "file", "version"];
        let has = |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)));
        if has(&SECRET) && !has(&HARMLESS) {
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})");
            self.report(Rule::SecretsUsedInArgOrEnv, span, message);
        }
    }

    /// `ENV a b`.
    pub(crate) fn legacy_pair(&mut self, span: Span, name: &str) {
        let message = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        self.report(Rule::LegacyKeyValueFormat, span, message);
    }

    /// CMD or ENTRYPOINT in shell form without a SHELL of the file's own.
    pub(crate) fn shell_form(&mut self, span: Span, name: &str) {
        let message =
            format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
        self.report(Rule::JsonArgsRecommended, span, message);
    }

    /// An instruction that a later one of its kind overrides; the place is that of the earlier one.
    pub(crate) fn overridden(&mut self, earlier: Span, name: &str) {
        let message = format!(
            "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        );
        self.report(Rule::MultipleInstructionsDisallowed, earlier, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str) -> bool {
        let mut checks = Checks::new(CheckOptions::default(), Vec::new());
        checks.secret_name(Span::lines(1, 1), "ENV", name);
        !checks.findings.is_empty()
    }

    #[test]
    fn names_that_sound_like_secrets() {
        for yes in ["API_KEY", "password", "GITHUB_TOKEN", "secret_message", "AUTH", "a_apikey_b"] {
            assert!(secret(yes), "{yes}");
        }
        for no in ["MONKEY", "PUBLIC_KEY", "PASSWORD_FILE", "TOKEN_VERSION", "KEYS", "AUTHOR"] {
            assert!(!secret(no), "{no}");
        }
    }
}
