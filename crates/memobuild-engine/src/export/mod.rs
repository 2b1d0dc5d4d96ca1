//! From the values of a finished plan to images: config and history, layers, and the outputs asked for.

mod root;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use memobuild_image::{Descriptor, History, ImageConfig, json, media, time};
use memobuild_observe::{FailureKind, TraceEvent, in_same_span};
use memobuild_oci::{
    image::{BaseImage, BaseLayer, StoredImage},
    layer::{self, TimestampPolicy},
    output::{self, Assembled, Dest, Early, OutputError, OutputImage, Recipe},
    reference::Reference,
};
use memobuild_plan::model::Target;
use memobuild_tree::{BundleId, Sha256Digest, codec};

use root::{Root, root};

use crate::{
    Annotation, BuildOutcome, Compression, CompressionMethod, Destination, EngineError, Kept, Level, Output,
    OutputKind, annotate, bases, session::Session, step, value::Value,
};

/// One image before its layers are written.
struct Draft<'a> {
    target: &'a Target,
    value: Arc<Value>,
    /// Bundles of the build's own layers, lowest first.
    layers: Vec<BundleId>,
    config: ImageConfig,
    created: (i64, u32),
}

fn failed(error: &(dyn std::error::Error + 'static)) -> EngineError {
    let failed = EngineError::chain(FailureKind::Cache, error);
    if !bases::is_no_space(error) {
        return failed;
    }
    // Layers and documents are made in the cache; what else an output writes goes to where the user wants it.
    match error.downcast_ref::<OutputError>() {
        None | Some(OutputError::Store(_) | OutputError::Registry(_)) => failed.with_hint(bases::make_room()),
        Some(_) => failed.with_hint("free some space there, or write to another disk"),
    }
}

/// Asked between pieces of work, and before anything gets its final name.
fn unless_cancelled(session: &Session<'_>) -> Result<(), EngineError> {
    match session.cancel.is_cancelled() {
        true => Err(EngineError::new(FailureKind::Step, "the build was cancelled")),
        false => Ok(()),
    }
}

/// Writes all outputs and tags, and says what was made.
pub(crate) fn export(
    session: &Session<'_>,
    values: &[Option<Arc<Value>>],
    outcome: &mut BuildOutcome,
) -> Result<(), EngineError> {
    let drafts: Vec<Draft<'_>> =
        session.plan.targets.iter().map(|target| draft(session, target, values)).collect::<Result<_, _>>()?;
    let names = references(&session.request.tags)?;
    for output in &session.request.outputs {
        unless_cancelled(session)?;
        let what = describe(output);
        session.emit(TraceEvent::Exporting { what: what.clone(), finished: false });
        match output.kind {
            OutputKind::Tar | OutputKind::Local => files(session, &drafts, output)?,
            OutputKind::Oci | OutputKind::Docker => image_file(session, &drafts, output, &names, outcome)?,
            OutputKind::Image => {
                let mut all = names.clone();
                all.extend(references(&output.names)?);
                keep(session, &drafts, &all, outcome)?;
                if output.push {
                    push(session, &drafts, output, &all, outcome)?;
                }
            }
        }
        session.emit(TraceEvent::Exporting { what, finished: true });
    }
    let only_files = session.request.outputs.iter().all(|o| o.kind != OutputKind::Image);
    if session.request.outputs.is_empty() || (only_files && !names.is_empty()) {
        keep(session, &drafts, &names, outcome)?;
    }
    Ok(())
}

fn describe(output: &Output) -> String {
    match output.kind {
        OutputKind::Image if output.push => "exporting to the image store and pushing",
        OutputKind::Oci => "exporting to oci image format",
        OutputKind::Docker => "exporting to docker image format",
        OutputKind::Tar => "exporting to a tar file",
        OutputKind::Local => "exporting to a directory",
        OutputKind::Image => "exporting to the image store",
    }
    .to_owned()
}

fn references(names: &[String]) -> Result<Vec<Reference>, EngineError> {
    let parse = |name: &String| -> Result<Reference, EngineError> {
        let reference: Reference = name.parse().map_err(|e| EngineError::new(FailureKind::Usage, format!("{e}")))?;
        Ok(reference.with_default_tag())
    };
    names.iter().map(parse).collect()
}

fn draft<'a>(
    session: &Session<'_>,
    target: &'a Target,
    values: &[Option<Arc<Value>>],
) -> Result<Draft<'a>, EngineError> {
    let lost = || EngineError::new(FailureKind::Step, "a step of the image has no result");
    let value = |id: memobuild_plan::model::StepId| values.get(id.0).and_then(Option::as_ref).ok_or_else(lost);
    let epoch = session.commit_epoch.or(session.source_epoch);
    let mut config = target.config.clone();
    let mut latest = None;
    let mut history = Vec::new();
    config.rootfs = Default::default();
    // What the base image carries is of no use to those who have this one.
    config.other.remove(memobuild_cache::INLINE_FIELD);
    if let Some(base) = target.base.and_then(|index| session.plan.images.get(index)) {
        config.rootfs.diff_ids.clone_from(&base.config.rootfs.diff_ids);
        history.clone_from(&base.config.history);
        latest = base.config.created.as_deref().and_then(time::parse_rfc3339);
    }
    let mut layers = Vec::new();
    let mut empty_since = Vec::new();
    // A context that the image stands on is a layer as well.
    if let Some((bundle, created)) = value(step::bottom(&session.plan.steps, target.root))?.change {
        layers.push(bundle);
        latest = Some((created, 0));
        empty_since.push((history.len(), latest));
        history.push(History {
            created: None,
            created_by: "FROM context".into(),
            author: String::new(),
            comment: "buildkit.dockerfile.v0".into(),
            empty_layer: false,
        });
    }
    for entry in &target.history {
        let change = match entry.step {
            Some(step) => value(step)?.change,
            None => None,
        };
        if let Some((bundle, created)) = change {
            layers.push(bundle);
            latest = Some((created, 0));
        }
        empty_since.push((history.len(), latest));
        history.push(History {
            created: None,
            created_by: entry.created_by.clone(),
            author: String::new(),
            comment: "buildkit.dockerfile.v0".into(),
            empty_layer: change.is_none(),
        });
    }
    let created = match epoch {
        Some(epoch) => (epoch, 0),
        None => latest.unwrap_or((session.now().secs, 0)),
    };
    for (index, known) in empty_since {
        let at = if epoch.is_some() { created } else { known.unwrap_or(created) };
        if let Some(entry) = history.get_mut(index) {
            entry.created = Some(time::rfc3339(at.0, at.1));
        }
    }
    config.created = Some(time::rfc3339(created.0, created.1));
    config.history = history;
    Ok(Draft { target, value: value(target.root)?.clone(), layers, config, created })
}

