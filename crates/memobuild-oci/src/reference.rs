//! Image references as docker reads them: `[registry[:port]/]repository[:tag][@digest]`.
//!
//! Source: distribution/reference's grammar and its rules for "familiar" names (`busybox` is
//! `docker.io/library/busybox`). Pure.

use std::{fmt, str::FromStr};

use memobuild_tree::Sha256Digest;

/// The registry that names without one are on.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag where none is given.
pub const DEFAULT_TAG: &str = "latest";
const MAX_NAME: usize = 255;

/// A full reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host, and port where one is given.
    pub registry: String,
    /// Path on the registry.
    pub repository: String,
    /// Tag, if one is given.
    pub tag: Option<String>,
    /// Digest, if one is given: it counts more than the tag.
    pub digest: Option<Sha256Digest>,
}

/// A text that is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference {text:?}: {why}")]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

impl Reference {
    /// The tag, or `latest` where neither tag nor digest is given.
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or(DEFAULT_TAG)
    }

    /// What to ask the registry for: the digest, else the tag.
    pub fn wanted(&self) -> String {
        self.digest.map_or_else(|| self.tag_or_latest().to_owned(), |d| d.to_string())
    }

    /// The reference with the tag `latest` where neither tag nor digest is given.
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.into());
        }
        self
    }

    /// As docker shows it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => rest.strip_prefix("library/").filter(|r| !r.contains('/')).unwrap_or(rest).to_owned(),
            None => full,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let error = |why| ReferenceError { text: text.chars().take(300).collect(), why };
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(error("64 hexadecimal digits are an image id, not a name"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| error("expected sha256: and 64 hexadecimal digits after @"))?))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(error(
                "a tag has at most 128 letters, digits, _, . and -, and starts with none of the last two",
            ));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_domain(first) => (first, path),
            _ => (DEFAULT_REGISTRY, name),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let library = registry == DEFAULT_REGISTRY && !path.contains('/');
        let repository = if library { format!("library/{path}") } else { path.to_owned() };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(error("a repository name must be lower case"));
        }
        if !valid_host(registry) || !path.split('/').all(is_component) {
            return Err(error("expected [registry/]name[:tag][@digest]"));
        }
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(error("a repository name has at most 255 characters"));
        }
        Ok(Self { registry: registry.into(), repository, tag: tag.map(Into::into), digest })
    }
}

/// Whether the first component names a registry: it has a dot or port, is `localhost`, or has upper-case letters.
fn is_domain(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn valid_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let six = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let name_ok = match six {
        Some(address) => !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => name.split('.').all(label),
    };
    name_ok && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    bytes.next().is_some_and(word) && tag.len() <= 128 && bytes.all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// Runs of lower-case letters and digits, joined by one dot, one or two underscores, or dashes.
fn is_component(part: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().is_some_and(|b| alnum(*b)) && bytes.last().is_some_and(|b| alnum(*b));
    ends && part
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> String {
        match text.parse::<Reference>() {
            Ok(reference) => format!("{reference} {}", reference.familiar()),
            Err(e) => e.why.to_owned(),
        }
    }

    #[test]
    fn familiar_names_are_completed() {
        assert_eq!(parse("busybox"), "docker.io/library/busybox busybox");
        assert_eq!(parse("a/b:1"), "docker.io/a/b:1 a/b:1");
        assert_eq!(parse("localhost/x"), "localhost/x localhost/x");
        assert_eq!(parse("localhost:5000/x:t"), "localhost:5000/x:t localhost:5000/x:t");
        assert_eq!(parse("index.docker.io/library/x"), "docker.io/library/x x");
        assert_eq!(parse("ghcr.io/a/b__c.d---e"), "ghcr.io/a/b__c.d---e ghcr.io/a/b__c.d---e");
        assert_eq!(parse("[::1]:5000/x"), "[::1]:5000/x [::1]:5000/x");
        let digest = Sha256Digest::of(b"").to_string();
        assert_eq!(parse(&format!("x:1@{digest}")), format!("docker.io/library/x:1@{digest} x:1@{digest}"));
    }

    #[test]
    fn wrong_ones_say_why() {
        for bad in
            ["", ":x", "A", "a//b", "a..b/c", "-a", "a:", "a:b:c", "x@sha256:1", "x@", "a/___b", "h.io:/x", "a b"]
        {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        assert_eq!(parse("Foo"), "a repository name must be lower case");
        assert!(parse(&"a".repeat(64)).contains("image id"));
    }

    #[test]
    fn the_digest_counts_more_than_the_tag() {
        let reference: Reference = "x".parse().unwrap();
        assert_eq!(reference.wanted(), "latest");
        assert_eq!(reference.with_default_tag().to_string(), "docker.io/library/x:latest");
    }
}
