//! Who may do what: basic authentication, and a token server (distribution's token specification: by GET, and by POST
//! with a refresh token).

use std::{
    collections::HashMap,
    io::Read,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;

use super::wire::{Body, Request, Response, pairs};

const SERVICE: &str = "strict registry";

/// Repositories (`*`: all) and what may be done there, such as `pull,push`.
pub(crate) type Rights = Vec<(&'static str, &'static str)>;

#[derive(Clone, Default)]
pub(crate) enum Auth {
    /// Anybody may do anything.
    #[default]
    Open,
    /// A name and a password for everything.
    Basic(&'static str, &'static str),
    Token(TokenOptions),
    /// One bearer token that never changes, and no token server.
    Fixed(&'static str),
}

#[derive(Clone, Default)]
pub(crate) struct TokenOptions {
    /// Who has no name.
    pub(crate) anonymous: Rights,
    pub(crate) users: Vec<User>,
    /// How long a token holds.
    pub(crate) life: Option<Duration>,
    /// Whether the client is told of it.
    pub(crate) silent: bool,
    /// Requests that a token is good for.
    pub(crate) uses: Option<u64>,
    /// Who asks for more than is allowed gets what is allowed, rather than nothing.
    pub(crate) lenient: bool,
    /// Challenges don't say what scope is needed.
    pub(crate) no_scope: bool,
}

#[derive(Clone)]
pub(crate) struct User {
    pub(crate) name: &'static str,
    pub(crate) password: &'static str,
    /// Refresh token, for POST.
    pub(crate) refresh: &'static str,
    pub(crate) rights: Rights,
}

struct Token {
    scopes: Vec<(String, Vec<String>)>,
    until: Option<Instant>,
    uses: Option<u64>,
}

#[derive(Default)]
pub(super) struct Tokens {
    given: HashMap<String, Token>,
    made: u64,
}

/// A repository and an action.
pub(super) type Need<'a> = (&'a str, &'static str);

fn allows(rights: &Rights, repository: &str, action: &str) -> bool {
    let of = |(name, actions): &(&str, &str)| {
        (*name == "*" || *name == repository) && actions.split(',').any(|a| a == action)
    };
    rights.iter().any(of)
}

fn basic(request: &Request) -> Option<(String, String)> {
    let text = request.header("authorization")?.strip_prefix("Basic ")?;
    let text = String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

impl Tokens {
    /// The answer to who may not do what is needed.
    pub(super) fn refuse(
        &mut self,
        auth: &Auth,
        host: &str,
        request: &Request,
        needs: &[Need<'_>],
    ) -> Option<Response> {
        let unauthorized = |challenge: String| {
            Some(Response::error(401, "UNAUTHORIZED", "authentication required").with("www-authenticate", challenge))
        };
        match auth {
            Auth::Open => None,
            Auth::Fixed(token) => match request.header("authorization") {
                Some(shown) if shown == format!("Bearer {token}") => None,
                _ => unauthorized(format!("Bearer realm=\"http://{host}/none\"")),
            },
            Auth::Basic(user, password) => match basic(request) {
                Some((u, p)) if (u.as_str(), p.as_str()) == (*user, *password) => None,
                _ => unauthorized("Basic realm=\"strict\"".into()),
            },
            Auth::Token(options) => {
                let shown = request.header("authorization").map(|h| h.strip_prefix("Bearer ").unwrap_or_default());
                let reason = match shown.map(|token| self.use_up(token, needs)) {
                    None => "",
                    Some(Ok(())) => return None,
                    Some(Err(reason)) => reason,
                };
                let mut scopes: Vec<String> = Vec::new();
                for (repository, action) in needs {
                    match scopes.iter_mut().find(|s| s.starts_with(&format!("repository:{repository}:"))) {
                        Some(scope) => *scope += &format!(",{action}"),
                        None => scopes.push(format!("repository:{repository}:{action}")),
                    }
                }
                let mut challenge = format!("Bearer realm=\"http://{host}/token\",service=\"{SERVICE}\"");
                if !options.no_scope && !scopes.is_empty() {
                    challenge += &format!(",scope=\"{}\"", scopes.join(" "));
                }
                if !reason.is_empty() {
                    challenge += &format!(",error=\"{reason}\"");
                }
                unauthorized(challenge)
            }
        }
    }

    fn use_up(&mut self, text: &str, needs: &[Need<'_>]) -> Result<(), &'static str> {
        let token = self.given.get_mut(text).ok_or("invalid_token")?;
        if token.until.is_some_and(|until| until <= Instant::now()) || token.uses == Some(0) {
            return Err("invalid_token");
        }
        let has = |(repository, action): &Need<'_>| {
            token.scopes.iter().any(|(name, actions)| name == repository && actions.iter().any(|a| a == action))
        };
        if !needs.iter().all(has) {
            return Err("insufficient_scope");
        }
        token.uses = token.uses.map(|uses| uses - 1);
        Ok(())
    }

    /// The token server.
    pub(super) fn serve(&mut self, options: &TokenOptions, request: &Request, body: &mut Body<'_>) -> Response {
        let refused = |why: &str| Response::error(401, "UNAUTHORIZED", why);
        let mut form = request.query.clone();
        let rights = match request.method.as_str() {
            "GET" => match basic(request) {
                None if request.header("authorization").is_none() => &options.anonymous,
                None => return refused("no basic authentication"),
                Some((user, password)) => {
                    match options.users.iter().find(|u| u.name == user && u.password == password) {
                        Some(user) => &user.rights,
                        None => return refused("wrong name or password"),
                    }
                }
            },
            "POST" => {
                let mut text = String::new();
                if request.header("content-type") != Some("application/x-www-form-urlencoded")
                    || body.read_to_string(&mut text).is_err()
                {
                    return Response::json(400, &json!({"error": "invalid_request"}));
                }
                form = pairs(&text);
                let field = |name: &str| form.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
                if field("grant_type") != Some("refresh_token") || field("client_id").is_none_or(str::is_empty) {
                    return Response::json(400, &json!({"error": "unsupported_grant_type"}));
                }
                let shown = field("refresh_token").unwrap_or_default();
                match options.users.iter().find(|u| !u.refresh.is_empty() && u.refresh == shown) {
                    Some(user) => &user.rights,
                    None => {
                        let why =
                            json!({"error": "invalid_grant", "error_description": "the refresh token has expired"});
                        return Response::json(400, &why);
                    }
                }
            }
            _ => return Response::new(405),
        };
        if form.iter().find(|(n, _)| n == "service").map(|(_, v)| v.as_str()) != Some(SERVICE) {
            return Response::error(400, "DENIED", "wrong service");
        }
        // Several in one field, and several fields, are both in the specification.
        let scopes = form.iter().filter(|(n, _)| n == "scope").flat_map(|(_, v)| v.split(' '));
        let mut granted = Vec::new();
        for scope in scopes {
            let parts: Vec<&str> = scope.split(':').collect();
            let ["repository", repository, actions] = parts.as_slice() else {
                return Response::error(400, "DENIED", &format!("no scope: {scope}"));
            };
            let (may, may_not): (Vec<&str>, Vec<&str>) =
                actions.split(',').partition(|action| allows(rights, repository, action));
            if !may_not.is_empty() && !options.lenient {
                return Response::error(403, "DENIED", &format!("no {} in {repository}", may_not.join(", ")));
            }
            granted.push(((*repository).to_owned(), may.into_iter().map(str::to_owned).collect()));
        }
        if granted.is_empty() {
            return Response::error(400, "DENIED", "no scope is asked for");
        }
        self.made += 1;
        let name = format!("t{}", self.made);
        let until = options.life.map(|life| Instant::now() + life);
        self.given.insert(name.clone(), Token { scopes: granted, until, uses: options.uses });
        let mut answer = json!({"token": name});
        if request.method == "POST" {
            answer = json!({"access_token": name, "scope": "", "token_type": "Bearer"});
        }
        if let Some(life) = options.life.filter(|_| !options.silent) {
            answer["expires_in"] = life.as_secs().into();
        }
        Response::json(200, &answer)
    }
}
