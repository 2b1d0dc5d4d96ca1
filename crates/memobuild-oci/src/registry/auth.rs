//! What a registry asks for when it answers 401, and how to get it (distribution's token specification).

use serde::Deserialize;

use super::credentials::Credentials;

/// A `WWW-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// What a token server answers.
#[derive(Deserialize)]
pub(super) struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Token {
    pub(super) fn value(self) -> Option<String> {
        [self.token, self.access_token].into_iter().find(|t| !t.is_empty())
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
        let (mut realm, mut service, mut scope) = (None, None, None);
        for (key, value) in parameters(rest, ',') {
            match key.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer { realm: realm?, service, scope })
    }

    /// The fields to send to the token server for pulling from a repository.
    pub(super) fn fields(&self, repository: &str) -> Vec<(&'static str, String)> {
        let Self::Bearer { service, scope, .. } = self else { return Vec::new() };
        let mut out: Vec<_> = service.iter().map(|s| ("service", s.clone())).collect();
        out.push(("scope", scope.clone().unwrap_or_else(|| format!("repository:{repository}:pull"))));
        out
    }
}

/// The form of an OAuth2 refresh, for credentials that are a token.
pub(super) fn refresh(
    fields: Vec<(&'static str, String)>,
    credentials: &Credentials,
) -> Option<Vec<(&'static str, String)>> {
    let Credentials::Identity(token) = credentials else { return None };
    let mut form = fields;
    form.push(("grant_type", "refresh_token".into()));
    form.push(("client_id", "memobuild".into()));
    form.push(("refresh_token", token.clone()));
    Some(form)
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
        let text = r#"Bearer realm="https://a.io/token?x=1",service="a \"b\"", scope=repository:a/b:pull,push"#;
        let Some(Challenge::Bearer { realm, service, scope }) = Challenge::parse(text) else { panic!() };
        assert_eq!((realm.as_str(), service.as_deref()), ("https://a.io/token?x=1", Some(r#"a "b""#)));
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull"));
        assert_eq!(Challenge::parse("basic realm=x"), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None);
        assert_eq!(
            Challenge::parse(r#"Bearer realm="a\"#),
            Some(Challenge::Bearer { realm: "a".into(), service: None, scope: None })
        );
    }
}
