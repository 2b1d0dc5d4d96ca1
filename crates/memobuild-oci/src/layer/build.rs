//! Turns the entries of an archive, in their order, into a [`Diff`].
//!
//! The rules are those of containerd's `archive.Apply`, which every image is made to suit:
//!
//! * Names are cleaned lexically within the root: `../` and absolute names can't leave it. The root itself is no entry.
//! * A parent that is a symbolic link *put by the same archive* (or standing below, where that is known) is followed,
//!   within the root; links of lower layers are followed later, when the diff is applied ([`super::apply_layer`]).
//!   Parents that lack are made. A parent that is a file is an error.
//! * The last entry of a name wins. A directory over a directory only changes its metadata; any other pair replaces.
//! * `.wh.NAME` removes NAME, lower and earlier in the same layer; `.wh..wh..opq` hides what lower layers have in the
//!   directory and leaves what this layer puts, before or after. Other `.wh..wh.*` names are AUFS's own and are left out.
//! * A hard link joins the file that the archive put, and its metadata count for all names. A link to a symbolic link
//!   or device is a copy of it. A link to a path that the archive does not put is a link into a lower layer.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
};

use memobuild_tree::{
    Change, ContentDigest, Diff, Dir, DirChange, File, Kind, LinkId, Meta, Mtime, Node, Special, SpecialKind, Symlink,
    path,
};

use super::{
    LayerError,
    tar::{Entry, EntryKind},
};

const WHITEOUT: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What Linux allows (limits.h), so that a tree can be laid out on disk.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;
const MAX_LINKS: usize = 255;
/// Components of names that links led to, in a whole archive.
const MAX_FOLLOWED: u64 = 50_000_000;
/// More entries than any honest layer has: they are held in memory.
const MAX_ENTRIES: u64 = 10_000_000;

/// How an archive is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules<'a> {
    /// Whether `.wh.` names are whiteouts (layers) or plain names (`ADD`).
    pub(super) whiteouts: bool,
    /// What stands there already, where it is known.
    pub(super) below: Option<&'a Dir>,
    /// Set instead of the owners in the archive.
    pub(super) owner: Option<(u32, u32)>,
    /// Where the archive is laid out, absolute: only for the targets of links into lower layers.
    pub(super) dest: &'a [u8],
}

/// A diff being built.
pub(super) struct Builder<'a> {
    rules: Rules<'a>,
    root: DirChange,
    /// Metadata of every file that has several names; the number stands in its placeholder [`LinkId`].
    groups: Vec<Meta>,
    entries: u64,
    followed: Cell<u64>,
}

enum Seen<'a> {
    Absent,
    Dir,
    Link(&'a [u8]),
    Other,
}

type Parts = Vec<Vec<u8>>;

impl<'a> Builder<'a> {
    pub(super) fn new(rules: Rules<'a>) -> Self {
        Self { rules, root: DirChange::default(), groups: Vec::new(), entries: 0, followed: Cell::new(0) }
    }

