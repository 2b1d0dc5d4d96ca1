//! Garbage collection: one cap in bytes really on disk, least recently used first, never what is in use.
//!
//! Roots are records, tags and the leases of living processes; what they do not reach is garbage and goes at once.
//! Then records (and cache mounts) go, oldest use first, until the rest fits; with a record goes what only it reached.
//! Tags are the user's: they are never removed here. Deleting happens while nobody can touch anything new (see
//! [`crate::lease`]), and everything on which the choice rests is read under the same gate.

use std::{fs, path::PathBuf, time::Duration};

use memobuild_tree::{ContentDigest, KeyDigest, Sha256Digest};

use crate::{
    Ref, Store,
    digest_map::{DigestMap, DigestSet},
    error::Result,
    inventory::{Inventory, list, written},
    lease::{Held, sweep},
    lock::FileLock,
    records::{Row, now},
    scratch::remove_tree,
};

/// Partial downloads and lock files nobody has touched for this long are removed, in seconds.
pub(crate) const STALE: i64 = 24 * 3600;
/// Stat caches nobody has written for this long, in seconds.
const STALE_CONTEXT: i64 = 30 * 24 * 3600;

/// What to remove. With nothing set only garbage goes.
#[derive(Debug, Clone, Default)]
pub struct GcOptions {
    /// Remove, least recently used first, until the store takes at most this many bytes on disk.
    pub max_bytes: Option<u64>,
    /// Spare what was used within this time. Without `max_bytes`: remove all that was not.
    pub keep_duration: Option<Duration>,
    /// Remove all that is neither tagged nor in use, within `keep_duration` if that is set.
    pub all: bool,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What was removed (or would be).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Bytes on disk that were freed.
    pub freed_bytes: u64,
    /// Bytes on disk that are left.
    pub left_bytes: u64,
    /// Records removed.
    pub records: u64,
    /// Bundles removed.
    pub bundles: u64,
    /// Large files' blobs removed.
    pub blobs: u64,
    /// Image blobs removed.
    pub oci_blobs: u64,
    /// Cache mounts removed.
    pub mounts: u64,
    /// What could not be removed, mostly directories owned by subordinate ids.
    pub failed: Vec<PathBuf>,
}

/// Which things are reached, and by how many.
struct Graph<'a> {
    inventory: &'a Inventory,
    counts: DigestMap<Ref, u32>,
    children: DigestMap<Ref, Vec<Ref>>,
}

impl Graph<'_> {
    fn add(&mut self, root: Ref) {
        let mut todo = vec![root];
        while let Some(name) = todo.pop() {
            let count = self.counts.entry(name).or_insert(0);
            *count += 1;
            if *count == 1 {
                let inventory = self.inventory;
                todo.extend(self.children.entry(name).or_insert_with(|| inventory.refs_of(&name)).iter().copied());
            }
        }
    }

    /// Takes one reference away; what is on disk and not reached any more.
    fn remove(&mut self, root: Ref) -> Vec<Ref> {
        let mut todo = vec![root];
        let mut dead = Vec::new();
        while let Some(name) = todo.pop() {
            let Some(count) = self.counts.get_mut(&name) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&name);
                if self.inventory.things.contains_key(&name) {
                    dead.push(name);
                }
                todo.extend(self.children.get(&name).into_iter().flatten().copied());
            }
        }
        dead
    }
}

/// Something that can be removed by age.
enum Candidate<'a> {
    Record(&'a Row),
    Mount(usize),
}

