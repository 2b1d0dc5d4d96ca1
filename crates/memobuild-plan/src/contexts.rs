//! Named contexts (`--build-context NAME=VALUE`): what a value says, and which name in a Dockerfile it replaces.

use std::collections::BTreeMap;

use memobuild_image::Platform;

use crate::git::GitRef;
use crate::model::ContextSource;
use crate::reference::ImageName;

impl ContextSource {
    /// Reads the value of `--build-context`. A text without a known prefix is a directory.
    ///
    /// # Errors
    /// The value names a git repository whose query makes no sense, or nothing at all.
    pub fn parse(value: &str) -> Result<Self, String> {
        if value.is_empty() {
            return Err("expected a directory, docker-image://, oci-layout://, a git repository or a URL".to_owned());
        }
        for (prefix, make) in [
            ("docker-image://", Self::Image as fn(String) -> Self),
            ("oci-layout://", Self::OciLayout),
            ("target:", Self::Target),
        ] {
            if let Some(rest) = value.strip_prefix(prefix) {
                return Ok(make(rest.to_owned()));
            }
        }
        if let Some(git) = GitRef::parse(value) {
            return git.map(|git| Self::Git(git.into()));
        }
        if value.starts_with("https://") || value.starts_with("http://") {
            return Ok(Self::Http(value.to_owned()));
        }
        Ok(Self::Local(value.into()))
    }
}

/// The named contexts by their short names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contexts(BTreeMap<String, (String, ContextSource)>);

/// A context that was found: the name it was given under, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) source: ContextSource,
}

impl Contexts {
    pub(crate) fn new(given: &BTreeMap<String, ContextSource>) -> Self {
        Self(given.iter().map(|(name, source)| (normal(name), (name.clone(), source.clone()))).collect())
    }

    /// The context that stands in place of a stage or image; `busybox` replaces `busybox:latest` and
    /// `docker.io/library/busybox` too. `NAME::PLATFORM` is for one platform and goes first.
    pub(crate) fn find(&self, name: &str, platform: &Platform) -> Option<Found> {
        if self.0.is_empty() || name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let name = normal(name);
        let found = self.0.get(&format!("{name}::{}", platform.normalised())).or_else(|| self.0.get(&name));
        found.map(|(name, source)| Found { name: name.clone(), source: source.clone() })
    }

    /// The names as given.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(|(name, _)| name.as_str())
    }
}

fn normal(name: &str) -> String {
    let (name, platform) = name.split_once("::").map_or((name, None), |(name, platform)| (name, Some(platform)));
    // A stage's name may be no image's name; then it stands for itself.
    let short = ImageName::parse(name).map_or_else(|_| name.to_owned(), |name| name.familiar());
    platform.map_or(short.clone(), |platform| format!("{short}::{platform}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let parse = |text: &str| ContextSource::parse(text).unwrap();
        assert_eq!(parse("docker-image://a:1"), ContextSource::Image("a:1".into()));
        assert_eq!(parse("oci-layout:///p:t"), ContextSource::OciLayout("/p:t".into()));
        assert_eq!(parse("target:base"), ContextSource::Target("base".into()));
        assert_eq!(parse("https://h/x.tar"), ContextSource::Http("https://h/x.tar".into()));
        assert_eq!(parse("../dir"), ContextSource::Local("../dir".into()));
        assert!(matches!(parse("https://h/x.git#main"), ContextSource::Git(_)));
        assert!(ContextSource::parse("").is_err());
    }

    #[test]
    fn names_are_found_by_their_short_form() {
        let given: BTreeMap<String, ContextSource> =
            ["busybox", "docker.io/library/alpine:latest", "x::linux/arm64", "b-"]
                .map(|name| (name.to_owned(), ContextSource::Local(name.into())))
                .into();
        let contexts = Contexts::new(&given);
        let amd: Platform = "linux/amd64".parse().unwrap();
        let arm: Platform = "linux/arm64".parse().unwrap();
        let find = |name: &str, p: &Platform| contexts.find(name, p).map(|found| found.name);
        for name in ["busybox", "busybox:latest", "docker.io/library/busybox", "docker.io/busybox:latest"] {
            assert_eq!(find(name, &amd).as_deref(), Some("busybox"), "{name}");
        }
        assert_eq!(find("busybox:1", &amd), None);
        assert!(find("alpine", &amd).is_some() && find("b-", &amd).is_some());
        assert_eq!((find("x", &amd), find("x", &arm).as_deref()), (None, Some("x::linux/arm64")));
        assert_eq!(find("scratch", &amd), None);
    }
}
