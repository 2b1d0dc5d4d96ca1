//! Builds for other platforms: by emulators of the kernel's and of memobuild's own, without any, and several at once.
//!
//! `BUSYBOX_ARM64` names a static busybox for arm64 (`scripts/test` gets one). Nothing is registered with this machine's
//! kernel: where a handler is wanted, it is in a user namespace of the test's own.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]
#![allow(unreachable_pub, dead_code, reason = "modules of one test")]

#[path = "memos/base.rs"]
mod base;
#[path = "common/mod.rs"]
mod common;
#[path = "memos/support.rs"]
mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use common::text;
use rustix::process::geteuid;
use serde_json::Value;
use support::{Built, Project, has_busybox};

const ARM64: [&str; 2] = ["--platform", "linux/arm64"];
const BOTH: [&str; 2] = ["--platform", "linux/amd64,linux/arm64"];
const MACHINE: &str =
    "FROM base\nCOPY a b /\nARG TARGETPLATFORM\nRUN cat /a > /made; uname -m >> /made; echo $TARGETPLATFORM >> /made\n";
/// Where handlers are registered, and where this test does so.
const BINFMT_MISC: &str = "/proc/sys/fs/binfmt_misc";

/// No emulator is seen by what follows, on any machine.
const HIDE_EMULATORS: &str = "[ ! -d /usr/libexec/qemu-binfmt ] || mount -t tmpfs none /usr/libexec/qemu-binfmt
    for file in /usr/bin/qemu-* /usr/local/bin/qemu-*; do [ ! -f $file ] || mount --bind /dev/null $file; done";

/// A handler as Debian's qemu-user-static registers it, for what follows only.
const REGISTER: &str = r"mount -t binfmt_misc none $at
    printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:POF' > $at/register";

fn is_amd64() -> bool {
    let is = std::env::consts::ARCH == "x86_64";
    if !is {
        println!("skipped: is written for amd64");
    }
    is
}

/// The busybox for arm64; else says that there is none.
fn arm64_busybox() -> Option<PathBuf> {
    let found = std::env::var_os("BUSYBOX_ARM64").map(PathBuf::from).filter(|path| path.exists());
    if found.is_none() {
        println!("skipped: needs BUSYBOX_ARM64, a static busybox for arm64");
    }
    found.filter(|_| is_amd64() && has_busybox())
}

fn has_qemu() -> bool {
    let has = Path::new("/usr/bin/qemu-aarch64-static").exists();
    if !has {
        println!("skipped: needs qemu-user-static");
    }
    has
}

/// The platforms that can be run, with what runs them.
fn runners(project: &Project) -> Value {
    let out = project.command(&["doctor", "--json"]).output().unwrap();
    serde_json::from_slice::<Value>(&out.stdout).unwrap()["platforms"].clone()
}

fn runner(project: &Project, platform: &str) -> Option<String> {
    let all = runners(project);
    let found = all.as_array().unwrap().iter().find(|p| p["name"] == platform)?;
    Some(found["by"].as_str().unwrap().to_owned())
}

/// Whether memobuild emulates by itself here; else says so.
fn emulates(project: &Project) -> bool {
    let does = runner(project, "linux/arm64").as_deref() == Some("emulation");
    if !does {
        println!(
            "skipped: needs handlers of a user namespace's own (Linux 6.7), or the kernel has one for arm64 already"
        );
    }
    does
}

/// Whether user namespaces can be made, in which tests mount what they like; else says so.
fn namespaces() -> bool {
    let made = Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output();
    let able = made.is_ok_and(|out| out.status.success());
    if !able {
        println!("skipped: needs user namespaces");
    }
    able
}

/// Has memobuild run in a mount namespace that a script has changed.
fn within(project: &mut Project, script: &str) {
    let script = format!("at={BINFMT_MISC}\n{script}\nexec \"$@\"");
    let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", &script, "within"];
    project.runner = words.map(str::to_owned).to_vec();
}

/// A base image from a busybox, for the platform that is named, whatever the busybox is for.
fn make_base(to: &Path, busybox: &Path, architecture: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/make-busybox-base");
    let made = Command::new(script).arg(to).arg(busybox).env("BASE_ARCH", architecture).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
}

