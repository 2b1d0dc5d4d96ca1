//! A pipeline for GitLab CI/CD.

use std::fmt::Write as _;

use super::{
    Cache,
    ci::Job,
    yaml::{indent, string},
};

pub(super) fn document(job: &Job<'_>) -> String {
    let mut out = String::from("# Builds the image with memobuild: `memobuild generate-ci gitlab` wrote this.\n#\n");
    out.push_str(&head(job));
    out.push_str("stages: [image]\n\n");
    out.push_str(&base(job));
    out.push_str("\n# Reads from the cache, and writes nothing anywhere.\n");
    out.push_str(&one(job, false));
    out.push('\n');
    out.push_str(&one(job, true));
    out
}

/// What has to be set up, as comments.
fn head(job: &Job<'_>) -> String {
    let mut out = String::from("# Set in the project's settings (CI/CD, Variables):\n");
    if job.install.by_variables() {
        out.push_str(
            "#   MEMOBUILD_BINARY         URL of a memobuild for Linux\n\
             #   MEMOBUILD_BINARY_SHA256  its SHA-256\n",
        );
    }
    if job.cache == Cache::Server {
        out.push_str(
            "#   MEMOBUILD_REMOTE_URL     URL of the memobuild server\n\
             #   MEMOBUILD_READ_TOKEN     its token of scope read: masked\n\
             #   MEMOBUILD_WRITE_TOKEN    its token of scope write: masked and protected, so that only protected branches\n\
             #                            get it\n",
        );
    }
    if job.tag.is_some() {
        out.push_str(
            "#   REGISTRY_USER            name for the registry\n\
             #   REGISTRY_PASSWORD        its password or token: masked\n",
        );
    }
    if out.lines().count() == 1 {
        out = "# Nothing has to be set up: jobs have a login of the project's own registry.\n".into();
    }
    out
}

fn base(job: &Job<'_>) -> String {
    let runner = job.runner.unwrap_or(if job.install.by_cargo() { "rust:1" } else { "debian:12" });
    let mut out = format!(
        ".memobuild:\n\
         \x20 stage: image\n\
         \x20 image: {}\n\
         \x20 interruptible: true\n\
         \x20 variables:\n\
         \x20   DOCKER_CONFIG: $CI_PROJECT_DIR.docker\n",
        string(runner)
    );
    let mut commands = String::from("set -eu\nbin=\"$CI_PROJECT_DIR.memobuild/bin\"\n");
    if !job.install.by_cargo() {
        commands.push_str(
            "if ! command -v curl >/dev/null; then\n\
             \x20 apt-get update -q\n\
             \x20 apt-get install -q -y --no-install-recommends ca-certificates curl\n\
             fi\n",
        );
    }
    commands.push_str(&job.install.commands());
    commands.push_str("export PATH=\"$bin:$PATH\"\nmemobuild doctor\n");
    out.push_str("  before_script:\n    - |\n");
    out.push_str(&indent(&commands, 6));
    out
}

fn one(job: &Job<'_>, publish: bool) -> String {
    let (name, rule) = match publish {
        true => ("publish", format!("$CI_PIPELINE_SOURCE == \"push\" && $CI_COMMIT_BRANCH == \"{}\"", job.branch)),
        false => ("check", "$CI_PIPELINE_SOURCE == \"merge_request_event\"".to_owned()),
    };
    let mut out = format!("{name}:\n  extends: .memobuild\n");
    if publish {
        // One that is stopped halfway leaves the registry without what was promised.
        out.push_str("  interruptible: false\n  resource_group: image\n");
    }
    let _ = writeln!(out, "  rules:\n    - if: '{rule}'");
    let mut commands = match job.tag {
        Some(tag) => format!("image={}\n", super::shell(tag)),
        None => "image=$CI_REGISTRY_IMAGE\n".to_owned(),
    };
    if publish || job.cache == Cache::Registry {
        commands.push_str(&login(job, publish));
    }
    if job.cache == Cache::Server {
        let token = if publish { "MEMOBUILD_WRITE_TOKEN" } else { "MEMOBUILD_READ_TOKEN" };
        let _ = writeln!(
            commands,
            "if [ -n \"${{{token}:-}}\" ]; then export MEMOBUILD_TOKEN=\"${token}\"; else unset MEMOBUILD_REMOTE_URL; fi"
        );
    }
    commands.push_str(&job.build(publish, "$CI_COMMIT_SHA"));
    out.push_str("  script:\n    - |\n");
    out.push_str(&indent(&commands, 6));
    out
}

fn login(job: &Job<'_>, publish: bool) -> String {
    let Some(_) = job.tag else {
        return job.login("\"$CI_REGISTRY\"", "\"$CI_REGISTRY_USER\"", "\"$CI_REGISTRY_PASSWORD\"");
    };
    let host = super::shell(job.host().unwrap_or("https://index.docker.io/v1/"));
    let commands = job.login(&host, "\"$REGISTRY_USER\"", "\"$REGISTRY_PASSWORD\"");
    match publish {
        true => commands,
        // Merge requests from forks may have none: what anybody may read is read.
        false => format!("if [ -n \"${{REGISTRY_PASSWORD:-}}\" ]; then\n{}fi\n", indent(&commands, 2)),
    }
}
