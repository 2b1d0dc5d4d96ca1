//! The Dockerfile as the commands that only look at it read it: `check` and `graph`.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use memobuild_dockerfile::Dockerfile;
use memobuild_engine::{ContextInput, DockerfileInput};
use memobuild_observe::FailureKind;

use super::{Failure, text};

/// Reads and parses it.
pub(crate) fn read(context: &ContextInput, input: &DockerfileInput) -> Result<Dockerfile, Failure> {
    let (text, name) = bytes(context, input)?;
    parse(&text, &name)
}

/// Parses a text; the error shows the place.
fn parse(text: &[u8], name: &str) -> Result<Dockerfile, Failure> {
    memobuild_dockerfile::parse(text, name).map_err(|e| dockerfile_failure(e.diagnostic()))
}

/// What is wrong with a Dockerfile, with the marked excerpt. The word `error` comes with the failure itself.
pub(crate) fn dockerfile_failure(diagnostic: &memobuild_dockerfile::Diagnostic) -> Failure {
    let rendered = diagnostic.render(text::stderr_colour());
    Failure::rendered(FailureKind::Dockerfile, rendered)
}

fn bytes(context: &ContextInput, input: &DockerfileInput) -> Result<(Vec<u8>, String), Failure> {
    let path: PathBuf = match (input, context) {
        (DockerfileInput::Stdin, _) | (DockerfileInput::InContext, ContextInput::Stdin) => {
            let mut text = Vec::new();
            io::stdin().lock().read_to_end(&mut text).map_err(|e| Failure::file("cannot read standard input", &e))?;
            return Ok((text, "Dockerfile".into()));
        }
        (DockerfileInput::Path(path), _) => path.clone(),
        (DockerfileInput::InContext, ContextInput::Directory(dir)) => in_context(dir),
        (DockerfileInput::InContext, ContextInput::Url(_)) => {
            return Err(Failure::usage("only a local directory can be looked at: give the Dockerfile with --file"));
        }
    };
    let text = fs::read(&path).map_err(|e| missing(&path, &e))?;
    let name = path.file_name().map_or_else(|| "Dockerfile".into(), |n| n.to_string_lossy().into_owned());
    Ok((text, name))
}

/// `Dockerfile`, or `dockerfile` where only that is there.
fn in_context(dir: &Path) -> PathBuf {
    let usual = dir.join("Dockerfile");
    let lower = dir.join("dockerfile");
    if !usual.exists() && lower.exists() { lower } else { usual }
}

fn missing(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::file(format!("cannot read {}", path.display()), error).with_kind(FailureKind::Dockerfile);
    if error.kind() == io::ErrorKind::NotFound {
        return failure.with_hint("give the Dockerfile's path with --file; it is relative to the current directory");
    }
    failure
}
