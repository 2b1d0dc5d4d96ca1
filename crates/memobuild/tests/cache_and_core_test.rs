//! What is kept comes back as it was, equal things have equal digests and others have others, and what a step depends on
//! is in what it goes by.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]

mod library;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt, symlink},
    sync::Arc,
};

use library::{Built, Project};
use memobuild::Store;
use memobuild_plan::model::Network;
use memobuild_tree::{
    Change, ContentDigest, Diff, Dir, File, KeyDigest, KeyHasher, Meta, Mtime, Node, Sha256Digest, Symlink, Tree, codec,
};
use proptest::prelude::*;

fn meta(mode: u32) -> Meta {
    Meta::new(mode, Mtime::ambient(1_500_000_000, 7))
}

fn file(bytes: &[u8], mode: u32) -> Node {
    Node::File(File { meta: meta(mode), size: bytes.len() as u64, content: ContentDigest::of(bytes), link: None })
}

fn link(target: &[u8]) -> Node {
    Node::Symlink(Symlink { meta: meta(0o777), target: target.into() })
}

fn tree(entries: &[(&str, Node)]) -> Tree {
    let mut tree = Tree::default();
    for (at, node) in entries {
        tree.put(at.as_bytes(), node.clone(), &|| meta(0o755));
    }
    tree
}

// Round trips.

fn contents() -> impl Strategy<Value = Vec<Vec<u8>>> {
    // Around the length from which files are blobs of their own, and small ones.
    let limit = usize::try_from(memobuild_store::LARGE_FILE).unwrap();
    let length = prop_oneof![0_usize..200, limit - 2..limit + 3];
    let bytes = (length, any::<u8>()).prop_map(|(length, seed)| {
        (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect::<Vec<u8>>()
    });
    prop::collection::vec(bytes, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Through the store, and through another handle on it, as another process has it.
    #[test]
    fn what_is_kept_comes_back(contents in contents(), modes in prop::collection::vec(0_u32..0o10000, 6)) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let writer = store.bundle_writer();
        let mut diff = Diff::default();
        for (number, bytes) in contents.iter().enumerate() {
            prop_assert_eq!(writer.add_bytes(bytes).unwrap(), ContentDigest::of(bytes));
            diff.set(format!("/d{}/f{number}", number % 2).as_bytes(), Change::Put(file(bytes, modes[number])));
        }
        let id = writer.finish(&diff).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let loaded = store.load_bundle(&id).unwrap().unwrap();
        prop_assert_eq!(&*loaded, &diff);
        for bytes in &contents {
            prop_assert_eq!(&store.content(&ContentDigest::of(bytes)).unwrap().read_all().unwrap(), bytes);
        }
        prop_assert!(store.check().unwrap().is_empty());
        // The same again is the same bundle, and takes no more room.
        let before = store.usage().unwrap().items.len();
        let writer = store.bundle_writer();
        for bytes in &contents {
            writer.add_bytes(bytes).unwrap();
        }
        prop_assert_eq!(writer.finish(&diff).unwrap(), id);
        prop_assert_eq!(store.usage().unwrap().items.len(), before);
    }

    /// A diff says the same after a way through its encoding, and leads from one tree to the other.
    #[test]
    fn diffs_lead_from_one_tree_to_the_other(old in trees(), new in trees()) {
        let diff = Diff::between(&old, &new);
        let encoded = codec::encode(&diff);
        let decoded = codec::decode(&encoded).unwrap();
        prop_assert_eq!(&decoded, &diff);
        prop_assert_eq!(codec::bundle_id(&codec::encode(&decoded)), codec::bundle_id(&encoded));
        let reached = decoded.apply(&old).unwrap();
        prop_assert_eq!(reached.full_digest(), new.full_digest());
        prop_assert_eq!(reached.identity(), new.identity());
        prop_assert_eq!(Diff::between(&new, &reached).is_empty(), true);
        prop_assert_eq!(diff.is_empty(), old.full_digest() == new.full_digest());
    }

    /// In which order a tree was made leaves no trace in it.
    #[test]
    fn the_order_of_making_is_no_matter(entries in entries(), seed in any::<u64>()) {
        let as_given = made_of(&entries);
        // Of one path the last counts: in another order only if there is one of each.
        let mut once: Vec<(String, Node)> = Vec::new();
        for (at, node) in entries.iter().rev() {
            let related = |other: &(String, Node)| {
                let (a, b) = (format!("{at}/"), format!("{}/", other.0));
                a.starts_with(&b) || b.starts_with(&a)
            };
            if !once.iter().any(related) {
                once.push((at.clone(), node.clone()));
            }
        }
        let sorted = made_of(&once);
        let turn = usize::try_from(seed % once.len() as u64).unwrap();
        once.rotate_left(turn);
        prop_assert_eq!(made_of(&once).identity(), sorted.identity());
        prop_assert_eq!(made_of(&once).full_digest(), sorted.full_digest());
        prop_assert_eq!(made_of(&entries).identity(), as_given.identity());
    }
}

fn entries() -> impl Strategy<Value = Vec<(String, Node)>> {
    let path = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|p| format!("/{}", p.join("/")));
    let node = prop_oneof![
        (0_u8..4, prop::sample::select(vec![0o644_u32, 0o755, 0o4755])).prop_map(|(byte, mode)| file(&[byte], mode)),
        (0_u8..3).prop_map(|byte| link(&[b'x', byte + b'0'])),
        prop::sample::select(vec![0o755_u32, 0o700]).prop_map(|mode| Node::Dir(Arc::new(Dir::new(meta(mode))))),
    ];
    prop::collection::vec((path, node), 1..8)
}