impl Store {
    /// Collects garbage. Other processes may go on using the store; those that touch something new wait while files
    /// are being deleted.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        self.flush()?;
        let _one = self.lock("gc", true)?;
        let mut report = GcReport::default();
        let before = if options.dry_run { 0 } else { Inventory::take(self.layout())?.total() };
        if !options.dry_run {
            report.failed = sweep(self.layout())?;
        }
        let inventory = Inventory::take(self.layout())?;
        let held = Held::take(self.layout())?;
        let rows = self.record_rows()?;
        let mut graph = Graph { inventory: &inventory, counts: DigestMap::default(), children: DigestMap::default() };
        let tags = self.tag_rows()?;
        let pinned = tags.iter().flat_map(|row| &row.refs).chain(&held.refs);
        pinned.for_each(|name| graph.add(*name));
        rows.iter().flat_map(|row| &row.refs).for_each(|name| graph.add(*name));
        let mut dead: Vec<Ref> =
            inventory.things.keys().filter(|name| !graph.counts.contains_key(name)).copied().collect();
        let total = inventory.total();
        let size = |names: &[Ref]| names.iter().filter_map(|n| inventory.things.get(n)).map(|i| i.bytes).sum::<u64>();
        let mut left =
            total.saturating_sub(size(&dead)).saturating_sub(inventory.damaged.iter().map(|i| i.bytes).sum());
        let mut records = Vec::new();
        let mut mounts = Vec::new();
        for (used, candidate) in candidates(&rows, &inventory) {
            let old = options.keep_duration.is_none_or(|keep| used < now().saturating_sub(keep.as_secs() as i64));
            let wanted = match options.max_bytes {
                _ if options.all => true,
                Some(max) => left > max,
                None => options.keep_duration.is_some(),
            };
            if !wanted {
                break;
            }
            match candidate {
                Candidate::Record(row) if old && !row.refs.iter().any(|name| held.refs.contains(name)) => {
                    for name in &row.refs {
                        let gone = graph.remove(*name);
                        left = left.saturating_sub(size(&gone));
                        dead.extend(gone);
                    }
                    records.push(row);
                }
                Candidate::Mount(number) if old => {
                    let Some(mount) = inventory.mounts.get(number) else { continue };
                    // Held for as long as the mount is used.
                    if let Some(lock) = FileLock::take(&self.layout().mount_lock(&mount.key), true, false)? {
                        left = left.saturating_sub(mount.item.bytes);
                        mounts.push((mount, lock));
                    }
                }
                _ => {}
            }
        }
        report.records = records.len() as u64;
        report.mounts = mounts.len() as u64;
        for name in &dead {
            *match name {
                Ref::Bundle(_) => &mut report.bundles,
                Ref::Content(_) => &mut report.blobs,
                Ref::Oci(_) => &mut report.oci_blobs,
            } += 1;
        }
        if options.dry_run {
            report.freed_bytes = total.saturating_sub(left);
            report.left_bytes = left;
            return Ok(report);
        }
        self.remove_rows(&records)?;
        self.delete(&inventory, &dead, &mut report);
        drop(held);
        for (mount, lock) in mounts {
            match remove_tree(&mount.item.path) {
                Ok(()) => lock.remove(),
                Err(_) => report.failed.push(mount.item.path.clone()),
            }
        }
        self.delete_stale(&inventory, options.all)?;
        report.left_bytes = Inventory::take(self.layout())?.total();
        report.freed_bytes = before.saturating_sub(report.left_bytes);
        Ok(report)
    }

    fn delete(&self, inventory: &Inventory, dead: &[Ref], report: &mut GcReport) {
        let mut bundles = DigestSet::default();
        // Bundles before what they refer to: one that is there is complete, should this end in between.
        let (first, rest): (Vec<&Ref>, Vec<&Ref>) = dead.iter().partition(|name| matches!(name, Ref::Bundle(_)));
        for name in first.into_iter().chain(rest) {
            let Some(item) = inventory.things.get(name) else { continue };
            if fs::remove_file(&item.path).is_err() {
                report.failed.push(item.path.clone());
            }
            if let Ref::Bundle(id) = name {
                bundles.insert(*id);
            }
        }
        self.bundles().forget_all(&|id| bundles.contains(id));
        for item in &inventory.damaged {
            let _ = fs::remove_file(&item.path);
        }
    }

    /// Removes what costs only time to do without.
    fn delete_stale(&self, inventory: &Inventory, all: bool) -> Result<()> {
        for item in &inventory.contexts {
            if all || now() - written(&item.path) > STALE_CONTEXT {
                let _ = fs::remove_file(&item.path);
            }
        }
        let partials = inventory.partials.iter().map(|item| item.path.clone());
        remove_unused(partials.chain(list(&self.layout().locks())?), all).map(drop)
    }
}

/// Removes files that nobody has locked, if nobody has touched them for long, or if all are meant. Those that were.
pub(crate) fn remove_unused(paths: impl Iterator<Item = PathBuf>, all: bool) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for path in paths {
        if (all || now() - written(&path) > STALE)
            && let Some(lock) = FileLock::take(&path, true, false)?
        {
            lock.remove();
            removed.push(path);
        }
    }
    Ok(removed)
}

fn candidates<'a>(rows: &'a [Row], inventory: &Inventory) -> Vec<(i64, Candidate<'a>)> {
    let rows = rows.iter().map(|row| (row.used, Candidate::Record(row)));
    let mounts = inventory.mounts.iter().enumerate().map(|(i, mount)| (mount.used, Candidate::Mount(i)));
    let mut out: Vec<_> = rows.chain(mounts).collect();
    // Stable: rows of one second stay in the order of their making.
    out.sort_by_key(|(used, _)| *used);
    out
}

/// A name for a person and for machines: hexadecimal digits.
pub(crate) fn hex_of(name: &Ref) -> String {
    match name {
        Ref::Bundle(id) => id.hex(),
        Ref::Oci(digest) => Sha256Digest::hex(digest),
        Ref::Content(digest) => ContentDigest::hex(digest),
    }
}

/// The name of a cache mount.
pub(crate) fn mount_name(key: &KeyDigest) -> String {
    key.hex()
}
