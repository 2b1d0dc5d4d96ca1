//! Which nodes of a source tree a copy takes.

use std::{collections::BTreeMap, sync::Arc};

use memobuild_dockerfile::ignore::{BadPattern, IgnoreMatcher, MatchState, gomatch};
use memobuild_tree::{ContentHash, Dir, KeyHasher, Meta, Node, ResolveError, Tree, path};

/// One thing to be copied.
#[derive(Debug, Clone)]
pub(crate) struct Selected {
    /// The name that it has if it is copied *into* a directory: the last component of the path that was asked for.
    pub(crate) name: Vec<u8>,
    /// Where it stands in the source tree, links followed.
    pub(crate) path: Vec<u8>,
    /// What is taken of it.
    pub(crate) pick: Pick,
}

/// A node, or the part of a directory that patterns leave.
#[derive(Debug, Clone)]
pub(crate) enum Pick {
    /// All of it.
    Whole(Node),
    /// A part of a directory.
    Part {
        /// The directory's metadata.
        meta: Meta,
        /// Whether the directory itself was matched; else it only stands above something that was.
        matched: bool,
        /// What is taken of its children.
        children: BTreeMap<Arc<[u8]>, Pick>,
    },
}

impl Selected {
    /// Tells of all that is taken and no directory, with its path in the source tree.
    pub(crate) fn walk(&self, visit: &mut dyn FnMut(&[u8], &Node)) {
        fn node(at: &[u8], found: &Node, visit: &mut dyn FnMut(&[u8], &Node)) {
            match found {
                Node::Dir(dir) => {
                    dir.entries().iter().for_each(|(name, child)| node(&path::join(at, name), child, visit))
                }
                leaf => visit(at, leaf),
            }
        }
        fn pick(at: &[u8], picked: &Pick, visit: &mut dyn FnMut(&[u8], &Node)) {
            match picked {
                Pick::Whole(found) => node(at, found, visit),
                Pick::Part { children, .. } => {
                    children.iter().for_each(|(name, child)| pick(&path::join(at, name), child, visit));
                }
            }
        }
        pick(&self.path, &self.pick, visit);
    }
}

impl ContentHash for Pick {
    fn hash(&self, h: &mut KeyHasher) {
        match self {
            Self::Whole(node) => {
                h.u64(0).value(&node.identity());
            }
            Self::Part { meta, matched, children } => {
                // The metadata alone: an empty directory's identity.
                h.u64(1).value(&Dir::new(meta.clone()).identity()).value(matched);
                h.u64(children.len() as u64);
                for (name, child) in children {
                    h.bytes(name).value(child);
                }
            }
        }
    }
}

impl ContentHash for Selected {
    fn hash(&self, h: &mut KeyHasher) {
        h.bytes(&self.name).value(&self.pick);
    }
}

/// Why a source can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelectError {
    /// Nothing of that name.
    #[error("failed to calculate checksum of ref: {:?}: not found", path::display(.0))]
    NotFound(Vec<u8>),
    /// The path can't be followed.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A pattern is malformed.
    #[error("invalid pattern {:?}: syntax error in pattern", .0.pattern)]
    Pattern(BadPattern),
}

/// What of a source is wanted.
pub(crate) struct Query<'a> {
    /// Path or wildcard pattern.
    pub(crate) pattern: &'a [u8],
    /// Patterns below it that are wanted; none: all.
    pub(crate) include: Option<&'a str>,
    /// Patterns below it that are not.
    pub(crate) exclude: &'a [String],
    /// Whether finding nothing is fine.
    pub(crate) may_be_empty: bool,
}