/// A base image for amd64 and arm64.
fn make_both(project: &Project, arm64: &Path) {
    let (one, two) = (project.base(), project.place.path("../arm64"));
    make_base(&one, Path::new(base::BUSYBOX), "amd64");
    make_base(&two, arm64, "arm64");
    let index = |dir: &Path| -> Value { serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap() };
    let mut inner = index(&one);
    let more = index(&two)["manifests"].as_array().unwrap().clone();
    inner["manifests"].as_array_mut().unwrap().extend(more);
    for manifest in inner["manifests"].as_array_mut().unwrap() {
        manifest.as_object_mut().unwrap().remove("annotations");
    }
    base::copy(&two.join("blobs"), &one.join("blobs"));
    fs::write(one.join("index.json"), inner.to_string()).unwrap();
}

fn project(dockerfile: &str) -> Project {
    Project::new(dockerfile, &[("a", "a\n"), ("b", "b\n")])
}

fn on_arm64(dockerfile: &str, busybox: &Path) -> Project {
    let project = project(dockerfile);
    let _ = fs::remove_dir_all(project.base());
    make_base(&project.base(), busybox, "arm64");
    project
}

/// Has memobuild run by nobody, with all that is the project's.
fn by_nobody(project: &mut Project) {
    let top = project.place.path("..");
    fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
    // The build directory may be closed to others.
    fs::copy(env!("CARGO_BIN_EXE_memobuild"), top.join("memobuild")).unwrap();
    project.shell("cd ..; chown -R 65534:65534 .");
    let script = "shift; exec setpriv --reuid=65534 --regid=65534 --clear-groups ../memobuild \"$@\"";
    project.runner = ["sh", "-ec", script, "by-nobody"].map(str::to_owned).to_vec();
}

fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// The file that the step makes.
fn made(project: &Project, more: &[&str]) -> String {
    let tree = project.tree(more);
    tree.get("made").unwrap_or_else(|| panic!("{tree:?}")).split_once(' ').unwrap().1.to_owned()
}

fn machine_is_emulated(project: &Project) {
    let built = project.build_with(&ARM64);
    assert_eq!(built.runs().len(), 1, "{:?}", built.ran);
    assert_eq!(made(project, &ARM64), "a\naarch64\nlinux/arm64\n");
    // By what it has looked at it is known again.
    project.write("b", "edited");
    assert_eq!(project.build_with(&ARM64).runs(), Vec::<&str>::new());
    // Of the emulator it knows nothing.
    for path in ["/usr/bin/qemu-aarch64-static", "/usr/libexec", "/proc/sys/fs/binfmt_misc"] {
        let out = project.command(&["explain-cache", "--why-depends", path]).output().unwrap();
        assert!(text(&out.stdout).starts_with("no step of build"), "{path}: {}", text(&out.stdout));
    }
    project.write("a", "edited\n");
    assert_eq!(project.build_with(&ARM64).runs().len(), 1);
    assert_eq!(made(project, &ARM64), "edited\naarch64\nlinux/arm64\n");
}

#[test]
fn a_step_is_emulated_without_any_set_up() {
    let Some(busybox) = arm64_busybox().filter(|_| has_qemu()) else { return };
    let project = on_arm64(MACHINE, &busybox);
    if !emulates(&project) {
        return;
    }
    let registered = || fs::read_dir(BINFMT_MISC).map_or(0, Iterator::count);
    let before = registered();
    machine_is_emulated(&project);
    assert_eq!(registered(), before, "something was registered with the machine's kernel");
}

#[test]
fn a_step_is_emulated_for_an_ordinary_user() {
    let Some(busybox) = arm64_busybox().filter(|_| has_qemu() && is_root()) else { return };
    let mut project = on_arm64(MACHINE, &busybox);
    by_nobody(&mut project);
    if emulates(&project) {
        machine_is_emulated(&project);
    }
}

