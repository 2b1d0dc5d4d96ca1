//! Findings of rules that need more than the text: one constructor per rule, for the plan.

use super::{Finding, Rule};
use crate::diagnostic::nearest;
use crate::span::Span;

/// Words that make a name look like a secret's.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Words that take the suspicion away.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// Whether an `ARG` or `ENV` name looks like a secret's: one of its parts between `_` is a word
/// such as `token` or `password`, and none is `public`, `file` or `version`.
pub fn is_secret_name(name: &str) -> bool {
    let has = |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)));
    has(&SECRET) && !has(&HARMLESS)
}

impl Finding {
    /// `UndefinedVar`: `name` is not set; `known` are the names that are.
    pub fn undefined_var<'a>(span: Span, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let hint = nearest(name, known, false).map_or(String::new(), |near| format!(" (did you mean ${near}?)"));
        Self::new(Rule::UndefinedVar, span, format!("Usage of undefined variable '${name}'{hint}"))
    }

    /// `UndefinedArgInFrom`: `name` is not declared; `known` are the names that are.
    pub fn undefined_arg_in_from<'a>(span: Span, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let hint = nearest(name, known, false).map_or(String::new(), |near| format!(" (did you mean {near}?)"));
        Self::new(Rule::UndefinedArgInFrom, span, format!("FROM argument '{name}' is not declared{hint}"))
    }

    /// `InvalidDefaultArgInFrom`: `base` is the unexpanded base name.
    pub fn invalid_default_arg_in_from(span: Span, base: &str) -> Self {
        let message = format!("Default value for ARG {base} results in empty or invalid base image name");
        Self::new(Rule::InvalidDefaultArgInFrom, span, message)
    }

    /// `CopyIgnoredFile`: `instruction` is `Copy` or `Add`.
    pub fn copy_ignored_file(span: Span, instruction: &str, path: &str) -> Self {
        let message = format!("Attempting to {instruction} file {path:?} that is excluded by .dockerignore");
        Self::new(Rule::CopyIgnoredFile, span, message)
    }

    /// `InvalidBaseImagePlatform`
    pub fn invalid_base_image_platform(span: Span, image: &str, actual: &str, expected: &str) -> Self {
        let message =
            format!("Base image {image} was pulled with platform {actual:?}, expected {expected:?} for current build");
        Self::new(Rule::InvalidBaseImagePlatform, span, message)
    }

    /// `RedundantTargetPlatform`: `value` is the unexpanded flag.
    pub fn redundant_target_platform(span: Span, value: &str) -> Self {
        let message =
            format!("Setting platform to predefined {value} in FROM is redundant as this is the default behavior");
        Self::new(Rule::RedundantTargetPlatform, span, message)
    }

    /// `FromPlatformFlagConstDisallowed`
    pub fn from_platform_const(span: Span, platform: &str) -> Self {
        let message = format!("FROM --platform flag should not use constant value {platform:?}");
        Self::new(Rule::FromPlatformFlagConstDisallowed, span, message)
    }

    /// `SecretsUsedInArgOrEnv`: `instruction` is `ARG` or `ENV`. See [`is_secret_name`].
    pub fn secret_in_arg_or_env(span: Span, instruction: &str, name: &str) -> Self {
        let message = format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})");
        Self::new(Rule::SecretsUsedInArgOrEnv, span, message)
    }

    /// `WorkdirRelativePath`
    pub fn workdir_relative_path(span: Span, path: &str) -> Self {
        let message = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
        Self::new(Rule::WorkdirRelativePath, span, message)
    }

    /// `ExposeProtoCasing`: `port` as expanded.
    pub fn expose_proto_casing(span: Span, port: &str) -> Self {
        let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
        Self::new(Rule::ExposeProtoCasing, span, message)
    }

    /// `ExposeInvalidFormat`: `port` as expanded.
    pub fn expose_invalid_format(span: Span, port: &str) -> Self {
        let message =
            format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
        Self::new(Rule::ExposeInvalidFormat, span, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_names() {
        for name in ["TOKEN", "GITHUB_TOKEN", "secret_message", "DB_Password_2", "AUTH"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["TOKENS", "MONKEY", "PUBLIC_KEY", "TOKEN_FILE", "KEY_VERSION", "AUTHOR", ""] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn suggestions() {
        let span = Span::lines(1, 1);
        let finding = Finding::undefined_var(span, "PAHT", ["HOME", "PATH"]);
        assert_eq!(finding.message, "Usage of undefined variable '$PAHT' (did you mean $PATH?)");
        let finding = Finding::undefined_arg_in_from(span, "X", []);
        assert_eq!(finding.message, "FROM argument 'X' is not declared");
    }
}
