//! Which server, and as whom.

use memobuild_observe::{Secret, TraceContext};
use memobuild_oci::registry::Certificates;

/// A server of this project, or any cache of the Remote Execution API.
const SCHEMES: [&str; 4] = ["http://", "https://", "grpc://", "grpcs://"];

/// The server that a build shares its results with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteOptions {
    /// One of [`SCHEMES`], a host, and a path if the server is below one; with `grpc` the path is an instance's name.
    pub(crate) url: String,
    /// The bearer token, if there is one.
    pub token: Option<Secret>,
    /// What the server is trusted by, and shown.
    pub certificates: Certificates,
    /// Results of RUN steps are shared even if this user has one id only, so that owners are no true ones.
    pub single_owner: bool,
    /// What requests are part of: the server's logs name it.
    pub trace: Option<TraceContext>,
}

impl RemoteOptions {
    /// A server by its address, without a token. The error says what is wrong with the address.
    pub fn new(url: &str) -> Result<Self, String> {
        let url = url.trim().trim_end_matches('/');
        let rest = SCHEMES.iter().find_map(|scheme| url.strip_prefix(scheme));
        let Some(rest) = rest else {
            return Err(format!(
                "{url:?} is no address of a server: expected http://HOST:PORT or https://HOST, or with grpc:// or grpcs:// a cache of the Remote Execution API"
            ));
        };
        let host = rest.split('/').next().unwrap_or_default();
        if host.contains('@') {
            return Err("an address holds no password here: give a token in MEMOBUILD_TOKEN".into());
        }
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '\\' | '"' | '<' | '>');
        if host.is_empty() || !rest.chars().all(plain) {
            return Err(format!("{url:?} is no address of a server"));
        }
        let certificates = Certificates::default();
        Ok(Self { url: url.to_owned(), token: None, certificates, single_owner: false, trace: None })
    }

    /// Whether it speaks the Remote Execution API.
    pub(crate) fn is_grpc(&self) -> bool {
        ["grpc://", "grpcs://"].iter().any(|scheme| self.url.starts_with(scheme))
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(RemoteOptions::new("http://h:1/").unwrap().url(), "http://h:1");
        assert_eq!(RemoteOptions::new("https://h/cache").unwrap().url(), "https://h/cache");
        let grpc = RemoteOptions::new("grpc://h:1/instance").unwrap();
        assert!(grpc.is_grpc() && grpc.url() == "grpc://h:1/instance");
        for wrong in [
            "",
            "h:1",
            "grpc://",
            "grpcs:///x",
            "ftp://h",
            "http://",
            "https:///x",
            "http://u:p@h",
            "http://h?x",
            "http://h /",
            "http://h#",
        ] {
            assert!(RemoteOptions::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tokens_are_not_shown() {
        let options = RemoteOptions { token: Some("secret".into()), ..RemoteOptions::new("http://h").unwrap() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
