//! Disks of a test's own: file systems mounted where only the test sees them, which go with the process that holds
//! them.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use crate::{
    common::{Place, text},
    support::is_root,
};

/// A mount namespace in which something is mounted on a place's directory `disk`, beside its files. The cache is a
/// directory of that, so that other things can lie on the same disk.
pub struct Disk<'a> {
    place: &'a Place,
    holder: Child,
}

impl<'a> Disk<'a> {
    /// Mounts by a script, in which `$disk` is where and `..` is a directory for what it needs. None where that can't
    /// be: said, and the test ends.
    pub fn mount(place: &'a Place, what: &str, script: &str) -> Option<Self> {
        if !is_root() {
            println!("skipped: {what}: not root");
            return None;
        }
        let ready = "mkdir -p $disk/cache && echo mounted && exec sleep 900";
        let script = format!("mkdir -p $disk && {{\n{script}\n}} >&2 && {ready}");
        let mut command = place.command("unshare");
        command.args(["--mount", "--propagation=private", "sh", "-c", &script]).env("disk", Self::dir_of(place));
        let mut holder = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "mounted\n" {
            let why = text(&holder.wait_with_output().unwrap().stderr);
            println!("skipped: {what}: {}", why.trim());
            return None;
        }
        Some(Self { place, holder })
    }

    /// A memory file system of so many megabytes.
    pub fn memory(place: &'a Place, megabytes: usize) -> Option<Self> {
        Self::mount(place, "a small disk", &format!("mount -t tmpfs -o size={megabytes}m none $disk"))
    }

    fn dir_of(place: &Place) -> PathBuf {
        place.path("").parent().unwrap().join("disk")
    }

    /// A command there, in the place's directory.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.place.command("nsenter");
        let dir = format!("--wdns={}", self.place.path("").display());
        command.args(["--mount", "--target", &self.holder.id().to_string(), &dir, program]);
        let disk = Self::dir_of(self.place);
        command.env("MEMOBUILD_CACHE_DIR", disk.join("cache")).env("disk", disk);
        command
    }

    pub fn memobuild(&self, args: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_memobuild")).args(args).output().unwrap()
    }

    /// A script that must succeed; its output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let out = self.command("sh").args(["-ec", script]).output().unwrap();
        assert!(out.status.success(), "{script}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    /// Fills the disk up to so many kilobytes.
    #[track_caller]
    pub fn leave(&self, kilobytes: usize) {
        let free = "$(df -k --output=avail $disk | tail -n 1)";
        self.sh(&format!("head -c $(({free} - {kilobytes}))k /dev/zero >$disk/full"));
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        self.sh("cat /dev/zero >$disk/full || true");
    }

    /// Makes a memory file system larger.
    #[track_caller]
    pub fn enlarge(&self, megabytes: usize) {
        self.sh(&format!("mount -o remount,size={megabytes}m $disk && rm -f $disk/full"));
    }

    /// Nothing is wrong in the cache on it.
    #[track_caller]
    pub fn is_clean(&self) {
        let out = self.memobuild(&["fsck"]);
        assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
