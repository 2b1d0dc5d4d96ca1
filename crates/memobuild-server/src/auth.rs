//! Who may do what: bearer tokens and certificates, with scopes.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, PoisonError, RwLock},
};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Authority};

use crate::{
    clock,
    peer::{Client, How},
    reply::ApiError,
    rexec,
    tokens::{AuthError, Token, read_tokens},
};

/// The subprotocol of `/ws`. A browser can send no other header with a WebSocket: a token comes as a second one,
/// `bearer.TOKEN`, which is never chosen and, unlike a query, is in nobody's logs.
pub(crate) const SUBPROTOCOL: &str = "memobuild.v1";

/// What a client may do; each scope includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Get blobs, records and metrics.
    Read,
    /// Put blobs and records.
    Write,
    /// Remove what is stored.
    Admin,
}

impl Scope {
    /// As tokens files and answers have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = AuthError;

    fn from_str(text: &str) -> Result<Self, AuthError> {
        [Self::Read, Self::Write, Self::Admin]
            .into_iter()
            .find(|scope| scope.name() == text)
            .ok_or_else(|| AuthError::Scope(text.chars().take(100).collect()))
    }
}

/// Decides about requests.
pub(crate) struct Auth {
    file: Option<PathBuf>,
    tokens: RwLock<Arc<Vec<Token>>>,
    /// What a client without a token may do.
    anonymous: Option<Scope>,
    /// What a client with a certificate may do.
    certificate: Option<Scope>,
}

impl Auth {
    /// Without tokens everybody on loopback may do everything. Elsewhere, and where there are tokens or certificates,
    /// nobody may do anything without one, unless anonymous access is asked for: then all may read and write.
    pub(crate) fn new(
        file: Option<&Path>,
        certificate: Option<Scope>,
        loopback: bool,
        allow_anonymous: bool,
    ) -> Result<Self, AuthError> {
        let closed = file.is_some() || certificate.is_some();
        let tokens = file.map(read_tokens).transpose()?.unwrap_or_default();
        let anonymous = match (closed, loopback, allow_anonymous) {
            (false, true, _) => Some(Scope::Admin),
            (_, _, true) => Some(Scope::Write),
            _ => None,
        };
        Ok(Self { file: file.map(Path::to_owned), tokens: RwLock::new(Arc::new(tokens)), anonymous, certificate })
    }

    /// Nobody at all could use the server.
    pub(crate) fn refuses_all(&self) -> bool {
        self.tokens().is_empty() && self.anonymous.is_none() && self.certificate.is_none()
    }

    /// Reads the file again. If it can't be read the tokens stay as they were.
    pub(crate) fn reload(&self) -> Result<(), AuthError> {
        if let Some(file) = &self.file {
            let tokens = Arc::new(read_tokens(file)?);
            *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
        }
        Ok(())
    }

    fn tokens(&self) -> Arc<Vec<Token>> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a request may go on, and who sent it. `certificate`: the name in the client's, if it has one.
    pub(crate) fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        certificate: Option<&str>,
    ) -> Result<Client, ApiError> {
        let Some(needed) = needed(method, path) else { return Ok(Client::unknown()) };
        let in_protocol = if path == "/ws" { protocol_token(headers) } else { None };
        let value = headers.get(header::AUTHORIZATION).or(in_protocol.as_ref());
        let (client, scope) = self.known(value, certificate)?;
        if scope < needed {
            let message = format!("this needs the scope {}, and the client has {}", needed.name(), scope.name());
            let error = ApiError::new(StatusCode::FORBIDDEN, "forbidden", message).with("scope", needed.name());
            return Err(error.of(client));
        }
        // Browsers let any page open a WebSocket to any server. One with a token is meant to be here.
        let by_itself = client.how != How::Token && headers.contains_key(header::ORIGIN);
        if path == "/ws" && by_itself && !of_this_host(headers) {
            return Err(cross_origin().of(client));
        }
        // A page in a browser may send requests here: from this machine, or with the certificate that the browser has. It
        // never has a token.
        if needed > Scope::Read && by_itself && !same_origin(headers, client.how) {
            return Err(cross_origin().of(client));
        }
        Ok(client)
    }

    /// Whose request it is, and what that client may do.
    pub(crate) fn client(&self, headers: &HeaderMap, certificate: Option<&str>) -> Result<(Client, Scope), ApiError> {
        self.known(headers.get(header::AUTHORIZATION), certificate)
    }

    /// The same by the value of `Authorization`, wherever that came from.
    fn known(
        &self,
        authorization: Option<&HeaderValue>,
        certificate: Option<&str>,
    ) -> Result<(Client, Scope), ApiError> {
        let tokens = self.tokens();
        match authorization {
            // Where there are no tokens none is better than another.
            Some(value) if !tokens.is_empty() => {
                let token = find(tokens.iter(), value).ok_or_else(unauthorized)?;
                let client = Client { name: token.info.name.as_str().into(), how: How::Token };
                if token.expired(clock::now()) {
                    let error = ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "the token has expired");
                    let value = HeaderValue::from_static("Bearer realm=\"memobuild\", error=\"invalid_token\"");
                    return Err(error.with_header(header::WWW_AUTHENTICATE, value).of(client));
                }
                Ok((client, token.info.scope))
            }
            _ => match (certificate, self.certificate) {
                (Some(name), Some(scope)) => Ok((Client { name: name.into(), how: How::Certificate }, scope)),
                _ => {
                    let scope = self.anonymous.ok_or_else(unauthorized)?;
                    Ok((Client::anonymous(), scope))
                }
            },
        }
    }
}

