//! Owners: real ones, and recorded ones where only one id is mapped.

use memobuild_sandbox::{ModeChoice, Mount, MountKind, OwnershipClass, User};
use memobuild_tree::{Node, Special, SpecialKind, Tree};

use crate::{
    basics::Test,
    support::{World, meta},
};

/// Where ids are real.
pub const TRUE: &[(&str, Test)] = &[
    ("owners_are_kept", owners_are_kept),
    ("chown_takes_set_id_bits_away", chown_takes_set_id_bits_away),
    ("users_are_real", users_are_real),
    ("big_ids", big_ids),
    ("devices_can_be_made", devices_can_be_made),
    ("a_cache_has_its_owner", a_cache_has_its_owner),
];

fn a_cache_has_its_owner(mode: ModeChoice) {
    let world = World::new(mode);
    let cache = world.dir.path().join("cache");
    let mut tree = Tree::default();
    tree.root_mut().set_meta(memobuild_tree::Meta { uid: 7, gid: 8, ..meta(0o750) });
    tree.put(b"/seed", world.file(b"seed\n", 0o600), &|| meta(0o755));
    world.sandbox.lay_out(&cache, &tree, &*world.store).unwrap();
    let mut step =
        world.shell(&world.base, "stat -c '%a %u:%g' /c; cat /c/seed; mkdir -m 0 /c/closed; chown 3:3 /c/closed");
    step.mounts = vec![Mount { target: b"/c".to_vec(), kind: MountKind::Host { path: cache.clone(), writable: true } }];
    assert_eq!(world.run(&step).1, "750 7:8\nseed\n");
    world.sandbox.remove(&cache).unwrap();
    assert!(!cache.exists());
}

/// With one mapped id.
pub const SINGLE: &[(&str, Test)] = &[
    ("owners_are_kept", owners_are_kept),
    ("chown_takes_set_id_bits_away", chown_takes_set_id_bits_away),
    ("big_ids", big_ids),
    ("devices_can_be_made", devices_can_be_made),
    ("lower_owners_survive", lower_owners_survive),
    ("users_are_played", users_are_played),
    ("rights_are_dropped_for_good", rights_are_dropped_for_good),
];

fn owner(tree: &memobuild_tree::Tree, at: &str) -> (u32, u32) {
    let node = tree.get(at.as_bytes()).unwrap_or_else(|| panic!("{at} is not there"));
    (node.meta().uid, node.meta().gid)
}

fn owners_are_kept(mode: ModeChoice) {
    let world = World::new(mode);
    let script = "touch /f; mkdir -p /d/e; ln -s f /l; mkfifo /p; cd /d; touch in
        chown 7:8 /f; chown -R 9 /d; chown 9:3 e; chown -h 5:6 /l; chown 4:4 /p; chown 11 ../d/in; mv /f /moved";
    let (tree, _) = world.sh(&world.base, script);
    assert_eq!(owner(&tree, "/moved"), (7, 8));
    assert_eq!((owner(&tree, "/d"), owner(&tree, "/d/e"), owner(&tree, "/d/in")), ((9, 0), (9, 3), (11, 0)));
    assert_eq!((owner(&tree, "/l"), owner(&tree, "/p")), ((5, 6), (4, 4)));
    assert_eq!(owner(&tree, "/"), (0, 0));
    // A changed mode or content leaves the owner.
    let (after, _) = world.sh(&tree, "chmod 600 /moved; echo x >> /d/in; touch /d/e/new; chown 7:2 /moved");
    assert_eq!((owner(&after, "/moved"), owner(&after, "/d/in"), owner(&after, "/d/e")), ((7, 2), (11, 0), (9, 3)));
    assert_eq!(owner(&after, "/d/e/new"), (0, 0));
    let (after, _) = world.sh(&tree, "chown -h 3:2 /bin/vi");
    assert_eq!(owner(&after, "/bin/vi"), (3, 2));
    let (after, _) = world
        .sh(&after, "chown -h 4 /bin/vi /l; mkdir /g; chown 0:77 /g; chmod 2775 /g; mkdir /g/d; touch /g/f /g/d/f");
    assert_eq!((owner(&after, "/bin/vi").0, owner(&after, "/l").0), (4, 4));
    assert_eq!((owner(&after, "/g/f"), owner(&after, "/g/d")), ((0, 77), (0, 77)));
    let (after, _) = world.sh(&tree, "chown 0:0 /moved; chown 12:13 /");
    assert_eq!((owner(&after, "/moved"), owner(&after, "/")), ((0, 0), (12, 13)));
}

fn chown_takes_set_id_bits_away(mode: ModeChoice) {
    let world = World::new(mode);
    let (tree, _) = world.sh(&world.base, "touch /f; chmod 4755 /f");
    let (after, _) = world.sh(&tree, "chown 3:3 /f");
    assert_eq!((after.get(b"/f").unwrap().meta().mode, owner(&after, "/f")), (0o755, (3, 3)));
}

