//! Contexts and Dockerfiles that can't be read, disks that are full, lines without end.

use std::{
    fs::{self, File},
    io::{Seek, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{
    common::{Place, text},
    support::{self, BUILD, fails, give_away, is_root},
};

/// Runs a build as someone whom file permissions hold: nobody, where the test runs as root.
fn build_without_power(place: &Place) -> Output {
    let exe = place.path("memobuild");
    fs::copy(env!("CARGO_BIN_EXE_memobuild"), &exe).unwrap();
    let mut command = place.command(exe.to_str().unwrap());
    command.args(BUILD);
    if is_root() {
        give_away(place.path("").parent().unwrap());
        command.uid(65534).gid(65534);
    }
    let out = command.output().unwrap();
    fs::remove_file(exe).unwrap();
    out
}

fn set_mode(place: &Place, name: &str, mode: u32) {
    fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_may_not_be_read_of_a_context_is_named() {
    for (locked, is_dir) in [("secret/", true), ("key", false)] {
        let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY . /all\n"), ("open", "x")]);
        place.write(&format!("{locked}{}", if is_dir { "file" } else { "" }), "hidden");
        place.write(".dockerignore", "memobuild\nout*\n");
        set_mode(&place, locked, 0);
        let out = build_without_power(&place);
        set_mode(&place, locked, 0o700);
        fails(&place, &out, 2, &[locked.trim_end_matches('/'), "ermission denied", "hint: ", ".dockerignore"]);
    }
}

#[test]
fn what_is_ignored_need_not_be_readable() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY . /all\n"), ("secret/file", ""), ("key", "")]);
    place.write(".dockerignore", "memobuild\nout*\nsecret\nkey\n");
    set_mode(&place, "secret", 0);
    set_mode(&place, "key", 0);
    let out = build_without_power(&place);
    set_mode(&place, "secret", 0o700);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let names: Vec<_> = support::listed(&place.path("out.tar")).into_iter().map(|e| e.0).collect();
    assert_eq!(names, ["all/", "all/.dockerignore", "all/Dockerfile"]);
}

#[test]
fn a_dockerfile_that_may_not_be_read() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\n")]);
    set_mode(&place, "Dockerfile", 0);
    fails(&place, &build_without_power(&place), 3, &["failed to read dockerfile", "Permission denied"]);
}

#[test]
fn a_context_or_dockerfile_that_is_something_else() {
    let place = Place::with(&[("file", "x"), ("dir/Dockerfile/x", "")]);
    fails(&place, &place.memobuild(&["build", "--progress=plain", "file"]), 2, &["file is not a directory"]);
    fails(&place, &place.memobuild(&["build", "--progress=plain", "dir"]), 3, &["failed to read dockerfile"]);
    fails(&place, &place.memobuild(&["build", "--progress=plain", "none"]), 2, &["none", "No such file"]);
    place.write("noise", "\0\u{1}binary\n\0");
    fails(&place, &place.memobuild(&["build", "--progress=plain", "-f", "noise", "."]), 3, &["noise:"]);
}

/// Starts with these lines; then zeros up to `size`, which take no room on disk.
fn sparse(path: &Path, head: &str, size: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(head.as_bytes()).unwrap();
    file.set_len(size).unwrap();
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"\n").unwrap();
}

/// With room for 300 MB of addresses: the program and its threads take less than half of that.
fn in_little_memory(place: &Place, args: &str, stdin: Stdio) -> (Output, Duration) {
    let begin = Instant::now();
    let mut command = place.command("sh");
    command.args(["-c", &format!("ulimit -v 300000; exec memobuild build --progress=plain {args}")]);
    (command.stdin(stdin).output().unwrap(), begin.elapsed())
}