/// The token that a header names. All hashes are compared, each in constant time ([`blake3::Hash`] sees to that).
fn find<'a>(tokens: impl Iterator<Item = &'a Token>, value: &HeaderValue) -> Option<&'a Token> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    let hash = blake3::hash(token.trim_ascii());
    tokens.fold(None, |found, token| if token.hash == hash { Some(token) } else { found })
}

/// The one place that says which scope a request needs; what is not named here changes something.
fn needed(method: &Method, path: &str) -> Option<Scope> {
    // Whatever the method: a call is what its path names.
    if let Some(scope) = rexec::needed(path) {
        return Some(scope);
    }
    match (method, path) {
        (&Method::GET | &Method::HEAD, "/healthz" | "/readyz" | "/openapi.json") => None,
        // The dashboard is the same for all; what it shows it asks for like any client.
        (&Method::GET | &Method::HEAD, "/") => None,
        (&Method::GET | &Method::HEAD, path) if path.starts_with("/assets/") => None,
        (&Method::GET | &Method::HEAD, _) | (&Method::POST, "/cache/missing") => Some(Scope::Read),
        (_, "/gc") => Some(Scope::Admin),
        _ => Some(Scope::Write),
    }
}

/// Whether a request may change what is stored.
pub(crate) fn is_change(method: &Method, path: &str) -> bool {
    needed(method, path).is_some_and(|scope| scope > Scope::Read)
}

/// Whether a page came from this server. Without TLS it must have been asked for by address: a name may have been made to
/// point here.
fn same_origin(headers: &HeaderMap, how: How) -> bool {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let origin = text(header::ORIGIN).and_then(|o| o.split_once("://")).map(|(_, host)| host);
    let host = text(header::HOST);
    let uri = host.and_then(|host| host.parse::<Authority>().ok());
    let by_address = uri.is_some_and(|uri| {
        let name = uri.host().trim_matches(['[', ']']);
        name == "localhost" || name.parse::<IpAddr>().is_ok()
    });
    (by_address || how == How::Certificate) && origin.is_some() && origin == host
}

/// Whether a page came from where the request goes to.
fn of_this_host(headers: &HeaderMap) -> bool {
    let origin = headers.get(header::ORIGIN).and_then(|v| v.to_str().ok()).and_then(|o| o.split_once("://"));
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok());
    origin.is_some_and(|(_, origin)| Some(origin) == host)
}

/// The token among the subprotocols of a WebSocket, as `Authorization` would have it.
fn protocol_token(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let token = offered.flat_map(|value| value.split(',')).find_map(|one| one.trim().strip_prefix("bearer."))?;
    HeaderValue::try_from(format!("Bearer {token}")).ok()
}

fn cross_origin() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "cross_origin", "the request comes from another site's page")
}

