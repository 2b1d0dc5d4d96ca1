//! How long a look-up by facts takes: `cargo bench -p memobuild-engine --bench lookup`.
//!
//! A tree of 50,000 files; a step with 100 results of 3,000 facts each, none of which holds, under one path set and
//! under 20. Each time is that of one decision by a process that has just opened the store. Prints milliseconds,
//! median of 15, one line a case: `NAME MILLISECONDS`.
#![allow(clippy::unwrap_used, reason = "a failed benchmark ends")]

use std::time::Instant;

use memobuild_engine::memo::facts::{Found, Sets, known, put, search};
use memobuild_store::Store;
use memobuild_tree::{
    ContentDigest, File, KeyDigest, KeyHasher, Meta, Mtime, Node, Tree,
    facts::{Look, Looks, Observed, PathSet},
};

const FILES: usize = 50_000;
const RESULTS: usize = 100;
const FACTS: usize = 3_000;
const ROUNDS: usize = 15;

fn path(index: usize) -> Vec<u8> {
    format!("/usr/lib/part-{}/section-{}/file-{index}.txt", index % 20, index % 400).into_bytes()
}

fn put_file(tree: &mut Tree, at: &[u8], text: &str) {
    let meta = Meta::new(0o644, Mtime::default());
    let content = ContentDigest::of(text.as_bytes());
    let file = File { meta, size: text.len() as u64, content, link: None };
    tree.put(at, Node::File(file), &|| Meta::new(0o755, Mtime::default()));
}

fn tree() -> Tree {
    let mut tree = Tree::default();
    (0..FILES).for_each(|index| put_file(&mut tree, &path(index), "content"));
    tree
}

/// The looks of a program: files all over the tree, absent names, listings. `variant` moves a few.
fn looks(variant: usize) -> Looks {
    let mut looks = Looks::default();
    for n in 0..FACTS {
        let index = (n * 16 + if n < 30 { variant } else { 0 }) % FILES;
        match n % 10 {
            0 => looks.add(&[path(index), b".none".to_vec()].concat(), Look::NODE),
            1 => looks.add(path(index).rsplitn(2, |b| *b == b'/').last().unwrap(), Look::NODE.with(Look::LISTED)),
            _ => looks.add(&path(index), Look::NODE),
        }
    }
    looks
}

fn case(sets: usize) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let (base, weak) = (KeyHasher::new("base").finish(), KeyHasher::new("weak").finish());
    let now = tree();
    {
        let store = Store::open(dir.path()).unwrap();
        for result in 0..RESULTS {
            // Each result was made where one of its files was another.
            let mut then = now.clone();
            put_file(&mut then, &path(16 * (32 + result % 8)), &format!("other {result}"));
            let set = PathSet::of(&[looks(result % sets)]);
            let observed = Observed::new([&then]);
            let glances = observed.glances(&set).unwrap().into_iter().map(|g| (g, true)).collect();
            let found = Found { bundle: None, created: 0, millis: 0, glances };
            put(&store, &base, &observed.strong_key(&weak, &set).unwrap(), &set, &found, false).unwrap();
        }
    }
    let mut times: Vec<f64> = (0..ROUNDS).map(|_| decide(dir.path(), &base, &weak, &now)).collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

fn decide(dir: &std::path::Path, base: &KeyDigest, weak: &KeyDigest, tree: &Tree) -> f64 {
    let store = Store::open(dir).unwrap();
    // The index is open by then in a build: the exact look-up comes first.
    store.record_get("none", base).unwrap();
    let begin = Instant::now();
    let known = known(&store, base).unwrap();
    let observed = Observed::new([tree]);
    let hit = search(&store, &Sets::default(), base, &known, &|_| *weak, &observed, |_, _| Ok(Some(()))).unwrap();
    assert!(hit.is_none());
    begin.elapsed().as_secs_f64() * 1000.0
}

fn main() {
    println!("facts-one-set {:.3}", case(1));
    println!("facts-20-sets {:.3}", case(20));
}
