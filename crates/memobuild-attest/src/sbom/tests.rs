//! Whole images, from files to document.

use ::spdx as spdx_crate;
use proptest::prelude::{Strategy, any, prop_assert};
use serde_json::Value;

use super::*;
use crate::files::tests::Image;

/// A 64-bit program with sections of these names and contents.
fn elf(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut names = vec![0];
    let mut body = Vec::new();
    let mut headers = vec![0; 64];
    let mut header = |name: usize, offset: usize, len: usize| {
        let mut row = Vec::new();
        row.extend_from_slice(&(name as u32).to_le_bytes());
        row.extend_from_slice(&1u32.to_le_bytes());
        row.extend_from_slice(&[0; 16]);
        row.extend_from_slice(&(offset as u64).to_le_bytes());
        row.extend_from_slice(&(len as u64).to_le_bytes());
        row.resize(64, 0);
        headers.extend(row);
    };
    for (name, content) in sections {
        body.resize(body.len().next_multiple_of(16), 0);
        header(names.len(), 64 + body.len(), content.len());
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        body.extend_from_slice(content);
    }
    header(0, 64 + body.len(), names.len());
    body.extend_from_slice(&names);
    let mut head = b"\x7fELF\x02\x01\x01".to_vec();
    head.resize(64, 0);
    head[40..48].copy_from_slice(&(64 + body.len() as u64).to_le_bytes());
    head[58..60].copy_from_slice(&64u16.to_le_bytes());
    let count = sections.len() as u16 + 2;
    head[60..62].copy_from_slice(&count.to_le_bytes());
    head[62..64].copy_from_slice(&(count - 1).to_le_bytes());
    [head, body, headers].concat()
}

fn go_info(modules: &str) -> Vec<u8> {
    let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
    info.resize(32, 0);
    info.push(8);
    info.extend_from_slice(b"go1.22.3");
    let len = modules.len() + 32;
    info.extend_from_slice(&[(len & 0x7f) as u8 | 0x80, (len >> 7) as u8]);
    info.extend_from_slice(&[b"0".repeat(16), modules.as_bytes().to_vec(), b"1".repeat(16)].concat());
    info
}

/// A program without sections whose build information, as before Go 1.18, has pointers to Go strings.
fn old_go(version: &str, modules: &str) -> Vec<u8> {
    const BASE: u64 = 0x50_0000;
    let modules = [&b"0".repeat(16)[..], modules.as_bytes(), &b"1".repeat(16)].concat();
    let mut data = vec![0; 16];
    data.extend_from_slice(b"\xff Go buildinf:\x08\x00");
    let strings = 64;
    let texts = strings + 32;
    for at in [BASE + strings, BASE + strings + 16] {
        data.extend_from_slice(&at.to_le_bytes());
    }
    data.resize(strings as usize, 0);
    let after = texts + version.len() as u64;
    for (at, len) in [(texts, version.len()), (after, modules.len())] {
        data.extend_from_slice(&(BASE + at).to_le_bytes());
        data.extend_from_slice(&(len as u64).to_le_bytes());
    }
    data.extend_from_slice(version.as_bytes());
    data.extend_from_slice(&modules);
    let mut segment = [1u32.to_le_bytes(), 6u32.to_le_bytes()].concat();
    for number in [120, BASE, BASE, data.len() as u64, data.len() as u64, 4096] {
        segment.extend_from_slice(&number.to_le_bytes());
    }
    let mut head = b"\x7fELF\x02\x01\x01".to_vec();
    head.resize(64, 0);
    head[32..40].copy_from_slice(&64u64.to_le_bytes());
    head[54..58].copy_from_slice(&[56, 0, 1, 0]);
    [head, segment, data].concat()
}

