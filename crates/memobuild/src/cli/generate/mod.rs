//! `memobuild generate-ci` and `memobuild generate-k8s`: files for other systems that build with a shared cache. What is
//! common to both; the documents themselves are made by one file each, from values alone.

mod ci;
mod github;
mod gitlab;
mod install;
mod k8s;
mod k8s_job;
mod k8s_server;
mod yaml;

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

pub(crate) use ci::{CiArgs, run as run_ci};
pub(crate) use k8s::{K8sArgs, run as run_k8s};

use super::{Failure, text};

/// `--cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cache {
    /// A `memobuild server`
    Server,
    /// The registry that the image is pushed to, under the tag `cache`
    Registry,
    /// None
    None,
}

/// What is built, and where the file goes.
#[derive(Debug, Args)]
struct Common {
    /// Dockerfile [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE", value_parser = line)]
    file: Option<String>,

    /// Stage to build
    #[arg(long, value_name = "STAGE", value_parser = line)]
    target: Option<String>,

    /// Platforms to build for, like linux/amd64,linux/arm64
    #[arg(long, value_name = "PLATFORM", value_parser = line)]
    platform: Option<String>,

    /// Build argument; may be given more than once
    #[arg(long = "build-arg", value_name = "KEY=VALUE", value_parser = line)]
    build_args: Vec<String>,

    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

impl Common {
    /// The options of `memobuild build` for these.
    fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        let mut flag = |name: &str, value: &str| flags.extend([name.to_owned(), value.to_owned()]);
        for (name, value) in [("--file", &self.file), ("--target", &self.target), ("--platform", &self.platform)] {
            if let Some(value) = value {
                flag(name, value);
            }
        }
        for argument in &self.build_args {
            flag("--build-arg", argument);
        }
        flags
    }
}

/// A text without line breaks and other control characters: it stands in one line of a document.
fn line(text: &str) -> Result<String, String> {
    match text.chars().any(char::is_control) || text.is_empty() {
        true => Err("expected some text without line breaks and control characters".into()),
        false => Ok(text.to_owned()),
    }
}

/// A word for a shell as POSIX has it: in single quotes where it needs any.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Writes a document to a file, or to standard output for `-`. One with a secret in it is its owner's alone.
fn write(output: &Path, document: &str, force: bool, secret: bool) -> Result<(), Failure> {
    if output == Path::new("-") {
        return text::to_stdout(document);
    }
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::usage(format!("{} is there already", output.display()))
            .with_hint("--force replaces it, --output names another file, and --output - prints it"),
        _ => Failure::file(format!("cannot write {}", output.display()), &error),
    };
    if let Some(parent) = output.parent().filter(|p| *p != Path::new("")) {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let mode = if secret { 0o600 } else { 0o666 };
    if force {
        // Made anew: what was there may be readable by others, or a link to elsewhere.
        match std::fs::remove_file(output) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(output);
    file.and_then(|mut file| file.write_all(document.as_bytes())).map_err(failed)?;
    text::to_stderr(&format!("wrote {}\n", output.display()));
    Ok(())
}

/// `--output`, or what stands for it.
fn output(asked: Option<&PathBuf>, otherwise: &str) -> PathBuf {
    asked.cloned().unwrap_or_else(|| otherwise.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn words_for_a_shell() {
        for (word, quoted) in
            [("a/b:c", "a/b:c"), ("", "''"), ("a b", "'a b'"), ("$(x)", "'$(x)'"), ("it's", r"'it'\''s'"), ("~", "'~'")]
        {
            assert_eq!(shell(word), quoted);
        }
    }

    #[test]
    fn a_file_that_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.yml");
        write(&path, "1", false, false).unwrap();
        assert!(write(&path, "2", false, false).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1");
        write(&path, "3", true, true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "3");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
