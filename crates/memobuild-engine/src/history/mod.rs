//! A record of each build, in the store: what it was asked for, and what became of each step and why.
//!
//! For explanations only: nothing is ever taken from here as a result, and records hold nothing back from being pruned.
//! The last [`KEPT`] stay. A record is JSON, compressed; one of another version counts as not there.

mod fields;
mod hex;
mod step;

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use memobuild_store::Store;
use memobuild_tree::{KeyDigest, KeyHasher};
use serde::{Deserialize, Serialize};

use crate::{BuildRequest, ContextInput, DockerfileInput, EngineError};

pub use step::{BindPlace, BrokenFact, CopyFrom, CopyPlaces, FactChange, FoundBy, Layer, Outcome, Seen, StepReport};

/// Raised whenever a field changes its meaning; new fields need no new version.
const VERSION: u32 = 1;
const BUILDS: &str = "history.v1";
/// Builds kept; the oldest go first.
const KEPT: usize = 100;
/// The longest record that is unpacked, in bytes.
const MAX_UNPACKED: usize = 256 << 20;

/// One build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildRecord {
    /// Of the encoding.
    pub version: u32,
    /// Tells builds of one context and Dockerfile from others.
    pub place: String,
    /// Names it: eight hexadecimal digits.
    pub id: String,
    /// When it began, in seconds since 1970.
    pub time: i64,
    /// The context as it was given.
    pub context: String,
    /// The Dockerfile as it was given; none: the context's own.
    pub dockerfile: Option<String>,
    /// The stages that it was to make, with their platforms where there are several.
    pub targets: Vec<String>,
    /// Whether it succeeded.
    pub ok: bool,
    /// Why it did not, in one line.
    pub error: Option<String>,
    /// From begin to end, in milliseconds.
    pub duration_ms: u64,
    /// Its steps, inputs before users.
    pub steps: Vec<StepReport>,
}

impl BuildRecord {
    /// A build that begins now.
    pub(crate) fn begin(request: &BuildRequest) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            version: VERSION,
            place: place(request).iter().map(|b| format!("{b:02x}")).collect(),
            id: id(now.as_nanos()),
            time: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            context: match &request.context {
                ContextInput::Directory(dir) => dir.display().to_string(),
                ContextInput::Stdin => "-".into(),
                ContextInput::Url(url) => without_password(url),
            },
            dockerfile: match &request.dockerfile {
                DockerfileInput::InContext => None,
                DockerfileInput::Path(path) => Some(path.display().to_string()),
                DockerfileInput::Stdin => Some("-".into()),
            },
            ..Self::default()
        }
    }

    /// The step of a number.
    pub fn step(&self, number: usize) -> Option<&StepReport> {
        self.steps.get(number.checked_sub(1)?)
    }

    /// The step that stands for `step` of another build of the same Dockerfile: one of equal definition, or else the
    /// one that was in its place.
    pub(crate) fn counterpart(&self, step: &StepReport, others: &[StepReport]) -> Option<&StepReport> {
        let alike = |old: &&StepReport| old.kind == step.kind && old.stage == step.stage;
        let equal = self.steps.iter().filter(|old| old.kind == step.kind && old.fields == step.fields);
        if let Some(old) = equal.clone().find(|old| old.position() == step.position()).or_else(|| equal.clone().next())
        {
            return Some(old);
        }
        // Of those that no step of the other build is equal to.
        let left = |old: &&StepReport| !others.iter().any(|new| new.kind == old.kind && new.fields == old.fields);
        let left: Vec<&StepReport> = self.steps.iter().filter(alike).filter(left).collect();
        let main = |step: &StepReport| step.fields.first().cloned();
        let same_main = left.iter().find(|old| main(old).is_some() && main(old) == main(step));
        same_main.or_else(|| left.iter().find(|old| old.position() == step.position())).copied()
    }
}

/// What differs between the definitions of two steps, as a person calls it.
pub(crate) fn redefined(old: &StepReport, new: &StepReport) -> Vec<String> {
    fields::differing(&old.fields, &new.fields)
}

