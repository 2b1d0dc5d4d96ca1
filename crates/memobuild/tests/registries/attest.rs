//! Provenance, SBOM, annotations and signatures, as other programs find them.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    common::text,
    server::Registry,
    support::{Project, has_busybox},
};

const STEPS: &str = "\
FROM base AS build
ARG WORD=secret-word
COPY a /a
RUN cat /a > /out
FROM base
COPY --from=build /out /out
COPY status /var/lib/dpkg/status
COPY METADATA /usr/lib/python3/dist-packages/thing-1.2.dist-info/METADATA
";

const STATUS: &str =
    "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:1.2.13\nSource: zlib\n\n";
const METADATA: &str = "Metadata-Version: 2.1\nName: thing\nVersion: 1.2\nLicense: MIT\n";

fn project() -> Option<Project> {
    has_busybox().then(|| Project::new(STEPS, &[("a", "1"), ("status", STATUS), ("METADATA", METADATA)]))
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn blob(layout: &Path, digest: &Value) -> Value {
    let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
    json(&fs::read(layout.join("blobs/sha256").join(hex)).unwrap())
}

/// The index of a layout's one image, and the statements of its attestation manifest.
fn read(layout: &Path) -> (Value, Vec<Value>) {
    let top = json(&fs::read(layout.join("index.json")).unwrap());
    let index = blob(layout, &top["manifests"][0]["digest"]);
    let manifests = index["manifests"].as_array().unwrap();
    let attested: Vec<&Value> =
        manifests.iter().filter(|m| m["annotations"]["vnd.docker.reference.type"] == "attestation-manifest").collect();
    assert_eq!(attested.len() * 2, manifests.len(), "{index:#}");
    let mut statements = Vec::new();
    for (image, attestation) in manifests.iter().zip(&attested) {
        assert_eq!(attestation["annotations"]["vnd.docker.reference.digest"], image["digest"]);
        assert_eq!(attestation["platform"]["architecture"], "unknown");
        for layer in blob(layout, &attestation["digest"])["layers"].as_array().unwrap() {
            let statement = blob(layout, &layer["digest"]);
            assert_eq!(statement["predicateType"], layer["annotations"]["in-toto.io/predicate-type"]);
            let subject = image["digest"].as_str().unwrap().trim_start_matches("sha256:");
            assert_eq!(statement["subject"][0]["digest"]["sha256"], subject);
            statements.push(statement);
        }
    }
    (index, statements)
}

fn built(project: &Project, more: &[&str]) -> (Value, Vec<Value>) {
    let layout = project.place.path("../image");
    let _ = fs::remove_dir_all(&layout);
    project.build_with(&[&["-o", "type=oci,tar=false,dest=../image"], more].concat());
    read(&layout)
}

#[test]
fn an_image_says_what_is_in_it_and_how_it_came_to_be() {
    let Some(project) = project() else { return };
    let (index, statements) = built(&project, &["--sbom", "--provenance=max", "--build-arg", "WORD=other"]);
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    let [sbom, provenance] = statements.as_slice() else { panic!("{statements:?}") };
    assert_eq!(sbom["predicate"]["spdxVersion"], "SPDX-2.3");
    let packages = sbom["predicate"]["packages"].as_array().unwrap();
    let has = |name: &str, version: &str| packages.iter().any(|p| p["name"] == name && p["versionInfo"] == version);
    assert!(has("zlib1g", "1:1.2.13") && has("thing", "1.2"), "{packages:#?}");
    let definition = &provenance["predicate"]["buildDefinition"];
    let args = &definition["externalParameters"]["request"]["args"];
    assert_eq!(args["build-arg:WORD"], "other", "{definition:#}");
    let sources = definition["resolvedDependencies"].as_array().unwrap();
    assert!(sources.iter().any(|m| m["uri"].as_str().unwrap().contains("base")), "{sources:?}");
    let steps = definition["internalParameters"]["buildConfig"]["steps"].as_array().unwrap();
    assert!(steps.len() >= 6, "{steps:#?}");
    assert!(provenance.to_string().contains("cat /a > /out"));
    // Without mode=max what people type as values is not told.
    let (_, statements) = built(&project, &["--provenance", "--build-arg", "WORD=other"]);
    let [provenance] = statements.as_slice() else { panic!("{statements:?}") };
    assert!(!provenance.to_string().contains("\"other\"") && !provenance.to_string().contains("cat /a"));
}

#[test]
fn attested_images_are_reproducible_too() {
    let Some(project) = project() else { return };
    let flags = ["--reproducible", "--sbom", "--provenance=max"];
    let first = built(&project, &flags);
    assert_eq!(built(&project, &flags), first);
    assert_eq!(built(&project, &[&["--no-cache"], flags.as_slice()].concat()), first);
    let _ = fs::remove_dir_all(project.cache());
    assert_eq!(built(&project, &flags), first);
}

#[test]
fn annotations_stand_where_they_were_put() {
    let Some(project) = project() else { return };
    let annotate = |text: &'static str| ["--annotation", text];
    let flags = [
        annotate("plain=1"),
        annotate("index:top=2"),
        annotate("manifest-descriptor:entry=3"),
        annotate("index-descriptor:layout=4"),
        annotate("manifest[linux/s390x]:never=5"),
    ]
    .concat();
    let (index, _) = built(&project, &[&["--provenance"], flags.as_slice()].concat());
    let layout = project.place.path("../image");
    assert_eq!(index["annotations"]["top"], "2");
    let entry = &index["manifests"][0];
    assert_eq!(entry["annotations"]["entry"], "3");
    let manifest = blob(&layout, &entry["digest"]);
    assert_eq!((&manifest["annotations"]["plain"], &manifest["annotations"]["never"]), (&"1".into(), &Value::Null));
    let top = json(&fs::read(layout.join("index.json")).unwrap());
    assert_eq!(top["manifests"][0]["annotations"]["layout"], "4");
}

fn skopeo(args: &[&str]) -> Option<Vec<u8>> {
    let out = Command::new("skopeo").arg("--insecure-policy").args(args).output();
    let Ok(out) = out else {
        println!("skipped: no skopeo");
        return None;
    };
    assert!(out.status.success(), "{}", text(&out.stderr));
    Some(out.stdout)
}

#[test]
fn a_registry_lists_platforms_attestations_and_referrers() {
    let Some(project) = project() else { return };
    let Some(registry) = Registry::start("", &[]) else { return };
    project.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\n");
    let name = registry.name("team/app:1");
    let platforms = "linux/amd64,linux/arm64";
    project.build_with(&["--sbom", "--provenance", "--platform", platforms, "-t", &name, "--push"]);
    let from = format!("docker://{name}");
    let Some(raw) = skopeo(&["inspect", "--raw", "--tls-verify=false", &from]) else { return };
    let index = json(&raw);
    let shown: Vec<String> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| {
            format!("{}/{}", m["platform"]["os"].as_str().unwrap(), m["platform"]["architecture"].as_str().unwrap())
        })
        .collect();
    assert_eq!(shown, ["linux/amd64", "linux/arm64", "unknown/unknown", "unknown/unknown"]);
    // This registry has no list of referrers: the tag that stands in for it names them.
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let tag = format!("docker://{}:{}", registry.name("team/app"), digest.replace(':', "-"));
    let Some(raw) = skopeo(&["inspect", "--raw", "--tls-verify=false", &tag]) else { return };
    let kinds =
        json(&raw)["manifests"].as_array().unwrap().iter().map(|m| m["artifactType"].to_string()).collect::<Vec<_>>();
    assert_eq!(kinds.iter().filter(|k| k.contains("in-toto")).count(), 2, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|k| k.contains("attestation.manifest")).count(), 1, "{kinds:?}");
    // Others copy all of it.
    skopeo(&[
        "copy",
        "-q",
        "--all",
        "--src-tls-verify=false",
        &from,
        &format!("oci:{}", project.place.path("../copy").display()),
    ]);
}

