//! The canonical encoding of a [`Diff`]: what a bundle's table of contents is made of, and what a [`BundleId`] is the
//! digest of. Equal diffs have equal encodings.
//!
//! Layout: a version byte, then the root as a directory change. Integers are LEB128; byte strings are preceded by
//! their length. Names come in strictly rising byte order, which decoding checks.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    diff::{Change, Diff, DirChange},
    digest::{BundleId, ContentDigest, LinkId},
    node::{File, Meta, Mtime, Node, Special, SpecialKind, Symlink},
};

const VERSION: u8 = 1;
/// Directories nested deeper than this are refused: decoding recurses, and no file system allows such paths
/// (PATH_MAX is 4,096 bytes).
const MAX_DEPTH: usize = 2100;
/// The stack, in bytes, of threads that handle trees: what recursion over directories as deep as they may be can take in
/// a debug build, with room to spare. Only what is used of it takes memory.
pub const STACK: usize = 32 << 20;

/// Bytes that are not the encoding of a diff.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged table of contents at byte {offset}: {what}")]
pub struct DecodeError {
    offset: usize,
    what: &'static str,
}

/// The canonical bytes.
pub fn encode(diff: &Diff) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_dir(&mut out, &diff.root);
    out
}

/// The name of the bundle with these canonical bytes.
pub fn bundle_id(encoded: &[u8]) -> BundleId {
    BundleId::from_bytes(*blake3::hash(encoded).as_bytes())
}

/// Reads what [`encode`] wrote. Never panics, whatever the bytes.
pub fn decode(bytes: &[u8]) -> Result<Diff, DecodeError> {
    let mut reader = Reader { all: bytes, at: 0 };
    if reader.byte()? != VERSION {
        return Err(reader.error("unknown version"));
    }
    let root = reader.dir(0)?;
    if reader.at != bytes.len() {
        return Err(reader.error("bytes after the end"));
    }
    Ok(Diff { root })
}

