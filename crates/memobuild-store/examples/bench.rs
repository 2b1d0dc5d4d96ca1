//! Measures the paths that a build waits for. `cargo run --release -p memobuild-store --example bench [DIR]`; DIR is
//! where the store and the context are made (default: the system's directory for temporary files).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use memobuild_store::{LARGE_FILE, Ref, Store, scan};
use memobuild_tree::{Diff, DirChange, KeyDigest};

const RUNS: usize = 9;

fn median(name: &str, mut run: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS).map(|_| run()).collect();
    times.sort();
    println!("{name:<58} {:>9.3} ms", times[RUNS / 2].as_secs_f64() * 1e3);
    times[RUNS / 2]
}

fn timed<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn key(n: usize) -> KeyDigest {
    KeyDigest::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn make_context(root: &Path) {
    for dir in 0..100 {
        let dir = root.join(format!("pkg{dir:03}/src"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..100 {
            fs::write(dir.join(format!("file{file:03}.js")), format!("// {} {file}\n", dir.display()).repeat(20))
                .unwrap();
        }
    }
}

fn main() {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let base = base.join(format!("memobuild-bench.{}", std::process::id()));
    let (dir, context) = (base.join("store"), base.join("context"));
    make_context(&context);
    let store = Store::open(&dir).unwrap();

    println!("records");
    for n in 0..1000 {
        store.record_put("step", &key(n), &[7; 400], &[]).unwrap();
    }
    median("open and 50 record_get", || {
        timed(|| {
            let store = Store::open(&dir).unwrap();
            for n in 0..50 {
                assert!(store.record_get("step", &key(n)).unwrap().is_some());
            }
        })
    });
    let mut n = 1000;
    median("record_put", || {
        n += 1;
        timed(|| store.record_put("step", &key(n), &[7; 400], &[]).unwrap())
    });

    println!("bundles");
    median("commit a bundle of one small file", || {
        n += 1;
        let tree = tree_of(&[n.to_string().into_bytes()]);
        timed(|| {
            let writer = store.bundle_writer();
            writer.add_bytes(n.to_string().as_bytes()).unwrap();
            let id = writer.finish(&tree).unwrap();
            store.record_put("step", &key(n), b"r", &[Ref::Bundle(id)]).unwrap();
        })
    });
    let mut round = 0;
    let mut last = None;
    median("commit a bundle of 10,000 files of 1 KiB", || {
        round += 1;
        let files: Vec<Vec<u8>> = (0..10_000).map(|n| format!("{round} {n} ").repeat(120).into_bytes()).collect();
        let tree = tree_of(&files);
        timed(|| {
            let writer = store.bundle_writer();
            for file in &files {
                writer.add_bytes(file).unwrap();
            }
            last = Some(writer.finish(&tree).unwrap());
        })
    });
    let last = last.unwrap();
    median("load that bundle in a new handle", || {
        let store = Store::open(&dir).unwrap();
        timed(|| store.load_bundle(&last).unwrap().unwrap())
    });
    median("read its 10,000 files, verified", || {
        let store = Store::open(&dir).unwrap();
        let diff = store.load_bundle(&last).unwrap().unwrap();
        timed(|| {
            diff.walk(&mut |_, change| {
                if let memobuild_tree::Change::Put(memobuild_tree::Node::File(file)) = change {
                    store.content(&file.content).unwrap().read_all().unwrap();
                }
            });
        })
    });
    median("adopt a blob of 1 MiB", || {
        n += 1;
        let scratch = store.scratch_dir().unwrap();
        let path = scratch.path().join("f");
        let bytes = n.to_string().repeat(LARGE_FILE as usize);
        fs::write(&path, &bytes).unwrap();
        let digest = memobuild_tree::ContentDigest::of(bytes.as_bytes());
        let writer = store.bundle_writer();
        timed(|| writer.adopt_blob(&path, &digest, bytes.len() as u64).unwrap())
    });

    println!("context of 10,000 files in 200 directories");
    std::thread::sleep(Duration::from_millis(100));
    let find = median("find CONTEXT -type f -printf '%s %T@'", || {
        timed(|| {
            let out = Command::new("find").arg(&context).args(["-type", "f", "-printf", "%s %T@\n"]).output().unwrap();
            assert!(out.status.success());
        })
    });
    let mut name = 0;
    median("scan, no stat cache yet", || {
        name += 1;
        timed(|| scan::scan(&context, &scan::Everything, Some((&store, &name.to_string()))).unwrap())
    });
    let warm = median("scan, nothing changed, with open and identity", || {
        timed(|| {
            let store = Store::open(&dir).unwrap();
            let scan = scan::scan(&context, &scan::Everything, Some((&store, "1"))).unwrap();
            assert_eq!((scan.stats.files, scan.stats.hashed), (10_000, 0));
            scan.tree.identity()
        })
    });
    println!("{:<58} {:>9.2}", "  as a multiple of find", warm.as_secs_f64() / find.as_secs_f64());
    fs::remove_dir_all(&base).unwrap();
}

fn tree_of(files: &[Vec<u8>]) -> Diff {
    use memobuild_tree::{ContentDigest, File, Meta, Mtime, Node};
    let mut root = DirChange::default();
    for (n, bytes) in files.iter().enumerate() {
        let meta = Meta::new(0o644, Mtime::ambient(1, 2));
        let file = File { meta, size: bytes.len() as u64, content: ContentDigest::of(bytes), link: None };
        let dir = root.descend(&[format!("d{}", n / 100).as_bytes()]);
        dir.entries.insert(format!("f{n}").as_bytes().into(), memobuild_tree::Change::Put(Node::File(file)));
    }
    Diff { root }
}
