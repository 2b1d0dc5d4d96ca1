//! From a step and its view to the spec that the server gets.

use std::{os::unix::ffi::OsStrExt, path::Path};

use memobuild_tree::Meta;

use crate::{
    error::SandboxError,
    fuse::sides::{Serving, Side},
    harvest::walk::OWNER_XATTR,
    ids::{IdMap, Ids},
    served::{From, SYSTEM_DIRS, View},
    spec::{Bytes, MountSpec, Room, RootMeta, Shape, SideFile, Source, Spec},
    step::{Network, Security, Step, Ulimit},
};

/// Docker's and BuildKit's size of /dev/shm.
const DEFAULT_SHM: u64 = 64 << 20;
/// Where commands are looked for in an environment without PATH.
pub(crate) const USUAL_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a step's trees lie: served, or laid out as chains of directories, uppermost first.
pub(crate) enum Lowers<'a> {
    /// Tree N is `rich/N` in the step's tmpfs, but the root is on the sides that are named.
    Fuse(Serving<'a>),
    /// Tree N is the N-th chain.
    LaidOut(&'a [Vec<Bytes>]),
}

/// The ids a step runs as, given which ids there are.
fn ids_of(step: &Step, ids: &Ids) -> Result<(u32, u32, Vec<u32>), SandboxError> {
    if ids.single() {
        // Only root exists: the step runs as root and its files are told apart by what it asks for.
        return Ok((0, 0, Vec::new()));
    }
    let user = &step.user;
    let limit = ids.limit();
    if let Some(id) = [user.uid, user.gid].iter().chain(&user.groups).find(|id| **id >= limit && limit != u32::MAX) {
        return Err(SandboxError::Unsupported(format!(
            "id {id} is beyond the {limit} ids that /etc/subuid and /etc/subgid give this user"
        )));
    }
    Ok((user.uid, user.gid, user.groups.clone()))
}

/// `RLIMIT_*` numbers by the names that `--ulimit` takes.
fn resource(limit: &Ulimit) -> Result<(u32, u64, u64), SandboxError> {
    let number = match limit.name.as_str() {
        "cpu" => libc::RLIMIT_CPU,
        "fsize" => libc::RLIMIT_FSIZE,
        "data" => libc::RLIMIT_DATA,
        "stack" => libc::RLIMIT_STACK,
        "core" => libc::RLIMIT_CORE,
        "rss" => libc::RLIMIT_RSS,
        "nproc" => libc::RLIMIT_NPROC,
        "nofile" => libc::RLIMIT_NOFILE,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "as" => libc::RLIMIT_AS,
        "locks" => libc::RLIMIT_LOCKS,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        other => return Err(SandboxError::Unsupported(format!("unknown resource limit {other:?}"))),
    };
    Ok((number as u32, limit.soft, limit.hard))
}

fn environment(step: &Step) -> Vec<Bytes> {
    let mut env: Vec<Bytes> = step.env.iter().map(|e| e.as_slice().into()).collect();
    let has = |env: &[Bytes], name: &[u8]| env.iter().any(|e| e.starts_with(name));
    if !has(&env, b"PATH=") {
        env.push([b"PATH=", USUAL_PATH].concat().into());
    }
    if !has(&env, b"HOME=") {
        let home: &[u8] = if step.user.uid == 0 { b"HOME=/root" } else { b"HOME=/" };
        env.push(home.into());
    }
    env
}

fn root_meta(meta: &Meta, ids: &Ids) -> RootMeta {
    let (owner, true_owner) = ids.view().show(meta.uid, meta.gid);
    let mut xattrs: Vec<(Bytes, Bytes)> = Vec::new();
    for (name, value) in meta.xattrs.iter().flat_map(|x| x.iter()) {
        if name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") {
            xattrs.push((name.clone(), value.clone()));
        }
    }
    if !true_owner {
        let value = format!("{}:{}", meta.uid, meta.gid).into_bytes();
        xattrs.push((OWNER_XATTR.into(), value.into()));
    }
    RootMeta { mode: meta.mode, owner, mtime: (meta.mtime.secs, meta.mtime.nanos), xattrs }
}

/// What a step's room must be like.
pub(crate) fn shape(step: &Step, ids: &Ids, fuse: bool) -> Shape {
    Shape {
        fuse,
        no_network: step.network == Network::None,
        insecure: step.security == Security::Insecure,
        single: ids.single(),
        shm_size: step.shm_size.unwrap_or(DEFAULT_SHM),
    }
}

