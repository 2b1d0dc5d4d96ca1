//! What a registry asks for when it answers 401, and how to get it (distribution's token specification; RFC 6750).
//!
//! A token is asked for with all that will be done with it, not only with what the first request needs: a push is one
//! token, and taking a blob over from another repository needs the right to read there too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use memobuild_observe::Secret;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{RegistryError, client::Target, credentials::Credentials, exchange::retry_after};

/// How long a token holds that does not say it.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// A `WWW-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
        /// Why the token that was shown is not good enough, such as `invalid_token`.
        error: Option<String>,
    },
}

/// What a token server answers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Token {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<u64>,
}

/// An `Authorization`, and how long it holds.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) authorization: Secret,
    until: Option<Instant>,
    /// Whether it was given to somebody with a name.
    pub(super) named: bool,
}

impl Granted {
    pub(super) fn forever(authorization: Secret) -> Self {
        Self { authorization, until: None, named: true }
    }

    pub(super) fn holds(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// What came of asking for an `Authorization`.
pub(super) enum Outcome {
    Granted(Granted),
    /// Nothing that is known here would help; with the token server's words, if there are any.
    Refused(Option<String>),
}

/// Resources, and what is to be done with them: `repository:a/b:pull,push`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// What is needed in a repository, and in another from which a blob is taken over.
    pub(super) fn of(repository: &str, push: bool, from: Option<&str>) -> Self {
        let actions = if push { "pull,push" } else { "pull" };
        let from = from.map(|from| format!(" repository:{from}:pull")).unwrap_or_default();
        Self::parse(&format!("repository:{repository}:{actions}{from}"))
    }

    fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for scope in text.split_whitespace() {
            // Those of other kinds are passed on as they are.
            let (resource, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
            let actions = actions.split(',').filter(|a| !a.is_empty()).map(str::to_owned);
            out.0.entry(resource.to_owned()).or_default().extend(actions);
        }
        out
    }

    /// What a registry asks for, and what is wanted here. One that calls the repository otherwise (a proxy does) knows
    /// better.
    fn with(mut self, asked: Option<&str>, repository: &str) -> Self {
        let Some(asked) = asked.map(Self::parse).filter(|asked| !asked.0.is_empty()) else { return self };
        let own = format!("repository:{repository}");
        if !asked.0.contains_key(&own) {
            self.0.remove(&own);
        }
        for (resource, actions) in asked.0 {
            self.0.entry(resource).or_default().extend(actions);
        }
        self
    }

    fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(resource, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            if actions.is_empty() { resource.clone() } else { format!("{resource}:{}", actions.join(",")) }
        })
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().collect::<Vec<_>>().join(" "))
    }
}

impl Challenge {
    /// Reads the header; `None` if it asks for something that is not known here.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope, mut error) = (None, None, None, None);
        for (key, value) in parameters(rest, ',') {
            match key.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                "error" => error = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer { realm: realm?, service, scope, error })
    }

    /// Whether the token that was shown no longer holds, rather than never having been enough.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::Bearer { error: Some(error), .. } if error == "invalid_token")
    }
}

impl Target<'_> {
    /// The `Authorization` that answers a challenge.
    pub(super) fn authorize(&self, challenges: &[Challenge], wanted: &Scopes) -> Result<Outcome, RegistryError> {
        let credentials = self.credentials();
        let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
        let Some(Challenge::Bearer { realm, service, scope, .. }) = bearer else {
            let basic = credentials.as_ref().filter(|_| challenges.contains(&Challenge::Basic));
            let basic = basic.and_then(Credentials::basic).map(Granted::forever);
            return Ok(basic.map_or(Outcome::Refused(None), Outcome::Granted));
        };
        if !realm.starts_with("https://") && !self.may_be_plain() {
            return Err(self.protocol(format!("the registry names a token server without https: {realm}")));
        }
        let scopes = wanted.clone().with(scope.as_deref(), &self.repository);
        let service = service.iter().map(|s| ("service", s.clone()));
        let agent = self.token_agent(realm)?;
        let answer = match &credentials {
            Some(Credentials::Identity(token)) => {
                let form = service.chain([
                    ("scope", scopes.to_string()),
                    ("grant_type", "refresh_token".into()),
                    ("client_id", "memobuild".into()),
                    ("refresh_token", token.reveal().to_owned()),
                ]);
                agent.post(realm).send_form(form)
            }
            other => {
                let scopes = scopes.texts().map(|scope| ("scope", scope));
                let mut request = agent.get(realm).query_pairs(service.chain(scopes));
                if let Some(basic) = other.as_ref().and_then(Credentials::basic) {
                    request = request.header("authorization", basic.reveal());
                }
                // The name and password are not sent on to wherever it leads.
                request.config().max_redirects(5).build().call()
            }
        };
        let mut answer = answer.map_err(|e| self.transport(e))?;
        match answer.status().as_u16() {
            200..=299 => {}
            400 | 401 | 403 => return Ok(Outcome::Refused(words(&mut answer))),
            status => {
                return Err(RegistryError::Status {
                    registry: self.registry.into(),
                    repository: self.repository.to_string(),
                    status,
                    retry_after: retry_after(&answer),
                    detail: Some(format!("from the token server {realm}")),
                    attempts: 1,
                });
            }
        }
        let text = Zeroizing::new(self.read(&mut answer, 1 << 20)?.unwrap_or_default());
        let token: Token = serde_json::from_slice(&text).unwrap_or_default();
        let value = [token.token, token.access_token].into_iter().flatten().find(|t| !t.reveal().is_empty());
        let value = value.ok_or_else(|| self.protocol(format!("the token server {realm} gave no token")))?;
        // A little less, for the way there.
        let life = token.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).mul_f64(0.9);
        Ok(Outcome::Granted(Granted {
            authorization: value.bearer(),
            until: Instant::now().checked_add(life),
            named: credentials.is_some(),
        }))
    }
}