#[test]
fn a_line_of_a_gigabyte_is_refused_at_once_and_in_little_memory() {
    let place = Place::new();
    sparse(&place.path("Dockerfile"), "FROM scratch\nLABEL x=", 1 << 30);
    let (out, took) = in_little_memory(&place, ".", Stdio::null());
    fails(&place, &out, 3, &["Dockerfile is larger than"]);
    assert!(took < Duration::from_secs(10), "{took:?}");
    for args in ["-f - .", "-"] {
        let (out, took) = in_little_memory(&place, args, File::open(place.path("Dockerfile")).unwrap().into());
        fails(&place, &out, 3, &["is larger than"]);
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

#[test]
fn an_ignore_file_of_a_gigabyte_is_refused() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY . /\n")]);
    sparse(&place.path(".dockerignore"), "a\n", 1 << 30);
    let (out, took) = in_little_memory(&place, ".", Stdio::null());
    fails(&place, &out, 3, &[".dockerignore is larger than"]);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_line_of_many_megabytes_is_read_as_what_it_is() {
    let place = Place::new();
    let mut text = String::from("FROM scratch\nCOPY <<E /long\n");
    text.push_str(&"x".repeat(10 << 20));
    text.push_str("\nE\n");
    place.write("Dockerfile", &text);
    support::built(&place);
    assert_eq!(support::listed(&place.path("out.tar")), [("long".into(), b'0', (10 << 20) + 1)]);
    fs::remove_file(place.path("out.tar")).unwrap();
    // One that makes no sense is shown cut short.
    place.write("Dockerfile", &format!("FROM scratch\n{}\n", "y".repeat(10 << 20)));
    let out = place.memobuild(&["build", "--progress=plain", "."]);
    fails(&place, &out, 3, &["unknown instruction"]);
    assert!(out.stderr.len() < 10_000, "{} bytes of message", out.stderr.len());
}

#[test]
fn no_space_for_the_cache() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY big /big\n")]);
    let noise: Vec<u8> = (0..6_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(place.path("big"), noise).unwrap();
    let script = "mkdir -p $cache && mount -t tmpfs -o size=2m none $cache || exit 99
        exec $memobuild build --progress=plain --output type=tar,dest=out.tar .";
    let Some(out) = support::with_mounts(&place, script) else { return };
    fails(&place, &out, 4, &["no space left", "hint: ", "memobuild prune"]);
}

#[test]
fn no_space_for_what_a_step_writes() {
    let Some(layer) = support::busybox_layer() else { return };
    let (place, _) = support::place_with_base("FROM base\nRUN dd if=/dev/zero of=/big bs=1M count=64\n", &[layer]);
    let script = "mkdir -p $cache && mount -t tmpfs -o size=16m none $cache || exit 99
        exec $memobuild build --progress=plain --build-context base=oci-layout://base --output type=tar,dest=out.tar .";
    let Some(out) = support::with_mounts(&place, script) else { return };
    fails(&place, &out, 1, &["did not complete successfully"]);
    assert!(text(&out.stderr).contains("No space left on device"), "{}", text(&out.stderr));
}

#[test]
fn no_space_for_the_output() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY big /big\n")]);
    let noise: Vec<u8> = (0..1_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(place.path("big"), noise).unwrap();
    for output in ["type=oci,dest=full/out", "type=docker,dest=full/out", "type=tar,dest=full/out"] {
        let script = format!(
            "mkdir -p full && mount -t tmpfs -o size=1m none full || exit 99
            $memobuild build --progress=plain --output {output} . ; code=$?
            test -z \"$(ls -A full)\" || exit 98
            exit $code"
        );
        let Some(out) = support::with_mounts(&place, &script) else { return };
        fails(&place, &out, 4, &["No space left on device", "full/out"]);
    }
    let script = "mkdir -p full && mount -t tmpfs -o size=1m none full || exit 99
        $memobuild build --progress=plain --output full . ; code=$?
        test ! -e full/big || exit 98
        exit $code";
    let Some(out) = support::with_mounts(&place, script) else { return };
    fails(&place, &out, 4, &["No space left on device"]);
}

#[test]
fn an_output_that_can_not_be_written() {
    let place =
        Place::with(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "a"), ("file", "kept"), ("dir/x", "")]);
    for (output, words) in
        [("type=oci,dest=file/out.tar", &["file/out.tar"] as &[_]), ("type=local,dest=file", &["file"])]
    {
        let out = place.memobuild(&["build", "--progress=plain", "--output", output, "."]);
        fails(&place, &out, 4, words);
    }
    assert_eq!((place.read("file").as_str(), place.read("dir/x").as_str()), ("kept", ""));
    for device in ["/dev/full", "closed"] {
        let stdout = match device {
            "closed" => {
                let mut child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
                let stdin = child.stdin.take().unwrap();
                child.wait().unwrap();
                Stdio::from(stdin)
            }
            device => File::options().write(true).open(device).unwrap().into(),
        };
        let mut command = place.command(env!("CARGO_BIN_EXE_memobuild"));
        let out = command.args(["build", "--progress=plain", "--output", "type=tar,dest=-", "."]).stdout(stdout);
        fails(&place, &out.output().unwrap(), 4, &["standard output"]);
    }
}
