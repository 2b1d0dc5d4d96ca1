//! Credentials as `docker login` leaves them: `config.json` in `DOCKER_CONFIG` or `~/.docker`, and its helpers.

use std::{
    collections::HashMap,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use memobuild_observe::Secret;
use serde::Deserialize;
use zeroize::Zeroizing;

/// What a registry may be shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Password {
        user: String,
        password: Secret,
    },
    /// An OAuth2 refresh token.
    Identity(Secret),
}

impl Credentials {
    /// The value of an `Authorization` header, where they can stand in one.
    pub(super) fn basic(&self) -> Option<Secret> {
        match self {
            Self::Password { user, password } => {
                let both = Secret::joined(&[user, ":", password.reveal()]);
                let encoded = Secret::from(BASE64_STANDARD.encode(both.reveal()));
                Some(Secret::joined(&["Basic ", encoded.reveal()]))
            }
            Self::Identity(_) => None,
        }
    }
}

/// The parts of `config.json` that matter here.
#[derive(Default, Deserialize)]
pub(super) struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, Auth>,
    #[serde(rename = "credsStore", default)]
    store: Option<String>,
    #[serde(rename = "credHelpers", default)]
    helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: Secret,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: Secret,
    #[serde(rename = "identitytoken", default)]
    identity_token: Secret,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: Secret,
}

impl DockerConfig {
    /// The user's file, or that in another directory. One that lacks or can't be read is an empty one: pulls are then
    /// anonymous.
    pub(super) fn load(dir: Option<PathBuf>) -> Self {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let dir = dir.or_else(|| variable("DOCKER_CONFIG")).or_else(|| Some(variable("HOME")?.join(".docker")));
        let Some(path) = dir.map(|d| d.join("config.json")) else { return Self::default() };
        let Ok(text) = std::fs::read(&path).map(Zeroizing::new) else { return Self::default() };
        serde_json::from_slice(&text).unwrap_or_else(|e| {
            tracing::warn!("{}: {e}: going on without credentials", path.display());
            Self::default()
        })
    }

    /// Those for a registry, if there are any. Runs a helper program where the file names one.
    pub(super) fn for_registry(&self, registry: &str) -> Option<Credentials> {
        let server = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
        let helper = self.helpers.get(registry).or(self.store.as_ref());
        if let Some(found) = helper.and_then(|helper| ask(helper, server)) {
            return Some(found);
        }
        let host = |key: &str| {
            let key = key.trim_start_matches("https://").trim_start_matches("http://");
            key.split('/').next().unwrap_or_default().to_owned()
        };
        let auth = self
            .auths
            .get(server)
            .or_else(|| self.auths.iter().find(|(key, _)| host(key) == host(server)).map(|(_, auth)| auth))?;
        if !auth.identity_token.reveal().is_empty() {
            return Some(Credentials::Identity(auth.identity_token.clone()));
        }
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(auth.auth.reveal()).unwrap_or_default());
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let (user, password) = match text.split_once(':') {
            Some((user, password)) => (user.to_owned(), password.trim_end_matches('\0').into()),
            None => (auth.username.clone(), auth.password.clone()),
        };
        (!user.is_empty()).then_some(Credentials::Password { user, password })
    }
}

/// Asks `docker-credential-HELPER get`.
fn ask(helper: &str, server: &str) -> Option<Credentials> {
    let mut command = Command::new(format!("docker-credential-{helper}"));
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            tracing::warn!("docker-credential-{helper}: {e}");
            return None;
        }
    };
    // A helper that does not read its input has failed; its status will say so.
    let _ = child.stdin.take()?.write_all(server.as_bytes());
    let output = child.wait_with_output().ok().filter(|o| o.status.success())?;
    let text = Zeroizing::new(output.stdout);
    let answer: Answer = serde_json::from_slice(&text).ok()?;
    Some(match answer.user.as_str() {
        "<token>" => Credentials::Identity(answer.secret),
        _ => Credentials::Password { user: answer.user, password: answer.secret },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_host() {
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnE="},"http://a.io/v2/":{"identitytoken":"t"},
            "b.io":{}}}"#;
        let config: DockerConfig = serde_json::from_str(text).unwrap();
        let password = Credentials::Password { user: "u".into(), password: "p:q".into() };
        assert!(config.for_registry("docker.io") == Some(password));
        assert!(config.for_registry("a.io") == Some(Credentials::Identity("t".into())));
        assert!(config.for_registry("b.io").is_none() && config.for_registry("c.io").is_none());
    }
}