    /// Takes one entry in; `content` is that of a regular file.
    pub(super) fn add(&mut self, entry: &Entry, content: Option<ContentDigest>) -> Result<(), LayerError> {
        let bad = |what| LayerError::Invalid { what, offset: entry.offset, entry: Some(entry.path.clone()) };
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(bad("more than ten million entries"));
        }
        let parts = path::components(&entry.path);
        let Some((name, parents)) = parts.split_last() else { return Ok(()) };
        if entry.path.contains(&0) || name.len() > NAME_MAX || parents.iter().any(|p| p.len() > NAME_MAX) {
            return Err(bad("name over 255 bytes or with a NUL"));
        }
        let parents = self.resolve(parents).map_err(bad)?;
        if parents.iter().map(|p| p.len() + 1).sum::<usize>() + name.len() + 1 > PATH_MAX {
            return Err(bad("path over 4095 bytes"));
        }
        if self.rules.whiteouts && name.starts_with(WHITEOUT) {
            return self.whiteout(&parents, name).map_err(bad);
        }
        let change = match &entry.kind {
            EntryKind::Dir => {
                self.put_dir(&parents, name, self.meta(entry));
                return Ok(());
            }
            EntryKind::Link(target) => self.link(entry, target, &parents, name).map_err(bad)?,
            _ => Change::Put(self.node(entry, content)),
        };
        descend(&mut self.root, &parents).entries.insert((*name).into(), change);
        Ok(())
    }

    /// The whole diff. Fails if a link into a lower layer leads to something that this layer changes.
    pub(super) fn finish(mut self) -> Result<Diff, LayerError> {
        let mut groups: BTreeMap<LinkId, (Vec<Vec<u8>>, ContentDigest)> = BTreeMap::new();
        let mut targets = Vec::new();
        let diff = Diff { root: std::mem::take(&mut self.root) };
        diff.walk(&mut |at, change| match change {
            Change::Put(Node::File(File { link: Some(id), content, .. })) => {
                groups.entry(*id).or_insert_with(|| (Vec::new(), *content)).0.push(at.to_vec());
            }
            Change::LinkTo(target) => targets.push((at.to_vec(), target.clone())),
            _ => {}
        });
        for (at, target) in targets {
            let target = target.strip_prefix(self.rules.dest).unwrap_or(&target);
            if let Some(Change::Remove | Change::Put(_)) = look(&diff.root, &path::components(target)) {
                let what = "hard link to a lower file that the same layer replaces";
                return Err(LayerError::Invalid { what, offset: 0, entry: Some(at) });
            }
        }
        let named: BTreeMap<LinkId, (Option<LinkId>, Meta)> = groups
            .into_iter()
            .filter_map(|(id, (mut paths, content))| {
                let meta = self.groups.get(number(id))?.clone();
                for path in &mut paths {
                    *path = path::join(self.rules.dest, path.get(1..).unwrap_or_default());
                }
                Some((id, ((paths.len() > 1).then(|| LinkId::of(&mut paths, content)), meta)))
            })
            .collect();
        let mut diff = diff;
        name_groups(&mut diff.root, &named);
        Ok(diff)
    }

    fn meta(&self, entry: &Entry) -> Meta {
        let (uid, gid) = self.rules.owner.unwrap_or((entry.uid, entry.gid));
        let mtime = Mtime::pinned(entry.mtime.0, entry.mtime.1);
        let mode = if matches!(entry.kind, EntryKind::Symlink(_)) { 0o777 } else { entry.mode };
        let mut meta = Meta { mode, uid, gid, mtime, xattrs: None };
        let plain = matches!(entry.kind, EntryKind::File | EntryKind::Dir | EntryKind::Link(_));
        for (name, value) in &entry.xattrs {
            // Links and devices can't have attributes of users (xattr(7)); containerd passes over them.
            if plain || !name.starts_with(b"user.") {
                meta.set_xattr(name, value);
            }
        }
        meta
    }

    fn node(&self, entry: &Entry, content: Option<ContentDigest>) -> Node {
        let meta = self.meta(entry);
        let special = |kind, rdev| Node::Special(Special { meta: meta.clone(), kind, rdev });
        match &entry.kind {
            EntryKind::Symlink(target) => Node::Symlink(Symlink { meta, target: target.as_slice().into() }),
            EntryKind::Char => special(SpecialKind::Char, entry.rdev),
            EntryKind::Block => special(SpecialKind::Block, entry.rdev),
            EntryKind::Fifo => special(SpecialKind::Fifo, (0, 0)),
            EntryKind::File | EntryKind::Dir | EntryKind::Link(_) => {
                let content = content.unwrap_or_else(|| ContentDigest::of(b""));
                Node::File(File { meta, size: entry.size, content, link: None })
            }
        }
    }

    fn put_dir(&mut self, parents: &[Vec<u8>], name: &[u8], meta: Meta) {
        let parent = descend(&mut self.root, parents);
        match parent.entries.get_mut(name) {
            Some(Change::Dir(dir)) => dir.meta = Some(meta),
            Some(other) => *other = Change::Dir(DirChange { opaque: true, ..DirChange::with_meta(meta) }),
            None => {
                parent.entries.insert(name.into(), Change::Dir(DirChange::with_meta(meta)));
            }
        }
    }

    fn whiteout(&mut self, parents: &[Vec<u8>], name: &[u8]) -> Result<(), &'static str> {
        if name == OPAQUE {
            descend(&mut self.root, parents).opaque = true;
            return Ok(());
        }
        if name.starts_with(META) {
            return Ok(());
        }
        match name.strip_prefix(WHITEOUT).unwrap_or_default() {
            b"" | b"." | b".." => Err("whiteout of no name"),
            target => {
                descend(&mut self.root, parents).entries.insert(target.into(), Change::Remove);
                Ok(())
            }
        }
    }

    fn link(&mut self, entry: &Entry, target: &[u8], parents: &[Vec<u8>], name: &[u8]) -> Result<Change, &'static str> {
        let parts = path::components(target);
        let (last, above) = parts.split_last().ok_or("hard link to the root")?;
        let mut at = self.resolve(above)?;
        at.push(last.to_vec());
        if target.contains(&0)
            || at.iter().any(|p| p.len() > NAME_MAX)
            || at.iter().map(|p| p.len() + 1).sum::<usize>() > PATH_MAX
        {
            return Err("hard link to an impossible name");
        }
        if at.split_last().is_some_and(|(last, above)| above == parents && last == name) {
            return Err("hard link to itself");
        }
        let meta = self.meta(entry);
        match look_mut(&mut self.root, &at) {
            Some(Change::Put(Node::File(file))) => {
                let id = *file.link.get_or_insert_with(|| {
                    self.groups.push(meta.clone());
                    placeholder(self.groups.len() - 1)
                });
                if let Some(shared) = self.groups.get_mut(number(id)) {
                    *shared = meta;
                }
                Ok(Change::Put(Node::File(file.clone())))
            }
            Some(Change::Put(node)) => Ok(Change::Put(node.clone())),
            Some(Change::LinkTo(target)) => Ok(Change::LinkTo(target.clone())),
            Some(Change::Remove) => Err("hard link to a name that the archive removes"),
            Some(Change::Dir(_)) => Err("hard link to a directory"),
            None => match (self.rules.below, self.seen(&at)) {
                (Some(_), Seen::Absent) => Err("hard link to a name that is not there"),
                (_, Seen::Dir) => Err("hard link to a directory"),
                _ => Ok(Change::LinkTo(path::join(self.rules.dest, &at.join(&b'/')).into())),
            },
        }
    }

    /// Where the directory of that name really is, links followed within the root.
    fn resolve(&self, parts: &[&[u8]]) -> Result<Parts, &'static str> {
        let mut todo: VecDeque<Vec<u8>> = parts.iter().map(|p| p.to_vec()).collect();
        let mut walked = Parts::new();
        // Where each of them is; the root below all.
        let mut places = vec![self.start()];
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if walked.pop().is_some() {
                        places.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let (found, next) = places.last().copied().unwrap_or_default().step(&part);
            match found {
                Seen::Absent | Seen::Dir => {
                    walked.push(part);
                    places.push(next);
                }
                Seen::Other => return Err("parent is not a directory"),
                Seen::Link(target) => {
                    links += 1;
                    if target.first() == Some(&b'/') {
                        walked.clear();
                        places.truncate(1);
                    }
                    for part in target.split(|b| *b == b'/').rev() {
                        todo.push_front(part.to_vec());
                    }
                    // Links that name long paths many times over must not grow the list, or the work, for ever.
                    let followed = self.followed.get() + todo.len() as u64;
                    self.followed.set(followed);
                    if links > MAX_LINKS || todo.len() > PATH_MAX || followed > MAX_FOLLOWED {
                        return Err("too many levels of symbolic links");
                    }
                }
            }
        }
        Ok(walked)
    }

    /// What stands at a resolved path: what the archive put, else what stood below.
    fn seen(&self, parts: &[Vec<u8>]) -> Seen<'_> {
        let mut found = Seen::Dir;
        let mut place = self.start();
        for part in parts {
            (found, place) = place.step(part);
        }
        found
    }

    fn start(&self) -> Place<'_> {
        Place { change: Some(&self.root), below: self.rules.below }
    }
}

