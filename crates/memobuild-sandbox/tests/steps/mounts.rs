//! Mounts and what stays of them.

use std::{os::unix::fs::MetadataExt, sync::Arc};

use memobuild_sandbox::{ModeChoice, Mount, MountKind, Step};
use memobuild_tree::{Dir, Node, Tree};

use crate::{
    basics::Test,
    support::{World, listing, meta},
};

pub const TESTS: &[(&str, Test)] = &[
    ("stubs_leave_nothing", stubs_leave_nothing),
    ("what_is_written_around_a_stub_stays", what_is_written_around_a_stub_stays),
    ("scratch_root", scratch_root),
    ("nested", nested),
    ("trees", trees),
    ("writes_to_a_writable_tree_are_discarded", writes_to_a_writable_tree_are_discarded),
    ("caches_keep", caches_keep),
    ("secrets", secrets),
    ("hosts_and_resolv_conf", hosts_and_resolv_conf),
    ("targets_through_links", targets_through_links),
];

pub const CONFINED: &[(&str, Test)] = &[("tmpfs_has_its_size_and_mode", tmpfs_has_its_size_and_mode)];

fn with(mut step: Step, mounts: Vec<(&str, MountKind)>) -> Step {
    step.mounts = mounts.into_iter().map(|(target, kind)| Mount { target: target.as_bytes().to_vec(), kind }).collect();
    step
}

const TMPFS: MountKind = MountKind::Tmpfs { size: None, writable: true };

fn context(world: &World) -> Tree {
    let mut tree = Tree::default();
    let parent = || meta(0o755);
    tree.put(b"/top.txt", world.file(b"t\n", 0o644), &parent);
    tree.put(b"/d/a.txt", world.file(b"a\n", 0o600), &parent);
    tree.put(b"/d/sub", Node::Dir(Arc::new(Dir::new(meta(0o750)))), &parent);
    tree
}

fn tree(tree: &Tree, path: &str, writable: bool) -> MountKind {
    MountKind::Tree { tree: tree.clone(), path: path.as_bytes().to_vec(), writable }
}

fn secret(bytes: &[u8]) -> MountKind {
    MountKind::Secret { bytes: bytes.into(), uid: 0, gid: 0, mode: 0o400 }
}

fn stubs_leave_nothing(mode: ModeChoice) {
    let world = World::new(mode);
    let context = context(&world);
    let cache = world.dir.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    let mounts = vec![
        ("/stub/deep/dir", TMPFS),
        ("/stub2", tree(&context, "/top.txt", false)),
        ("/stub3", MountKind::Host { path: cache.clone(), writable: true }),
        ("/run/secrets/s", secret(b"x")),
    ];
    let step = with(world.shell(&world.base, "ls -d /stub/deep/dir /stub2 /stub3 /run/secrets/s"), mounts);
    let (outcome, out) = world.run(&step);
    assert_eq!(out.lines().count(), 4);
    assert_eq!(listing(&outcome), Vec::<String>::new());
}

fn what_is_written_around_a_stub_stays(mode: ModeChoice) {
    let world = World::new(mode);
    let step = with(world.shell(&world.base, "echo x > /a/b/beside; echo y > /a/b/c/in"), vec![("/a/b/c", TMPFS)]);
    let (outcome, _) = world.run(&step);
    assert_eq!(listing(&outcome), ["~/a", "~/a/b", "+/a/b/beside"]);
    let tree = outcome.diff.apply(&world.base).unwrap();
    let dir = tree.get(b"/a/b").unwrap();
    assert_eq!((dir.meta().mode, dir.meta().mtime.pinned), (0o755, false));
}

fn scratch_root(mode: ModeChoice) {
    let world = World::new(mode);
    let mut base = Tree::default();
    base.put(b"/bin/sh", world.base.get(b"/bin/busybox").unwrap(), &|| meta(0o755));
    assert_eq!(world.changes(&base, "echo hi > /o"), ["~/", "+/o"]);
    let (tree, _) = world.sh(&base, "echo 1 > /etc/new; echo > /dev/null");
    assert_eq!(tree.dir(b"/etc").unwrap().entries().len(), 1);
    assert!(tree.get(b"/proc").is_none() && tree.get(b"/dev").is_none());
}

fn nested(mode: ModeChoice) {
    let world = World::new(mode);
    let context = context(&world);
    let mounts = vec![("/m/ctx", tree(&context, "/d", false)), ("/m", TMPFS)];
    let (outcome, out) = world.run(&with(world.shell(&world.base, "ls /m /m/ctx"), mounts));
    assert_eq!(out, "/m:\nctx\n\n/m/ctx:\na.txt\nsub\n");
    assert_eq!(listing(&outcome), Vec::<String>::new());
    let mounts = vec![("/m", tree(&context, "/", false)), ("/m/d/new/deep", TMPFS), ("/m/d/sub", secret(b"no"))];
    let mounts = mounts.into_iter().take(2).collect();
    let (_, out) =
        world.run(&with(world.shell(&world.base, "ls /m/d; echo x > /m/d/new/deep/f; cat /m/d/new/deep/f"), mounts));
    assert_eq!(out, "a.txt\nnew\nsub\nx\n");
}

