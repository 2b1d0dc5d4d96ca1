//! `RUN`: a command in the sandbox.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use memobuild_observe::{FailureKind, Stream, TraceEvent};
use memobuild_plan::model::{Network, Run, Step};
use memobuild_sandbox as sandbox;
use memobuild_sandbox::{Contents, Exit, Output, ReadAt, SandboxError};
use memobuild_store::{BundleWriter, Content, Store};
use memobuild_tree::{BundleId, ContentDigest, Diff, Tree, facts::Looks};

use super::{Committed, Values, facts, mounts, value};
use crate::{EngineError, resolve, session::Session};

/// Lines of a failed step's output that its error shows.
const TAIL_LINES: usize = 30;

/// How a command ended.
pub(super) enum Ran {
    /// With 0.
    Done(Committed),
    /// Otherwise; with what it looked at, where all of that was seen.
    Failed(Box<EngineError>, Option<Vec<Looks>>),
}

pub(super) fn execute(session: &Session<'_>, step: &Step, run: &Run, values: &Values) -> Result<Ran, EngineError> {
    let tree = value(values, run.parent)?.tree(session.store)?;
    let user = resolve::exec_user(session, &run.user, &tree)?.map_err(|e| EngineError::step(e.to_string()))?;
    let mounts = mounts::prepare(session, run, values)?;
    let wanted = sandbox::Step {
        root: tree.clone(),
        argv: run.argv.iter().map(|a| a.as_bytes().to_vec()).collect(),
        env: environment(&run.env, &run.proxy_env, &user.home, mounts.agent.as_deref(), &mounts.env),
        cwd: run.cwd.as_bytes().to_vec(),
        user: sandbox::User { uid: user.uid, gid: user.gid, groups: user.groups },
        mounts: mounts.mounts.clone(),
        network: match run.network {
            Network::None => sandbox::Network::None,
            Network::Default | Network::Host => sandbox::Network::Host,
        },
        hostname: run.hostname.as_ref().map(|name| name.as_bytes().to_vec()),
        extra_hosts: run.hosts.iter().map(|(name, ip)| sandbox::Host { ip: ip.clone(), name: name.clone() }).collect(),
        shm_size: run.shm_size,
        ulimits: run.ulimits.iter().map(ulimit).collect(),
        cgroup_parent: run.cgroup_parent.clone(),
        security: if run.insecure { sandbox::Security::Insecure } else { sandbox::Security::Sandbox },
        platform: Some(step.platform.to_string()),
        see_reads: step.hints.stat_kind,
    };
    let contents = Arc::new(StepContents::new(session.store, &mounts));
    let served: Arc<dyn Contents> = contents.clone();
    let log = Log { session, step: step.id.0, tail: Mutex::default() };
    let sandbox = session.sandbox()?;
    let outcome = sandbox.run(&wanted, &served, &log, &session.cancel);
    let outcome = outcome.map_err(|e| failure(run, &log, &e))?;
    contents.natives_stayed()?;
    let looks = looks(session, step, outcome.looks, outcome.complete, &outcome.diff, values)?;
    let how = match outcome.exit {
        Exit::Code(0) => None,
        Exit::Code(code) => Some(format!("exit code: {code}")),
        // A shell's way of saying it, which BuildKit shares.
        Exit::Signal(signal) => Some(format!("exit code: {} (signal {signal})", 128 + signal)),
    };
    if let Some(how) = how {
        return Ok(Ran::Failed(Box::new(log.error(did_not_complete(run, &how))), looks));
    }
    let (diff, after) = session.settle(outcome.diff, &tree)?;
    let bundle = contents.finish(&diff)?;
    // The keys were made before the sandbox was there: if owners mean something else in it, they are the wrong keys.
    let sound = sandbox.mode().is_ok_and(|mode| mode.ownership == session.ownership());
    Ok(Ran::Done(Committed { bundle, tree: after, looks, sound }))
}

/// All that the step depends on, if it is known to be all.
fn looks(
    session: &Session<'_>,
    step: &Step,
    served: Vec<Looks>,
    complete: bool,
    diff: &Diff,
    values: &Values,
) -> Result<Option<Vec<Looks>>, EngineError> {
    let trees = facts::trees(session, step, values)?.filter(|_| complete);
    let Some(trees) = trees else { return Ok(None) };
    let looks = facts::looks_of_run(step, served, &trees);
    let before = trees.first().map(Tree::root);
    Ok(looks.zip(before).and_then(|(mut looks, root)| facts::cover(diff, root, &mut looks).then_some(looks)))
}