fn made_of(entries: &[(String, Node)]) -> Tree {
    tree(&entries.iter().map(|(at, node)| (at.as_str(), node.clone())).collect::<Vec<_>>())
}

fn trees() -> impl Strategy<Value = Tree> {
    entries().prop_map(|entries| made_of(&entries))
}

#[test]
fn records_tags_and_image_blobs_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyHasher::new("a test").bytes(b"key").finish();
    let blob = {
        let store = Store::open(dir.path()).unwrap();
        store.record_put("space", &key, b"value", &[]).unwrap();
        // The first result wins.
        assert!(!store.record_put_new("space", &key, b"other", &[]).unwrap());
        store.tag_set("app:1", b"tagged", &[]).unwrap();
        let mut writer = store.oci_blob_writer().unwrap();
        writer.write_all(b"a layer").unwrap();
        writer.finish(Some(Sha256Digest::of(b"a layer"))).unwrap().0
    };
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.record_get("space", &key).unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(store.record_get("elsewhere", &key).unwrap(), None);
    assert_eq!(store.tag_get("app:1").unwrap().as_deref(), Some(&b"tagged"[..]));
    assert_eq!(fs::read(store.oci_blob_path(&blob).unwrap()).unwrap(), b"a layer");
}

// Digests.

/// Each of these is another tree than each other one.
#[test]
fn whatever_differs_has_another_identity() {
    let with = |node: Node| tree(&[("/d/f", node)]);
    let changed = |change: fn(&mut Meta)| {
        let mut node = file(b"x", 0o644);
        change(node.meta_mut());
        with(node)
    };
    let mut root_mode = with(file(b"x", 0o644));
    root_mode.root_mut().set_meta(meta(0o700));
    let trees = [
        ("nothing", Tree::default()),
        ("a file", with(file(b"x", 0o644))),
        ("its content", with(file(b"y", 0o644))),
        ("its mode", with(file(b"x", 0o600))),
        ("its owner", changed(|meta| meta.uid = 1)),
        ("its group", changed(|meta| meta.gid = 1)),
        ("an attribute", changed(|meta| meta.set_xattr(b"user.a", b"1"))),
        ("an attribute's value", changed(|meta| meta.set_xattr(b"user.a", b"2"))),
        ("an attribute's name", changed(|meta| meta.set_xattr(b"user.b", b"1"))),
        ("a time set on purpose", changed(|meta| meta.mtime = Mtime::pinned(1, 0))),
        ("another time set on purpose", changed(|meta| meta.mtime = Mtime::pinned(1, 1))),
        ("its name", tree(&[("/d/g", file(b"x", 0o644))])),
        ("its place", tree(&[("/f", file(b"x", 0o644))])),
        ("its directory's name", tree(&[("/e/f", file(b"x", 0o644))])),
        ("a link", with(link(b"x"))),
        ("a link's target", with(link(b"y"))),
        ("an empty directory", with(Node::Dir(Arc::new(Dir::new(meta(0o755)))))),
        ("another file beside it", tree(&[("/d/f", file(b"x", 0o644)), ("/d/g", file(b"", 0o644))])),
        ("the root's mode", root_mode),
    ];
    for (n, (what, one)) in trees.iter().enumerate() {
        for (other_what, other) in &trees[n + 1..] {
            assert_ne!(one.identity(), other.identity(), "{what}, {other_what}");
        }
    }
}

