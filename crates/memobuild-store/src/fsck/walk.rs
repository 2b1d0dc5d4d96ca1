//! All names in a store's directory, one after the other, and what each stands for.

use std::{fs, io, path::PathBuf};

use memobuild_tree::{BundleId, ContentDigest, KeyDigest, Sha256Digest};

use super::look::Subject;
use crate::{
    Ref,
    error::{Result, StoreError},
    layout::{DAMAGED, Layout, SUBDIRS, UNKNOWN},
};

/// Files at the top. A tag for backup programs may be the user's.
const TOP_FILES: [&str; 6] =
    ["format", "index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "index.sqlite-journal", "CACHEDIR.TAG"];
/// Directories at the top besides the store's own. The former is there where a disk is mounted.
const TOP_DIRS: [&str; 2] = ["lost+found", UNKNOWN];

/// One name in a directory.
struct Name {
    path: PathBuf,
    /// Empty where it is no text.
    text: String,
    is_dir: bool,
    is_file: bool,
}

/// Calls `visit` with every directory that has to be there, and everything that is. What goes away meanwhile may be
/// among them.
pub(super) fn each(layout: &Layout, visit: &mut dyn FnMut(Subject)) -> Result<()> {
    SUBDIRS.into_iter().for_each(|name| visit(Subject::Directory(name)));
    names(layout.dir.clone(), &mut |name| {
        let among = |names: &[&str]| names.contains(&name.text.as_str());
        let known_dir = name.is_dir && (among(&TOP_DIRS) || is_ours(&name.text));
        // An index that was set aside has its log with it.
        let main = ["-wal", "-shm"].iter().find_map(|suffix| name.text.strip_suffix(suffix));
        let is_part = main.is_some_and(|main| name.is_file && name.path.with_file_name(main).is_file());
        if !(known_dir || is_part || name.is_file && among(&TOP_FILES)) {
            visit(match name {
                Name { path, text, is_file: true, .. } if text.starts_with("index.corrupt-") => Subject::OldIndex(path),
                Name { path, text, is_file: true, .. } if text.starts_with("format.") => Subject::HalfFormat(path),
                Name { path, .. } => Subject::Unknown(path),
            });
        }
        Ok(())
    })?;
    // The only directory of the store in which there are others.
    names(layout.dir.join("oci"), &mut |name| {
        if !name.is_dir || !is_ours(&format!("oci/{}", name.text)) {
            visit(Subject::Unknown(name.path));
        }
        Ok(())
    })?;
    things(layout.bundles(), &|hex| BundleId::from_hex(hex).ok().map(Ref::Bundle), visit)?;
    things(layout.oci(), &|hex| Sha256Digest::from_hex(hex).ok().map(Ref::Oci), visit)?;
    names(layout.blobs(), &mut |fan| {
        let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !fan.is_dir || !digits(&fan.text) {
            visit(Subject::Unknown(fan.path));
            return Ok(());
        }
        let blob =
            |hex: &str| ContentDigest::from_hex(hex).ok().filter(|_| hex.starts_with(&fan.text)).map(Ref::Content);
        things(fan.path, &blob, visit)
    })?;
    names(layout.oci_partials(), &mut |name| {
        let known = name.is_file && Sha256Digest::from_hex(&name.text).is_ok();
        visit(if known { Subject::Partial(name.path) } else { Subject::Unknown(name.path) });
        Ok(())
    })?;
    names(layout.contexts(), &mut |name| {
        let known = name.is_file && KeyDigest::from_hex(&name.text).is_ok();
        visit(if known { Subject::Context(name.path) } else { Subject::Unknown(name.path) });
        Ok(())
    })?;
    names(layout.leases(), &mut |name| {
        match name {
            Name { text, is_file: true, .. } if text == "gate" => {}
            Name { path, text, is_file: true, .. } if is_token(&text) => visit(Subject::Lease(path)),
            Name { path, .. } => visit(Subject::Unknown(path)),
        }
        Ok(())
    })?;
    // After the leases' own directory was read or before makes no difference: each is asked about its lease.
    names(layout.tmp(), &mut |name| {
        visit(Subject::Scratch(name.path));
        Ok(())
    })?;
    names(layout.mounts(), &mut |name| {
        let key = if name.is_dir { Some(name.text.as_str()) } else { name.text.strip_suffix(".lock") };
        if !(name.is_dir || name.is_file) || key.is_none_or(|hex| KeyDigest::from_hex(hex).is_err()) {
            visit(Subject::Unknown(name.path));
        }
        Ok(())
    })?;
    names(layout.locks(), &mut |name| {
        if !name.is_file || ContentDigest::from_hex(&name.text).is_err() {
            visit(Subject::Unknown(name.path));
        }
        Ok(())
    })
}

/// Whether a directory, or one in it, is one of the store's.
fn is_ours(name: &str) -> bool {
    SUBDIRS.iter().any(|dir| *dir == name || dir.split('/').next() == Some(name))
}

/// Whether it is the name of a lease: a process id and 16 digits.
fn is_token(name: &str) -> bool {
    name.split_once('-').is_some_and(|(pid, random)| {
        pid.parse::<u32>().is_ok() && random.len() == 16 && u64::from_str_radix(random, 16).is_ok()
    })
}

/// Files that are named by digests.
fn things(dir: PathBuf, parse: &dyn Fn(&str) -> Option<Ref>, visit: &mut dyn FnMut(Subject)) -> Result<()> {
    names(dir, &mut |name| {
        let aside = name.text.strip_suffix(DAMAGED).and_then(|rest| rest.strip_suffix('.'));
        visit(match (parse(&name.text), aside) {
            (Some(thing), _) if name.is_file => Subject::Thing(thing),
            (None, Some(hex)) if name.is_file && parse(hex).is_some() => Subject::SetAside(name.path),
            _ => Subject::Unknown(name.path),
        });
        Ok(())
    })
}

/// The names in a directory, as they are listed; none if it is not there.
fn names(dir: PathBuf, visit: &mut dyn FnMut(Name) -> Result<()>) -> Result<()> {
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(StoreError::io("list", &dir)(e)),
    };
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", &dir))?;
        let text = entry.file_name().into_string().unwrap_or_default();
        // What NFS keeps of a file that was removed while it was open.
        if text.starts_with(".nfs") {
            continue;
        }
        match entry.file_type() {
            Ok(kind) => visit(Name { path: entry.path(), text, is_dir: kind.is_dir(), is_file: kind.is_file() })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(StoreError::io("inspect", entry.path())(e)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_leases_and_directories_are_known() {
        assert!(is_token("12-00112233445566ff") && !is_token("12-0011") && !is_token("gate") && !is_token("x-y"));
        assert!(is_ours("oci") && is_ours("oci/partial") && is_ours("tmp") && !is_ours("oci/x") && !is_ours("work"));
    }
}
