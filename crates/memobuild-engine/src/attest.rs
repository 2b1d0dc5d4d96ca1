//! What an image says of itself: provenance of its build, a list of what is in it (`--provenance`, `--sbom`).

use std::{
    collections::BTreeMap,
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use memobuild_attest::{
    Contents, TreeFiles,
    attach::{self, Attachment, Form},
    provenance::{self, Build, ConfigSource, Credential, Material, Mode},
    sbom,
    statement::{Statement, Subject},
};
use memobuild_image::Descriptor;
use memobuild_observe::{FailureKind, TraceEvent};
use memobuild_plan::model::{MountKind, Network, Op, Step};
use memobuild_tree::{File, KeyHasher, Sha256Digest, Tree};
use sha2::Digest as _;

use crate::{ContextInput, EngineError, StepReport, session::Session};

/// Who builds if nobody is named: memobuild, on somebody's machine.
const LOCAL: &str = "https://github.com/memobuild/memobuild/blob/main/docs/provenance.md#builder";

/// `--provenance`, `--sbom`, `--attest`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attestations {
    /// How the image came to be, and how much of that is told.
    pub provenance: Option<Provenance>,
    /// What is in it.
    pub sbom: bool,
}

/// `--provenance`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// `mode=max`: values of build arguments, the Dockerfile and all steps are told.
    pub max: bool,
    /// `builder-id=`: who builds.
    pub builder_id: String,
}

impl Attestations {
    /// Whether there is nothing to be said.
    pub fn is_empty(&self) -> bool {
        self.provenance.is_none() && !self.sbom
    }
}

/// An image to be spoken of.
pub(crate) struct About<'a> {
    /// Its manifest.
    pub(crate) manifest: &'a Descriptor,
    pub(crate) tree: &'a dyn Fn() -> Result<Tree, EngineError>,
    /// Names that it is given.
    pub(crate) names: Vec<String>,
    /// Bottom step of its target, and all that it stands on.
    pub(crate) steps: Vec<&'a Step>,
    pub(crate) reports: &'a [StepReport],
}

fn failed(error: &(dyn std::error::Error + 'static)) -> EngineError {
    EngineError::chain(FailureKind::Cache, error)
}

/// The manifests that attach what is asked for to an image: one for its index, and those for registries that list
/// referrers. All of their blobs are in the store then.
pub(crate) fn attach(session: &Session<'_>, about: &About<'_>) -> Result<(Descriptor, Vec<Descriptor>), EngineError> {
    let subjects = Subject::of_image(&about.names, about.manifest.platform.as_ref(), &about.manifest.digest);
    let mut statements = Vec::new();
    let wanted = &session.request.attestations;
    let state = |kind: &str, predicate: &[u8]| Statement::new(kind, &subjects, predicate).map_err(|e| failed(&e));
    if wanted.sbom {
        let document = bill_of_materials(session, about)?;
        statements.push(state(sbom::PREDICATE_TYPE, &document)?);
    }
    if let Some(provenance) = &wanted.provenance {
        let build = describe(session, about, provenance)?;
        let mode = if provenance.max { Mode::Max } else { Mode::Min };
        let predicate = build.to_json(mode).map_err(|e| failed(&e))?;
        statements.push(state(provenance::PREDICATE_TYPE, &predicate)?);
    }
    let keep = |attachment: Attachment| -> Result<Descriptor, EngineError> {
        for (_, bytes) in &attachment.blobs {
            session.store.oci_blob_put(bytes)?;
        }
        session.store.oci_blob_put(&attachment.manifest)?;
        Ok(attachment.descriptor)
    };
    let own = attach::attestation_manifest(about.manifest, &statements, Form::default()).map_err(|e| failed(&e))?;
    let mut referrers = Vec::new();
    for statement in &statements {
        let one = attach::referrer(about.manifest, std::slice::from_ref(statement)).map_err(|e| failed(&e))?;
        referrers.push(keep(one)?);
    }
    Ok((keep(own)?, referrers))
}

/// Reads files of the tree out of the store.
struct Stored<'a>(&'a memobuild_store::Store);

impl Contents for Stored<'_> {
    fn read_at(&self, file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let content = self.0.content(&file.content).map_err(io::Error::other)?;
        let mut out = vec![0; len.min(usize::try_from(file.size.saturating_sub(offset)).unwrap_or(usize::MAX))];
        let count = content.read_at(&mut out, offset)?;
        out.truncate(count);
        Ok(out)
    }
}

fn bill_of_materials(session: &Session<'_>, about: &About<'_>) -> Result<Vec<u8>, EngineError> {
    let tree = (about.tree)()?;
    let scan = sbom::scan(&TreeFiles::new(&tree, Stored(session.store))).map_err(|e| failed(&e))?;
    for warning in &scan.warnings {
        let message = format!("SBOM: {}: {}", warning.path, warning.message);
        session.emit(TraceEvent::Warning { message });
    }
    let created = session.commit_epoch.or(session.source_epoch).unwrap_or_else(|| session.now().secs);
    let name = about.names.first().cloned().unwrap_or_else(|| about.manifest.digest.to_string());
    let document =
        sbom::Document { name: &name, image: about.manifest.digest, created, tool_version: env!("CARGO_PKG_VERSION") };
    document.to_json(&scan).map_err(|e| failed(&e))
}

fn time_of(time: SystemTime) -> (i64, u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}

