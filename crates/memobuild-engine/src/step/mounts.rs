//! What a RUN's mounts are at the moment when it runs.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use memobuild_observe::{FailureKind, TraceEvent};
use memobuild_oci::output;
use memobuild_plan::model::{Mount as Planned, MountKind as PlannedKind, NewDir, Run, Sharing};
use memobuild_sandbox::{Mount, MountKind};
use memobuild_store::{
    FileLock, Ref,
    scan::{Everything, scan},
};
use memobuild_tree::{BundleId, ContentDigest, Diff, DirChange, File, KeyDigest, KeyHasher, Meta, Mtime, Node, Tree};

use super::{Values, source, value};
use crate::{EngineError, SecretSource, session::Session};

/// Mounts and what comes with them.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) mounts: Vec<Mount>,
    /// Secrets that appear in the environment, by variable.
    pub(super) env: Vec<(String, Vec<u8>)>,
    /// Where the first agent's socket is, or would be.
    pub(super) agent: Option<String>,
    /// Bytes of `#!` heredocs, which no store holds.
    pub(super) scripts: Vec<(ContentDigest, Arc<[u8]>)>,
    /// Cache mounts are held as long as the step runs.
    locks: Vec<FileLock>,
}

const NEW_CACHES: &str = "cache-mount";
/// What cache mounts held when they were exported: bundles.
const SAVED: &str = "cache-mount.saved.v1";

/// Prepares all mounts of a RUN.
pub(super) fn prepare(session: &Session<'_>, run: &Run, values: &Values) -> Result<Mounts, EngineError> {
    let mut out = Mounts::default();
    for mount in &run.mounts {
        if let Some(kind) = one(session, mount, values, &mut out)? {
            out.mounts.push(Mount { target: mount.target.as_bytes().to_vec(), kind });
        }
    }
    Ok(out)
}

fn one(
    session: &Session<'_>,
    mount: &Planned,
    values: &Values,
    out: &mut Mounts,
) -> Result<Option<MountKind>, EngineError> {
    Ok(Some(match &mount.kind {
        PlannedKind::Bind { from, path, writable } => {
            let tree = value(values, *from)?.tree(session.store)?;
            // Files of a local directory have to be in the store for the sandbox to serve them like all others.
            if source::scanned(session, *from)?.is_some() {
                source::bring(session, *from, &tree, path)?;
            }
            MountKind::Tree { tree, path: path.as_bytes().to_vec(), writable: *writable }
        }
        PlannedKind::Script { content } => {
            let bytes: Arc<[u8]> = content.as_bytes().into();
            let digest = ContentDigest::of(&bytes);
            let file = File {
                meta: Meta::new(0o755, Mtime::default()),
                size: bytes.len() as u64,
                content: digest,
                link: None,
            };
            let mut tree = Tree::default();
            tree.put(b"/script", Node::File(file), &Meta::default);
            out.scripts.push((digest, bytes));
            MountKind::Tree { tree, path: b"/script".to_vec(), writable: false }
        }
        PlannedKind::Cache { .. } => cache(session, mount, values, out)?,
        PlannedKind::Tmpfs { size, read_only } => MountKind::Tmpfs { size: *size, writable: !read_only },
        PlannedKind::Secret { id, env, file, required, uid, gid, mode } => {
            let Some(bytes) = secret(session, id)? else {
                if *required {
                    return Err(EngineError::step(format!("secret {id}: not found"))
                        .with_hint(format!("give it with --secret id={id},src=FILE")));
                }
                // The variable is there even if the secret is not, as BuildKit has it.
                out.env.extend(env.clone().map(|name| (name, Vec::new())));
                return Ok(None);
            };
            if let Some(name) = env {
                out.env.push((name.clone(), bytes.clone()));
            }
            if !file {
                return Ok(None);
            }
            MountKind::Secret { bytes: bytes.into(), uid: *uid, gid: *gid, mode: *mode }
        }
        PlannedKind::Ssh { id, required, uid, gid, mode } => {
            // The variable is there even if no agent is, as BuildKit has it.
            if out.agent.is_none() {
                out.agent = Some(mount.target.clone());
            }
            let Some(socket) = session.request.ssh.get(id) else {
                if *required {
                    return Err(EngineError::step(format!("no SSH key {id:?} forwarded from the client"))
                        .with_hint(format!("give it with --ssh {id}")));
                }
                return Ok(None);
            };
            MountKind::SshSocket { host_path: socket.clone(), uid: *uid, gid: *gid, mode: *mode }
        }
    }))
}

fn secret(session: &Session<'_>, id: &str) -> Result<Option<Vec<u8>>, EngineError> {
    match session.request.secrets.get(id) {
        None => Ok(None),
        Some(SecretSource::Env(name)) => Ok(std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes)),
        Some(SecretSource::File(path)) => std::fs::read(path).map(Some).map_err(|e| {
            EngineError::new(FailureKind::Usage, format!("secret {id}: cannot read {}: {e}", path.display()))
        }),
    }
}

