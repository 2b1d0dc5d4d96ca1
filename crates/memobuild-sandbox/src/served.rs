//! The trees as a step sees them: mount points put in where they lack, in copies of the trees, so that no mount point is
//! ever written to the step's own layer.
//!
//! In: a step and where its scratch directory lies. Out: the trees to serve or lay out, and what to mount where.
//! BuildKit makes mount points in the layer and takes the empty ones out again (its mount stubs cleaner); the result
//! here is the same: a stub is part of the image only if the step wrote beside or below it.

use std::{
    collections::{BTreeMap, HashMap},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use memobuild_tree::{
    ContentDigest, Dir, File, Meta, Mtime, Node, Special, SpecialKind, Symlink, Tree,
    facts::{Look, Looks},
    path,
};

use crate::{
    error::SandboxError,
    spec::SideFile,
    step::{MountKind, Step},
};

/// Where the kernel's own file systems stand.
pub(crate) const SYSTEM_DIRS: [&str; 3] = ["/proc", "/sys", "/dev"];

const DEFAULT_HOSTNAME: &[u8] = b"buildkitsandbox";

/// What stands ready to be mounted: where, and from what.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    /// In the step's root, links resolved.
    pub(crate) target: Vec<u8>,
    /// From what.
    pub(crate) from: From,
}

/// What is mounted at a point, before it is known whether trees are served or laid out.
#[derive(Debug, Clone)]
pub(crate) enum From {
    /// A file of [`View::side`], read-only.
    Side { name: String },
    /// A tree of [`View::trees`] and a path in it.
    Tree { tree: usize, path: Vec<u8>, writable: bool, directory: bool },
    /// A path of this machine.
    Host { path: Vec<u8>, writable: bool },
    /// A tmpfs.
    Tmpfs { size: Option<u64>, writable: bool },
}

/// A step's trees and mounts.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// Tree 0 is the root. The others hold only what is mounted.
    pub(crate) trees: Vec<Tree>,
    /// The same without mount points.
    pub(crate) originals: Vec<Tree>,
    /// Parents before what is mounted in them.
    pub(crate) points: Vec<Point>,
    /// Files in memory.
    pub(crate) side: Vec<SideFile>,
    /// The name of the machine.
    pub(crate) hostname: Vec<u8>,
    /// What was looked at in the root to find the mounts' places.
    pub(crate) looked: Looks,
}

/// A mount whose place is settled.
struct Placed {
    asked: Vec<u8>,
    target: Vec<u8>,
    tree: Option<(usize, Vec<u8>)>,
}

/// What a mount of the node at a path serves, as a tree of its own, and the path in it: nothing beside it need be
/// readable. Looks at a mount are looks at this tree.
pub fn part_of(node: &Node, at: &[u8]) -> (Tree, Vec<u8>) {
    if let Node::Dir(dir) = node {
        return (Tree::new(dir.clone()), b"/".to_vec());
    }
    let name = path::components(at).last().map_or_else(Vec::new, |name| name.to_vec());
    let at = [b"/", name.as_slice()].concat();
    let mut tree = Tree::default();
    tree.put(&at, node.clone(), &stub_meta);
    (tree, at)
}

fn stub_meta() -> Meta {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Meta::new(0o755, Mtime::ambient(now.as_secs() as i64, now.subsec_nanos()))
}

fn stub(directory: bool) -> Node {
    let meta = stub_meta();
    if directory {
        Node::Dir(Arc::new(Dir::new(meta)))
    } else {
        let meta = Meta { mode: 0o644, ..meta };
        Node::File(File { meta, size: 0, content: ContentDigest::of(b""), link: None })
    }
}

/// `rest` of a path below `base`; `None` if it is not below or the same.
fn below<'a>(at: &'a [u8], base: &[u8]) -> Option<&'a [u8]> {
    if base == b"/" {
        return Some(at);
    }
    at.strip_prefix(base).filter(|rest| rest.is_empty() || rest.first() == Some(&b'/'))
}

