//! Pushes: what is sent, what is not, and what broken connections cost.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use memobuild_image::{Descriptor, Manifest};
use memobuild_oci::{
    image::{self, BaseImage, ImageSource},
    model::Platform,
    output::{OutputError, Push, Report},
    reference::Reference,
    registry::{Registries, RegistryError, RegistryOptions},
};
use memobuild_store::Store;
use memobuild_tree::Sha256Digest;

use crate::support::*;

/// An image opened from a layout, its manifest and config in the store; layers stay where they are.
pub(crate) fn opened(layout: &std::path::Path, store: &Store) -> (BaseImage, Descriptor) {
    let registries = Registries::new(RegistryOptions::default());
    let source = ImageSource::layout(layout.to_str().unwrap());
    let base = image::open(&source, &Platform::default(), store, &registries).unwrap();
    let blob = |digest: &Sha256Digest| fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap();
    let bytes = blob(&base.manifest);
    store.oci_blob_put(&bytes).unwrap();
    store.oci_blob_put(&base.config_bytes).unwrap();
    let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
    (base, Descriptor::of(&manifest.media_type, &bytes))
}

pub(crate) fn push_to(
    names: &[&str],
    base: &BaseImage,
    root: &Descriptor,
    store: &Store,
) -> Result<Report, OutputError> {
    push_with(names, base, root, store, RegistryOptions::default())
}

pub(crate) fn push_with(
    names: &[&str],
    base: &BaseImage,
    root: &Descriptor,
    store: &Store,
    options: RegistryOptions,
) -> Result<Report, OutputError> {
    let names: Vec<Reference> = names.iter().map(|n| n.parse().unwrap()).collect();
    let registries = Registries::new(options);
    Push { store, registries: &registries, root, bases: vec![base], recipes: BTreeMap::new(), referrers: vec![] }
        .to(&names, &|_, _| ())
}

/// What skopeo, another implementation, reads there: the manifest's bytes.
fn raw(port: u16, name: &str) -> Option<Vec<u8>> {
    let at = format!("docker://127.0.0.1:{port}/{name}");
    let output = Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &at]).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

#[test]
fn what_is_pushed_comes_back_and_is_sent_once() {
    let layout = tempfile::tempdir().unwrap();
    let tree = make_image(layout.path());
    let Some(registry) = registry("") else { return };
    let (_keep, store) = store();
    let (base, root) = opened(layout.path(), &store);
    let at = |name: &str| format!("127.0.0.1:{}/{name}", registry.port);
    let report = push_to(&[&at("a/b:1"), &at("a/b:2")], &base, &root, &store).unwrap();
    assert_eq!(report, Report { sent: 3, mounted: 0, present: 0, refused: None });
    // A second push sends nothing.
    let report = push_to(&[&at("a/b:3")], &base, &root, &store).unwrap();
    assert_eq!(report, Report { sent: 0, mounted: 0, present: 3, refused: None });
    for name in ["a/b:1", "a/b:2", "a/b:3"] {
        let (_other, fresh) = crate::support::store();
        let back = open(&at(name), &fresh).unwrap();
        assert_eq!(back.manifest, root.digest);
        assert_eq!(back.tree(&|_, _| ()).unwrap(), tree);
        let Some(raw) = raw(registry.port, name) else {
            println!("skipped: no skopeo");
            continue;
        };
        assert_eq!(Sha256Digest::of(&raw), root.digest);
    }
}

#[test]
fn layers_of_a_base_on_the_same_registry_are_taken_over_and_never_downloaded() {
    let layout = tempfile::tempdir().unwrap();
    make_image(layout.path());
    let Some(registry) = registry("") else { return };
    let (_keep, store) = store();
    let (base, root) = opened(layout.path(), &store);
    let at = |name: &str| format!("127.0.0.1:{}/{name}", registry.port);
    push_to(&[&at("base:1")], &base, &root, &store).unwrap();
    // Another machine, which knows the base by its manifest alone.
    let (_other, fresh) = crate::support::store();
    let lazy = open(&at("base:1"), &fresh).unwrap();
    let bytes = store.oci_blob_path(&root.digest).map(|path| fs::read(path).unwrap()).unwrap();
    fresh.oci_blob_put(&bytes).unwrap();
    fresh.oci_blob_put(&lazy.config_bytes).unwrap();
    let report = push_to(&[&at("app/x:1")], &lazy, &root, &fresh).unwrap();
    assert_eq!(report, Report { sent: 1, mounted: 2, present: 0, refused: None });
    for layer in &lazy.layers {
        assert!(fresh.oci_blob_path(&layer.blob.as_ref().unwrap().digest).is_none(), "a layer was downloaded");
    }
    let (_third, other) = crate::support::store();
    open(&at("app/x:1"), &other).unwrap().tree(&|_, _| ()).unwrap();
}

