//! HTTP agents: time limits, and which certificates are trusted and shown.

use std::{path::Path, sync::Arc, time::Duration};

use ureq::{
    Agent,
    config::ConfigBuilder,
    tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig, parse_pem},
    typestate::AgentScope,
    unversioned::transport::DefaultConnector,
};

use super::{names::Names, options::Certificates};

/// Where distributions keep the certificates that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// An agent that hands every status back, and gives up on silence but never on a long download. It trusts
/// `SSL_CERT_FILE`, else the system's certificates, else those built in; with `unchecked` any.
pub(crate) fn agent(unchecked: bool) -> Agent {
    agent_of(config(tls(Vec::new(), None, unchecked)))
}

/// The same for a server that is not worth waiting for: gives up after so long without a connection, and after so long
/// without a byte in either direction. It follows no redirects, so that a token goes nowhere else.
///
/// # Errors
/// A certificate's file that can't be used, by name.
pub fn impatient_agent(certificates: &Certificates, connect: Duration, silence: Duration) -> Result<Agent, String> {
    let config = config(certified(certificates, false)?)
        .max_redirects(0)
        .timeout_resolve(Some(connect))
        .timeout_connect(Some(connect))
        .timeout_recv_response(Some(silence))
        .timeout_per_read(Some(silence))
        .timeout_per_write(Some(silence))
        .max_idle_connections_per_host(8);
    Ok(agent_of(config))
}

/// The same for registries, which follow redirects themselves: each host has settings of its own.
pub(super) fn registry_agent(unchecked: bool) -> Agent {
    agent_of(config(tls(Vec::new(), None, unchecked)).max_redirects(0))
}

/// An agent for one host. The error names the file that can't be used.
pub(super) fn host_agent(certificates: &Certificates, unchecked: bool) -> Result<Agent, String> {
    Ok(agent_of(config(certified(certificates, unchecked)?).max_redirects(0)))
}

fn certified(files: &Certificates, unchecked: bool) -> Result<TlsConfig, String> {
    let mut own = Vec::new();
    for path in &files.ca {
        own.extend(some_certificates(path)?);
    }
    let client = match &files.client {
        Some(path) => Some(client(path, files.key.as_deref())?),
        None => None,
    };
    Ok(tls(own, client, unchecked))
}

fn tls(own: Vec<Certificate<'static>>, client: Option<ClientCert>, unchecked: bool) -> TlsConfig {
    // Reading some 150 certificates takes milliseconds, and nobody looks at them where nothing is checked.
    let roots = if unchecked { RootCerts::WebPki } else { roots(own) };
    TlsConfig::builder().root_certs(roots).client_cert(client).disable_verification(unchecked).build()
}

fn agent_of(config: ConfigBuilder<AgentScope>) -> Agent {
    Agent::with_parts(config.build(), DefaultConnector::default(), Names::default())
}

fn config(tls: TlsConfig) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .user_agent(concat!("memobuild/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(Duration::from_secs(20)))
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
}

fn client(path: &Path, key: Option<&Path>) -> Result<ClientCert, String> {
    let chain = some_certificates(path)?;
    let key_path = key.unwrap_or(path);
    let key = items(key_path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    let key = key.ok_or_else(|| format!("there is no private key in {} (or it has a password)", key_path.display()))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn some_certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let found = certificates(&items(path)?);
    if found.is_empty() { Err(format!("there is no certificate in {}", path.display())) } else { Ok(found) }
}

fn items(path: &Path) -> Result<Vec<PemItem<'static>>, String> {
    Ok(parse_pem(&read(path)?).filter_map(Result::ok).collect())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn certificates(items: &[PemItem<'static>]) -> Vec<Certificate<'static>> {
    let certificate = |item: &PemItem<'static>| match item {
        PemItem::Certificate(certificate) => Some(certificate.clone()),
        _ => None,
    };
    items.iter().filter_map(certificate).collect()
}

fn trusted_files() -> impl Iterator<Item = String> {
    let file = std::env::var("SSL_CERT_FILE").ok().filter(|f| !f.is_empty());
    file.into_iter().chain(BUNDLES.map(String::from))
}

/// These, and what is trusted anyway.
fn roots(mut own: Vec<Certificate<'static>>) -> RootCerts {
    let trusted =
        trusted_files().filter_map(|file| Some(certificates(&items(Path::new(&file)).ok()?))).find(|c| !c.is_empty());
    own.extend(trusted.unwrap_or_default());
    if own.is_empty() { RootCerts::WebPki } else { RootCerts::Specific(Arc::new(own)) }
}

/// For clients of other protocols than a registry's: as PEM, the authorities that are trusted on this machine, those of
/// `SSL_CERT_FILE` or else the system's, with `own` before them. `None` if there are none.
///
/// # Errors
/// A file of `own` that can't be used, by name.
pub fn trusted_pem(own: &Certificates) -> Result<Option<Vec<u8>>, String> {
    let mut pem = Vec::new();
    for path in &own.ca {
        some_certificates(path)?;
        pem.extend(read(path)?);
        pem.push(b'\n');
    }
    let trusted = trusted_files().find_map(|file| read(Path::new(&file)).ok().filter(|pem| has_some(pem)));
    pem.extend(trusted.unwrap_or_default());
    Ok(Some(pem).filter(|pem| !pem.is_empty()))
}

/// The certificate that a server is shown, and its key.
pub struct ClientPem {
    /// The certificate, and what leads up to its authority, as PEM.
    pub certificate: Vec<u8>,
    /// Its key, as PEM.
    pub key: Vec<u8>,
}

/// What a server is shown; `None` if there is nothing to show.
///
/// # Errors
/// A file that can't be used, by name.
pub fn client_pem(own: &Certificates) -> Result<Option<ClientPem>, String> {
    let Some(path) = &own.client else { return Ok(None) };
    let key = own.key.as_deref();
    client(path, key)?;
    Ok(Some(ClientPem { certificate: read(path)?, key: read(key.unwrap_or(path))? }))
}

fn has_some(pem: &[u8]) -> bool {
    parse_pem(pem).any(|item| matches!(item, Ok(PemItem::Certificate(_))))
}
