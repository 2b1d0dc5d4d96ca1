//! Variables: the environment of a stage, and the ARGs that stand before the first FROM.

use std::collections::BTreeMap;

use memobuild_dockerfile::ast::{Dockerfile, MetaArg};
use memobuild_dockerfile::words::{self, Lexer};
use memobuild_image::Platform;

use crate::error::Failure;

/// The epoch of reproducible builds, as ARG and build arg.
pub(crate) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Build args that steer the builder and are never in a step's environment.
pub(crate) const NO_ENV: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Names with values, each name once, in the order in which they were last set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EnvList(Vec<(String, String)>);

impl EnvList {
    /// Sets a name; it moves to the end.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.into()));
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

impl words::Env for EnvList {
    fn get(&self, name: &str) -> Option<String> {
        self.value(name).map(Into::into)
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// The ARGs that FROM sees and that stages may declare.
#[derive(Debug, Clone)]
pub(crate) struct Globals {
    /// Those with a value.
    pub(crate) env: EnvList,
    /// All that the file declares before its first FROM, and all predefined ones.
    pub(crate) declared: Vec<String>,
}

/// The predefined ARGs of platforms and of the target; a build arg of the same name wins.
fn predefined(build: &Platform, target: &Platform, stage: &str, given: &BTreeMap<String, String>) -> EnvList {
    let stage = if stage.is_empty() { "default" } else { stage };
    let mut env = EnvList::default();
    for (name, value) in [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", build.os_version.clone()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone()),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", target.os_version.clone()),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", target.variant.clone()),
        ("TARGETSTAGE", stage.to_owned()),
    ] {
        env.set(name, given.get(name).cloned().unwrap_or(value));
    }
    env
}

/// What the global ARGs are worth with these build args.
///
/// # Errors
/// A default can't be expanded.
pub(crate) fn globals(
    file: &Dockerfile,
    build: &Platform,
    target: &Platform,
    stage: &str,
    given: &BTreeMap<String, String>,
) -> Result<Globals, Failure> {
    let mut out = Globals { env: predefined(build, target, stage, given), declared: Vec::new() };
    fill(&mut out, file.directives.escape, &file.meta_args, given)?;
    out.declared.extend(words::Env::names(&out.env));
    Ok(out)
}

/// As [`globals`], as if no build arg were given for the file's own ARGs. None if a default can't be expanded.
pub(crate) fn default_globals(
    file: &Dockerfile,
    build: &Platform,
    target: &Platform,
    stage: &str,
    given: &BTreeMap<String, String>,
) -> Option<EnvList> {
    let mut out = Globals { env: predefined(build, target, stage, given), declared: Vec::new() };
    fill(&mut out, file.directives.escape, &file.meta_args, &BTreeMap::new()).ok()?;
    Some(out.env)
}

fn fill(out: &mut Globals, escape: char, args: &[MetaArg], given: &BTreeMap<String, String>) -> Result<(), Failure> {
    let lexer = Lexer::new(escape);
    for meta in args {
        for arg in &meta.arg.args {
            let value = match (given.get(arg.key.as_str()), &arg.value) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(word)) => {
                    let expansion = lexer.expand(word, &out.env).map_err(|e| Failure::expand(word.span, &e))?;
                    Some(expansion.text)
                }
                (None, None) => None,
            };
            if let Some(value) = value {
                out.env.set(&arg.key, value);
            }
            out.declared.push(arg.key.text.clone());
        }
    }
    Ok(())
}

/// The proxy settings among the build args, by both spellings, in a fixed order.
pub(crate) fn proxies(given: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for name in ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"] {
        // The last spelling in order wins, which is the lower-case one.
        let value = given.iter().rfind(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            out.push((name.to_ascii_uppercase(), value.clone()));
            out.push((name.to_owned(), value.clone()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_set_again_moves_to_the_end() {
        let mut env = EnvList::default();
        env.set("A", "1");
        env.set("B", "2");
        env.set("A", "3");
        assert_eq!(env.pairs(), [("B".into(), "2".into()), ("A".into(), "3".into())]);
    }

    #[test]
    fn proxies_come_in_both_spellings() {
        let given = BTreeMap::from([("HTTP_PROXY".to_owned(), "a".to_owned()), ("No_Proxy".into(), "b".into())]);
        let names: Vec<String> = proxies(&given).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"]);
        assert!(proxies(&BTreeMap::from([("http_proxy".to_owned(), String::new())])).is_empty());
    }
}
