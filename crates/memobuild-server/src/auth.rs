//! Who may do what: bearer tokens with scopes, kept as hashes.
//!
//! The file has a token a line: a name, a scope, and `blake3:` with the hash of the token. Tokens are 32 random bytes, so
//! a fast hash keeps them as well as a slow one. Lines that begin with `#` are comments.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Authority};

use crate::{reply::ApiError, rexec};

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

/// A file of tokens that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It can't be read or written.
    #[error("cannot {what} {path}")]
    File {
        /// Read or write.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line is not a name, a scope and a hash.
    #[error("{path}:{line}: expected a name, one of read, write and admin, and blake3: with 64 hexadecimal digits")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// No such scope.
    #[error("no such scope: {0:?} (there are read, write and admin)")]
    Scope(String),
    /// A name that would not be one word of a line.
    #[error("not a token's name: {0:?} (expected letters, digits, -, _, . or @)")]
    Name(String),
    /// A name that another token has.
    #[error("there is a token {0:?} already")]
    Taken(String),
}

impl AuthError {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

struct Token {
    name: String,
    scope: Scope,
    hash: blake3::Hash,
}

/// Makes a token, adds its hash to the file (made if it is not there, readable by its owner only) and gives the token,
/// which is not kept anywhere. A server reads the file when it starts.
///
/// # Errors
/// [`AuthError::Name`], [`AuthError::Taken`], and those of the file.
pub fn add_token(path: &Path, name: &str, scope: Scope) -> Result<String, AuthError> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(AuthError::Name(name.chars().take(100).collect()));
    }
    let known = match fs::exists(path) {
        Ok(true) => read_tokens(path)?,
        Ok(false) => Vec::new(),
        Err(error) => return Err(AuthError::file("read", path)(error)),
    };
    if known.iter().any(|token| token.name == name) {
        return Err(AuthError::Taken(name.to_owned()));
    }
    let mut random = [0; 32];
    let source = Path::new("/dev/urandom");
    File::open(source).and_then(|mut file| file.read_exact(&mut random)).map_err(AuthError::file("read", source))?;
    let token = format!("mb_{}", blake3::Hash::from_bytes(random).to_hex());
    let line = format!("{name} {} blake3:{}\n", scope.name(), blake3::hash(token.as_bytes()).to_hex());
    let mut file =
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(AuthError::file("write", path))?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(AuthError::file("write", path))?;
    Ok(token)
}

fn read_tokens(path: &Path) -> Result<Vec<Token>, AuthError> {
    let text = fs::read_to_string(path).map_err(AuthError::file("read", path))?;
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
    lines
        .map(|(at, line)| parse_token(line).ok_or_else(|| AuthError::Line { path: path.to_owned(), line: at + 1 }))
        .collect()
}

fn parse_token(line: &str) -> Option<Token> {
    let mut words = line.split_whitespace();
    let (name, scope, hash) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let hash = blake3::Hash::from_hex(hash.strip_prefix("blake3:")?).ok()?;
    Some(Token { name: name.to_owned(), scope: scope.parse().ok()?, hash })
}

/// Decides about requests.
pub(crate) struct Auth {
    tokens: Vec<Token>,
    /// What a client without a token may do.
    anonymous: Option<Scope>,
}

impl Auth {
    /// Without tokens everybody on loopback may do everything. Elsewhere, and where there are tokens, nobody may do
    /// anything without one, unless anonymous access is asked for: then all may read and write.
    pub(crate) fn new(tokens: Option<&Path>, loopback: bool, allow_anonymous: bool) -> Result<Self, AuthError> {
        let has_file = tokens.is_some();
        let tokens = tokens.map(read_tokens).transpose()?.unwrap_or_default();
        let anonymous = match (has_file, loopback, allow_anonymous) {
            (false, true, _) => Some(Scope::Admin),
            (_, _, true) => Some(Scope::Write),
            _ => None,
        };
        Ok(Self { tokens, anonymous })
    }

    /// Nobody at all could use the server.
    pub(crate) fn refuses_all(&self) -> bool {
        self.tokens.is_empty() && self.anonymous.is_none()
    }

    /// Whether a request may go on; the name of its token, for the log.
    pub(crate) fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<&str, ApiError> {
        let Some(needed) = needed(method, path) else { return Ok("-") };
        let (name, scope) = self.client(headers)?;
        if scope < needed {
            let message = format!("this needs the scope {}, and the client has {}", needed.name(), scope.name());
            return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message).with("scope", needed.name()));
        }
        // A page in a browser on the server's machine may send requests there too; it never has a token.
        if needed > Scope::Read && name == "-" && headers.contains_key(header::ORIGIN) && !same_origin(headers) {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "cross_origin",
                "the request comes from another site's page",
            ));
        }
        Ok(name)
    }

    /// Whose request it is, and what that client may do.
    pub(crate) fn client(&self, headers: &HeaderMap) -> Result<(&str, Scope), ApiError> {
        Ok(match headers.get(header::AUTHORIZATION) {
            // Where there are no tokens none is better than another.
            Some(value) if !self.tokens.is_empty() => {
                self.token(value).map(|t| (t.name.as_str(), t.scope)).ok_or_else(unauthorized)?
            }
            _ => ("-", self.anonymous.ok_or_else(unauthorized)?),
        })
    }

    /// All hashes are compared, each in constant time ([`blake3::Hash`] sees to that).
    fn token(&self, value: &HeaderValue) -> Option<&Token> {
        let bytes = value.as_bytes();
        let (scheme, token) = bytes.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        let hash = blake3::hash(token.trim_ascii());
        self.tokens.iter().fold(None, |found, token| if token.hash == hash { Some(token) } else { found })
    }
}