/// What the build knows of itself.
fn describe(session: &Session<'_>, about: &About<'_>, wanted: &crate::Provenance) -> Result<Build, EngineError> {
    let request = session.request;
    let options = &request.options;
    let mut args = BTreeMap::new();
    args.extend(options.build_args.iter().map(|(name, value)| (format!("build-arg:{name}"), value.clone())));
    args.extend(options.labels.iter().map(|(name, value)| (format!("label:{name}"), value.clone())));
    args.extend(options.target.iter().map(|target| ("target".to_owned(), target.clone())));
    // Neither is how an image that is the same every time came to be this time.
    let told_anew = session.commit_epoch.is_none();
    if options.no_cache && told_anew {
        args.insert("no-cache".into(), String::new());
    }
    let credential = |id: &String| Credential { id: id.clone(), optional: false };
    // Reproducible images say nothing that changes from build to build.
    let (started, finished, invocation_id) = match session.commit_epoch {
        Some(epoch) => ((epoch, 0), (epoch, 0), about.manifest.digest.hex()),
        None => {
            let (started, now) = (time_of(session.started), time_of(SystemTime::now()));
            let mut id = KeyHasher::new("memobuild.invocation.v1");
            id.value(&started.0).u64(started.1.into()).u64(std::process::id().into());
            (started, now, id.finish().hex())
        }
    };
    let places: BTreeMap<usize, usize> = about.steps.iter().enumerate().map(|(at, step)| (step.id.0, at)).collect();
    let step = |step: &&Step| {
        let report = about.reports.get(step.id.0);
        let inputs = crate::schedule::inputs(step);
        provenance::Step {
            name: step.label.clone(),
            command: if let Op::Run(run) = &step.op { run.argv.clone() } else { Vec::new() },
            inputs: inputs.iter().filter_map(|id| places.get(&id.0).copied()).collect(),
            cached: told_anew && report.is_some_and(|r| !r.executed()),
            lines: step.span.as_ref().map(|span| (span.first_line(), span.last_line())),
            layers: Vec::new(),
        }
    };
    let mut locals = Vec::new();
    for index in about.steps.iter().filter_map(|s| if let Op::Local(index) = s.op { Some(index) } else { None }) {
        let name = session.plan.locals.get(index).and_then(|local| local.name.clone());
        locals.push(name.unwrap_or_else(|| "context".into()));
    }
    locals.sort();
    locals.dedup();
    let online = |step: &&Step| match &step.op {
        Op::Run(run) => {
            run.network != Network::None || run.mounts.iter().any(|m| matches!(m.kind, MountKind::Ssh { .. }))
        }
        _ => false,
    };
    let uri = if let ContextInput::Url(url) = &request.context { Some(url.clone()) } else { None };
    Ok(Build {
        builder_id: if wanted.builder_id.is_empty() { LOCAL.into() } else { wanted.builder_id.clone() },
        version: env!("CARGO_PKG_VERSION").into(),
        invocation_id,
        started,
        finished,
        args,
        secrets: request.secrets.keys().map(credential).collect(),
        ssh: request.ssh.keys().map(credential).collect(),
        locals,
        config_source: ConfigSource {
            uri,
            commit: None,
            path: session.plan.source.name().to_owned(),
            dockerfile: session.plan.source.text().to_owned(),
        },
        materials: materials(session, &about.steps)?,
        steps: about.steps.iter().map(step).collect(),
        builder_platform: options.build_platform.clone(),
        vcs: BTreeMap::new(),
        reproducible: request.reproducible,
        hermetic: !about.steps.iter().any(online),
    })
}

fn materials(session: &Session<'_>, steps: &[&Step]) -> Result<Vec<Material>, EngineError> {
    let mut out = Vec::new();
    for step in steps {
        match &step.op {
            Op::Image(index) => {
                let (Some(planned), Some(image)) = (session.plan.images.get(*index), session.bases.get(*index)) else {
                    continue;
                };
                out.push(Material::Image {
                    reference: planned.name.clone(),
                    platform: Some(planned.platform.clone()),
                    digest: image.pinned,
                    local: image.layers.iter().all(|layer| layer.origin.is_none()),
                });
            }
            Op::Git(_) | Op::Http(_) => out.extend(
                session
                    .fetched(step.id)
                    .map(|fetched| match fetched {
                        Fetched::Git { url, commit } => Ok(Material::Git { url, commit }),
                        Fetched::Http { url, content } => {
                            let mut from = session.store.content(&content)?.reader();
                            let mut hasher = sha2::Sha256::new();
                            let mut buffer = vec![0; 128 * 1024];
                            loop {
                                let read = io::Read::read(&mut from, &mut buffer);
                                match read.map_err(|e| failed(&e))? {
                                    0 => break,
                                    n => hasher.update(buffer.get(..n).unwrap_or_default()),
                                }
                            }
                            let digest = Sha256Digest::from_bytes(hasher.finalize().into());
                            Ok::<_, EngineError>(Material::Http { url, digest })
                        }
                    })
                    .transpose()?,
            ),
            _ => {}
        }
    }
    Ok(out)
}

/// What a source yielded, for provenance.
#[derive(Debug, Clone)]
pub(crate) enum Fetched {
    /// A repository at a commit.
    Git {
        /// With the reference behind `#`.
        url: String,
        commit: String,
    },
    /// A file.
    Http { url: String, content: memobuild_tree::ContentDigest },
}
