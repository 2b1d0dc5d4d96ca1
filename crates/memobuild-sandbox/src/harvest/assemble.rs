//! Builds the diff from what the walker found and the tree that was there before.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::Arc,
};

use memobuild_tree::{
    Change, ContentDigest, Diff, Dir, DirChange, File, LinkId, Meta, Mtime, Node, Special, SpecialKind, Symlink, Tree,
    path,
};

use super::message::{FoundContent, FoundMeta, Item};
use crate::{contents::Contents, error::SandboxError, spec::Bytes, wire::Wire, wire::malformed};

type Time = (i64, u32);

/// Decides which times are content (DESIGN: a time within the step is only when it was written).
pub(crate) struct Clock<'a> {
    /// When the step's command started and ended.
    pub(crate) during: (Time, Time),
    /// All trees that the step saw: a time that some file there has as mere time of writing (a file moved, or copied
    /// with its times kept) is no more than that here.
    pub(crate) trees: &'a [Tree],
    /// The times of writing in those trees, collected when first needed.
    pub(crate) ambient: Option<HashSet<Time>>,
}

impl<'a> Clock<'a> {
    pub(crate) fn new(during: (Time, Time), trees: &'a [Tree]) -> Self {
        Self { during, trees, ambient: None }
    }

    fn judge(&mut self, found: Time, before: Option<&Meta>) -> Mtime {
        if let Some(before) = before
            && (before.mtime.secs, before.mtime.nanos) == found
        {
            return before.mtime;
        }
        let (secs, nanos) = found;
        let (from, to) = self.during;
        if found <= to && found >= cut_like(found, from) {
            return Mtime::ambient(secs, nanos);
        }
        let trees = self.trees;
        let ambient = self.ambient.get_or_insert_with(|| {
            let nodes = trees.iter().flat_map(Tree::walk).map(|e| e.node.meta().mtime);
            nodes.filter(|m| !m.pinned).flat_map(|m| cut((m.secs, m.nanos))).collect()
        });
        if ambient.contains(&found) { Mtime::ambient(secs, nanos) } else { Mtime::pinned(secs, nanos) }
    }
}

/// A time as programs pass it on that know only microseconds or seconds (`cp -p` of busybox).
fn cut((secs, nanos): Time) -> [Time; 3] {
    [(secs, nanos), (secs, nanos / 1000 * 1000), (secs, 0)]
}

/// `time`, as coarse as `like` may have been cut.
fn cut_like(like: Time, time: Time) -> Time {
    let [whole, micros, seconds] = cut(time);
    match like.1 {
        0 => seconds,
        nanos if nanos % 1000 == 0 => micros,
        _ => whole,
    }
}

/// A directory that is open.
struct Level {
    name: Bytes,
    meta: Meta,
    opaque: bool,
    /// The directory that stood there before; `None` also below an opaque one.
    before: Option<Arc<Dir>>,
    /// What the step was shown there; a stub where nothing was before.
    shown: Option<Arc<Dir>>,
    change: DirChange,
}

/// Several names of one file.
struct Group {
    file: File,
    paths: Vec<Vec<u8>>,
}

/// Takes items in, gives a diff.
pub(crate) struct Assembler<'a> {
    contents: &'a dyn Contents,
    clock: Clock<'a>,
    /// Where moved files lie.
    dir: PathBuf,
    before: &'a Tree,
    shown: &'a Tree,
    /// Who made what has no other known owner: the step's user.
    creator: (u32, u32),
    pending: Vec<u8>,
    levels: Vec<Level>,
    groups: HashMap<u64, Group>,
    touched: Vec<Vec<u8>>,
    done: Option<DirChange>,
}

/// What a step did.
pub(crate) struct Assembled {
    /// The changes.
    pub(crate) diff: Diff,
    /// Directories whose time alone is another now, which is no change.
    pub(crate) touched: Vec<Vec<u8>>,
}

fn broken() -> SandboxError {
    SandboxError::harvest("messages from the sandbox", malformed())
}

impl<'a> Assembler<'a> {
    /// `before` is the tree that the diff is against, `shown` the one that the step saw.
    pub(crate) fn new(
        contents: &'a dyn Contents,
        clock: Clock<'a>,
        dir: PathBuf,
        before: &'a Tree,
        shown: &'a Tree,
        creator: (u32, u32),
    ) -> Self {
        Self {
            contents,
            clock,
            dir,
            before,
            shown,
            creator,
            pending: Vec::new(),
            levels: Vec::new(),
            groups: HashMap::new(),
            touched: Vec::new(),
            done: None,
        }
    }

