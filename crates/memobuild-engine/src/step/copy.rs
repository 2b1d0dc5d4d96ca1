//! `COPY` and `ADD`: sources are selected in memory, placed into the parent's tree in memory, and only the bytes that
//! the store lacks are read.

use std::{
    collections::BTreeSet,
    io::Read,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use memobuild_oci::layer::archive::{self, ExtractOptions};
use memobuild_plan::model::{Copy, CopySource, StepId, Unpack};
use memobuild_store::BundleWriter;
use memobuild_tree::{
    ContentDigest, ContentHash, Diff, File, KeyHasher, Meta, Node, Tree, TreeDigest, facts::Looks, path,
};

use super::{Ahead, Committed, Values, source, value};
use crate::{
    EngineError,
    copy::{Attributes, Edited, Editor, Pick, Query, Selected, place, select},
    resolve,
    session::Session,
    users,
    value::Value,
};

/// The sources, selected.
pub(super) struct Prepared {
    sources: Vec<Source>,
}

impl Prepared {
    /// Of each source that is a path what is selected.
    pub(super) fn selected(&self) -> impl Iterator<Item = &[Selected]> {
        self.sources.iter().filter_map(|source| match source {
            Source::Tree { selected, .. } => Some(selected.as_slice()),
            Source::Inline { .. } => None,
        })
    }
}

enum Source {
    Tree { from: StepId, selected: Vec<Selected>, unpack: Unpack },
    Inline { name: String, content: Arc<[u8]> },
}

/// Selects the sources.
pub(super) fn prepare(session: &Session<'_>, copy: &Copy, values: &Values) -> Result<Prepared, EngineError> {
    let mut sources = Vec::new();
    for source in &copy.sources {
        sources.push(match source {
            CopySource::Inline { name, content } => {
                Source::Inline { name: name.clone(), content: content.as_bytes().into() }
            }
            CopySource::Path { from, pattern, pivot, may_be_empty, unpack } => {
                let tree = value(values, *from)?.tree(session.store)?;
                let selected = select_source(&tree, copy, pattern, *pivot, *may_be_empty)?;
                Source::Tree { from: *from, selected, unpack: *unpack }
            }
        });
    }
    Ok(Prepared { sources })
}

fn select_source(
    tree: &Tree,
    copy: &Copy,
    pattern: &str,
    pivot: Option<usize>,
    may_be_empty: bool,
) -> Result<Vec<Selected>, EngineError> {
    let failed = |e: crate::copy::SelectError| EngineError::step(e.to_string());
    let exclude = &copy.exclude;
    if !copy.parents {
        let query = Query { pattern: pattern.as_bytes(), include: None, exclude, may_be_empty };
        return select(tree, &query).map_err(failed);
    }
    // `--parents`: what stands before the pivot is walked to; the rest is a pattern below it, and keeps its path.
    let parts = path::components(pattern.as_bytes());
    let (base, rest) = parts.split_at_checked(pivot.unwrap_or(0)).unwrap_or((parts.as_slice(), &[]));
    let below = rest.join(&b'/');
    let wild = |text: &[u8]| text.iter().any(|b| matches!(b, b'*' | b'?' | b'['));
    if !wild(pattern.as_bytes()) {
        // Links are followed up to the pivot only: what comes behind it is kept as it is called.
        let found = tree.resolve(&path::from_components(base), true).ok();
        if found.and_then(|base| tree.get(&path::join(&base.path, &below))).is_none() {
            return Err(failed(crate::copy::SelectError::NotFound(pattern.as_bytes().to_vec())));
        }
    }
    let below = String::from_utf8_lossy(&below).into_owned();
    let include = (!below.is_empty()).then_some(below.as_str());
    let base = path::from_components(base);
    select(tree, &Query { pattern: &base, include, exclude, may_be_empty: true }).map_err(failed)
}

/// Identities for the precise key: the parent's tree and what each source gives.
pub(super) fn parts(parent: &Arc<Value>, prepared: &Prepared) -> Vec<TreeDigest> {
    let digest = |source: &Source| match source {
        Source::Inline { content, .. } => {
            TreeDigest::from_bytes(KeyHasher::new("memobuild.inline.v1").bytes(content).finish_bytes())
        }
        Source::Tree { selected, .. } => {
            let mut h = KeyHasher::new("memobuild.selected.v1");
            h.u64(selected.len() as u64);
            selected.iter().for_each(|s| s.hash(&mut h));
            TreeDigest::from_bytes(h.finish_bytes())
        }
    };
    std::iter::once(parent.identity()).chain(prepared.sources.iter().map(digest)).collect()
}

pub(super) fn execute(
    session: &Session<'_>,
    copy: &Copy,
    prepared: &Prepared,
    values: &Values,
) -> Result<Committed, EngineError> {
    let writer = session.store.bundle_writer();
    let parent = value(values, copy.parent)?.tree(session.store)?;
    let Edited { diff, looks, .. } = change(session, copy, prepared, &parent, Some(&writer))?;
    let (diff, tree) = session.settle(diff, &parent)?;
    bring_contents(session, prepared, &diff, &writer)?;
    let bundle = if diff.is_empty() { None } else { Some(writer.finish(&diff)?) };
    // With --link it saw nothing of its parent.
    let looks = if copy.link { Looks::default() } else { looks };
    Ok(Committed { bundle, tree, looks: Some(vec![looks]), sound: true })
}

/// The value that the copy would have; `None` where an archive would have to be unpacked to know it.
pub(super) fn foresee(
    session: &Session<'_>,
    copy: &Copy,
    prepared: &Prepared,
    values: &Values,
) -> Result<Option<Ahead>, EngineError> {
    let unpacks = |s: &Source| matches!(s, Source::Tree { unpack: Unpack::Archives, .. });
    if prepared.sources.iter().any(unpacks) {
        return Ok(None);
    }
    let parent = value(values, copy.parent)?.tree(session.store)?;
    let Edited { diff, .. } = change(session, copy, prepared, &parent, None)?;
    let (diff, tree) = session.settle(diff, &parent)?;
    Ok(Some(Ahead { value: Value::ready(tree, None), diff }))
}

/// The tree after the copy, the change, and what it depends on. Without a writer nothing is stored.
fn change(
    session: &Session<'_>,
    copy: &Copy,
    prepared: &Prepared,
    parent: &Tree,
    writer: Option<&BundleWriter>,
) -> Result<Edited, EngineError> {
    let failed = |e: &dyn std::fmt::Display| EngineError::step(e.to_string());
    // A --link copy does not depend on what is below, so nothing may be looked up there.
    if let Some(spec) = copy.chown.as_deref().filter(|spec| copy.link && users::has_names(spec)) {
        return Err(EngineError::step(format!(
            "--chown={spec} can't be looked up with --link, which does not see the image's users: give numbers"
        )));
    }
    let owner = match &copy.chown {
        Some(spec) => Some(resolve::owner(session, spec, parent)?.map_err(|e| failed(&e))?),
        None => None,
    };
    let attributes = Attributes { owner, chmod: copy.chmod.clone() };
    // With --link the copy starts from nothing, and what it makes on the way replaces what is there.
    let start = if copy.link { Tree::default() } else { parent.clone() };
    let mut editor = Editor::new(start, session.now());
    let dest = copy.dest.as_bytes();
    for source in &prepared.sources {
        match source {
            Source::Inline { name, content } => {
                let digest = match writer {
                    Some(writer) => writer.add_bytes(content)?,
                    None => ContentDigest::of(content),
                };
                let meta = Meta::new(0o644, session.now());
                let file = File { meta, size: content.len() as u64, content: digest, link: None };
                let name = name.as_bytes().to_vec();
                let selected = Selected { path: name.clone(), name, pick: Pick::Whole(Node::File(file)) };
                place(&mut editor, &selected, dest, copy.dest_is_dir, &attributes).map_err(|e| failed(&e))?;
            }
            Source::Tree { from, selected, unpack } => {
                for one in selected {
                    if *unpack == Unpack::Archives
                        && let (Pick::Whole(Node::File(file)), Some(writer)) = (&one.pick, writer)
                        && extract(session, copy, *from, one, file, &attributes, &mut editor, writer)?
                    {
                        continue;
                    }
                    place(&mut editor, one, dest, copy.dest_is_dir, &attributes).map_err(|e| failed(&e))?;
                }
            }
        }
    }
    Ok(editor.finish())
}

/// Unpacks a source into the destination if it is an archive; says whether it was.
#[expect(clippy::too_many_arguments, reason = "one archive's whole way from source to destination")]
fn extract(
    session: &Session<'_>,
    copy: &Copy,
    from: StepId,
    selected: &Selected,
    file: &File,
    attributes: &Attributes,
    editor: &mut Editor,
    writer: &BundleWriter,
) -> Result<bool, EngineError> {
    let outside = source::scanned(session, from)?;
    let open = || -> Result<Box<dyn Read + Send + '_>, EngineError> {
        match &outside {
            Some(scanned) => scanned.open(session.store, &selected.path, &file.content),
            None => Ok(Box::new(session.store.content(&file.content)?.reader())),
        }
    };
    if !archive::is_archive(&mut open()?) {
        return Ok(false);
    }
    let failed = |e: &dyn std::fmt::Display| EngineError::step(e.to_string());
    let owner = attributes.owner.unwrap_or((0, 0));
    let dest = editor.mkdir_all(copy.dest.as_bytes(), 0o755, owner).map_err(|e| failed(&e))?;
    let below = editor.whole(&dest);
    let options = ExtractOptions { dest: &dest, below: below.as_deref(), owner: attributes.owner };
    let change = archive::extract(open()?, writer, &options).map_err(|e| {
        let error = EngineError::chain(memobuild_observe::FailureKind::Step, &e);
        EngineError::step(format!("unpacking {}: {}", path::display(&selected.path), error.message))
    })?;
    editor.merge(&dest, Diff { root: change }).map_err(|e| failed(&e))?;
    Ok(true)
}

