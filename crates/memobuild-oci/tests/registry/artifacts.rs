//! What is not an image: artifacts, their referrers, and lists of tags.

use std::{collections::BTreeMap, fs};

use memobuild_image::{Descriptor, media};
use memobuild_oci::{
    reference::Reference,
    registry::{Artifact, Pushed, Registries, RegistryError, RegistryOptions},
};
use memobuild_tree::Sha256Digest;

use crate::support::*;

const KIND: &str = "application/vnd.example.note+json";

/// An artifact with two blobs, put and read back; then what refers to it. Works on any registry.
pub(crate) fn round_trip(registries: &Registries, repository: &str) {
    let at = |tag: &str| format!("{repository}:{tag}").parse::<Reference>().unwrap();
    assert_eq!(registries.find_manifest(&at("1")).unwrap(), None);
    let (first, pushed) = registries.push_bytes(&at("1"), "text/plain", b"hello").unwrap();
    assert_eq!(pushed, Pushed::Sent);
    let dir = tempfile::tempdir().unwrap();
    let bytes = noise(6_000_000, 3);
    let (path, second) = (dir.path().join("f"), Descriptor::of("application/octet-stream", &bytes));
    fs::write(&path, &bytes).unwrap();
    assert_eq!(registries.push_file(&at("1"), &second, &path).unwrap(), Pushed::Sent);
    fs::remove_file(&path).unwrap();
    assert_eq!(registries.push_file(&at("1"), &second, &path).unwrap(), Pushed::Present);
    assert!(registries.has_blob(&at("1"), &second.digest).unwrap());
    assert!(!registries.has_blob(&at("1"), &Sha256Digest::of(b"other")).unwrap());
    let artifact =
        Artifact { artifact_type: KIND.into(), layers: vec![first.clone(), second.clone()], ..Artifact::default() };
    let put = registries.put_artifact(&at("1"), &artifact).unwrap();
    let got = registries.find_manifest(&at("1")).unwrap().unwrap();
    assert_eq!((got.digest, got.media_type.as_str()), (put.digest, media::MANIFEST));
    assert_eq!(registries.read_blob(&at("1"), &first, 5).unwrap(), b"hello");
    assert_eq!(registries.read_blob(&at("1"), &second, 8 << 20).unwrap(), bytes);
    let error = registries.read_blob(&at("1"), &second, 5).unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error}");

    let about = |note: &str, kind: &str| Artifact {
        artifact_type: kind.into(),
        subject: Some(put.clone()),
        annotations: BTreeMap::from([("note".into(), note.into())]),
        ..Artifact::default()
    };
    assert_eq!(registries.referrers(&at("1"), &put.digest, None).unwrap(), []);
    let untagged = Reference { tag: None, ..at("1") };
    let a = registries.put_artifact(&untagged, &about("a", KIND)).unwrap();
    let b = registries.put_artifact(&untagged, &about("b", "application/x+y")).unwrap();
    // Once more: it is listed once.
    registries.put_artifact(&untagged, &about("b", "application/x+y")).unwrap();
    let mut listed = registries.referrers(&at("1"), &put.digest, None).unwrap();
    listed.sort_by_key(|d| d.annotations.get("note").cloned());
    let facts = |d: &Descriptor| (d.digest, d.size, d.artifact_type.clone(), d.annotations.clone());
    assert_eq!(listed.iter().map(facts).collect::<Vec<_>>(), [facts(&a), facts(&b)]);
    let listed = registries.referrers(&at("1"), &put.digest, Some("application/x+y")).unwrap();
    assert_eq!(listed.iter().map(facts).collect::<Vec<_>>(), [facts(&b)]);
    assert_eq!(registries.referrers(&at("1"), &put.digest, Some("application/x")).unwrap(), []);

    let tags = registries.tags(&at("1")).unwrap();
    assert!(tags.iter().any(|tag| tag == "1"), "{tags:?}");
    let none = format!("{repository}-none").parse().unwrap();
    assert!(matches!(registries.tags(&none), Err(RegistryError::NotFound { .. })));
}

/// Docker's registry, which keeps no list of referrers.
#[test]
fn artifacts_on_dockers_registry() {
    let Some(registry) = registry("") else { return };
    round_trip(&Registries::new(RegistryOptions::default()), &format!("127.0.0.1:{}/a/b", registry.port));
}
