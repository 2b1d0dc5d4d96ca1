//! What is not needed is neither read nor fetched nor mounted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    common::text,
    support::{Project, traced},
};

const STEPS: &str = "\
WORKDIR /app
COPY a ./
RUN cat a > out; head -c 100000 /dev/zero | tr '\\0' x > big
COPY b ./
";

fn project() -> Project {
    Project::new(STEPS, &[("a", "1"), ("b", "1")])
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, out) } else { out.push(path) }
    }
}

/// Destroys the bytes of all bundles and blobs in the cache, sizes kept. Says how many there were.
fn destroy_contents(project: &Project) -> usize {
    let mut all = Vec::new();
    for part in ["bundles", "blobs", "oci"] {
        files(&project.place.path("../cache").join(part), &mut all);
    }
    for path in &all {
        let size = fs::metadata(path).unwrap().len();
        fs::write(path, vec![0; size as usize]).unwrap();
    }
    all.len()
}

/// Takes the base image's layer away from where it came from, and its bundle from the cache.
fn lose_base(project: &Project, bundles_before: &[PathBuf]) {
    let mut blobs = Vec::new();
    files(&project.base().join("blobs"), &mut blobs);
    let layer = blobs.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::rename(layer, project.place.path("../layer")).unwrap();
    for path in bundles_before {
        let _ = fs::remove_file(path);
    }
}

fn restore_base(project: &Project) {
    let mut blobs = Vec::new();
    files(&project.base().join("blobs"), &mut blobs);
    let layer = project.place.path("../layer");
    let digest = memobuild_tree::Sha256Digest::of(&fs::read(&layer).unwrap());
    fs::rename(layer, blobs[0].with_file_name(digest.hex())).unwrap();
}

fn cached_contents(project: &Project) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for part in ["bundles", "blobs", "oci"] {
        files(&project.place.path("../cache").join(part), &mut all);
    }
    all
}

#[test]
fn a_build_of_hits_reads_no_content_and_mounts_nothing() {
    if !traced() {
        return;
    }
    let project = project();
    project.build();
    assert!(destroy_contents(&project) > 2);
    fs::remove_dir_all(project.base().join("blobs")).unwrap();
    project.make_base("");
    let mut blobs = Vec::new();
    files(&project.base().join("blobs"), &mut blobs);
    let layer = blobs.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::remove_file(layer).unwrap();
    let built = project.build();
    assert!(built.ran.is_empty() && !built.sandbox, "{built:?}");
}

#[test]
fn copies_need_no_layer_of_their_base() {
    if !traced() {
        return;
    }
    let project = Project::new("COPY a /x/\n", &[("a", "1")]);
    // Only the base's: nothing else was built.
    project.dockerfile("WORKDIR /\n");
    project.dockerfile("COPY a /y/\n");
    project.build();
    let mut base = cached_contents(&project);
    let copied = base.iter().position(|p| fs::metadata(p).unwrap().len() < 4096).unwrap();
    base.remove(copied);
    lose_base(&project, &base);
    project.dockerfile("COPY a /x/\nWORKDIR /z\nCOPY a /bin/busybox-copy\n");
    let built = project.build();
    assert_eq!(built.ran.len(), 3, "{built:?}");
}

#[test]
fn a_base_is_fetched_when_a_step_needs_a_byte_of_it_and_a_failed_fetch_fails_the_step() {
    if !traced() {
        return;
    }
    let project = Project::new("COPY a /x/\n", &[("a", "1")]);
    project.build();
    let mut base = cached_contents(&project);
    let copied = base.iter().position(|p| fs::metadata(p).unwrap().len() < 4096).unwrap();
    base.remove(copied);
    lose_base(&project, &base);
    project.dockerfile("COPY a /x/\nRUN cat /x/a > /y\n");
    let failed = project.try_build(&[]);
    assert_eq!(failed.output.status.code(), Some(5), "{}", text(&failed.output.stderr));
    assert!(text(&failed.output.stderr).contains("base image base"), "{}", text(&failed.output.stderr));
    restore_base(&project);
    assert_eq!(project.build().runs(), ["cat /x/a > /y"]);
    assert_eq!(project.tree(&[])["y"], "100644 1");
}