/// When something was written is in the image and not in what it goes by.
#[test]
fn times_of_writing_are_no_identity() {
    let at = |secs| {
        let mut node = file(b"x", 0o644);
        node.meta_mut().mtime = Mtime::ambient(secs, 0);
        tree(&[("/d/f", node)])
    };
    assert_eq!(at(1).identity(), at(2).identity());
    assert_ne!(at(1).full_digest(), at(2).full_digest());
}

/// Caches that are there, on this machine and on others, hold what these digests name. Whoever changes how they are made
/// raises the versions in the keys as well.
#[test]
fn digests_are_those_of_earlier_versions() {
    let mut node = file(b"content", 0o644);
    node.meta_mut().mtime = Mtime::pinned(1_600_000_000, 5);
    node.meta_mut().set_xattr(b"user.a", b"1");
    let tree = tree(&[("/etc/a", node), ("/etc/l", link(b"a")), ("/bin/x", file(&[0; 100_000], 0o4755))]);
    let key = KeyHasher::new("a test").bytes(b"bytes").u64(7).value("text").value(&Some(1_u64)).finish();
    insta::assert_snapshot!(format!(
        "content {}\nidentity {}\nfull {}\nbundle {}\nkey {}\n",
        ContentDigest::of(b"content").hex(),
        tree.identity().hex(),
        tree.full_digest().hex(),
        codec::bundle_id(&codec::encode(&Diff::between(&Tree::default(), &tree))).hex(),
        key.hex(),
    ));
}

/// No two lists of values feed a key the same bytes.
#[test]
fn values_of_a_key_do_not_run_into_each_other() {
    let key = |domain: &str, parts: &[&str]| {
        let mut hasher = KeyHasher::new(domain);
        parts.iter().for_each(|part| {
            hasher.value(*part);
        });
        hasher.finish()
    };
    let keys: Vec<KeyDigest> = [
        key("a", &["b", "c"]),
        key("ab", &["c"]),
        key("a", &["bc"]),
        key("a", &["b", "c", ""]),
        key("a", &["", "b", "c"]),
        key("a", &[]),
        key("", &["a"]),
    ]
    .to_vec();
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    assert_eq!(key("a", &["b", "c"]), keys[0]);
}

// What of a context's changes is seen.

const COPIES: &str = "FROM scratch\nCOPY dir /dir\nCOPY one /one\n";

fn copies() -> Project {
    Project::new(COPIES, &[("dir/a", "a"), ("dir/sub/b", "b"), ("one", "1"), ("other", "o")])
}