impl View {
    /// Lays a step's mounts over its root.
    pub(crate) fn of(step: &Step) -> Result<Self, SandboxError> {
        let hostname = step.hostname.clone().unwrap_or_else(|| DEFAULT_HOSTNAME.to_vec());
        let mut view = Self {
            trees: vec![step.root.clone()],
            originals: Vec::new(),
            points: Vec::new(),
            side: Vec::new(),
            hostname,
            looked: Looks::default(),
        };
        let mut placed = Vec::new();
        // Later mounts take the place of earlier ones with the same target, as BuildKit has it; then parents first.
        let mut wanted: BTreeMap<Vec<u8>, From> = BTreeMap::new();
        for (target, name, bytes) in [
            ("/etc/hosts", "hosts", hosts_file(step, &view.hostname)),
            ("/etc/resolv.conf", "resolv.conf", resolv_conf()),
        ] {
            let name = view.add_side(name.to_owned(), bytes, (0, 0), 0o644);
            wanted.insert(target.as_bytes().to_vec(), From::Side { name });
        }
        for mount in &step.mounts {
            let target = path::clean(&mount.target);
            if target == b"/" {
                return Err(SandboxError::Unsupported("nothing can be mounted over /".into()));
            }
            let from = view.source(&mount.kind)?;
            wanted.insert(target, from);
        }
        view.originals = view.trees.clone();
        for system in SYSTEM_DIRS {
            view.place(system.as_bytes(), true, None, &mut placed)?;
        }
        for (target, from) in wanted {
            let directory = match &from {
                From::Side { .. } => false,
                From::Tree { directory, .. } => *directory,
                From::Host { path, .. } => Path::new(std::ffi::OsStr::from_bytes(path)).is_dir(),
                From::Tmpfs { .. } => true,
            };
            let tree = match &from {
                From::Tree { tree, path, .. } => Some((*tree, path.clone())),
                _ => None,
            };
            let target = view.place(&target, directory, tree, &mut placed)?;
            view.points.push(Point { target, from });
        }
        Ok(view)
    }

    fn add_side(&mut self, name: String, bytes: Vec<u8>, owner: (u32, u32), mode: u32) -> String {
        self.side.push(SideFile { name: name.clone().into_bytes().into(), bytes: bytes.into(), owner, mode });
        name
    }

    fn source(&mut self, kind: &MountKind) -> Result<From, SandboxError> {
        Ok(match kind {
            MountKind::Tree { tree, path: at, writable } => {
                let found = tree.resolve(at, true).map_err(|e| SandboxError::Unsupported(e.to_string()))?;
                let Some(node) = found.node else {
                    return Err(SandboxError::Unsupported(format!(
                        "the source of a bind mount is not there: {}",
                        path::display(at)
                    )));
                };
                let (part, path) = part_of(&node, &found.path);
                self.trees.push(part);
                From::Tree { tree: self.trees.len() - 1, path, writable: *writable, directory: node.as_dir().is_some() }
            }
            MountKind::Host { path, writable } => {
                From::Host { path: path.as_os_str().as_bytes().to_vec(), writable: *writable }
            }
            MountKind::Tmpfs { size, writable } => From::Tmpfs { size: *size, writable: *writable },
            MountKind::Secret { bytes, uid, gid, mode } => {
                let name = format!("secret.{}", self.side.len());
                From::Side { name: self.add_side(name, bytes.to_vec(), (*uid, *gid), *mode) }
            }
            MountKind::SshSocket { host_path, .. } => {
                From::Host { path: host_path.as_os_str().as_bytes().to_vec(), writable: true }
            }
        })
    }

