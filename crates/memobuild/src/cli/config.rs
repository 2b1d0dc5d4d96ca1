//! The user's settings: a file, and variables of the environment that go before it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use memobuild_engine::RemoteOptions;
use memobuild_observe::Secret;
use memobuild_oci::{
    reference::Reference,
    registry::{Certificates, HostOptions, Login, RegistryOptions},
};
use serde::Deserialize;

use super::{Failure, env::display_path};
use crate::telemetry::trace;

/// What the file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    registry: BTreeMap<String, Host>,
    #[serde(default)]
    remote: Server,
}

/// `[remote]`: the server that builds share results with. Certificates are as a registry has them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Server {
    url: Option<String>,
    single_owner: bool,
    ca: Vec<PathBuf>,
    keypair: Vec<KeyPair>,
}

/// `[registry."HOST"]`, as buildkitd's configuration has it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Host {
    mirrors: Vec<String>,
    http: bool,
    insecure: bool,
    ca: Vec<PathBuf>,
    keypair: Vec<KeyPair>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyPair {
    cert: PathBuf,
    key: PathBuf,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `MEMOBUILD_CONFIG`, else `$XDG_CONFIG_HOME/memobuild/config.toml`, else the same in `~/.config`; and whether it must
/// be there.
fn path() -> Option<(PathBuf, bool)> {
    if let Some(path) = variable("MEMOBUILD_CONFIG") {
        return Some((path.into(), true));
    }
    let xdg = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let dir = xdg.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")))?;
    Some((dir.join("memobuild/config.toml"), false))
}

fn read(path: &Path, must: bool) -> Result<File, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must => return Ok(File::default()),
        Err(e) => return Err(Failure::usage(format!("cannot read {}: {e}", display_path(path)))),
    };
    toml::from_str(&text).map_err(|e| {
        Failure::usage(format!("{}: {}", display_path(path), e.to_string().trim_end()))
            .with_hint("the settings are described in docs/registries.md and docs/shared-cache.md")
    })
}

/// The server that results are shared with: `flag`, else `MEMOBUILD_REMOTE_URL`, else the file's. An empty one is none.
pub(crate) fn remote(flag: Option<&str>) -> Result<Option<RemoteOptions>, Failure> {
    let (file, dir) = match path() {
        Some((path, must)) => (read(&path, must)?.remote, directory(&path)),
        None => Default::default(),
    };
    // Unlike other variables, this one set to nothing says something: it goes before the file.
    let (url, from) = match (flag, std::env::var("MEMOBUILD_REMOTE_URL").ok()) {
        (Some(url), _) => (url.to_owned(), "--remote"),
        (None, Some(url)) => (url, "MEMOBUILD_REMOTE_URL"),
        (None, None) => (file.url.unwrap_or_default(), "[remote] url"),
    };
    if url.trim().is_empty() {
        return Ok(None);
    }
    let mut options = RemoteOptions::new(&url).map_err(|why| Failure::usage(format!("{from}: {why}")))?;
    options.single_owner = file.single_owner;
    options.certificates = certificates("remote", file.ca, file.keypair, &dir)?;
    options.token = remote_token();
    options.trace = Some(trace().own);
    Ok(Some(options))
}

/// `MEMOBUILD_REMOTE_TOKEN`, else `MEMOBUILD_TOKEN`, unless that one is a registry's: a server is not to see it.
pub(crate) fn remote_token() -> Option<Secret> {
    let own = variable("MEMOBUILD_REMOTE_TOKEN");
    let token = own.or_else(|| variable("MEMOBUILD_TOKEN").filter(|_| variable("MEMOBUILD_REGISTRY").is_none()));
    token.map(Secret::from)
}

/// How registries are spoken to.
pub(crate) fn registries() -> Result<RegistryOptions, Failure> {
    let file = match path() {
        Some((path, must)) => {
            let dir = directory(&path);
            read(&path, must)?.registry.into_iter().map(|(name, host)| options(name, host, &dir)).collect()
        }
        None => Ok(BTreeMap::new()),
    };
    Ok(RegistryOptions { hosts: file?, login: login(), ..RegistryOptions::default() })
}

