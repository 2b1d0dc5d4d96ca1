//! What the walker tells the assembler: a stream of items, directories opened and closed around their children.

use crate::{spec::Bytes, wire::wire};

/// Metadata as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundMeta {
    /// Permission bits.
    pub(crate) mode: u32,
    /// User and group.
    pub(crate) owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Extended attributes that an image can have.
    pub(crate) xattrs: Vec<(Bytes, Bytes)>,
    /// The owner is what the step, or the tree before, gave it; otherwise it is only what one mapped id allows.
    pub(crate) owner_known: bool,
}
wire!(struct FoundMeta { mode, owner, mtime, xattrs, owner_known });

/// The bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FoundContent {
    /// A small file.
    Inline { bytes: Bytes },
    /// A large file, moved to a temporary name in the step's directory.
    Moved { name: Bytes, size: u64, digest: Bytes },
    /// The same file as an earlier item with this number.
    Same { inode: u64 },
}
wire!(enum FoundContent {
    0 => Inline { bytes },
    1 => Moved { name, size, digest },
    2 => Same { inode },
});

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A directory opens; its children follow.
    Open { name: Bytes, meta: FoundMeta, opaque: bool },
    /// The innermost open directory closes.
    Close {},
    /// A regular file. `linked`: it has more than one name somewhere.
    File { name: Bytes, meta: FoundMeta, inode: u64, linked: bool, content: FoundContent },
    /// A symbolic link.
    Symlink { name: Bytes, meta: FoundMeta, target: Bytes },
    /// A pipe (0), character device (1) or block device (2).
    Special { name: Bytes, meta: FoundMeta, kind: u8, major: u32, minor: u32 },
    /// What stood there is gone.
    Whiteout { name: Bytes },
}
wire!(enum Item {
    0 => Open { name, meta, opaque },
    1 => Close {},
    2 => File { name, meta, inode, linked, content },
    3 => Symlink { name, meta, target },
    4 => Special { name, meta, kind, major, minor },
    5 => Whiteout { name },
});