/// What the command finds in its environment: each name once, since programs differ in which of two they take.
fn environment(
    given: &[(String, String)],
    proxies: &[(String, String)],
    home: &str,
    agent: Option<&str>,
    secrets: &[(String, Vec<u8>)],
) -> Vec<Vec<u8>> {
    let mut env: Vec<(&str, &[u8])> = Vec::new();
    let mut set = |name, value| match env.iter_mut().find(|(n, _)| *n == name) {
        Some(slot) => slot.1 = value,
        None => env.push((name, value)),
    };
    for (name, value) in given.iter().chain(proxies) {
        set(name.as_str(), value.as_bytes());
    }
    let own = |name: &str| given.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    // An empty HOME counts as none, as runc has it.
    if own("HOME").is_none_or(str::is_empty) {
        set("HOME", home.as_bytes());
    }
    if let Some(agent) = agent.filter(|_| own("SSH_AUTH_SOCK").is_none()) {
        set("SSH_AUTH_SOCK", agent.as_bytes());
    }
    for (name, value) in secrets {
        set(name, value);
    }
    env.iter().map(|(name, value)| [name.as_bytes(), b"=", value].concat()).collect()
}

fn ulimit((name, soft, hard): &(String, i64, i64)) -> sandbox::Ulimit {
    let limit = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
    sandbox::Ulimit { name: name.clone(), soft: limit(*soft), hard: limit(*hard) }
}

fn did_not_complete(run: &Run, how: &str) -> String {
    format!("process {:?} did not complete successfully: {how}", run.argv.join(" "))
}

fn failure(run: &Run, log: &Log<'_, '_>, error: &SandboxError) -> EngineError {
    let chained = EngineError::chain(FailureKind::Step, error).message;
    match error {
        SandboxError::Unavailable { .. } => EngineError::new(FailureKind::Machine, chained)
            .with_hint("`memobuild doctor` says what this machine can do and how to get a better mode"),
        SandboxError::Foreign { .. } => EngineError::new(FailureKind::Machine, chained).with_hint(
            "as root, install QEMU and register it with the kernel (Debian, Ubuntu: `apt-get install qemu-user-static \
             binfmt-support`); or build on this machine's own platform, with a compiler for the other one: \
             FROM --platform=$BUILDPLATFORM",
        ),
        SandboxError::Start { code, .. } => {
            log.error(format!("{}: {chained}", did_not_complete(run, &format!("exit code: {code}"))))
        }
        SandboxError::Scratch { .. } | SandboxError::Harvest { .. } | SandboxError::Serving(_) => {
            EngineError::new(FailureKind::Cache, chained)
        }
        _ => log.error(chained),
    }
}

/// The step's output: to the observer, and the end of it for the error.
struct Log<'a, 's> {
    session: &'a Session<'s>,
    step: usize,
    tail: Mutex<Vec<u8>>,
}

impl Output for Log<'_, '_> {
    fn write(&self, stream: sandbox::Stream, bytes: &[u8]) {
        let stream = match stream {
            sandbox::Stream::Stdout => Stream::Stdout,
            sandbox::Stream::Stderr => Stream::Stderr,
        };
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(bytes);
        if tail.len() > 64 * 1024 {
            let cut = tail.len() - 32 * 1024;
            tail.drain(..cut);
        }
        drop(tail);
        self.session.emit(TraceEvent::NodeOutput { step: self.step, stream, data: bytes.to_vec() });
    }
}

impl Log<'_, '_> {
    fn error(&self, message: String) -> EngineError {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&tail);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let skip = lines.len().saturating_sub(TAIL_LINES);
        EngineError { log_tail: lines.into_iter().skip(skip).collect(), ..EngineError::step(message) }
    }
}

/// The store as the sandbox sees it.
struct StepContents {
    store: Store,
    blobs: PathBuf,
    scripts: Vec<(ContentDigest, Arc<[u8]>)>,
    /// Blobs that the step could read past us, as they were when it was told of them.
    natives: Mutex<BTreeMap<ContentDigest, (PathBuf, Option<Stamp>)>>,
    /// Taken when the step is over.
    writer: RwLock<Option<BundleWriter>>,
}