fn cache(session: &Session<'_>, mount: &Planned, values: &Values, out: &mut Mounts) -> Result<MountKind, EngineError> {
    let PlannedKind::Cache { id, from, sharing, read_only, dir: new } = &mount.kind else {
        return Err(EngineError::step("not a cache mount"));
    };
    let key = |copy: u64| -> Result<KeyDigest, EngineError> {
        let mut h = KeyHasher::new("memobuild.cache-mount.v1");
        h.value(id).u64(copy);
        // A cache that starts with other content is another cache.
        if let Some((from, path)) = from {
            h.value(&value(values, *from)?.identity()).value(path);
        }
        Ok(h.finish())
    };
    let (dir, key) = match sharing {
        Sharing::Private => {
            let mut copy = 0;
            loop {
                let key = key(copy)?;
                if let Some(lock) = session.store.try_lock(&format!("private-{}", key.hex()), true)? {
                    out.locks.push(lock);
                    let (dir, lock) = session.store.cache_mount(&key, false)?;
                    out.locks.push(lock);
                    break (dir, key);
                }
                copy += 1;
            }
        }
        _ => {
            let key = key(0)?;
            let (dir, lock) = session.store.cache_mount(&key, *sharing == Sharing::Locked)?;
            out.locks.push(lock);
            (dir, key)
        }
    };
    let seed = session.store.lock(&format!("seed-{}", key.hex()), true)?;
    let fresh = std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_none());
    session.share.note_mount(key, &dir);
    if session.store.record_put_new(NEW_CACHES, &key, id.as_bytes(), &[])? || fresh {
        let saved = fresh && restore(session, &key, &dir)?;
        if let (Some((from, path)), false) = (from, saved) {
            let tree = value(values, *from)?.tree(session.store)?;
            let Some(Node::Dir(part)) = tree.resolve(path.as_bytes(), true).ok().and_then(|r| r.node) else {
                return Err(EngineError::step(format!("cache mount {id}: {path}: no such directory to start with")));
            };
            let meta = part.meta().clone();
            output::write_local(session.store, &Tree::new(part), None, &dir)
                .map_err(|e| EngineError::chain(FailureKind::Cache, &e))?;
            own(&dir, &NewDir { uid: meta.uid, gid: meta.gid, mode: meta.mode })?;
        }
        if let Some(new) = new {
            own(&dir, new)?;
        }
    }
    drop(seed);
    Ok(MountKind::Host { path: dir, writable: !read_only })
}

/// Owner and mode of a new cache. An ordinary user can't give it away: then it stays the user's, who is root inside.
fn own(dir: &Path, new: &NewDir) -> Result<(), EngineError> {
    let failed = |e: std::io::Error| EngineError::new(FailureKind::Cache, format!("{}: {e}", dir.display()));
    match std::os::unix::fs::chown(dir, Some(new.uid), Some(new.gid)) {
        Err(e) if e.kind() != std::io::ErrorKind::PermissionDenied => return Err(failed(e)),
        _ => {}
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(new.mode)).map_err(failed)
}

/// Lays out what a shared cache has of a cache mount. A cache that can't be had is an empty one.
fn restore(session: &Session<'_>, key: &KeyDigest, dir: &Path) -> Result<bool, EngineError> {
    let Some(saved) = session.store.record_get(SAVED, key)? else { return Ok(false) };
    let Ok(id) = <[u8; 32]>::try_from(saved) else { return Ok(false) };
    let Some(diff) = session.store.load_bundle(&BundleId::from_bytes(id))? else { return Ok(false) };
    let Ok(tree) = diff.apply(&Tree::default()) else { return Ok(false) };
    let laid = output::write_local(session.store, &tree, None, dir);
    if let Err(error) = &laid {
        let message = format!("a cache mount could not be restored: {error}");
        session.emit(TraceEvent::Warning { message });
    }
    Ok(laid.is_ok())
}

/// What a cache mount holds, as a bundle; with the namespace of its record. None: nothing.
pub(crate) fn save_cache_mount(
    session: &Session<'_>,
    key: KeyDigest,
    dir: &Path,
) -> Result<(&'static str, Option<BundleId>), EngineError> {
    let found = scan(dir, &Everything, None)?;
    let diff = Diff { root: DirChange::creating(found.tree.root()) };
    if found.tree.root().entries().is_empty() {
        return Ok((SAVED, None));
    }
    let writer = session.store.bundle_writer();
    for entry in found.tree.walk() {
        if let Node::File(file) = entry.node {
            let relative = entry.path.get(1..).unwrap_or_default();
            writer.add_reader(&mut found.source.open(relative, &file.content)?, file.size)?;
        }
    }
    let bundle = writer.finish(&diff)?;
    session.store.record_put(SAVED, &key, bundle.as_bytes(), &[Ref::Bundle(bundle)])?;
    Ok((SAVED, Some(bundle)))
}
