//! Which facts no longer hold, as a person would say it.

use super::{Glance, Look, PathSet};

/// A fact that no longer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which tree of the path set: 0 is the root, others are mounts.
    pub tree: usize,
    /// Where.
    pub path: Vec<u8>,
    /// How the step had looked there.
    pub look: Look,
    /// What is another.
    pub how: BrokenHow,
}

/// What is another at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BrokenHow {
    /// It was not there.
    Appeared,
    /// It is not there any more.
    Disappeared,
    /// It is something of another kind.
    Kind,
    /// Content, target, or hard links.
    Content,
    /// Mode, owner, attributes, or a time set on purpose.
    Meta,
    /// The names in it.
    Listing,
}

/// The facts that differ, most telling first: what appeared, disappeared or has other content before directories
/// whose listing follows from that. `None` if the glances are not of this path set. With the old ones stands whether a
/// file's bytes were read.
pub fn compare(set: &PathSet, old: &[(Glance, bool)], new: &[Glance]) -> Option<Vec<Broken>> {
    if old.len() != set.len() || new.len() != set.len() {
        return None;
    }
    let mut out = Vec::new();
    let paths = set.trees().enumerate().flat_map(|(tree, paths)| paths.iter().map(move |p| (tree, p)));
    for (((tree, (path, look)), (old, read)), new) in paths.zip(old).zip(new) {
        let how = match (old.kind, new.kind) {
            (a, b) if a == b => {
                if old.content != new.content {
                    BrokenHow::Content
                } else if old.meta != new.meta {
                    BrokenHow::Meta
                } else if old.listing != new.listing {
                    BrokenHow::Listing
                } else {
                    continue;
                }
            }
            (0, _) => BrokenHow::Appeared,
            (_, 0) => BrokenHow::Disappeared,
            _ => BrokenHow::Kind,
        };
        let look = if *read { look.with(Look::READ) } else { look };
        out.push(Broken { tree, path: path.to_vec(), look, how });
    }
    out.sort_by_key(|b| b.how == BrokenHow::Listing);
    Some(out)
}