    /// Finds where a mount goes and makes sure that something stands there. Gives the target with links resolved.
    fn place(
        &mut self,
        asked: &[u8],
        directory: bool,
        tree: Option<(usize, Vec<u8>)>,
        placed: &mut Vec<Placed>,
    ) -> Result<Vec<u8>, SandboxError> {
        let over = |at: &[u8], key: fn(&Placed) -> &[u8]| {
            placed
                .iter()
                .filter_map(|p| below(at, key(p)).map(|rest| (p, rest.to_vec())))
                .min_by_key(|(_, rest)| rest.len())
        };
        let found = over(asked, |p| &p.asked);
        let (target, covering) = match found {
            Some((p, rest)) => ([p.target.as_slice(), &rest].concat(), Some((p, rest))),
            None => {
                let root = self.trees.first().ok_or_else(|| SandboxError::Helper("no root".into()))?;
                let mut look = |path: &[u8]| self.looked.add(path, Look::KIND);
                let found = root.resolve_seen(asked, true, Some(&mut look));
                let found = found.map_err(|e| SandboxError::Unsupported(e.to_string()))?;
                let covering = over(&found.path, |p| &p.target);
                (found.path, covering)
            }
        };
        match covering {
            // A stub in a tree that is itself mounted goes into the copy of that tree.
            Some((Placed { tree: Some((index, base)), .. }, rest)) => {
                let at = path::join(base, rest.strip_prefix(b"/").unwrap_or(&rest));
                if let Some(tree) = self.trees.get_mut(*index) {
                    put_stub(tree, &at, directory);
                }
            }
            // In a tmpfs, a cache or a kernel file system the mount point is made when it is mounted.
            Some(_) => {}
            None => {
                if let Some(root) = self.trees.first_mut() {
                    put_stub(root, &target, directory);
                }
            }
        }
        placed.push(Placed { asked: asked.to_vec(), target: target.clone(), tree });
        Ok(target)
    }
}

/// A whole root without any mounts: what would be mounted stands in it.
pub(crate) struct Composite {
    /// The tree to lay out.
    pub(crate) tree: Tree,
    /// Contents of the files in memory.
    pub(crate) side: HashMap<ContentDigest, Arc<[u8]>>,
    /// Paths of this machine, and where they belong.
    pub(crate) hosts: Vec<(Vec<u8>, Vec<u8>)>,
}

impl View {
    /// The root with trees, files in memory and devices in their places.
    pub(crate) fn composite(&self) -> Result<Composite, SandboxError> {
        let mut tree = self.trees.first().cloned().unwrap_or_default();
        let (mut side, mut hosts) = (HashMap::new(), Vec::new());
        tree.put(b"/dev", device_dir(), &stub_meta);
        for empty in ["/proc", "/sys"] {
            tree.put(empty.as_bytes(), stub(true), &stub_meta);
        }
        for point in &self.points {
            let node = match &point.from {
                From::Side { name } => {
                    let file = self.side.iter().find(|f| *f.name == *name.as_bytes());
                    let file = file.ok_or_else(|| SandboxError::Helper("a file in memory is lost".into()))?;
                    let content = ContentDigest::of(&file.bytes);
                    side.insert(content, Arc::from(&*file.bytes));
                    let mut meta = stub_meta();
                    (meta.mode, meta.uid, meta.gid) = (file.mode, file.owner.0, file.owner.1);
                    Node::File(File { meta, size: file.bytes.len() as u64, content, link: None })
                }
                From::Tree { tree, path, .. } => {
                    let node = self.trees.get(*tree).and_then(|t| t.get(path));
                    node.ok_or_else(|| SandboxError::Helper("a mounted tree is lost".into()))?
                }
                From::Tmpfs { .. } => {
                    let mut dir = stub(true);
                    dir.meta_mut().mode = 0o1777;
                    dir
                }
                From::Host { path, .. } => {
                    hosts.push((path.clone(), point.target.clone()));
                    continue;
                }
            };
            tree.put(&point.target, node, &stub_meta);
        }
        Ok(Composite { tree, side, hosts })
    }
}

/// /dev as a plain directory.
fn device_dir() -> Node {
    let mut entries: BTreeMap<Arc<[u8]>, Node> = BTreeMap::new();
    for (name, major, minor) in crate::server::DEVICES {
        let meta = Meta { mode: 0o666, ..stub_meta() };
        let node = Node::Special(Special { meta, kind: SpecialKind::Char, rdev: (major, minor) });
        entries.insert(name.as_bytes().into(), node);
    }
    for (name, target) in crate::server::DEVICE_LINKS {
        let meta = Meta { mode: 0o777, ..stub_meta() };
        entries.insert(name.as_bytes().into(), Node::Symlink(Symlink { meta, target: target.as_bytes().into() }));
    }
    for (name, mode) in [("shm", 0o1777), ("pts", 0o755)] {
        let meta = Meta { mode, ..stub_meta() };
        entries.insert(name.as_bytes().into(), Node::Dir(Arc::new(Dir::new(meta))));
    }
    Node::Dir(Arc::new(Dir::with_entries(stub_meta(), entries)))
}

