//! The check: each kind of damage is found and repaired, and nothing is found where nothing is wrong, however busy the
//! store is. And the removal of what dead processes left.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use common::{child, diff, key, large, store, var};
use memobuild_store::{
    GcOptions, Ref, Remnant, Store, StoreError,
    fsck::{Kind, Options, Outcome, Progress, Report},
    scan::{Everything, scan},
};
use memobuild_tree::{BundleId, ContentDigest, Sha256Digest};

fn commit(store: &Store, contents: &[&[u8]]) -> BundleId {
    let writer = store.bundle_writer();
    contents.iter().for_each(|bytes| assert!(writer.add_bytes(bytes).is_ok()));
    writer.finish(&diff(contents)).unwrap()
}

fn check(store: &Store) -> Report {
    store.fsck(&Options::default(), &Progress::default()).unwrap()
}

fn repair(store: &Store) -> Report {
    store.fsck(&Options { repair: true, ..Options::default() }, &Progress::default()).unwrap()
}

/// Kinds and places of what is found.
fn found(store: &Store) -> Vec<(Kind, String)> {
    let report = check(store);
    assert!(report.findings.iter().all(|finding| finding.outcome == Outcome::Found));
    assert_eq!(report.is_clean(), report.findings.is_empty());
    report.findings.into_iter().map(|finding| (finding.kind, finding.at)).collect()
}

fn sql(store: &Store) -> rusqlite::Connection {
    rusqlite::Connection::open(store.dir().join("index.sqlite")).unwrap()
}

/// Writes over a file by another one, as the store's own are not to be written to.
fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    how(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn age(path: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 86_400 + 60);
    fs::File::open(path).unwrap().set_modified(then).unwrap();
}

/// A store with one of everything. `shared` lies in the lower bundle, which the upper one refers to.
struct Full {
    dir: tempfile::TempDir,
    lower: BundleId,
    upper: BundleId,
    blob: ContentDigest,
    layer: Sha256Digest,
}

impl Full {
    fn new() -> Self {
        let (dir, store) = store();
        let big = large(1);
        let lower = commit(&store, &[b"shared", b"lower"]);
        let upper = commit(&store, &[b"shared", b"upper", &big]);
        let layer = store.oci_blob_put(b"layer").unwrap();
        store.record_put("a", &key("lower"), b"v", &[Ref::Bundle(lower)]).unwrap();
        store.record_put("a", &key("upper"), b"v", &[Ref::Bundle(upper)]).unwrap();
        store.record_put("a", &key("alone"), b"v", &[]).unwrap();
        store.tag_set("image", b"v", &[Ref::Bundle(lower), Ref::Oci(layer)]).unwrap();
        store.cache_mount(&key("m"), true).unwrap();
        drop(store.partial(&Sha256Digest::of(b"to come")).unwrap());
        let context = tempfile::tempdir().unwrap();
        fs::write(context.path().join("f"), "f").unwrap();
        scan(context.path(), &Everything, Some((&store, "c"))).unwrap();
        Self { dir, lower, upper, blob: ContentDigest::of(&big), layer }
    }

