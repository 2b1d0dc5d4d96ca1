//! Docker's credential helpers, which keep passwords in the keyring of the machine.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use memobuild_oci::{
    reference::Reference,
    registry::{Registries, RegistryError, RegistryOptions},
};

use crate::strict::{Auth, Options, Strict};

/// Names the directory and the registry to the inner process.
const INNER: &str = "MEMOBUILD_TEST_HELPER_CONFIG";

fn helper(dir: &Path, name: &str, script: &str) {
    let path = dir.join(format!("docker-credential-{name}"));
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a test again in a process of its own, whose PATH has the helpers; what it prints as its result.
fn again(test: &str, dir: &Path, config: &str, host: &str) -> String {
    fs::write(dir.join("config.json"), config).unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("PATH", path)
        .env(INNER, format!("{} {host}", dir.display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let result = text.lines().find_map(|l| l.split_once("result: ").map(|(_, r)| r.to_owned()));
    result.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn asks_as(dir: &Path, config: &str, host: &str) -> String {
    again("helpers::helpers_are_asked", dir, config, host)
}

#[test]
fn helpers_are_asked() {
    if let Ok(inner) = std::env::var(INNER) {
        let (dir, host) = inner.rsplit_once(' ').unwrap();
        let options = RegistryOptions { docker_config: Some(dir.into()), ..RegistryOptions::default() };
        let name: Reference = format!("{host}/a:1").parse().unwrap();
        let registries = Registries::new(options);
        let _ = registries.find_manifest(&name);
        println!(
            "\nresult: {}",
            match registries.find_manifest(&name) {
                Ok(_) => "let in".to_owned(),
                Err(RegistryError::Denied { with_credentials, .. }) => format!("denied, named: {with_credentials}"),
                Err(e) => e.to_string(),
            }
        );
        return;
    }
    let strict = Strict::new(Options { auth: Auth::Basic("ci", "secret"), ..Options::default() });
    let host = &strict.host;
    let dir = tempfile::tempdir().unwrap();
    let count = dir.path().join("count");
    // It gets the registry on its input, as docker has it.
    helper(
        dir.path(),
        "good",
        &format!(
            r#"read -r server || [ -n "$server" ]; echo "$1 $server" >> {}; [ "$server" = {host} ] && echo '{{"ServerURL":"x","Username":"ci","Secret":"secret"}}'"#,
            count.display()
        ),
    );
    helper(dir.path(), "none", "echo 'credentials not found in native keychain'; exit 1");
    helper(dir.path(), "odd", "echo nonsense");
    assert_eq!(asks_as(dir.path(), r#"{"credsStore":"good"}"#, host), "let in");
    // Two questions to the registry, one to the helper.
    assert_eq!(fs::read_to_string(&count).unwrap(), format!("get {host}\n"));
    let by_host = format!(r#"{{"credsStore":"none","credHelpers":{{"{host}":"good"}}}}"#);
    assert_eq!(asks_as(dir.path(), &by_host, host), "let in");
    for store in ["none", "odd", "that-lacks"] {
        let config = format!(r#"{{"credsStore":"{store}"}}"#);
        assert_eq!(asks_as(dir.path(), &config, host), "denied, named: false", "{store}");
        // "ci:secret", in the file itself.
        let config = format!(r#"{{"credsStore":"{store}","auths":{{"{host}":{{"auth":"Y2k6c2VjcmV0"}}}}}}"#);
        assert_eq!(asks_as(dir.path(), &config, host), "let in", "{store}");
    }
}

/// What a helper gives may hold for some hours only.
#[test]
fn a_helper_is_asked_anew_when_its_answer_no_longer_holds() {
    if let Ok(inner) = std::env::var(INNER) {
        let (dir, _) = inner.rsplit_once(' ').unwrap();
        let strict = Strict::new(Options { auth: Auth::Basic("ci", "first"), ..Options::default() });
        let options = RegistryOptions { docker_config: Some(dir.into()), ..RegistryOptions::default() };
        let registries = Registries::new(options);
        let name: Reference = format!("{}/a:1", strict.host).parse().unwrap();
        fs::write(Path::new(dir).join("secret"), "first").unwrap();
        registries.find_manifest(&name).unwrap();
        strict.set(|o| o.auth = Auth::Basic("ci", "second"));
        fs::write(Path::new(dir).join("secret"), "second").unwrap();
        println!("\nresult: {:?}", registries.find_manifest(&name).map_err(|e| e.to_string()));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let script = format!(r#"printf '{{"Username":"ci","Secret":"%s"}}' "$(cat {})""#, secret.display());
    helper(dir.path(), "hours", &script);
    let test = "helpers::a_helper_is_asked_anew_when_its_answer_no_longer_holds";
    assert_eq!(again(test, dir.path(), r#"{"credsStore":"hours"}"#, "-"), "Ok(None)");
}