#[test]
fn changes_of_a_directory_and_what_they_reach() {
    type Edit = fn(&Project);
    let edits: &[(&str, Edit, &[&str])] = &[
        ("a content", |p| p.write("dir/a", "A"), &["COPY dir /dir"]),
        ("a content deep below", |p| p.write("dir/sub/b", "B"), &["COPY dir /dir"]),
        ("a new file", |p| p.write("dir/new", ""), &["COPY dir /dir"]),
        ("a new empty directory", |p| fs::create_dir(p.path("dir/empty")).unwrap(), &["COPY dir /dir"]),
        ("a file that is gone", |p| fs::remove_file(p.path("dir/a")).unwrap(), &["COPY dir /dir"]),
        ("a name", |p| fs::rename(p.path("dir/a"), p.path("dir/z")).unwrap(), &["COPY dir /dir"]),
        (
            "a mode",
            |p| fs::set_permissions(p.path("dir/a"), fs::Permissions::from_mode(0o755)).unwrap(),
            &["COPY dir /dir"],
        ),
        (
            "a link in a file's place",
            |p| {
                fs::remove_file(p.path("dir/a")).unwrap();
                symlink("sub/b", p.path("dir/a")).unwrap();
            },
            &["COPY dir /dir"],
        ),
        ("equal bytes, written again", |p| p.write("dir/a", "a"), &[]),
        (
            "a time",
            |p| {
                let file = fs::File::options().write(true).open(p.path("one")).unwrap();
                file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
            },
            &[],
        ),
        ("what is not copied", |p| p.write("other", "O"), &[]),
        ("the other file", |p| p.write("one", "2"), &["COPY one /one"]),
        (
            "the same content of another length before",
            |p| {
                p.write("one", "longer than it was");
                p.write("one", "1");
            },
            &[],
        ),
    ];
    for (what, edit, reached) in edits {
        let project = copies();
        fs::set_permissions(project.path("dir/a"), fs::Permissions::from_mode(0o644)).unwrap();
        project.build();
        edit(&project);
        let built = project.build();
        assert_eq!(built.executed(), *reached, "{what}");
        assert_eq!(built.cached().len(), 2 - reached.len(), "{what}");
        // What comes out is what a build from nothing gives.
        let tree = project.tree();
        fs::remove_dir_all(project.beside("store")).unwrap();
        assert_eq!(project.tree(), tree, "{what}");
    }
}

/// Back to what was before is back to the result of then.
#[test]
fn an_edit_that_is_taken_back() {
    let project = copies();
    let trees = |built: &Built| built.result.as_ref().unwrap().steps.iter().map(|s| s.identity).collect::<Vec<_>>();
    let first = trees(&project.build());
    project.write("dir/a", "edited");
    assert_ne!(trees(&project.build()), first);
    project.write("dir/a", "a");
    let back = project.build();
    assert_eq!(back.executed(), Vec::<String>::new());
    assert_eq!(trees(&back), first);
}

// Ignore rules.

#[test]
fn what_is_ignored_is_neither_copied_nor_seen() {
    let project = Project::new(
        "FROM scratch\nCOPY . /all\n",
        &[
            (
                ".dockerignore",
                "# a comment\n*.log\n!keep.log\nnode_modules\n**/deep/*.tmp\n.dockerignore\nDockerfile\n",
            ),
            ("a.log", "1"),
            ("keep.log", "1"),
            ("src/a.log", "1"),
            ("src/deep/x.tmp", "1"),
            ("src/deep/x.txt", "1"),
            ("node_modules/m/index.js", "1"),
        ],
    );
    let names: Vec<String> = project.tree().into_keys().collect();
    // A pattern without a slash in front is of the top, as docker has it.
    let expected = ["all", "all/keep.log", "all/src", "all/src/a.log", "all/src/deep", "all/src/deep/x.txt"];
    assert_eq!(names, expected);
    for (edited, reached) in [
        ("a.log", false),
        ("new.log", false),
        ("node_modules/m/index.js", false),
        ("node_modules/n/new", false),
        ("src/deep/x.tmp", false),
        ("keep.log", true),
        ("src/a.log", true),
        ("src/deep/new.txt", true),
    ] {
        project.write(edited, "edited");
        assert_eq!(!project.build().executed().is_empty(), reached, "{edited}");
    }
    // Other rules of the same effect; then one that lets a file in.
    project.write(".dockerignore", "*.log\n!keep.log\n\n/node_modules/\n**/deep/*.tmp\nDockerfile\n.dockerignore\n");
    assert_eq!(project.build().executed(), Vec::<String>::new());
    project
        .write(".dockerignore", "*.log\n!keep.log\n!a.log\n/node_modules/\n**/deep/*.tmp\nDockerfile\n.dockerignore\n");
    assert_eq!(project.build().executed(), ["COPY . /all"]);
    assert!(project.tree().contains_key("all/a.log"));
}

