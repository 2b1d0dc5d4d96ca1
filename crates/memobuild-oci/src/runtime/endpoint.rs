//! Where docker and podman listen, as their own clients find it out.
//!
//! In: environment variables, and docker's contexts (`contexts/meta` in `DOCKER_CONFIG` or `~/.docker`). Out: addresses
//! to be tried. Never: connects.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{RuntimeError, Vars, http::Address};

/// Where a daemon may listen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: Address,
    /// The user said so: nothing else is tried instead.
    pub(super) explicit: bool,
}

/// Docker's: `DOCKER_HOST`, else the current context, else the places where it listens by itself. The order is that of
/// docker's client.
pub(super) fn docker(vars: Vars<'_>) -> Result<Vec<Endpoint>, RuntimeError> {
    if let Some(host) = vars("DOCKER_HOST") {
        let address = parse("DOCKER_HOST", &host)?;
        if matches!(address, Address::Tcp(_)) && vars("DOCKER_TLS_VERIFY").is_some() {
            return Err(refused("DOCKER_HOST", &host, "DOCKER_TLS_VERIFY asks for TLS, which is not spoken here"));
        }
        return Ok(vec![Endpoint { address, explicit: true }]);
    }
    if let Some(address) = context(vars)? {
        return Ok(vec![Endpoint { address, explicit: true }]);
    }
    let mut paths = vec![PathBuf::from("/var/run/docker.sock")];
    // A rootless daemon's.
    paths.extend(vars("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("docker.sock")));
    Ok(implied(paths))
}

/// Podman's: `CONTAINER_HOST`, else the sockets of the user's service and the system's.
pub(super) fn podman(vars: Vars<'_>) -> Result<Vec<Endpoint>, RuntimeError> {
    if let Some(host) = vars("CONTAINER_HOST") {
        return Ok(vec![Endpoint { address: parse("CONTAINER_HOST", &host)?, explicit: true }]);
    }
    let mut paths: Vec<PathBuf> =
        vars("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("podman/podman.sock")).into_iter().collect();
    paths.push("/run/podman/podman.sock".into());
    Ok(implied(paths))
}

fn implied(paths: Vec<PathBuf>) -> Vec<Endpoint> {
    paths.into_iter().map(|path| Endpoint { address: Address::Unix(path), explicit: false }).collect()
}

fn refused(from: &str, address: &str, why: &'static str) -> RuntimeError {
    RuntimeError::Address { from: from.into(), address: address.into(), why }
}

/// `unix://PATH` or `tcp://HOST:PORT`.
fn parse(from: &str, text: &str) -> Result<Address, RuntimeError> {
    let refused = |why| refused(from, text, why);
    let (scheme, rest) = text.split_once("://").ok_or_else(|| refused("it is no address"))?;
    match scheme {
        "unix" if Path::new(rest).is_absolute() => Ok(Address::Unix(rest.into())),
        "unix" => Err(refused("a socket's path is absolute")),
        "tcp" | "http" => {
            let host = rest.trim_end_matches('/');
            let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
            match (host.contains(['/', '@', ' ']) || host.starts_with(':'), port) {
                (true, _) => Err(refused("it holds more than host and port")),
                (false, Some(port)) if port.parse::<u16>().is_ok() => Ok(Address::Tcp(host.into())),
                (false, Some(_)) => Err(refused("the port is no number")),
                // Docker's port without TLS.
                (false, None) => Ok(Address::Tcp(format!("{host}:2375"))),
            }
        }
        "ssh" => Err(refused("connections over SSH are not spoken here")),
        _ => Err(refused("its kind is not known")),
    }
}

#[derive(Default, Deserialize)]
struct ClientConfig {
    #[serde(rename = "currentContext", default)]
    current_context: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    #[serde(default)]
    endpoints: Endpoints,
}

#[derive(Default, Deserialize)]
struct Endpoints {
    docker: Option<DockerEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEndpoint {
    #[serde(default)]
    host: String,
}

/// The address in the current context; none if that is the default one.
fn context(vars: Vars<'_>) -> Result<Option<Address>, RuntimeError> {
    let dir = vars("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(Path::new(&vars("HOME")?).join(".docker")));
    let Some(dir) = dir else { return Ok(None) };
    let name = vars("DOCKER_CONTEXT").unwrap_or_else(|| {
        let config = std::fs::read(dir.join("config.json")).ok();
        let config: ClientConfig = config.and_then(|c| serde_json::from_slice(&c).ok()).unwrap_or_default();
        config.current_context
    });
    if name.is_empty() || name == "default" {
        return Ok(None);
    }
    let bad = |why: String| RuntimeError::Context { name: name.clone(), why };
    // Contexts lie under the digest of their name.
    let id: String = Sha256::digest(name.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    let path = dir.join("contexts/meta").join(&id).join("meta.json");
    let bytes = std::fs::read(&path).map_err(|e| bad(format!("{}: {e}", path.display())))?;
    let meta: Meta = serde_json::from_slice(&bytes).map_err(|e| bad(format!("{}: {e}", path.display())))?;
    let host = meta.endpoints.docker.map(|d| d.host).filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| bad("it names no docker host".into()))?;
    let from = format!("docker's context {name}");
    let address = parse(&from, &host)?;
    if matches!(address, Address::Tcp(_)) && dir.join("contexts/tls").join(&id).is_dir() {
        return Err(refused(&from, &host, "it has keys for TLS, which is not spoken here"));
    }
    Ok(Some(address))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;

    fn with(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        move |name| map.get(name).cloned()
    }

    fn unix(path: &str, explicit: bool) -> Endpoint {
        Endpoint { address: Address::Unix(path.into()), explicit }
    }

    fn tcp(host: &str) -> Endpoint {
        Endpoint { address: Address::Tcp(host.into()), explicit: true }
    }

    #[test]
    fn variables_come_first() {
        let docker_host = |host| docker(&with(&[("DOCKER_HOST", host)]));
        assert_eq!(docker_host("unix:///x/d.sock").unwrap(), [unix("/x/d.sock", true)]);
        assert_eq!(docker_host("tcp://10.0.0.1:2375").unwrap(), [tcp("10.0.0.1:2375")]);
        assert_eq!(docker_host("tcp://build").unwrap(), [tcp("build:2375")]);
        assert_eq!(docker_host("tcp://[::1]:99/").unwrap(), [tcp("[::1]:99")]);
        assert_eq!(docker_host("tcp://[::1]").unwrap(), [tcp("[::1]:2375")]);
        for bad in ["x", "unix://x", "ssh://me@there", "npipe:////./pipe/x", "tcp://a:b", "tcp://u@h:1", "tcp://:1"] {
            assert!(matches!(docker_host(bad), Err(RuntimeError::Address { .. })), "{bad}");
        }
        let secured = [("DOCKER_HOST", "tcp://a:2376"), ("DOCKER_TLS_VERIFY", "1")];
        assert!(matches!(docker(&with(&secured)), Err(RuntimeError::Address { .. })));
        let podman = podman(&with(&[("CONTAINER_HOST", "unix:///p.sock")])).unwrap();
        assert_eq!(podman, [unix("/p.sock", true)]);
    }

    #[test]
    fn usual_places() {
        let vars = with(&[("XDG_RUNTIME_DIR", "/run/user/7")]);
        let found = docker(&vars).unwrap();
        assert_eq!(found, [unix("/var/run/docker.sock", false), unix("/run/user/7/docker.sock", false)]);
        let found = podman(&vars).unwrap();
        assert_eq!(found, [unix("/run/user/7/podman/podman.sock", false), unix("/run/podman/podman.sock", false)]);
    }

    /// Where docker's client puts the context `mine`.
    const MINE: &str = "3fd30542fe3f61b14bd4a4b2dc0b6fb30fa6f63ebce52dd1778aaa8c4dc02cff";

    /// A `~/.docker` as `docker context create` and `use` leave it.
    fn home(meta: &str) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join(".docker/contexts/meta").join(MINE);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("meta.json"), meta).unwrap();
        fs::write(home.path().join(".docker/config.json"), r#"{"auths":{},"currentContext":"mine"}"#).unwrap();
        home
    }

    #[test]
    fn the_current_context_is_used() {
        let meta =
            r#"{"Name":"mine","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///m.sock","SkipTLSVerify":false}}}"#;
        let home = home(meta);
        let path = home.path().to_str().unwrap();
        assert_eq!(docker(&with(&[("HOME", path)])).unwrap(), [unix("/m.sock", true)]);
        let found = docker(&with(&[("HOME", path), ("DOCKER_CONTEXT", "default")])).unwrap();
        assert_eq!(found, [unix("/var/run/docker.sock", false)]);
        let found = docker(&with(&[("HOME", path), ("DOCKER_HOST", "unix:///h.sock")])).unwrap();
        assert_eq!(found, [unix("/h.sock", true)]);
        let other = docker(&with(&[("HOME", path), ("DOCKER_CONTEXT", "../../x")]));
        assert!(matches!(other, Err(RuntimeError::Context { .. })));
        let config = home.path().join(".docker");
        let found = docker(&with(&[("DOCKER_CONFIG", config.to_str().unwrap())])).unwrap();
        assert_eq!(found, [unix("/m.sock", true)]);
    }

    #[test]
    fn contexts_that_can_not_be_used_are_errors() {
        for meta in
            ["", "{}", r#"{"Endpoints":{"docker":{"Host":""}}}"#, r#"{"Endpoints":{"docker":{"Host":"ssh://x"}}}"#]
        {
            let home = home(meta);
            assert!(docker(&with(&[("HOME", home.path().to_str().unwrap())])).is_err(), "{meta}");
        }
        let home = home(r#"{"Endpoints":{"docker":{"Host":"tcp://x:2376"}}}"#);
        fs::create_dir_all(home.path().join(".docker/contexts/tls").join(MINE)).unwrap();
        let secured = docker(&with(&[("HOME", home.path().to_str().unwrap())]));
        assert!(matches!(secured, Err(RuntimeError::Address { .. })));
    }
}