/// Also without FUSE, and with set-id programs, other users and owners.
#[test]
fn emulated_steps_have_what_other_steps_have() {
    let Some(busybox) = arm64_busybox().filter(|_| has_qemu()) else { return };
    let project = on_arm64(
        "FROM base\n\
         COPY a /a\n\
         RUN [\"touch\", \"/direct\"]\n\
         RUN chown 12:34 /a; chmod 4755 /bin/busybox\n\
         RUN --mount=type=secret,id=s,required=false --mount=type=cache,target=/c --network=none \\\n\
             test -d /c && test ! -e /proc/sys/fs/binfmt_misc/register && exec -a cat sh /a > /made\n\
         USER nobody\n\
         RUN id -u > /tmp/id; stat -c %u:%g /a >> /tmp/id\n",
        &busybox,
    );
    if !emulates(&project) {
        return;
    }
    for mode in ["traced", "exact"] {
        let tree = project.tree(&[&ARM64[..], &["--sandbox", mode, "--no-cache"]].concat());
        assert!(tree.contains_key("direct"), "{mode}");
        assert!(tree["made"].ends_with(" a\n"), "{mode}: {}", tree["made"]);
        let owner = if geteuid().is_root() { "12:34" } else { "0:0" };
        // A set-id program becomes its owner, as it does where nothing is emulated.
        assert!(tree["tmp/id"].contains("65534\n"), "{mode}: {}", tree["tmp/id"]);
        assert!(tree["tmp/id"].ends_with(&format!("{owner}\n")), "{mode}: {}", tree["tmp/id"]);
    }
}

fn read(dir: &Path, digest: &Value) -> Value {
    let (_, hex) = digest.as_str().unwrap().split_once(':').unwrap();
    serde_json::from_slice(&fs::read(dir.join("blobs/sha256").join(hex)).unwrap()).unwrap()
}

/// An index with both images, each with a config of its own and what its own machine made.
fn both_at_once(project: &Project) {
    project.build_with(&[&BOTH[..], &["-o", "type=oci,tar=false,dest=../both"]].concat());
    let dir = project.place.path("../both");
    let outer: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    let index = read(&dir, &outer["manifests"][0]["digest"]);
    let manifests = index["manifests"].as_array().unwrap();
    let mut layers = Vec::new();
    for (manifest, architecture) in manifests.iter().zip(["amd64", "arm64"]) {
        assert_eq!(manifest["platform"], serde_json::json!({ "architecture": architecture, "os": "linux" }));
        let manifest = read(&dir, &manifest["digest"]);
        let config = read(&dir, &manifest["config"]["digest"]);
        assert_eq!(config["architecture"], architecture);
        assert_eq!(config["os"], "linux");
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
        layers.push(config["rootfs"]["diff_ids"][2].clone());
    }
    assert!(manifests.len() == 2 && layers[0] != layers[1], "{index:#}");
    // Each by itself is what was built just now.
    for (platform, machine) in [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")] {
        let flags = ["--platform", platform];
        assert_eq!(project.build_with(&flags).ran, Vec::<String>::new(), "{platform}");
        assert_eq!(made(project, &flags), format!("a\n{machine}\n{platform}\n"));
    }
}

#[test]
fn two_platforms_at_once() {
    let Some(busybox) = arm64_busybox().filter(|_| has_qemu()) else { return };
    let project = project(MACHINE);
    if emulates(&project) {
        make_both(&project, &busybox);
        both_at_once(&project);
    }
}

#[test]
fn two_platforms_at_once_for_an_ordinary_user() {
    let Some(busybox) = arm64_busybox().filter(|_| has_qemu() && is_root()) else { return };
    let mut project = project(MACHINE);
    make_both(&project, &busybox);
    by_nobody(&mut project);
    if emulates(&project) {
        both_at_once(&project);
    }
}

#[test]
fn a_handler_of_the_kernel_is_used() {
    let Some(busybox) = arm64_busybox().filter(|_| has_qemu() && namespaces()) else { return };
    let mut project = on_arm64(MACHINE, &busybox);
    within(&mut project, REGISTER);
    let listed = project.command(&["doctor", "--json"]).output().unwrap();
    if !listed.status.success() {
        println!("skipped: needs handlers of a user namespace's own (Linux 6.7)");
        return;
    }
    assert_eq!(runner(&project, "linux/arm64").as_deref(), Some("kernel"));
    assert_eq!(made(&project, &ARM64), "a\naarch64\nlinux/arm64\n");
    // Such as is there but can't be seen, as in a container: it is found by trying.
    within(
        &mut project,
        &format!("mkdir ../b; at=../b\n{REGISTER}\nmount -t tmpfs none {BINFMT_MISC}\n{HIDE_EMULATORS}"),
    );
    assert_eq!(runner(&project, "linux/arm64").as_deref(), Some("kernel"));
    project.shell("rmdir ../b");
    assert_eq!(made(&project, &[&ARM64[..], &["--no-cache"]].concat()), "a\naarch64\nlinux/arm64\n");
}

