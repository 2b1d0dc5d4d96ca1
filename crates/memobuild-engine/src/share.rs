//! Caches that machines share: read from (`--cache-from`), and written to while the build goes on (`--cache-to`).
//!
//! Nothing that happens to one fails a build: it is told, and the build goes on with what there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use memobuild_cache::{CacheError, Collected, Entry, ExportReport, Exporter, Importer, Place};
use memobuild_observe::{FailureKind, Observer, TraceEvent, in_same_span};
use memobuild_oci::{image, registry::Registries};
use memobuild_plan::model::{Op, Plan, Step, StepId};
use memobuild_sandbox::OwnershipClass;
use memobuild_store::{Joined, Provided, Store};
use memobuild_tree::{BundleId, KeyDigest};

use crate::{
    BuildRequest, CacheTarget, EngineError, StepReport, bases,
    memo::{exact, facts},
    remote::Server,
    session::Session,
    step,
};

/// A record by its name.
pub(crate) type Name = (&'static str, KeyDigest);

/// The caches of one build.
pub(crate) struct Share {
    importers: Vec<Arc<Importer>>,
    exporters: Mutex<Vec<(CacheTarget, Exporter)>>,
    wants_inline: bool,
    /// Whether any cache is to be written.
    writes: bool,
    noted: Mutex<Noted>,
    server: Option<Server>,
    _joined: Vec<(Joined, Provided)>,
}

#[derive(Default)]
struct Noted {
    /// Records that no step stands for.
    general: BTreeSet<Name>,
    steps: BTreeMap<usize, Noticed>,
    /// Cache mounts that were used, with their directories.
    mounts: BTreeMap<KeyDigest, std::path::PathBuf>,
}

/// What there is to tell of a step.
#[derive(Default)]
struct Noticed {
    records: BTreeSet<Name>,
    bundle: Option<BundleId>,
    /// The image consists of it.
    in_image: bool,
    is_run: bool,
}

impl Share {
    /// Opens the caches to read from; they are read while the build is planned.
    pub(crate) fn begin(
        store: &Store,
        request: &BuildRequest,
        registries: &Registries,
        observer: &Arc<dyn Observer>,
    ) -> Self {
        let platform = request.options.platforms.first().unwrap_or(&request.options.build_platform);
        let importer = |place: &Place| Arc::new(Importer::new(place.clone(), platform, registries, store));
        let importers: Vec<Arc<Importer>> = request.cache_from.iter().map(importer).collect();
        for importer in &importers {
            let importer = importer.clone();
            // Whoever asks first reads it, if this can't be started.
            let _ = thread::Builder::new().name("cache-import".into()).spawn(in_same_span(move || importer.load()));
        }
        let join =
            |importer: &Arc<Importer>| (store.add_upstream(importer.clone()), store.add_provider(importer.clone()));
        let exporter = |target: &CacheTarget| {
            let place = target.place.clone()?;
            Some((target.clone(), Exporter::start(place, registries, store, importers.clone())))
        };
        Self {
            _joined: importers.iter().map(join).collect(),
            exporters: Mutex::new(request.cache_to.iter().filter_map(exporter).collect()),
            wants_inline: request.cache_to.iter().any(|target| target.place.is_none()),
            writes: !request.cache_to.is_empty() || request.remote.is_some(),
            importers,
            noted: Mutex::default(),
            // Asked last: what other caches hold is at hand once they were read.
            server: request.remote.as_ref().map(|options| Server::join(options, store, observer)),
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where results that are not here come from.
    pub(crate) fn places(&self) -> Vec<String> {
        let importers = self.importers.iter().map(|importer| importer.place().to_spec());
        importers.chain(self.server.as_ref().map(Server::to_spec)).collect()
    }

    /// Whether the user has been told of a server that is not asked any more: it explains what can't be had.
    pub(crate) fn has_told(&self) -> bool {
        self.server.as_ref().is_some_and(Server::is_given_up)
    }

    /// Remembers records that others need to find a step's result.
    pub(crate) fn note(&self, step: StepId, ns: &'static str, keys: &[KeyDigest]) {
        if self.writes {
            let mut noted = self.noted();
            noted.steps.entry(step.0).or_default().records.extend(keys.iter().map(|key| (ns, *key)));
        }
    }

    /// The same for records that no step stands for.
    pub(crate) fn note_general(&self, names: impl IntoIterator<Item = Name>) {
        if self.writes {
            self.noted().general.extend(names);
        }
    }

    /// Remembers a cache mount that a step used.
    pub(crate) fn note_mount(&self, key: KeyDigest, dir: &std::path::Path) {
        if self.writes {
            self.noted().mounts.insert(key, dir.into());
        }
    }

    /// A step is done: what it changed is sent while the build goes on.
    pub(crate) fn done(&self, session: &Session<'_>, step: &Step, report: &StepReport) {
        if !self.writes {
            return;
        }
        let names = [
            report.exact.map(|key| (exact::RESULTS, key)),
            report.definition.map(|key| (exact::SEEN, key)),
            report.base.map(|key| (facts::SETS, key)),
            report.seen.map(|seen| (facts::PATHS, facts::key_of(&seen.paths))),
            report.seen.map(|seen| (facts::RESULTS, seen.strong)),
        ];
        let (is_run, in_image) = (matches!(step.op, Op::Run(_)), in_image(session.plan, step.id));
        let mut noted = self.noted();
        let noticed = noted.steps.entry(step.id.0).or_default();
        noticed.records.extend(names.into_iter().flatten());
        (noticed.bundle, noticed.in_image, noticed.is_run) = (report.bundle, in_image, is_run);
        let records = noticed.records.iter().copied().collect();
        drop(noted);
        if let Some(server) = &self.server {
            server.done(session, step, report, records);
        }
        let Some(bundle) = report.bundle.filter(|bundle| self.can_send(session.store, bundle)) else { return };
        for (target, exporter) in self.exporters.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if (target.max || in_image) && shares(session, target, is_run) {
                exporter.offer(bundle);
            }
        }
    }

    /// Whether a bundle's contents are here, or can be passed on from a cache that they came from.
    fn can_send(&self, store: &Store, bundle: &BundleId) -> bool {
        store.holds_bundle(bundle) || self.importers.iter().any(|importer| importer.has_pack(bundle))
    }

    /// What a target gets.
    fn collect(&self, session: &Session<'_>, target: &CacheTarget) -> Result<Collected, EngineError> {
        let store = session.store;
        let mut out = Collected::default();
        let mut names: BTreeSet<Name> = BTreeSet::new();
        names.extend(base_records(session));
        let noted = self.noted();
        names.extend(&noted.general);
        for noticed in noted.steps.values().filter(|noticed| shares(session, target, noticed.is_run)) {
            names.extend(&noticed.records);
            let Some(bundle) = noticed.bundle else { continue };
            match (target.max || noticed.in_image) && self.can_send(store, &bundle) {
                true => out.bundles.push(bundle),
                false => out.named.push(bundle),
            }
        }
        drop(noted);
        for (ns, key) in names {
            if let Some(value) = store.record_get(ns, &key)? {
                out.add(Entry { ns: ns.into(), key, value });
            }
        }
        Ok(out)
    }

    /// The field of an image's config that makes it carry its cache, if one is to. `layers` are all of the image's,
    /// lowest first, with the bundles of those that the build made.
    pub(crate) fn inline(
        &self,
        session: &Session<'_>,
        layers: &[Option<BundleId>],
    ) -> Result<Option<serde_json::Value>, EngineError> {
        let Some(target) = session.request.cache_to.iter().find(|t| t.place.is_none()).filter(|_| self.wants_inline)
        else {
            return Ok(None);
        };
        let collected = self.collect(session, target)?;
        let field = memobuild_cache::inline(session.store, &collected, layers);
        field.map(Some).map_err(|e| EngineError::chain(FailureKind::Cache, &e))
    }

    /// Sends what is left and makes it known.
    ///
    /// # Errors
    /// That of a target that must not fail.
    pub(crate) fn finish(&self, session: &Session<'_>) -> Result<(), EngineError> {
        let exporters = std::mem::take(&mut *self.exporters.lock().unwrap_or_else(PoisonError::into_inner));
        let mut failure = None;
        for (target, exporter) in exporters {
            let what = format!("exporting cache to {}", exporter.place());
            session.emit(TraceEvent::Exporting { what: what.clone(), finished: false });
            if session.ownership() == OwnershipClass::Single && !target.single_owner {
                let message = "results of RUN steps are not exported: this user has one id, so their owners are no true \
                               ones (single-owner=true exports them for users like this one)";
                session.emit(TraceEvent::Warning { message: message.into() });
            }
            let result = self.collect(session, &target).and_then(|mut collected| {
                if target.mounts {
                    self.collect_mounts(session, &mut collected)?;
                }
                exporter.finish(&collected).map_err(|e| failed(&e))
            });
            match result {
                Ok(ExportReport { bytes, sent, present }) => {
                    let what = format!("{what}: {sent} blobs sent, {present} there already");
                    session.emit(TraceEvent::RemoteSync { what, done: bytes, total: Some(bytes), finished: true });
                }
                Err(error) => {
                    let message = format!("{what} failed: {}", error.message);
                    if target.must {
                        failure.get_or_insert(EngineError { message, ..error });
                    } else {
                        session.emit(TraceEvent::Warning { message });
                    }
                }
            }
            session.emit(TraceEvent::Exporting { what, finished: true });
        }
        if let Some(server) = &self.server {
            let general = self.noted().general.iter().copied().chain(base_records(session)).collect();
            server.finish(session, general);
        }
        failure.map_or(Ok(()), Err)
    }

    /// The directories of cache mounts, as bundles.
    fn collect_mounts(&self, session: &Session<'_>, collected: &mut Collected) -> Result<(), EngineError> {
        let mounts = self.noted().mounts.clone();
        for (key, dir) in mounts {
            let (name, bundle) = step::save_cache_mount(session, key, &dir)?;
            let Some(bundle) = bundle else { continue };
            let value = bundle.as_bytes().to_vec();
            collected.add(Entry { ns: name.into(), key, value });
            collected.bundles.push(bundle);
        }
        Ok(())
    }

    /// Says what went wrong with caches that were read from.
    pub(crate) fn tell(&self, observer: &Arc<dyn Observer>) {
        for importer in &self.importers {
            let Some(error) = importer.failure() else { continue };
            let message = match &error {
                CacheError::Absent { .. } => error.to_string(),
                _ => format!("cache {}: {}; going on without it", importer.place(), failed(&error).message),
            };
            observer.event(TraceEvent::Warning { message });
        }
    }
}

/// What is known of the base images.
fn base_records(session: &Session<'_>) -> Vec<Name> {
    let of = |image: &Arc<image::BaseImage>| {
        let contents = image.layers.iter().map(|layer| image::contents_record(&layer.diff_id));
        std::iter::once(bases::record(image)).chain(contents).collect::<Vec<Name>>()
    };
    session.bases.iter().flat_map(of).collect()
}

fn failed(error: &CacheError) -> EngineError {
    let kind = if matches!(error, CacheError::Registry(_)) { FailureKind::Registry } else { FailureKind::Cache };
    EngineError::chain(kind, error)
}

/// Whether a target gets results of that kind of step.
fn shares(session: &Session<'_>, target: &CacheTarget, is_run: bool) -> bool {
    !is_run || target.single_owner || session.ownership() == OwnershipClass::True
}

/// Whether a step's change is a layer of an image.
fn in_image(plan: &Plan, step: StepId) -> bool {
    plan.targets.iter().any(|target| {
        let chain = std::iter::successors(Some(target.root), |at| plan.steps.get(at.0).and_then(step::parent));
        chain.into_iter().any(|at| at == step)
    })
}