const COPYRIGHT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
    Files: *\nCopyright: x\nLicense: GPL-2+\n\nFiles: lib/*\nCopyright: y\nLicense: odd-terms\n";

fn image() -> Image {
    Image::default()
        .file("/usr/lib/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n")
        .link("/etc/os-release", "../usr/lib/os-release")
        .file(
            "/var/lib/dpkg/status",
            "Package: bash\nStatus: install ok installed\nVersion: 5.2\nArchitecture: amd64\n",
        )
        .file("/var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 12\nArchitecture: all\n")
        .file("/var/lib/dpkg/status.d/base.md5sums", "Package: no\nVersion: 1\n")
        .link("/usr/share/doc/bash", "bash-common")
        .file("/usr/share/doc/bash-common/copyright", COPYRIGHT)
        .file("/usr/lib/python3/dist-packages/six-1.16.dist-info/METADATA", "Name: six\nVersion: 1.16\nLicense: MIT\n")
        .file("/app/package.json", r#"{"name":"app","version":"1.0.0"}"#)
        .file("/app/node_modules/a/package.json", r#"{"name":"a","version":"2.0.0","license":"ISC"}"#)
        .file("/app/node_modules/a/test/package.json", r#"{"name":"fixture","version":"9.0.0"}"#)
        .file("/other/package.json", r#"{"name":"other","version":"1.0.0"}"#)
        .file(
            "/usr/bin/tool",
            elf(&[(".text", vec![0; 40]), (".go.buildinfo", go_info("path\tx.org/t\nmod\tx.org/t\tv1.0.0\n"))]),
        )
        .file(
            "/usr/bin/again",
            elf(&[(".go.buildinfo", go_info("path\tx.org/t\nmod\tx.org/t\tv1.0.0\ndep\tx.org/d\tv0.1.0\n"))]),
        )
        .file("/usr/bin/plain", elf(&[(".text", vec![0; 40])]))
        .file("/var/lib/rpm/Packages.db", "damaged")
}

fn document(scan: &Scan) -> Vec<u8> {
    let image = memobuild_tree::Sha256Digest::of(b"image");
    let document = Document { name: "example.org/app", image, created: 1_700_000_000, tool_version: "0.0.0" };
    document.to_json(scan).unwrap()
}

#[test]
fn an_image_of_everything() {
    let image = image();
    let scan = scan(&image.files()).unwrap();
    let urls: Vec<_> = scan.packages.iter().map(|p| p.purl.as_str()).collect();
    assert_eq!(
        urls,
        [
            "pkg:deb/debian/base-files@12?arch=all&distro=debian-12",
            "pkg:deb/debian/bash@5.2?arch=amd64&distro=debian-12",
            "pkg:generic/debian@12",
            "pkg:golang/stdlib@1.22.3",
            "pkg:golang/x.org/d@v0.1.0",
            "pkg:golang/x.org/t@v1.0.0",
            "pkg:npm/a@2.0.0",
            "pkg:npm/app@1.0.0",
            "pkg:pypi/six@1.16",
        ]
    );
    let tool = scan.packages.iter().find(|p| p.purl.ends_with("x.org/t@v1.0.0")).unwrap();
    assert_eq!(tool.locations.iter().collect::<Vec<_>>(), ["/usr/bin/again", "/usr/bin/tool"]);
    let bash = scan.packages.iter().find(|p| p.name == "bash").unwrap();
    assert_eq!(bash.license.expression(), Some("GPL-2.0-or-later AND LicenseRef-odd-terms"));
    assert_eq!(scan.warnings.len(), 1, "{:?}", scan.warnings);
    assert_eq!(scan.warnings[0].path, "/var/lib/rpm/Packages.db");
}

#[test]
fn documents_are_whole_and_the_same_each_time() {
    let image = image();
    let found = scan(&image.files()).unwrap();
    let bytes = document(&found);
    assert_eq!(bytes, document(&scan(&image.files()).unwrap()));
    let json: Value = serde_json::from_slice(&bytes).unwrap();
    let packages = json["packages"].as_array().unwrap();
    assert_eq!(packages.len(), found.packages.len() + 1);
    let ids: std::collections::BTreeSet<_> = packages.iter().map(|p| p["SPDXID"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), packages.len());
    for relation in json["relationships"].as_array().unwrap() {
        assert!(ids.contains(relation["relatedSpdxElement"].as_str().unwrap()));
    }
    assert_eq!(json["relationships"].as_array().unwrap().len(), packages.len());
    assert_eq!(json["hasExtractedLicensingInfos"][0]["licenseId"], "LicenseRef-odd-terms");
    assert_eq!(json["creationInfo"]["created"], "2023-11-14T22:13:20Z");
    let namespace = json["documentNamespace"].as_str().unwrap();
    assert!(namespace.ends_with(&memobuild_tree::Sha256Digest::of(b"image").hex()));
}

#[test]
fn programs_of_older_go_are_found_without_sections() {
    let program = old_go("go1.17.3", "path\tx.org/t\nmod\tx.org/t\tv1.0.0\ndep\tx.org/d\tv2.0.0\n");
    let image = Image::default().file("/x", &program).file("/var/lib/rpm/rpmdb.sqlite-wal", "frames");
    let found = scan(&image.files()).unwrap();
    let urls: Vec<_> = found.packages.iter().map(|p| p.purl.as_str()).collect();
    assert_eq!(urls, ["pkg:golang/stdlib@1.17.3", "pkg:golang/x.org/d@v2.0.0", "pkg:golang/x.org/t@v1.0.0"]);
    assert_eq!(found.warnings.len(), 1);
}

#[test]
fn what_cannot_be_read_is_an_error_not_a_gap() {
    struct Broken;
    impl Files for Broken {
        fn list(&self, dir: &[u8]) -> Vec<crate::Entry> {
            let kind = EntryKind::File { size: 100, executable: true };
            if dir == b"/" { vec![crate::Entry { name: b"x".to_vec(), kind }] } else { Vec::new() }
        }
        fn size(&self, _: &[u8]) -> Option<u64> {
            None
        }
        fn read_at(&self, _: &[u8], _: u64, _: usize) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let error = scan(&Broken).unwrap_err();
    assert_eq!(error.path, b"/x");
}

#[test]
fn programs_with_rubbish_in_their_headers_do_no_harm() {
    let whole = elf(&[(".go.buildinfo", go_info("path\tx\n")), (".dep-v0", b"rubbish".to_vec())]);
    for at in 4..64 {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = whole.clone();
            bad[at] = value;
            scan(&Image::default().file("/x", &bad).files()).unwrap();
        }
    }
    let old = old_go("go1.17", "path\tx.org/t\n");
    for at in 4..old.len() {
        let mut bad = old.clone();
        bad[at] ^= 0xff;
        scan(&Image::default().file("/x", &bad).files()).unwrap();
    }
    for len in (0..whole.len()).step_by(7) {
        scan(&Image::default().file("/x", whole.get(..len).unwrap()).files()).unwrap();
    }
    let found = scan(&Image::default().file("/x", &whole).files()).unwrap();
    assert_eq!((found.packages.len(), found.warnings.len()), (2, 1));
}

/// Databases in which any byte may be wrong: errors at most, and soon.
fn damaged(whole: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((0..whole.len(), any::<u8>()), 1..20);
    (changes, 0..=whole.len()).prop_map(move |(changes, len)| {
        let mut bytes = whole.clone();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(len.max(whole.len() / 2));
        bytes
    })
}

proptest::proptest! {
    #[test]
    fn damaged_databases_do_no_harm(header in damaged(rpm::tests::bash()), bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let os = OsRelease::default();
        let _ = rpm::packages(&[header], &os);
        let _ = rpm::ndb::headers(&bytes);
        let _ = rpm::sqlite::headers(&[b"SQLite format 3\0", bytes.as_slice()].concat());
        // Past the head, so that the pages are looked at.
        let mut bdb = vec![0; 72];
        for (at, value) in [(12, 0x0006_1561u32), (16, 9), (20, 512), (32, 7)] {
            bdb[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        bdb.extend(bytes);
        for page in 1..8 {
            if let Some(kind) = bdb.get_mut(page * 512 + 25) {
                *kind = [2, 7, 13][usize::from(*kind) % 3];
            }
        }
        let _ = rpm::bdb::headers(&bdb);
    }

    #[test]
    fn damaged_programs_do_no_harm(new in damaged(elf(&[(".go.buildinfo", go_info("path\tx\n"))])), old in damaged(old_go("go1.17", "path\tx\n"))) {
        for program in [new, old] {
            prop_assert!(scan(&Image::default().file("/x", &program).files()).is_ok());
        }
    }

    #[test]
    fn licences_are_valid_whatever_is_declared(words in proptest::collection::vec("MIT|GPL-2\\+?|and|or|with|AND|OR|WITH|[(),+|]|LicenseRef-x|Perl|\\PC{1,8}", 0..12)) {
        let text = words.join(" ");
        let copyright = format!("Format: copyright-format\n\nFiles: *\nLicense: {text}\n\nFiles: a\nLicense: MIT or ISC\n");
        for license in [License::parse(&text), copyright::license(&copyright)] {
            let Some(expression) = license.expression() else { continue };
            prop_assert!(spdx_crate::Expression::parse(expression).is_ok(), "{text:?} became {expression:?}");
            let used = expression.split([' ', '(', ')']).filter(|w| w.starts_with("LicenseRef-"));
            let known: Vec<_> = license.references().map(|(id, _)| id).collect();
            prop_assert!(used.clone().all(|id| known.contains(&id)), "{expression:?} with {known:?}");
        }
    }
}