/// Exit code, and what is said.
fn refused(built: &Built) -> String {
    assert_eq!(built.output.status.code(), Some(6), "{}", text(&built.output.stderr));
    text(&built.output.stderr)
}

#[test]
fn without_an_emulator_a_step_is_not_begun() {
    let Some(busybox) = arm64_busybox().filter(|_| namespaces()) else { return };
    let mut project = on_arm64("FROM base\nRUN echo begun\n", &busybox);
    within(&mut project, &format!("mount -t tmpfs none {BINFMT_MISC}\n{HIDE_EMULATORS}"));
    if runner(&project, "linux/arm64").is_some() {
        println!("skipped: this machine's kernel has a handler for arm64");
        return;
    }
    assert_eq!(runner(&project, "linux/amd64").as_deref(), Some("native"));
    let said = refused(&project.try_build(&ARM64));
    for part in [
        "this machine cannot run steps for linux/arm64",
        "/bin/sh is a program of that platform",
        "the kernel has no handler for such programs (binfmt_misc)",
        "there is no statically linked qemu-aarch64",
        "qemu-user-static",
        "FROM --platform=$BUILDPLATFORM",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("node_output"), "{said}");
    // What can't be looked at beforehand is told by the kernel.
    project.dockerfile("FROM base\nRUN --mount=type=bind,from=base,source=/bin,target=/b [\"/b/busybox\", \"true\"]\n");
    let said = refused(&project.try_build(&ARM64));
    assert!(said.contains("the step is for that platform"), "{said}");
    // A base that says nothing of it.
    let _ = fs::remove_dir_all(project.base());
    make_base(&project.base(), &busybox, "amd64");
    project.dockerfile("FROM base\nRUN echo begun\n");
    assert!(refused(&project.try_build(&[])).contains("cannot run steps for linux/arm64"));
}

/// What the kernel does not take for a program at all has nothing to do with platforms.
#[test]
fn a_file_that_is_no_program_fails_its_step() {
    if !has_busybox() {
        return;
    }
    let project = project("FROM base\nCOPY --chmod=755 a /a\nRUN [\"/a\"]\n");
    let built = project.try_build(&[]);
    assert_eq!(built.output.status.code(), Some(1), "{}", text(&built.output.stderr));
    assert!(text(&built.output.stderr).contains("exec format error"));
}

#[test]
fn a_base_of_this_machines_files_runs_whatever_it_says_of_itself() {
    if !is_amd64() || !has_busybox() || !namespaces() {
        return;
    }
    let mut project = on_arm64(MACHINE, Path::new(base::BUSYBOX));
    within(&mut project, HIDE_EMULATORS);
    assert_eq!(made(&project, &ARM64), "a\nx86_64\nlinux/arm64\n");
}

#[test]
fn copies_need_no_emulator() {
    let Some(busybox) = arm64_busybox().filter(|_| namespaces()) else { return };
    let mut project = project(
        "FROM --platform=$BUILDPLATFORM base AS build\n\
         ARG TARGETARCH\n\
         RUN echo for $TARGETARCH on $(uname -m) > /out\n\
         FROM base\n\
         WORKDIR /w\n\
         COPY --from=build /out /made\n\
         ADD a /w/\n",
    );
    make_both(&project, &busybox);
    within(&mut project, HIDE_EMULATORS);
    project.build_with(&[&BOTH[..], &["-o", "type=oci,dest=../both.tar"]].concat());
    assert_eq!(made(&project, &ARM64), "for arm64 on x86_64\n");
}

#[test]
fn that_the_store_keeps_one_platform_is_said() {
    if !is_amd64() || !has_busybox() {
        return;
    }
    let project = project("FROM scratch\nCOPY a /\n");
    let said = |more: &[&str]| text(&project.build_with(&[&BOTH[..], more].concat()).output.stderr);
    let words = "memobuild's store keeps one platform of an image: linux/amd64";
    assert!(said(&["-t", "one"]).contains(words));
    assert!(!said(&["-t", "one", "-o", "type=oci,dest=../both.tar"]).contains(words));
    let config: Value = serde_json::from_str(&project.place.stdout(&["inspect", "--raw=config", "one"])).unwrap();
    assert_eq!(config["architecture"], "amd64");
}