/// All builds, newest first, as far as they are asked for.
pub fn builds(store: &Store) -> Result<impl Iterator<Item = BuildRecord>, EngineError> {
    let keys = store.record_list(BUILDS)?;
    Ok(keys.into_iter().rev().filter_map(|key| read(store, &key)))
}

/// The builds before this one with the same context and Dockerfile, newest first.
pub(crate) fn earlier(store: &Store, request: &BuildRequest) -> Result<impl Iterator<Item = BuildRecord>, EngineError> {
    let place = place(request);
    let keys = store.record_list(BUILDS)?;
    let here = move |key: &KeyDigest| key.as_bytes().get(16..24) == Some(place.as_slice());
    Ok(keys.into_iter().rev().filter(here).filter_map(|key| read(store, &key)))
}

fn read(store: &Store, key: &KeyDigest) -> Option<BuildRecord> {
    let bytes = store.record_get(BUILDS, key).ok()??;
    let size = zstd::zstd_safe::get_frame_content_size(&bytes).ok().flatten()?;
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_UNPACKED)?;
    let json = zstd::bulk::decompress(&bytes, size).ok()?;
    let record: BuildRecord = serde_json::from_slice(&json).ok()?;
    (record.version == VERSION).then_some(record)
}

/// Keeps a build's record, and lets the oldest ones go.
pub(crate) fn keep(store: &Store, request: &BuildRequest, record: &BuildRecord) -> Result<(), EngineError> {
    let cannot = |e: &(dyn std::error::Error + 'static)| EngineError::chain(memobuild_observe::FailureKind::Cache, e);
    let json = serde_json::to_vec(record).map_err(|e| cannot(&e))?;
    let bytes = zstd::bulk::compress(&json, 1).map_err(|e| cannot(&e))?;
    store.record_put(BUILDS, &key(request), &bytes, &[])?;
    let keys = store.record_list(BUILDS)?;
    for old in keys.iter().take(keys.len().saturating_sub(KEPT)) {
        store.record_delete(BUILDS, old)?;
    }
    Ok(())
}

/// Keys rise with the time at which they were made; then comes what tells builds of one place, then what tells builds
/// of one moment.
fn key(request: &BuildRequest) -> KeyDigest {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut bytes = [0; 32];
    let process = u64::from(std::process::id()).to_be_bytes();
    let all = now.to_be_bytes().into_iter().chain(place(request)).chain(process);
    bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    KeyDigest::from_bytes(bytes)
}

/// Context and Dockerfile, wherever they were named from.
fn place(request: &BuildRequest) -> [u8; 8] {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
    let mut h = KeyHasher::new("memobuild.history.place.v1");
    match &request.context {
        ContextInput::Directory(dir) => h.u64(0).value(&whole(dir)),
        ContextInput::Stdin => h.u64(1),
        ContextInput::Url(url) => h.u64(2).value(url),
    };
    match (&request.dockerfile, &request.context) {
        (DockerfileInput::Path(path), _) => h.u64(0).value(&whole(path)),
        (DockerfileInput::Stdin, _) => h.u64(1),
        (DockerfileInput::InContext, ContextInput::Directory(dir)) => h.u64(0).value(&whole(&dir.join("Dockerfile"))),
        (DockerfileInput::InContext, _) => h.u64(2),
    };
    let digest = h.finish_bytes();
    digest.first_chunk::<8>().copied().unwrap_or_default()
}

fn id(nanos: u128) -> String {
    let mut h = KeyHasher::new("memobuild.history.id.v1");
    h.bytes(&nanos.to_be_bytes()).u64(u64::from(std::process::id()));
    h.finish().hex().chars().take(8).collect()
}

/// A URL may hold the name and password of a user.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find('/').unwrap_or(rest.len());
    match rest.get(..host_end).and_then(|host| host.rfind('@')) {
        Some(at) => format!("{scheme}://{}", rest.get(at + 1..).unwrap_or_default()),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(dir: &str) -> BuildRequest {
        BuildRequest { context: ContextInput::Directory(dir.into()), ..BuildRequest::default() }
    }

    fn step(number: usize, place: &str, fields: &[(&str, &str)]) -> StepReport {
        StepReport {
            number,
            label: format!("[{place}] RUN x"),
            stage: "build".into(),
            line: Some(number),
            kind: "run".into(),
            fields: fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            ..StepReport::default()
        }
    }

    #[test]
    fn records_come_back_newest_first_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut ids = Vec::new();
        for n in 0..KEPT + 3 {
            let request = request(if n % 2 == 0 { "/even" } else { "/odd" });
            let mut record = BuildRecord::begin(&request);
            record.steps.push(StepReport { identity: None, broken_count: n, ..step(1, "1/1", &[("a", "b")]) });
            keep(&store, &request, &record).unwrap();
            ids.push(record);
        }
        let all: Vec<BuildRecord> = builds(&store).unwrap().collect();
        assert_eq!(all.len(), KEPT);
        assert!(all.iter().zip(ids.iter().rev()).all(|(a, b)| a == b));
        let odd: Vec<BuildRecord> = earlier(&store, &request("/odd")).unwrap().collect();
        assert!(odd.iter().all(|r| r.context == "/odd") && odd.len() == KEPT / 2);
    }

    #[test]
    fn a_record_holds_nothing_back_from_being_pruned() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut diff = memobuild_tree::Diff::default();
        diff.set(b"/a", memobuild_tree::Change::Remove);
        let bundle = store.bundle_writer().finish(&diff).unwrap();
        let request = request("/");
        let mut record = BuildRecord::begin(&request);
        record.steps.push(StepReport { bundle: Some(bundle), ..step(1, "1/1", &[]) });
        keep(&store, &request, &record).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let report = store.gc(&memobuild_store::GcOptions::default()).unwrap();
        assert_eq!((report.bundles, report.records), (1, 0));
        let report = store.gc(&memobuild_store::GcOptions { all: true, ..Default::default() }).unwrap();
        assert_eq!(report.records, 1);
        assert_eq!(builds(&store).unwrap().count(), 0);
    }

    #[test]
    fn a_step_is_found_by_its_definition_then_by_its_command_then_by_its_place() {
        let old = BuildRecord {
            steps: vec![
                step(1, "build 1/3", &[("command", "a"), ("env", "1")]),
                step(2, "build 2/3", &[("command", "b"), ("env", "1")]),
                step(3, "build 3/3", &[("command", "c"), ("env", "1")]),
            ],
            ..BuildRecord::default()
        };
        let found = |new: &[StepReport]| -> Vec<usize> {
            new.iter().map(|step| old.counterpart(step, new).map_or(0, |old| old.number)).collect()
        };
        // A step put in between: it has no counterpart, the others keep theirs.
        let inserted = [
            step(1, "build 1/4", &[("command", "a"), ("env", "1")]),
            step(2, "build 2/4", &[("command", "new"), ("env", "1")]),
            step(3, "build 3/4", &[("command", "b"), ("env", "1")]),
            step(4, "build 4/4", &[("command", "c"), ("env", "1")]),
        ];
        assert_eq!(found(&inserted), [1, 0, 2, 3]);
        // Another variable for all, and another command for the last.
        let edited = [
            step(1, "build 1/3", &[("command", "a"), ("env", "2")]),
            step(2, "build 2/3", &[("command", "b"), ("env", "2")]),
            step(3, "build 3/3", &[("command", "d"), ("env", "2")]),
        ];
        assert_eq!(found(&edited), [1, 2, 3]);
        assert_eq!(redefined(&old.steps[2], &edited[2]), ["command changed", "env changed"]);
    }

    #[test]
    fn passwords_in_urls_are_not_kept() {
        assert_eq!(without_password("https://me:secret@host/x.git#main"), "https://host/x.git#main");
        assert_eq!(without_password("https://host/x@y"), "https://host/x@y");
        assert_eq!(without_password("git@host:x"), "git@host:x");
    }
}
