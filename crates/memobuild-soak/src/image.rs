//! Reads an image from an OCI layout with code of its own, so that a fault of the reader under test can't hide one of
//! the writer: layers laid over each other, hard links as groups of names.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Read,
    path::Path,
    sync::{Arc, Mutex},
};

use serde_json::Value;

use crate::error::{SoakError, at};

/// What a name in the image stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `file`, `dir`, `link`, `fifo`, `char`, `block`.
    pub kind: &'static str,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds, and a fraction as written.
    pub mtime: (i64, String),
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Content, target or device number.
    pub data: Arc<[u8]>,
}

/// An image as a container would see it.
#[derive(Debug, Default)]
pub struct Image {
    /// What each path is: a number, the same for names of one file.
    pub names: BTreeMap<Vec<u8>, usize>,
    /// What these numbers stand for.
    pub nodes: Vec<Node>,
    /// The config, without what differs from build to build: times and what they go into.
    pub config: Value,
}

/// One member of a layer.
#[derive(Debug)]
enum Member {
    Node(Node),
    HardLink(Vec<u8>),
}

type Layer = Arc<Vec<(Vec<u8>, Member)>>;

/// Layers that were read once: those of base images.
#[derive(Debug, Default)]
pub struct Layers {
    known: Mutex<HashMap<String, Layer>>,
}

impl Layers {
    fn read(&self, blobs: &Path, digest: &str, keep: bool) -> Result<Layer, SoakError> {
        if let Some(layer) = self.known.lock().ok().and_then(|k| k.get(digest).cloned()) {
            return Ok(layer);
        }
        let path = blobs.join(digest);
        let layer = Arc::new(read_layer(&path).map_err(at(&path))?);
        if keep && let Ok(mut known) = self.known.lock() {
            known.insert(digest.to_owned(), layer.clone());
        }
        Ok(layer)
    }

    /// Reads the image that a build wrote to this directory. `base`: how many of its layers are a base image's.
    ///
    /// # Errors
    /// If it is none.
    pub fn image(&self, dir: &Path, base: usize) -> Result<Image, SoakError> {
        let blobs = dir.join("blobs/sha256");
        let json = |path: &Path| -> Result<Value, SoakError> {
            let bytes = fs::read(path).map_err(at(path))?;
            serde_json::from_slice(&bytes).map_err(|e| SoakError::Image { path: path.to_owned(), what: e.to_string() })
        };
        let digest =
            |value: &Value| value["digest"].as_str().unwrap_or_default().trim_start_matches("sha256:").to_owned();
        let index = json(&dir.join("index.json"))?;
        let manifest = json(&blobs.join(digest(&index["manifests"][0])))?;
        let mut image = Image { config: json(&blobs.join(digest(&manifest["config"])))?, ..Image::default() };
        if let Value::Object(config) = &mut image.config {
            config.remove("created");
            config.remove("rootfs");
            for entry in config.get_mut("history").and_then(Value::as_array_mut).into_iter().flatten() {
                entry.as_object_mut().map(|e| e.remove("created"));
            }
        }
        for (i, layer) in manifest["layers"].as_array().into_iter().flatten().enumerate() {
            let layer = self.read(&blobs, &digest(layer), i < base)?;
            image.lay_over(&layer).map_err(|what| SoakError::Image { path: dir.to_owned(), what })?;
        }
        Ok(image)
    }
}

