//! The command line. [`main`] reads the arguments, runs one command and turns a failure into text and an exit code.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use memobuild_observe::FailureKind;

mod build;
mod check;
mod completions;
mod config;
mod doctor;
mod du;
mod env;
mod explain;
mod export;
mod failure;
mod fsck;
mod generate;
mod graph;
mod history;
mod image;
mod images;
mod inspect;
mod load;
mod man;
mod planning;
mod progress_of;
mod prune;
mod pull;
mod push;
mod record;
mod server;
#[cfg(feature = "sign")]
mod sign;
mod signals;
mod source;
mod text;
mod values;
mod verify;

use failure::{CliResult, Failure};
pub(crate) use text::{bytes, colours_allowed, cut, paint, seconds, stderr_colour, terminal_is_dumb, without_password};

/// Builds container images from Dockerfiles: no daemon, no root, and only what changed runs again.
#[derive(Debug, Parser)]
#[command(name = "memobuild", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Environment:
  MEMOBUILD_CACHE_DIR  where results are kept
                       [default: $XDG_CACHE_HOME/memobuild, ~/.cache/memobuild]
  MEMOBUILD_JSON_LOGS  1 or true: logs as JSON lines
  RUST_LOG             which logs are written, like memobuild=debug
  TRACEPARENT          trace (W3C) that a build is part of
  OTEL_EXPORTER_OTLP_ENDPOINT
                       collector that spans of builds are sent to
  MEMOBUILD_CONFIG     settings of registries [default: ~/.config/memobuild/config.toml]
  MEMOBUILD_REGISTRY, MEMOBUILD_REPO
                       where images go that are pushed without a name
  MEMOBUILD_REMOTE_URL server (http://, https://) whose dashboard shows builds
  MEMOBUILD_TOKEN      USER:PASSWORD or bearer token for MEMOBUILD_REGISTRY;
                       bearer token for MEMOBUILD_REMOTE_URL
  DOCKER_CONFIG        directory of docker's config.json, for credentials
  SOURCE_DATE_EPOCH    the time that images carry, in seconds since 1970
  NO_COLOR             no colours

Exit codes:
  0 done                    4 cache or store error
  1 a step failed           5 registry or network error
  2 usage                   6 this machine cannot run steps
  3 Dockerfile error        128+N stopped by signal N";

#[derive(Debug, Subcommand)]
enum Command {
    Build(Box<build::BuildArgs>),
    Check(check::CheckArgs),
    Graph(graph::GraphArgs),
    ExplainCache(Box<explain::ExplainArgs>),
    History(history::HistoryArgs),
    Images(images::ImagesArgs),
    Inspect(inspect::InspectArgs),
    Export(export::ExportArgs),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
    Verify(Box<verify::VerifyArgs>),
    #[cfg(feature = "sign")]
    Sign(sign::SignArgs),
    Load(load::LoadArgs),
    Server(server::ServerArgs),
    GenerateCi(generate::CiArgs),
    #[command(name = "generate-k8s")]
    GenerateK8s(Box<generate::K8sArgs>),
    Du(du::DuArgs),
    Prune(prune::PruneArgs),
    Fsck(fsck::FsckArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Runs the command that the process's arguments name. The exit code is the one to end with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = crate::logging::init_if_asked() {
        return Failure::new(error.kind(), error.to_string()).report();
    }
    let run = || run(cli.command);
    // Trees may be deep, and whoever handles them recurses: a thread with the stack for it does all the work.
    let thread = std::thread::Builder::new().name("main".into()).stack_size(memobuild_tree::codec::STACK);
    let result = match thread.spawn(run) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(error) => Err(Failure::new(FailureKind::Machine, format!("cannot start a thread: {error}"))),
    };
    match result {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> CliResult {
    match command {
        Command::Build(args) => build::run(*args),
        Command::Check(args) => check::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::ExplainCache(args) => explain::run(&args),
        Command::History(args) => history::run(args),
        Command::Images(args) => images::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Push(args) => push::run(&args),
        Command::Verify(args) => verify::run(*args),
        #[cfg(feature = "sign")]
        Command::Sign(args) => sign::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Server(args) => server::run(args),
        Command::GenerateCi(args) => generate::run_ci(&args),
        Command::GenerateK8s(args) => generate::run_k8s(&args),
        Command::Du(args) => du::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Fsck(args) => fsck::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
        Command::Man(args) => man::run(&args, Cli::command()),
    }
}
