//! HTTP agents: time limits, and which certificates are trusted.

use std::{sync::Arc, time::Duration};

use ureq::{
    Agent,
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

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
    let tls = TlsConfig::builder().root_certs(roots()).disable_verification(unchecked).build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .user_agent(concat!("memobuild/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(Duration::from_secs(20)))
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .build()
        .new_agent()
}

fn roots() -> RootCerts {
    let own = std::env::var("SSL_CERT_FILE").ok().filter(|f| !f.is_empty());
    let files = own.into_iter().chain(BUNDLES.map(String::from));
    for file in files {
        let Ok(text) = std::fs::read(&file) else { continue };
        let certs: Vec<_> = parse_pem(&text)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(cert)) => Some(cert),
                _ => None,
            })
            .collect();
        if !certs.is_empty() {
            return RootCerts::Specific(Arc::new(certs));
        }
    }
    RootCerts::WebPki
}
