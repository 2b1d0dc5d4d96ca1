//! Where a cache lies and whose it is: file systems of several kinds, directories that can't be written to, other
//! users.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::Command,
};

use crate::{
    common::{Place, text},
    disk::Disk,
    project::{Project, is_clean},
    support::{cache, fails, give_away, is_root},
};

/// A build there is right, and so is the cache; a second one finds all of it.
fn works(what: &str, script: &str) {
    let Some(project) = Project::new() else { return };
    let Some(disk) = Disk::mount(&project.place, what, script) else { return };
    let (expected, _) = project.reference();
    let build = || {
        let out = project.command_by(disk.command("env")).output().unwrap();
        (project.image(&out), text(&out.stderr))
    };
    let (first, shown) = build();
    assert!(first == expected, "another image: {shown}");
    disk.is_clean();
    let (second, shown) = build();
    assert!(second == expected && shown.matches(" CACHED").count() > 20, "{shown}");
    disk.is_clean();
    println!("{what}: on {}", disk.sh("stat -f -c %T $disk/cache").trim());
    assert!(disk.sh("ls $disk/cache/tmp").is_empty());
}

#[test]
fn a_cache_on_tmpfs() {
    works("tmpfs", "mount -t tmpfs -o size=400m none $disk");
}

#[test]
fn a_cache_on_overlayfs() {
    let options = "lowerdir=lower,upperdir=upper,workdir=own";
    works("overlayfs", &format!("cd .. && mkdir lower upper own && mount -t overlay -o {options} none $disk"));
}

/// Without a loop device or mkfs it is skipped, and said.
#[test]
fn a_cache_on_xfs() {
    on_a_loop_device("xfs");
}

#[test]
fn a_cache_on_ext4() {
    on_a_loop_device("ext4");
}

fn on_a_loop_device(kind: &str) {
    let make = format!("PATH=$PATH:/usr/sbin:/sbin mkfs.{kind} -q ../{kind}");
    works(kind, &format!("truncate -s 400M ../{kind} && {make} && mount -o loop ../{kind} $disk"));
}

#[test]
fn a_cache_that_can_only_be_read() {
    let Some(project) = Project::new() else { return };
    let Some(disk) = Disk::memory(&project.place, 400) else { return };
    let build = || project.command_by(disk.command("env")).output().unwrap();
    let expected = project.image(&build());
    for empty in [false, true] {
        if empty {
            disk.sh("rm -r $disk/cache");
        }
        disk.sh("mount -o remount,ro $disk");
        let out = build();
        fails(&project.place, &out, 4, &["ead-only file system", "hint: ", "MEMOBUILD_CACHE_DIR"]);
        disk.sh("mount -o remount,rw $disk");
        assert!(project.image(&build()) == expected);
        disk.is_clean();
    }
}

/// memobuild as someone whom permissions hold: nobody, where the test runs as root. The place has to be open to them.
fn without_power(place: &Place, args: &[&str]) -> Command {
    let top = place.path("").parent().unwrap().to_owned();
    let program = top.join("memobuild");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_memobuild"), &program).unwrap();
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = place.command(program.to_str().unwrap());
    command.args(args).env("HOME", place.path(""));
    if is_root() {
        command.uid(65534).gid(65534);
    }
    command
}

const BUILD: [&str; 5] = ["build", "--progress=plain", "--output", "type=tar,dest=out.tar", "."];

/// A place that nobody may write to, and a cache of theirs beside it if that is wanted.
fn small(with_cache: bool) -> Place {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "a")]);
    if with_cache {
        fs::create_dir(cache(&place)).unwrap();
    }
    for dir in [place.path(""), cache(&place)] {
        if is_root() && dir.exists() {
            give_away(&dir);
        }
    }
    place
}

fn set_modes(dir: &PathBuf, directories: u32) {
    for entry in fs::read_dir(dir).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        set_modes(&entry.path(), directories);
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(directories)).unwrap();
}

#[test]
fn a_cache_that_its_owner_may_not_write_to() {
    let place = small(true);
    for made in [false, true] {
        if made {
            assert!(without_power(&place, &["build", "-q", "."]).output().unwrap().status.success());
        }
        set_modes(&cache(&place), 0o555);
        let out = without_power(&place, &BUILD).output().unwrap();
        set_modes(&cache(&place), 0o755);
        fails(&place, &out, 4, &["not allowed to", "ermission denied", "hint: ", "MEMOBUILD_CACHE_DIR"]);
    }
    let out = without_power(&place, &["fsck"]).output().unwrap();
    assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
}

/// Closed to others as it is made, or opened by its owner: in neither is anything of it changed.
#[test]
fn a_cache_of_another_user() {
    if !is_root() {
        println!("skipped: only root can be another user");
        return;
    }
    let place = small(false);
    place.stdout(&["build", "-q", "-t", "kept", "."]);
    for mode in [0o700, 0o755] {
        fs::set_permissions(cache(&place), fs::Permissions::from_mode(mode)).unwrap();
        let out = without_power(&place, &BUILD).output().unwrap();
        fails(&place, &out, 4, &["not allowed to", "hint: ", "may belong to another user", "MEMOBUILD_CACHE_DIR"]);
        let (prune, remove) = (["prune", "--all", "--force"], ["images", "--remove", "kept"]);
        let commands: [&[&str]; 4] = [&prune, &remove, &["fsck", "--repair"], &["doctor", "--clean"]];
        for args in commands {
            let out = without_power(&place, args).output().unwrap();
            let shown = text(&out.stderr);
            // Where it can be looked into, there may be nothing that would have to be written.
            assert!(out.status.code() == Some(4) || mode == 0o755 && out.status.success(), "{args:?}: {shown}");
            assert!(!shown.contains("panicked"), "{shown}");
        }
    }
    assert!(place.stdout(&["images"]).contains("kept"));
    is_clean(&place);
}

/// A file that can't be read is told of, and never removed.
#[test]
fn a_file_that_can_not_be_read_is_left() {
    let place = small(true);
    assert!(without_power(&place, &["build", "-q", "-t", "kept", "."]).output().unwrap().status.success());
    let bundle = fs::read_dir(cache(&place).join("bundles")).unwrap().next().unwrap().unwrap().path();
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o0)).unwrap();
    for args in [&["fsck"] as &[_], &["fsck", "--repair"]] {
        let out = without_power(&place, args).output().unwrap();
        let shown = text(&out.stdout);
        assert_eq!(out.status.code(), Some(4), "{shown}");
        assert!(shown.contains("ermission denied") && shown.contains("whether it is whole is not known"), "{shown}");
        assert!(bundle.exists());
    }
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o444)).unwrap();
    let out = without_power(&place, &["fsck"]).output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stdout));
}