fn read_layer(path: &Path) -> std::io::Result<Vec<(Vec<u8>, Member)>> {
    let mut out = Vec::new();
    let mut tar = tar::Archive::new(std::io::BufReader::with_capacity(1 << 18, fs::File::open(path)?));
    for entry in tar.entries()? {
        let mut entry = entry?;
        let mut extended = BTreeMap::new();
        for pair in entry.pax_extensions()?.into_iter().flatten() {
            let pair = pair?;
            extended.insert(String::from_utf8_lossy(pair.key_bytes()).into_owned(), pair.value_bytes().to_vec());
        }
        let text = |key: &str| extended.get(key).and_then(|v| String::from_utf8(v.clone()).ok());
        let number = |key: &str| text(key).and_then(|v| v.parse::<u64>().ok());
        let name = clean(&entry.path_bytes());
        let header = entry.header();
        let kind = match header.entry_type() {
            tar::EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default();
                out.push((name, Member::HardLink(clean(&target))));
                continue;
            }
            tar::EntryType::Directory => "dir",
            tar::EntryType::Symlink => "link",
            tar::EntryType::Fifo => "fifo",
            tar::EntryType::Char => "char",
            tar::EntryType::Block => "block",
            _ => "file",
        };
        let (uid, gid) = (number("uid").unwrap_or(header.uid()?), number("gid").unwrap_or(header.gid()?));
        let mtime = match text("mtime") {
            Some(text) => {
                let (secs, fraction) = text.split_once('.').unwrap_or((&text, ""));
                (secs.parse().unwrap_or_default(), fraction.trim_end_matches('0').to_owned())
            }
            None => (header.mtime()?.cast_signed(), String::new()),
        };
        let mode = if kind == "link" { 0o777 } else { header.mode()? & 0o7777 };
        let xattrs = extended
            .iter()
            .filter_map(|(k, v)| Some((k.strip_prefix("SCHILY.xattr.")?.to_owned(), v.clone())))
            .collect();
        let data: Vec<u8> = match kind {
            "link" => entry.link_name_bytes().unwrap_or_default().to_vec(),
            "char" | "block" => format!("{:?}:{:?}", header.device_major()?, header.device_minor()?).into_bytes(),
            "file" => {
                let mut data = Vec::new();
                entry.read_to_end(&mut data)?;
                data
            }
            _ => Vec::new(),
        };
        out.push((name, Member::Node(Node { kind, mode, uid, gid, mtime, xattrs, data: data.into() })));
    }
    Ok(out)
}

/// `./a//b/` is `/a/b`; the root is empty.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".") {
        out.push(b'/');
        out.extend_from_slice(part);
    }
    out
}

impl Image {
    /// The node of a path.
    pub fn get(&self, path: &[u8]) -> Option<&Node> {
        self.names.get(path).and_then(|n| self.nodes.get(*n))
    }

    /// The other names of each file that has several, by its first name.
    pub fn groups(&self) -> BTreeMap<&[u8], Vec<&[u8]>> {
        let mut by_node: BTreeMap<usize, Vec<&[u8]>> = BTreeMap::new();
        for (path, node) in &self.names {
            by_node.entry(*node).or_default().push(path);
        }
        by_node.into_values().filter(|p| p.len() > 1).filter_map(|p| Some((*p.first()?, p))).collect()
    }

    fn remove(&mut self, path: &[u8], itself: bool) {
        let prefix = [path, b"/"].concat();
        let below: Vec<Vec<u8>> = self
            .names
            .range(prefix.clone()..)
            .map(|(p, _)| p)
            .take_while(|p| p.starts_with(&prefix))
            .cloned()
            .collect();
        for path in below {
            self.names.remove(&path);
        }
        if itself {
            self.names.remove(path);
        }
    }

    fn lay_over(&mut self, layer: &[(Vec<u8>, Member)]) -> Result<(), String> {
        for (path, _) in layer {
            let cut = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
            let (dir, name) = path.split_at(cut);
            match name.strip_prefix(b"/.wh.") {
                Some(b".wh..opq") => self.remove(dir, false),
                Some(gone) => self.remove(&[dir, b"/", gone].concat(), true),
                None => {}
            }
        }
        for (path, member) in layer {
            if path.rsplit(|b| *b == b'/').next().is_some_and(|n| n.starts_with(b".wh.")) {
                continue;
            }
            match member {
                Member::HardLink(target) => {
                    let node = *self
                        .names
                        .get(target)
                        .ok_or_else(|| format!("{}: no such hard link target", String::from_utf8_lossy(target)))?;
                    self.remove(path, true);
                    self.names.insert(path.clone(), node);
                }
                Member::Node(node) => {
                    let stays = node.kind == "dir" && self.get(path).is_some_and(|old| old.kind == "dir");
                    // The root is a directory and stays, whether a layer names it or not.
                    if !stays && !path.is_empty() {
                        self.remove(path, true);
                    }
                    self.nodes.push(node.clone());
                    self.names.insert(path.clone(), self.nodes.len() - 1);
                }
            }
        }
        Ok(())
    }
}
