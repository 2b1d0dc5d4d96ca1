//! `memobuild server`: the shared cache as a service.

mod security;
mod token;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use memobuild_observe::FailureKind;
use memobuild_server::{AuthError, Config, Scope, ServerError, serve_with};
use security::SecurityArgs;
use token::TokenCommand;

use super::{CliResult, Failure, text, values};

/// Serve a cache that several machines share, over HTTP
///
/// Anybody on this machine may use it, nobody else: to let others in, make tokens for them and listen on an address
/// that they reach. Without --tls-cert it speaks plain HTTP: for networks that are your own, or behind a proxy that has
/// TLS. SIGTERM ends it, once what is being received is stored; SIGHUP has it read certificates, tokens and secrets again
/// and open its audit log anew.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ServerArgs {
    #[command(subcommand)]
    command: Option<ServerCommand>,

    /// Address and port to listen on; port 0 takes any that is free
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Port to listen on, in place of the one in --listen
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,

    /// Directory that keeps the cache; made if it is not there
    #[arg(long, value_name = "DIR", required = true)]
    data_dir: Option<PathBuf>,

    /// Keep blobs in an object store, like s3://bucket/prefix, gs:// or az://; needs --metadata
    ///
    /// Credentials and endpoints are taken from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
    /// AWS_ENDPOINT_URL (and AWS_ALLOW_HTTP=true where that has no TLS), GOOGLE_SERVICE_ACCOUNT,
    /// AZURE_STORAGE_ACCOUNT_NAME and their like. Any number of servers may share it; DIR then holds only what is being
    /// received.
    #[arg(long, value_name = "URL")]
    storage: Option<String>,

    /// Keep records in PostgreSQL, like postgres://user:password@host/database; needs --storage
    #[arg(long, value_name = "URL", env = "MEMOBUILD_METADATA", hide_env_values = true)]
    metadata: Option<String>,

    /// The most that the cache may take, like 100g; what was not used for longest goes
    #[arg(long, value_name = "BYTES", value_parser = values::size)]
    max_size: Option<u64>,

    /// Let clients without a token read and write, wherever they are
    #[arg(long)]
    allow_anonymous: bool,

    /// File with the hashes of tokens, as `server token add` writes it
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,

    #[command(flatten)]
    security: SecurityArgs,
}

#[derive(Debug, Subcommand)]
enum ServerCommand {
    /// Tokens of a server's clients
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
}

const EXAMPLES: &str = "\
Examples:
  For this machine:
    memobuild server --data-dir /var/cache/memobuild-server --max-size 100g
  For others:
    memobuild server token add ci --tokens /etc/memobuild/tokens --scope write
    memobuild server --listen 0.0.0.0:8080 --data-dir /var/cache/memobuild-server \\
      --tokens /etc/memobuild/tokens \\
      --tls-cert /etc/memobuild/tls.crt --tls-key /etc/memobuild/tls.key
  One of several that share a bucket and a database:
    memobuild server --listen 0.0.0.0:8080 --data-dir /var/tmp/memobuild-server \\
      --tokens /etc/memobuild/tokens \\
      --storage s3://bucket/prefix --metadata postgres://memobuild@db.example/memobuild";

pub(crate) fn run(args: ServerArgs) -> CliResult {
    match args.command {
        Some(ServerCommand::Token { command }) => token::run(command),
        None => {
            let Some(data_dir) = args.data_dir else { return Err(Failure::usage("--data-dir DIR is missing")) };
            let mut config = Config::new(data_dir);
            config.listen = args.listen;
            if let Some(port) = args.port {
                config.listen.set_port(port);
            }
            config.storage = args.storage;
            config.metadata = args.metadata;
            config.max_size = args.max_size;
            config.allow_anonymous = args.allow_anonymous;
            config.tokens = args.tokens;
            config.security = args.security.settings()?;
            let scheme = if config.security.tls.is_some() { "https" } else { "http" };
            let ready = move |addr| text::to_stderr(&format!("listening on {scheme}://{addr}\n"));
            serve_with(config, ready).map_err(|error| failure(&error))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    text.parse().map_err(|error: AuthError| error.to_string())
}

fn failure(error: &ServerError) -> Failure {
    let kind = match error {
        ServerError::Open(_) => FailureKind::Usage,
        ServerError::Tokens(AuthError::Scope(_) | AuthError::Name(_) | AuthError::Taken(_) | AuthError::Unknown(_)) => {
            FailureKind::Usage
        }
        ServerError::Tokens(AuthError::File { .. } | AuthError::Line { .. }) => FailureKind::Cache,
        ServerError::Tls(_) | ServerError::Webhooks(_) => FailureKind::Usage,
        ServerError::AuditLog { .. } | ServerError::Storage(_) => FailureKind::Cache,
        ServerError::Listen { .. } => FailureKind::Registry,
        ServerError::Runtime(_) => FailureKind::Machine,
    };
    let failure = Failure::caused(kind, error);
    match error {
        ServerError::Open(_) => failure.with_hint(
            "make a token with `memobuild server token add` and give --tokens FILE, or give --allow-anonymous if all who reach it may read and write",
        ),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_server_is_refused_with_what_helps() {
        let error = ServerError::Open(SocketAddr::from(([0, 0, 0, 0], 80)));
        insta::assert_snapshot!(failure(&error).render(false), @r"
        error: 0.0.0.0:80 can be reached by other machines, and there are no tokens that say who may use the cache
        hint: make a token with `memobuild server token add` and give --tokens FILE, or give --allow-anonymous if all who reach it may read and write
        ");
    }
}
