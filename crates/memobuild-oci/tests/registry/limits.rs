//! Registries that want to be left alone, have trouble, or say no; and what the errors say.

use std::time::{Duration, Instant};

use memobuild_image::{Descriptor, media};
use memobuild_oci::{
    reference::Reference,
    registry::{Artifact, Registries, RegistryError},
};

use crate::{
    push::{opened, push_to},
    strict::{Options, Strict},
    support::*,
};

fn at(strict: &Strict, name: &str) -> Reference {
    format!("{}/{name}", strict.host).parse().unwrap()
}

fn artifact() -> Artifact {
    Artifact { artifact_type: "a/b".into(), ..Artifact::default() }
}

#[test]
fn who_asks_too_often_waits_as_long_as_is_wished() {
    let strict = Strict::new(Options { refuse_every: Some((4, 429, Some(1))), ..Options::default() });
    let registries = Registries::new(nobody());
    let put = registries.put_artifact(&at(&strict, "a:1"), &artifact()).unwrap();
    assert_eq!(registries.manifest(&at(&strict, "a:1")).unwrap().digest, put.digest);
    let log = strict.log();
    let mut refused = 0;
    for pair in log.windows(2) {
        if pair[0].status == 429 {
            refused += 1;
            assert_eq!((&pair[0].method, &pair[0].target), (&pair[1].method, &pair[1].target));
            assert!(pair[1].at.duration_since(pair[0].at) >= Duration::from_secs(1));
        }
    }
    assert!(refused > 0, "{log:?}");
}

#[test]
fn trouble_for_a_moment_is_gone_through() {
    let layout = tempfile::tempdir().unwrap();
    let tree = make_image_of(layout.path(), 3, 5_000_000);
    let (_keep, store) = store();
    let (base, root) = opened(layout.path(), &store);
    for abrupt in [false, true] {
        let options = Options { refuse_every: Some((6, 503, None)), abrupt, ..Options::default() };
        let strict = Strict::new(options);
        let name = format!("{}/a:1", strict.host);
        push_to(&[&name], &base, &root, &store).unwrap();
        let (_other, fresh) = crate::support::store();
        assert_eq!(open(&name, &fresh).unwrap().tree(&|_, _| ()).unwrap(), tree);
        assert!(strict.log().iter().any(|l| l.status == 503));
    }
}

#[test]
fn a_wait_of_an_hour_is_not_begun() {
    let strict = Strict::new(Options { refuse_every: Some((1, 429, Some(3600))), ..Options::default() });
    let begun = Instant::now();
    let error = Registries::new(nobody()).manifest(&at(&strict, "a:1")).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(20));
    let expected = format!("{}: a: the registry answered 429: too many requests", strict.host);
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.hint().unwrap(), "too many requests: wait 3600 s, log in, or use a mirror");
    assert_eq!(strict.log().len(), 1);
}

/// Each names the registry and the repository, and says what to do.
#[test]
fn what_errors_say() {
    let strict = Strict::new(Options {
        read_only: vec!["frozen"],
        immutable_tags: true,
        delete: false,
        max_manifest: 100_000,
        ..Options::default()
    });
    let host = strict.host.clone();
    let registries = Registries::new(nobody());
    let error = registries.manifest(&at(&strict, "a/b:1")).unwrap_err();
    assert_eq!(error.to_string(), format!("{host}: a/b: 1 not found"));
    assert_eq!(
        error.hint().unwrap(),
        "check the name and tag; a private repository may hide behind this answer: log in"
    );

    let error = registries.put_artifact(&at(&strict, "frozen:1"), &artifact()).unwrap_err();
    assert_eq!(error.to_string(), format!("{host}: access to frozen denied: the repository is read-only"));
    assert_eq!(error.hint().unwrap(), format!("is the name right? If it is private: docker login {host}"));

    registries.put_artifact(&at(&strict, "a:1"), &artifact()).unwrap();
    let other = Artifact { artifact_type: "c/d".into(), ..Artifact::default() };
    let error = registries.put_artifact(&at(&strict, "a:1"), &other).unwrap_err();
    assert_eq!(error.to_string(), format!("{host}: a: the registry answered 409: the tag 1 is immutable"));

    let many = vec![Descriptor::of(media::LAYER, b"x"); 1000];
    registries.push_bytes(&at(&strict, "a"), media::LAYER, b"x").unwrap();
    let error = registries.put_artifact(&at(&strict, "a:2"), &Artifact { layers: many, ..artifact() }).unwrap_err();
    assert_eq!(error.to_string(), format!("{host}: a: the registry answered 413: the manifest is too large"));
    assert_eq!(error.hint().unwrap(), "the registry does not take anything as large as this");

    let missing = Descriptor::of(media::LAYER, b"not there");
    let error = registries.put_artifact(&at(&strict, "a:2"), &Artifact { layers: vec![missing.clone()], ..artifact() });
    let error = error.unwrap_err();
    let digest = missing.digest;
    let expected = format!("{host}: a: the registry answered 404: {digest} is unknown to the registry");
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().unwrap().starts_with("the registry lacks"), "{:?}", error.hint());

    strict.set(|o| o.refuse_every = Some((1, 501, None)));
    let error = registries.tags(&at(&strict, "a")).unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 501, .. }), "{error:?}");
    assert_eq!(error.hint().unwrap(), "the registry has trouble of its own: try again later");
}
