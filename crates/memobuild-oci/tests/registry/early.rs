//! Layers that are sent before the rest of their image is made.

use std::collections::BTreeMap;

use memobuild_oci::{
    output::{Early, Push, Report},
    reference::Reference,
    registry::Registries,
};

use crate::{
    push::opened,
    strict::{Options, Strict},
    support::*,
};

/// How often each blob was asked for, and how often one was sent.
fn asked(strict: &Strict) -> (BTreeMap<String, usize>, usize) {
    let (mut heads, mut puts) = (BTreeMap::new(), 0);
    for logged in strict.log() {
        match logged.method.as_str() {
            "HEAD" if logged.target.contains("/blobs/") => *heads.entry(logged.target).or_default() += 1,
            "PUT" if logged.target.contains("/blobs/") => puts += 1,
            _ => {}
        }
    }
    strict.clear_log();
    (heads, puts)
}

#[test]
fn no_blob_is_asked_for_or_sent_twice() {
    let layout = tempfile::tempdir().unwrap();
    let tree = make_image_of(layout.path(), 6, 300_000);
    let strict = Strict::new(Options::default());
    let (_keep, store) = store();
    let (base, root) = opened(layout.path(), &store);
    for at in 0..base.layers.len() {
        base.ensure_blob(at, &|_, _| ()).unwrap();
    }
    let name: Reference = format!("{}/a:1", strict.host).parse().unwrap();
    for round in 0..2 {
        let registries = Registries::new(nobody());
        let names = [name.clone()];
        let early = Early::start(&registries, &store, &names);
        base.layers.iter().filter_map(|layer| layer.blob.as_ref()).for_each(|blob| early.offer(blob));
        let (recipes, referrers) = Default::default();
        let push = Push { store: &store, registries: &registries, root: &root, bases: vec![&base], recipes, referrers };
        let Report { sent, present, .. } = push.to(&names, &|_, _| ()).unwrap();
        let before = early.finish();
        let (heads, puts) = asked(&strict);
        assert_eq!(heads.len(), 7, "{heads:?}");
        assert!(heads.values().all(|count| *count == 1), "{heads:?}");
        assert_eq!(
            (sent + present, sent + before, puts),
            (7, if round == 0 { 7 } else { 0 }, if round == 0 { 7 } else { 0 })
        );
    }
    let (_other, fresh) = crate::support::store();
    assert_eq!(open(&name.to_string(), &fresh).unwrap().tree(&|_, _| ()).unwrap(), tree);
}

/// What can't be sent early is sent later, and fails only then.
#[test]
fn what_fails_early_is_told_by_the_push() {
    let layout = tempfile::tempdir().unwrap();
    make_image_of(layout.path(), 2, 300_000);
    let strict = Strict::new(Options { read_only: vec!["a"], ..Options::default() });
    let (_keep, store) = store();
    let (base, root) = opened(layout.path(), &store);
    let names: [Reference; 1] = [format!("{}/a:1", strict.host).parse().unwrap()];
    let registries = Registries::new(nobody());
    let early = Early::start(&registries, &store, &names);
    for at in 0..base.layers.len() {
        early.offer(&base.ensure_blob(at, &|_, _| ()).unwrap());
    }
    let (recipes, referrers) = Default::default();
    let push = Push { store: &store, registries: &registries, root: &root, bases: vec![&base], recipes, referrers };
    let error = push.to(&names, &|_, _| ()).unwrap_err();
    assert!(error.to_string().contains("denied"), "{error}");
    assert_eq!(early.finish(), 0);
}
