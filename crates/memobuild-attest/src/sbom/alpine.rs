//! Alpine packages: the database of apk (apk-tools, "apk installed database").

use super::{Actor, Ecosystem, License, OsRelease, Package};
use crate::purl;

/// The packages of a database: paragraphs of lines `X:value`, of which only those of packages matter here.
pub(super) fn parse(text: &str, os: &OsRelease) -> Vec<Package> {
    let mut packages = Vec::new();
    for paragraph in text.split("\n\n") {
        // Lines about files follow those about the package; a letter that comes again belongs to them.
        let field = |key: &str| {
            let line = paragraph.lines().take_while(|l| !l.starts_with("F:")).find_map(|l| l.strip_prefix(key));
            line.map(str::trim).filter(|v| !v.is_empty())
        };
        let (Some(name), Some(version)) = (field("P:"), field("V:")) else {
            continue;
        };
        let origin = field("o:").filter(|o| *o != name).unwrap_or_default();
        let qualifiers = [("arch", field("A:").unwrap_or_default()), ("distro", &os.distro()), ("upstream", origin)];
        let url = purl::package("apk", os.vendor("alpine"), &name.to_lowercase(), version, &qualifiers);
        let mut package = Package::new(Ecosystem::Apk, name, version, url);
        package.license = field("L:").map(License::parse).unwrap_or_default();
        package.supplier = field("m:").and_then(Actor::parse);
        package.homepage = field("U:").map(Into::into);
        package.summary = field("T:").map(Into::into);
        packages.push(package);
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_told_from_their_files() {
        let text = "C:Q1abc=\nP:busybox-binsh\nV:1.36.1-r29\nA:x86_64\nT:busybox ash /bin/sh\nU:https://busybox.net/\n\
            L:GPL-2.0-only\no:busybox\nm:Sören Tempel <soeren@example.org>\nF:bin\nR:sh\na:0:0:777\n\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\n";
        let os = OsRelease { id: "alpine".into(), version_id: "3.20.1".into(), ..OsRelease::default() };
        let found = parse(text, &os);
        let urls: Vec<_> = found.iter().map(|p| p.purl.as_str()).collect();
        assert_eq!(
            urls,
            [
                "pkg:apk/alpine/busybox-binsh@1.36.1-r29?arch=x86_64&distro=alpine-3.20.1&upstream=busybox",
                "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.20.1",
            ]
        );
        assert_eq!(found.first().unwrap().license.expression(), Some("GPL-2.0-only"));
        assert_eq!(found.first().unwrap().supplier, Some(Actor::Person("Sören Tempel (soeren@example.org)".into())));
    }
}