/// Whether a pattern, or a part of one, may match several names.
pub(crate) fn has_wildcards(part: &[u8]) -> bool {
    let mut bytes = part.iter();
    while let Some(b) = bytes.next() {
        match b {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Finds what `query` names in `tree`, in byte order.
pub(crate) fn select(tree: &Tree, query: &Query<'_>) -> Result<Vec<Selected>, SelectError> {
    let filter = Filter::new(query)?;
    let mut out = Vec::new();
    for asked in expand(tree, query.pattern)? {
        let found = tree.resolve(&asked, true)?;
        let Some(node) = found.node else {
            return Err(SelectError::NotFound(asked));
        };
        let name = path::components(&asked).last().map_or_else(Vec::new, |n| n.to_vec());
        let pick = filter.apply(node);
        out.push(Selected { name, path: found.path, pick });
    }
    if out.is_empty() && !query.may_be_empty {
        return Err(SelectError::NotFound(query.pattern.to_vec()));
    }
    Ok(out)
}

/// The paths that a pattern names. Components before the first wildcard are taken as they are; below them every path
/// is tried against the rest, and a directory that matches is not searched further (fsutil `ResolveWildcards`).
fn expand(tree: &Tree, pattern: &[u8]) -> Result<Vec<Vec<u8>>, SelectError> {
    let parts = path::components(pattern);
    let Some(first) = parts.iter().position(|p| has_wildcards(p)) else {
        return Ok(vec![path::clean(pattern)]);
    };
    let (plain, wild) = parts.split_at(first);
    let base = tree.resolve(&path::from_components(plain), true)?;
    let Some(Node::Dir(dir)) = base.node else {
        return Err(SelectError::NotFound(path::from_components(plain)));
    };
    let mut out = Vec::new();
    let mut walker = Glob { pattern: wild.join(&b'/'), depth: wild.len(), base: &base.path, out: &mut out };
    walker.search(&dir, &mut Vec::new(), 1)?;
    Ok(out)
}

struct Glob<'a> {
    pattern: Vec<u8>,
    /// `*` never crosses a slash, so that nothing deeper can match.
    depth: usize,
    base: &'a [u8],
    out: &'a mut Vec<Vec<u8>>,
}

impl Glob<'_> {
    fn search(&mut self, dir: &Dir, at: &mut Vec<u8>, depth: usize) -> Result<(), SelectError> {
        for (name, node) in dir.entries() {
            let length = at.len();
            if length > 0 {
                at.push(b'/');
            }
            at.extend_from_slice(name);
            if depth == self.depth {
                if gomatch(&self.pattern, at).map_err(SelectError::Pattern)? {
                    self.out.push(path::join(self.base, at));
                }
            } else if let Node::Dir(sub) = node {
                self.search(sub, at, depth + 1)?;
            }
            at.truncate(length);
        }
        Ok(())
    }
}

struct Filter {
    include: Option<IgnoreMatcher>,
    exclude: Option<IgnoreMatcher>,
}

/// The matchers' states in one directory.
#[derive(Clone)]
struct States {
    include: Option<MatchState>,
    exclude: Option<MatchState>,
}

impl Filter {
    fn new(query: &Query<'_>) -> Result<Self, SelectError> {
        let compile = |patterns: &[String]| IgnoreMatcher::new(patterns).map_err(SelectError::Pattern);
        let include = query.include.map(|pattern| compile(&[pattern.to_owned()])).transpose()?;
        let exclude = (!query.exclude.is_empty()).then(|| compile(query.exclude)).transpose()?;
        Ok(Self { include, exclude })
    }

    fn apply(&self, node: Node) -> Pick {
        match &node {
            Node::Dir(dir) if self.include.is_some() || self.exclude.is_some() => {
                let states = States {
                    include: self.include.as_ref().map(IgnoreMatcher::root),
                    exclude: self.exclude.as_ref().map(IgnoreMatcher::root),
                };
                self.part(dir, true, &states, &mut Vec::new())
            }
            _ => Pick::Whole(node),
        }
    }

    fn part(&self, dir: &Dir, matched: bool, states: &States, at: &mut Vec<u8>) -> Pick {
        let mut children = BTreeMap::new();
        for (name, node) in dir.entries() {
            let length = at.len();
            if length > 0 {
                at.push(b'/');
            }
            at.extend_from_slice(name);
            if let Some(pick) = self.child(node, states, at) {
                children.insert(name.clone(), pick);
            }
            at.truncate(length);
        }
        Pick::Part { meta: dir.meta().clone(), matched, children }
    }

    fn child(&self, node: &Node, states: &States, at: &mut Vec<u8>) -> Option<Pick> {
        let enter = |matcher: &Option<IgnoreMatcher>, state: &Option<MatchState>| {
            matcher.as_ref().zip(state.as_ref()).map(|(matcher, state)| matcher.enter(state, at))
        };
        let inner =
            States { include: enter(&self.include, &states.include), exclude: enter(&self.exclude, &states.exclude) };
        let excluded = inner.exclude.as_ref().is_some_and(|s| s.ignored);
        let matched = !excluded && inner.include.as_ref().is_none_or(|s| s.ignored);
        let Node::Dir(dir) = node else {
            return matched.then(|| Pick::Whole(node.clone()));
        };
        if excluded && !self.exclude.as_ref().is_some_and(IgnoreMatcher::has_exceptions) {
            return None;
        }
        let part = self.part(dir, matched, &inner, at);
        let empty = matches!(&part, Pick::Part { children, .. } if children.is_empty());
        (matched || !empty).then_some(part)
    }
}
