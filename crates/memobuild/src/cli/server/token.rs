//! `memobuild server token`: the file of tokens.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Subcommand;
use memobuild_image::time::rfc3339;
use memobuild_server::{Scope, TokenInfo, add_expiring_token, add_token, list_tokens, revoke_token};

use super::super::{CliResult, text, values};

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, print it, and add its hash to a file
    ///
    /// The token is not kept: who loses it needs another. A server reads the file when it starts, and on SIGHUP.
    Add {
        /// Whose it is, for the log
        name: String,

        /// File to add it to; made if it is not there
        #[arg(long, value_name = "FILE")]
        tokens: PathBuf,

        /// What it allows: read, write (and read), or admin (all)
        #[arg(long, value_name = "SCOPE", default_value = "write", value_parser = super::scope)]
        scope: Scope,

        /// How long it is valid, like 90d; for good without this
        #[arg(long, value_name = "TIME", value_parser = values::age)]
        expires: Option<Duration>,
    },

    /// List the tokens in a file: names, scopes, and until when they are valid
    List {
        /// The file
        #[arg(long, value_name = "FILE")]
        tokens: PathBuf,
    },

    /// Take a token out of a file
    ///
    /// A server refuses it from the next SIGHUP on.
    Revoke {
        /// Whose it is
        name: String,

        /// The file
        #[arg(long, value_name = "FILE")]
        tokens: PathBuf,
    },
}

pub(crate) fn run(command: TokenCommand) -> CliResult {
    let failed = |error: memobuild_server::AuthError| super::failure(&error.into());
    match command {
        TokenCommand::Add { name, tokens, scope, expires } => {
            let token = match expires {
                Some(valid) => add_expiring_token(&tokens, &name, scope, valid),
                None => add_token(&tokens, &name, scope),
            };
            text::to_stdout(&format!("{}\n", token.map_err(failed)?))?;
        }
        TokenCommand::List { tokens } => {
            let lines: String = list_tokens(&tokens).map_err(failed)?.iter().map(line).collect();
            text::to_stdout(&lines)?;
        }
        TokenCommand::Revoke { name, tokens } => revoke_token(&tokens, &name).map_err(failed)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Three columns, apart by tabs: for programs too.
fn line(token: &TokenInfo) -> String {
    let expires = token.expires.map_or_else(|| "-".to_owned(), |at| rfc3339(at, 0));
    format!("{}\t{}\t{expires}\n", token.name, token.scope.name())
}
