//! RPM packages: the headers in rpm's database, whichever of its three formats that has.

mod header;

pub(super) mod bdb;
pub(super) mod ndb;
pub(super) mod sqlite;

use self::header::{Header, tag};
use super::{Actor, Ecosystem, Found, License, OsRelease, Package};
use crate::purl;

/// One header is at most this long, in bytes (rpm's own limit).
const HEADER_LIMIT: usize = 256 << 20;

/// Whether a directory is one where rpm keeps its database: the old place, and that of images whose /usr is all.
pub(super) fn is_database_dir(dir: &[u8]) -> bool {
    matches!(dir, b"/var/lib/rpm" | b"/usr/lib/sysimage/rpm" | b"/usr/share/rpm")
}

/// The packages of headers as the database holds them.
pub(super) fn packages(headers: &[Vec<u8>], os: &OsRelease) -> Found {
    let mut packages = Vec::with_capacity(headers.len());
    for bytes in headers {
        let header = Header::parse(bytes).ok_or("a damaged package header")?;
        packages.extend(package(&header, os));
    }
    Ok(packages)
}

fn package(header: &Header<'_>, os: &OsRelease) -> Option<Package> {
    let text = |tag| header.text(tag).filter(|t| !t.is_empty() && t != "(none)");
    let (name, version, release) = (text(tag::NAME)?, text(tag::VERSION)?, text(tag::RELEASE)?);
    // Keys that are trusted are kept as if they were packages.
    if name == "gpg-pubkey" {
        return None;
    }
    let epoch = header.number(tag::EPOCH).map(|e| e.to_string());
    let full = format!("{version}-{release}");
    let architecture = text(tag::ARCH).unwrap_or_default();
    let source = text(tag::SOURCERPM).unwrap_or_default();
    let qualifiers = [
        ("arch", architecture.as_str()),
        ("distro", &os.distro()),
        ("epoch", epoch.as_deref().unwrap_or_default()),
        ("upstream", &source),
    ];
    let vendor = text(tag::VENDOR);
    let url = purl::package("rpm", os.vendor("rpm"), &name, &full, &qualifiers);
    let shown = epoch.map_or_else(|| full.clone(), |e| format!("{e}:{full}"));
    let mut package = Package::new(Ecosystem::Rpm, &name, &shown, url);
    package.license = text(tag::LICENSE).map(|l| License::parse(&l)).unwrap_or_default();
    package.supplier = match vendor {
        Some(vendor) => Some(Actor::Organization(vendor.replace(['(', ')'], ""))),
        None => text(tag::PACKAGER).and_then(|p| Actor::parse(&p)),
    };
    package.homepage = text(tag::URL);
    package.summary = text(tag::SUMMARY);
    Some(package)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A header as the database holds it: counts, index entries, data.
    pub(crate) fn header(texts: &[(u32, &str)], epoch: Option<u32>) -> Vec<u8> {
        let (mut index, mut data) = (Vec::new(), Vec::new());
        let mut entry = |tag: u32, kind: u32, value: &[u8], data: &mut Vec<u8>| {
            for number in [tag, kind, data.len() as u32, 1] {
                index.extend_from_slice(&number.to_be_bytes());
            }
            data.extend_from_slice(value);
        };
        let mut count = texts.len() as u32;
        if let Some(epoch) = epoch {
            entry(tag::EPOCH, 4, &epoch.to_be_bytes(), &mut data);
            count += 1;
        }
        for (tag, text) in texts {
            entry(*tag, 6, &[text.as_bytes(), b"\0"].concat(), &mut data);
        }
        [&count.to_be_bytes()[..], &(data.len() as u32).to_be_bytes(), &index, &data].concat()
    }

    pub(crate) fn bash() -> Vec<u8> {
        let texts = [
            (tag::NAME, "bash"),
            (tag::VERSION, "5.2.26"),
            (tag::RELEASE, "3.fc40"),
            (tag::ARCH, "x86_64"),
            (tag::VENDOR, "Fedora Project"),
            (tag::LICENSE, "GPL-3.0-or-later"),
            (tag::SOURCERPM, "bash-5.2.26-3.fc40.src.rpm"),
        ];
        header(&texts, None)
    }

    #[test]
    fn headers_are_packages() {
        let os = OsRelease { id: "fedora".into(), version_id: "40".into(), ..OsRelease::default() };
        let old =
            header(&[(tag::NAME, "x"), (tag::VERSION, "1"), (tag::RELEASE, "2"), (tag::LICENSE, "GPLv2+")], Some(3));
        let key = header(&[(tag::NAME, "gpg-pubkey"), (tag::VERSION, "1"), (tag::RELEASE, "2")], None);
        let found = packages(&[bash(), old, key], &os).unwrap();
        let urls: Vec<_> = found.iter().map(|p| p.purl.as_str()).collect();
        assert_eq!(
            urls,
            [
                "pkg:rpm/fedora/bash@5.2.26-3.fc40?arch=x86_64&distro=fedora-40&upstream=bash-5.2.26-3.fc40.src.rpm",
                "pkg:rpm/fedora/x@1-2?distro=fedora-40&epoch=3",
            ]
        );
        assert_eq!(found[0].supplier, Some(Actor::Organization("Fedora Project".into())));
        assert_eq!(found[1].version, "3:1-2");
        assert!(found[1].license.expression().unwrap().starts_with("LicenseRef-GPLv2"));
    }

    #[test]
    fn damaged_headers_are_refused() {
        let whole = bash();
        for cut in [0, 7, 20, whole.len() - 1] {
            assert!(packages(&[whole.get(..cut).unwrap().to_vec()], &OsRelease::default()).is_err());
        }
        assert!(packages(&[vec![0xff; 64]], &OsRelease::default()).is_err());
    }
}
