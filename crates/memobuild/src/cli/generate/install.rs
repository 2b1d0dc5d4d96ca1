//! How a job gets memobuild: from a source that the user names, never one that is made up here.

use clap::Args;

use super::{line, shell};

/// Where a job takes memobuild from.
#[derive(Debug, Args)]
pub(super) struct Install {
    /// URL of a memobuild for Linux. Without this and --cargo-git the jobs take it from the variable MEMOBUILD_BINARY of
    /// the platform, and its SHA-256 from MEMOBUILD_BINARY_SHA256
    #[arg(long, value_name = "URL", value_parser = line, conflicts_with = "cargo_git", help_heading = "Installation")]
    binary: Option<String>,

    /// SHA-256 that it must have
    #[arg(long, value_name = "HEX", value_parser = sha256, requires = "binary", help_heading = "Installation")]
    sha256: Option<String>,

    /// Repository to build memobuild from, with cargo
    #[arg(long, value_name = "URL", value_parser = line, help_heading = "Installation")]
    cargo_git: Option<String>,

    /// Tag or commit of it
    #[arg(long, value_name = "REV", value_parser = line, requires = "cargo_git", help_heading = "Installation")]
    rev: Option<String>,
}

fn sha256(text: &str) -> Result<String, String> {
    match text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        true => Ok(text.to_owned()),
        false => Err("expected 64 lower-case hexadecimal digits".into()),
    }
}

impl Install {
    /// Whether the job's variables say where it is.
    pub(super) fn by_variables(&self) -> bool {
        self.binary.is_none() && self.cargo_git.is_none()
    }

    /// Whether a Rust toolchain builds it.
    pub(super) fn by_cargo(&self) -> bool {
        self.cargo_git.is_some()
    }

    /// Commands for sh that put it at `$bin/memobuild`.
    pub(super) fn commands(&self) -> String {
        if let Some(url) = &self.cargo_git {
            let rev = self.rev.as_ref().map(|rev| format!(" --rev {}", shell(rev))).unwrap_or_default();
            return format!("cargo install --locked --root \"${{bin%/bin}}\" --git {}{rev} memobuild\n", shell(url));
        }
        let mut out = String::new();
        let (url, digest) = match &self.binary {
            Some(url) => (shell(url), self.sha256.as_deref()),
            None => {
                out.push_str(
                    ": \"${MEMOBUILD_BINARY:?set this variable to the URL of a memobuild for Linux}\"\n\
                     : \"${MEMOBUILD_BINARY_SHA256:?set this variable to the SHA-256 of that file}\"\n",
                );
                ("\"$MEMOBUILD_BINARY\"".to_owned(), Some("$MEMOBUILD_BINARY_SHA256"))
            }
        };
        out.push_str("mkdir -p \"$bin\"\n");
        out.push_str(&format!("curl -fsSL --retry 3 -o \"$bin/memobuild\" {url}\n"));
        if let Some(digest) = digest {
            out.push_str(&format!("echo \"{digest}  $bin/memobuild\" | sha256sum -c -\n"));
        }
        out.push_str("chmod 755 \"$bin/memobuild\"\n");
        out
    }
}