#[test]
fn what_is_pushed_can_be_signed_and_checked() {
    let Some(project) = project() else { return };
    let Some(registry) = Registry::start("", &[]) else { return };
    let name = registry.name("team/app:1");
    let run = |args: &[&str]| project.command(args).env("COSIGN_PASSWORD", "open").output().unwrap();
    let made = run(&["sign", "--generate", "../own"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(run(&["sign", "--generate", "../own"]).status.code(), Some(2), "keys are not written over");
    run(&["sign", "--generate", "../other"]);
    let mut build = project.build_command(&["-t", &name, "--push", "--sign", "../own.key"]);
    let built = build.env("COSIGN_PASSWORD", "open").output().unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
    let check = |key: &str| run(&["sign", "--check", "--key", key, &name]);
    let good = check("../own.pub");
    assert!(good.status.success(), "{}", text(&good.stderr));
    let bad = check("../other.pub");
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("not made with this key"), "{}", text(&bad.stderr));
    // A second signature leaves the first.
    assert!(run(&["sign", "--key", "../other.key", &name]).status.success());
    assert!(check("../own.pub").status.success() && check("../other.pub").status.success());
    // Another image under the name is not signed.
    project.dockerfile("FROM base\nCOPY a /b\n");
    project.build_with(&["-t", &name, "--push"]);
    let unsigned = check("../own.pub");
    assert!(text(&unsigned.stderr).contains("no signature of sha256:"), "{}", text(&unsigned.stderr));
    // A wrong password says so.
    let mut locked = project.command(&["sign", "--key", "../own.key", &name]);
    let locked = locked.env("COSIGN_PASSWORD", "wr0ng").output().unwrap();
    assert_eq!(locked.status.code(), Some(2), "{}", text(&locked.stderr));
    assert!(!text(&locked.stderr).contains("wr0ng"));
}
