//! What names an image as a whole: its manifest, or an index over the images of several platforms and what they say of
//! themselves.

use std::collections::BTreeMap;

use memobuild_image::{Descriptor, media};
use memobuild_observe::TraceEvent;
use memobuild_oci::output::{self, Recipe};
use memobuild_tree::Sha256Digest;

use super::{Draft, annotations, assemble, failed};
use crate::{
    BuildOutcome, EngineError, Level, Output, OutputKind, annotate,
    attest::{self, About},
    session::Session,
};

/// The root of an image, in the store with all documents below it.
pub(super) struct Root {
    pub(super) descriptor: Descriptor,
    /// How layers are made that may not be in the store.
    pub(super) recipes: BTreeMap<Sha256Digest, Recipe>,
    /// Manifests that point to the images, for registries that list such.
    pub(super) referrers: Vec<Descriptor>,
}

/// Makes it. `names` are those that the image is given.
pub(super) fn root(
    session: &Session<'_>,
    drafts: &[Draft<'_>],
    output: &Output,
    names: &[String],
    outcome: &mut BuildOutcome,
) -> Result<Root, EngineError> {
    let all = annotations(session, output);
    let mut out = Vec::new();
    let (mut recipes, mut referrers) = (BTreeMap::new(), Vec::new());
    let attested = is_attested(session, output);
    let many = drafts.len() > 1 || attested;
    for draft in drafts {
        let made = assemble(session, draft, output, &mut recipes)?;
        outcome.config = (drafts.len() == 1).then_some(made.config.digest);
        let mut manifest = made.manifest;
        if many {
            let platform = &draft.target.platform;
            manifest.platform = Some(platform.clone());
            manifest.annotations = annotate::of(&all, Level::ManifestDescriptor, Some(platform));
        }
        out.push(manifest);
    }
    if attested {
        for (draft, manifest) in drafts.iter().zip(out.clone()) {
            let (own, others) = attach(session, draft, &manifest, names, outcome)?;
            out.push(own);
            referrers.extend(others);
        }
    }
    let mut descriptor = match <[Descriptor; 1]>::try_from(out) {
        Ok([only]) => only,
        Err(many) => {
            let docker_types = !output.oci_mediatypes.unwrap_or(true)
                && many.iter().all(|manifest| manifest.media_type == media::DOCKER_MANIFEST);
            let own = annotate::of(&all, Level::Index, None);
            output::assemble_index(session.store, many, &own, docker_types).map_err(|e| failed(&e))?
        }
    };
    descriptor.annotations.extend(annotate::of(&all, Level::IndexDescriptor, None));
    Ok(Root { descriptor, recipes, referrers })
}

/// Whether the image is to say something of itself. What `docker load` takes has no place for it.
fn is_attested(session: &Session<'_>, output: &Output) -> bool {
    if session.request.attestations.is_empty() {
        return false;
    }
    if output.kind == OutputKind::Docker {
        let message = "type=docker has no place for provenance and SBOM: they are left out (type=oci has)";
        session.emit(TraceEvent::Warning { message: message.into() });
        return false;
    }
    true
}

fn attach(
    session: &Session<'_>,
    draft: &Draft<'_>,
    manifest: &Descriptor,
    names: &[String],
    outcome: &BuildOutcome,
) -> Result<(Descriptor, Vec<Descriptor>), EngineError> {
    let above = session.above(draft.target.root);
    let own = |step: &&memobuild_plan::model::Step| step.id == draft.target.root || above.contains(&step.id);
    let about = About {
        manifest,
        tree: &|| draft.value.tree(session.store),
        names: names.to_vec(),
        steps: session.plan.steps.iter().filter(own).collect(),
        reports: &outcome.steps,
    };
    attest::attach(session, &about)
}
