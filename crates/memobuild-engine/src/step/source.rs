//! Steps that yield a tree from outside: base images, contexts, fetched files and repositories.

use std::{path::Path, process::Command, sync::Arc};

use memobuild_observe::FailureKind;
use memobuild_oci::http;
use memobuild_plan::model::{Git, Http, Op, Step, StepId};
use memobuild_store::scan::{Everything, scan};
use memobuild_tree::{BundleId, Diff, DirChange, File, KeyHasher, Meta, Mtime, Node, Tree};

use crate::{EngineError, attest::Fetched, bases, contexts::Scanned, session::Session, value::Value};

/// Yields the tree of a step that has no parent. One that an image stands on, and that is no image itself, comes with
/// the change that makes it from nothing: that is the image's lowest layer.
pub(crate) fn yield_source(session: &Session<'_>, step: &Step) -> Result<Arc<Value>, EngineError> {
    let value = source(session, step)?;
    let stood_on = session.plan.steps.iter().any(|s| super::parent(s) == Some(step.id))
        || session.plan.targets.iter().any(|target| target.root == step.id);
    if !stood_on || matches!(step.op, Op::Scratch | Op::Image(_)) {
        return Ok(value);
    }
    let tree = value.tree(session.store)?;
    let bundle = bring(session, step.id, &tree, "/")?;
    Ok(Value::ready(tree, bundle.map(|bundle| (bundle, session.now().secs))))
}

fn source(session: &Session<'_>, step: &Step) -> Result<Arc<Value>, EngineError> {
    match &step.op {
        Op::Scratch => Ok(Value::ready(Tree::default(), None)),
        Op::Image(index) => {
            let unknown = || EngineError::step("the plan names an unknown base image");
            let image = session.bases.get(*index).ok_or_else(unknown)?;
            let name = &session.plan.images.get(*index).ok_or_else(unknown)?.name;
            bases::value(session.store, name, image, &session.observer)
        }
        Op::Local(index) => {
            let scanned = session.contexts.get(session.store, session.plan, *index)?;
            Ok(Value::ready(scanned.tree.clone(), None))
        }
        Op::Http(http) => fetch(session, step.id, http),
        Op::Git(git) => clone(session, step.id, git),
        Op::Run(_) | Op::Copy(_) | Op::Mkdir(_) => Err(EngineError::step("a step with a parent is no source")),
    }
}

/// The context behind a step, if it is one whose files still lie outside the store.
pub(super) fn scanned(session: &Session<'_>, id: StepId) -> Result<Option<Arc<Scanned>>, EngineError> {
    match session.plan.steps.get(id.0).map(|step| &step.op) {
        Some(Op::Local(index)) => {
            let scanned = session.contexts.get(session.store, session.plan, *index)?;
            Ok(scanned.is_outside_store().then_some(scanned))
        }
        _ => Ok(None),
    }
}

/// Brings the files at a path of a step's tree into the store, where the sandbox and layers can read them, in a bundle
/// of their own. Nothing refers to it but what the caller makes of it, so that it is pruned first. `None`: there are
/// none.
pub(super) fn bring(
    session: &Session<'_>,
    from: StepId,
    tree: &Tree,
    path: &str,
) -> Result<Option<BundleId>, EngineError> {
    let scanned = scanned(session, from)?;
    let found = tree.resolve(path.as_bytes(), true).map_err(|e| EngineError::step(e.to_string()))?;
    let Some(node) = found.node else { return Ok(None) };
    let mut part = Tree::default();
    if let (b"/", Node::Dir(dir)) = (found.path.as_slice(), &node) {
        part = Tree::new(dir.clone());
    } else {
        part.put(&found.path, node, &Meta::default);
    }
    let diff = Diff { root: DirChange::creating(part.root()) };
    if part.root().entries().is_empty() {
        return Ok(None);
    }
    let writer = session.store.bundle_writer();
    for entry in part.walk() {
        if let (Node::File(file), Some(scanned)) = (&entry.node, &scanned)
            && !session.store.has_content(&file.content, file.size)
        {
            scanned.store_content(&entry.path, &file.content, file.size, &writer)?;
        }
    }
    Ok(Some(writer.finish(&diff)?))
}

fn fetch(session: &Session<'_>, step: StepId, request: &Http) -> Result<Arc<Value>, EngineError> {
    let checksum = match &request.checksum {
        Some(text) => Some(text.parse().map_err(|e| EngineError::step(format!("--checksum: {e}")))?),
        None => None,
    };
    let fetched = http::fetch(&request.url, checksum.as_ref(), session.store)
        .map_err(|e| EngineError::chain(FailureKind::Registry, &e))?;
    session.note_fetched(step, Fetched::Http { url: request.url.clone(), content: fetched.content });
    let mtime = fetched.mtime.map_or_else(|| session.now(), |secs| Mtime::pinned(secs, 0));
    let meta = Meta::new(0o600, mtime);
    let file = Node::File(File { meta, size: fetched.size, content: fetched.content, link: None });
    let mut tree = Tree::default();
    tree.put(request.filename.as_bytes(), file, &|| Meta::new(0o755, Mtime::default()));
    Ok(Value::ready(tree, None))
}

