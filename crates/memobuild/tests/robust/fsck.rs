//! `memobuild fsck` as it is called: what it prints, its exit codes, and that builds go on after it.

use std::fs;

use serde_json::Value;

use crate::{
    common::{Place, text},
    project::{Project, is_clean, under_way},
    support::{cache, files_below, overwrite},
};

#[test]
fn where_nothing_is_wrong() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "a")]);
    assert!(place.stdout(&["fsck"]).starts_with("nothing is wrong: 0 records, 0 files, 0B in "));
    assert!(!cache(&place).exists(), "looking makes no cache");
    place.stdout(&["build", "-q", "-t", "app", "."]);
    for args in [&["fsck"] as &[_], &["fsck", "--repair"]] {
        let said = place.stdout(args);
        assert!(said.starts_with("nothing is wrong: ") && said.lines().count() == 1, "{said}");
    }
    assert_eq!(place.stdout(&["fsck", "-q"]), "");
    let json: Value = serde_json::from_str(&place.stdout(&["fsck", "--json"])).unwrap();
    assert_eq!((&json["clean"], &json["findings"]), (&true.into(), &Value::Array(Vec::new())));
    assert!(json["records"].as_u64().unwrap() > 1 && json["files"].as_u64().unwrap() > 1, "{json}");
    assert_eq!(json["directory"], cache(&place).display().to_string());
}

/// One of each thing that lies in a cache, damaged at once.
#[test]
fn what_is_wrong_is_told_and_repaired() {
    let Some(project) = Project::new() else { return };
    let expected = project.build();
    let place = &project.place;
    let first = |dir: &str| files_below(&cache(place).join(dir)).swap_remove(0);
    let (bundle, blob, layer, context) = (first("bundles"), first("blobs"), first("oci/sha256"), first("contexts"));
    overwrite(&bundle, |bytes| bytes.truncate(50));
    overwrite(&blob, |bytes| bytes[9] ^= 1);
    overwrite(&layer, |bytes| bytes[9] ^= 1);
    overwrite(&context, Vec::clear);
    fs::write(cache(place).join("tmp/7-0000000000000001.0"), "half").unwrap();
    fs::write(cache(place).join("leases/7-0000000000000001"), "").unwrap();
    fs::write(cache(place).join("notes"), "mine").unwrap();
    let out = place.memobuild(&["fsck"]);
    let shown = text(&out.stdout);
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(4), ""), "{shown}");
    for (file, words) in [
        (&bundle, "what it holds is made again; --repair removes it"),
        (&blob, "it does not hold the bytes that its name says"),
        (&layer, "what it holds is made or fetched again; --repair removes it"),
        (&context, "it does not have its checksum; the next build reads all files of the context"),
        (&cache(place).join("tmp/7-0000000000000001.0"), "`memobuild doctor --clean` or --repair removes it"),
        (&cache(place).join("leases/7-0000000000000001"), "its process is gone"),
        (&cache(place).join("notes"), "memobuild did not put it there"),
    ] {
        let at = format!("{}: ", file.strip_prefix(cache(place)).unwrap().display());
        let line = shown.lines().find(|line| line.starts_with(&at)).unwrap_or_else(|| panic!("no {at} in {shown}"));
        assert!(line.contains(words), "{line}");
    }
    assert!(shown.lines().last().unwrap().contains(" faults found: "), "{shown}");
    // Only told, as often as it is asked.
    let quiet = place.memobuild(&["fsck", "-q"]);
    assert_eq!(quiet.status.code(), Some(4));
    assert_eq!(shown.lines().rev().skip(1).count(), text(&quiet.stdout).lines().count());
    let json: Value = serde_json::from_slice(&place.memobuild(&["fsck", "--json"]).stdout).unwrap();
    assert_eq!(json["clean"], false);
    let kinds: Vec<&str> = json["findings"].as_array().unwrap().iter().map(|f| f["kind"].as_str().unwrap()).collect();
    for kind in ["damaged-bundle", "damaged-blob", "damaged-context", "leftover", "unknown"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    // The image's layers were among it, so its name goes, which is said.
    let said = place.stdout(&["fsck", "--repair"]);
    assert!(said.lines().any(|line| line.starts_with("image app:latest: ") && line.ends_with("; removed")), "{said}");
    assert!(said.contains("notes: no name that memobuild gives; moved to unknown/notes"), "{said}");
    assert!(said.lines().last().unwrap().contains(" repaired: "), "{said}");
    assert_eq!(fs::read_to_string(cache(place).join("unknown/notes")).unwrap(), "mine");
    is_clean(place);
    assert_eq!(under_way(place), Vec::<String>::new());
    assert!(project.build() == expected);
    is_clean(place);
}