fn put_stub(tree: &mut Tree, at: &[u8], directory: bool) {
    if tree.get(at).is_none() {
        tree.put(at, stub(directory), &stub_meta);
    }
}

/// /etc/hosts, in BuildKit's words.
fn hosts_file(step: &Step, hostname: &[u8]) -> Vec<u8> {
    let mut out = b"127.0.0.1\tlocalhost ".to_vec();
    out.extend_from_slice(hostname);
    out.extend_from_slice(b"\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for host in &step.extra_hosts {
        out.extend_from_slice(format!("{}\t{}\n", host.ip, host.name).as_bytes());
    }
    out
}

/// The machine's own: a step on the host's network can reach the host's resolver, on no network it needs none.
fn resolv_conf() -> Vec<u8> {
    std::fs::read("/etc/resolv.conf").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Mount;

    fn step(mounts: Vec<(&str, MountKind)>) -> Step {
        let mut step = Step::new(Tree::default(), vec![]);
        step.mounts =
            mounts.into_iter().map(|(target, kind)| Mount { target: target.as_bytes().to_vec(), kind }).collect();
        step
    }

    fn targets(view: &View) -> Vec<String> {
        view.points.iter().map(|p| path::display(&p.target)).collect()
    }

    #[test]
    fn stubs_stand_in_a_copy_and_not_in_the_tree() {
        let step = step(vec![("/a/b/c", MountKind::Tmpfs { size: None, writable: true })]);
        let view = View::of(&step).unwrap();
        assert_eq!(targets(&view), ["/a/b/c", "/etc/hosts", "/etc/resolv.conf"]);
        for at in ["/a/b/c", "/proc", "/sys", "/dev", "/etc/hosts"] {
            assert!(view.trees[0].get(at.as_bytes()).is_some(), "{at}");
        }
        assert_eq!(step.root, Tree::default());
    }

    #[test]
    fn links_in_the_root_are_followed_even_to_nowhere() {
        let mut step = step(vec![("/l/x", MountKind::Tmpfs { size: None, writable: true })]);
        let link = |target: &str| {
            Node::Symlink(memobuild_tree::Symlink { meta: stub_meta(), target: target.as_bytes().into() })
        };
        step.root.put(b"/l", link("real/dir"), &stub_meta);
        step.root.put(b"/etc/resolv.conf", link("../run/resolv"), &stub_meta);
        let view = View::of(&step).unwrap();
        assert_eq!(targets(&view), ["/etc/hosts", "/run/resolv", "/real/dir/x"]);
        assert!(view.trees[0].get(b"/run/resolv").is_some());
    }

    #[test]
    fn mounts_in_mounts_come_after_them_and_get_stubs_where_they_stand() {
        let mut other = Tree::default();
        other.put(b"/sub/f", stub(false), &stub_meta);
        let tree = |path: &str| MountKind::Tree { tree: other.clone(), path: path.into(), writable: false };
        let view = View::of(&step(vec![
            ("/m/in", tree("/sub/f")),
            ("/m", tree("/sub")),
            ("/t/deep", tree("/sub")),
            ("/t", MountKind::Tmpfs { size: None, writable: true }),
        ]))
        .unwrap();
        assert_eq!(targets(&view), ["/etc/hosts", "/etc/resolv.conf", "/m", "/m/in", "/t", "/t/deep"]);
        let From::Tree { tree, .. } = view.points[2].from else { panic!() };
        assert!(matches!(view.trees[tree].get(b"/in"), Some(Node::File(_))));
        assert!(view.trees[0].get(b"/t/deep").is_none());
        assert!(other.get(b"/sub/in").is_none());
    }

    #[test]
    fn a_mount_replaces_a_default_one() {
        let view =
            View::of(&step(vec![("/etc/hosts", MountKind::Host { path: "/".into(), writable: false })])).unwrap();
        assert_eq!(targets(&view), ["/etc/hosts", "/etc/resolv.conf"]);
        assert!(matches!(view.points[0].from, From::Host { .. }));
    }
}
