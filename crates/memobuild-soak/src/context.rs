//! The build context as a value, and the same on disk.
//!
//! In: edits of the value. Out: the smallest set of changes of the directory that makes it the same, so that a file that
//! was not edited keeps its times.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::SystemTime,
};

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// What it holds.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Raised to give it another mtime and nothing else.
        touched: u32,
    },
    /// A symbolic link.
    Link(String),
    /// A directory.
    Dir {
        /// Permission bits.
        mode: u32,
    },
}

impl Entry {
    /// A file with the usual mode.
    pub fn file(content: impl Into<Vec<u8>>) -> Self {
        Self::File { content: content.into(), mode: 0o644, touched: 0 }
    }
}

/// Paths without a leading slash, to what stands there. Every parent of a path is a directory of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    entries: BTreeMap<String, Entry>,
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

fn below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

impl Context {
    /// What stands there.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Puts something there, in place of what stood there; a directory in place of a directory keeps its children.
    /// Parents are made. Nothing happens if a parent is there and is no directory.
    pub fn put(&mut self, path: &str, entry: Entry) -> bool {
        if let Some(parent) = parent(path) {
            match self.entries.get(parent) {
                Some(Entry::Dir { .. }) => {}
                Some(_) => return false,
                None => {
                    if !self.put(parent, Entry::Dir { mode: 0o755 }) {
                        return false;
                    }
                }
            }
        }
        if !matches!(entry, Entry::Dir { .. }) {
            self.remove(path);
        }
        self.entries.insert(path.to_owned(), entry);
        true
    }

    /// Takes it away, with all below it. False: there was nothing.
    pub fn remove(&mut self, path: &str) -> bool {
        self.entries.retain(|p, _| !below(p, path));
        self.entries.remove(path).is_some()
    }

    /// Gives it another name, with all below it. False: not possible.
    pub fn rename(&mut self, from: &str, to: &str) -> bool {
        if from == to || below(to, from) || self.entries.contains_key(to) || !self.entries.contains_key(from) {
            return false;
        }
        let moved: Vec<_> = self
            .entries
            .iter()
            .filter(|(p, _)| *p == from || below(p, from))
            .map(|(p, e)| (p.clone(), e.clone()))
            .collect();
        if !moved.first().is_some_and(|(_, e)| self.put(to, e.clone())) {
            return false;
        }
        self.remove(from);
        for (path, entry) in moved {
            let rest = path.strip_prefix(from).unwrap_or_default();
            self.entries.insert(format!("{to}{rest}"), entry);
        }
        true
    }

    /// The paths of which the test holds, in order.
    pub fn paths(&self, test: impl Fn(&Entry) -> bool) -> Vec<&str> {
        self.entries.iter().filter(|(_, e)| test(e)).map(|(p, _)| p.as_str()).collect()
    }

    /// Paths of regular files.
    pub fn files(&self) -> Vec<&str> {
        self.paths(|e| matches!(e, Entry::File { .. }))
    }

    /// Paths of directories.
    pub fn dirs(&self) -> Vec<&str> {
        self.paths(|e| matches!(e, Entry::Dir { .. }))
    }

    /// Makes the directory at `root`, which holds `old`, hold this.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, old: &Self, root: &Path) -> io::Result<()> {
        for (path, was) in old.entries.iter().rev() {
            let keep = match (was, self.entries.get(path)) {
                (Entry::Dir { .. }, Some(Entry::Dir { .. })) => true,
                (Entry::File { .. }, Some(Entry::File { .. })) => true,
                (was, Some(now)) => was == now,
                (_, None) => false,
            };
            if !keep {
                let at = root.join(path);
                match was {
                    Entry::Dir { .. } => fs::remove_dir(at)?,
                    _ => fs::remove_file(at)?,
                }
            }
        }
        for (path, now) in &self.entries {
            let was = old.entries.get(path);
            if was == Some(now) {
                continue;
            }
            let at = root.join(path);
            match now {
                Entry::Dir { mode } => {
                    if !matches!(was, Some(Entry::Dir { .. })) {
                        fs::create_dir(&at)?;
                    }
                    fs::set_permissions(&at, fs::Permissions::from_mode(*mode))?;
                }
                Entry::Link(target) => symlink(target, &at)?,
                Entry::File { content, mode, touched } => {
                    let (same, before) = match was {
                        Some(Entry::File { content: old, touched, .. }) => (old == content, *touched),
                        _ => (false, *touched),
                    };
                    if !same {
                        fs::write(&at, content)?;
                    }
                    fs::set_permissions(&at, fs::Permissions::from_mode(*mode))?;
                    if before != *touched {
                        fs::File::options().write(true).open(&at)?.set_modified(SystemTime::now())?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_follows_its_value() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Context::default();
        for (path, entry) in [
            ("a/x", Entry::file("x")),
            ("a/b/y", Entry::file("y")),
            ("l", Entry::Link("a/x".into())),
            ("d", Entry::Dir { mode: 0o700 }),
        ] {
            assert!(first.put(path, entry));
        }
        first.write(&Context::default(), dir.path()).unwrap();
        let mut second = first.clone();
        assert!(second.rename("a/b", "d/b"));
        assert!(second.put("a", Entry::file("now a file")));
        assert!(second.put("l", Entry::Link("d/b".into())));
        assert!(!second.put("a/x", Entry::file("not below a file")));
        assert!(!second.rename("d", "d/b/c"));
        second.write(&first, dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("d/b/y")).unwrap(), b"y");
        assert_eq!(fs::read(dir.path().join("l/y")).unwrap(), b"y");
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"now a file");
        first.write(&second, dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("l")).unwrap(), b"x");
    }
}