fn users_are_real(mode: ModeChoice) {
    let world = World::new(mode);
    assert_eq!(world.sandbox.mode().unwrap().ownership, OwnershipClass::True);
    let (base, _) =
        world.sh(&world.base, "mkdir /home/u; chown 1000:1000 /home/u; echo s > /root/s; chmod 600 /root/s");
    let mut step = world.shell(&base, "id -u; id -g; id -G; cat /root/s 2>/dev/null || echo no; touch /home/u/f; touch /x 2>/dev/null || echo ro; grep CapEff /proc/self/status");
    step.user = User { uid: 1000, gid: 1000, groups: vec![1000, 27] };
    let (outcome, out) = world.run(&step);
    assert_eq!(out, "1000\n1000\n1000 27\nno\nro\nCapEff:\t0000000000000000\n");
    assert_eq!(owner(&outcome.diff.apply(&base).unwrap(), "/home/u/f"), (1000, 1000));
    // Set-uid programs work.
    let script = "cp /bin/busybox /bin/busybox-suid; chmod 4755 /bin/busybox-suid; mkdir /home/v; chmod 700 /home/v";
    let (base, _) = world.sh(&base, script);
    step.root = base;
    step.argv = ["/bin/busybox-suid", "su", "-c", "id -u"].map(|a| a.as_bytes().to_vec()).to_vec();
    let passwd = world.file(b"root::0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n", 0o644);
    step.root.put(b"/etc/passwd", passwd, &|| meta(0o755));
    assert_eq!(world.run(&step).1, "0\n");
}

fn big_ids(mode: ModeChoice) {
    let world = World::new(mode);
    let (tree, _) = world.sh(&world.base, "touch /a /b; chown 2000000000:3000000000 /a; chown 65536:2097152 /b");
    assert_eq!((owner(&tree, "/a"), owner(&tree, "/b")), ((2_000_000_000, 3_000_000_000), (65536, 2_097_152)));
    let (after, _) = world.sh(&tree, "chmod 600 /a; echo x > /b");
    assert_eq!((owner(&after, "/a"), owner(&after, "/b")), ((2_000_000_000, 3_000_000_000), (65536, 2_097_152)));
}

fn devices_can_be_made(mode: ModeChoice) {
    let world = World::new(mode);
    let (tree, _) =
        world.sh(&world.base, "mkdir /n; cd /n; mknod -m 640 c c 1 3; mknod ../b b 259 70000; chown 0:6 /b");
    let special = |at: &str| match tree.get(at.as_bytes()) {
        Some(Node::Special(Special { kind, rdev, meta })) => (kind, rdev, meta.mode, meta.gid),
        other => panic!("{at}: {other:?}"),
    };
    assert_eq!(special("/n/c"), (SpecialKind::Char, (1, 3), 0o640, 0));
    assert_eq!(special("/b"), (SpecialKind::Block, (259, 70000), 0o644, 6));
    let (after, _) = world.sh(&tree, "rm /n/c");
    assert!(matches!(after.get(b"/b"), Some(Node::Special(_))) && after.get(b"/n/c").is_none());
}

fn lower_owners_survive(mode: ModeChoice) {
    let world = World::new(mode);
    assert_eq!(world.sandbox.mode().unwrap().ownership, OwnershipClass::Single);
    let mut base = world.base.clone();
    let mut file = world.file(b"theirs\n", 0o600);
    (file.meta_mut().uid, file.meta_mut().gid) = (33, 34);
    base.put(b"/srv/f", file, &|| meta(0o755));
    base.root_mut().set_meta(memobuild_tree::Meta { uid: 44, ..meta(0o755) });
    let (after, out) = world.sh(&base, "cat /srv/f; stat -c %u /srv/f; mv /srv/f /srv/g; echo x >> /srv/g; touch /new");
    assert_eq!(out, "theirs\n0\n");
    assert_eq!((owner(&after, "/srv/g"), owner(&after, "/"), owner(&after, "/new")), ((33, 34), (44, 0), (0, 0)));
    // A new file in an old one's place is not the old one.
    let (after, _) = world.sh(&base, "cp /srv/f /srv/h; mv /srv/h /srv/f");
    assert_eq!(owner(&after, "/srv/f"), (0, 0));
}

fn users_are_played(mode: ModeChoice) {
    let world = World::new(mode);
    let mut step = world.shell(&world.base, "id -u; id -g; id -G; touch /tmp/f; chown 0 /tmp/f 2>/dev/null || echo no");
    step.user = User { uid: 1000, gid: 1000, groups: vec![1000, 27] };
    let (outcome, out) = world.run(&step);
    assert_eq!(out, "1000\n1000\n1000 27\nno\n");
    // What it makes is the user's.
    assert_eq!(owner(&outcome.diff.apply(&world.base).unwrap(), "/tmp/f"), (1000, 1000));
    // Set-user-ID programs make their owner of who runs them.
    let (base, _) = world.sh(&world.base, "cp /bin/busybox /bin/busybox-suid; chmod 4755 /bin/busybox-suid");
    step.root = base;
    let passwd = world.file(b"root::0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n", 0o644);
    step.root.put(b"/etc/passwd", passwd, &|| meta(0o755));
    step.argv = ["/bin/busybox-suid", "su", "-c", "id -u; id -g"].map(|a| a.as_bytes().to_vec()).to_vec();
    assert_eq!(world.run(&step).1, "0\n0\n");
}

fn rights_are_dropped_for_good(mode: ModeChoice) {
    let world = World::new(mode);
    let mut base = world.base.clone();
    let passwd = world.file(b"root::0:0:root:/root:/bin/sh\nu:x:7:8::/:/bin/sh\n", 0o644);
    base.put(b"/etc/passwd", passwd, &|| meta(0o755));
    base.put(b"/etc/group", world.file(b"g:x:8:\nmore:x:9:u\n", 0o644), &|| meta(0o755));
    // The child of one that dropped its rights has none either, nor has what it executes; the parent keeps its own.
    let script = "su u -c 'id -u; id -g; id -G; (id -u); chown 0 /tmp 2>/dev/null || echo no; su root -c id 2>/dev/null || echo nor that'; id -u; su u -c 'exec id -u'";
    assert_eq!(world.sh(&base, script).1, "7\n8\n8 9\n7\nno\nnor that\n0\n7\n");
}
