//! Pulls, through a proxy that breaks connections.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use memobuild_oci::{
    image::ImageError,
    registry::{Registries, RegistryError, RegistryOptions},
};

use crate::support::*;

#[test]
fn an_image_is_pulled_over_broken_connections_without_starting_again() {
    let layout = tempfile::tempdir().unwrap();
    let tree = make_image(layout.path());
    let Some(registry) = registry("") else { return };
    if !push(layout.path(), registry.port, "a/b:1", &[]) {
        return;
    }
    // Ten breaks, each after half a megabyte or more: without resuming, six megabytes would never come through.
    let breaks = Arc::new(AtomicUsize::new(10));
    let (port, passed) = breaking_proxy(registry.port, 500_000, breaks.clone());
    let (_keep, store) = store();
    let base = open(&format!("127.0.0.1:{port}/a/b:1"), &store).unwrap();
    let most = AtomicU64::new(0);
    let progress = |bytes, _: Option<u64>| {
        most.fetch_max(bytes, Ordering::Relaxed);
    };
    assert_eq!(base.tree(&progress).unwrap(), tree);
    assert_eq!(breaks.load(Ordering::Relaxed), 0);
    assert!(most.load(Ordering::Relaxed) >= 6_000_000);
    let passed = passed.load(Ordering::Relaxed);
    assert!(passed < 9_000_000, "{passed} bytes for 6 MB: downloads started again");
    // The blobs are there for passing on; and a second look needs the manifest alone.
    for i in 0..2 {
        assert!(store.oci_blob_path(&base.ensure_blob(i, &|_, _| ()).unwrap().digest).is_some());
    }
    let by_digest = format!("127.0.0.1:{}/a/b@{}", registry.port, base.manifest);
    let again = open(&by_digest, &store).unwrap();
    assert!(again.known_layer(1).unwrap().is_some());
}

#[test]
fn dockers_media_types_are_read() {
    let layout = tempfile::tempdir().unwrap();
    let tree = make_image(layout.path());
    let Some(registry) = registry("") else { return };
    if push(layout.path(), registry.port, "a:latest", &["--format=v2s2"]) {
        let (_keep, store) = store();
        let base = open(&format!("localhost:{}/a", registry.port), &store).unwrap();
        assert_eq!(base.tree(&|_, _| ()).unwrap(), tree);
        assert_eq!(base.layers[0].blob.as_ref().unwrap().media_type, memobuild_oci::model::media::LAYER_GZIP);
    }
}

#[test]
fn what_is_not_there_is_said_clearly() {
    let Some(registry) = registry("") else { return };
    let (_keep, store) = store();
    let name = format!("127.0.0.1:{}/none:1", registry.port);
    let error = open(&name, &store).unwrap_err();
    assert_eq!(error.to_string(), format!("127.0.0.1:{}: none: 1 not found", registry.port));
    assert!(error.hint().is_some());
    let port = registry.port;
    drop(registry);
    let error = open(&format!("127.0.0.1:{port}/none"), &store).unwrap_err();
    assert!(error.hint().is_some());
    assert!(matches!(error, ImageError::Registry(RegistryError::Transport { .. })), "{error}");
}

#[test]
fn credentials_of_docker_login_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("htpasswd");
    // "user" with the password "secret", as htpasswd -B writes it.
    let made = Command::new("htpasswd").args(["-Bbn", "user", "secret"]).output();
    let Ok(made) = made else {
        println!("skipped: no htpasswd");
        return;
    };
    fs::write(&password, made.stdout).unwrap();
    let extra = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", password.display());
    let Some(registry) = registry(&extra) else { return };
    let layout = tempfile::tempdir().unwrap();
    make_image(layout.path());
    if !push(layout.path(), registry.port, "private", &["--dest-creds=user:secret"]) {
        return;
    }
    let name = format!("127.0.0.1:{}/private", registry.port);
    let (_keep, store) = store();
    let options = RegistryOptions { docker_config: Some(dir.path().into()), ..RegistryOptions::default() };
    let error = open_with(&name, &store, options.clone()).unwrap_err();
    assert!(matches!(error, ImageError::Registry(RegistryError::Denied { with_credentials: false, .. })), "{error}");
    assert!(error.hint().unwrap().contains("docker login"));
    // "user:secret" in base64.
    let config = format!(r#"{{"auths":{{"127.0.0.1:{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#, registry.port);
    fs::write(dir.path().join("config.json"), config).unwrap();
    let base = open_with(&name, &store, options).unwrap();
    base.ensure_layer(1, &|_, _| ()).unwrap();
}

/// A registry that speaks the token protocol and asks a server of its own for tokens, made by hand.
#[test]
fn tokens_are_fetched_and_shown() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let realm = format!("http://{host}/token");
    let (asked, seen) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).to_lowercase();
            let first = request.lines().next().unwrap_or_default().to_owned();
            let answer = |status: &str, headers: &str, body: &str| {
                format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
                    body.len()
                )
            };
            let reply = if first.starts_with("get /token?") {
                answer("200 OK", "", r#"{"access_token":"t0k"}"#)
            } else if request.contains("authorization: bearer t0k") {
                answer("200 OK", "content-type: application/vnd.oci.image.manifest.v1+json\r\n", "{}")
            } else {
                let header =
                    format!("www-authenticate: Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:a:pull\"\r\n");
                answer("401 Unauthorized", &header, "")
            };
            asked.send(first).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    let registries = Registries::new(RegistryOptions::default());
    let reference = format!("{host}/a:1").parse().unwrap();
    assert_eq!(registries.manifest(&reference).unwrap().bytes, b"{}");
    registries.manifest(&reference).unwrap();
    let asked: Vec<_> = seen.try_iter().collect();
    let manifest = "get /v2/a/manifests/1 http/1.1";
    assert_eq!(
        asked,
        [
            manifest,
            "get /token?service=s&scope=repository%3aa%3apull http/1.1",
            manifest,
            // The token is kept.
            manifest,
        ]
    );
}
