//! What goes wrong in the middle of a step: the build says so and ends with the right code, and the next one knows
//! nothing of what the step did: it runs again, and what comes out is right.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;

use crate::{common::text, hits::Start, image, support::Project};

const LARGE: u64 = 300_000;

/// A project whose last step says `up`, waits, and goes on by `rest`. A program that takes an error for "not there"
/// stands in it, so that a fault which is not noticed gives a wrong image.
struct Faulty {
    project: Project,
    step: String,
}

/// A build under way.
struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    shown: String,
}

impl Faulty {
    /// None where steps can't be traced. `place` is made ready and nothing of the step is known.
    fn new(mounts: &str, rest: &str) -> Option<Self> {
        let files = &[("small", "small\n"), ("late", "late\n")];
        let project = Start::new("COPY small /first\nRUN true\n", files).built()?;
        project.write("large", &"0123456789".repeat(LARGE as usize / 10));
        let mut seed = 1u64;
        for number in 0..30 {
            // What no compressor makes smaller, so that it is not read in one go.
            let noise = |_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b' ' + ((seed >> 33) % 95) as u8)
            };
            project.write(&format!("noise/{number}"), &(0..50_000).map(noise).collect::<String>());
        }
        project.write(".dockerignore", "Dockerfile\n");
        let step = format!("RUN {mounts}cat small > seen; echo up; sleep 2; {rest}");
        project.dockerfile(&format!("WORKDIR /app\nCOPY . .\n{step}\n"));
        Some(Self { project, step })
    }

    /// A build up to the middle of the step.
    fn start(&self) -> Running {
        let mut child = self.project.build_command(&[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut running = Running { child, stderr, shown: String::new() };
        running.wait_for("up\n");
        running
    }

    /// A build to be failed by `fault` in the middle of the step: with that code, and these words in its message.
    fn fails(&self, code: i32, words: &[&str], fault: impl FnOnce(&Running)) {
        let running = self.start();
        fault(&running);
        let (status, shown) = running.end();
        assert_eq!(status.code(), Some(code), "{shown}");
        assert!(!shown.contains("panicked"), "{shown}");
        let error = shown.lines().skip_while(|line| !line.starts_with("error: ")).collect::<Vec<_>>().join("\n");
        for word in words {
            assert!(error.contains(word), "no {word:?} in {error:?}: {shown}");
        }
    }

    /// The step runs again, and the image is that of a build from nothing.
    fn nothing_is_memoised(&self) {
        let (built, image) = image::build(&self.project, &self.project.cache());
        assert!(built.ran.contains(&self.step), "{:?}", built.ran);
        let (_, from_nothing) = image::build(&self.project, &self.project.place.path("../other-cache"));
        assert_eq!(image::differences(&image, &from_nothing), Vec::<String>::new());
    }
}

impl Running {
    fn wait_for(&mut self, output: &str) {
        loop {
            let mut line = String::new();
            assert!(self.stderr.read_line(&mut line).unwrap() > 0, "it ended: {}", self.shown);
            self.shown.push_str(&line);
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            let said = event["data"].as_str().and_then(|data| STANDARD.decode(data).ok());
            if said.is_some_and(|bytes| bytes == output.as_bytes()) {
                return;
            }
        }
    }

    fn end(mut self) -> (ExitStatus, String) {
        self.stderr.read_to_string(&mut self.shown).unwrap();
        (self.child.wait().unwrap(), self.shown)
    }

    /// The process of that command, which may still be about to begin.
    fn process(&self, command: &str) -> Process {
        let begin = Instant::now();
        loop {
            if let Some(found) = self.processes().into_iter().find(|p| p.command.starts_with(command)) {
                return found;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "no process {command}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The processes that it started, itself first, with their parents before them.
    fn processes(&self) -> Vec<Process> {
        let mut all = vec![Process::of(self.child.id()).unwrap()];
        let mut at = 0;
        while let Some(parent) = all.get(at).map(|p| p.pid) {
            let names = fs::read_dir("/proc").unwrap().flatten();
            let pids = names.filter_map(|e| e.file_name().to_str()?.parse().ok());
            all.extend(pids.filter_map(Process::of).filter(|p| p.parent == parent));
            at += 1;
        }
        all
    }
}

#[derive(Debug, Clone)]
struct Process {
    pid: u32,
    parent: u32,
    command: String,
}

impl Process {
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        let command = text(&fs::read(format!("/proc/{pid}/cmdline")).ok()?).replace('\0', " ");
        Some(Self { pid, parent, command })
    }

    fn kill(&self) {
        kill_process(Pid::from_raw(self.pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(files_below(&path)) } else { out.push(path) }
    }
    out
}

/// The bundle that was written last: that of the COPY below the step.
fn last_bundle(project: &Project) -> PathBuf {
    let bundles = files_below(&project.cache().join("bundles")).into_iter();
    let when = |path: &PathBuf| fs::metadata(path).map(|m| (m.ctime(), m.ctime_nsec())).unwrap();
    bundles.max_by_key(when).unwrap()
}

fn large_blob(project: &Project) -> PathBuf {
    let blobs = files_below(&project.cache().join("blobs")).into_iter();
    let found: Vec<_> = blobs.filter(|path| fs::metadata(path).unwrap().len() == LARGE).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// As a failing disk would: the file stays, its end is gone.
fn cut_short(path: &Path) {
    fs::File::options().write(true).open(path).unwrap().set_len(20).unwrap();
}

fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// The kernel ends the connection, as it does when the server dies: cached files go on working, others are errors.
#[test]
fn the_file_server_ends_in_the_middle() {
    if !is_root() {
        return;
    }
    let bound = "--mount=type=bind,target=/bound ";
    let Some(faulty) = Faulty::new(bound, "cat late > out || echo default > out") else { return };
    faulty.fails(4, &["file server"], |running| {
        let step = running.processes().last().unwrap().clone();
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", step.pid)).unwrap();
        let bound = mounts.lines().find(|line| line.contains(" /bound ")).unwrap();
        let device = bound.split(' ').nth(2).and_then(|numbers| numbers.split_once(':')).unwrap().1;
        let script =
            format!("mount -t fusectl none /sys/fs/fuse/connections; echo 1 > /sys/fs/fuse/connections/{device}/abort");
        assert!(Command::new("unshare").args(["--mount", "sh", "-ec", &script]).status().unwrap().success());
    });
    faulty.nothing_is_memoised();
}

/// Loses a content in the middle of the step: `read` is what the step does with it then, `expected` what it must find.
/// Gives how the build ended, for each way of losing, and whether it has mended itself: by running again once what is
/// damaged was set aside. What is gone may still be open. Whatever happens, the image is right in the end.
fn content_is_lost(read: &str, expected: &str, content: impl Fn(&Project) -> PathBuf) -> Vec<(i32, bool)> {
    let mut codes = Vec::new();
    for fault in [cut_short, |path: &Path| fs::remove_file(path).unwrap()] {
        let Some(faulty) = Faulty::new("", &format!("{read} > out || echo default > out")) else { return codes };
        let running = faulty.start();
        fault(&content(&faulty.project));
        let (status, shown) = running.end();
        if !status.success() {
            assert!(status.code() == Some(4) && shown.contains("content"), "{shown}");
            faulty.nothing_is_memoised();
        }
        assert_eq!(faulty.project.tree(&[])["app/out"], format!("100644 {expected}\n"), "{shown}");
        codes.push((status.code().unwrap(), shown.contains("has been set aside")));
    }
    codes
}

#[test]
fn a_small_content_is_lost_in_the_middle() {
    let codes = content_is_lost("cat noise/* | wc -c", "1500000", last_bundle);
    assert!(codes.is_empty() || codes == [(0, true), (0, false)], "{codes:?}");
}

/// Such files are read without us, where the kernel can do so.
#[test]
fn a_large_content_is_lost_in_the_middle() {
    let codes = content_is_lost("wc -c < large", "300000", large_blob);
    // Damage must be seen; a file that is gone may be open still.
    assert!(codes.is_empty() || codes[0] != (0, false), "{codes:?}");
    println!("cut short, gone: {codes:?}");
}

#[test]
fn the_step_is_killed() {
    let Some(faulty) = Faulty::new("", "cat late > out || echo default > out") else { return };
    faulty.fails(1, &["signal 9"], |running| {
        running.process("/bin/sh -c").kill();
    });
    faulty.nothing_is_memoised();
}

/// The process beside the shell is killed, and the shell goes on.
#[test]
fn what_the_step_waits_for_is_killed() {
    let Some(faulty) = Faulty::new("", "cat late > out || echo default > out") else { return };
    let running = faulty.start();
    running.process("sleep").kill();
    let (status, shown) = running.end();
    assert!(status.success(), "{shown}");
    assert_eq!(faulty.project.tree(&[])["app/out"], "100644 late\n");
}

#[test]
fn the_sandbox_is_killed() {
    // Every process between memobuild and the shell, one after the other. Others stand ready for the next step.
    for number in 0.. {
        let Some(faulty) = Faulty::new("", "cat late > out || echo default > out") else { return };
        let running = faulty.start();
        let processes = running.processes();
        let shell = processes.iter().find(|p| p.command.starts_with("/bin/sh -c"));
        let parent = |of: &&Process| processes.iter().find(|p| p.pid == of.parent);
        let above: Vec<&Process> = std::iter::successors(shell.as_ref().and_then(parent), parent).collect();
        // The last is memobuild itself.
        if number + 1 >= above.len() {
            assert!(number > 0, "{processes:?}");
            running.end();
            return;
        }
        above[number].kill();
        let (status, shown) = running.end();
        ended(&processes);
        if number > 0 && status.success() {
            // Only what starts steps is gone: the step itself came to its end, and its result is right.
            assert_eq!(faulty.project.tree(&[])["app/out"], "100644 late\n");
            continue;
        }
        assert_eq!(status.code(), Some(1), "{number} of {processes:?}: {shown}");
        faulty.nothing_is_memoised();
    }
}

#[test]
fn memobuild_is_killed() {
    let Some(faulty) = Faulty::new("", "cat late > out || echo default > out") else { return };
    let running = faulty.start();
    let processes = running.processes();
    assert!(processes.len() > 2);
    processes[0].kill();
    let (status, shown) = running.end();
    assert_eq!(status.signal(), Some(9), "{shown}");
    ended(&processes);
    faulty.nothing_is_memoised();
}

/// Nothing goes on by itself.
fn ended(processes: &[Process]) {
    let begin = Instant::now();
    let left = || processes.iter().filter(|p| Process::of(p.pid).is_some_and(|now| now.command == p.command)).count();
    while left() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "{processes:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The disk is full when the step ends: what it did can't be recorded.
#[test]
fn the_disk_is_full_while_a_result_is_recorded() {
    if !is_root() {
        return;
    }
    let Some(mut faulty) = Faulty::new("", "cat late > out") else { return };
    // A disk of its own, which lasts as long as the process that holds its namespace.
    let script = "mount -t tmpfs -o size=24m none ../cache; exec sleep 1000";
    let mut holder = faulty.project.place.command("unshare").args(["--mount", "sh", "-ec", script]).spawn().unwrap();
    let directory = format!("--wdns={}", faulty.project.place.path("").display());
    let enter = ["nsenter", "--mount", "--target", &holder.id().to_string(), &directory].map(str::to_owned);
    let inside = |script: &str| {
        let out = Command::new(&enter[0]).args(&enter[1..]).args(["sh", "-c", script]).output().unwrap();
        text(&out.stdout)
    };
    let begin = Instant::now();
    while !inside("df ../cache").contains("24576") {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", inside("df ../cache"));
        std::thread::sleep(Duration::from_millis(20));
    }
    faulty.project.runner = enter.to_vec();
    faulty.fails(4, &["o space left", "memobuild prune"], |_| {
        // A little room, so that the step itself can write.
        inside("head -c 16384 /dev/zero > ../cache/room; cat /dev/zero > ../cache/full; rm ../cache/room");
    });
    inside("rm ../cache/full");
    let built = faulty.project.build();
    assert!(built.ran.contains(&faulty.step), "{built:?}");
    assert_eq!(faulty.project.build().ran, Vec::<String>::new());
    holder.kill().unwrap();
    holder.wait().unwrap();
}