impl StepContents {
    fn new(store: &Store, mounts: &mounts::Mounts) -> Self {
        Self {
            store: store.clone(),
            blobs: store.blobs_dir(),
            scripts: mounts.scripts.clone(),
            natives: Mutex::default(),
            writer: RwLock::new(Some(store.bundle_writer())),
        }
    }

    fn with_writer<T>(&self, act: impl FnOnce(&BundleWriter) -> memobuild_store::Result<T>) -> io::Result<T> {
        let writer = self.writer.read().unwrap_or_else(PoisonError::into_inner);
        let writer = writer.as_ref().ok_or_else(|| io::Error::other("the step is over"))?;
        act(writer).map_err(io::Error::other)
    }

    /// Looks whether what the step read past us is what it was: a program may take an error, or an end that comes too
    /// early, for what a file says.
    fn natives_stayed(&self) -> Result<(), EngineError> {
        let natives = self.natives.lock().unwrap_or_else(PoisonError::into_inner);
        for (digest, (path, before)) in natives.iter() {
            if before.is_none() || stamp(path) != *before {
                self.store.verify_blob(digest)?;
            }
        }
        Ok(())
    }

    fn finish(&self, diff: &Diff) -> Result<Option<BundleId>, EngineError> {
        let writer = self.writer.write().unwrap_or_else(PoisonError::into_inner).take();
        match writer {
            Some(writer) if !diff.is_empty() => Ok(Some(writer.finish(diff)?)),
            _ => Ok(None),
        }
    }
}

impl Contents for StepContents {
    fn open(&self, digest: &ContentDigest) -> io::Result<Arc<dyn ReadAt>> {
        if let Some((_, bytes)) = self.scripts.iter().find(|(d, _)| d == digest) {
            return Ok(Arc::new(Bytes(bytes.clone())));
        }
        Ok(Arc::new(Stored(self.store.content(digest).map_err(io::Error::other)?)))
    }

    fn native(&self, digest: &ContentDigest, size: u64) -> Option<PathBuf> {
        let path = (size > memobuild_store::LARGE_FILE).then(|| self.store.blob_path(digest))??;
        let mut natives = self.natives.lock().unwrap_or_else(PoisonError::into_inner);
        natives.entry(*digest).or_insert_with(|| {
            let stamp = stamp(&path).filter(|stamp| stamp.1 == size);
            (path, stamp)
        });
        Some(PathBuf::from(Store::blob_rel_path(digest)))
    }

    fn native_above(&self) -> u64 {
        memobuild_store::LARGE_FILE
    }

    fn blobs_dir(&self) -> Option<&Path> {
        Some(&self.blobs)
    }

    fn put_small(&self, bytes: &[u8]) -> io::Result<ContentDigest> {
        self.with_writer(|writer| writer.add_bytes(bytes))
    }

    fn put_large(&self, tmp: &Path, digest: ContentDigest, size: u64) -> io::Result<()> {
        self.with_writer(|writer| writer.adopt_blob(tmp, &digest, size))
    }
}

/// Which file it is, its length, and when it was last changed.
type Stamp = (u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
}

struct Stored(Content);

impl ReadAt for Stored {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn len(&self) -> u64 {
        self.0.len()
    }
}

struct Bytes(Arc<[u8]>);

impl ReadAt for Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::environment;

    #[test]
    fn every_name_stands_once_and_the_nearest_wins() {
        let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        let env = |given: &[(&str, &str)], agent, secrets: &[(&str, &str)]| {
            let secrets: Vec<_> = pairs(secrets).into_iter().map(|(n, v)| (n, v.into_bytes())).collect();
            let env = environment(&pairs(given), &pairs(&[("http_proxy", "p")]), "/h", agent, &secrets);
            env.into_iter().map(|entry| String::from_utf8(entry).unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(env(&[("A", "1"), ("http_proxy", "own")], None, &[]), "A=1 http_proxy=p HOME=/h");
        assert_eq!(env(&[("HOME", "")], Some("/agent"), &[]), "HOME=/h http_proxy=p SSH_AUTH_SOCK=/agent");
        assert_eq!(
            env(&[("HOME", "/x"), ("SSH_AUTH_SOCK", "y")], Some("/a"), &[]),
            "HOME=/x SSH_AUTH_SOCK=y http_proxy=p"
        );
        assert_eq!(env(&[("T", "env")], None, &[("T", "secret")]), "T=secret http_proxy=p HOME=/h");
    }
}
