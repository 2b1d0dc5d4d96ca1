//! Settings of single hosts: authorities, certificates that are shown, plain http.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use memobuild_oci::{
    reference::Reference,
    registry::{Artifact, Certificates, HostOptions, Registries, RegistryError, RegistryOptions},
};

use crate::{
    strict::{Options, Strict},
    support::*,
};

fn openssl(dir: &Path, args: &str) -> bool {
    let output = Command::new("openssl").args(args.split_whitespace()).current_dir(dir).output();
    let Ok(output) = output else {
        println!("skipped: no openssl");
        return false;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// An authority `NAME.pem`, and by it a certificate `NAME-WHO.pem` with its key for each of those.
fn authority(dir: &Path, name: &str, whom: &[(&str, &str)]) -> bool {
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    if !openssl(dir, &format!("{new} -x509 -days 9 -subj /CN={name} -keyout {name}.key -out {name}.pem")) {
        return false;
    }
    for (who, alternative) in whom {
        let one = format!("{name}-{who}");
        openssl(dir, &format!("{new} -subj /CN={who} -keyout {one}.key -out {one}.csr"));
        fs::write(dir.join("extensions"), format!("subjectAltName={alternative}\nbasicConstraints=CA:FALSE\n"))
            .unwrap();
        openssl(
            dir,
            &format!(
                "x509 -req -days 9 -in {one}.csr -CA {name}.pem -CAkey {name}.key -CAcreateserial -extfile extensions -out {one}.pem"
            ),
        );
    }
    true
}

fn tls(dir: &Path, certificate: &str, client_ca: Option<&str>) -> Option<Registry> {
    let path = |name: String| dir.join(name).display().to_string();
    let clients = client_ca.map(|ca| format!(", clientcas: [{}]", path(format!("{ca}.pem")))).unwrap_or_default();
    registry_with(&format!(
        ", tls: {{certificate: {}, key: {}{clients}}}",
        path(format!("{certificate}.pem")),
        path(format!("{certificate}.key"))
    ))
}

fn with(host: &str, settings: HostOptions) -> Registries {
    let mut options = RegistryOptions { ..nobody() };
    options.hosts.insert(host.into(), settings);
    Registries::new(options)
}

fn put(registries: &Registries, host: &str) -> Result<(), RegistryError> {
    let name: Reference = format!("{host}/a:1").parse().unwrap();
    let artifact = Artifact { artifact_type: "a/b".into(), ..Artifact::default() };
    registries.put_artifact(&name, &artifact).map(drop)
}

#[test]
fn authorities_and_certificates_of_a_host() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let own = [("server", "IP:127.0.0.1"), ("else", "DNS:other.example"), ("client", "DNS:client")];
    if !authority(dir, "own", &own) || !authority(dir, "strange", &[("client", "DNS:client")]) {
        return;
    }
    let file = |name: &str| -> PathBuf { dir.join(name) };
    let ca = |name: &str| HostOptions {
        certificates: Certificates { ca: vec![file(name)], ..Certificates::default() },
        ..HostOptions::default()
    };
    let Some(server) = tls(dir, "own-server", None) else { return };
    let host = format!("127.0.0.1:{}", server.port);

    put(&with(&host, ca("own.pem")), &host).unwrap();
    // The wrong authority: said at once, without trying again.
    let begun = Instant::now();
    let error = put(&with(&host, ca("strange.pem")), &host).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains(&host) && hint.contains("(ca) or in SSL_CERT_FILE"), "{hint}");
    // Not checked at all.
    put(&with(&host, HostOptions { insecure: true, ..ca("strange.pem") }), &host).unwrap();
    // Files that are of no use.
    for (name, text) in [("none.pem", None), ("empty.pem", Some("nothing here"))] {
        if let Some(text) = text {
            fs::write(file(name), text).unwrap();
        }
        let error = put(&with(&host, ca(name)), &host).unwrap_err();
        assert!(matches!(error, RegistryError::Settings { .. }), "{error:?}");
        assert!(error.to_string().contains(name) && error.to_string().starts_with(&host), "{error}");
    }

    // A certificate for another name.
    let Some(wrong) = tls(dir, "own-else", None) else { return };
    let host = format!("127.0.0.1:{}", wrong.port);
    let error = put(&with(&host, ca("own.pem")), &host).unwrap_err();
    assert!(error.hint().unwrap().contains("made for another name"), "{error}: {:?}", error.hint());

    // A host that wants to see a certificate.
    let Some(mutual) = tls(dir, "own-server", Some("own")) else { return };
    let host = format!("127.0.0.1:{}", mutual.port);
    let shown = |client: PathBuf, key: Option<PathBuf>| HostOptions {
        certificates: Certificates { client: Some(client), key, ..ca("own.pem").certificates },
        ..HostOptions::default()
    };
    let client = |name: &str| shown(file(&format!("{name}.pem")), Some(file(&format!("{name}.key"))));
    put(&with(&host, client("own-client")), &host).unwrap();
    for settings in [ca("own.pem"), client("strange-client")] {
        let error = put(&with(&host, settings), &host).unwrap_err();
        assert!(error.hint().unwrap().contains("client certificate"), "{error}: {:?}", error.hint());
    }
    // Both in one file, and a file without a key.
    let both = [fs::read(file("own-client.pem")).unwrap(), fs::read(file("own-client.key")).unwrap()].concat();
    fs::write(file("both.pem"), both).unwrap();
    let joint = |name: &str| shown(file(name), None);
    put(&with(&host, joint("both.pem")), &host).unwrap();
    let error = put(&with(&host, joint("own-client.pem")), &host).unwrap_err();
    assert!(error.to_string().contains("there is no private key in"), "{error}");
}

#[test]
fn plain_http_is_spoken_where_the_settings_say_so() {
    let strict = Strict::new(Options::default());
    put(&with(&strict.host, HostOptions { http: true, ..HostOptions::default() }), &strict.host).unwrap();
    // Who names an authority does not want to go without: nothing is sent in the clear.
    let dir = tempfile::tempdir().unwrap();
    if !authority(dir.path(), "own", &[]) {
        return;
    }
    strict.clear_log();
    let settings = HostOptions {
        certificates: Certificates { ca: vec![dir.path().join("own.pem")], ..Certificates::default() },
        ..HostOptions::default()
    };
    let error = put(&with(&strict.host, settings), &strict.host).unwrap_err();
    assert!(error.hint().unwrap().contains("plain http"), "{error}: {:?}", error.hint());
    assert_eq!(strict.log().len(), 0);
}
