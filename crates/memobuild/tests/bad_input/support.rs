//! Images made by hand, entry by entry, so that they can be wrong in any way; and runs of memobuild under conditions.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, lchown},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use memobuild_tree::Sha256Digest;

use crate::common::{Place, text};

/// A tar stream under construction (ustar), with whatever names and types are asked for.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn entry(mut self, kind: u8, name: &str, link: &str, mode: u32, device: (u32, u32), data: &[u8]) -> Self {
        let mut header = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(name.len() <= 100 && link.len() <= 100, "no long names here");
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, b"0000000\x000000000\0");
        put(124, format!("{:011o}\0{:011o}\0", data.len(), 1_600_000_000).as_bytes());
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}\0{:07o}\0", device.0, device.1).as_bytes());
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(b'0', name, "", 0o644, (0, 0), data)
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(b'5', name, "", 0o755, (0, 0), b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, 0o777, (0, 0), b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, 0o644, (0, 0), b"")
    }

    pub fn char_device(self, name: &str, major: u32, minor: u32) -> Self {
        self.entry(b'3', name, "", 0o666, (major, minor), b"")
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A root file system of a static busybox, as a layer. None where there is none: then the test says so and ends.
pub fn busybox_layer() -> Option<Vec<u8>> {
    let found = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| fs::read(path).is_ok_and(|b| is_static(&b)));
    let Some(busybox) = found else {
        println!("skipped: no static busybox on this machine");
        return None;
    };
    let bytes = fs::read(busybox).unwrap();
    let mut tar = Tar::default();
    for dir in ["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/"] {
        tar = tar.dir(dir);
    }
    tar = tar.entry(b'0', "bin/busybox", "", 0o755, (0, 0), &bytes);
    for applet in ["sh", "cat", "dd", "echo", "head", "ls", "mkdir", "sleep", "test", "true", "wc"] {
        tar = tar.symlink(&format!("bin/{applet}"), "busybox");
    }
    Some(tar.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n").finish())
}

/// Makes everything in a directory nobody's.
pub fn give_away(dir: &Path) {
    lchown(dir, Some(65534), Some(65534)).unwrap();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            give_away(&entry.path());
        } else {
            lchown(entry.path(), Some(65534), Some(65534)).unwrap();
        }
    }
}

/// Whether a program (64-bit ELF, little-endian) asks for no loader: it has no PT_INTERP.
fn is_static(elf: &[u8]) -> bool {
    let number =
        |at: usize, len: usize| elf.get(at..at + len)?.iter().rev().try_fold(0, |n, b| Some(n << 8 | usize::from(*b)));
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else { return false };
    elf.starts_with(b"\x7fELF\x02\x01") && (0..count).all(|n| number(table + n * size, 4).is_some_and(|kind| kind != 3))
}

/// An OCI layout of one image with these uncompressed layers. Gives the files of the layers' blobs.
pub fn layout(dir: &Path, layers: &[Vec<u8>]) -> Vec<PathBuf> {
    let diff_ids: Vec<String> = layers.iter().map(|l| Sha256Digest::of(l).to_string()).collect();
    layout_saying(dir, layers, &diff_ids)
}

