//! What a finished build leaves for other programs: the image's ID, the metadata file, the dry run's table.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use memobuild_engine::{BuildOutcome, StepReport};
use memobuild_oci::reference::Reference;
use serde_json::{Map, Value, json};

use crate::cli::{Failure, text};

/// The image's ID: the config's digest, or that of the index where several platforms were built. Empty without image.
pub(crate) fn image_id(outcome: &BuildOutcome) -> String {
    outcome.config.or(outcome.image).map(|d| format!("{d}\n")).unwrap_or_default()
}

/// Writes what `--iidfile` and `--metadata-file` ask for, each at once or not at all.
pub(crate) fn write_files(outcome: &BuildOutcome, iid: Option<&Path>, metadata: Option<&Path>) -> Result<(), Failure> {
    if let Some(path) = iid {
        write_whole(path, image_id(outcome).trim_end().as_bytes())?;
    }
    if let Some(path) = metadata {
        write_whole(path, format!("{:#}\n", self::metadata(outcome)).as_bytes())?;
    }
    Ok(())
}

/// The keys that docker buildx writes.
fn metadata(outcome: &BuildOutcome) -> Value {
    let mut out = Map::new();
    if let Some(config) = outcome.config {
        out.insert("containerimage.config.digest".into(), config.to_string().into());
    }
    if let (Some(image), Some((media_type, size))) = (outcome.image, &outcome.descriptor) {
        let descriptor = json!({ "mediaType": media_type, "digest": image.to_string(), "size": size });
        out.insert("containerimage.descriptor".into(), descriptor);
    }
    if let Some(image) = outcome.image {
        out.insert("containerimage.digest".into(), image.to_string().into());
    }
    if !outcome.names.is_empty() {
        out.insert("image.name".into(), outcome.names.iter().map(|n| full(n)).collect::<Vec<_>>().join(",").into());
    }
    Value::Object(out)
}

/// The name with its registry and tag.
fn full(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |r| r.with_default_tag().to_string())
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failure = |e: io::Error| Failure::file(format!("cannot write {}", path.display()), &e);
    // What is no ordinary file (/dev/stdout, a pipe) can't be replaced by one.
    if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return fs::write(path, bytes).map_err(failure);
    }
    let name = path.file_name().ok_or_else(|| failure(io::ErrorKind::InvalidInput.into()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(hidden);
    let written = fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        failure(e)
    })
}

/// One line for each step, and a sum.
pub(crate) fn dry_run(outcome: &BuildOutcome) -> String {
    let row = |step: &StepReport| {
        let what = if step.executed() { "run" } else { "reuse" };
        [what.to_owned(), step.label.clone(), step.reason.clone().unwrap_or_default()]
    };
    let mut rows = vec![["WOULD".to_owned(), "STEP".to_owned(), "WHY".to_owned()]];
    rows.extend(outcome.steps.iter().map(row));
    let run = outcome.steps.iter().filter(|s| s.executed()).count();
    format!("{}\n{run} to run, {} to reuse\n", text::table(&rows), outcome.steps.len() - run)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use memobuild_engine::history::Outcome;
    use memobuild_tree::Sha256Digest;

    use super::*;

    fn outcome() -> BuildOutcome {
        let step = |label: &str, outcome, reason: Option<&str>| StepReport {
            label: label.into(),
            outcome,
            reason: reason.map(Into::into),
            ..StepReport::default()
        };
        BuildOutcome {
            image: Some(Sha256Digest::of(b"manifest")),
            config: Some(Sha256Digest::of(b"config")),
            descriptor: Some(("application/vnd.oci.image.manifest.v1+json".into(), 482)),
            names: vec!["app:1".into(), "docker.io/library/app:2".into()],
            kept: None,
            steps: vec![
                step("[1/2] FROM busybox", Outcome::Source, None),
                step("[2/2] RUN make", Outcome::Ran, Some("no result for these inputs")),
            ],
            duration: Duration::ZERO,
        }
    }

    #[test]
    fn metadata_has_the_keys_of_buildx() {
        insta::assert_snapshot!(format!("{:#}", metadata(&outcome())), @r#"
        {
          "containerimage.config.digest": "sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910",
          "containerimage.descriptor": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": "sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f",
            "size": 482
          },
          "containerimage.digest": "sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f",
          "image.name": "docker.io/library/app:1,docker.io/library/app:2"
        }
        "#);
    }

    #[test]
    fn the_dry_run_says_what_and_why() {
        insta::assert_snapshot!(dry_run(&outcome()), @r"
        WOULD  STEP                WHY
        reuse  [1/2] FROM busybox
        run    [2/2] RUN make      no result for these inputs

        1 to run, 1 to reuse
        ");
    }

    #[test]
    fn files_are_replaced_whole_and_leave_nothing_else_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("iid");
        fs::write(&path, "old and longer than what comes").unwrap();
        write_files(&outcome(), Some(&path), None).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), Sha256Digest::of(b"config").to_string());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_files(&outcome(), Some(&dir.path().join("no/such/dir")), None).is_err());
    }
}
