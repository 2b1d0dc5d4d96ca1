//! Package URLs (purl-spec, "A purl is a URL composed of seven components"), and those of images as BuildKit writes them.

use std::fmt::Write as _;

use memobuild_image::Platform;
use memobuild_tree::Sha256Digest;

/// Percent-encodes all but the unreserved characters of RFC 3986 and `:`, as purl-spec says ("Character encoding").
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~' | b':') {
            out.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Writes a package URL. The namespace may have several parts, separated by `/`; empty parts, an empty version and empty
/// qualifiers are left out. Qualifiers are sorted by key. Names are taken as they are: each type has its own rules.
pub fn package(kind: &str, namespace: &str, name: &str, version: &str, qualifiers: &[(&str, &str)]) -> String {
    let mut out = format!("pkg:{kind}");
    for part in namespace.split('/').filter(|p| !p.is_empty()) {
        out.push('/');
        encode(&mut out, part);
    }
    out.push('/');
    encode(&mut out, name);
    if !version.is_empty() {
        out.push('@');
        encode(&mut out, version);
    }
    let mut qualifiers: Vec<_> = qualifiers.iter().filter(|(_, value)| !value.is_empty()).collect();
    qualifiers.sort();
    for (i, (key, value)) in qualifiers.into_iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        encode(&mut out, value);
    }
    out
}

/// The package URL of an image, by which statements name their subjects and materials (BuildKit's `util/purl`): the name
/// as a user writes it (`alpine`, not `docker.io/library/alpine`), a tag or else a digest, and the platform.
/// A name with neither gets the tag `latest`.
pub fn image(reference: &str, platform: Option<&Platform>) -> String {
    image_as("docker", reference, platform)
}

/// As [`image`], of one that comes from no registry but from an OCI layout on disk.
pub fn layout_image(reference: &str, platform: Option<&Platform>) -> String {
    image_as("oci", reference, platform)
}

fn image_as(kind: &str, reference: &str, platform: Option<&Platform>) -> String {
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, digest),
        None => (reference, ""),
    };
    let last = name.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match name.get(last..).and_then(|n| n.find(':')).and_then(|at| name.split_at_checked(last + at)) {
        Some((name, tag)) => (name, tag.trim_start_matches(':')),
        None => (name, if digest.is_empty() { "latest" } else { "" }),
    };
    let name = name.strip_prefix("index.docker.io/").or_else(|| name.strip_prefix("docker.io/")).unwrap_or(name);
    let name = name.strip_prefix("library/").filter(|n| !n.contains('/')).unwrap_or(name);
    let (namespace, name) = name.rsplit_once('/').unwrap_or(("", name));
    let platform = platform.map(ToString::to_string).unwrap_or_default();
    package(kind, namespace, name, tag, &[("digest", digest), ("platform", &platform)])
}

/// The package URL of an image that is known by its digest alone, in the type that knows no registry.
pub(crate) fn oci(name: &str, digest: &Sha256Digest) -> String {
    package("oci", "", &name.to_lowercase(), &digest.to_string(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_buildkit_names_them() {
        let digest = Sha256Digest::of(b"test");
        let platform: Platform = "linux/arm64".parse().unwrap();
        for (reference, platform, expected) in [
            ("alpine", None, "pkg:docker/alpine@latest".to_owned()),
            ("docker.io/library/alpine:3.15", None, "pkg:docker/alpine@3.15".to_owned()),
            (&format!("alpine:3@{digest}"), None, format!("pkg:docker/alpine@3?digest={digest}")),
            (&format!("docker.io/library/alpine@{digest}"), None, format!("pkg:docker/alpine?digest={digest}")),
            ("library/a/b:1", None, "pkg:docker/library/a/b@1".to_owned()),
            ("user/test:v2", None, "pkg:docker/user/test@v2".to_owned()),
            ("ghcr.io/foo/bar", None, "pkg:docker/ghcr.io/foo/bar@latest".to_owned()),
            ("localhost:5000/bar:1", None, "pkg:docker/localhost:5000/bar@1".to_owned()),
            ("busybox", Some(&platform), "pkg:docker/busybox@latest?platform=linux%2Farm64".to_owned()),
        ] {
            assert_eq!(image(reference, platform), expected);
        }
    }

    #[test]
    fn what_is_not_plain_is_encoded_and_qualifiers_are_sorted() {
        let text =
            package("deb", "debian", "libstdc++6", "1:2.4-2+b1", &[("upstream", ""), ("distro", "a b"), ("arch", "x")]);
        assert_eq!(text, "pkg:deb/debian/libstdc%2B%2B6@1:2.4-2%2Bb1?arch=x&distro=a%20b");
        assert_eq!(package("npm", "@angular", "core", "1.0.0", &[]), "pkg:npm/%40angular/core@1.0.0");
    }
}
