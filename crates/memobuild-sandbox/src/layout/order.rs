//! From a diff, and the tree that it leads to, to the orders that lay it out.

use std::{collections::HashMap, io};

use memobuild_tree::{Change, ContentDigest, Diff, Dir, DirChange, LinkId, Meta, Node, SpecialKind, Tree};

use crate::{
    contents::Contents,
    error::SandboxError,
    fuse::OwnerView,
    harvest::walk::OWNER_XATTR,
    spec::Bytes,
    wire::{Wire, wire},
};

/// Metadata to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetMeta {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Vec<(Bytes, Bytes)>,
}
wire!(struct SetMeta { mode, owner, mtime, xattrs });

/// One thing to do in the innermost open directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Make a directory if it is not there, and go into it.
    Open { name: Bytes },
    /// Set the directory's metadata and leave it.
    Close { meta: SetMeta },
    /// A file; its bytes follow.
    File { name: Bytes, meta: SetMeta, size: u64 },
    /// The next bytes of the file.
    Data { bytes: Bytes },
    /// A further name for the file at a path from the layout's top.
    Link { name: Bytes, to: Bytes },
    /// A symbolic link.
    Symlink { name: Bytes, meta: SetMeta, target: Bytes },
    /// A pipe (0), character device (1) or block device (2).
    Special { name: Bytes, meta: SetMeta, kind: u8, major: u32, minor: u32 },
    /// What stands there goes.
    Remove { name: Bytes },
}
wire!(enum Order {
    0 => Open { name },
    1 => Close { meta },
    2 => File { name, meta, size },
    3 => Data { bytes },
    4 => Link { name, to },
    5 => Symlink { name, meta, target },
    6 => Special { name, meta, kind, major, minor },
    7 => Remove { name },
});

/// Largest piece of a file in one order.
const PIECE: usize = 64 * 1024;

/// Gives orders for a diff.
pub(crate) struct Orders<'a> {
    contents: &'a dyn Contents,
    owners: OwnerView,
    send: &'a mut dyn FnMut(Order) -> io::Result<()>,
    links: HashMap<LinkId, Vec<u8>>,
    path: Vec<u8>,
}

impl<'a> Orders<'a> {
    pub(crate) fn new(
        contents: &'a dyn Contents,
        owners: OwnerView,
        send: &'a mut dyn FnMut(Order) -> io::Result<()>,
    ) -> Self {
        Self { contents, owners, send, links: HashMap::new(), path: Vec::new() }
    }

    /// Orders for a diff that leads to `after`. Directories on the way get their metadata again, since in a layer of an
    /// overlay they hide the ones below.
    pub(crate) fn diff(&mut self, diff: &Diff, after: &Tree) -> Result<(), SandboxError> {
        self.dir(&diff.root, Some(after.root()))?;
        let meta = self.meta(after.root().meta());
        self.say(Order::Close { meta })
    }

    fn say(&mut self, order: Order) -> Result<(), SandboxError> {
        (self.send)(order).map_err(|e| SandboxError::setup("laying the tree out", e))
    }

    fn meta(&self, meta: &Meta) -> SetMeta {
        let (owner, true_owner) = self.owners.show(meta.uid, meta.gid);
        let mut xattrs: Vec<(Bytes, Bytes)> = Vec::new();
        for (name, value) in meta.xattrs.iter().flat_map(|x| x.iter()) {
            let wanted = name.starts_with(b"user.") || &**name == b"security.capability";
            if wanted && !name.starts_with(b"user.overlay.") {
                xattrs.push((name.clone(), value.clone()));
            }
        }
        if !true_owner {
            xattrs.push((OWNER_XATTR.into(), format!("{}:{}", meta.uid, meta.gid).into_bytes().into()));
        }
        SetMeta { mode: meta.mode, owner, mtime: (meta.mtime.secs, meta.mtime.nanos), xattrs }
    }

    fn dir(&mut self, change: &DirChange, after: Option<&Dir>) -> Result<(), SandboxError> {
        for (name, change) in &change.entries {
            let length = self.path.len();
            self.path.push(b'/');
            self.path.extend_from_slice(name);
            let boxed: Bytes = (&**name).into();
            match change {
                Change::Remove => self.say(Order::Remove { name: boxed })?,
                Change::Put(node) => self.node(boxed, node)?,
                Change::LinkTo(to) => self.say(Order::Link { name: boxed, to: to.clone() })?,
                Change::Dir(sub) => {
                    let after = after.and_then(|d| d.get(name)).and_then(Node::as_dir);
                    self.say(Order::Open { name: boxed })?;
                    self.dir(sub, after.map(|d| &**d))?;
                    let meta = after.map(|d| d.meta().clone()).or_else(|| sub.meta.clone()).unwrap_or_default();
                    let meta = self.meta(&meta);
                    self.say(Order::Close { meta })?;
                }
            }
            self.path.truncate(length);
        }
        Ok(())
    }

    fn node(&mut self, name: Bytes, node: &Node) -> Result<(), SandboxError> {
        match node {
            Node::File(file) => {
                if let Some(link) = file.link {
                    if let Some(to) = self.links.get(&link) {
                        let to = to.as_slice().into();
                        return self.say(Order::Link { name, to });
                    }
                    self.links.insert(link, self.path.clone());
                }
                let meta = self.meta(&file.meta);
                self.say(Order::File { name, meta, size: file.size })?;
                self.data(&file.content, file.size)
            }
            Node::Symlink(link) => {
                let meta = self.meta(&link.meta);
                self.say(Order::Symlink { name, meta, target: link.target.clone() })
            }
            Node::Special(special) => {
                let kind = match special.kind {
                    SpecialKind::Fifo => 0,
                    SpecialKind::Char => 1,
                    SpecialKind::Block => 2,
                };
                let (meta, (major, minor)) = (self.meta(&special.meta), special.rdev);
                self.say(Order::Special { name, meta, kind, major, minor })
            }
            // A diff never puts directories.
            Node::Dir(_) => Ok(()),
        }
    }

    fn data(&mut self, digest: &ContentDigest, size: u64) -> Result<(), SandboxError> {
        let failed = |e: io::Error| SandboxError::Serving(format!("reading content {digest}: {e}"));
        if size == 0 {
            return Ok(());
        }
        let reader = self.contents.open(digest).map_err(failed)?;
        let mut done = 0;
        while done < size {
            let mut piece = vec![0; PIECE.min(usize::try_from(size - done).unwrap_or(PIECE))];
            match reader.read_at(&mut piece, done) {
                Ok(0) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    piece.truncate(n);
                    done += n as u64;
                    self.say(Order::Data { bytes: piece.into() })?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(())
    }
}

/// Gathers orders into messages.
#[derive(Default)]
pub(crate) struct Batch(Vec<u8>);

impl Batch {
    /// Adds one; gives a full message back when there is one.
    pub(crate) fn add(&mut self, order: &Order) -> Option<Bytes> {
        order.put(&mut self.0);
        (self.0.len() >= PIECE).then(|| self.take())
    }

    /// What is gathered.
    pub(crate) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.0).into()
    }
}