#[test]
fn a_dockerfiles_own_rules_stand_in_the_place_of_the_contexts() {
    let mut project = Project::new("", &[(".dockerignore", "a\n"), ("a", "1"), ("b", "1")]);
    project.write("my.Dockerfile", "FROM scratch\nCOPY [ab] /\n");
    project.request.dockerfile = memobuild::DockerfileInput::Path(project.path("my.Dockerfile"));
    assert_eq!(project.tree().into_keys().collect::<Vec<_>>(), ["b"]);
    project.write("my.Dockerfile.dockerignore", "b\n");
    assert_eq!(project.tree().into_keys().collect::<Vec<_>>(), ["a"]);
}

// What a step goes by.

/// What a RUN goes by, whatever it works on: told by a look ahead, which runs nothing.
fn definition(project: &Project) -> KeyDigest {
    let ahead = project.foresee();
    let steps = &ahead.result.as_ref().unwrap().steps;
    let runs: Vec<_> = steps.iter().filter(|step| step.kind == "run").collect();
    assert_eq!(runs.len(), 1, "{steps:?}");
    runs[0].definition.expect("it is looked for")
}

const RUNS: &str = "FROM scratch\nARG USED=1\nARG UNUSED=1\nENV A=1\nWORKDIR /w\nUSER 7\nRUN make all\n";

/// Each of these makes another step of it, and each another one.
#[test]
fn the_environment_of_a_step_is_in_its_key() {
    let plain = Project::new(RUNS, &[]);
    let mut keys = vec![("as it is", definition(&plain))];
    for (what, old, new) in [
        ("a value of ENV", "ENV A=1", "ENV A=2"),
        ("a name of ENV", "ENV A=1", "ENV B=1"),
        ("one more ENV", "ENV A=1", "ENV A=1 B=2"),
        ("a value of ARG", "ARG USED=1", "ARG USED=2"),
        ("the working directory", "WORKDIR /w", "WORKDIR /x"),
        ("the user", "USER 7", "USER 8"),
        ("the group", "USER 7", "USER 7:9"),
        ("the command", "RUN make all", "RUN make  all"),
        ("the exec form", "RUN make all", "RUN [\"make\", \"all\"]"),
        ("the shell", "RUN make all", "SHELL [\"/bin/bash\", \"-c\"]\nRUN make all"),
        ("a mount", "RUN make all", "RUN --mount=type=tmpfs,target=/t make all"),
        ("a mount's target", "RUN make all", "RUN --mount=type=tmpfs,target=/u make all"),
        ("a cache mount", "RUN make all", "RUN --mount=type=cache,target=/t make all"),
        ("a cache mount's id", "RUN make all", "RUN --mount=type=cache,id=x,target=/t make all"),
        ("a secret", "RUN make all", "RUN --mount=type=secret,id=s make all"),
        ("no network", "RUN make all", "RUN --network=none make all"),
        ("a heredoc", "RUN make all", "RUN <<EOF\nmake all\nEOF"),
    ] {
        let project = Project::new(RUNS, &[]);
        project.replace(old, new);
        keys.push((what, definition(&project)));
    }
    type Option = fn(&mut Project);
    let options: &[(&str, Option)] = &[
        ("a build argument", |p| drop(p.request.options.build_args.insert("USED".into(), "3".into()))),
        ("the platform", |p| p.request.options.platforms = vec!["linux/s390x".parse().unwrap()]),
        ("another platform", |p| p.request.options.platforms = vec!["linux/riscv64".parse().unwrap()]),
        ("a host's name", |p| p.request.options.hosts = vec![("db".into(), "10.0.0.1".into())]),
        ("a host's address", |p| p.request.options.hosts = vec![("db".into(), "10.0.0.2".into())]),
        ("the size of /dev/shm", |p| p.request.options.shm_size = Some(1 << 20)),
        ("a limit", |p| p.request.options.ulimits = vec![("nofile".into(), 100, 100)]),
        ("the times of --reproducible", |p| p.request.reproducible = true),
    ];
    for (what, option) in options {
        let mut project = Project::new(RUNS, &[]);
        option(&mut project);
        keys.push((what, definition(&project)));
    }
    for (n, (what, key)) in keys.iter().enumerate() {
        for (other_what, other) in &keys[n + 1..] {
            assert_ne!(key, other, "{what}, {other_what}");
        }
    }
}

