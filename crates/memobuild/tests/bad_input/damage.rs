//! A cache whose files are damaged, one after the other: the build goes on without what is damaged, and its result is
//! the same.

use std::{fs, path::Path};

use memobuild_tree::ContentDigest;

use crate::{
    common::{Place, text},
    support::{self, built, cache, files_below, overwrite, place_with_base},
};

const LARGE: usize = 300_000;

/// A base, a copy of small and large files, steps that write both kinds, and a copy between stages.
fn place() -> Option<Place> {
    let dockerfile = "FROM base AS one\nWORKDIR /w\nCOPY small large ./\n\
        RUN cat small large >both && echo made >made && head -c 200000 /dev/zero >zeros\n\
        FROM base\nCOPY --from=one /w /w\nRUN wc -c /w/both /w/zeros >/count && cat /w/made >>/count\n";
    let (place, _) = place_with_base(dockerfile, &[support::busybox_layer()?]);
    place.write("small", "small\n");
    place.write("large", &"0123456789".repeat(LARGE / 10));
    Some(place)
}

/// What a build gives; `None` as long as it must be asked for again.
fn check(place: &Place) -> String {
    let shown = built(place);
    let entries = support::listed(&place.path("out.tar"));
    let size = |name: &str| entries.iter().find(|e| e.0 == name).map(|e| e.2);
    let sizes = ["w/small", "w/large", "w/both", "w/made", "w/zeros"].map(size);
    assert_eq!(sizes, [6, LARGE as u64, LARGE as u64 + 6, 5, 200_000].map(Some), "{shown}");
    let all = fs::read(place.path("out.tar")).unwrap();
    assert!(text(&all).contains("   300006 /w/both\n   200000 /w/zeros\n"), "{shown}");
    fs::remove_file(place.path("out.tar")).unwrap();
    shown
}

fn with_each(place: &Place, dir: &str, at_least: usize, damage: impl Fn(&Path)) {
    check(place);
    let files = files_below(&cache(place).join(dir));
    assert!(files.len() >= at_least, "{dir}: {files:?}");
    for file in files {
        // What an earlier round put in its place has the same name.
        if file.exists() {
            damage(&file);
            check(place);
        }
    }
    // All at once.
    for file in files_below(&cache(place).join(dir)) {
        damage(&file);
    }
    check(place);
    let shown = check(place);
    assert!(!shown.contains("damaged"), "whole again: {shown}");
}

#[test]
fn bundles_with_a_changed_byte() {
    let Some(place) = place() else { return };
    for third in [0, 1, 3] {
        with_each(&place, "bundles", 3, |file| {
            overwrite(file, |bytes| {
                // Behind the 16 bytes that say what kind of file it is.
                let at = 16 + (bytes.len() - 17) * third / 3;
                bytes[at] ^= 0x10;
            });
        });
    }
}

#[test]
fn bundles_that_are_cut_short_empty_or_gone() {
    let Some(place) = place() else { return };
    with_each(&place, "bundles", 3, |file| overwrite(file, |bytes| bytes.truncate(bytes.len() / 2)));
    with_each(&place, "bundles", 3, |file| overwrite(file, Vec::clear));
    with_each(&place, "bundles", 3, |file| fs::remove_file(file).unwrap());
}

#[test]
fn large_blobs_that_are_changed_cut_short_or_gone() {
    let Some(place) = place() else { return };
    with_each(&place, "blobs", 3, |file| overwrite(file, |bytes| bytes[70_000] ^= 1));
    with_each(&place, "blobs", 3, |file| overwrite(file, |bytes| bytes.truncate(100_000)));
    with_each(&place, "blobs", 3, |file| fs::remove_file(file).unwrap());
}

#[test]
fn compressed_layers_that_are_changed_or_gone() {
    let Some(place) = place() else { return };
    let oci = |name: &str| {
        let output = format!("type=oci,dest={name}");
        let out = place.memobuild(&[
            "build",
            "--progress=plain",
            "--build-context",
            "base=oci-layout://base",
            "--output",
            &output,
            ".",
        ]);
        assert!(out.status.success(), "{}", text(&out.stderr));
        let bytes = fs::read(place.path(name)).unwrap();
        fs::remove_file(place.path(name)).unwrap();
        ContentDigest::of(&bytes)
    };
    let first = oci("out1");
    for damage in [|file: &Path| overwrite(file, |b| b[30] ^= 1), |file: &Path| fs::remove_file(file).unwrap()] {
        let files = files_below(&cache(&place).join("oci"));
        assert!(files.len() >= 4, "{files:?}");
        for file in files {
            if file.exists() {
                damage(&file);
                assert_eq!(oci("out2"), first, "{}", file.display());
            }
        }
    }
}

#[test]
fn an_index_that_is_noise_cut_short_or_gone() {
    let Some(place) = place() else { return };
    check(&place);
    let index: Vec<_> = files_below(&cache(&place)).into_iter().filter(|f| is_index(f)).collect();
    assert!(!index.is_empty());
    let damages: [fn(&Path); 5] = [
        |file| overwrite(file, |bytes| bytes.fill(0x5a)),
        |file| overwrite(file, |bytes| bytes.truncate(bytes.len() / 2)),
        |file| overwrite(file, Vec::clear),
        |file| {
            overwrite(file, |bytes| {
                let end = bytes.len().min(16_384);
                bytes[4096.min(end)..end].fill(0xff);
            });
        },
        |file| fs::remove_file(file).unwrap(),
    ];
    for damage in damages {
        for file in files_below(&cache(&place)).into_iter().filter(|f| is_index(f)) {
            damage(&file);
        }
        check(&place);
        check(&place);
    }
}

fn is_index(file: &Path) -> bool {
    let name = text(std::os::unix::ffi::OsStrExt::as_bytes(file.file_name().unwrap()));
    name.starts_with("index.") && !name.contains("damaged")
}

/// A context that came as an archive lies in the cache only: when that is damaged the build can't help itself, but the
/// next one, which is given the archive again, can.
#[test]
fn damage_in_what_can_not_be_made_again_is_one_error() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "a")]);
    place.stdout(&["build", "-q", "-t", "kept", "."]);
    for file in files_below(&cache(&place).join("bundles")) {
        overwrite(&file, |bytes| bytes[16] ^= 1);
    }
    let out = place.memobuild(&["export", "kept", "--output", "out"]);
    let shown = text(&out.stderr);
    assert_eq!(out.status.code(), Some(4), "{shown}");
    assert!(shown.starts_with("error: ") && shown.contains("hint: build again"), "{shown}");
    place.stdout(&["build", "-q", "-t", "kept", "."]);
    place.stdout(&["export", "kept", "--output", "out"]);
    assert_eq!(place.read("out/a"), "a");
}