    /// Takes a piece of the stream.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), SandboxError> {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut input = pending.as_slice();
        loop {
            let mut next = input;
            let Ok(item) = crate::wire::get_bytes(&mut next) else { break };
            self.item(Item::from_bytes(item).map_err(|_| broken())?)?;
            input = next;
        }
        self.pending = input.to_vec();
        Ok(())
    }

    /// The diff, once the root directory was closed.
    pub(crate) fn finish(self) -> Result<Assembled, SandboxError> {
        let mut diff = Diff { root: self.done.ok_or_else(broken)? };
        for (_, Group { file, mut paths }) in self.groups {
            if paths.len() < 2 {
                continue;
            }
            let link = LinkId::of(&mut paths, file.content);
            for at in &paths {
                diff.set(at, Change::Put(Node::File(File { link: Some(link), ..file.clone() })));
            }
        }
        Ok(Assembled { diff, touched: self.touched })
    }

    fn path(&self, name: &[u8]) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = self.levels.iter().skip(1).map(|l| &*l.name).collect();
        parts.push(name);
        path::from_components(&parts)
    }

    fn before(&self, name: &[u8]) -> Option<Node> {
        self.levels.last()?.before.as_ref()?.get(name).cloned()
    }

    fn meta(&mut self, found: FoundMeta, before: Option<&Node>) -> Meta {
        let mtime = self.clock.judge(found.mtime, before.map(Node::meta));
        let (uid, gid) = match before.map(|node| (node.meta().uid, node.meta().gid)) {
            _ if found.owner_known => found.owner,
            // A file of root's carries no attribute that tells so, whether it is the one from before or new.
            Some((0, 0)) => (0, 0),
            _ => self.creator(),
        };
        let mut meta = Meta { mode: found.mode, uid, gid, mtime, xattrs: None };
        for (name, value) in found.xattrs {
            meta.set_xattr(&name, &value);
        }
        meta
    }

    /// The owner of something new in the innermost open directory, which passes its group on if it is set-group-id.
    fn creator(&self) -> (u32, u32) {
        let group = self.levels.last().filter(|l| l.meta.mode & 0o2000 != 0).map(|l| l.meta.gid);
        (self.creator.0, group.unwrap_or(self.creator.1))
    }

    /// Links and pipes cannot tell their owner by an attribute: with one mapped id they keep the one they had.
    fn meta_without_attributes(&mut self, found: FoundMeta, before: Option<&Node>) -> Meta {
        let known = found.owner_known;
        let mut meta = self.meta(found, before);
        if let Some(before) = before.filter(|_| !known) {
            (meta.uid, meta.gid) = (before.meta().uid, before.meta().gid);
        }
        meta
    }

    fn put(&mut self, name: &[u8], change: Change) -> Result<(), SandboxError> {
        let level = self.levels.last_mut().ok_or_else(broken)?;
        level.change.entries.insert(name.into(), change);
        Ok(())
    }

    fn put_if_changed(&mut self, name: &[u8], node: Node, before: Option<&Node>) -> Result<(), SandboxError> {
        if before == Some(&node) { Ok(()) } else { self.put(name, Change::Put(node)) }
    }

    fn item(&mut self, item: Item) -> Result<(), SandboxError> {
        match item {
            Item::Open { name, meta, opaque } => self.open(name, meta, opaque),
            Item::Close {} => self.close(),
            Item::File { name, meta, inode, linked, content } => self.file(name, meta, inode, linked, content),
            Item::Symlink { name, meta, target } => {
                let before = self.before(&name);
                let same_kind = before.as_ref().filter(|n| matches!(n, Node::Symlink(_)));
                let mut meta = self.meta_without_attributes(meta, same_kind);
                meta.mode = 0o777;
                self.put_if_changed(&name, Node::Symlink(Symlink { meta, target }), before.as_ref())
            }
            Item::Special { name, meta, kind, major, minor } => {
                let kind = match kind {
                    0 => SpecialKind::Fifo,
                    1 => SpecialKind::Char,
                    2 => SpecialKind::Block,
                    _ => return Err(broken()),
                };
                let before = self.before(&name);
                let same_kind = before.as_ref().filter(|n| n.kind() == memobuild_tree::Kind::Special(kind));
                let meta = self.meta_without_attributes(meta, same_kind);
                let node = Node::Special(Special { meta, kind, rdev: (major, minor) });
                self.put_if_changed(&name, node, before.as_ref())
            }
            // What was never in the tree (a stub, or what an opaque directory hides) is not removed from it.
            Item::Whiteout { name } => match self.before(&name) {
                Some(_) => self.put(&name, Change::Remove),
                None => Ok(()),
            },
        }
    }

    fn open(&mut self, name: Bytes, found: FoundMeta, opaque: bool) -> Result<(), SandboxError> {
        let (before, shown) = match self.levels.last() {
            None => (Some(self.before.root().clone()), Some(self.shown.root().clone())),
            Some(level) => {
                let child = |dir: &Option<Arc<Dir>>| dir.as_ref()?.get(&name)?.as_dir().cloned();
                (child(&level.before), child(&level.shown))
            }
        };
        let node = shown.clone().map(Node::Dir);
        let meta = self.meta(found, node.as_ref());
        // Opaque where nothing was is nothing special.
        let opaque = opaque && before.is_some();
        let (before, shown) = if opaque { (None, None) } else { (before, shown) };
        self.levels.push(Level { name, meta, opaque, before, shown, change: DirChange::default() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SandboxError> {
        let Level { name, meta, opaque, before, shown, mut change } = self.levels.pop().ok_or_else(broken)?;
        change.opaque = opaque;
        match (&before, &shown) {
            (Some(before), _) => {
                let old = before.meta();
                let untimed = |meta: &Meta| Meta { mtime: Mtime::default(), ..meta.clone() };
                // Touched and left as it was: a file made and removed again.
                let touched_only = change.entries.is_empty() && !meta.mtime.pinned && untimed(&meta) == untimed(old);
                if touched_only && meta != *old {
                    self.touched.push(if self.levels.is_empty() { b"/".to_vec() } else { self.path(&name) });
                } else if meta != *old {
                    change.meta = Some(meta);
                }
            }
            // A stub in which nothing was written.
            (None, Some(_)) if change.entries.is_empty() => return Ok(()),
            (None, _) => change.meta = Some(meta),
        }
        if self.levels.is_empty() {
            self.done = Some(change);
            return Ok(());
        }
        // A directory that stood there and was only copied up, unchanged, is no change.
        if before.is_some() && change.is_empty() { Ok(()) } else { self.put(&name, Change::Dir(change)) }
    }

    fn file(
        &mut self,
        name: Bytes,
        found: FoundMeta,
        inode: u64,
        linked: bool,
        content: FoundContent,
    ) -> Result<(), SandboxError> {
        let at = self.path(&name);
        if let FoundContent::Same { inode } = content {
            let group = self.groups.get_mut(&inode).ok_or_else(broken)?;
            group.paths.push(at);
            let node = Node::File(group.file.clone());
            return self.put(&name, Change::Put(node));
        }
        let before = self.before(&name);
        let same_kind = before.as_ref().filter(|n| matches!(n, Node::File(_)));
        let meta = self.meta(found, same_kind);
        let old = match same_kind {
            Some(Node::File(old)) => Some(old),
            _ => None,
        };
        let unchanged = |size: u64, content: ContentDigest| {
            !linked && old.is_some_and(|old| (old.size, old.content) == (size, content) && old.meta == meta)
        };
        let failed = |e: io::Error| SandboxError::harvest(path::display(&at), e);
        let (size, content) = match content {
            FoundContent::Inline { bytes } => {
                let (size, digest) = (bytes.len() as u64, ContentDigest::of(&bytes));
                if unchanged(size, digest) {
                    return Ok(());
                }
                let stored = self.contents.put_small(&bytes).map_err(failed)?;
                if stored != digest {
                    return Err(failed(io::Error::other("the store gave another digest than the content's")));
                }
                (size, digest)
            }
            FoundContent::Moved { name: moved, size, digest } => {
                let digest = digest.as_ref().try_into().map(ContentDigest::from_bytes).map_err(|_| broken())?;
                if unchanged(size, digest) {
                    return Ok(());
                }
                let tmp = self.dir.join(std::ffi::OsStr::from_bytes(&moved));
                self.contents.put_large(&tmp, digest, size).map_err(failed)?;
                (size, digest)
            }
            FoundContent::Same { .. } => return Err(broken()),
        };
        let file = File { meta, size, content, link: None };
        if linked {
            self.groups.insert(inode, Group { file: file.clone(), paths: vec![at] });
        }
        self.put(&name, Change::Put(Node::File(file)))
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