/// A directory as it stands now: what the archive changed in it, and what stood below.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    change: Option<&'a DirChange>,
    below: Option<&'a Dir>,
}

impl<'a> Place<'a> {
    /// What has that name in it, and the place within.
    fn step(self, name: &[u8]) -> (Seen<'a>, Self) {
        let below = self.below.filter(|_| !self.change.is_some_and(|c| c.opaque)).and_then(|d| d.get(name));
        let below_dir = below.and_then(Node::as_dir).map(|d| &**d);
        match self.change.and_then(|c| c.entries.get(name)) {
            Some(Change::Dir(dir)) => (Seen::Dir, Place { change: Some(dir), below: below_dir }),
            Some(Change::Put(Node::Symlink(link))) => (Seen::Link(&link.target), Place::default()),
            Some(Change::Put(_) | Change::LinkTo(_)) => (Seen::Other, Place::default()),
            Some(Change::Remove) => (Seen::Absent, Place::default()),
            None => {
                let found = match below {
                    None => Seen::Absent,
                    Some(Node::Symlink(link)) => Seen::Link(&link.target),
                    Some(node) if node.kind() == Kind::Dir => Seen::Dir,
                    Some(_) => Seen::Other,
                };
                (found, Place { change: None, below: below_dir })
            }
        }
    }
}