/// Reads the bytes of all files of the change that the store lacks, with two readers.
fn bring_contents(
    session: &Session<'_>,
    prepared: &Prepared,
    diff: &Diff,
    writer: &BundleWriter,
) -> Result<(), EngineError> {
    let mut needed = BTreeSet::new();
    diff.walk(&mut |_, change| {
        if let memobuild_tree::Change::Put(Node::File(file)) = change {
            needed.insert(file.content);
        }
    });
    for source in &prepared.sources {
        let Source::Tree { from, selected, .. } = source else { continue };
        let Some(scanned) = source::scanned(session, *from)? else { continue };
        let mut files: Vec<(Vec<u8>, File)> = Vec::new();
        for one in selected {
            collect(&one.pick, &mut one.path.clone(), &mut |at, file| {
                if needed.contains(&file.content) && !session.store.has_content(&file.content, file.size) {
                    needed.remove(&file.content);
                    files.push((at.to_vec(), file.clone()));
                }
            });
        }
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let work = || {
            while let Some((at, file)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = scanned.store_content(at, &file.content, file.size, writer) {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    next.store(files.len(), Ordering::Relaxed);
                }
            }
        };
        if files.len() > 32 {
            std::thread::scope(|scope| {
                scope.spawn(work);
                work();
            });
        } else {
            work();
        }
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
    }
    Ok(())
}

fn collect(pick: &Pick, at: &mut Vec<u8>, visit: &mut dyn FnMut(&[u8], &File)) {
    let descend = |name: &[u8], at: &mut Vec<u8>, go: &mut dyn FnMut(&mut Vec<u8>)| {
        let length = at.len();
        if at.last() != Some(&b'/') {
            at.push(b'/');
        }
        at.extend_from_slice(name);
        go(at);
        at.truncate(length);
    };
    match pick {
        Pick::Whole(Node::File(file)) => visit(at, file),
        Pick::Whole(Node::Dir(dir)) => {
            for (name, node) in dir.entries() {
                descend(name, at, &mut |at| collect(&Pick::Whole(node.clone()), at, visit));
            }
        }
        Pick::Whole(_) => {}
        Pick::Part { children, .. } => {
            for (name, child) in children {
                descend(name, at, &mut |at| collect(child, at, visit));
            }
        }
    }
}
