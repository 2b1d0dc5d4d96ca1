//! What a RUN's mounts are at the moment when it runs.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use memobuild_observe::FailureKind;
use memobuild_oci::output;
use memobuild_plan::model::{Mount as Planned, MountKind as PlannedKind, Run, Sharing};
use memobuild_sandbox::{Mount, MountKind};
use memobuild_store::FileLock;
use memobuild_tree::{ContentDigest, File, KeyDigest, KeyHasher, Meta, Mtime, Node, Tree};

use super::{Values, value};
use crate::{EngineError, SecretSource, session::Session};

/// Mounts and what comes with them.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) mounts: Vec<Mount>,
    /// `NAME=value` of secrets that appear in the environment.
    pub(super) env: Vec<Vec<u8>>,
    /// Bytes of `#!` heredocs, which no store holds.
    pub(super) scripts: Vec<(ContentDigest, Arc<[u8]>)>,
    /// Cache mounts are held as long as the step runs.
    locks: Vec<FileLock>,
}

const NEW_CACHES: &str = "cache-mount";

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
            bring_context(session, *from, &tree, path, out)?;
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
        PlannedKind::Tmpfs { size } => MountKind::Tmpfs { size: *size },
        PlannedKind::Secret { id, env, file, required, uid, gid, mode } => {
            let Some(bytes) = secret(session, id)? else {
                if *required {
                    return Err(EngineError::step(format!("secret {id}: not found"))
                        .with_hint(format!("give it with --secret id={id},src=FILE")));
                }
                return Ok(None);
            };
            if let Some(name) = env {
                out.env.push([name.as_bytes(), b"=", &bytes].concat());
            }
            if !file {
                return Ok(None);
            }
            MountKind::Secret { bytes: bytes.into(), uid: *uid, gid: *gid, mode: *mode }
        }
        PlannedKind::Ssh { id, required, uid, gid, mode } => {
            // The variable is there even if no agent is, as BuildKit has it.
            out.env.push([b"SSH_AUTH_SOCK=", mount.target.as_bytes()].concat());
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

/// Files of a local directory are brought into the store, so that the sandbox can serve them like all others.
fn bring_context(
    session: &Session<'_>,
    from: memobuild_plan::model::StepId,
    tree: &Tree,
    path: &str,
    out: &mut Mounts,
) -> Result<(), EngineError> {
    let Some(scanned) = super::source::scanned(session, from)? else { return Ok(()) };
    let found = tree.resolve(path.as_bytes(), true).map_err(|e| EngineError::step(e.to_string()))?;
    let Some(node) = found.node else { return Ok(()) };
    let writer = session.store.bundle_writer();
    let mut part = Tree::default();
    part.put(&found.path, node.clone(), &Meta::default);
    if let (b"/", Node::Dir(dir)) = (found.path.as_slice(), node) {
        part = Tree::new(dir);
    }
    for entry in part.walk() {
        if let Node::File(file) = entry.node
            && !session.store.has_content(&file.content)
        {
            scanned.store_content(&entry.path, &file.content, file.size, &writer)?;
        }
    }
    // A bundle of its own makes the contents readable; nothing refers to it, so that it is pruned first.
    let diff = memobuild_tree::Diff { root: memobuild_tree::DirChange::creating(part.root()) };
    writer.finish(&diff)?;
    let _ = out;
    Ok(())
}

fn cache(session: &Session<'_>, mount: &Planned, values: &Values, out: &mut Mounts) -> Result<MountKind, EngineError> {
    let PlannedKind::Cache { id, from, sharing, read_only, uid, gid, mode } = &mount.kind else {
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
    if session.store.record_put_new(NEW_CACHES, &key, id.as_bytes(), &[])? || fresh {
        if let Some((from, path)) = from {
            let tree = value(values, *from)?.tree(session.store)?;
            let node = tree.resolve(path.as_bytes(), true).ok().and_then(|r| r.node);
            if let Some(Node::Dir(part)) = node {
                output::write_local(session.store, &Tree::new(part), None, &dir)
                    .map_err(|e| EngineError::chain(FailureKind::Cache, &e))?;
            }
        }
        own(&dir, *uid, *gid, *mode)?;
    }
    drop(seed);
    Ok(MountKind::Host { path: dir, writable: !read_only })
}

/// Owner and mode of a new cache. An ordinary user can't give it away: then it stays the user's, who is root inside.
fn own(dir: &Path, uid: u32, gid: u32, mode: u32) -> Result<(), EngineError> {
    let failed = |e: std::io::Error| EngineError::new(FailureKind::Cache, format!("{}: {e}", dir.display()));
    match std::os::unix::fs::chown(dir, Some(uid), Some(gid)) {
        Err(e) if e.kind() != std::io::ErrorKind::PermissionDenied => return Err(failed(e)),
        _ => {}
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).map_err(failed)
}
