//! Definition keys: what a step is, apart from the trees that it works on.
//!
//! | step | fields, in this order |
//! |---|---|
//! | all | format version, kind, commit epoch (`--reproducible`) |
//! | RUN | argv, environment, working directory, user as written, network, confinement, added hosts, shm size, ulimits, cgroup parent, host name, platform, ownership class, mounts |
//! | mount | target, kind, and of each kind: bind (path, writable), script (content), cache (id, source path, sharing, read-only, owner, mode), tmpfs (size; another kind if read-only), secret (id, variable, file, required, owner, mode), ssh (id, required, owner, mode) |
//! | COPY, ADD | destination, directory or not, owner as written, mode, link, parents, exclude patterns, unpack; of each source: pattern, pivot, whether it may be empty, unpack, or name and content |
//! | WORKDIR | path, user as written |
//!
//! Never in a key: proxy settings, values of secrets, contents of cache mounts, labels, the place in the Dockerfile.
//! After `--no-cache` a RUN's keys are made of another digest in the definition's place (`memo::renewal`), and under
//! `stat=kind` of [`base`]. An exact key is made of a definition key and the identities of the input trees ([`exact`]).
//! A result found by facts has a strong key over [`weak`], the order in which its files were written ([`ordered`]), its
//! path set and what is found there.

use memobuild_plan::model::{Chmod, Copy, CopySource, Mkdir, Mount, MountKind, Network, Run, Sharing, Unpack};
use memobuild_sandbox::OwnershipClass;
use memobuild_tree::{ContentHash, KeyDigest, KeyHasher, TreeDigest};

use crate::users::ExecUser;

/// Raised whenever a field is added or its meaning changes.
const DOMAIN: &str = "memobuild.step.definition.v1";

fn start(kind: u64, epoch: Option<i64>) -> KeyHasher {
    let mut h = KeyHasher::new(DOMAIN);
    h.u64(kind).value(&epoch);
    h
}

/// The definition of a RUN.
pub(crate) fn run(run: &Run, platform: &str, ownership: OwnershipClass, epoch: Option<i64>) -> KeyDigest {
    // Taken apart, so that a new field can't be forgotten here.
    let Run {
        parent: _,
        argv,
        env,
        proxy_env: _,
        cwd,
        user,
        mounts,
        network,
        insecure,
        hosts,
        shm_size,
        ulimits,
        cgroup_parent,
        hostname,
    } = run;
    let mut h = start(0, epoch);
    h.value(argv).value(env).value(cwd).value(user);
    h.u64(match network {
        // The default is the host's network.
        Network::Default | Network::Host => 0,
        Network::None => 1,
    });
    h.value(insecure).value(hosts).value(shm_size);
    h.u64(ulimits.len() as u64);
    for (name, soft, hard) in ulimits {
        h.value(name).value(soft).value(hard);
    }
    h.value(cgroup_parent).value(hostname).value(platform);
    h.u64(match ownership {
        OwnershipClass::True => 0,
        OwnershipClass::Single => 1,
    });
    h.u64(mounts.len() as u64);
    mounts.iter().for_each(|m| mount(&mut h, m));
    h.finish()
}

fn mount(h: &mut KeyHasher, mount: &Mount) {
    let Mount { target, kind } = mount;
    h.value(target);
    match kind {
        MountKind::Bind { from: _, path, writable } => {
            h.u64(0).value(path).value(writable);
        }
        MountKind::Script { content } => {
            h.u64(1).value(content);
        }
        MountKind::Cache { id, from, sharing, read_only, dir } => {
            h.u64(2).value(id).value(&from.as_ref().map(|(_, path)| path));
            h.u64(match sharing {
                Sharing::Shared => 0,
                Sharing::Private => 1,
                Sharing::Locked => 2,
            });
            h.value(read_only).value(&dir.map(|dir| (dir.uid, (dir.gid, dir.mode))));
        }
        MountKind::Tmpfs { size, read_only: false } => {
            h.u64(3).value(size);
        }
        MountKind::Secret { id, env, file, required, uid, gid, mode } => {
            h.u64(4).value(id).value(env).value(file).value(required).value(uid).value(gid).value(mode);
        }
        MountKind::Ssh { id, required, uid, gid, mode } => {
            h.u64(5).value(id).value(required).value(uid).value(gid).value(mode);
        }
        MountKind::Tmpfs { size, read_only: true } => {
            h.u64(6).value(size);
        }
    }
}