/// The spec of a step in a root that is laid out at the given path; nothing is mounted.
pub(crate) fn chroot_spec(step: &Step, view: &View, dir: &Path, ids: &Ids, root: &Path) -> Result<Spec, SandboxError> {
    if step.network == Network::None {
        return Err(SandboxError::Unsupported("the chroot mode cannot take the network away from a step".into()));
    }
    let dir: Bytes = dir.as_os_str().as_bytes().into();
    let room = Room { dir: dir.clone(), mem: dir, shape: shape(step, ids, false) };
    let mut spec = spec(step, view, room, ids, &Lowers::LaidOut(&[]))?;
    spec.mounts.clear();
    spec.side.clear();
    spec.chroot = Some(root.as_os_str().as_bytes().into());
    let targets = view.points.iter().map(|p| p.target.as_slice());
    spec.skip = targets.chain(SYSTEM_DIRS.iter().map(|d| d.as_bytes())).map(Into::into).collect();
    Ok(spec)
}

/// The spec of a step in the given room.
pub(crate) fn spec(step: &Step, view: &View, room: Room, ids: &Ids, lowers: &Lowers<'_>) -> Result<Spec, SandboxError> {
    let data = match lowers {
        Lowers::Fuse(serving) => serving.data,
        Lowers::LaidOut(_) => None,
    };
    let bytes = |path: &Path| -> Bytes { path.as_os_str().as_bytes().into() };
    let in_memory = |name: String| -> Bytes { [&room.mem, b"/".as_slice(), name.as_bytes()].concat().into() };
    let tree_dirs = |tree: usize| -> Vec<Bytes> {
        match lowers {
            Lowers::Fuse(serving) if tree == 0 => {
                serving.sides.iter().map(|side| in_memory(format!("{}/0", side.name()))).collect()
            }
            Lowers::Fuse(_) => vec![in_memory(format!("{}/{tree}", Side::Rich.name()))],
            Lowers::LaidOut(chains) => chains.get(tree).cloned().unwrap_or_default(),
        }
    };
    let mut mounts = Vec::new();
    for (number, point) in view.points.iter().enumerate() {
        let read_only = libc::MOUNT_ATTR_RDONLY;
        let source = match &point.from {
            From::Side { name } => {
                let confined = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
                let attributes = read_only | confined;
                Source::Bind { path: in_memory(format!("side/{name}")), attributes }
            }
            From::Tree { tree, path, writable, .. } => {
                let dirs = tree_dirs(*tree);
                match (dirs.as_slice(), writable) {
                    ([only], false) => {
                        let at = if path == b"/" { only.to_vec() } else { [only, path.as_slice()].concat() };
                        Source::Bind { path: at.into(), attributes: read_only }
                    }
                    _ => Source::Scratch {
                        lowers: dirs,
                        number: number as u32,
                        below: path.as_slice().into(),
                        attributes: if *writable { 0 } else { read_only },
                    },
                }
            }
            From::Host { path, writable } => {
                Source::Bind { path: path.as_slice().into(), attributes: if *writable { 0 } else { read_only } }
            }
            From::Tmpfs { size, writable } => {
                Source::Tmpfs { size: *size, attributes: if *writable { 0 } else { read_only } }
            }
        };
        mounts.push(MountSpec { target: point.target.as_slice().into(), source });
    }
    Ok(Spec {
        lowers: tree_dirs(0),
        data: data.map(bytes),
        root: root_meta(step.root.root().meta(), ids),
        side: view
            .side
            .iter()
            .map(|f| SideFile { owner: ids.view().show(f.owner.0, f.owner.1).0, ..f.clone() })
            .collect(),
        mounts,
        argv: step.argv.iter().map(|a| a.as_slice().into()).collect(),
        env: environment(step),
        cwd: step.cwd.as_slice().into(),
        ids: ids_of(step, ids)?,
        asked: (step.user.uid, step.user.gid, step.user.groups.clone()),
        hostname: view.hostname.as_slice().into(),
        limits: step.ulimits.iter().map(resource).collect::<Result<_, _>>()?,
        supervise: ids.map != IdMap::Host,
        id_limit: ids.limit(),
        chroot: None,
        skip: Vec::new(),
        cgroup: step.cgroup_parent.as_ref().map(|name| name.as_bytes().into()),
        probe: false,
        room,
    })
}