fn base<'s>(session: &'s Session<'_>, target: &Target) -> Result<Option<&'s Arc<BaseImage>>, EngineError> {
    let Some(index) = target.base else { return Ok(None) };
    session.bases.get(index).map(Some).ok_or_else(|| EngineError::step("the plan names an unknown base image"))
}

fn progress<'s>(session: &'s Session<'_>, what: String) -> impl Fn(u64, Option<u64>) + Sync + 's {
    move |done, total| {
        let finished = total.is_some_and(|total| done >= total);
        session.emit(TraceEvent::RemoteSync { what: what.clone(), done, total, finished });
    }
}

/// Runs a piece of work for each number below `count`, two at once; results in order.
fn each<T: Send>(count: usize, work: impl Fn(usize) -> Result<T, EngineError> + Sync) -> Result<Vec<T>, EngineError> {
    let next = AtomicUsize::new(0);
    let done: Mutex<BTreeMap<usize, Result<T, EngineError>>> = Mutex::default();
    let run = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            let result = work(index);
            if result.is_err() {
                next.store(count, Ordering::Relaxed);
            }
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(index, result);
        }
    };
    if count > 1 {
        std::thread::scope(|scope| {
            let second = std::thread::Builder::new().stack_size(codec::STACK).spawn_scoped(scope, in_same_span(run));
            run();
            // Without a second thread the first does all of it.
            drop(second);
        });
    } else {
        run();
    }
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// The image's layers as blobs in the store, and its manifest.
fn assemble(
    session: &Session<'_>,
    draft: &Draft<'_>,
    output: &Output,
    recipes: &mut BTreeMap<Sha256Digest, Recipe>,
) -> Result<Assembled, EngineError> {
    let Compression { method, level, force } = output.compression;
    let name = method.unwrap_or(CompressionMethod::Gzip).name();
    let compression = layer::Compression::parse(name, level)
        .ok_or_else(|| EngineError::new(FailureKind::Usage, format!("compression={name} is not known")))?;
    let epoch = session.commit_epoch.or(session.source_epoch);
    let policy = match (output.rewrite_timestamp, epoch) {
        (true, Some(epoch)) => TimestampPolicy::Clamp(epoch),
        _ => TimestampPolicy::Keep,
    };
    let mut config = draft.config.clone();
    let mut blobs: Vec<Descriptor> = Vec::new();
    if let Some(base) = base(session, draft.target)? {
        for (index, layer) in base.layers.iter().enumerate() {
            unless_cancelled(session)?;
            let what = progress(session, format!("base layer {}", layer.diff_id));
            let is_so = |blob| compression.needs_annotations() && compression.is_that_of(blob);
            if force && !layer.blob.as_ref().is_some_and(is_so) {
                let bundle = base.ensure_layer(index, &what).map_err(|e| failed(&e))?;
                let made = layer::export_layer(session.store, &bundle, compression, TimestampPolicy::Keep);
                let made = made.map_err(|e| failed(&e))?;
                warn(session, compression, &made.blob);
                if let Some(id) = config.rootfs.diff_ids.get_mut(index) {
                    *id = made.diff_id;
                }
                blobs.push(made.blob);
            } else if let (true, Some(blob)) = (output.push, &layer.blob) {
                // The registry may have it, so that nobody needs to fetch it.
                blobs.push(blob.clone());
            } else {
                blobs.push(base.ensure_blob(index, &what).map_err(|e| failed(&e))?);
            }
        }
    }
    let below = blobs.len();
    let early = match output.push {
        true => {
            let names = [references(&session.request.tags)?, references(&output.names)?].concat();
            Some(Early::start(&session.registries, session.store, &names))
        }
        false => None,
    };
    let own = each(draft.layers.len(), |index| {
        unless_cancelled(session)?;
        let bundle = draft.layers.get(index).ok_or_else(|| EngineError::step("a layer is gone"))?;
        session
            .share
            .note_general([layer::exported_record(bundle, compression, policy), layer::diff_id_record(bundle, policy)]);
        // The registry may have what was made of it before, on this machine or on another.
        let known = layer::known_export(session.store, bundle, compression, policy).map_err(|e| failed(&e))?;
        if let Some(known) = known.filter(|_| output.push) {
            warn(session, compression, &known.blob);
            early.iter().for_each(|early| early.offer(&known.blob));
            return Ok(known);
        }
        let made = layer::export_layer(session.store, bundle, compression, policy).map_err(|e| failed(&e))?;
        warn(session, compression, &made.blob);
        session.emit(TraceEvent::LayerBuilt { digest: made.blob.digest.to_string(), size: made.blob.size });
        early.iter().for_each(|early| early.offer(&made.blob));
        Ok(made)
    })?;
    drop(early);
    for (made, bundle) in own.into_iter().zip(&draft.layers) {
        recipes.insert(made.blob.digest, Recipe { bundle: *bundle, compression, policy });
        config.rootfs.diff_ids.push(made.diff_id);
        blobs.push(made.blob);
    }
    carry_cache(session, &mut config, below, &draft.layers)?;
    let bytes = json::config(&config).map_err(|e| failed(&e))?;
    let all = annotations(session, output);
    let own = annotate::of(&all, Level::Manifest, Some(&draft.target.platform));
    // Docker's manifests have no annotations; BuildKit takes OCI's too where they are needed.
    let docker_types = !output.oci_mediatypes.unwrap_or(true) && !compression.needs_annotations();
    output::assemble(session.store, &bytes, &blobs, &own, docker_types).map_err(|e| failed(&e))
}

