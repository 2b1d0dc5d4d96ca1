//! `memobuild generate-ci`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};

use super::{Cache, Common, github, gitlab, install::Install, line, output, shell, write};
use crate::cli::CliResult;

/// Write a CI file that builds an image with a shared cache
///
/// Pushes to one branch build, push the image, and write to the cache. Pull requests build and only read from it.
/// Passwords and tokens are the platform's own; what has to be set up is said at the head of the file.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CiArgs {
    /// Whose CI it is for
    #[arg(value_enum, value_name = "CI", default_value = "github")]
    service: Service,

    /// Directory that is built, seen from the repository's root
    #[arg(long, value_name = "DIR", default_value = ".", value_parser = line)]
    context: String,

    #[command(flatten)]
    common: Common,

    /// Name of the image, without a tag [default: the repository's own in the platform's registry]
    #[arg(short, long, value_name = "NAME", value_parser = line)]
    tag: Option<String>,

    /// Branch whose pushes are published
    #[arg(long, value_name = "BRANCH", default_value = "main", value_parser = branch)]
    branch: String,

    /// Where jobs share what they have built
    #[arg(long, value_enum, default_value = "registry")]
    cache: Cache,

    /// Machine that jobs run on: a label of GitHub's [default: ubuntu-24.04], an image for GitLab [default: debian:12, or
    /// rust:1 with --cargo-git]
    #[arg(long, value_name = "NAME", value_parser = line)]
    runner: Option<String>,

    #[command(flatten)]
    install: Install,

    /// File to write; - is standard output [default: .github/workflows/image.yml, .gitlab-ci.yml]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  For GitHub Actions, with the cache beside the image in GitHub's registry:
    memobuild generate-ci github
  For GitLab, with a memobuild server, whose address and tokens are variables of the project:
    memobuild generate-ci gitlab --cache server
  memobuild from a file of one's own, and an image elsewhere:
    memobuild generate-ci --binary https://files.example/memobuild --tag registry.example/team/app
  To look at it first:
    memobuild generate-ci gitlab --output -";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Service {
    /// GitHub Actions
    Github,
    /// GitLab CI/CD
    Gitlab,
}

/// Without what ends a string in the platforms' expressions.
fn branch(text: &str) -> Result<String, String> {
    match text.contains(['"', '\'', '\\']) {
        true => Err("expected the name of a branch, without quotes".into()),
        false => line(text),
    }
}

/// What a file is made from.
pub(super) struct Job<'a> {
    /// As `memobuild build` has them, quoted for a shell, without what the platform adds.
    pub(super) flags: String,
    pub(super) context: String,
    /// The image's name, if it is not the platform's default.
    pub(super) tag: Option<&'a str>,
    pub(super) branch: &'a str,
    pub(super) cache: Cache,
    pub(super) runner: Option<&'a str>,
    pub(super) install: &'a Install,
}

impl Job<'_> {
    /// `memobuild build` for sh, with `$image` as the image's name. `commit`: what names the version that is built, in the
    /// platform's words.
    pub(super) fn build(&self, publish: bool, commit: &str) -> String {
        let mut lines = vec!["memobuild build --progress plain".to_owned()];
        if !self.flags.is_empty() {
            lines.push(self.flags.clone());
        }
        if self.cache == Cache::Registry {
            lines.push("--cache-from \"$image:cache\"".to_owned());
            if publish {
                lines.push("--cache-to \"type=registry,ref=$image:cache,mode=max\"".to_owned());
            }
        }
        match publish {
            true => lines.push(format!("--tag \"$image:latest\" --tag \"$image:{commit}\" --push")),
            false => lines.push(format!("--tag \"$image:{commit}\"")),
        }
        lines.push(shell(&self.context));
        lines.join(" \\\n  ") + "\n"
    }

    /// Commands for sh that write the registry's login where memobuild looks for it.
    pub(super) fn login(&self, host: &str, user: &str, password: &str) -> String {
        format!(
            "umask 077\n\
             mkdir -p \"$DOCKER_CONFIG\"\n\
             auth=$(printf '%s:%s' {user} {password} | base64 | tr -d '\\n')\n\
             printf '{{\"auths\":{{\"%s\":{{\"auth\":\"%s\"}}}}}}' {host} \"$auth\" >\"$DOCKER_CONFIG/config.json\"\n"
        )
    }

    /// The registry of an image that is not in the platform's own.
    pub(super) fn host(&self) -> Option<&str> {
        let (host, _) = self.tag?.split_once('/')?;
        (host.contains(['.', ':']) || host == "localhost").then_some(host)
    }
}

pub(crate) fn run(args: &CiArgs) -> CliResult {
    let flags: Vec<String> = args.common.flags().iter().map(|word| shell(word)).collect();
    let job = Job {
        flags: flags.join(" "),
        context: args.context.clone(),
        tag: args.tag.as_deref(),
        branch: &args.branch,
        cache: args.cache,
        runner: args.runner.as_deref(),
        install: &args.install,
    };
    let (document, otherwise) = match args.service {
        Service::Github => (github::document(&job), ".github/workflows/image.yml"),
        Service::Gitlab => (gitlab::document(&job), ".gitlab-ci.yml"),
    };
    write(&output(args.output.as_ref(), otherwise), &document, args.common.force, false)?;
    Ok(ExitCode::SUCCESS)
}