/// Paths in the file are meant from its directory.
fn options(name: String, host: Host, dir: &Path) -> Result<(String, HostOptions), Failure> {
    let Host { mirrors, http, insecure, ca, keypair } = host;
    let certificates = certificates(&format!("registry.{name:?}"), ca, keypair, dir)?;
    Ok((name, HostOptions { mirrors, http, insecure, certificates }))
}

fn certificates(table: &str, ca: Vec<PathBuf>, keypair: Vec<KeyPair>, dir: &Path) -> Result<Certificates, Failure> {
    let pair = match <[KeyPair; 1]>::try_from(keypair) {
        Ok([pair]) => Some(pair),
        Err(none) if none.is_empty() => None,
        Err(_) => return Err(Failure::usage(format!("[{table}]: one keypair is expected"))),
    };
    let (client, key) = pair.map(|p| (dir.join(p.cert), dir.join(p.key))).unzip();
    Ok(Certificates { ca: ca.iter().map(|path| dir.join(path)).collect(), client, key })
}

fn directory(file: &Path) -> PathBuf {
    file.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// `MEMOBUILD_TOKEN` for `MEMOBUILD_REGISTRY`: `USER:PASSWORD`, or a bearer token.
fn login() -> Option<(String, Login)> {
    let (registry, token) = (variable("MEMOBUILD_REGISTRY")?, Secret::from(variable("MEMOBUILD_TOKEN")?));
    let login = match token.reveal().split_once(':') {
        Some((user, password)) => Login::Password { user: user.into(), password: password.into() },
        None => Login::Token(token.clone()),
    };
    Some((registry, login))
}

/// Where images go that are pushed without a name of their own: `MEMOBUILD_REGISTRY/MEMOBUILD_REPO`.
pub(crate) fn default_repository() -> Result<Option<Reference>, Failure> {
    let (Some(registry), Some(repository)) = (variable("MEMOBUILD_REGISTRY"), variable("MEMOBUILD_REPO")) else {
        return Ok(None);
    };
    let name = format!("{registry}/{repository}");
    let parsed: Result<Reference, _> = name.parse();
    parsed.map(Some).map_err(|e| Failure::usage(format!("MEMOBUILD_REGISTRY and MEMOBUILD_REPO: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BTreeMap<String, HostOptions>, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
        let all = file.registry.into_iter().map(|(name, host)| options(name, host, Path::new("/c")));
        all.collect::<Result<_, _>>().map_err(|_| "options".to_owned())
    }

    #[test]
    fn a_file() {
        let text = "[registry.\"docker.io\"]\nmirrors = [\"m.example/hub\"]\n\
                    [registry.\"r.example:5000\"]\nhttp = true\ninsecure = true\nca = [\"ca.pem\", \"/etc/x.pem\"]\n\
                    [[registry.\"r.example:5000\".keypair]]\ncert = \"c.pem\"\nkey = \"k.pem\"\n";
        let hosts = parse(text).unwrap();
        assert_eq!(hosts["docker.io"].mirrors, ["m.example/hub"]);
        let host = &hosts["r.example:5000"];
        assert!(host.http && host.insecure);
        assert_eq!(host.certificates.ca, [PathBuf::from("/c/ca.pem"), "/etc/x.pem".into()]);
        assert_eq!(host.certificates.key, Some("/c/k.pem".into()));
    }

    #[test]
    fn a_server() {
        let file: File =
            toml::from_str("[remote]\nurl = \"http://h:1\"\nsingle-owner = true\nca = [\"a.pem\"]\n").unwrap();
        assert_eq!(file.remote.url.as_deref(), Some("http://h:1"));
        assert!(file.remote.single_owner);
        let certificates = certificates("remote", file.remote.ca, file.remote.keypair, Path::new("/c")).unwrap();
        assert_eq!(certificates.ca, [PathBuf::from("/c/a.pem")]);
        assert!(toml::from_str::<File>("[remote]\ntoken = \"x\"\n").is_err());
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("[registry.\"a\"]\nmirror = [\"b\"]\n").unwrap_err().contains("mirror"));
        assert!(parse("[registries]\n").unwrap_err().contains("registries"));
        assert!(parse("[registry.\"a\"]\nhttp = 1\n").is_err());
    }
}
