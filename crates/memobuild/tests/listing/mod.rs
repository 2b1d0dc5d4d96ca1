//! A root file system on disk, as lines that a test can compare.
#![allow(unreachable_pub)]

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path};

/// For each path below a directory its kind and mode, and its content or target.
pub fn lines(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    add(root, root, &mut lines);
    lines
}

fn add(root: &Path, dir: &Path, lines: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let what = if meta.is_dir() {
            add(root, &path, lines);
            String::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
        };
        let name = path.strip_prefix(root).unwrap().display().to_string();
        lines.insert(name, format!("{:o} {what}", meta.mode()));
    }
}