/// A name whose image is whole outlives a repair of other things.
#[test]
fn names_of_whole_images_are_kept() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "a")]);
    place.stdout(&["build", "-q", "-t", "whole", "."]);
    place.write("a", "another");
    place.stdout(&["build", "-q", "-t", "broken", "."]);
    let newest = |path: &std::path::PathBuf| fs::metadata(path).unwrap().created().unwrap();
    let bundle = files_below(&cache(&place).join("bundles")).into_iter().max_by_key(newest).unwrap();
    overwrite(&bundle, |bytes| bytes[20] ^= 1);
    let said = place.stdout(&["fsck", "--repair"]);
    assert!(said.contains("image broken:latest: "), "{said}");
    let names = place.stdout(&["images"]);
    assert!(names.contains("whole") && !names.contains("broken"), "{names}");
    place.stdout(&["export", "whole", "--output", "type=oci,dest=out.tar"]);
}

#[test]
fn an_index_of_noise_is_left_until_it_is_to_be_repaired() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "a")]);
    place.stdout(&["build", "-q", "."]);
    for file in files_below(&cache(&place)).into_iter().filter(|path| path.to_string_lossy().contains("index.")) {
        overwrite(&file, |bytes| bytes.fill(0x5a));
    }
    let out = place.memobuild(&["fsck"]);
    let shown = text(&out.stdout);
    assert_eq!(out.status.code(), Some(4), "{shown}");
    assert!(shown.contains("index.sqlite: ") && shown.contains("the next build sets it aside"), "{shown}");
    let aside = || files_below(&cache(&place)).iter().any(|path| path.to_string_lossy().contains("index.corrupt"));
    assert!(!aside());
    assert!(place.stdout(&["fsck", "--repair"]).contains("index.sqlite: "));
    is_clean(&place);
    assert!(!aside());
    place.stdout(&["build", "-q", "."]);
}

#[test]
fn the_clean_up_says_what_it_removed() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "a")]);
    assert!(place.stdout(&["doctor", "--clean"]).starts_with("nothing was left in "));
    assert!(!cache(&place).exists());
    place.stdout(&["build", "-q", "."]);
    fs::create_dir_all(cache(&place).join("tmp/7-0000000000000001.0.d/run-7-0/step-0")).unwrap();
    fs::write(cache(&place).join("tmp/7-0000000000000001.0.d/run-7-0.lock"), "").unwrap();
    fs::write(cache(&place).join("leases/7-0000000000000001"), "").unwrap();
    let said = place.stdout(&["doctor", "--clean"]);
    assert!(said.contains("removed leases/7-0000000000000001: the lease of a process that is gone\n"), "{said}");
    assert!(said.contains("removed tmp/7-0000000000000001.0.d: scratch space of a process that is gone"), "{said}");
    assert_eq!(under_way(&place), Vec::<String>::new());
    fs::write(cache(&place).join("tmp/x"), "").unwrap();
    let json: Value = serde_json::from_str(&place.stdout(&["doctor", "--clean", "--json"])).unwrap();
    assert_eq!(json["removed"][0]["path"], cache(&place).join("tmp/x").display().to_string());
    assert_eq!(json["failed"], Value::Array(Vec::new()));
}
