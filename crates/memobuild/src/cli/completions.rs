//! `memobuild completions`.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::{CliResult, text};

/// Print a completion script for a shell
///
/// For bash: memobuild completions bash > ~/.local/share/bash-completion/completions/memobuild
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, command: &mut clap::Command) -> CliResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "memobuild", &mut script);
    text::bytes_to_stdout(&script)?;
    Ok(ExitCode::SUCCESS)
}
