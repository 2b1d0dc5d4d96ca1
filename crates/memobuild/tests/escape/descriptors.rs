//! What the step's first process has open before it becomes the command: directories of the machine, sockets, its own
//! program. A working directory or a command that is named by way of `/proc/self/fd` must not lead there.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::{Test, World};
use crate::common::text;

pub const TESTS: &[(&str, Test)] = &[
    ("a_working_directory_outside", a_working_directory_outside),
    ("a_link_to_a_working_directory_outside", a_link_to_a_working_directory_outside),
    ("a_command_outside", a_command_outside),
    ("memobuilds_own_program", memobuilds_own_program),
];

/// More than that process ever has open.
const NUMBERS: std::ops::Range<u32> = 0..24;

/// A build may fail for it; a step that starts must be below its own root.
fn starts_inside(world: &mut World, above: impl Fn(u32) -> String) {
    let (secret, up) = (world.host.secret().display().to_string(), "../".repeat(32));
    for number in NUMBERS {
        let above = above(number);
        let step = format!("RUN /probe directory={secret} > /tmp/said; cp {up}.{secret} /tmp/secret; true\n");
        world.project.dockerfile(&format!("{above}{step}"));
        let out = world.built();
        if out.status.success() {
            let said = world.project.place.read("../out/tmp/said");
            assert_eq!(said, format!("directory={secret} ENOENT\n"), "{above}");
            assert!(!world.project.place.path("../out/tmp/secret").exists(), "{above}");
        } else {
            let shown = text(&out.stderr);
            assert!(out.status.code() == Some(1) && shown.contains("cwd"), "{above}: {shown}");
        }
    }
    world.host.is_unchanged();
}

fn a_working_directory_outside(world: &mut World) {
    starts_inside(world, |number| format!("WORKDIR /proc/self/fd/{number}\n"));
}

fn a_link_to_a_working_directory_outside(world: &mut World) {
    starts_inside(world, |number| format!("RUN ln -s /proc/self/fd/{number} /there\nWORKDIR /there\n"));
}

/// A program of the machine's, by way of a directory that was open: it would run in the step, but it is none of the
/// image's files.
fn a_command_outside(world: &mut World) {
    let program = world.host.dir().join("dir/program");
    fs::copy(crate::program::probe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let up = "../".repeat(32);
    for number in NUMBERS {
        let command = format!("/proc/self/fd/{number}/{up}.{}", program.display());
        world.project.dockerfile(&format!("RUN [\"{command}\"]\n"));
        let out = world.built();
        let shown = text(&out.stderr);
        assert!(!out.status.success(), "it ran by {command}");
        assert!(shown.contains("exec") || shown.contains("exit code: 12"), "{shown}");
    }
    fs::remove_file(program).unwrap();
}

/// Until it is the command, the first process is memobuild, and `/proc/self/exe` is memobuild's own file, outside. A step
/// that has that started, with a loader of its own, holds a way to the file: it must not be able to write to it.
fn memobuilds_own_program(world: &mut World) {
    let own = Path::new(env!("CARGO_BIN_EXE_memobuild"));
    let before = fs::read(own).unwrap();
    let loader = crate::program::loader().unwrap();
    world.remake_base(&format!(
        "mkdir -p lib lib64; cp {0} lib64/ld-linux-x86-64.so.2; cp {0} lib/ld-linux-aarch64.so.1; chmod 755 lib*/ld-*",
        loader.display()
    ));
    let itself = "RUN [\"/proc/self/exe\", \"--version\"]\n";
    let by_a_link = "RUN ln -s /proc/self/exe /usr/bin/tool\nRUN [\"tool\", \"--version\"]\n";
    for dockerfile in [itself, by_a_link] {
        world.project.dockerfile(dockerfile);
        let out = world.built();
        let shown = text(&out.stderr);
        // A program that asks for no loader runs, and tells its version to nobody who could change it.
        let refused = [libc::EROFS, libc::EACCES].iter().any(|e| shown.contains(&format!("exit code: {e}")));
        assert!(refused || out.status.success(), "{shown}");
    }
    assert!(fs::read(own).unwrap() == before, "memobuild's own program was changed");
    world.host.is_unchanged();
}
