//! Python distributions: core metadata (packaging.python.org, "Core metadata specifications").

use super::{Actor, Ecosystem, Found, License, Package, stanza};
use crate::purl;

/// Whether a file is the metadata of an installed distribution.
pub(super) fn is_metadata(dir: &[u8], name: &[u8]) -> bool {
    match name {
        b"METADATA" => dir.ends_with(b".dist-info"),
        b"PKG-INFO" => dir.ends_with(b".egg-info") || dir.ends_with(b"/EGG-INFO"),
        // Distributions without files of their own, as distutils wrote them.
        _ => name.ends_with(b".egg-info"),
    }
}

/// The distribution that a metadata file describes.
pub(super) fn parse(text: &str) -> Found {
    // After the first empty line comes the description.
    let fields = stanza::stanzas(text).next().ok_or("empty metadata")?;
    let (Some(name), Some(version)) = (fields.line("Name"), fields.line("Version")) else {
        return Err("metadata without Name or Version".into());
    };
    let mut package = Package::new(Ecosystem::Python, name, version, url(name, version));
    // License-Expression is one by definition; License is free text, often all of it.
    let license = fields.line("License-Expression").or_else(|| fields.get("License"));
    package.license = license.map(License::parse).unwrap_or_default();
    let author = ["Author", "Author-email", "Maintainer", "Maintainer-email"].iter().find_map(|f| fields.line(f));
    package.originator = author.filter(|a| *a != "UNKNOWN").and_then(Actor::parse);
    package.homepage = homepage(&fields);
    package.summary = fields.line("Summary").filter(|s| *s != "UNKNOWN").map(Into::into);
    Ok(vec![package])
}

fn homepage(fields: &stanza::Stanza<'_>) -> Option<String> {
    let labelled = |wanted: &str| {
        let mut projects = fields.all("Project-URL").filter_map(|u| u.split_once(','));
        projects.find(|(label, _)| label.trim().eq_ignore_ascii_case(wanted)).map(|(_, url)| url.trim().to_owned())
    };
    let page = fields.line("Home-page").map(ToOwned::to_owned);
    page.or_else(|| labelled("Homepage")).or_else(|| labelled("Home")).or_else(|| labelled("Source"))
}

/// Names are compared as PyPI does: lower case, and runs of `-`, `_` and `.` are one `-` (PEP 503).
fn url(name: &str, version: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.chars() {
        let c = if matches!(c, '_' | '.') { '-' } else { c.to_ascii_lowercase() };
        if c != '-' || !normal.ends_with('-') {
            normal.push(c);
        }
    }
    purl::package("pypi", "", &normal, version, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read() {
        let text = "Metadata-Version: 2.4\nName: Foo_bar\nVersion: 1.0\nSummary: Does foo\nAuthor-email: Ann <ann@example.org>\n\
            License-Expression: MIT OR Apache-2.0\nProject-URL: Homepage, https://example.org/foo\n\nName: not this\n";
        let found = parse(text).unwrap();
        let package = found.first().unwrap();
        assert_eq!(package.purl, "pkg:pypi/foo-bar@1.0");
        assert_eq!(package.license.expression(), Some("MIT OR Apache-2.0"));
        assert_eq!(package.originator, Some(Actor::Person("Ann (ann@example.org)".into())));
        assert_eq!(package.homepage.as_deref(), Some("https://example.org/foo"));
        assert!(parse("Name: x\n").is_err());
    }

    #[test]
    fn metadata_is_known_by_its_place() {
        assert!(is_metadata(b"/x/foo-1.dist-info", b"METADATA"));
        assert!(is_metadata(b"/x/foo.egg-info", b"PKG-INFO"));
        assert!(is_metadata(b"/x", b"foo-1.0.egg-info"));
        assert!(!is_metadata(b"/x/foo-1", b"PKG-INFO"));
    }
}