/// The one place that says which scope a request needs; what is not named here changes something.
fn needed(method: &Method, path: &str) -> Option<Scope> {
    // Whatever the method: a call is what its path names.
    if let Some(scope) = rexec::needed(path) {
        return Some(scope);
    }
    match (method, path) {
        (&Method::GET | &Method::HEAD, "/healthz" | "/readyz") => None,
        (&Method::GET | &Method::HEAD, _) | (&Method::POST, "/cache/missing") => Some(Scope::Read),
        (_, "/gc") => Some(Scope::Admin),
        _ => Some(Scope::Write),
    }
}

/// Whether a page came from this server, asked for by address: a name may have been made to point here.
fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let origin = text(header::ORIGIN).and_then(|o| o.split_once("://")).map(|(_, host)| host);
    let host = text(header::HOST);
    let uri = host.and_then(|host| host.parse::<Authority>().ok());
    let by_address = uri.is_some_and(|uri| {
        let name = uri.host().trim_matches(['[', ']']);
        name == "localhost" || name.parse::<IpAddr>().is_ok()
    });
    by_address && origin.is_some() && origin == host
}

fn unauthorized() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "a valid bearer token is needed")
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"memobuild\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn tokens_are_kept_hashed_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let token = add_token(&path, "ci", Scope::Write).unwrap();
        add_token(&path, "ops@home", Scope::Admin).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&path).unwrap().contains(&token));
        assert!(matches!(add_token(&path, "ci", Scope::Read), Err(AuthError::Taken(_))));
        assert!(matches!(add_token(&path, "a b", Scope::Read), Err(AuthError::Name(_))));

        let auth = Auth::new(Some(&path), true, false).unwrap();
        let find = |value: String| auth.token(&value.parse().unwrap()).map(|t| t.name.clone());
        assert_eq!(find(format!("Bearer {token}")), Some("ci".into()));
        assert_eq!(find(format!("bearer {token}")), Some("ci".into()));
        for bad in [format!("Bearer {token}x"), token.clone(), format!("Basic {token}"), "Bearer ".into()] {
            assert_eq!(find(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn lines_that_are_no_tokens_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let hash = "ab".repeat(32);
        fs::write(&path, format!("# people\n\nme read blake3:{hash}\n")).unwrap();
        assert_eq!(read_tokens(&path).unwrap().len(), 1);
        for bad in ["me", "me read", &format!("me root blake3:{hash}"), &format!("me read {hash}"), "me read blake3:ab"]
        {
            fs::write(&path, format!("# people\n{bad}\n")).unwrap();
            assert!(matches!(read_tokens(&path), Err(AuthError::Line { line: 2, .. })), "{bad}");
        }
    }

    #[test]
    fn what_anonymous_clients_may_do() {
        let allowed = |auth: &Auth, method, path| auth.check(&method, path, &HeaderMap::new()).is_ok();
        let home = Auth::new(None, true, false).unwrap();
        assert!(allowed(&home, Method::PUT, "/cache/x") && allowed(&home, Method::POST, "/gc"));
        let closed = Auth::new(None, false, false).unwrap();
        assert!(closed.refuses_all() && !allowed(&closed, Method::GET, "/cache/x"));
        assert!(allowed(&closed, Method::GET, "/healthz"));
        let open = Auth::new(None, false, true).unwrap();
        assert!(allowed(&open, Method::PUT, "/cache/x") && !allowed(&open, Method::POST, "/gc"));
        assert!(!allowed(&open, Method::DELETE, "/gc"));
    }

    #[test]
    fn pages_of_other_sites_can_change_nothing() {
        let auth = Auth::new(None, true, false).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8080"));
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://example.com"));
        assert!(auth.check(&Method::POST, "/gc", &headers).is_err());
        for (host, allowed) in
            [("127.0.0.1:8080", true), ("[::1]:8080", true), ("localhost", true), ("rebound.example:8080", false)]
        {
            headers.insert(header::HOST, host.parse().unwrap());
            headers.insert(header::ORIGIN, format!("http://{host}").parse().unwrap());
            assert_eq!(auth.check(&Method::POST, "/gc", &headers).is_ok(), allowed, "{host}");
        }
    }
}