/// Why a token server gives none: in a registry's form, or in that of OAuth2 (RFC 6749, 5.2) and others.
fn words(answer: &mut ureq::http::Response<ureq::Body>) -> Option<String> {
    let text = answer.body_mut().with_config().limit(64 * 1024).read_to_vec().ok()?;
    let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let error = value.get("errors").and_then(|errors| errors.get(0)).unwrap_or(&value);
    let part = |name: &str| error.get(name).and_then(|v| v.as_str()).filter(|t| !t.is_empty());
    let names = ["message", "details", "error_description", "error", "code"];
    Some(names.into_iter().find_map(part)?.chars().take(300).collect())
}

/// `key="value",key=value` with that separator, and backslashes in quotes: the parameters of a header.
pub(crate) fn parameters(text: &str, separator: char) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let mut value = String::new();
        let mut chars = after.char_indices().peekable();
        let quoted = after.starts_with('"');
        if quoted {
            chars.next();
        }
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' if quoted => {
                    end = at + 1;
                    break;
                }
                '\\' if quoted => value.extend(chars.next().map(|(_, c)| c)),
                c if c == separator && !quoted => {
                    end = at;
                    break;
                }
                c => value.push(c),
            }
        }
        out.push((key.trim().to_owned(), if quoted { value } else { value.trim().to_owned() }));
        rest = after.get(end..).unwrap_or_default().trim_start().trim_start_matches(separator).trim_start();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let text =
            r#"Bearer realm="https://a.io/token?x=1",service="a \"b\"",scope="repository:a/b:pull,push",error=x"#;
        let Some(Challenge::Bearer { realm, service, scope, error }) = Challenge::parse(text) else { panic!() };
        assert_eq!((realm.as_str(), service.as_deref()), ("https://a.io/token?x=1", Some(r#"a "b""#)));
        assert_eq!((scope.as_deref(), error.as_deref()), (Some("repository:a/b:pull,push"), Some("x")));
        assert_eq!(Challenge::parse("basic realm=x"), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None);
        assert_eq!(
            Challenge::parse(r#"Bearer realm="a\"#),
            Some(Challenge::Bearer { realm: "a".into(), service: None, scope: None, error: None })
        );
    }

    #[test]
    fn scopes_are_put_together() {
        let pull = Scopes::of("a/b", false, None);
        assert_eq!(pull.to_string(), "repository:a/b:pull");
        let push = Scopes::of("a/b", true, Some("c"));
        assert_eq!(push.to_string(), "repository:a/b:pull,push repository:c:pull");
        let asked = |scope| push.clone().with(scope, "a/b").to_string();
        assert_eq!(asked(None), push.to_string());
        assert_eq!(asked(Some(" ")), push.to_string());
        // The registry asks for what this one request needs, and for more that it alone knows of.
        assert_eq!(asked(Some("repository:a/b:pull aws")), "aws repository:a/b:pull,push repository:c:pull");
        // It calls the repository otherwise.
        let proxied = pull.clone().with(Some("repository:hub/a/b:pull"), "a/b");
        assert_eq!(proxied.to_string(), "repository:hub/a/b:pull");
        // A port in the name.
        assert_eq!(Scopes::parse("repository:a.io:5000/b:pull").to_string(), "repository:a.io:5000/b:pull");
    }
}
