//! Image names, only as far as planning needs them: whether a name can be one, and its full and its short form.
//!
//! Source: the grammar of distribution/reference. What is behind a name is the resolver's business.

/// An image name in its full form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageName {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl ImageName {
    /// Reads a name as `docker pull` would.
    ///
    /// # Errors
    /// Why it can be no name, in the words that docker users know.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(format!("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"));
        }
        let (domain, rest) = split_domain(text);
        let remote = rest.split(':').next().unwrap_or(&rest);
        if remote.chars().any(char::is_uppercase) {
            return Err(format!("invalid reference format: repository name ({remote}) must be lowercase"));
        }
        let invalid = || "invalid reference format".to_owned();
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (rest.as_str(), None),
        };
        let (path, tag) = match name.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (name, None),
        };
        let ok = is_host(&domain)
            && path.split('/').all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        if !ok {
            return Err(invalid());
        }
        if path.len() > 255 {
            return Err("repository name must not be more than 255 characters".to_owned());
        }
        Ok(Self { domain, path: path.to_owned(), tag: tag.map(Into::into), digest: digest.map(Into::into) })
    }

    /// `docker.io/library/busybox:latest`: with domain, and with `latest` if it has neither tag nor digest.
    pub(crate) fn full(&self) -> String {
        let tag = match (&self.tag, &self.digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag.as_deref(),
        };
        self.render(&format!("{}/{}", self.domain, self.path), tag)
    }

    /// `busybox`: as people write it; a tag `latest` is left out.
    pub(crate) fn familiar(&self) -> String {
        let name = if self.domain == "docker.io" {
            match self.path.strip_prefix("library/") {
                Some(rest) if !rest.contains('/') => rest.to_owned(),
                _ => self.path.clone(),
            }
        } else {
            format!("{}/{}", self.domain, self.path)
        };
        let text = self.render(&name, self.tag.as_deref());
        text.strip_suffix(":latest").unwrap_or(&text).to_owned()
    }

    /// The full name with a digest that was found for it.
    pub(crate) fn pinned(&self, digest: &str) -> String {
        if self.digest.is_some() || digest.is_empty() { self.full() } else { format!("{}@{digest}", self.full()) }
    }

    fn render(&self, name: &str, tag: Option<&str>) -> String {
        let mut out = name.to_owned();
        for (mark, part) in [(':', tag), ('@', self.digest.as_deref())] {
            if let Some(part) = part {
                out.push(mark);
                out.push_str(part);
            }
        }
        out
    }
}

fn split_domain(text: &str) -> (String, String) {
    let Some((first, rest)) = text.split_once('/') else {
        return ("docker.io".to_owned(), format!("library/{text}"));
    };
    let domain = match first {
        "localhost" => Some(first),
        "index.docker.io" => Some("docker.io"),
        _ if first.contains(['.', ':']) || first.chars().any(char::is_uppercase) => Some(first),
        _ => None,
    };
    let (domain, path) = domain.map_or(("docker.io", text), |domain| (domain, rest));
    let path = if domain == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    (domain.to_owned(), path)
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// Runs of lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().copied().is_some_and(word) || !bytes.last().copied().is_some_and(word) {
        return false;
    }
    text.split(|c: char| word(u8::try_from(c).unwrap_or(0)))
        .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let part = |p: &str| {
        p.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && p.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(part) && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(text: &str) -> (String, String) {
        let name = ImageName::parse(text).unwrap();
        (name.full(), name.familiar())
    }

    #[test]
    fn names_have_a_full_and_a_short_form() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(forms("busybox"), pair("docker.io/library/busybox:latest", "busybox"));
        assert_eq!(forms("docker.io/library/busybox:latest"), pair("docker.io/library/busybox:latest", "busybox"));
        assert_eq!(forms("index.docker.io/me/x:1"), pair("docker.io/me/x:1", "me/x:1"));
        assert_eq!(forms("localhost:5000/a/b"), pair("localhost:5000/a/b:latest", "localhost:5000/a/b"));
        let digest = format!("a@sha256:{}", "0".repeat(64));
        assert_eq!(forms(&digest), (format!("docker.io/library/{digest}"), digest));
        assert_eq!(forms("a__b--c.d").1, "a__b--c.d");
    }

    #[test]
    fn what_is_no_name() {
        assert_eq!(
            ImageName::parse("ONE").unwrap_err(),
            "invalid reference format: repository name (library/ONE) must be lowercase"
        );
        for bad in ["", "a b", "a:", ":x", "a@b", "-a", "a..b", "a___b", "$X", "a/", "ü", &"f".repeat(64)] {
            assert!(ImageName::parse(bad).is_err(), "{bad}");
        }
    }
}
