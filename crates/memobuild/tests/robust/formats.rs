//! A cache that another version made: refused, or its results count as not there. Never read as something else.

use std::{fs, path::Path};

use memobuild_store::Store;
use memobuild_tree::ContentDigest;

use crate::{
    common::text,
    project::{Project, faults, is_clean},
    support::{cache, fails, files_below, overwrite},
};

/// How many steps of a build were run, and whether it is the right one.
fn ran(project: &Project, expected: &[u8]) -> usize {
    let out = project.command().output().unwrap();
    let shown = text(&out.stderr);
    assert!(project.image(&out) == expected, "another image: {shown}");
    let cached = shown.lines().filter(|line| line.ends_with(" CACHED")).count();
    let done = shown.lines().filter(|line| line.contains(" DONE ")).count();
    assert!(cached + done > 20, "{shown}");
    done
}

#[test]
fn another_format_of_the_directory_is_refused_and_left_alone() {
    let Some(project) = Project::new() else { return };
    let expected = project.build();
    let before = files_below(&cache(&project.place));
    for format in ["memobuild store 0\n", "memobuild store 2\n", "something else entirely", "memobuild store 1"] {
        fs::write(cache(&project.place).join("format"), format).unwrap();
        let out = project.command().output().unwrap();
        fails(&project.place, &out, 4, &["has store format", "hint: ", "MEMOBUILD_CACHE_DIR"]);
        let commands: [&[&str]; 4] =
            [&["fsck", "--repair"], &["doctor", "--clean"], &["prune", "--all", "--force"], &["images"]];
        for args in commands {
            let out = project.place.memobuild(args);
            assert_eq!(out.status.code(), Some(4), "{args:?}: {}", text(&out.stdout));
        }
        assert_eq!(files_below(&cache(&project.place)), before);
    }
    fs::write(cache(&project.place).join("format"), "memobuild store 1\n").unwrap();
    is_clean(&project.place);
    assert!(project.build() == expected);
}

/// As a power cut may leave it: there is a way out.
#[test]
fn an_empty_format_file_is_mended_by_hand() {
    let Some(project) = Project::new() else { return };
    let expected = project.build();
    fs::write(cache(&project.place).join("format"), "").unwrap();
    for args in [&["fsck"] as &[_], &["build", "."]] {
        let out = project.place.memobuild(args);
        assert_eq!(out.status.code(), Some(4), "{args:?}");
        assert!(text(&out.stderr).contains("hint: a power cut can leave"), "{}", text(&out.stderr));
    }
    let said = project.place.stdout(&["doctor", "--clean"]);
    assert!(said.contains("removed format: "), "{said}");
    is_clean(&project.place);
    assert!(project.build() == expected);
}

/// Records of results begin with the version of their encoding and of what steps yield.
#[test]
fn records_of_another_version_count_as_not_there() {
    let Some(project) = Project::new() else { return };
    let expected = project.build();
    let all = ran(&project, &expected);
    for other in [1, 99] {
        let mut changed = 0;
        let store = Store::open(&cache(&project.place)).unwrap();
        for ns in ["result", "facts.result.v3", "facts.sets.v3"] {
            for key in store.record_list(ns).unwrap() {
                let mut value = store.record_here(ns, &key).unwrap().unwrap();
                assert_ne!(value[0], other);
                value[0] = other;
                store.record_put(ns, &key, &value, &[]).unwrap();
                changed += 1;
            }
        }
        drop(store);
        assert!(changed > 20, "{changed}");
        // To the store they are as good as any.
        is_clean(&project.place);
        let ran_again = ran(&project, &expected);
        assert!(ran_again >= all + 20, "{ran_again} of all steps ran, {all} do when nothing changes");
        is_clean(&project.place);
    }
}

/// The number behind the magic is that of its layout; the checksum is made anew.
fn other_version(bundle: &Path) {
    overwrite(bundle, |bytes| {
        let footer = bytes.len() - 96;
        let number = |at: usize| u64::from_le_bytes(bytes[footer + at..footer + at + 8].try_into().unwrap());
        assert_eq!(number(0), 1);
        let tables = usize::try_from(number(8) + number(16)).unwrap();
        bytes[footer] = 2;
        let sum = ContentDigest::of(&bytes[tables..footer + 48]);
        bytes[footer + 48..footer + 80].copy_from_slice(sum.as_bytes());
    });
}

#[test]
fn bundles_and_an_index_of_another_version_count_as_damaged() {
    let Some(project) = Project::new() else { return };
    let expected = project.build();
    let bundles = files_below(&cache(&project.place).join("bundles"));
    assert!(bundles.len() > 10);
    bundles.iter().for_each(|bundle| other_version(bundle));
    let found = faults(&project.place);
    let unknown = |(kind, what): &&(String, String)| kind == "damaged-bundle" && what.contains("unknown version 2");
    assert_eq!(found.iter().filter(unknown).count(), bundles.len(), "{found:?}");
    assert!(project.build() == expected);
    project.place.stdout(&["prune", "--force"]);
    // What the build needed is made anew; what it had no need to read is as it was, until it is repaired.
    let found = faults(&project.place);
    assert!(found.iter().all(|fault| unknown(&fault)) && found.len() < bundles.len(), "{found:?}");
    project.place.stdout(&["fsck", "--repair"]);
    is_clean(&project.place);
    assert!(project.build() == expected);
    is_clean(&project.place);
    let index = rusqlite::Connection::open(cache(&project.place).join("index.sqlite")).unwrap();
    index.pragma_update(None, "user_version", 7).unwrap();
    drop(index);
    assert_eq!(faults(&project.place)[0].0, "damaged-index");
    assert!(project.build() == expected);
    assert_eq!(faults(&project.place)[0].0, "old-index");
    project.place.stdout(&["fsck", "--repair"]);
    is_clean(&project.place);
}
