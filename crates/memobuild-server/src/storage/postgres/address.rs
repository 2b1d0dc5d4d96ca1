//! Where PostgreSQL is, and whether the way there is encrypted.

use std::{future::Future, pin::Pin};

use rustls::{ClientConfig, RootCertStore, crypto};
use tokio_postgres::{
    Client, Config, Error, NoTls,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::storage::{Result, StorageError};

/// A `postgres://` address that can be connected to.
pub(super) struct Address {
    config: Config,
    /// Without it the connection is not encrypted.
    tls: Option<MakeRustlsConnect>,
}

/// What moves a connection's bytes.
type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Address {
    /// Reads `postgres://user:password@host:port/database?sslmode=...`. Encrypted, and the server's certificate checked,
    /// unless it is this machine or `sslmode=disable` was asked for. `prefer`, which falls back to no encryption, counts as
    /// not said.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let shown = || text.rsplit_once('@').map_or(text, |(_, rest)| rest).to_owned();
        let bad = |reason: String| StorageError::Address { what: shown(), reason };
        // The message would have the password where the address can't be read.
        let mut config: Config = text.parse().map_err(|error: Error| {
            let cause = std::error::Error::source(&error).map(|s| format!(": {s}")).unwrap_or_default();
            bad(format!("not a PostgreSQL address{cause}"))
        })?;
        if config.get_hosts().is_empty() {
            return Err(bad("a PostgreSQL address names a host".into()));
        }
        if config.get_application_name().is_none() {
            config.application_name("memobuild");
        }
        config.tcp_user_timeout(std::time::Duration::from_secs(20)).keepalives_idle(std::time::Duration::from_secs(30));
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => None,
            SslMode::Require => Some(connector().map_err(bad)?),
            _ if config.get_hosts().iter().all(is_this_machine) => None,
            _ => Some(connector().map_err(bad)?),
        };
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        Ok(Self { config, tls })
    }

    pub(super) async fn connect(&self) -> std::result::Result<(Client, Driver), Error> {
        fn logged(result: std::result::Result<(), Error>) {
            if let Err(error) = result {
                tracing::debug!("a connection to the database ended: {error}");
            }
        }
        Ok(match &self.tls {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                (client, Box::pin(async { logged(connection.await) }))
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                (client, Box::pin(async { logged(connection.await) }))
            }
        })
    }
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        }
    }
}

/// Trusts what this system trusts; the variable SSL_CERT_FILE names other roots.
fn connector() -> std::result::Result<MakeRustlsConnect, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(
            "this system has no root certificates to check the server's with; SSL_CERT_FILE may name some".into()
        );
    }
    let config = ClientConfig::builder_with_provider(crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_encrypted_unless_it_is_short() {
        let encrypted = |text: &str| Address::parse(text).map(|address| address.tls.is_some());
        for here in [
            "postgres://u:p@localhost/db",
            "postgres://u@127.0.0.1:5433/db",
            "postgres://u@%2Frun%2Fpostgresql/db",
            "postgres://u@db.example/db?sslmode=disable",
        ] {
            assert!(matches!(encrypted(here), Ok(false)), "{here}");
        }
        // Where there are no roots that is said, and nothing is sent in the clear.
        for away in ["postgres://u@db.example/db", "postgres://u@localhost/db?sslmode=require"] {
            assert!(!matches!(encrypted(away), Ok(false)), "{away}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for text in ["postgres://u:secret@host:port/db", "postgres://u:secret@host/db?sslmode=maybe", "postgres://"] {
            let Err(error) = Address::parse(text) else { panic!("{text}") };
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
