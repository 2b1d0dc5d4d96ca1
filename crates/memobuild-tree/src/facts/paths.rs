//! Path sets, and their bytes in records. Paths rise, so each is written as what it shares with the one before and what
//! follows. Integers are LEB128.

use super::{Look, Looks};
use crate::{
    codec::{put_bytes, put_int},
    digest::PathSetDigest,
    hash::{ContentHash, KeyHasher},
};

const VERSION: u8 = 1;
/// More than any file system has in one step's sight; keeps damaged lengths from asking for memory.
const MAX_PATHS: u64 = 50_000_000;
/// Bytes of all paths of a tree, for the same reason: few bytes can stand for long paths that share all of the last one.
const MAX_BYTES: usize = 1 << 30;
/// Trees of one step: its root and its mounts.
const MAX_TREES: u64 = 4096;

/// Which paths of which trees are looked at, and how: without what was found there. The first tree is the step's root,
/// the others are what it mounts, in order.
///
/// Invariant: paths rise strictly, and looks hold nothing that does not count in matching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSet {
    trees: Vec<Paths>,
    digest: PathSetDigest,
}

/// Paths of one tree, in byte order. One buffer holds them all: a look-up reads thousands, of sets that mostly miss.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paths {
    bytes: Vec<u8>,
    /// Where each path ends, and how it is looked at.
    ends: Vec<(usize, Look)>,
}

impl Paths {
    fn push(&mut self, path: &[u8], look: Look) {
        self.bytes.extend_from_slice(path);
        self.ends.push((self.bytes.len(), look));
    }

    /// The paths, and how each is looked at.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], Look)> + Clone {
        let mut begin = 0;
        self.ends.iter().map(move |(end, look)| {
            let path = self.bytes.get(begin..*end).unwrap_or_default();
            begin = *end;
            (path, *look)
        })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether nothing is looked at.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl PathSet {
    /// The path set of these looks.
    pub fn of(looks: &[Looks]) -> Self {
        let one = |looks: &Looks| {
            let mut paths = Paths::default();
            let facts = looks.iter().map(|(path, look)| (path, look.fact()));
            facts.filter(|(_, look)| !look.is_empty()).for_each(|(path, look)| paths.push(path, look));
            paths
        };
        let trees: Vec<_> = looks.iter().map(one).collect();
        let digest = digest(&encode(&trees));
        Self { trees, digest }
    }

    /// The paths of each tree.
    pub fn trees(&self) -> impl Iterator<Item = &Paths> {
        self.trees.iter()
    }

    /// How many trees it is about.
    pub fn tree_count(&self) -> usize {
        self.trees.len()
    }

    /// How many paths in all.
    pub fn len(&self) -> usize {
        self.trees.iter().map(Paths::len).sum()
    }

    /// Whether nothing is looked at: what has no facts holds for any tree.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of this path set: a digest of its bytes.
    pub fn digest(&self) -> PathSetDigest {
        self.digest
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.trees)
    }

    /// Reads what [`PathSet::encode`] wrote; `None` for anything that is not the path set of this name.
    pub fn decode(bytes: &[u8], name: &PathSetDigest) -> Option<Self> {
        if digest(bytes) != *name {
            return None;
        }
        let mut input = bytes.strip_prefix(&[VERSION])?;
        let mut trees = Vec::new();
        for _ in 0..int(&mut input).filter(|n| *n <= MAX_TREES)? {
            trees.push(decode_tree(&mut input)?);
        }
        input.is_empty().then_some(Self { trees, digest: *name })
    }
}

impl ContentHash for PathSet {
    fn hash(&self, h: &mut KeyHasher) {
        h.fixed(self.digest.as_bytes());
    }
}

fn digest(encoded: &[u8]) -> PathSetDigest {
    let mut h = KeyHasher::new("memobuild.path-set.v2");
    h.bytes(encoded);
    PathSetDigest::from_bytes(h.finish_bytes())
}

fn encode(trees: &[Paths]) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_int(&mut out, trees.len() as u64);
    for tree in trees {
        put_int(&mut out, tree.len() as u64);
        let mut last: &[u8] = b"";
        for (path, look) in tree.iter() {
            let same = last.iter().zip(path).take_while(|(a, b)| a == b).count();
            put_int(&mut out, same as u64);
            put_bytes(&mut out, path.get(same..).unwrap_or_default());
            out.push(look.0);
            last = path;
        }
    }
    out
}

fn decode_tree(input: &mut &[u8]) -> Option<Paths> {
    let count = int(input).filter(|n| *n <= MAX_PATHS)?;
    let mut paths = Paths::default();
    let mut last = 0..0;
    for index in 0..count {
        let same = usize::try_from(int(input)?).ok().filter(|same| *same <= last.len())?;
        let length = usize::try_from(int(input)?).ok()?;
        let (rest, after) = input.split_at_checked(length)?;
        let (look, after) = after.split_first()?;
        *input = after;
        let begin = paths.bytes.len();
        paths.bytes.extend_from_within(last.start..last.start + same);
        paths.bytes.extend_from_slice(rest);
        let this = begin..paths.bytes.len();
        if this.end > MAX_BYTES {
            return None;
        }
        if index > 0 && paths.bytes.get(last)? >= paths.bytes.get(this.clone())? {
            return None;
        }
        paths.ends.push((this.end, Look(*look)));
        last = this;
    }
    Some(paths)
}

fn int(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_set_holds_no_more_than_counts() {
        let mut looks = Looks::default();
        looks.add(b"/b", Look::KIND);
        looks.add(b"/b", Look::NODE.with(Look::READ));
        looks.add(b"/a", Look::LISTED);
        looks.add(b"/c", Look::READ);
        looks.add(b"/d", Look::WHOLE.with(Look::LISTED));
        let set = PathSet::of(&[looks]);
        let all: Vec<_> = set.trees().flat_map(Paths::iter).collect();
        assert_eq!(all, [(&b"/a"[..], Look::LISTED), (b"/b", Look::NODE), (b"/d", Look::WHOLE)]);
    }

    #[test]
    fn looks_of_another_tree_are_another_set() {
        let mut looks = Looks::default();
        looks.add(b"/b", Look::NODE);
        let none = Looks::default();
        let (a, b) = (PathSet::of(&[looks.clone(), none.clone()]), PathSet::of(&[none, looks]));
        assert_ne!(a.digest(), b.digest());
    }

    #[test]
    fn path_sets_round_trip_and_damage_is_none() {
        let mut looks = Looks::default();
        for (path, look) in [("/", Look::NODE), ("/a", Look::LISTED), ("/a/bc", Look::NODE), ("/a/bd", Look::KIND)] {
            looks.add(path.as_bytes(), look);
        }
        let set = PathSet::of(&[looks, Looks::default()]);
        let bytes = set.encode();
        let other = PathSet::of(&[Looks::default()]).digest();
        assert_eq!(PathSet::decode(&bytes, &other), None);
        assert_eq!(PathSet::decode(&bytes, &set.digest()), Some(set));
        // Bytes that are damaged and have a name of their own.
        let decode = |bytes: &[u8]| PathSet::decode(bytes, &digest(bytes));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(decode(&[bytes, vec![0]].concat()), None);
    }
}