    /// A process of its own, which knows nothing yet.
    fn store(&self) -> Store {
        Store::open(self.dir.path()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn bundle(&self, id: &BundleId) -> PathBuf {
        self.path(&format!("bundles/{}", id.hex()))
    }

    fn blob(&self) -> PathBuf {
        self.path(&format!("blobs/{}", Store::blob_rel_path(&self.blob)))
    }

    fn layer(&self) -> PathBuf {
        self.path(&format!("oci/sha256/{}", self.layer.hex()))
    }

    fn context(&self) -> PathBuf {
        fs::read_dir(self.path("contexts")).unwrap().next().unwrap().unwrap().path()
    }

    /// These are found, whoever looks how often; a repair leaves nothing to be found. Gives what it did.
    #[track_caller]
    fn finds(&self, expected: &[(Kind, &str)]) -> Report {
        let expected: Vec<_> = expected.iter().map(|(kind, at)| (*kind, (*at).to_owned())).collect();
        for _ in 0..2 {
            assert_eq!(found(&self.store()), expected);
        }
        let report = repair(&self.store());
        assert!(report.is_clean(), "{report:?}");
        for (kind, at) in expected {
            assert!(report.findings.iter().any(|finding| finding.kind == kind && finding.at == at), "{report:?}");
        }
        assert_eq!(found(&self.store()), []);
        report
    }
}

fn record(name: &str) -> String {
    format!("record a/{}", &key(name).hex()[..12])
}

#[test]
fn a_store_with_one_of_everything_is_clean() {
    let full = Full::new();
    let progress = Progress::default();
    let report = full.store().fsck(&Options::default(), &progress).unwrap();
    assert_eq!(report.findings, []);
    // Two bundles, a large file, an image blob and a stat cache; three records and a name.
    assert_eq!((report.files, report.rows), (5, 4));
    assert!(report.bytes > 200_000 && progress.suspects() == 0);
    assert_eq!(repair(&full.store()).findings, []);
    // A store in which there was nothing yet.
    let (_dir, store) = store();
    assert_eq!(found(&store), []);
}

#[test]
fn any_changed_byte_of_a_bundle_is_found() {
    let (_dir, store) = store();
    let id = commit(&store, &[b"first file", b"second file"]);
    let path = store.dir().join(format!("bundles/{}", id.hex()));
    let good = fs::read(&path).unwrap();
    // Each is looked at twice, with a pause: not every byte, but some of each part.
    for at in (0..good.len()).step_by(11) {
        change(&path, |bytes| bytes[at] ^= 0x10);
        assert_eq!(found(&store), [(Kind::DamagedBundle, format!("bundles/{}", id.hex()))], "byte {at}");
        change(&path, |bytes| bytes.clone_from(&good));
    }
    assert_eq!(found(&store), []);
}

#[test]
fn a_damaged_bundle_goes_with_all_that_needs_it() {
    let full = Full::new();
    change(&full.bundle(&full.lower), |bytes| bytes.truncate(40));
    let lower = format!("bundles/{}", full.lower.hex());
    let report = full.finds(&[(Kind::DamagedBundle, &lower)]);
    let kinds: Vec<_> = report.findings.iter().map(|finding| (finding.kind, finding.at.as_str())).collect();
    let upper = format!("bundles/{}", full.upper.hex());
    for expected in [
        (Kind::IncompleteBundle, upper.as_str()),
        (Kind::DanglingRecord, &record("lower")),
        (Kind::DanglingRecord, &record("upper")),
        // A name of an image never goes without a word.
        (Kind::DanglingTag, "tag image"),
    ] {
        assert!(kinds.contains(&expected), "{expected:?}: {report:?}");
    }
    let store = full.store();
    assert_eq!(store.record_list("a").unwrap(), [key("alone")]);
    assert_eq!(store.tags().unwrap(), []);
    assert_eq!(commit(&store, &[b"shared", b"lower"]), full.lower);
    assert_eq!(found(&store), []);
}

#[test]
fn a_bundle_that_is_gone() {
    let full = Full::new();
    fs::remove_file(full.bundle(&full.lower)).unwrap();
    let mut expected = [
        (Kind::IncompleteBundle, format!("bundles/{}", full.upper.hex())),
        (Kind::DanglingRecord, record("lower")),
        (Kind::DanglingTag, "tag image".to_owned()),
    ];
    expected.sort_by(|a, b| a.1.cmp(&b.1));
    full.finds(&expected.iter().map(|(kind, at)| (*kind, at.as_str())).collect::<Vec<_>>());
}

#[test]
fn blobs_that_are_damaged_cut_short_or_gone() {
    let blob = |full: &Full| format!("blobs/{}", Store::blob_rel_path(&full.blob));
    let upper = |full: &Full| format!("bundles/{}", full.upper.hex());
    let full = Full::new();
    change(&full.blob(), |bytes| bytes[70_000] ^= 1);
    full.finds(&[(Kind::DamagedBlob, &blob(&full))]);
    let full = Full::new();
    change(&full.blob(), |bytes| bytes.truncate(70_000));
    full.finds(&[(Kind::DamagedBlob, &blob(&full)), (Kind::IncompleteBundle, &upper(&full))]);
    let full = Full::new();
    fs::remove_file(full.blob()).unwrap();
    full.finds(&[(Kind::IncompleteBundle, &upper(&full))]);
    // What does not need it stays.
    let store = full.store();
    assert!(store.load_bundle(&full.lower).unwrap().is_some() && store.load_bundle(&full.upper).unwrap().is_none());
    assert_eq!(store.tags().unwrap().len(), 1);
}

#[test]
fn an_image_blob_that_is_damaged() {
    let full = Full::new();
    change(&full.layer(), |bytes| bytes[0] ^= 1);
    let report = full.finds(&[(Kind::DamagedBlob, &format!("oci/sha256/{}", full.layer.hex()))]);
    assert!(report.findings.iter().any(|finding| finding.kind == Kind::DanglingTag), "{report:?}");
}

/// A bundle that was lost and written anew may hold less than it did: what it had of others' is where it found it then.
#[test]
fn a_content_that_is_nowhere_where_its_bundle_says() {
    let (dir, store) = store();
    commit(&store, &[b"shared", b"lower"]);
    let upper = commit(&store, &[b"shared", b"upper"]);
    let lower = commit(&store, &[b"shared", b"lower"]);
    drop(store);
    fs::remove_file(dir.path().join(format!("bundles/{}", lower.hex()))).unwrap();
    let store = Store::open(dir.path()).unwrap();
    commit(&store, &[b"shared", b"third"]);
    assert_eq!(commit(&store, &[b"shared", b"lower"]), lower);
    assert_eq!(found(&store), [(Kind::IncompleteBundle, format!("bundles/{}", upper.hex()))]);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.load_bundle(&upper).unwrap().is_some(), "which does not show at once");
    assert!(matches!(store.content(&ContentDigest::of(b"shared")), Err(StoreError::MissingContent { .. })));
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(repair(&store).is_clean());
    assert_eq!(found(&store), []);
}

#[test]
fn records_and_names_without_their_checksum() {
    let full = Full::new();
    let sql = sql(&full.store());
    let alone = sql.execute("UPDATE records SET value = X'00' WHERE key = ?1", [key("alone").as_bytes()]);
    assert_eq!((alone, sql.execute("UPDATE tags SET value = X'00'", [])), (Ok(1), Ok(1)));
    full.finds(&[(Kind::DamagedRecord, &record("alone")), (Kind::DamagedTag, "tag image")]);
    assert_eq!(full.store().record_list("a").unwrap().len(), 2);
}

/// All of the log into the main file, so that it does not repair it.
fn checkpoint(store: &Store) {
    sql(store).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

#[test]
fn an_index_that_is_damaged_keeps_its_names() {
    for damage in ["DROP TABLE records", "PRAGMA user_version = 9"] {
        let full = Full::new();
        sql(&full.store()).execute_batch(damage).unwrap();
        let report = full.finds(&[(Kind::DamagedIndex, "index.sqlite")]);
        // Only looking at it has changed nothing; the repair did.
        assert!(report.findings.iter().any(|finding| finding.kind == Kind::OldIndex), "{report:?}");
        assert_eq!(full.store().tags().unwrap(), [("image".to_owned(), b"v".to_vec())], "{damage}");
        assert_eq!(full.store().record_list("a").unwrap(), []);
    }
}

#[test]
fn an_index_of_rubbish_is_left_as_it_is_until_it_is_to_be_repaired() {
    let full = Full::new();
    checkpoint(&full.store());
    let path = full.path("index.sqlite");
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[0xA5; 5000], 0).unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(found(&full.store()), [(Kind::DamagedIndex, "index.sqlite".to_owned())]);
    assert!(fs::read(&path).unwrap() == before && !list(&full).iter().any(|name| name.starts_with("index.corrupt-")));
    full.finds(&[(Kind::DamagedIndex, "index.sqlite")]);
}

/// A page in the middle, which no statement but the check may meet.
#[test]
fn an_index_whose_tables_contradict_each_other() {
    let full = Full::new();
    // The index over records goes without them.
    let db = sql(&full.store());
    db.execute_batch(
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'sqlite_autoindex_records_1'",
    )
    .unwrap();
    drop(db);
    full.finds(&[(Kind::DamagedIndex, "index.sqlite")]);
}

fn list(full: &Full) -> Vec<String> {
    fs::read_dir(full.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn names_are_taken_over_from_an_index_that_was_set_aside() {
    let full = Full::new();
    let store = full.store();
    store.tag_set("lost", b"v", &[Ref::Bundle(BundleId::from_bytes([9; 32]))]).unwrap();
    checkpoint(&store);
    drop(store);
    fs::rename(full.path("index.sqlite"), full.path("index.corrupt-1")).unwrap();
    for log in ["-wal", "-shm"] {
        let _ = fs::rename(full.path(&format!("index.sqlite{log}")), full.path(&format!("index.corrupt-1{log}")));
    }
    full.store().tag_set("new", b"v", &[]).unwrap();
    let report = full.finds(&[(Kind::OldIndex, "index.corrupt-1")]);
    let Outcome::Repaired(how) = &report.findings[0].outcome else { panic!("{report:?}") };
    assert!(how.contains("taken over from it: image") && how.contains("not all there any more: lost"), "{how}");
    let names: Vec<_> = full.store().tags().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["image", "new"]);
}

#[test]
fn a_stat_cache_that_is_damaged_or_empty() {
    for damage in [|bytes: &mut Vec<u8>| bytes[20] ^= 1, |bytes: &mut Vec<u8>| bytes.clear()] {
        let full = Full::new();
        change(&full.context(), damage);
        let at = format!("contexts/{}", full.context().file_name().unwrap().to_str().unwrap());
        full.finds(&[(Kind::DamagedContext, &at)]);
    }
}

#[test]
fn what_was_set_aside() {
    let full = Full::new();
    let names = ["bundles/", "oci/sha256/", "blobs/"].map(|dir| {
        let hex = "ab".repeat(32);
        format!("{dir}{}{hex}.damaged", if dir == "blobs/" { "ab/" } else { "" })
    });
    fs::create_dir_all(full.path("blobs/ab")).unwrap();
    names.iter().for_each(|name| fs::write(full.path(name), "x").unwrap());
    let mut expected: Vec<_> = names.iter().map(|name| (Kind::SetAside, name.as_str())).collect();
    expected.sort_by_key(|(_, at)| *at);
    full.finds(&expected);
}

#[test]
fn what_the_store_did_not_make_is_moved_aside() {
    let full = Full::new();
    let hex = "ab".repeat(32);
    let mut names = vec![
        "notes".to_owned(),
        "bundles/x".into(),
        format!("bundles/{hex}.old"),
        format!("blobs/cd/{hex}"),
        "blobs/x".into(),
        "oci/x".into(),
        "oci/sha256/x".into(),
        "oci/partial/x".into(),
        "mounts/x".into(),
        "contexts/x".into(),
        "locks/x".into(),
        "leases/x".into(),
    ];
    names.sort();
    fs::create_dir_all(full.path("blobs/cd")).unwrap();
    names.iter().for_each(|name| fs::write(full.path(name), name).unwrap());
    // A directory where a file should be, and one with something in it.
    fs::create_dir(full.path(&format!("bundles/{hex}"))).unwrap();
    fs::create_dir_all(full.path("project/src")).unwrap();
    names.extend([format!("bundles/{hex}"), "project".into()]);
    names.sort();
    // These are not the store's, and may be there.
    fs::create_dir(full.path("lost+found")).unwrap();
    fs::write(full.path("CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55").unwrap();
    full.finds(&names.iter().map(|name| (Kind::Unknown, name.as_str())).collect::<Vec<_>>());
    // Nothing is lost: those of one name have numbers.
    let moved: Vec<String> = fs::read_dir(full.path("unknown"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_file())
        .map(|entry| fs::read_to_string(entry.path()).unwrap())
        .collect();
    assert_eq!(moved.len(), 12);
    assert!(full.path("unknown/project/src").is_dir());
}

#[test]
fn directories_that_lack_are_made() {
    let full = Full::new();
    for name in ["tmp", "leases", "contexts"] {
        fs::remove_dir_all(full.path(name)).unwrap();
    }
    let lacks = Kind::MissingDirectory;
    full.finds(&[(lacks, "contexts"), (lacks, "leases"), (lacks, "tmp")]);
    assert_eq!(fs::metadata(full.path("tmp")).unwrap().permissions().mode() & 0o777, 0o755);
    commit(&full.store(), &[b"as ever", &large(7)]);
}

#[test]
#[ignore = "run as a process of its own by other tests"]
fn child_is_killed() {
    let store = Store::open(Path::new(&var("STORE"))).unwrap();
    let scratch = store.scratch_dir().unwrap();
    fs::create_dir_all(scratch.path().join("run-1-0/step-0/work")).unwrap();
    let mut writer = store.oci_blob_writer().unwrap();
    writer.write_all(b"half").unwrap();
    print!("ready");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

/// A process with scratch space; it lives until it is killed.
fn busy(full: &Full) -> std::process::Child {
    use std::io::Read;
    let mut process = child("child_is_killed", &[("STORE", full.dir.path().to_str().unwrap())]);
    let mut seen = Vec::new();
    let mut out = process.stdout.take().unwrap();
    let mut byte = [0];
    while !seen.ends_with(b"ready") && out.read(&mut byte).unwrap() == 1 {
        seen.push(byte[0]);
    }
    process
}

fn names_in(dir: PathBuf) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_a_dead_process_left_is_found_and_what_a_living_one_has_is_not() {
    let full = Full::new();
    let mut process = busy(&full);
    assert_eq!(found(&full.store()), []);
    assert_eq!(full.store().clean(&|_| panic!("nothing to help with")).unwrap().removed, []);
    process.kill().unwrap();
    process.wait().unwrap();
    let living = busy(&full);
    let alive = format!("{}-", living.id());
    let mut left = Vec::new();
    for dir in ["leases", "tmp"] {
        let dead = names_in(full.path(dir)).into_iter().filter(|name| *name != "gate" && !name.starts_with(&alive));
        left.extend(dead.map(|name| format!("{dir}/{name}")));
    }
    assert_eq!(left.len(), 3, "{left:?}");
    let expected: Vec<_> = left.iter().map(|at| (Kind::Leftover, at.as_str())).collect();
    full.finds(&expected);
    // All of the living one's is there.
    assert_eq!((names_in(full.path("tmp")).len(), names_in(full.path("leases")).len()), (2, 2));
    let mut living = living;
    living.kill().unwrap();
    living.wait().unwrap();
    // The same by other means.
    let helped = std::sync::Mutex::new(0);
    let cleaned = full.store().clean(&|dir| *helped.lock().unwrap() += usize::from(dir.is_dir())).unwrap();
    assert_eq!(cleaned.failed, []);
    let kinds: Vec<_> = cleaned.removed.iter().map(|removed| removed.what).collect();
    assert_eq!(kinds, [Remnant::Lease, Remnant::Scratch, Remnant::Scratch]);
    assert_eq!(*helped.lock().unwrap(), 1);
    assert_eq!(found(&full.store()), []);
}

#[test]
fn downloads_locks_and_format_files_that_nobody_wants_any_more() {
    let full = Full::new();
    let partial = full.path(&format!("oci/partial/{}", Sha256Digest::of(b"to come").hex()));
    let half = full.path("format.1-00112233445566ff");
    fs::write(&half, "memo").unwrap();
    assert_eq!(found(&full.store()), [], "they may be in the making");
    [&partial, &half].into_iter().for_each(|path| age(path, 1));
    let partial_at = format!("oci/partial/{}", Sha256Digest::of(b"to come").hex());
    let expected = [(Kind::Leftover, "format.1-00112233445566ff"), (Kind::Leftover, partial_at.as_str())];
    // Held: somebody goes on with it.
    let store = full.store();
    let held = store.partial(&Sha256Digest::of(b"to come")).unwrap();
    assert_eq!(found(&full.store()), [(expected[0].0, expected[0].1.to_owned())]);
    assert_eq!(full.store().clean(&|_| ()).unwrap().removed.iter().filter(|r| r.what == Remnant::Download).count(), 0);
    drop((held, store));
    fs::write(&half, "memo").unwrap();
    age(&half, 1);
    full.finds(&expected);
    // An old lock is no fault, and goes with the rest.
    drop(full.store().lock("old", true).unwrap());
    let lock = full.path("locks").join(ContentDigest::of(b"old").hex());
    age(&lock, 1);
    fs::write(&partial, "part").unwrap();
    fs::write(&half, "memo").unwrap();
    [&partial, &half].into_iter().for_each(|path| age(path, 1));
    let cleaned = full.store().clean(&|_| ()).unwrap();
    let mut kinds: Vec<_> = cleaned.removed.iter().map(|removed| removed.what).collect();
    kinds.sort();
    assert_eq!(kinds, [Remnant::Download, Remnant::Lock, Remnant::Format]);
    assert!(!partial.exists() && !lock.exists() && !half.exists());
}

#[test]
fn an_empty_format_file_is_mended_where_there_is_a_store() {
    let full = Full::new();
    assert_eq!(Store::mend_format(full.dir.path()).unwrap(), None);
    fs::write(full.path("format"), "").unwrap();
    assert!(matches!(Store::open(full.dir.path()), Err(StoreError::Format { found, .. }) if found.is_empty()));
    assert!(Store::mend_format(full.dir.path()).unwrap().is_some());
    assert_eq!(found(&full.store()), []);
    assert_eq!(full.store().tags().unwrap().len(), 1);
    // Another's directory, and another's version.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("format"), "").unwrap();
    assert_eq!(Store::mend_format(other.path()).unwrap(), None);
    fs::write(full.path("format"), "memobuild store 0\n").unwrap();
    assert_eq!(Store::mend_format(full.dir.path()).unwrap(), None);
}

#[test]
fn a_mount_that_was_left_is_taken_away_and_what_is_behind_it_stays() {
    let full = Full::new();
    let mut process = busy(&full);
    let scratch = names_in(full.path("tmp")).into_iter().find(|name| name.ends_with(".d")).unwrap();
    let at = full.path(&format!("tmp/{scratch}/run-1-0"));
    let precious = tempfile::tempdir().unwrap();
    fs::write(precious.path().join("file"), "precious").unwrap();
    let mounted = Command::new("mount").arg("--bind").arg(precious.path()).arg(&at).output();
    if !mounted.is_ok_and(|out| out.status.success()) {
        println!("skipped: a directory can be mounted only as root");
        process.kill().unwrap();
        process.wait().unwrap();
        return;
    }
    let is_mounted = || fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&scratch);
    let while_alive = full.store().clean(&|_| ()).unwrap();
    let still = is_mounted();
    process.kill().unwrap();
    process.wait().unwrap();
    // A repair does not enter what is mounted.
    let repaired = repair(&full.store());
    let cleaned = full.store().clean(&|_| ()).unwrap();
    let after = is_mounted();
    // Before anything is asserted: a mount must not outlive its directory.
    let _ = Command::new("umount").arg("-l").arg(&at).output();
    assert!(while_alive.removed.is_empty() && still);
    assert!(!repaired.is_clean(), "{repaired:?}");
    assert!(cleaned.removed.iter().any(|removed| removed.what == Remnant::Mount), "{cleaned:?}");
    assert!(cleaned.failed.is_empty() && !after, "{cleaned:?}");
    assert_eq!(fs::read_to_string(precious.path().join("file")).unwrap(), "precious");
    assert_eq!(found(&full.store()), []);
}

/// What a running build has touched is left to it, be it damaged.
#[test]
fn what_is_in_use_is_not_repaired() {
    let full = Full::new();
    let user = full.store();
    let lease = user.lease().unwrap();
    assert!(user.load_bundle(&full.lower).unwrap().is_some());
    change(&full.bundle(&full.lower), |bytes| bytes[17] ^= 1);
    let report = repair(&full.store());
    assert!(!report.is_clean() && full.bundle(&full.lower).exists(), "{report:?}");
    assert!(matches!(&report.findings[0].outcome, Outcome::Left(why) if why.contains("a running build")), "{report:?}");
    assert_eq!(full.store().tags().unwrap().len(), 1);
    drop(lease);
    assert!(repair(&full.store()).is_clean());
    assert_eq!(found(&full.store()), []);
}

/// Processes that write, collect and repair all the time: nothing looks wrong, and nothing of theirs is lost.
#[test]
fn a_busy_store_is_clean_at_every_moment() {
    let (dir, first) = store();
    let over = AtomicBool::new(false);
    let written = [AtomicU64::new(0), AtomicU64::new(0)];
    let write = |seed: usize| {
        // As a process of its own would.
        let store = Store::open(dir.path()).unwrap();
        while !over.load(Ordering::Relaxed) {
            let n = written[seed].load(Ordering::Relaxed) + 1;
            let lease = store.lease().unwrap();
            let small = format!("{seed} {n}").repeat(40);
            let mut big = large(n as u8);
            big.extend_from_slice(small.as_bytes());
            let id = commit(&store, &[b"shared by all", small.as_bytes(), &big]);
            let oci = store.oci_blob_put(small.as_bytes()).unwrap();
            let refs = [Ref::Bundle(id), Ref::Oci(oci)];
            store.record_put("s", &key(&format!("{seed} {n}")), id.as_bytes(), &refs).unwrap();
            store.tag_set(&format!("{seed} {}", n % 5), &n.to_le_bytes(), &refs).unwrap();
            let scratch = store.scratch_dir().unwrap();
            fs::write(scratch.path().join("f"), small).unwrap();
            // Still whole, whoever repairs.
            assert!(store.load_bundle(&id).unwrap().is_some(), "{seed} {n}");
            drop((scratch, lease));
            written[seed].store(n, Ordering::Relaxed);
        }
    };
    let collect = || {
        let store = Store::open(dir.path()).unwrap();
        while !over.load(Ordering::Relaxed) {
            store.gc(&GcOptions { max_bytes: Some(20 << 20), ..GcOptions::default() }).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let began = Instant::now();
    // A round takes a moment only, and machines differ: what counts is how much was written meanwhile.
    let enough = || written.iter().all(|n| n.load(Ordering::Relaxed) > 20) || began.elapsed().as_secs() > 60;
    std::thread::scope(|scope| {
        let writers = [0, 1].map(|seed| scope.spawn(move || write(seed)));
        scope.spawn(collect);
        let mut reports = Vec::new();
        while reports.len() < 12 || !enough() {
            let options = Options { repair: reports.len() % 3 == 2, ..Options::default() };
            reports.push(first.fsck(&options, &Progress::default()));
        }
        // First of all: whatever is wrong, the others come to their end.
        over.store(true, Ordering::Relaxed);
        for (round, report) in reports.into_iter().enumerate() {
            assert_eq!(report.unwrap().findings, [], "round {round}");
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    assert!(written.iter().all(|n| n.load(Ordering::Relaxed) > 20), "{written:?}");
    assert_eq!(found(&first), []);
}
