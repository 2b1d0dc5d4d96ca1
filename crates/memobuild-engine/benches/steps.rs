//! What tracing costs a step: `cargo bench -p memobuild-engine --bench steps -- IMAGE WORK MEMORY ROUNDS NAME=COMMAND...`.
//!
//! Each command runs alternately in the sandbox (traced, with native reads of large blobs where the kernel has them, and
//! without) and over a plain overlay on the unpacked image, with a fresh mount for each. Needs root. IMAGE is an archive
//! or layout, WORK a directory for the store and the unpacked image, MEMORY one for what steps write. Times are from the request to the command's end.
//! Prints one line for each command: `NAME PLAIN NATIVE SERVED FACTS`, medians in milliseconds: plain overlay, traced
//! with native reads, traced without, and how many paths were looked at.
#![allow(clippy::unwrap_used, reason = "a failed benchmark ends")]

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Instant,
};

use memobuild_oci::{
    image::{self, ImageSource},
    output,
    registry::{Registries, RegistryOptions},
};
use memobuild_sandbox::{
    Cancel, Contents, ModeChoice, Output, ReadAt, SANDBOX_INIT_ARG, Sandbox, SandboxConfig, Step, Stream, init_main,
};
use memobuild_store::{BundleWriter, Content, Store};
use memobuild_tree::{ContentDigest, Tree};

struct Served {
    store: Store,
    blobs: PathBuf,
    writer: BundleWriter,
}

struct Stored(Content);

impl ReadAt for Stored {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl Contents for Served {
    fn open(&self, digest: &ContentDigest) -> io::Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(Stored(self.store.content(digest).map_err(io::Error::other)?)))
    }

    fn native(&self, digest: &ContentDigest, size: u64) -> Option<PathBuf> {
        (size > memobuild_store::LARGE_FILE && self.store.blob_path(digest).is_some())
            .then(|| PathBuf::from(Store::blob_rel_path(digest)))
    }

    fn native_above(&self) -> u64 {
        memobuild_store::LARGE_FILE
    }

    fn blobs_dir(&self) -> Option<&Path> {
        Some(&self.blobs)
    }

    fn put_small(&self, bytes: &[u8]) -> io::Result<ContentDigest> {
        self.writer.add_bytes(bytes).map_err(io::Error::other)
    }

    fn put_large(&self, tmp: &Path, digest: ContentDigest, size: u64) -> io::Result<()> {
        self.writer.adopt_blob(tmp, &digest, size).map_err(io::Error::other)
    }
}

#[derive(Default)]
struct Said(Mutex<Vec<u8>>);

impl Output for Said {
    fn write(&self, _: Stream, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

struct Bench {
    store: Store,
    tree: Tree,
    root: PathBuf,
    memory: PathBuf,
}

impl Bench {
    /// Milliseconds, and paths looked at.
    fn traced(&self, sandbox: &Sandbox, command: &str) -> (f64, usize) {
        let argv = ["/bin/sh", "-c", command].map(|a| a.as_bytes().to_vec()).to_vec();
        let step = Step::new(self.tree.clone(), argv);
        let blobs = self.store.blobs_dir();
        let contents: Arc<dyn Contents> =
            Arc::new(Served { store: self.store.clone(), blobs, writer: self.store.bundle_writer() });
        let said = Said::default();
        let outcome = sandbox.run(&step, &contents, &said, &Cancel::new()).unwrap();
        assert!(outcome.exit.success(), "{command}: {}", String::from_utf8_lossy(&said.0.lock().unwrap()));
        assert!(outcome.complete, "{command}: not all was recorded");
        let time = outcome.timings.setup + outcome.timings.run;
        (time.as_secs_f64() * 1000.0, outcome.looks.iter().map(|l| l.len()).sum())
    }

    fn plain(&self, command: &str) -> f64 {
        let dir = self.memory.join("plain");
        let script = "mount -t overlay overlay -o lowerdir=\"$R\",upperdir=\"$D/u\",workdir=\"$D/w\",volatile \"$D/m\" && \
            mount --rbind /dev \"$D/m/dev\" && mount -t proc proc \"$D/m/proc\" && chroot \"$D/m\" /bin/sh -c \"$C\" && echo the-end";
        for name in ["u", "w", "m"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let begin = Instant::now();
        let mut command_line = Command::new("unshare");
        command_line.args(["--mount", "--pid", "--uts", "--ipc", "--fork", "sh", "-c", script]).env_clear();
        command_line.env("R", &self.root).env("D", &dir).env("C", command).env("PATH", path).env("HOME", "/root");
        // As with the sandbox, the time ends with the command, not with the taking down of its mounts.
        let mut child = command_line.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ended = lines.any(|line| line.unwrap() == "the-end");
        let time = begin.elapsed();
        assert!(ended && child.wait().unwrap().success(), "{command}");
        fs::remove_dir_all(&dir).unwrap();
        time.as_secs_f64() * 1000.0
    }
}

fn sandbox(memory: &Path, datadir: bool) -> Sandbox {
    let mut config = SandboxConfig::new(memory.join(format!("scratch-{datadir}")));
    config.mode = ModeChoice::Traced;
    config.datadir = datadir;
    Sandbox::new(config).unwrap()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn run() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [image, work, memory, rounds, commands @ ..] = args.as_slice() else {
        println!("steps: IMAGE WORK MEMORY ROUNDS NAME=COMMAND... (see scripts/bench)");
        return;
    };
    let (work, memory) = (PathBuf::from(work), PathBuf::from(memory));
    fs::create_dir_all(&work).unwrap();
    let store = Store::open(&work.join("store")).unwrap();
    let registries = Registries::new(RegistryOptions::default());
    let platform = "linux/amd64".parse().unwrap();
    let base = image::open(&ImageSource::layout(image), &platform, &store, &registries).unwrap();
    let tree = base.tree(&|_, _| ()).unwrap();
    let root = work.join("root");
    if !root.exists() {
        fs::create_dir(&root).unwrap();
        output::write_local(&store, &tree, None, &root).unwrap();
    }
    let bench = Bench { store, tree, root, memory: memory.clone() };
    let (native, served) = (sandbox(&memory, true), sandbox(&memory, false));
    for case in commands {
        let (name, command) = case.split_once('=').unwrap();
        let rounds: usize = rounds.parse().unwrap();
        let (mut a, mut b, mut c, mut facts) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for round in 0..=rounds {
            let plain = bench.plain(command);
            let (native, looked) = bench.traced(&native, command);
            let (served, _) = bench.traced(&served, command);
            facts = looked;
            // The first round warms what both sides have in common.
            if round > 0 {
                a.push(plain);
                b.push(native);
                c.push(served);
            }
        }
        println!("{name} {:.1} {:.1} {:.1} {facts}", median(a), median(b), median(c));
    }
}

fn main() {
    if std::env::args().nth(1).is_some_and(|arg| arg == SANDBOX_INIT_ARG) {
        init_main();
    }
    // Trees are deep; the default stack is not.
    let thread = std::thread::Builder::new().stack_size(memobuild_tree::codec::STACK).spawn(run);
    thread.unwrap().join().unwrap();
}
