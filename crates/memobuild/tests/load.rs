//! `memobuild load` with stand-ins for the programs of containerd. The daemons themselves are in scripts/tests/runtimes.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _, process::Output};

use common::{Place, text};

/// Lists what the file `known` names, keeps each archive as 1.tar, 2.tar..., and takes over the blobs in it. With a file
/// `forgetful` the first import fails and loses all.
const CTR: &str = r#"#!/bin/sh
set -eu
PATH=/usr/bin:/bin
echo "$*" >>"$STATE/calls"
case $* in
    *"content ls -q") cat "$STATE/known" ;;
    *"images import -")
        count=$(ls "$STATE" | grep -c 'tar$' || true)
        archive=$STATE/$((count + 1)).tar
        cat >"$archive"
        if [ -e "$STATE/forgetful" ]; then
            rm "$STATE/forgetful"
            : >"$STATE/known"
            echo "ctr: content digest sha256:0: not found" >&2
            exit 1
        fi
        tar -tf "$archive" | sed -n 's,^blobs/sha256/\(.\{64\}\)$,sha256:\1,p' >>"$STATE/known" ;;
    *) echo "unknown: $*" >&2; exit 2 ;;
esac
"#;

const NERDCTL: &str = r#"#!/bin/sh
set -eu
PATH=/usr/bin:/bin
echo "$*" >>"$STATE/calls"
cat >"$STATE/1.tar"
"#;

/// A place with an image `app` of two layers, and one program of containerd's.
fn place(program: &str, script: &str) -> Place {
    let dockerfile = "FROM scratch\nCOPY a.txt /a\nCOPY b.txt /b\n";
    let place = Place::with(&[("Dockerfile", dockerfile), ("a.txt", "a\n"), ("b.txt", "b\n"), ("state/known", "")]);
    place.write("socket", "");
    place.write(&format!("bin/{program}"), script);
    fs::set_permissions(place.path(&format!("bin/{program}")), fs::Permissions::from_mode(0o755)).unwrap();
    place.stdout(&["build", "-q", "-t", "app", "."]);
    place
}

/// With nothing on the PATH but that program.
fn load(place: &Place, args: &[&str]) -> Output {
    let mut command = place.command(env!("CARGO_BIN_EXE_memobuild"));
    command.arg("load").args(args).env("PATH", place.path("bin")).env("STATE", place.path("state"));
    command.env("CONTAINERD_ADDRESS", place.path("socket")).output().unwrap()
}

fn said(place: &Place, args: &[&str]) -> String {
    let out = load(place, args);
    assert!(out.status.success(), "{}", text(&out.stderr));
    text(&out.stdout)
}

fn files(place: &Place, archive: &str) -> Vec<String> {
    let out = place.command("tar").args(["-tf", archive]).output().unwrap();
    text(&out.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn containerd_is_sent_what_it_lacks() {
    let place = place("ctr", CTR);
    let first = said(&place, &["app", "--namespace", "k8s.io"]);
    assert!(first.starts_with("app:latest loaded into containerd (ctr, namespace k8s.io): 2 layers sent ("), "{first}");
    assert!(first.ends_with("), 0 already there\n"), "{first}");
    let names = files(&place, "state/1.tar");
    // Two layers, config and manifest.
    assert_eq!(names.iter().filter(|n| n.starts_with("blobs/sha256/") && n.len() > 64).count(), 4, "{names:?}");
    assert!(names.contains(&"index.json".into()) && names.contains(&"oci-layout".into()), "{names:?}");
    assert!(place.read("state/calls").lines().all(|line| line.starts_with("--namespace=k8s.io ")));

    let second = said(&place, &["app", "--to", "containerd"]);
    assert!(
        second.contains("namespace default): 0 layers sent (") && second.ends_with("2 already there\n"),
        "{second}"
    );
    assert_eq!(files(&place, "state/2.tar").iter().filter(|n| n.len() > 64).count(), 2);
}

#[test]
fn containerd_is_sent_all_where_a_layer_is_gone() {
    let place = place("ctr", CTR);
    said(&place, &["app", "--to", "containerd"]);
    place.write("state/forgetful", "");
    let again = said(&place, &["app", "--to", "containerd"]);
    assert!(again.contains(": 2 layers sent (") && again.ends_with("0 already there\n"), "{again}");
    assert_eq!(files(&place, "state/2.tar").iter().filter(|n| n.len() > 64).count(), 2);
    assert_eq!(files(&place, "state/3.tar").iter().filter(|n| n.len() > 64).count(), 4);
}

#[test]
fn a_failure_of_ctr_is_shown_in_its_own_words() {
    let place = place("ctr", CTR);
    place.write("state/forgetful", "");
    let out = load(&place, &["app", "--to", "containerd"]);
    assert_eq!(out.status.code(), Some(5));
    assert!(
        text(&out.stderr).contains("error: ctr images import failed: ctr: content digest"),
        "{}",
        text(&out.stderr)
    );
    // Nothing was left out of it: it is not tried again.
    assert!(!place.path("state/2.tar").exists());
}

#[test]
fn nerdctl_stands_in_for_ctr() {
    let place = place("nerdctl", NERDCTL);
    let said = said(&place, &["app", "--namespace", "mine"]);
    assert!(said.starts_with("app:latest loaded into containerd (nerdctl, namespace mine): 2 layers sent"), "{said}");
    assert_eq!(place.read("state/calls"), "--namespace=mine load\n");
    assert!(files(&place, "state/1.tar").contains(&"manifest.json".into()));
}
