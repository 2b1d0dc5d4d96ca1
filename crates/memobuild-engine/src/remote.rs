//! The server that results are shared with (`--remote`): which records it is asked for, and what it is sent.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use memobuild_cache::{Entry, Finished, Namespace, RemoteCache, RemoteOptions};
use memobuild_observe::{Observer, TraceEvent};
use memobuild_oci::{image, layer};
use memobuild_plan::model::{Op, Step};
use memobuild_sandbox::OwnershipClass;
use memobuild_store::{Joined, Provided, Store};

use crate::{
    StepReport, bases,
    memo::{exact, facts, facts::Known},
    resolve,
    session::Session,
    share::Name,
};

/// The server of one build.
pub(crate) struct Server {
    cache: Arc<RemoteCache>,
    single_owner: bool,
    /// Whether it did not get a result for that reason.
    withheld: AtomicBool,
    _joined: (Joined, Provided),
}

/// What is shared. Names on the server tell the format too: there the first value of a key stays, and one that a later
/// memobuild can't read must not be in its way.
fn namespaces() -> Vec<Namespace> {
    let one = |local: &'static str, remote: String| Namespace { local, remote, list: false };
    let dashed = |local: &'static str| one(local, format!("m1-{}", local.replace('.', "-")));
    let sets = Namespace { list: true, ..dashed(facts::SETS) };
    let results = one(exact::RESULTS, format!("m1-{}-v{}", exact::RESULTS, exact::VERSION));
    let others = [facts::PATHS, facts::RESULTS, bases::TREES, resolve::USERS, image::CONTENTS, layer::DIFF_ID];
    [results, sets].into_iter().chain(others.map(dashed)).collect()
}

impl Server {
    /// Has the store ask it for what is not here.
    pub(crate) fn join(options: &RemoteOptions, store: &Store, observer: &Arc<dyn Observer>) -> Self {
        let warn = {
            let observer = observer.clone();
            move |message| observer.event(TraceEvent::Warning { message })
        };
        let cache = Arc::new(RemoteCache::new(options, namespaces(), store, warn));
        let joined = (store.add_upstream(cache.clone()), store.add_provider(cache.clone()));
        Self { cache, single_owner: options.single_owner, withheld: AtomicBool::new(false), _joined: joined }
    }

    pub(crate) fn to_spec(&self) -> String {
        self.cache.to_spec()
    }

    /// Whether it is given up, which was told.
    pub(crate) fn is_given_up(&self) -> bool {
        self.cache.is_given_up()
    }

    /// Whether it gets results of that kind of step.
    fn gets(&self, session: &Session<'_>, step: &Step) -> bool {
        !matches!(step.op, Op::Run(_)) || self.single_owner || session.ownership() == OwnershipClass::True
    }

    /// A step is done: its result is sent while the build goes on.
    pub(crate) fn done(&self, session: &Session<'_>, step: &Step, report: &StepReport, records: Vec<Name>) {
        if !matches!(step.op, Op::Run(_) | Op::Copy(_) | Op::Mkdir(_)) {
            return;
        }
        if !self.gets(session, step) {
            self.withheld.store(true, Ordering::Relaxed);
            return;
        }
        let item = report.base.zip(report.seen).map(|(base, seen)| {
            let value = facts::listed(&Known { set: seen.paths, last: seen.strong });
            Entry { ns: facts::SETS.into(), key: base, value }
        });
        let like = report.base.zip(report.bundle).filter(|_| report.executed()).map(|(base, bundle)| {
            let (store, last) = (session.store.clone(), session.last_result(&base).map(|known| known.last));
            Arc::new(move || facts::earlier_bundle(&store, &base, last, &bundle)) as Arc<_>
        });
        let lists = item.into_iter().collect();
        self.cache.offer(Finished { bundle: report.bundle, records, lists, like });
    }

    /// Sends what is left, and says what was moved.
    pub(crate) fn finish(&self, session: &Session<'_>, general: Vec<Name>) {
        for name in general {
            self.cache.offer(Finished { records: vec![name], ..Finished::default() });
        }
        let report = self.cache.finish();
        let done = report.bytes_in + report.bytes_out;
        let mut what = report.to_string();
        if self.withheld.load(Ordering::Relaxed) {
            what += "; results of RUN steps stay here: this user has one id, so their owners are no true ones";
        }
        session.emit(TraceEvent::RemoteSync { what, done, total: Some(done), finished: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ones_that_a_server_takes() {
        let all = namespaces();
        for Namespace { remote, .. } in &all {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
            assert!((1..=32).contains(&remote.len()) && remote.bytes().all(allowed), "{remote}");
            assert_eq!(all.iter().filter(|other| other.remote == *remote).count(), 1, "{remote}");
        }
    }
}
