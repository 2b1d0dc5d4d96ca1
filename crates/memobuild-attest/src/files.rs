//! How the files of an image are seen: names and kinds for nothing, bytes only where they are asked for.

use std::io;

use memobuild_tree::{File, Node, Tree};

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Dir,
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// Whether anybody may execute it.
        executable: bool,
    },
    /// A link, device or pipe.
    Other,
}

/// One name of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, without its directory.
    pub name: Vec<u8>,
    /// What it stands for.
    pub kind: EntryKind,
}

/// The files of one image, by absolute path. Links are resolved within the root.
pub trait Files {
    /// The names in a directory, sorted by their bytes; none where there is no directory. Follows no link.
    fn list(&self, dir: &[u8]) -> Vec<Entry>;

    /// The length in bytes of the regular file at a path, links followed; `None` if there is none.
    fn size(&self, path: &[u8]) -> Option<u64>;

    /// At most `len` bytes of a file from an offset on, links followed; fewer only at its end.
    ///
    /// # Errors
    /// When there is no such file, or its bytes can't be had.
    fn read_at(&self, path: &[u8], offset: u64, len: usize) -> io::Result<Vec<u8>>;

    /// The whole of a file, links followed; `None` if there is none.
    ///
    /// # Errors
    /// As [`Files::read_at`]; of kind [`io::ErrorKind::FileTooLarge`] when it is longer than `limit` bytes.
    fn read(&self, path: &[u8], limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(size) = self.size(path) else {
            return Ok(None);
        };
        match usize::try_from(size) {
            Ok(len) if size <= limit => self.read_at(path, 0, len).map(Some),
            _ => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{size} bytes are more than {limit}"))),
        }
    }
}

/// Where the bytes of a tree's files come from.
pub trait Contents {
    /// At most `len` bytes of a file's content from an offset on; fewer only at its end.
    ///
    /// # Errors
    /// When they can't be had.
    fn read_at(&self, file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>>;
}

/// The files of a Merkle tree: everything but bytes is answered from memory.
#[derive(Debug)]
pub struct TreeFiles<'a, C> {
    tree: &'a Tree,
    contents: C,
}

impl<'a, C: Contents> TreeFiles<'a, C> {
    /// A tree, and where its bytes are.
    pub fn new(tree: &'a Tree, contents: C) -> Self {
        Self { tree, contents }
    }

    fn file(&self, path: &[u8]) -> Option<File> {
        match self.tree.resolve(path, true).ok()?.node? {
            Node::File(file) => Some(file),
            _ => None,
        }
    }
}

impl<C: Contents> Files for TreeFiles<'_, C> {
    fn list(&self, dir: &[u8]) -> Vec<Entry> {
        let Some(dir) = self.tree.dir(dir) else {
            return Vec::new();
        };
        let kind = |node: &Node| match node {
            Node::Dir(_) => EntryKind::Dir,
            Node::File(file) => EntryKind::File { size: file.size, executable: file.meta.mode & 0o111 != 0 },
            Node::Symlink(_) | Node::Special(_) => EntryKind::Other,
        };
        dir.entries().iter().map(|(name, node)| Entry { name: name.to_vec(), kind: kind(node) }).collect()
    }

    fn size(&self, path: &[u8]) -> Option<u64> {
        self.file(path).map(|f| f.size)
    }

    fn read_at(&self, path: &[u8], offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let file = self.file(path).ok_or(io::ErrorKind::NotFound)?;
        self.contents.read_at(&file, offset, len)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::HashMap, sync::Arc};

    use memobuild_tree::{ContentDigest, Dir, Meta, Mtime, Symlink, path};

    use super::*;

    /// Contents by digest.
    #[derive(Debug, Default)]
    pub(crate) struct Memory(HashMap<ContentDigest, Vec<u8>>);

    impl Contents for &Memory {
        fn read_at(&self, file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
            let bytes = self.0.get(&file.content).ok_or(io::ErrorKind::NotFound)?;
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            Ok(rest.get(..len).unwrap_or(rest).to_vec())
        }
    }

    /// A tree made of texts, for tests.
    #[derive(Debug, Default)]
    pub(crate) struct Image {
        tree: Tree,
        memory: Memory,
    }

    impl Image {
        fn put(&mut self, at: &str, node: Node) {
            fn insert(dir: &mut Dir, parts: &[&[u8]], node: Node) {
                match parts {
                    [] => {}
                    [name] => drop(dir.entries_mut().insert(Arc::from(*name), node)),
                    [name, rest @ ..] => {
                        let child = dir
                            .entries_mut()
                            .entry(Arc::from(*name))
                            .or_insert_with(|| Node::Dir(Arc::new(Dir::new(Meta::new(0o755, Mtime::default())))));
                        if let Node::Dir(child) = child {
                            insert(Arc::make_mut(child), rest, node);
                        }
                    }
                }
            }
            insert(self.tree.root_mut(), &path::components(at.as_bytes()), node);
        }

        pub(crate) fn file(mut self, at: &str, bytes: impl AsRef<[u8]>) -> Self {
            let bytes = bytes.as_ref();
            let mode = if bytes.starts_with(b"\x7fELF") { 0o755 } else { 0o644 };
            let content = ContentDigest::of(bytes);
            self.memory.0.insert(content, bytes.to_vec());
            let meta = Meta::new(mode, Mtime::default());
            self.put(at, Node::File(File { meta, size: bytes.len() as u64, content, link: None }));
            self
        }

        pub(crate) fn link(mut self, at: &str, target: &str) -> Self {
            let meta = Meta::new(0o777, Mtime::default());
            self.put(at, Node::Symlink(Symlink { meta, target: target.as_bytes().into() }));
            self
        }

        pub(crate) fn files(&self) -> TreeFiles<'_, &Memory> {
            TreeFiles::new(&self.tree, &self.memory)
        }
    }

    #[test]
    fn links_are_followed_within_the_root_and_limits_hold() {
        let image =
            Image::default().file("/usr/lib/os-release", "ID=x\n").link("/etc/os-release", "../usr/lib/os-release");
        let files = image.files();
        assert_eq!(files.read(b"/etc/os-release", 100).unwrap().unwrap(), b"ID=x\n");
        assert_eq!(files.read(b"/etc/none", 100).unwrap(), None);
        assert_eq!(files.read(b"/etc/os-release", 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let etc = files.list(b"/etc");
        assert_eq!(etc, [Entry { name: b"os-release".to_vec(), kind: EntryKind::Other }]);
        assert!(files.list(b"/nowhere").is_empty());
    }
}