#[test]
fn layers_that_the_registry_lacks_are_fetched_from_where_they_lie() {
    let layout = tempfile::tempdir().unwrap();
    make_image(layout.path());
    let (Some(from), Some(to)) = (registry(""), registry("")) else { return };
    let (_keep, store) = store();
    let (base, root) = opened(layout.path(), &store);
    push_to(&[&format!("127.0.0.1:{}/base:1", from.port)], &base, &root, &store).unwrap();
    let (_other, fresh) = crate::support::store();
    let lazy = open(&format!("127.0.0.1:{}/base:1", from.port), &fresh).unwrap();
    let bytes = store.oci_blob_path(&root.digest).map(|path| fs::read(path).unwrap()).unwrap();
    fresh.oci_blob_put(&bytes).unwrap();
    fresh.oci_blob_put(&lazy.config_bytes).unwrap();
    let report = push_to(&[&format!("127.0.0.1:{}/app:1", to.port)], &lazy, &root, &fresh).unwrap();
    assert_eq!(report.sent, 3);
}

/// Docker's registry can't go on with an upload that broke off: what was under way is sent again, the rest is not.
#[test]
fn two_hundred_cut_connections_lose_nothing() {
    let layout = tempfile::tempdir().unwrap();
    let tree = make_image_of(layout.path(), 60, 50_000);
    let Some(registry) = registry("") else { return };
    let (_keep, store) = store();
    let (base, root) = opened(layout.path(), &store);
    let cuts = Arc::new(AtomicUsize::new(200));
    let port = cutting_proxy(registry.port, 500_000, cuts.clone());
    for round in 1.. {
        let name = format!("127.0.0.1:{port}/a{round}:1");
        let report = push_to(&[&name], &base, &root, &store).unwrap();
        assert_eq!(report.sent + report.present, 61);
        let (_other, fresh) = crate::support::store();
        let back = open(&format!("127.0.0.1:{}/a{round}:1", registry.port), &fresh).unwrap();
        assert_eq!((back.manifest, back.tree(&|_, _| ()).unwrap()), (root.digest, tree.clone()));
        if cuts.load(Ordering::Relaxed) == 0 {
            break;
        }
    }
}

/// A registry, made by hand, that wants credentials and sends uploads to another host.
#[test]
fn another_host_gets_no_credentials() {
    fn serve(answers: impl Fn(&str) -> String + Send + 'static) -> (String, std::sync::mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (mut request, mut byte) = (Vec::new(), [0]);
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    request.push(byte[0]);
                }
                let request = String::from_utf8_lossy(&request).to_lowercase();
                let length = request.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
                let _ = stream.read_exact(&mut vec![0; length.unwrap_or(0)]);
                let answer = answers(&request);
                let _ = tell.send(request);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        (host, told)
    }
    let answer =
        |status: &str, more: &str| format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n{more}\r\n");
    let (other, heard) = serve(move |request| {
        let asks = "www-authenticate: basic realm=x\r\n";
        if request.contains("authorization") { answer("201 Created", "") } else { answer("401 Unauthorized", asks) }
    });
    let place = format!("location: http://{other}/upload?x=1\r\n");
    let (host, _) = serve(move |request| match request {
        r if !r.contains("authorization") => answer("401 Unauthorized", "www-authenticate: basic realm=x\r\n"),
        r if r.starts_with("head") => answer("404 Not Found", ""),
        _ => answer("202 Accepted", &place),
    });
    let layout = tempfile::tempdir().unwrap();
    make_image_of(layout.path(), 1, 1000);
    let (_keep, store) = store();
    let (base, root) = opened(layout.path(), &store);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#))
        .unwrap();
    let options = RegistryOptions { docker_config: Some(dir.path().into()), ..RegistryOptions::default() };
    let error = push_with(&[&format!("{host}/a:1")], &base, &root, &store, options).unwrap_err();
    assert!(matches!(error, OutputError::Registry(RegistryError::Denied { .. })), "{error}");
    let heard: Vec<String> = heard.try_iter().collect();
    assert!(heard.iter().any(|request| request.starts_with("put /upload?x=1&digest=")), "{heard:?}");
    assert!(heard.iter().all(|request| !request.contains("authorization")), "{heard:?}");
}

#[test]
fn who_may_not_write_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let Ok(made) = Command::new("htpasswd").args(["-Bbn", "user", "secret"]).output() else {
        println!("skipped: no htpasswd");
        return;
    };
    let password = dir.path().join("htpasswd");
    fs::write(&password, made.stdout).unwrap();
    let extra = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", password.display());
    let Some(registry) = registry(&extra) else { return };
    let layout = tempfile::tempdir().unwrap();
    make_image(layout.path());
    let (_keep, store) = store();
    let (base, root) = opened(layout.path(), &store);
    let name = format!("127.0.0.1:{}/private:1", registry.port);
    let options = RegistryOptions { docker_config: Some(dir.path().into()), ..RegistryOptions::default() };
    let error = push_with(&[&name], &base, &root, &store, options.clone()).unwrap_err();
    assert!(matches!(error, OutputError::Registry(RegistryError::Denied { with_credentials: false, .. })), "{error}");
    assert!(error.hint().unwrap().contains("docker login"));
    // "user:secret" in base64.
    let config = format!(r#"{{"auths":{{"127.0.0.1:{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#, registry.port);
    fs::write(dir.path().join("config.json"), config).unwrap();
    assert_eq!(push_with(&[&name], &base, &root, &store, options).unwrap().sent, 3);
}
