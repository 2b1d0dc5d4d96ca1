//! Base images, made from this machine's own files: once for a work directory, as OCI layouts.
//!
//! An image has two layers: the tools, which are the same in all variants, and some files of which each variant has its
//! own version. Variant 1 differs from 0 in a file that no step reads; 2 to 4 in files that some steps read; 5 in its
//! environment.

use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::{
    edits::BASES,
    error::{SoakError, at},
    project::{Features, Flavor},
};

/// Files of a base have this time.
const TIME: u64 = 1_577_836_800;
const MAKE: &str = include_str!("../image/make-rootfs");
const PROBE: &str = include_str!("../image/probe.c");

/// The images of one flavor.
#[derive(Debug, Clone)]
pub struct Bases {
    variants: Vec<PathBuf>,
    tools: PathBuf,
}

impl Bases {
    /// Takes them from `work`, or makes them there.
    ///
    /// # Errors
    /// If there is no static busybox, or, for [`Flavor::Full`], a tool lacks.
    pub fn make(work: &Path, flavor: Flavor) -> Result<Self, SoakError> {
        let name = if flavor == Flavor::Full { "full" } else { "small" };
        let busybox = busybox()?;
        let mut hash = Sha256::new();
        for part in [MAKE.as_bytes(), PROBE.as_bytes(), include_bytes!("bases.rs"), name.as_bytes()] {
            hash.update(part);
        }
        let dir = work.join(format!("base-{name}-{}", &hex(&hash.finalize())[..16]));
        let bases =
            Self { variants: (0..BASES).map(|v| dir.join(format!("v{v}"))).collect(), tools: dir.join("rootfs") };
        if dir.is_dir() {
            return Ok(bases);
        }
        fs::create_dir_all(work).map_err(at(work))?;
        let temporary = tempfile::Builder::new().prefix("making-").tempdir_in(work).map_err(at(work))?;
        build(temporary.path(), name, &busybox)?;
        // Another process may have been faster.
        let made = temporary.keep();
        if fs::rename(&made, &dir).is_err() {
            let _ = fs::remove_dir_all(&made);
        }
        Ok(bases)
    }

    /// Address of a variant's OCI layout.
    pub fn layout(&self, variant: usize) -> &Path {
        self.variants.get(variant % BASES).map_or(Path::new(""), |p| p)
    }

    /// What steps on these images can do on this machine, in this mode of running steps.
    pub fn features(&self, mode: &str) -> Features {
        let probe = self.tools.join("bin/probe");
        let uring = Command::new(&probe).arg("has-uring").status().is_ok_and(|s| s.success());
        let root = fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
        Features { users: root, probe: probe.exists(), uring, blocks: mode == "traced" }
    }
}

/// A busybox that needs no libraries: BUSYBOX or the usual places.
fn busybox() -> Result<PathBuf, SoakError> {
    let named = std::env::var_os("BUSYBOX").map(PathBuf::from);
    let places = named.into_iter().chain(["/bin/busybox".into(), "/usr/bin/busybox".into()]);
    for place in places {
        let ldd = Command::new("ldd").arg(&place).output();
        // ldd fails on a program without a loader, or says so.
        let is_static =
            ldd.is_ok_and(|o| !o.status.success() || o.stdout.windows(17).any(|w| w == b"statically linked"));
        if place.exists() && is_static {
            return Ok(place);
        }
    }
    Err(SoakError::Base("a static busybox is needed: apt-get install busybox-static, or set BUSYBOX".into()))
}

fn build(dir: &Path, name: &str, busybox: &Path) -> Result<(), SoakError> {
    let write = |file: &str, text: &str| {
        let path = dir.join(file);
        fs::write(&path, text).map_err(at(&path)).map(|()| path)
    };
    let (script, probe, rootfs) = (write("make-rootfs", MAKE)?, write("probe.c", PROBE)?, dir.join("rootfs"));
    let out = Command::new("bash")
        .args([script.as_os_str(), name.as_ref(), busybox.as_ref(), probe.as_ref(), rootfs.as_ref()])
        .output()
        .map_err(at(&script))?;
    if !out.status.success() {
        return Err(SoakError::Base(String::from_utf8_lossy(&out.stderr).trim().to_owned()));
    }
    let tools = dir.join("tools.tar");
    let file = fs::File::create(&tools).map_err(at(&tools))?;
    let mut tar = Builder::new(file);
    add_dir(&mut tar, &rootfs, Path::new("")).map_err(at(&rootfs))?;
    tar.into_inner().map_err(at(&tools))?;
    let tools_id = digest(&tools)?;
    for variant in 0..BASES {
        layout(&dir.join(format!("v{variant}")), variant, &tools, &tools_id)?;
    }
    fs::remove_file(&tools).map_err(at(&tools))
}

