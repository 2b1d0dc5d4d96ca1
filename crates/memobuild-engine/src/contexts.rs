//! Local directories that a build reads: the context and named contexts. Each is scanned once, when first needed.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use memobuild_dockerfile::ignore::{IgnoreMatcher, MatchState, read_patterns};
use memobuild_observe::FailureKind;
use memobuild_plan::model::{ContextSource, Local, Plan};
use memobuild_store::{
    BundleWriter, Store, StoreError,
    scan::{FilterState, Scan, ScanFilter, ScanSource, Verdict, scan},
};
use memobuild_tree::{ContentDigest, Node, Tree, path};

use crate::EngineError;

/// The directories of one build.
pub(crate) struct Contexts {
    /// The build's context: a directory, or a tree that came as an archive.
    pub(crate) main: Option<MainContext>,
    /// Ignore patterns of the main context; none: its own `.dockerignore`.
    pub(crate) main_ignore: Option<IgnoreFile>,
    /// Named contexts that are directories.
    pub(crate) named: BTreeMap<String, PathBuf>,
    scans: Mutex<BTreeMap<usize, Slot>>,
}

/// Filled by the first who asks.
type Slot = Arc<OnceLock<Result<Arc<Scanned>, EngineError>>>;

/// Where the main context comes from.
#[derive(Debug, Clone)]
pub(crate) enum MainContext {
    Directory(PathBuf),
    Tree(Tree),
}

/// An ignore file's name and text.
#[derive(Debug, Clone)]
pub(crate) struct IgnoreFile {
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
}

/// A directory as it was found.
pub(crate) struct Scanned {
    pub(crate) tree: Tree,
    /// Where file contents are read from; none: they are in the store.
    source: Option<Outside>,
}

struct Outside {
    dir: PathBuf,
    files: ScanSource,
}

impl Outside {
    fn open(&self, at: &[u8], digest: &ContentDigest) -> Result<Box<dyn Read + Send + '_>, EngineError> {
        let relative = at.strip_prefix(b"/").unwrap_or(at);
        Ok(Box::new(self.files.open(relative, digest).map_err(|e| unreadable(e, &self.dir))?))
    }
}

impl Contexts {
    /// The main context with the ignore file that stands in for its own, and the named ones that are directories.
    pub(crate) fn new(
        main: Option<MainContext>,
        main_ignore: Option<IgnoreFile>,
        contexts: &BTreeMap<String, ContextSource>,
    ) -> Self {
        let directory = |(name, source): (&String, &ContextSource)| match source {
            ContextSource::Local(dir) => Some((name.clone(), dir.clone())),
            _ => None,
        };
        Self { main, main_ignore, named: contexts.iter().filter_map(directory).collect(), scans: Mutex::default() }
    }

    /// The tree of a plan's local directory. Several steps may ask at once; the first one scans.
    pub(crate) fn get(&self, store: &Store, plan: &Plan, index: usize) -> Result<Arc<Scanned>, EngineError> {
        let slot = self.scans.lock().unwrap_or_else(PoisonError::into_inner).entry(index).or_default().clone();
        let local = plan.locals.get(index).ok_or_else(|| EngineError::step("the plan names an unknown context"))?;
        slot.get_or_init(|| self.load(store, local).map(Arc::new)).clone()
    }

    fn load(&self, store: &Store, local: &Local) -> Result<Scanned, EngineError> {
        let dir = match &local.name {
            Some(name) => self.named.get(name).cloned(),
            None => match &self.main {
                Some(MainContext::Tree(tree)) => return self.filter_tree(tree),
                Some(MainContext::Directory(dir)) => Some(dir.clone()),
                None => None,
            },
        };
        let Some(dir) = dir else {
            return Err(EngineError::new(FailureKind::Usage, "this build has no context to copy from"));
        };
        let ignore = match &local.name {
            None => self.main_matcher()?,
            Some(_) => compile(read_ignore(&dir.join(".dockerignore"), ".dockerignore")?.as_ref())?,
        };
        let name = local.name.as_deref().unwrap_or("context");
        let mut filter = ContextFilter { ignore, prefixes: prefixes(&local.paths) };
        let mut found = scan(&dir, &filter, Some((store, name))).map_err(|e| unreadable(e, &dir))?;
        if !filter.prefixes.is_empty() && crosses_link(&found.tree, &filter.prefixes) {
            // A link on the way to a wanted path can lead anywhere: then everything is needed.
            filter.prefixes.clear();
            found = scan(&dir, &filter, Some((store, name))).map_err(|e| unreadable(e, &dir))?;
        }
        let Scan { tree, source, .. } = found;
        Ok(Scanned { tree, source: Some(Outside { dir, files: source }) })
    }

