//! What is not an image: artifacts, their referrers, and lists of tags.

use std::{collections::BTreeMap, fs};

use memobuild_image::{Descriptor, media};
use memobuild_oci::{
    reference::Reference,
    registry::{Artifact, Pushed, Registries, RegistryError},
};
use memobuild_tree::Sha256Digest;

use crate::{
    strict::{Options, Strict},
    support::*,
};

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
    round_trip(&Registries::new(nobody()), &format!("127.0.0.1:{}/a/b", registry.port));
}

fn on_strict(options: Options) -> Strict {
    let strict = Strict::new(options);
    round_trip(&Registries::new(nobody()), &format!("{}/a/b", strict.host));
    assert_eq!(strict.open_uploads(), 0);
    strict
}

#[test]
fn artifacts_where_the_registry_lists_referrers() {
    let strict = on_strict(Options::default());
    assert!(strict.asked().iter().all(|a| !a.contains("/manifests/sha256-")), "{:?}", strict.asked());
}

#[test]
fn artifacts_where_it_lists_but_does_not_filter() {
    on_strict(Options { filter: false, page: 1, ..Options::default() });
}

#[test]
fn artifacts_where_the_referrers_tag_must_do() {
    let strict = on_strict(Options { referrers: false, ..Options::default() });
    // Each new entry is one manifest under that tag; what is listed already is no other.
    let puts = strict.asked().iter().filter(|a| a.starts_with("PUT /v2/a/b/manifests/sha256-")).count();
    assert_eq!(puts, 2);
}

/// Several add to one referrers tag at the same time, and no entry is lost: in one process, and in several where the
/// registry heeds conditions.
#[test]
fn entries_added_at_the_same_time() {
    for conditions in [false, true] {
        let strict = Strict::new(Options { referrers: false, conditions, ..Options::default() });
        let name: Reference = format!("{}/a", strict.host).parse().unwrap();
        let shared = Registries::new(nobody());
        let plain = Artifact { artifact_type: KIND.into(), ..Artifact::default() };
        let subject = shared.put_artifact(&name, &plain).unwrap();
        std::thread::scope(|scope| {
            for i in 0..4 {
                let (name, subject) = (&name, subject.clone());
                let registries = if conditions { Registries::new(nobody()) } else { shared.clone() };
                let note = BTreeMap::from([("i".into(), i.to_string())]);
                let artifact = Artifact { subject: Some(subject), annotations: note, ..plain.clone() };
                scope.spawn(move || registries.put_artifact(name, &artifact).unwrap());
            }
        });
        assert_eq!(shared.referrers(&name, &subject.digest, None).unwrap().len(), 4);
    }
}

#[test]
fn what_is_under_the_referrers_tag_by_chance_is_not_overwritten() {
    let strict = Strict::new(Options { referrers: false, ..Options::default() });
    let registries = Registries::new(nobody());
    let name: Reference = format!("{}/a", strict.host).parse().unwrap();
    let plain = Artifact { artifact_type: KIND.into(), ..Artifact::default() };
    let subject = registries.put_artifact(&name, &plain).unwrap();
    let tag = subject.digest.to_string().replace(':', "-");
    let taken = Reference { tag: Some(tag), ..name.clone() };
    let image = registries.put_artifact(&taken, &plain).unwrap();
    let about = Artifact { subject: Some(subject), ..plain };
    let error = registries.put_artifact(&name, &about).unwrap_err();
    assert!(error.to_string().contains("should be an index"), "{error}");
    assert_eq!(registries.manifest(&taken).unwrap().digest, image.digest);
}

/// Tags come in pages, with and without the header that says so.
#[test]
fn long_lists_of_tags() {
    let strict = Strict::new(Options { page: 7, ..Options::default() });
    let registries = Registries::new(nobody());
    let artifact = Artifact { artifact_type: KIND.into(), ..Artifact::default() };
    let at = |i: usize| format!("{}/a:t{i:02}", strict.host).parse::<Reference>().unwrap();
    for i in 0..20 {
        registries.put_artifact(&at(i), &artifact).unwrap();
    }
    let expected: Vec<String> = (0..20).map(|i| format!("t{i:02}")).collect();
    assert_eq!(registries.tags(&at(0)).unwrap(), expected);
    assert_eq!(strict.asked().iter().filter(|a| a.ends_with("tags/list")).count(), 3);
}

/// A registry stores no index before what it lists, and no manifest before its blobs.
#[test]
fn an_index_of_several_manifests() {
    let strict = Strict::new(Options { place: crate::strict::Place::Relative, ..Options::default() });
    let registries = Registries::new(nobody());
    let at: Reference = format!("{}/a:1", strict.host).parse().unwrap();
    let by_digest = Reference { tag: None, ..at.clone() };
    let manifests: Vec<Descriptor> = (0..4)
        .map(|i| {
            let (layer, _) = registries.push_bytes(&at, media::LAYER, format!("layer {i}").as_bytes()).unwrap();
            let artifact = Artifact { artifact_type: KIND.into(), layers: vec![layer], ..Artifact::default() };
            registries.put_artifact(&by_digest, &artifact).unwrap()
        })
        .collect();
    let missing = Descriptor::of(media::MANIFEST, b"{}");
    let index = |manifests: &[Descriptor]| {
        memobuild_image::json::pretty(&memobuild_image::Index::new(manifests.to_vec())).unwrap()
    };
    let error = registries.put_manifest(&at, media::INDEX, &index(&[missing])).unwrap_err();
    assert!(error.to_string().contains("unknown to the registry"), "{error}");
    let put = registries.put_manifest(&at, media::INDEX, &index(&manifests)).unwrap();
    let got = registries.manifest(&at).unwrap();
    assert_eq!((got.digest, got.media_type.as_str()), (put.digest, media::INDEX));
    for manifest in &manifests {
        registries.manifest_by_digest(&at, manifest.digest).unwrap();
    }
}