fn unauthorized() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "a valid bearer token is needed")
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"memobuild\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use std::{cell::Cell, time::Duration};

    use super::*;
    use crate::{add_expiring_token, add_token, revoke_token};

    fn bearer(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    #[test]
    fn tokens_are_found_and_other_texts_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let token = add_token(&path, "ci", Scope::Write).unwrap();
        add_token(&path, "other", Scope::Write).unwrap();
        let tokens = read_tokens(&path).unwrap();
        let named = |value: String| find(tokens.iter(), &value.parse().unwrap()).map(|t| t.info.name.clone());
        assert_eq!(named(format!("Bearer {token}")), Some("ci".into()));
        assert_eq!(named(format!("bearer {token}")), Some("ci".into()));
        let hash = blake3::hash(token.as_bytes()).to_hex();
        for bad in [
            format!("Bearer {token}x"),
            format!("Bearer {}", &token[..token.len() - 1]),
            token.clone(),
            format!("Basic {token}"),
            "Bearer ".into(),
            // Who reads the file has no token.
            format!("Bearer {hash}"),
            format!("Bearer blake3:{hash}"),
        ] {
            assert_eq!(named(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn the_time_of_a_comparison_tells_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let given: Vec<String> = (0..5).map(|n| add_token(&path, &format!("t{n}"), Scope::Read).unwrap()).collect();
        let tokens = read_tokens(&path).unwrap();
        // Hashes, whose `==` is made for this, and never the texts; and all of them, wherever the right one stands.
        let _: &blake3::Hash = &tokens[0].hash;
        for (n, token) in given.iter().map(String::as_str).chain(["mb_none"]).enumerate() {
            let seen = Cell::new(0);
            let counted = tokens.iter().inspect(|_| seen.set(seen.get() + 1));
            let found = find(counted, &format!("Bearer {token}").parse().unwrap());
            assert_eq!(found.map(|t| t.info.name.clone()), (n < 5).then(|| format!("t{n}")));
            assert_eq!(seen.get(), 5);
        }
    }

    #[test]
    fn tokens_expire_and_are_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let late = add_expiring_token(&path, "late", Scope::Admin, Duration::ZERO).unwrap();
        let good = add_expiring_token(&path, "good", Scope::Admin, Duration::from_secs(3600)).unwrap();
        let auth = Auth::new(Some(&path), None, true, false).unwrap();
        let check = |token: &str| auth.check(&Method::GET, "/cache/x", &bearer(token), None);
        assert_eq!(check(&late).unwrap_err().code(), "unauthorized");
        assert_eq!(&*check(&good).unwrap().name, "good");
        revoke_token(&path, "good").unwrap();
        assert!(check(&good).is_ok());
        auth.reload().unwrap();
        assert!(check(&good).is_err());
        // A broken file changes nothing.
        let again = add_token(&path, "again", Scope::Read).unwrap();
        auth.reload().unwrap();
        std::fs::write(&path, "nonsense").unwrap();
        assert!(auth.reload().is_err());
        assert!(check(&again).is_ok());
    }

    #[test]
    fn certificates_have_the_scope_that_is_given_to_them() {
        let auth = Auth::new(None, Some(Scope::Write), true, false).unwrap();
        let check = |method, path, name| auth.check(&method, path, &HeaderMap::new(), name);
        let client = check(Method::PUT, "/cache/x", Some("laptop")).unwrap();
        assert_eq!((&*client.name, client.how), ("laptop", How::Certificate));
        assert_eq!(check(Method::POST, "/gc", Some("laptop")).unwrap_err().code(), "forbidden");
        // Loopback opens nothing where certificates are asked for.
        assert!(check(Method::GET, "/cache/x", None).is_err());
        // A token that is sent along counts, for better or worse.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let token = add_token(&path, "ops", Scope::Admin).unwrap();
        let auth = Auth::new(Some(&path), Some(Scope::Read), false, false).unwrap();
        let client = auth.check(&Method::POST, "/gc", &bearer(&token), Some("laptop")).unwrap();
        assert_eq!(&*client.name, "ops");
        assert!(auth.check(&Method::GET, "/cache/x", &bearer("mb_0"), Some("laptop")).is_err());
        assert!(auth.check(&Method::GET, "/cache/x", &HeaderMap::new(), Some("laptop")).is_ok());
    }

    #[test]
    fn what_anonymous_clients_may_do() {
        let allowed = |auth: &Auth, method, path| auth.check(&method, path, &HeaderMap::new(), None).is_ok();
        let home = Auth::new(None, None, true, false).unwrap();
        assert!(allowed(&home, Method::PUT, "/cache/x") && allowed(&home, Method::POST, "/gc"));
        let closed = Auth::new(None, None, false, false).unwrap();
        assert!(closed.refuses_all() && !allowed(&closed, Method::GET, "/cache/x"));
        assert!(allowed(&closed, Method::GET, "/healthz"));
        let open = Auth::new(None, None, false, true).unwrap();
        assert!(allowed(&open, Method::PUT, "/cache/x") && !allowed(&open, Method::POST, "/gc"));
        assert!(!allowed(&open, Method::DELETE, "/gc"));
    }

    #[test]
    fn pages_of_other_sites_can_change_nothing() {
        let auth = Auth::new(None, None, true, false).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8080"));
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://example.com"));
        assert!(auth.check(&Method::POST, "/gc", &headers, None).is_err());
        for (host, allowed) in
            [("127.0.0.1:8080", true), ("[::1]:8080", true), ("localhost", true), ("rebound.example:8080", false)]
        {
            headers.insert(header::HOST, host.parse().unwrap());
            headers.insert(header::ORIGIN, format!("http://{host}").parse().unwrap());
            assert_eq!(auth.check(&Method::POST, "/gc", &headers, None).is_ok(), allowed, "{host}");
        }
    }

    #[test]
    fn pages_can_use_a_browsers_certificate_only_from_here() {
        let auth = Auth::new(None, Some(Scope::Admin), false, false).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("cache.example"));
        for (origin, allowed) in [("https://cache.example", true), ("https://example.com", false), ("null", false)] {
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(auth.check(&Method::POST, "/gc", &headers, Some("me")).is_ok(), allowed, "{origin}");
        }
    }
}