/// All of a directory in order of names, owned by root, with one time.
fn add_dir(tar: &mut Builder<fs::File>, root: &Path, rel: &Path) -> std::io::Result<()> {
    let mut names: Vec<_> = fs::read_dir(root.join(rel))?.collect::<Result<_, _>>()?;
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let rel = rel.join(entry.file_name());
        let meta = entry.metadata()?;
        let mut header = Header::new_ustar();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(TIME);
        header.set_mode(meta.permissions().mode() & 0o7777);
        header.set_size(0);
        if meta.is_dir() {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, rel.join(""), std::io::empty())?;
            add_dir(tar, root, &rel)?;
        } else if meta.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, &rel, fs::read_link(entry.path())?)?;
        } else {
            header.set_size(meta.len());
            tar.append_data(&mut header, &rel, fs::File::open(entry.path())?)?;
        }
    }
    Ok(())
}

/// The layer of a variant.
fn own_layer(variant: usize) -> std::io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let mut add = |path: &str, kind: EntryType, mode: u32, time: u64, data: &str| {
        let mut header = Header::new_ustar();
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(time);
        header.set_size(0);
        match kind {
            EntryType::Symlink | EntryType::Link => tar.append_link(&mut header, path, data),
            _ => {
                header.set_size(data.len() as u64);
                tar.append_data(&mut header, path, data.as_bytes())
            }
        }
    };
    let is = |v: usize| variant == v;
    let (file, dir) = (EntryType::Regular, EntryType::Directory);
    let more = if is(4) { "daemon:x:1:1::/:/bin/false\n" } else { "" };
    let passwd = format!("root:x:0:0:root:/root:/bin/sh\n{more}nobody:x:65534:65534:nobody:/:/bin/sh\n");
    add("etc/passwd", file, 0o644, TIME, &passwd)?;
    add("etc/group", file, 0o644, TIME, "root:x:0:\nnogroup:x:65534:\n")?;
    add("usr/share/", dir, 0o755, TIME, "")?;
    add("usr/share/b/", dir, 0o755, TIME, "")?;
    add("usr/share/b/unread", file, 0o644, TIME, if is(1) { "other\n" } else { "nobody reads this\n" })?;
    let conf = if is(2) { "conf = other\n" } else { "conf = value\n" };
    add("usr/share/b/conf1", file, 0o644, if is(4) { TIME + 5 } else { TIME }, conf)?;
    add("usr/share/b/d/", dir, 0o755, TIME, "")?;
    add("usr/share/b/d/e1", file, 0o644, TIME, "1\n")?;
    add("usr/share/b/d/e2", file, 0o644, TIME, "2\n")?;
    if is(3) {
        add("usr/share/b/d/e3", file, 0o644, TIME, "3\n")?;
        add("usr/share/b/opt", file, 0o644, TIME, "opt\n")?;
    }
    add("usr/share/b/link", EntryType::Symlink, 0o777, TIME, if is(3) { "d/e2" } else { "d/e1" })?;
    add("usr/share/b/tool", file, if is(4) { 0o700 } else { 0o755 }, TIME, "#!/bin/sh\necho tool\n")?;
    add("usr/share/b/twin1", file, 0o644, TIME, "twin\n")?;
    if is(4) {
        add("usr/share/b/twin2", file, 0o644, TIME, "twin\n")?;
    } else {
        add("usr/share/b/twin2", EntryType::Link, 0o644, TIME, "usr/share/b/twin1")?;
    }
    tar.into_inner()
}

fn layout(dir: &Path, variant: usize, tools: &Path, tools_id: &str) -> Result<(), SoakError> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(at(&blobs))?;
    let put = |bytes: &[u8]| {
        let id = hex(&Sha256::digest(bytes));
        let path = blobs.join(&id);
        fs::write(&path, bytes).map_err(at(&path)).map(|()| id)
    };
    let tools_blob = blobs.join(tools_id);
    fs::hard_link(tools, &tools_blob).map_err(at(&tools_blob))?;
    let own = own_layer(variant).map_err(at(dir))?;
    let own_id = put(&own)?;
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut env = vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned()];
    if variant == 5 {
        env.push("BASE=5".into());
    }
    let sha = |id: &str| format!("sha256:{id}");
    let config = json!({
        "created": "2020-01-01T00:00:00Z", "architecture": arch, "os": "linux",
        "config": { "Env": env, "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [sha(tools_id), sha(&own_id)] },
        "history": [{ "created_by": "tools" }, { "created_by": format!("variant {variant}") }],
    });
    let config = config.to_string();
    let tools_size = fs::metadata(tools).map_err(at(tools))?.len();
    let layer = |id: &str, size: u64| json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha(id), "size": size });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha(&put(config.as_bytes())?), "size": config.len()
        },
        "layers": [layer(tools_id, tools_size), layer(&own_id, own.len() as u64)],
    });
    let manifest = manifest.to_string();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": sha(&put(manifest.as_bytes())?), "size": manifest.len(),
            "platform": { "architecture": arch, "os": "linux" },
            "annotations": { "org.opencontainers.image.ref.name": "latest" }
        }],
    });
    for (name, text) in [("index.json", index.to_string()), ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.into())]
    {
        let path = dir.join(name);
        fs::write(&path, text).map_err(at(&path))?;
    }
    Ok(())
}

fn digest(path: &Path) -> Result<String, SoakError> {
    let mut file = fs::File::open(path).map_err(at(path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(at(path))?;
        if n == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(buffer.get(..n).unwrap_or_default());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