/// Runs git and gives what it prints.
fn git(args: &[&str], dir: &Path) -> Result<String, EngineError> {
    let shown = args.first().copied().unwrap_or_default();
    let output = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", dir)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| {
            EngineError::new(FailureKind::Machine, format!("cannot run git: {e}"))
                .with_hint("install git to use repositories as sources")
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(EngineError::new(FailureKind::Registry, format!("git {shown} failed: {}", error.trim())))
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Fetches one commit and yields its tree. The commit alone decides the content, so that a known one is not fetched
/// again.
fn clone(session: &Session<'_>, step: StepId, request: &Git) -> Result<Arc<Value>, EngineError> {
    let Git { remote, reference, subdir, keep_git_dir, checksum, skip_submodules, fetch_by_commit, commit_mtime } =
        request;
    if remote.starts_with('-') || reference.as_ref().is_some_and(|r| r.starts_with('-')) {
        return Err(EngineError::step(format!("not a repository: {remote}")));
    }
    let scratch = session.store.scratch_dir()?;
    let dir = scratch.path().join("git");
    std::fs::create_dir(&dir).map_err(|e| EngineError::new(FailureKind::Cache, format!("{}: {e}", dir.display())))?;
    let wanted = reference.as_deref().unwrap_or("HEAD");
    let asked = checksum.as_deref().filter(|sum| *fetch_by_commit && is_commit(sum));
    let commit = if let Some(commit) = asked.or(Some(wanted).filter(|w| is_commit(w))) {
        commit.to_owned()
    } else {
        let listed = git(&["ls-remote", "--", remote, wanted, &format!("{wanted}^{{}}")], &dir)?;
        let lines: Vec<(&str, &str)> = listed.lines().filter_map(|l| l.split_once('\t')).collect();
        let peeled = lines.iter().find(|(_, name)| name.ends_with("^{}"));
        match peeled.or(lines.first()) {
            Some((commit, _)) => (*commit).to_owned(),
            None => return Err(EngineError::new(FailureKind::Registry, format!("{remote} has no reference {wanted}"))),
        }
    };
    if let Some(sum) = checksum
        && !commit.starts_with(sum.as_str())
    {
        return Err(EngineError::step(format!("expected checksum to match {commit}, got {sum}")));
    }
    let url = reference.as_ref().map_or_else(|| remote.clone(), |reference| format!("{remote}#{reference}"));
    session.note_fetched(step, Fetched::Git { url, commit: commit.clone() });
    let mut key = KeyHasher::new("memobuild.git.v1");
    let key = key.value(remote).value(&commit).value(subdir).value(keep_git_dir);
    let key = key.value(skip_submodules).value(commit_mtime).finish();
    session.share.note_general([("git", key)]);
    if let Some(bytes) = session.store.record_get("git", &key)?
        && let Ok(id) = <[u8; 32]>::try_from(bytes)
        && let Some(diff) = session.store.load_bundle(&memobuild_tree::BundleId::from_bytes(id))?
    {
        let tree = diff.apply(&Tree::default()).map_err(|e| EngineError::step(e.to_string()))?;
        return Ok(Value::ready(tree, None));
    }
    git(&["init", "-q"], &dir)?;
    git(&["remote", "add", "origin", remote], &dir)?;
    let shallow = git(&["fetch", "-q", "--depth=1", "origin", &commit], &dir);
    if shallow.is_err() {
        git(&["fetch", "-q", "--tags", "origin", wanted], &dir)?;
    }
    git(&["checkout", "-q", &commit], &dir)?;
    if !skip_submodules {
        git(&["submodule", "update", "-q", "--init", "--recursive", "--depth=1"], &dir)?;
    }
    let time = git(&["log", "-1", "--format=%ct"], &dir)?.parse::<i64>().ok().filter(|_| *commit_mtime);
    if !keep_git_dir {
        std::fs::remove_dir_all(dir.join(".git"))
            .map_err(|e| EngineError::new(FailureKind::Cache, format!("{}: {e}", dir.display())))?;
    }
    let root = match subdir {
        Some(sub) => memobuild_tree::path::components(sub.as_bytes())
            .iter()
            .fold(dir.clone(), |at, part| at.join(String::from_utf8_lossy(part).as_ref())),
        None => dir.clone(),
    };
    let found = scan(&root, &Everything, None)?;
    let writer = session.store.bundle_writer();
    for entry in found.tree.walk() {
        if let Node::File(file) = entry.node {
            let relative = entry.path.get(1..).unwrap_or_default();
            writer.add_reader(&mut found.source.open(relative, &file.content)?, file.size)?;
        }
    }
    let mut diff = memobuild_tree::Diff { root: memobuild_tree::DirChange::creating(found.tree.root()) };
    if let Some(secs) = time {
        crate::session::set_times(&mut diff.root, Mtime::pinned(secs, 0));
    }
    let tree = diff.apply(&Tree::default()).map_err(|e| EngineError::step(e.to_string()))?;
    let bundle = writer.finish(&diff)?;
    session.store.record_put("git", &key, bundle.as_bytes(), &[memobuild_store::Ref::Bundle(bundle)])?;
    Ok(Value::ready(tree, None))
}