fn trees(mode: ModeChoice) {
    let world = World::new(mode);
    let context = context(&world);
    let mounts = vec![
        ("/m", tree(&context, "/", false)),
        ("/f", tree(&context, "/top.txt", false)),
        ("/bb", tree(&world.base, "/bin", false)),
    ];
    let script = "cat /m/top.txt /f /m/d/a.txt; stat -c %a /m/d/sub; /bb/busybox echo run; echo no 2>/dev/null > /m/new || echo ro; cp /m/top.txt /o";
    let (outcome, out) = world.run(&with(world.shell(&world.base, script), mounts));
    if mode == ModeChoice::Chroot {
        // No mount protects it there; what is written is thrown away.
        assert!(out.starts_with("t\nt\na\n750\nrun\n"), "{out}");
    } else {
        assert_eq!(out, "t\nt\na\n750\nrun\nro\n");
    }
    assert_eq!(listing(&outcome), ["~/", "+/o"]);
    // A file of the context keeps its time when it is copied with it, and that time is content.
    let script = "cp -p /m/top.txt /o";
    let (outcome, _) = world.run(&with(world.shell(&world.base, script), vec![("/m", tree(&context, "/", false))]));
    let tree = outcome.diff.apply(&world.base).unwrap();
    assert!(tree.get(b"/o").unwrap().meta().mtime.pinned);
}

fn writes_to_a_writable_tree_are_discarded(mode: ModeChoice) {
    let world = World::new(mode);
    let context = context(&world);
    let step =
        |script: &str, path: &str| with(world.shell(&world.base, script), vec![("/m", tree(&context, path, true))]);
    let (outcome, _) = world.run(&step("echo new > /m/new && cat /m/new > /o && rm /m/top.txt && ls /m >> /o", "/"));
    let after = outcome.diff.apply(&world.base).unwrap();
    assert_eq!(world.text(&after, "/o"), "new\nd\nnew\n");
    assert_eq!(listing(&outcome), ["~/", "+/o"]);
    assert_eq!(world.run(&step("ls /m; echo x >> /m/a.txt; cat /m/a.txt", "/d")).1, "a.txt\nsub\na\nx\n");
    assert_eq!(world.run(&step("echo x >> /m; cat /m", "/top.txt")).1, "t\nx\n");
}

fn caches_keep(mode: ModeChoice) {
    let world = World::new(mode);
    let cache = world.dir.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    let mount = |writable| vec![("/root/.cache", MountKind::Host { path: cache.clone(), writable })];
    let (outcome, _) =
        world.run(&with(world.shell(&world.base, "mkdir /root/.cache/d; echo kept > /root/.cache/d/f"), mount(true)));
    assert_eq!(listing(&outcome), Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(cache.join("d/f")).unwrap(), "kept\n");
    let (_, out) = world.run(&with(
        world.shell(&world.base, "cat /root/.cache/d/f; touch /root/.cache/no 2>/dev/null || echo ro"),
        mount(false),
    ));
    if mode != ModeChoice::Chroot {
        assert_eq!(out, "kept\nro\n");
    }
    assert!(out.starts_with("kept\n"));
    assert_eq!(std::fs::metadata(cache.join("d")).unwrap().mode() & 0o777, 0o755);
}

fn secrets(mode: ModeChoice) {
    let world = World::new(mode);
    let script = "cat /run/secrets/tok > /o; stat -c '%a %u:%g' /run/secrets/tok > /s";
    let (outcome, _) =
        world.run(&with(world.shell(&world.base, script), vec![("/run/secrets/tok", secret(b"s3cret\n"))]));
    let tree = outcome.diff.apply(&world.base).unwrap();
    assert_eq!((world.text(&tree, "/o"), world.text(&tree, "/s")), ("s3cret\n".into(), "400 0:0\n".into()));
    assert!(tree.get(b"/run").is_none());
    assert!(!format!("{:?}", secret(b"s3cret")).contains("s3cret"));
}

fn hosts_and_resolv_conf(mode: ModeChoice) {
    let world = World::new(mode);
    let (outcome, out) = world.run(
        &world.shell(&world.base, "grep -c '127.0.0.1.*localhost' /etc/hosts; cat /etc/resolv.conf; echo n > /etc/n"),
    );
    assert_eq!(out, format!("1\n{}", std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()));
    assert_eq!(listing(&outcome), ["~/etc", "+/etc/n"]);
    // An image's own are hidden for the time of a step, and stay.
    let mut base = world.base.clone();
    base.put(b"/etc/hosts", world.file(b"own\n", 0o644), &|| meta(0o755));
    let (outcome, out) = world.run(&world.shell(&base, "grep -c own /etc/hosts; true"));
    assert_eq!((out.as_str(), listing(&outcome).len()), ("0\n", 0));
}

fn targets_through_links(mode: ModeChoice) {
    let world = World::new(mode);
    let (mut base, _) = world.sh(&world.base, "mkdir /real; ln -s /real /link; ln -s ../run/gone /nowhere");
    let dangling = base.get(b"/nowhere").unwrap();
    base.put(b"/etc/resolv.conf", dangling, &|| meta(0o755));
    let (outcome, out) = world.run(&with(world.shell(&base, "ls /real; wc -l < /etc/hosts"), vec![("/link/x", TMPFS)]));
    assert_eq!(out, "x\n2\n");
    assert_eq!(listing(&outcome), Vec::<String>::new());
}

fn tmpfs_has_its_size_and_mode(mode: ModeChoice) {
    let world = World::new(mode);
    let script =
        "stat -c '%a %u:%g' /t; dd if=/dev/zero of=/t/f bs=1k count=2000 2>/dev/null && echo big || echo limited";
    let step =
        with(world.shell(&world.base, script), vec![("/t", MountKind::Tmpfs { size: Some(1 << 20), writable: true })]);
    assert_eq!(world.run(&step).1, "1777 0:0\nlimited\n");
    let script = "touch /t/f 2>/dev/null || stat -c %a /t";
    let step = with(world.shell(&world.base, script), vec![("/t", MountKind::Tmpfs { size: None, writable: false })]);
    assert_eq!(world.run(&step).1, "1777\n");
}