    /// The ignore patterns of the main context.
    pub(crate) fn main_matcher(&self) -> Result<Option<IgnoreMatcher>, EngineError> {
        match (&self.main_ignore, &self.main) {
            (Some(file), _) => compile(Some(file)),
            (None, Some(MainContext::Directory(dir))) => {
                compile(read_ignore(&dir.join(".dockerignore"), ".dockerignore")?.as_ref())
            }
            _ => Ok(None),
        }
    }

    fn filter_tree(&self, tree: &Tree) -> Result<Scanned, EngineError> {
        let mut tree = tree.clone();
        if let Some(matcher) = compile(self.main_ignore.as_ref())? {
            for at in ignored(&tree, &matcher).iter().rev() {
                let kept_dir = tree.dir(at).is_some_and(|d| !d.entries().is_empty());
                if !kept_dir {
                    tree.remove(at);
                }
            }
        }
        Ok(Scanned { tree, source: None })
    }
}

impl Scanned {
    /// Makes sure that the bytes of a file at a path of this tree are in the bundle being written, or in the store.
    pub(crate) fn store_content(
        &self,
        at: &[u8],
        digest: &ContentDigest,
        size: u64,
        writer: &BundleWriter,
    ) -> Result<(), EngineError> {
        let Some(source) = &self.source else { return Ok(()) };
        match source.files.store(at, digest, size, writer) {
            Err(StoreError::ChangedWhileRead { .. }) => Err(EngineError::new(
                FailureKind::Cache,
                format!("{} changed while it was being read", path::display(at.strip_prefix(b"/").unwrap_or(at))),
            )
            .with_hint("build again once nothing writes to the context")),
            stored => Ok(stored?),
        }
    }

    /// The bytes of a file of this tree.
    pub(crate) fn open<'s>(
        &'s self,
        store: &'s Store,
        at: &[u8],
        digest: &ContentDigest,
    ) -> Result<Box<dyn Read + Send + 's>, EngineError> {
        match &self.source {
            Some(source) => source.open(at, digest),
            None => Ok(Box::new(store.content(digest)?.reader())),
        }
    }

    /// Whether file contents still have to be brought into the store.
    pub(crate) fn is_outside_store(&self) -> bool {
        self.source.is_some()
    }
}

/// A failure of the store's scan, told as one of the context where it is: the store has no say in what lies there.
fn unreadable(error: StoreError, dir: &Path) -> EngineError {
    let (StoreError::Permission { path, source, .. } | StoreError::Io { path, source, .. }) = &error else {
        return error.into();
    };
    let whole = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let Ok(below) = path.strip_prefix(dir).or_else(|_| path.strip_prefix(whole)) else { return error.into() };
    let shown = if below.as_os_str().is_empty() { dir } else { below };
    let out = EngineError::new(FailureKind::Usage, format!("cannot read {} of the context: {source}", shown.display()));
    match error {
        StoreError::Permission { .. } => out.with_hint("make it readable, or name it in .dockerignore"),
        _ => out,
    }
}

/// Reads an ignore file; none if there is none.
pub(crate) fn read_ignore(file: &Path, name: &str) -> Result<Option<IgnoreFile>, EngineError> {
    let read = std::fs::File::open(file).and_then(|opened| read_bounded(opened, MAX_TEXT));
    match read {
        Ok(Some(text)) => Ok(Some(IgnoreFile { name: name.to_owned(), text })),
        Ok(None) => Err(too_long(name)),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(EngineError::new(FailureKind::Usage, format!("cannot read {}: {e}", file.display()))),
    }
}

/// A Dockerfile or ignore file longer than this many bytes is refused, as the parser does.
pub(crate) const MAX_TEXT: u64 = 16 << 20;

pub(crate) fn too_long(name: &str) -> EngineError {
    EngineError::new(FailureKind::Dockerfile, format!("{name} is larger than {} MiB", MAX_TEXT >> 20))
}

/// All that a reader gives; `None` if it is more than `max` bytes, of which no more are read.
pub(crate) fn read_bounded(reader: impl Read, max: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    reader.take(max + 1).read_to_end(&mut text)?;
    Ok((text.len() as u64 <= max).then_some(text))
}

/// The patterns of an ignore file; none if it has none.
pub(crate) fn compile(file: Option<&IgnoreFile>) -> Result<Option<IgnoreMatcher>, EngineError> {
    let Some(file) = file else { return Ok(None) };
    let patterns = read_patterns(&file.text);
    let matcher = IgnoreMatcher::new(&patterns)
        .map_err(|e| EngineError::new(FailureKind::Dockerfile, format!("{}: {e}", file.name)))?;
    Ok((!matcher.is_empty()).then_some(matcher))
}