/// The build's annotations and the output's own.
fn annotations(session: &Session<'_>, output: &Output) -> Vec<Annotation> {
    session.request.annotations.iter().chain(&output.annotations).cloned().collect()
}

/// A layer that is not what was asked for is no error, but is not passed over either.
fn warn(session: &Session<'_>, compression: layer::Compression, blob: &Descriptor) {
    if let Some(message) = compression.shortfall(blob) {
        session.emit(TraceEvent::Warning { message });
    }
}

/// `--cache-to type=inline`: the config tells what the image's layers are results of. `below` is the number of layers of
/// the base image.
fn carry_cache(
    session: &Session<'_>,
    config: &mut ImageConfig,
    below: usize,
    own: &[BundleId],
) -> Result<(), EngineError> {
    let layers: Vec<Option<BundleId>> =
        std::iter::repeat_n(None, below).chain(own.iter().map(|bundle| Some(*bundle))).collect();
    if let Some(field) = session.share.inline(session, &layers)? {
        config.other.insert(memobuild_cache::INLINE_FIELD.into(), field);
    }
    Ok(())
}

/// `type=oci` and `type=docker`.
fn image_file(
    session: &Session<'_>,
    drafts: &[Draft<'_>],
    output: &Output,
    tags: &[Reference],
    outcome: &mut BuildOutcome,
) -> Result<(), EngineError> {
    let mut names = tags.to_vec();
    names.extend(references(&output.names)?);
    let root = root(session, drafts, output, &shown(&names), outcome)?.descriptor;
    let created = drafts.first().map_or((0, 0), |d| d.created);
    note(outcome, &root, &names);
    let image = OutputImage { root, names, created: Some(time::rfc3339(created.0, created.1)) };
    let dest = destination(output, output.tar.unwrap_or(true))?;
    unless_cancelled(session)?;
    let write = if output.kind == OutputKind::Docker { output::write_docker } else { output::write_oci };
    write(session.store, &image, &dest).map_err(|e| failed(&e))
}

/// `push=true`.
fn push(
    session: &Session<'_>,
    drafts: &[Draft<'_>],
    output: &Output,
    names: &[Reference],
    outcome: &mut BuildOutcome,
) -> Result<(), EngineError> {
    if names.is_empty() {
        return Err(EngineError::new(FailureKind::Usage, "there is no name to push under")
            .with_hint("give one: -t REGISTRY/NAME:TAG"));
    }
    let Root { descriptor: root, recipes, referrers } = root(session, drafts, output, &shown(names), outcome)?;
    note(outcome, &root, names);
    unless_cancelled(session)?;
    let mut bases = Vec::new();
    for draft in drafts {
        bases.extend(base(session, draft.target)?.map(|base| &**base));
    }
    let what = names.iter().map(Reference::familiar).collect::<Vec<_>>().join(", ");
    let push =
        output::Push { store: session.store, registries: &session.registries, root: &root, bases, recipes, referrers };
    let told = progress(session, format!("pushing {what}"));
    let report = push.to(names, &told).map_err(|e| {
        let error = EngineError::chain(FailureKind::Registry, &e);
        match e.hint() {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    })?;
    if let Some(why) = report.refused {
        let message = format!("the registry takes no referrers; provenance and SBOM are in the image's index: {why}");
        session.emit(TraceEvent::Warning { message });
    }
    #[cfg(feature = "sign")]
    if let Some(key) = &session.request.sign {
        crate::sign::push(&session.registries, key, names, &root)?;
    }
    Ok(())
}

/// Names in full.
fn shown(names: &[Reference]) -> Vec<String> {
    names.iter().map(Reference::to_string).collect()
}

fn note(outcome: &mut BuildOutcome, root: &Descriptor, names: &[Reference]) {
    outcome.image = Some(root.digest);
    outcome.descriptor = Some((root.media_type.clone(), root.size));
    outcome.names = names.iter().map(Reference::familiar).collect();
}

fn destination(output: &Output, tar: bool) -> Result<Dest, EngineError> {
    Ok(match (&output.dest, tar) {
        (Some(Destination::Stdout), true) | (None, true) => Dest::Stdout,
        (Some(Destination::Path(path)), true) => Dest::File(path.clone()),
        (Some(Destination::Path(path)), false) => Dest::Dir(path.clone()),
        (_, false) => {
            return Err(EngineError::new(FailureKind::Usage, "this output needs dest=DIRECTORY"));
        }
    })
}

/// `type=tar` and `type=local`.
fn files(session: &Session<'_>, drafts: &[Draft<'_>], output: &Output) -> Result<(), EngineError> {
    let [draft] = drafts else {
        return Err(EngineError::new(FailureKind::Usage, "file outputs take one platform at a time")
            .with_hint("give one --platform, or use type=oci"));
    };
    let tree = draft.value.tree(session.store)?;
    let epoch = session.commit_epoch.or(session.source_epoch);
    if output.kind == OutputKind::Tar {
        let dest = destination(output, true)?;
        return output::write_tar(session.store, &tree, epoch, &dest).map_err(|e| failed(&e));
    }
    let Dest::Dir(dir) = destination(output, false)? else {
        return Err(EngineError::new(FailureKind::Usage, "type=local needs dest=DIRECTORY"));
    };
    for message in output::write_local(session.store, &tree, epoch, &dir).map_err(|e| failed(&e))? {
        session.emit(TraceEvent::Warning { message });
    }
    Ok(())
}

/// Takes blobs over from a layout or archive of the user's, which may be gone when the image is wanted. What a registry
/// has stays there.
fn bring_blobs(session: &Session<'_>, base: &BaseImage, layers: &mut [BaseLayer]) -> Result<(), EngineError> {
    for (index, layer) in layers.iter_mut().enumerate() {
        if layer.origin.is_none() && layer.bundle.is_none() {
            unless_cancelled(session)?;
            let what = progress(session, format!("base layer {}", layer.diff_id));
            layer.blob = Some(base.ensure_blob(index, &what).map_err(|e| failed(&e))?);
        }
    }
    Ok(())
}

/// Keeps the image in the store, under its tags: config now, compressed layers when somebody wants them.
fn keep(
    session: &Session<'_>,
    drafts: &[Draft<'_>],
    names: &[Reference],
    outcome: &mut BuildOutcome,
) -> Result<(), EngineError> {
    let host = &session.request.options.build_platform;
    let own = drafts.iter().find(|d| d.target.platform == *host).or(drafts.first());
    let Some(draft) = own else { return Ok(()) };
    let takes_all = |o: &Output| o.push || matches!(o.kind, OutputKind::Oci | OutputKind::Docker);
    if drafts.len() > 1 && !session.request.outputs.iter().any(takes_all) {
        let message = format!(
            "memobuild's store keeps one platform of an image: {}; --push or --output type=oci take all of them",
            draft.target.platform
        );
        session.emit(TraceEvent::Warning { message });
    }
    let mut config = draft.config.clone();
    let mut layers: Vec<BaseLayer> = match base(session, draft.target)? {
        Some(base) => base.layers.clone(),
        None => Vec::new(),
    };
    if let Some(base) = base(session, draft.target)?
        && (!names.is_empty() || session.request.outputs.iter().any(|o| o.kind == OutputKind::Image))
    {
        bring_blobs(session, base, &mut layers)?;
    }
    let ids = each(draft.layers.len(), |index| {
        unless_cancelled(session)?;
        let bundle = draft.layers.get(index).ok_or_else(|| EngineError::step("a layer is gone"))?;
        session.share.note_general([layer::diff_id_record(bundle, TimestampPolicy::Keep)]);
        layer::layer_diff_id(session.store, bundle, TimestampPolicy::Keep).map_err(|e| failed(&e))
    })?;
    let below = layers.len();
    for (diff_id, bundle) in ids.into_iter().zip(&draft.layers) {
        config.rootfs.diff_ids.push(diff_id);
        layers.push(BaseLayer { diff_id, blob: None, bundle: Some(*bundle), origin: None });
    }
    carry_cache(session, &mut config, below, &draft.layers)?;
    let bytes = json::config(&config).map_err(|e| failed(&e))?;
    let digest: Sha256Digest = session.store.oci_blob_put(&bytes)?;
    let descriptor = Descriptor::new(media::CONFIG, digest, bytes.len() as u64);
    if outcome.config.is_none() {
        outcome.config = Some(digest);
    }
    outcome.names = names.iter().map(Reference::familiar).collect();
    let elsewhere = draft.layers.iter().any(|bundle| !session.store.holds_bundle(bundle));
    let caches = if elsewhere { session.share.places() } else { Vec::new() };
    let image = StoredImage { config: descriptor, layers, manifest: None, created_secs: draft.created.0, caches };
    if !names.is_empty() {
        image.tag(session.store, names).map_err(|e| failed(&e))?;
    }
    outcome.kept = Some(Kept { image, names: names.to_vec() });
    Ok(())
}
