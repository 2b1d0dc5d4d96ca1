//! Debian packages: dpkg's status database (deb822(5), dpkg-query(1) "Package status").

use super::{Actor, Ecosystem, OsRelease, Package, stanza};
use crate::purl;

/// The packages of a status file whose files are there. One that was removed may leave its configuration: not it.
pub(super) fn parse(text: &str, os: &OsRelease) -> Vec<Package> {
    stanza::stanzas(text).filter_map(|s| package(&s, os)).collect()
}

fn package(fields: &stanza::Stanza<'_>, os: &OsRelease) -> Option<Package> {
    let (name, version) = (fields.line("Package")?, fields.line("Version")?);
    // Files of distroless images have no status.
    let state = fields.line("Status").and_then(|s| s.split(' ').nth(2));
    if matches!(state, Some("not-installed" | "config-files")) {
        return None;
    }
    // `name (version)`, the version only where it is another one.
    let source = match fields.line("Source").unwrap_or(name).split_once(" (") {
        Some((source, version)) => format!("{source}@{}", version.trim_end_matches(')')),
        None => fields.line("Source").unwrap_or(name).to_owned(),
    };
    let qualifiers = [
        ("arch", fields.line("Architecture").unwrap_or_default()),
        ("distro", &os.distro()),
        ("upstream", if source == name { "" } else { &source }),
    ];
    let url = purl::package("deb", os.vendor("debian"), &name.to_lowercase(), version, &qualifiers);
    let mut package = Package::new(Ecosystem::Deb, name, version, url);
    package.supplier = fields.line("Maintainer").and_then(Actor::parse);
    package.homepage = fields.line("Homepage").map(Into::into);
    package.summary = fields.line("Description").map(Into::into);
    Some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Package: libc-bin
Status: install ok installed
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u9
Description: GNU C Library: Binaries
 This package contains utility programs.
Homepage: https://www.gnu.org/software/libc/libc.html

Package: gone
Status: deinstall ok config-files
Version: 1

Package: adduser
Version: 1:3.134
Architecture: all
";

    #[test]
    fn what_is_installed_is_found() {
        let os = OsRelease { id: "debian".into(), version_id: "12".into(), ..OsRelease::default() };
        let found = parse(STATUS, &os);
        let urls: Vec<_> = found.iter().map(|p| p.purl.as_str()).collect();
        assert_eq!(
            urls,
            [
                "pkg:deb/debian/libc-bin@2.36-9%2Bdeb12u9?arch=amd64&distro=debian-12&upstream=glibc%402.36-9",
                "pkg:deb/debian/adduser@1:3.134?arch=all&distro=debian-12",
            ]
        );
        let libc = found.first().unwrap();
        assert_eq!(libc.summary.as_deref(), Some("GNU C Library: Binaries"));
        assert_eq!(
            libc.supplier,
            Some(Actor::Organization("GNU Libc Maintainers (debian-glibc@lists.debian.org)".into()))
        );
    }
}