/// The change at a path, if there is one.
fn look<'c>(root: &'c DirChange, parts: &[&[u8]]) -> Option<&'c Change> {
    let (last, above) = parts.split_last()?;
    let mut dir = root;
    for part in above {
        match dir.entries.get(*part)? {
            Change::Dir(next) => dir = next,
            other => return Some(other),
        }
    }
    dir.entries.get(*last)
}

fn look_mut<'c>(root: &'c mut DirChange, parts: &[Vec<u8>]) -> Option<&'c mut Change> {
    let (last, above) = parts.split_last()?;
    let mut dir = root;
    for part in above {
        let Change::Dir(next) = dir.entries.get_mut(part.as_slice())? else { return None };
        dir = next;
    }
    dir.entries.get_mut(last.as_slice())
}

/// The directory at a resolved path, made where it lacks. One that the archive removed before starts empty.
fn descend<'c>(root: &'c mut DirChange, parts: &[Vec<u8>]) -> &'c mut DirChange {
    let mut dir = root;
    for part in parts {
        match dir.entries.get(part.as_slice()) {
            Some(Change::Dir(_)) => {}
            None => {
                dir.entries.insert(part.as_slice().into(), Change::Dir(DirChange::default()));
            }
            Some(_) => {
                let fresh = DirChange::with_meta(Meta::new(0o755, Mtime::pinned(0, 0)));
                dir.entries.insert(part.as_slice().into(), Change::Dir(DirChange { opaque: true, ..fresh }));
            }
        }
        dir = dir.descend(&[part]);
    }
    dir
}

fn placeholder(number: usize) -> LinkId {
    let mut bytes = [0; 32];
    for (slot, byte) in bytes.iter_mut().zip((number as u64).to_be_bytes()) {
        *slot = byte;
    }
    LinkId::from_bytes(bytes)
}

fn number(id: LinkId) -> usize {
    id.as_bytes().iter().take(8).fold(0, |n, byte| n << 8 | usize::from(*byte))
}

fn name_groups(dir: &mut DirChange, named: &BTreeMap<LinkId, (Option<LinkId>, Meta)>) {
    for change in dir.entries.values_mut() {
        match change {
            Change::Dir(dir) => name_groups(dir, named),
            Change::Put(Node::File(file)) => {
                if let Some((link, meta)) = file.link.and_then(|id| named.get(&id)) {
                    file.link = *link;
                    file.meta = meta.clone();
                }
            }
            _ => {}
        }
    }
}
