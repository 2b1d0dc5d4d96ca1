//! Runs the tests as ordinary users: the test program starts itself again through `setpriv`.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Set in the inner program: whom it plays.
pub const VARIABLE: &str = "MEMOBUILD_SANDBOX_TEST_AS";

/// An ordinary user to play.
#[derive(Debug, Clone)]
pub struct User {
    /// `user` (one mapped id) or `subuid` (ranges).
    pub kind: &'static str,
    pub uid: u32,
    pub gid: u32,
}

/// A user without ranges, and one with, if the machine has one.
pub fn find() -> Vec<User> {
    let mut users = vec![User { kind: "user", uid: 65534, gid: 65534 }];
    let ranges = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = ranges.lines().filter_map(|line| line.split(':').next());
    let found = named.into_iter().find_map(|name| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    match found {
        Some((uid, gid)) if Path::new("/usr/bin/newuidmap").exists() => users.push(User { kind: "subuid", uid, gid }),
        _ => eprintln!("skipped: tests with subordinate ids need newuidmap and a user in /etc/subuid"),
    }
    users
}

/// Runs one test as that user; panics with its output if it fails.
pub fn run_as(user: &User, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(user.uid), Some(user.gid)).unwrap();
    let program: PathBuf = dir.path().join("steps");
    // The build directory may be closed to others.
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::os::unix::fs::chown(&program, Some(user.uid), Some(user.gid)).unwrap();
    let output = Command::new("setpriv")
        .args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)])
        .arg("--clear-groups")
        .arg(&program)
        .args(["--exact", name])
        .env(VARIABLE, user.kind)
        .env("HOME", &home)
        .env("TMPDIR", &home)
        .current_dir(&home)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // What the user's namespace left behind goes with the directory; root can remove it all.
    assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
}
