//! A workflow for GitHub Actions.

use std::fmt::Write as _;

use super::{
    Cache,
    ci::Job,
    yaml::{indent, list, string},
};

/// Ubuntu 24.04 forbids namespaces to ordinary users by AppArmor, and memobuild wants ranges of ids for them.
const PREPARE: &str = "\
limit=kernel.apparmor_restrict_unprivileged_userns
if [ -e \"/proc/sys/kernel/${limit#kernel.}\" ]; then sudo sysctl -q -w \"$limit=0\"; fi
if ! command -v newuidmap >/dev/null; then
  sudo apt-get update -q
  sudo apt-get install -q -y --no-install-recommends uidmap
fi
memobuild doctor
";

pub(super) fn document(job: &Job<'_>) -> String {
    let mut out = String::from("# Builds the image with memobuild: `memobuild generate-ci github` wrote this.\n#\n");
    out.push_str(&head(job));
    let _ = write!(
        out,
        "name: image\n\
         on:\n\
         \x20 push:\n\
         \x20   branches: {}\n\
         \x20 pull_request:\n\
         concurrency:\n\
         \x20 group: image-${{{{ github.ref }}}}\n\
         \x20 cancel-in-progress: ${{{{ github.event_name == 'pull_request' }}}}\n\
         permissions: {{}}\n\
         jobs:\n",
        list(&[job.branch])
    );
    out.push_str("  # Reads from the cache, and writes nothing anywhere.\n");
    out.push_str(&one(job, false));
    out.push('\n');
    out.push_str(&one(job, true));
    out
}

/// What has to be set up, as comments.
fn head(job: &Job<'_>) -> String {
    let mut out = String::from("# Set in the repository's settings (Secrets and variables, Actions):\n");
    if job.install.by_variables() {
        out.push_str(
            "#   variable MEMOBUILD_BINARY         URL of a memobuild for Linux\n\
             #   variable MEMOBUILD_BINARY_SHA256  its SHA-256\n",
        );
    }
    if job.cache == Cache::Server {
        out.push_str(
            "#   variable MEMOBUILD_REMOTE_URL     URL of the memobuild server\n\
             #   secret   MEMOBUILD_READ_TOKEN     its token of scope read, for pull requests\n\
             #   secret   MEMOBUILD_WRITE_TOKEN    its token of scope write, for the branch that is published\n",
        );
    }
    if job.tag.is_some() {
        out.push_str(
            "#   secret   REGISTRY_USER            name for the registry\n\
             #   secret   REGISTRY_PASSWORD        its password or token\n",
        );
    }
    if out.lines().count() == 1 {
        out = "# Nothing has to be set up: the job's own token may push to ghcr.io.\n".into();
    }
    out
}

fn one(job: &Job<'_>, publish: bool) -> String {
    let (name, event) = if publish { ("publish", "push") } else { ("check", "pull_request") };
    let mut out = format!("  {name}:\n    if: github.event_name == '{event}'\n");
    let _ = writeln!(out, "    runs-on: {}", string(job.runner.unwrap_or("ubuntu-24.04")));
    out.push_str("    permissions:\n      contents: read\n");
    // Where no registry of GitHub's is read or written, its packages are none of the job's business.
    if job.tag.is_none() && (publish || job.cache == Cache::Registry) {
        let _ = writeln!(out, "      packages: {}", if publish { "write" } else { "read" });
    }
    out.push_str(
        "    steps:\n      - uses: actions/checkout@v4\n        with:\n          persist-credentials: false\n",
    );

    let mut install = "bin=\"$RUNNER_TEMP/memobuild/bin\"\n".to_owned();
    install.push_str(&job.install.commands());
    install.push_str("echo \"$bin\" >>\"$GITHUB_PATH\"\n");
    let variables: &[(&str, &str)] = match job.install.by_variables() {
        true => &[
            ("MEMOBUILD_BINARY", "${{ vars.MEMOBUILD_BINARY }}"),
            ("MEMOBUILD_BINARY_SHA256", "${{ vars.MEMOBUILD_BINARY_SHA256 }}"),
        ],
        false => &[],
    };
    out.push_str(&step("Install memobuild", variables, &install));
    out.push_str(&step("Let steps run as an ordinary user", &[], PREPARE));
    if publish || job.cache == Cache::Registry {
        out.push_str(&login(job, publish));
    }
    out.push_str(&build(job, publish));
    out
}

fn login(job: &Job<'_>, publish: bool) -> String {
    let host = job.host().unwrap_or(if job.tag.is_some() { "https://index.docker.io/v1/" } else { "ghcr.io" });
    let (user, password) = match job.tag {
        None => ("${{ github.actor }}", "${{ github.token }}"),
        Some(_) => ("${{ secrets.REGISTRY_USER }}", "${{ secrets.REGISTRY_PASSWORD }}"),
    };
    let mut commands = String::new();
    if !publish && job.tag.is_some() {
        commands.push_str("# Pull requests from forks have no secrets: what anybody may read is read.\n");
        commands.push_str("if [ -z \"$REGISTRY_PASSWORD\" ]; then exit 0; fi\n");
    }
    commands.push_str(&job.login(&super::shell(host), "\"$REGISTRY_USER\"", "\"$REGISTRY_PASSWORD\""));
    let env =
        [("DOCKER_CONFIG", "${{ runner.temp }}/docker"), ("REGISTRY_USER", user), ("REGISTRY_PASSWORD", password)];
    step("Log in to the registry", &env, &commands)
}

fn build(job: &Job<'_>, publish: bool) -> String {
    let mut commands = match job.tag {
        Some(tag) => format!("image={}\n", super::shell(tag)),
        // Names of images have no capitals.
        None => "image=\"ghcr.io/$(echo \"$GITHUB_REPOSITORY\" | tr '[:upper:]' '[:lower:]')\"\n".to_owned(),
    };
    let mut env = vec![("DOCKER_CONFIG", "${{ runner.temp }}/docker")];
    if job.cache == Cache::Server {
        let token = match publish {
            true => "${{ secrets.MEMOBUILD_WRITE_TOKEN }}",
            false => "${{ secrets.MEMOBUILD_READ_TOKEN }}",
        };
        env.extend([("MEMOBUILD_REMOTE_URL", "${{ vars.MEMOBUILD_REMOTE_URL }}"), ("MEMOBUILD_TOKEN", token)]);
        commands.push_str("# Pull requests from forks have no secrets, and build without the cache.\n");
        commands.push_str("if [ -z \"$MEMOBUILD_TOKEN\" ]; then unset MEMOBUILD_REMOTE_URL MEMOBUILD_TOKEN; fi\n");
    }
    commands.push_str(&job.build(publish, "$GITHUB_SHA"));
    let name = if publish { "Build and push" } else { "Build" };
    step(name, &env, &commands)
}

fn step(name: &str, env: &[(&str, &str)], commands: &str) -> String {
    let mut out = format!("- name: {name}\n");
    if !env.is_empty() {
        out.push_str("  env:\n");
        for (name, value) in env {
            // Expressions are the platform's: plain text for YAML.
            let _ = writeln!(out, "    {name}: {value}");
        }
    }
    out.push_str("  run: |\n");
    out.push_str(&indent(commands, 4));
    indent(&out, 6)
}