/// The same, but the config names these diff IDs.
pub fn layout_saying(dir: &Path, layers: &[Vec<u8>], diff_ids: &[String]) -> Vec<PathBuf> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |kind: &str, bytes: &[u8]| {
        let digest = Sha256Digest::of(bytes);
        let path = blobs.join(digest.hex());
        fs::write(&path, bytes).unwrap();
        let media_type = format!("application/vnd.oci.image.{kind}");
        (serde_json::json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() }), path)
    };
    let (layers, paths): (Vec<_>, Vec<_>) = layers.iter().map(|l| put("layer.v1.tar", l)).unzip();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({ "architecture": arch, "os": "linux", "config": { "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let (config, _) = put("config.v1+json", config.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        serde_json::json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    let (manifest, _) = put("manifest.v1+json", manifest.to_string().as_bytes());
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    paths
}

/// A place with a Dockerfile and, under the name `base`, an image of these layers.
pub fn place_with_base(dockerfile: &str, layers: &[Vec<u8>]) -> (Place, Vec<PathBuf>) {
    let place = Place::with(&[("Dockerfile", dockerfile)]);
    let blobs = layout(&place.path("base"), layers);
    // Not part of what is sent.
    place.write(".dockerignore", "base\nout*\n");
    (place, blobs)
}

/// Arguments of a build that may name `base` and writes to `out.tar`.
pub const BUILD: [&str; 7] = [
    "build",
    "--progress=plain",
    "--build-context",
    "base=oci-layout://base",
    "--output",
    "type=tar,dest=out.tar",
    ".",
];

/// A build to `out.tar` that must succeed; gives what it showed.
pub fn built(place: &Place) -> String {
    let out = place.memobuild(&BUILD);
    let shown = text(&out.stderr);
    assert!(out.status.success(), "{shown}");
    shown
}

/// One clear error with that exit code and these words in it; no panic, and nothing under the output's name.
#[track_caller]
pub fn fails(place: &Place, out: &Output, code: i32, words: &[&str]) {
    let shown = text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{shown}");
    assert!(!shown.contains("panicked"), "{shown}");
    let errors = shown.lines().filter(|l| l.starts_with("error: ") || l.starts_with("error[")).count();
    assert_eq!(errors, 1, "one error is shown: {shown}");
    let error = &shown[shown.find("error: ").or_else(|| shown.find("error[")).unwrap()..];
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {shown}");
    }
    assert!(!place.path("out.tar").exists(), "{shown}");
}

/// The files of a tar that memobuild wrote: name, type and size, in order.
pub fn listed(tar: &Path) -> Vec<(String, u8, u64)> {
    let bytes = fs::read(tar).unwrap();
    let mut at = 0;
    let mut out = Vec::new();
    while let Some(header) = bytes.get(at..at + 512).filter(|h| h[0] != 0) {
        let field = |from: usize, len: usize| {
            let field = &header[from..from + len];
            text(field.split(|b| *b == 0).next().unwrap_or_default()).trim().to_owned()
        };
        let size = u64::from_str_radix(&field(124, 12), 8).unwrap();
        out.push((field(0, 100), header[156], size));
        at += 512 + usize::try_from(size).unwrap().next_multiple_of(512);
    }
    out
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A shell command with `$memobuild`, in a mount namespace of its own where memory file systems may be mounted.
/// None where that is not allowed: said, and the test ends.
pub fn with_mounts(place: &Place, script: &str) -> Option<Output> {
    let works = Command::new("unshare").args(["--mount", "true"]).output().is_ok_and(|o| o.status.success());
    if !is_root() || !works {
        println!("skipped: not root, or mounts are not allowed");
        return None;
    }
    let mut command = place.command("unshare");
    command.args(["--mount", "sh", "-c", script]).env("memobuild", env!("CARGO_BIN_EXE_memobuild"));
    command.env("cache", cache(place)).env("TMPDIR", "/tmp");
    Some(command.output().unwrap())
}

/// The place's cache directory.
pub fn cache(place: &Place) -> PathBuf {
    place.path("").parent().unwrap().join("cache")
}

/// Every file below a directory.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() { out.extend(files_below(&path)) } else { out.push(path) }
    }
    out.sort();
    out
}

/// Writes over a file of the cache, as a failing disk would: by another inode, so that nothing that is open changes.
pub fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
    file.write_all(&bytes).unwrap();
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
    file.persist(path).unwrap();
}

/// Processes that have the place's cache directory in their environment.
pub fn processes_of(place: &Place) -> Vec<String> {
    let wanted = format!("MEMOBUILD_CACHE_DIR={}", cache(place).display());
    let mut out = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let is_ours = |environ: Vec<u8>| environ.split(|b| *b == 0).any(|v| v == wanted.as_bytes());
        if fs::read(entry.path().join("environ")).is_ok_and(is_ours) {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            out.push(format!("{:?}: {}", entry.file_name(), text(&command).replace('\0', " ")));
        }
    }
    out
}

/// Waits for the place's processes to end, half a minute at most.
#[track_caller]
pub fn all_processes_end(place: &Place) {
    for _ in 0..300 {
        if processes_of(place).is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("still running: {:#?}", processes_of(place));
}