/// None of these makes another step of it.
#[test]
fn what_a_step_does_not_see_is_not_in_its_key() {
    let expected = definition(&Project::new(RUNS, &[]));
    for (old, new) in [
        ("RUN make all\n", "RUN make all\nLABEL a=b\nCMD [\"x\"]\nEXPOSE 80\nSTOPSIGNAL 9\n"),
        ("FROM scratch\n", "# a comment\nFROM scratch AS named\nLABEL a=b\n"),
        ("ENV A=1", "ENV A=\"1\""),
        ("RUN make all", "RUN --network=default make all"),
    ] {
        let project = Project::new(RUNS, &[]);
        project.replace(old, new);
        assert_eq!(definition(&project), expected, "{new}");
    }
    let mut project = Project::new(RUNS, &[("file", "x")]);
    let options = &mut project.request.options;
    // Where the network is reached by, and what nobody declares.
    options.build_args.insert("HTTP_PROXY".into(), "http://proxy.example:3128".into());
    options.labels.insert("a".into(), "b".into());
    options.network = Network::Host;
    options.target = None;
    assert_eq!(definition(&project), expected);
}

/// A secret's value is not in any key, and whether a step may see it is.
#[test]
fn secrets_are_known_by_name() {
    let with = |value: &str| {
        let mut project = Project::new(RUNS, &[]);
        project.replace("RUN make", "RUN --mount=type=secret,id=s make");
        fs::write(project.beside("secret"), value).unwrap();
        project.request.secrets.insert("s".into(), memobuild::SecretSource::File(project.beside("secret")));
        definition(&project)
    };
    assert_eq!(with("one"), with("two"));
    assert_ne!(with("one"), definition(&Project::new(RUNS, &[])));
}

/// What stands above a step is in what it goes by as a whole, and not in what it is.
#[test]
fn what_it_works_on_makes_another_result_of_the_same_step() {
    let of = |text: &str| {
        let project = Project::new("FROM scratch\nCOPY a /a\nRUN make\n", &[("a", text)]);
        let ahead = project.foresee();
        let report = ahead.report("RUN make");
        (report.definition.unwrap(), report.exact.unwrap())
    };
    let (one, other, again) = (of("1"), of("2"), of("1"));
    assert_eq!(one, again);
    assert_eq!(one.0, other.0);
    assert_ne!(one.1, other.1);
}

/// A chain of steps, each standing on the one before: what comes of them parts at the first that was reached.
#[test]
fn trees_part_where_an_edit_reaches_them() {
    let chain = "FROM scratch\nCOPY a /a\nCOPY b /b\nCOPY c /c\nCOPY d /d\n";
    let project = Project::new(chain, &[("a", "a"), ("b", "b"), ("c", "c"), ("d", "d")]);
    let trees = |built: &Built| -> Vec<_> {
        let steps = &built.result.as_ref().unwrap().steps;
        steps.iter().filter(|step| step.kind == "copy").map(|step| step.identity).collect()
    };
    let before = trees(&project.build());
    project.write("b", "edited");
    let after = trees(&project.build());
    let same: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before == after).collect();
    assert_eq!(same, [true, false, false, false]);
    project.write("b", "b");
    assert_eq!(trees(&project.build()), before);
}