pub(crate) fn put_int(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_int(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_meta(out: &mut Vec<u8>, meta: &Meta) {
    put_int(out, u64::from(meta.mode));
    put_int(out, u64::from(meta.uid));
    put_int(out, u64::from(meta.gid));
    // Zigzag: small negative times stay short.
    put_int(out, ((meta.mtime.secs << 1) ^ (meta.mtime.secs >> 63)) as u64);
    put_int(out, u64::from(meta.mtime.nanos) << 1 | u64::from(meta.mtime.pinned));
    let xattrs = meta.xattrs.as_deref();
    put_int(out, xattrs.map_or(0, |x| x.len() as u64));
    for (name, value) in xattrs.into_iter().flatten() {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn put_dir(out: &mut Vec<u8>, dir: &DirChange) {
    out.push(u8::from(dir.meta.is_some()) | u8::from(dir.opaque) << 1);
    if let Some(meta) = &dir.meta {
        put_meta(out, meta);
    }
    put_int(out, dir.entries.len() as u64);
    for (name, change) in &dir.entries {
        put_bytes(out, name);
        put_change(out, change);
    }
}

mod tag {
    pub(super) const REMOVE: u8 = 0;
    pub(super) const DIR: u8 = 1;
    pub(super) const FILE: u8 = 2;
    pub(super) const LINKED_FILE: u8 = 3;
    pub(super) const SYMLINK: u8 = 4;
    pub(super) const FIFO: u8 = 5;
    pub(super) const CHAR: u8 = 6;
    pub(super) const BLOCK: u8 = 7;
    pub(super) const LINK_TO: u8 = 8;
}

fn put_change(out: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Remove => out.push(tag::REMOVE),
        Change::Dir(dir) => {
            out.push(tag::DIR);
            put_dir(out, dir);
        }
        Change::LinkTo(target) => {
            out.push(tag::LINK_TO);
            put_bytes(out, target);
        }
        // A directory can't be put as a leaf; encoded as what it means.
        Change::Put(Node::Dir(dir)) => {
            out.push(tag::DIR);
            put_dir(out, &DirChange { opaque: true, ..DirChange::creating(dir) });
        }
        Change::Put(Node::File(file)) => {
            out.push(if file.link.is_some() { tag::LINKED_FILE } else { tag::FILE });
            put_meta(out, &file.meta);
            put_int(out, file.size);
            out.extend_from_slice(file.content.as_bytes());
            if let Some(link) = &file.link {
                out.extend_from_slice(link.as_bytes());
            }
        }
        Change::Put(Node::Symlink(link)) => {
            out.push(tag::SYMLINK);
            put_meta(out, &link.meta);
            put_bytes(out, &link.target);
        }
        Change::Put(Node::Special(special)) => {
            out.push(match special.kind {
                SpecialKind::Fifo => tag::FIFO,
                SpecialKind::Char => tag::CHAR,
                SpecialKind::Block => tag::BLOCK,
            });
            put_meta(out, &special.meta);
            put_int(out, u64::from(special.rdev.0));
            put_int(out, u64::from(special.rdev.1));
        }
    }
}

struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { offset: self.at, what }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.all.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or_else(|| self.error("cut short"))?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.take(1)?.first().copied().ok_or_else(|| self.error("cut short"))
    }

    fn int(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(self.error("number too large"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.error("number not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.error("number too long"))
    }

    fn int32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.int()?).map_err(|_| self.error("number too large"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.int()?).map_err(|_| self.error("number too large"))?;
        self.take(length)
    }

    fn array(&mut self) -> Result<[u8; 32], DecodeError> {
        let mut out = [0; 32];
        out.copy_from_slice(self.take(32)?);
        Ok(out)
    }

    fn meta(&mut self) -> Result<Meta, DecodeError> {
        let (mode, uid, gid) = (self.int32()?, self.int32()?, self.int32()?);
        let zigzag = self.int()?;
        let secs = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let nanos = self.int()?;
        let pinned = nanos & 1 == 1;
        let nanos = u32::try_from(nanos >> 1).ok().filter(|n| *n < 1_000_000_000);
        let nanos = nanos.ok_or_else(|| self.error("nanoseconds out of range"))?;
        let mut meta = Meta { mode, uid, gid, mtime: Mtime { secs, nanos, pinned }, xattrs: None };
        let mut last: Option<&[u8]> = None;
        for _ in 0..self.int()? {
            let (name, value) = (self.bytes()?, self.bytes()?);
            if last.is_some_and(|last| last >= name) {
                return Err(self.error("attributes out of order"));
            }
            last = Some(name);
            meta.set_xattr(name, value);
        }
        Ok(meta)
    }

    fn dir(&mut self, depth: usize) -> Result<DirChange, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(self.error("nested too deep"));
        }
        let flags = self.byte()?;
        if flags > 3 {
            return Err(self.error("unknown flags"));
        }
        let meta = if flags & 1 != 0 { Some(self.meta()?) } else { None };
        let count = self.int()?;
        let mut entries = BTreeMap::new();
        let mut last: Option<&[u8]> = None;
        for _ in 0..count {
            let name = self.bytes()?;
            if last.is_some_and(|last| last >= name) {
                return Err(self.error("names out of order"));
            }
            if matches!(name, b"" | b"." | b"..") || name.iter().any(|b| matches!(b, b'/' | 0)) {
                return Err(self.error("not a file name"));
            }
            last = Some(name);
            entries.insert(Arc::from(name), self.change(depth)?);
        }
        Ok(DirChange { meta, opaque: flags & 2 != 0, entries })
    }

    fn change(&mut self, depth: usize) -> Result<Change, DecodeError> {
        let kind = self.byte()?;
        Ok(match kind {
            tag::REMOVE => Change::Remove,
            tag::DIR => Change::Dir(self.dir(depth + 1)?),
            tag::LINK_TO => Change::LinkTo(self.bytes()?.into()),
            tag::FILE | tag::LINKED_FILE => {
                let meta = self.meta()?;
                let size = self.int()?;
                let content = ContentDigest::from_bytes(self.array()?);
                let link = if kind == tag::LINKED_FILE { Some(LinkId::from_bytes(self.array()?)) } else { None };
                Change::Put(Node::File(File { meta, size, content, link }))
            }
            tag::SYMLINK => Change::Put(Node::Symlink(Symlink { meta: self.meta()?, target: self.bytes()?.into() })),
            tag::FIFO | tag::CHAR | tag::BLOCK => {
                let kind = match kind {
                    tag::FIFO => SpecialKind::Fifo,
                    tag::CHAR => SpecialKind::Char,
                    _ => SpecialKind::Block,
                };
                let meta = self.meta()?;
                Change::Put(Node::Special(Special { meta, kind, rdev: (self.int32()?, self.int32()?) }))
            }
            _ => return Err(self.error("unknown kind")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_has_one_encoding() {
        let mut meta = Meta::new(0o644, Mtime::pinned(8127, 5));
        meta.set_xattr(b"user.a", b"1");
        meta.set_xattr(b"user.b", b"2");
        let bytes = encode(&Diff { root: DirChange::with_meta(meta) });
        assert!(decode(&bytes).is_ok());
        // A number with a zero more at its end.
        let time = bytes.windows(2).position(|w| w == [0xfe, 0x7e]).unwrap();
        let longer = [&bytes[..time], &[0xfe, 0xfe, 0][..], &bytes[time + 2..]].concat();
        assert_eq!(decode(&longer).unwrap_err().what, "number not in its shortest form");
        // Attributes the other way round.
        let mut swapped = bytes.clone();
        let at = |name: &[u8]| bytes.windows(6).position(|w| w == name).unwrap() + 5;
        (swapped[at(b"user.a")], swapped[at(b"user.b")]) = (b'b', b'a');
        assert_eq!(decode(&swapped).unwrap_err().what, "attributes out of order");
    }
}
