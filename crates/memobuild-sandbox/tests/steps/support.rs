//! A store in memory, a base image of the machine's static busybox, and short words for running steps.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use memobuild_sandbox::{
    Cancel, Contents, ModeChoice, Outcome, Output, ReadAt, Sandbox, SandboxConfig, SandboxError, Step, Stream,
};
use memobuild_tree::{ContentDigest, Dir, File, Meta, Mtime, Node, Symlink, Tree};

/// Contents in memory and, for large ones, in files.
pub struct Store {
    small: Mutex<HashMap<ContentDigest, Arc<[u8]>>>,
    blobs: PathBuf,
}

struct Bytes(Arc<[u8]>);

impl ReadAt for Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

struct OnDisk(std::fs::File, u64);

impl ReadAt for OnDisk {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.0, buffer, offset)
    }

    fn len(&self) -> u64 {
        self.1
    }
}

impl Store {
    pub fn new(dir: &Path) -> Self {
        let blobs = dir.join("blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        Self { small: Mutex::default(), blobs }
    }

    pub fn add(&self, bytes: &[u8]) -> ContentDigest {
        let digest = ContentDigest::of(bytes);
        if bytes.len() as u64 > Outcome::SMALL_FILE {
            std::fs::write(self.blobs.join(digest.hex()), bytes).unwrap();
        } else {
            self.small.lock().unwrap().insert(digest, bytes.into());
        }
        digest
    }

    pub fn forget(&self, digest: &ContentDigest) {
        self.small.lock().unwrap().remove(digest);
        let _ = std::fs::remove_file(self.blobs.join(digest.hex()));
    }

    pub fn text(&self, digest: &ContentDigest) -> Vec<u8> {
        let reader = self.open(digest).unwrap();
        let mut out = vec![0; reader.len() as usize];
        let mut done = 0;
        while done < out.len() {
            done += reader.read_at(&mut out[done..], done as u64).unwrap();
        }
        out
    }
}

impl Contents for Store {
    fn open(&self, digest: &ContentDigest) -> io::Result<Arc<dyn ReadAt>> {
        if let Some(bytes) = self.small.lock().unwrap().get(digest) {
            return Ok(Arc::new(Bytes(bytes.clone())));
        }
        let file = std::fs::File::open(self.blobs.join(digest.hex()))?;
        let length = file.metadata()?.len();
        Ok(Arc::new(OnDisk(file, length)))
    }

    fn native(&self, digest: &ContentDigest, size: u64) -> Option<PathBuf> {
        (size > Outcome::SMALL_FILE).then(|| digest.hex().into())
    }

    fn native_above(&self) -> u64 {
        Outcome::SMALL_FILE
    }

    fn blobs_dir(&self) -> Option<&Path> {
        Some(&self.blobs)
    }

    fn put_small(&self, bytes: &[u8]) -> io::Result<ContentDigest> {
        assert!(bytes.len() as u64 <= Outcome::SMALL_FILE);
        Ok(self.add(bytes))
    }

    fn put_large(&self, tmp: &Path, digest: ContentDigest, size: u64) -> io::Result<()> {
        let meta = std::fs::metadata(tmp)?;
        assert_eq!(meta.len(), size);
        assert!(size > Outcome::SMALL_FILE);
        assert_eq!(ContentDigest::of(&std::fs::read(tmp)?), digest);
        std::fs::rename(tmp, self.blobs.join(digest.hex()))
    }
}

/// Keeps what a step printed.
#[derive(Default)]
pub struct Printed(Mutex<(Vec<u8>, Vec<u8>)>);

impl Output for Printed {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut both = self.0.lock().unwrap();
        match stream {
            Stream::Stdout => both.0.extend_from_slice(bytes),
            Stream::Stderr => both.1.extend_from_slice(bytes),
        }
    }
}

impl Printed {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().0).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().1).into_owned()
    }
}

pub fn meta(mode: u32) -> Meta {
    Meta::new(mode, Mtime::pinned(1_500_000_000, 0))
}

/// A world for one test: a store, a sandbox, a base tree.
pub struct World {
    pub dir: tempfile::TempDir,
    pub store: Arc<Store>,
    pub sandbox: Sandbox,
    pub base: Tree,
}

impl World {
    pub fn new(mode: ModeChoice) -> Self {
        Self::with(mode, |_| {})
    }

