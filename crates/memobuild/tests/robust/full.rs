//! A disk of 64 MB that is full in the middle of each thing that a build does with it. The build ends with the right
//! code and says what helps; when there is room the next one is right, and nothing is wrong in the cache.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Output, Stdio},
};

use crate::{
    common::{Place, text},
    disk::Disk,
    registry,
    support::{Tar, busybox_layer, layout, place_with_base},
};

/// Bytes that no compressor makes smaller.
fn noise(megabytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..megabytes << 17).flat_map(|_| next()).collect()
}

fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["build", "--progress=plain", "--reproducible", "--build-context", "base=oci-layout://base"];
    args.extend(more);
    args.push(".");
    args
}

const TO_FILE: [&str; 2] = ["--output", "type=oci,dest=out.tar"];

/// The image of a build from nothing, with room.
fn reference(place: &Place) -> Vec<u8> {
    let mut command = place.command(env!("CARGO_BIN_EXE_memobuild"));
    let out = command.args(args(&TO_FILE)).env("MEMOBUILD_CACHE_DIR", place.path("../reference")).output().unwrap();
    image(place, &out)
}

#[track_caller]
fn image(place: &Place, out: &Output) -> Vec<u8> {
    assert!(out.status.success(), "{}", text(&out.stderr));
    let image = fs::read(place.path("out.tar")).unwrap();
    fs::remove_file(place.path("out.tar")).unwrap();
    image
}

/// It failed for lack of space: one error that says so, and what helps.
#[track_caller]
fn failed(place: &Place, code: Option<i32>, shown: &str) {
    assert_eq!(code, Some(4), "{shown}");
    assert_eq!(shown.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{shown}");
    let error = &shown[shown.find("error: ").unwrap()..];
    for words in ["o space left", "hint: ", "memobuild prune", "MEMOBUILD_CACHE_DIR"] {
        assert!(error.contains(words), "no {words:?} in {shown}");
    }
    assert!(!shown.contains("panicked") && !place.path("out.tar").exists(), "{shown}");
}

/// Nothing is wrong on the full disk; with more room the build is right, and so is the cache.
#[track_caller]
fn recovers(place: &Place, disk: &Disk<'_>, expected: &[u8]) {
    disk.enlarge(400);
    disk.is_clean();
    let out = disk.memobuild(&args(&TO_FILE));
    assert!(image(place, &out) == expected, "another image: {}", text(&out.stderr));
    disk.is_clean();
    assert_eq!(disk.sh("ls -A $disk/cache/tmp; ls -A $disk/cache/oci/partial"), "", "nothing is left half done");
}

#[track_caller]
fn fails_and_recovers(place: &Place, disk: &Disk<'_>, expected: &[u8]) {
    let out = disk.memobuild(&args(&TO_FILE));
    failed(place, out.status.code(), &text(&out.stderr));
    recovers(place, disk, expected);
}

#[test]
fn while_a_context_is_read() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY . /all\n")]);
    place.write(".dockerignore", "out*\nDockerfile\n");
    for n in 0..500 {
        place.write(&format!("small/{n}"), &format!("{n}").repeat(100));
    }
    for n in 0..4 {
        fs::write(place.path(&format!("large{n}")), noise(10, n + 1)).unwrap();
    }
    let Some(disk) = Disk::memory(&place, 64) else { return };
    let expected = reference(&place);
    disk.leave(25 << 10);
    fails_and_recovers(&place, &disk, &expected);
}

/// From a registry, and from a layout, of which the blobs are not kept.
#[test]
fn while_a_base_is_pulled() {
    let Some(busybox) = busybox_layer() else { return };
    for from_registry in [true, false] {
        let place = Place::new();
        place.write(".dockerignore", "base\nout*\n");
        layout(&place.path("base"), &[busybox.clone(), Tar::default().file("noise", &noise(40, 7)).finish()]);
        let base = if from_registry { format!("{}/base", registry::serve(&place.path("base"))) } else { "base".into() };
        place.write("Dockerfile", &format!("FROM {base}\nRUN head -c 100 /noise >/begin\n"));
        let Some(disk) = Disk::memory(&place, 64) else { return };
        let expected = reference(&place);
        disk.leave(25 << 10);
        fails_and_recovers(&place, &disk, &expected);
    }
}

/// The command itself meets the full disk, so it is the step that fails.
#[test]
fn while_a_step_runs() {
    let Some(busybox) = busybox_layer() else { return };
    let dockerfile = "FROM base\nRUN dd if=/dev/zero of=/big bs=1M count=80\n";
    let (place, _) = place_with_base(dockerfile, &[busybox]);
    let Some(disk) = Disk::memory(&place, 64) else { return };
    let expected = reference(&place);
    let out = disk.memobuild(&args(&TO_FILE));
    let shown = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{shown}");
    let error = &shown[shown.find("error: ").unwrap()..];
    assert!(shown.contains("No space left on device") && error.contains("did not complete successfully"), "{shown}");
    assert!(error.contains("hint: ") && error.contains("memobuild prune"), "{shown}");
    recovers(&place, &disk, &expected);
}

#[test]
fn while_a_result_is_stored() {
    let Some(busybox) = busybox_layer() else { return };
    let (place, _) = place_with_base("FROM base\nRUN echo made >/made && echo 'it is up' && sleep 3\n", &[busybox]);
    let Some(disk) = Disk::memory(&place, 64) else { return };
    let expected = reference(&place);
    let mut command = disk.command(env!("CARGO_BIN_EXE_memobuild"));
    let mut child = command.args(args(&TO_FILE)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut shown = String::new();
    // The second time: the first is the step's own text.
    while !shown.lines().any(|line| line.contains("it is up") && !line.contains("echo")) {
        assert!(lines.read_line(&mut shown).unwrap() > 0, "{shown}");
    }
    disk.fill();
    lines.read_to_string(&mut shown).unwrap();
    failed(&place, child.wait().unwrap().code(), &shown);
    recovers(&place, &disk, &expected);
}

/// The layer is compressed into the cache.
#[test]
fn while_an_image_is_exported() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY big /big\n")]);
    fs::write(place.path("big"), noise(25, 3)).unwrap();
    place.write(".dockerignore", "out*\n");
    let Some(disk) = Disk::memory(&place, 64) else { return };
    let expected = reference(&place);
    let stored = disk.memobuild(&args(&[]));
    assert!(stored.status.success(), "{}", text(&stored.stderr));
    disk.leave(10 << 10);
    fails_and_recovers(&place, &disk, &expected);
}

/// The disk is full before a build has begun: there is no room for its lease, nor for an index.
#[test]
fn before_anything_is_done() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    place.write(".dockerignore", "out*\n");
    let Some(disk) = Disk::memory(&place, 64) else { return };
    let expected = reference(&place);
    disk.fill();
    fails_and_recovers(&place, &disk, &expected);
}