fn hash_unpack(h: &mut KeyHasher, unpack: Unpack) {
    h.u64(match unpack {
        Unpack::Never => 0,
        Unpack::Archives => 1,
    });
}

/// The definition of a COPY or ADD.
pub(crate) fn copy(copy: &Copy, epoch: Option<i64>) -> KeyDigest {
    let Copy { parent: _, sources, dest, dest_is_dir, chown, chmod, link, parents, exclude, unpack: all } = copy;
    let mut h = start(1, epoch);
    h.value(dest).value(dest_is_dir).value(chown);
    match chmod {
        None => h.u64(0),
        Some(Chmod::Octal(mode)) => h.u64(1).value(mode),
        Some(Chmod::Symbolic(text)) => h.u64(2).value(text),
    };
    h.value(link).value(parents).value(exclude);
    hash_unpack(&mut h, *all);
    h.u64(sources.len() as u64);
    for source in sources {
        match source {
            CopySource::Path { from: _, pattern, pivot, may_be_empty, unpack: this } => {
                h.u64(0).value(pattern).value(&pivot.map(|p| p as u64)).value(may_be_empty);
                hash_unpack(&mut h, *this);
            }
            CopySource::Inline { name, content } => {
                h.u64(1).value(name).value(content);
            }
        }
    }
    h.finish()
}

/// The definition of a WORKDIR.
pub(crate) fn mkdir(mkdir: &Mkdir, epoch: Option<i64>) -> KeyDigest {
    let Mkdir { parent: _, path, user } = mkdir;
    start(2, epoch).value(path).value(user).finish()
}

/// The key of one result: the definition over trees of these identities, in the order of the step's inputs. `level`
/// keeps keys over whole trees apart from keys over the parts that are used.
pub(crate) fn exact(definition: &KeyDigest, level: Level, inputs: &[TreeDigest]) -> KeyDigest {
    let mut h = KeyHasher::new("memobuild.step.exact.v1");
    h.value(definition).u64(level as u64).u64(inputs.len() as u64);
    for input in inputs {
        input.hash(&mut h);
    }
    h.finish()
}

/// What the identities in an exact key are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Whole input trees: known without looking into any.
    Trees = 0,
    /// The parent's tree, and of the others what is used of them.
    Parts = 1,
}

/// Where a step's path sets are listed. Under `stat=kind` results have other facts, which hold for such steps alone.
pub(crate) fn ordered(weak: &KeyDigest, order: &KeyDigest) -> KeyDigest {
    KeyHasher::new("memobuild.step.ordered.v1").value(weak).value(order).finish()
}

pub(crate) fn base(definition: &KeyDigest, stat_kind: bool) -> KeyDigest {
    KeyHasher::new("memobuild.step.base.v1").value(definition).value(&stat_kind).finish()
}

/// What a result found by facts depends on besides its facts: the step, the content that a COPY brings or that cache
/// mounts start with, and who its users' names are in the tree (uid, gid, groups, home).
pub(crate) fn weak(base: &KeyDigest, contents: &[TreeDigest], who: &Who) -> KeyDigest {
    let mut h = KeyHasher::new("memobuild.step.weak.v1");
    h.value(base).u64(contents.len() as u64);
    contents.iter().for_each(|digest| digest.hash(&mut h));
    match who {
        Who::Nobody => h.u64(0),
        Who::Owner(uid, gid) => h.u64(1).value(uid).value(gid),
        Who::User(user) => h.u64(2).value(&user.uid).value(&user.gid).value(&user.groups).value(&user.home),
    };
    h.finish()
}

/// Who a step's names stand for in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// It names nobody.
    Nobody,
    /// Who owns what it makes.
    Owner(u32, u32),
    /// Who its command runs as.
    User(ExecUser),
}