    pub fn with(mode: ModeChoice, adjust: impl FnOnce(&mut SandboxConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::new(dir.path()));
        let mut config = SandboxConfig::new(dir.path().join("scratch"));
        config.mode = mode;
        adjust(&mut config);
        let sandbox = Sandbox::new(config).unwrap();
        let base = busybox(&store);
        Self { dir, store, sandbox, base }
    }

    pub fn contents(&self) -> Arc<dyn Contents> {
        self.store.clone()
    }

    pub fn file(&self, text: &[u8], mode: u32) -> Node {
        Node::File(File { meta: meta(mode), size: text.len() as u64, content: self.store.add(text), link: None })
    }

    pub fn shell(&self, base: &Tree, script: &str) -> Step {
        let argv = ["/bin/sh", "-c", script].map(|a| a.as_bytes().to_vec()).to_vec();
        Step::new(base.clone(), argv)
    }

    pub fn try_run(&self, step: &Step) -> (Result<Outcome, SandboxError>, Printed) {
        let printed = Printed::default();
        let result = self.sandbox.run(step, &self.contents(), &printed, &Cancel::new());
        (result, printed)
    }

    /// Runs a step that must succeed; gives its outcome and what it printed.
    pub fn run(&self, step: &Step) -> (Outcome, String) {
        let (result, printed) = self.try_run(step);
        let outcome = result.unwrap_or_else(|e| panic!("{e}\n{}{}", printed.out(), printed.err()));
        assert!(outcome.exit.success(), "{:?}\n{}{}", outcome.exit, printed.out(), printed.err());
        (outcome, printed.out())
    }

    /// Runs a script on a tree; gives the tree after it and what it printed.
    pub fn sh(&self, base: &Tree, script: &str) -> (Tree, String) {
        let (outcome, printed) = self.run(&self.shell(base, script));
        (outcome.diff.apply(base).unwrap(), printed)
    }

    /// The paths that a script changes, as `+path`, `-path`; directories as `path`, or `~path` if their
    /// own metadata changes.
    pub fn changes(&self, base: &Tree, script: &str) -> Vec<String> {
        let (outcome, _) = self.run(&self.shell(base, script));
        listing(&outcome)
    }

    /// The text of a file in a tree.
    pub fn text(&self, tree: &Tree, at: &str) -> String {
        match tree.get(at.as_bytes()) {
            Some(Node::File(file)) => String::from_utf8_lossy(&self.store.text(&file.content)).into_owned(),
            other => panic!("{at}: {other:?}"),
        }
    }
}

pub fn listing(outcome: &Outcome) -> Vec<String> {
    let mut out = Vec::new();
    if outcome.diff.root.meta.is_some() {
        out.push("~/".to_owned());
    }
    outcome.diff.walk(&mut |at, change| {
        let at = memobuild_tree::path::display(at);
        out.push(match change {
            memobuild_tree::Change::Remove => format!("-{at}"),
            memobuild_tree::Change::Dir(dir) => {
                let opaque = if dir.opaque { "!" } else { "" };
                let meta = if dir.meta.is_some() { "~" } else { "" };
                format!("{meta}{opaque}{at}")
            }
            _ => format!("+{at}"),
        });
    });
    out
}

/// Busybox with a link for each of its tools, and the usual empty directories.
pub fn busybox(store: &Store) -> Tree {
    let mut tree = Tree::default();
    tree.root_mut().set_meta(meta(0o755));
    let parent = || meta(0o755);
    for dir in ["bin", "dev", "etc", "home", "proc", "root", "sys", "usr/bin", "var/tmp"] {
        tree.put(format!("/{dir}").as_bytes(), Node::Dir(Arc::new(Dir::new(meta(0o755)))), &parent);
    }
    tree.put(b"/tmp", Node::Dir(Arc::new(Dir::new(meta(0o1777)))), &parent);
    let program = std::fs::read("/bin/busybox").expect("Debian's busybox-static");
    let content = store.add(&program);
    let file = File { meta: meta(0o755), size: program.len() as u64, content, link: None };
    tree.put(b"/bin/busybox", Node::File(file), &parent);
    let applets = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    for name in String::from_utf8(applets).unwrap().lines().filter(|n| *n != "busybox") {
        let link = Symlink { meta: meta(0o777), target: b"busybox".as_slice().into() };
        tree.put(format!("/bin/{name}").as_bytes(), Node::Symlink(link), &parent);
    }
    tree
}
