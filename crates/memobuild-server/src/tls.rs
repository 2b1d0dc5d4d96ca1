//! TLS: certificates and keys from files, read again when asked to, and the name in a client's certificate.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use x509_cert::{
    Certificate,
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use crate::security::TlsFiles;

/// What a client may speak (ALPN, RFC 7301), best first. Must be what `serve.rs` speaks.
const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The longest name of a client that is taken from a certificate, in characters.
const LONGEST_NAME: usize = 200;

/// Certificates and keys that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is not there, or has nothing of what it should have.
    #[error("cannot read {what} from {path}")]
    File {
        /// Certificates, or a private key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// The file has no certificate in it.
    #[error("there is no certificate in {0}")]
    Empty(PathBuf),
    /// The key is another certificate's, or of a kind that is not known.
    #[error("the certificate in {path} can't be used with its key")]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// The authorities of clients can't be used.
    #[error("the authorities in {path} can't be used")]
    Authorities {
        /// Their file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Takes handshakes with the newest certificates.
pub(crate) struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub(crate) fn open(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), config: RwLock::new(load(files)?) })
    }

    /// Reads the files again, for connections that come from now on. If they can't be used all stays as it was.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let config = load(&self.files)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The handshake, and the name in the client's certificate.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        at_most: Duration,
    ) -> io::Result<(TlsStream<S>, Option<String>)> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let accepted = tokio::time::timeout(at_most, TlsAcceptor::from(config).accept(stream)).await;
        let stream = accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let name = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(name);
        Ok((stream, name))
    }
}

fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Pair { path: files.cert.clone(), source })?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let unusable =
                |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Authorities { path: path.clone(), source };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unusable(error.into()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error: VerifierBuilderError| unusable(error.into()))?)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::File {
        what: "a private key",
        path: files.key.clone(),
        source,
    })?;
    let mut config = builder
        .with_single_cert(certificates(&files.cert)?, key)
        .map_err(|source| TlsError::Pair { path: files.cert.clone(), source })?;
    config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { what: "certificates", path: path.to_owned(), source };
    let all: Vec<_> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if all.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(all) }
}

/// What a client is called in logs: the subject's common name (RFC 5280, section 4.1.2.6), else its first alternative name
/// (section 4.2.1.6), else the SHA-256 of the certificate. Of a certificate that was checked.
fn name(certificate: &CertificateDer<'_>) -> String {
    let parsed = Certificate::from_der(certificate).ok();
    let named = parsed.as_ref().and_then(|certificate| {
        let tbs = certificate.tbs_certificate();
        let common = tbs.subject().common_name().ok().flatten().map(|name| name.value().into_owned());
        common.filter(|name| !name.is_empty()).or_else(|| {
            let (_, names) = tbs.get_extension::<SubjectAltName>().ok()??;
            names.0.iter().find_map(|name| match name {
                GeneralName::DnsName(name) => Some(name.to_string()),
                GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
                GeneralName::Rfc822Name(mail) => Some(mail.to_string()),
                _ => None,
            })
        })
    });
    match named {
        // Names of different clients must stay different: none is cut or changed without saying so.
        Some(name) if name.chars().count() <= LONGEST_NAME && !name.chars().any(char::is_control) => name,
        _ => memobuild_tree::Sha256Digest::of(certificate).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_has_a_name_all_the_same() {
        let name = name(&CertificateDer::from(vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]));
        assert!(name.starts_with("sha256:") && name.len() == 71, "{name}");
    }
}