/// The paths of a tree that are ignored, parents first, judged on the way down as in a scan: with exceptions that is not
/// the same as judging each path by itself.
fn ignored(tree: &Tree, matcher: &IgnoreMatcher) -> Vec<Vec<u8>> {
    let mut states: HashMap<Vec<u8>, MatchState> = HashMap::new();
    let mut out = Vec::new();
    for entry in tree.walk() {
        let relative = entry.path.get(1..).unwrap_or_default();
        let parent = relative.iter().rposition(|b| *b == b'/').and_then(|end| relative.get(..end));
        let parent = parent.and_then(|dir| states.get(dir)).cloned().unwrap_or_else(|| matcher.root());
        let is_ignored = if matches!(entry.node, Node::Dir(_)) {
            let state = matcher.enter(&parent, relative);
            let is_ignored = state.ignored;
            states.insert(relative.to_vec(), state);
            is_ignored
        } else {
            matcher.matches_in(&parent, relative)
        };
        if is_ignored {
            out.push(entry.path);
        }
    }
    out
}

/// The literal beginnings of what steps read; empty: all is wanted.
fn prefixes(patterns: &[String]) -> Vec<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    for pattern in patterns {
        let plain = path::components(pattern.as_bytes())
            .into_iter()
            .take_while(|part| !part.iter().any(|b| matches!(b, b'*' | b'?' | b'[' | b'\\')))
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>();
        if plain.is_empty() {
            return Vec::new();
        }
        out.push(plain);
    }
    out
}

fn crosses_link(tree: &Tree, prefixes: &[Vec<Vec<u8>>]) -> bool {
    prefixes.iter().any(|parts| {
        (1..=parts.len()).any(|depth| {
            let at = path::from_components(parts.get(..depth).unwrap_or_default());
            matches!(tree.get(&at), Some(Node::Symlink(_)))
        })
    })
}

struct ContextFilter {
    ignore: Option<IgnoreMatcher>,
    prefixes: Vec<Vec<Vec<u8>>>,
}

impl ContextFilter {
    /// Whether a path is wanted itself or leads to what is.
    fn wanted(&self, at: &[u8]) -> bool {
        self.prefixes.is_empty()
            || self.prefixes.iter().any(|prefix| {
                let mut parts = at.split(|b| *b == b'/');
                prefix.iter().all(|want| parts.next().is_none_or(|part| part == want.as_slice()))
            })
    }
}

impl ScanFilter for ContextFilter {
    fn verdict(&self, at: &[u8], is_dir: bool, parent: &FilterState) -> (Verdict, FilterState) {
        if !self.wanted(at) {
            return (Verdict::Exclude, None);
        }
        let Some(matcher) = &self.ignore else { return (Verdict::Include, None) };
        let state = match parent.as_ref().and_then(|p| p.downcast_ref::<MatchState>()) {
            Some(parent) => matcher.enter(parent, at),
            None => matcher.enter(&matcher.root(), at),
        };
        let verdict = match (state.ignored, is_dir) {
            (false, _) => Verdict::Include,
            (true, true) if matcher.may_match_below(&state, at) => Verdict::ExcludeButEnter,
            (true, _) => Verdict::Exclude,
        };
        let next: FilterState = if is_dir { Some(Arc::new(state)) } else { None };
        (verdict, next)
    }

    fn includes_all(&self) -> bool {
        self.ignore.is_none() && self.prefixes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use memobuild_tree::{File, Meta};

    use super::*;

    #[test]
    fn a_tree_is_judged_as_a_directory_is_scanned() {
        let mut tree = Tree::default();
        for name in ["a/b/c", "a/b/d", "a/e", "keep/x", "top"] {
            let file = File { meta: Meta::default(), size: 0, content: ContentDigest::of(b""), link: None };
            tree.put(name.as_bytes(), Node::File(file), &Meta::default);
        }
        let shown = |patterns: &[&str]| -> Vec<String> {
            let matcher = IgnoreMatcher::new(patterns).unwrap();
            ignored(&tree, &matcher).iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect()
        };
        assert_eq!(shown(&["a", "!a/b/d"]), ["/a", "/a/b", "/a/b/c", "/a/e"]);
        assert_eq!(shown(&["*", "!keep"]), ["/a", "/a/b", "/a/b/c", "/a/b/d", "/a/e", "/top"]);
        assert_eq!(shown(&["**/d", "top"]), ["/a/b/d", "/top"]);
    }
}
