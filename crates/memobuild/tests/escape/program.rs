//! The programs that steps run, compiled once for each text of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use memobuild_tree::KeyHasher;

/// Where the program of `probe.c` is, or why there is none: it takes a C compiler, and a C library to link statically.
pub fn probe() -> Result<PathBuf, String> {
    compiled(include_str!("probe.c"), &["-static"])
}

/// The program of `loader.c`.
pub fn loader() -> Result<PathBuf, String> {
    let alone = ["-nostdlib", "-nostartfiles", "-static-pie", "-fPIE", "-fno-stack-protector"];
    compiled(include_str!("loader.c"), &alone)
}

fn compiled(text: &str, flags: &[&str]) -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("probes");
    let kept = dir.join(KeyHasher::new("escape probe").bytes(text.as_bytes()).finish().hex());
    if kept.exists() {
        return Ok(kept);
    }
    fs::create_dir_all(&dir).unwrap();
    let own = tempfile::tempdir_in(&dir).unwrap();
    let (source, program) = (own.path().join("probe.c"), own.path().join("probe"));
    fs::write(&source, text).unwrap();
    let mut command = Command::new("cc");
    command.args(["-std=gnu11", "-O1", "-s"]).args(flags).arg("-o").args([&program, &source]);
    match command.output() {
        Ok(made) if made.status.success() => {}
        Ok(made) => {
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(format!("cc can't make a static program: {}", said.lines().next().unwrap_or_default()));
        }
        Err(_) => return Err("there is no C compiler".into()),
    }
    // Another test may have been faster.
    fs::rename(&program, &kept).unwrap();
    Ok(kept)
}
