//! Each command at work, on images that need no sandbox.

mod common;

use std::{fs, io::Write as _, process::Stdio};

use common::{Place, text};

const DOCKERFILE: &str = "\
# base what all share
FROM scratch AS base
COPY a.txt /data/a
FROM base
# VERSION goes into a label
ARG VERSION=1
COPY b.txt /data/b
WORKDIR /data
LABEL version=$VERSION
CMD [\"/data/b\"]
";

fn place() -> Place {
    Place::with(&[("Dockerfile", DOCKERFILE), ("a.txt", "a\n"), ("b.txt", "b\n")])
}

#[test]
fn plain_progress_of_a_first_and_a_second_build() {
    // One step after the other: the order of steps that run side by side is not fixed.
    let dockerfile = "FROM scratch\nCOPY <<a /a\nhello\na\nWORKDIR /data\n";
    let place = Place::with(&[("Dockerfile", dockerfile)]);
    insta::assert_snapshot!("plain_first", place.shown(&["build", "--progress", "plain", "-t", "app", "."]));
    insta::assert_snapshot!("plain_second", place.shown(&["build", "--progress", "plain", "-t", "app", "."]));
}

#[test]
fn raw_json_progress_is_one_object_a_line() {
    let place = place();
    let out = place.memobuild(&["build", "--progress", "rawjson", "."]);
    assert!(out.status.success() && out.stdout.is_empty());
    let events: Vec<serde_json::Value> =
        text(&out.stderr).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|e| e["time"].as_str().is_some_and(|t| t.ends_with('Z'))));
    assert!(events.iter().any(|e| e["event"] == "build_started"));
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["ok"]), (&"build_finished".into(), &true.into()));
}

#[test]
fn the_trace_file_tells_of_each_step() {
    let place = place();
    for outcome in ["executed", "cached"] {
        place.stdout(&["build", "-q", "--trace-file", "trace.json", "-t", "app", "."]);
        let events: Vec<serde_json::Value> = serde_json::from_str(&place.read("trace.json")).unwrap();
        let copies: Vec<&serde_json::Value> =
            events.iter().filter(|e| e["name"].as_str().is_some_and(|name| name.contains("COPY"))).collect();
        assert_eq!(copies.len(), 2, "{events:?}");
        assert!(copies.iter().all(|e| e["args"]["outcome"] == outcome && e["ph"] == "X"), "{copies:?}");
        assert!(events.iter().any(|e| e["name"] == "build" && e["args"]["ok"] == true));
    }
}

#[test]
fn quiet_prints_the_id_and_files_hold_it() {
    let place = place();
    let out = place.memobuild(&["build", "-q", "-t", "app:1", "--iidfile", "iid", "--metadata-file", "meta.json", "."]);
    let id = text(&out.stdout);
    assert!(out.stderr.is_empty(), "{}", text(&out.stderr));
    assert_eq!(id.trim_end(), place.read("iid"));
    let metadata: serde_json::Value = serde_json::from_str(&place.read("meta.json")).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], id.trim_end());
    assert_eq!(metadata["image.name"], "docker.io/library/app:1");

    assert!(place.stdout(&["images", "--no-trunc"]).contains(id.trim_end()));
    assert_eq!(place.stdout(&["images", "-q", "--no-trunc"]), id);
    let config: serde_json::Value = serde_json::from_str(&place.stdout(&["inspect", "--raw", "app:1"])).unwrap();
    assert_eq!(config["config"]["Labels"]["version"], "1");
    let short = id.trim_start_matches("sha256:").get(..8).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&place.stdout(&["inspect", short])).unwrap();
    assert_eq!(shown["id"], id.trim_end());
    assert_eq!(shown["layers"].as_array().unwrap().len(), config["rootfs"]["diff_ids"].as_array().unwrap().len());
    assert!(place.stdout(&["inspect", "--layers", "app:1"]).contains("COPY b.txt"));
}

#[test]
fn exports_in_each_form() {
    let place = place();
    place.stdout(&["build", "-q", "-t", "app", "."]);
    for output in ["type=oci,dest=oci.tar", "type=docker,dest=docker.tar", "type=oci,dest=layout,tar=false", "rootfs"] {
        place.stdout(&["export", "app", "--output", output]);
    }
    assert_eq!(place.read("rootfs/data/b"), "b\n");
    assert!(place.path("layout/index.json").exists());
    let list = |file: &str| {
        let out = place.command("tar").args(["-tf", file]).output().unwrap();
        text(&out.stdout)
    };
    assert!(list("oci.tar").contains("index.json"));
    assert!(list("docker.tar").contains("manifest.json"));
    let out = place.memobuild(&["export", "app", "--output", "-"]);
    fs::write(place.path("rootfs.tar"), out.stdout).unwrap();
    assert!(list("rootfs.tar").contains("data/b"));

    let raw: serde_json::Value = serde_json::from_str(&place.stdout(&["inspect", "--raw=manifest", "app"])).unwrap();
    assert_eq!(raw["schemaVersion"], 2);
    let zstd = "type=oci,dest=zstd,tar=false,compression=zstd,force-compression=true";
    place.stdout(&["export", "app", "--output", zstd]);
    let index: serde_json::Value = serde_json::from_str(&place.read("zstd/index.json")).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    assert!(place.read(&format!("zstd/blobs/{digest}")).contains("tar+zstd"));
}

#[test]
fn a_level_alone_is_one_of_gzip() {
    let place = place();
    // Lines that have much in common and are not alike.
    let lines = (0..20_000_u64).map(|n| format!("{} {}\n", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 9973, n / 7));
    fs::write(place.path("a.txt"), lines.collect::<String>()).unwrap();
    let size = |layout: &str| -> u64 {
        let blobs = fs::read_dir(place.path(layout).join("blobs/sha256")).unwrap();
        blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).sum()
    };
    place.stdout(&["build", "-q", "-t", "app", "--output", "type=oci,dest=small,tar=false,compression-level=9", "."]);
    for (dest, more) in [("plain", ""), ("least", ",compression-level=9"), ("default", ",compression-level=-1")] {
        place.stdout(&["export", "app", "--output", &format!("type=oci,dest={dest},tar=false{more}")]);
    }
    assert!(size("least") < size("plain"), "{} {}", size("least"), size("plain"));
    assert_eq!((size("small"), size("default")), (size("least"), size("plain")));
}

#[test]
fn layers_that_can_be_pulled_in_part() {
    let place = place();
    // The manifest and the config in a layout.
    let image_in = |layout: &str| {
        let json = |path: String| -> serde_json::Value { serde_json::from_str(&place.read(&path)).unwrap() };
        let blob = |of: &serde_json::Value| {
            json(format!("{layout}/blobs/{}", of["digest"].as_str().unwrap().replace(':', "/")))
        };
        let manifest = blob(&json(format!("{layout}/index.json"))["manifests"][0]);
        let config = blob(&manifest["config"]);
        (manifest, config)
    };
    place.stdout(&["build", "-q", "-t", "app", "."]);
    place.stdout(&["export", "app", "--output", "type=oci,dest=plain,tar=false"]);
    let (_, plain) = image_in("plain");
    for (name, key) in [
        ("estargz", "containerd.io/snapshot/stargz/toc.digest"),
        ("zstd:chunked", "io.github.containers.zstd-chunked.manifest-position"),
    ] {
        let output = |dest: &str| format!("type=oci,dest={dest},tar=false,compression={name}");
        place.stdout(&["build", "-q", "--output", &output("built"), "."]);
        place.stdout(&["export", "app", "--output", &output("exported")]);
        // Docker's media types have no annotations.
        place.stdout(&["build", "-q", "--output", &format!("{},oci-mediatypes=false", output("typed")), "."]);
        let built = image_in("built");
        assert_eq!(image_in("exported"), built);
        assert_eq!(image_in("typed"), built);
        let (manifest, config) = built;
        let layers = manifest["layers"].as_array().unwrap();
        assert!(!layers.is_empty() && layers.iter().all(|layer| layer["annotations"][key].is_string()), "{manifest}");
        // What eStargz adds changes each diff ID; zstd:chunked adds nothing to the tar.
        assert_eq!(config["rootfs"] == plain["rootfs"], name == "zstd:chunked");
        for made in ["built", "exported", "typed"] {
            fs::remove_dir_all(place.path(made)).unwrap();
        }
    }
}

#[test]
fn builds_write_to_standard_output() {
    let place = place();
    let out = place.memobuild(&["build", "--progress", "quiet", "--output", "-", "."]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    fs::write(place.path("out.tar"), &out.stdout).unwrap();
    let list = place.command("tar").args(["-tf", "out.tar"]).output().unwrap();
    assert!(text(&list.stdout).contains("data/a"));
}

#[test]
fn a_dockerfile_from_standard_input() {
    let place = Place::new();
    let mut command = place.command(env!("CARGO_BIN_EXE_memobuild"));
    let mut child = command.args(["build", "-q", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"FROM scratch\nLABEL a=b\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success() && out.stdout.starts_with(b"sha256:"));
}

#[test]
fn the_dry_run_changes_nothing() {
    let place = place();
    insta::assert_snapshot!("dry_run_first", place.shown(&["build", "--dry-run", "."]));
    assert_eq!(place.stdout(&["images", "-q"]), "");
    place.stdout(&["build", "-q", "."]);
    insta::assert_snapshot!("dry_run_second", place.shown(&["build", "--dry-run", "."]));
}

#[test]
fn looking_without_building() {
    let place = place();
    insta::assert_snapshot!("graph_text", place.shown(&["graph"]));
    insta::assert_snapshot!("graph_without_states", place.shown(&["graph", "--no-state"]));
    insta::assert_snapshot!("graph_mermaid", place.shown(&["graph", "--format", "mermaid", "--no-state"]));
    insta::assert_snapshot!("targets", place.shown(&["build", "--call", "targets", "."]));
    insta::assert_snapshot!("outline", place.shown(&["build", "--call", "outline", "--build-arg", "VERSION=7", "."]));
    insta::assert_snapshot!("check_clean", place.shown(&["check"]));
    place.write("Dockerfile", "from scratch AS A\nCOPY a.txt /\nCMD run it\n");
    insta::assert_snapshot!("check_findings", place.shown(&["check"]));
    insta::assert_snapshot!("check_json", place.shown(&["check", "--format", "json"]));
    assert_eq!(place.memobuild(&["build", "--check", "."]).status.code(), Some(3));
    assert!(!place.path("../cache").exists(), "looking makes no cache");
}

#[test]
fn the_graph_says_what_would_run() {
    let place = place();
    place.stdout(&["build", "-q", "."]);
    place.write("b.txt", "other\n");
    for format in ["text", "dot", "mermaid", "svg"] {
        insta::assert_snapshot!(format!("graph_states_{format}"), place.stdout(&["graph", "--format", format]));
    }
    let json: serde_json::Value = serde_json::from_str(&place.stdout(&["graph", "--format", "json"])).unwrap();
    let states: Vec<&str> = json["steps"].as_array().unwrap().iter().map(|s| s["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["source", "source", "hit", "run", "hit"]);
    // Where no state can be told, the plan is shown all the same.
    place.write("Dockerfile", "FROM nobody.example/nothing\nRUN make\nCOPY a.txt /\n");
    insta::assert_snapshot!("graph_of_an_unknown_base", place.shown(&["graph"]));
    place.write("Dockerfile", "FROM scratch\nCOPY missing.txt /\n");
    insta::assert_snapshot!("graph_of_a_missing_source", place.shown(&["graph"]));
    place.write("Dockerfile", "FROM scratch\nADD https://nobody.example/x /\nCOPY a.txt /\n");
    insta::assert_snapshot!("graph_of_what_would_be_fetched", place.shown(&["graph"]));
}

#[test]
fn the_cache_is_shown_and_pruned() {
    let place = place();
    assert!(place.stdout(&["du"]).contains("0B in ~/cache"));
    place.stdout(&["build", "-q", "-t", "app", "."]);
    let usage: serde_json::Value = serde_json::from_str(&place.stdout(&["du", "--json"])).unwrap();
    assert!(usage["totalBytes"].as_u64().unwrap() > 0);
    assert!(place.stdout(&["prune", "--all", "--dry-run"]).starts_with("would free"));
    assert!(place.stdout(&["prune", "--all", "--force"]).starts_with("freed"));
    // Named images stay and can be used.
    place.stdout(&["export", "app", "-o", "out"]);
    assert_eq!(place.stdout(&["images", "--remove", "app"]), "untagged docker.io/library/app:latest\n");
    assert_eq!(place.stdout(&["images", "-q"]), "");
    place.stdout(&["prune", "--all", "--force"]);
    let left: serde_json::Value = serde_json::from_str(&place.stdout(&["du", "--json"])).unwrap();
    let bundles = left["items"].as_array().unwrap().iter().filter(|i| i["kind"] == "bundle").count();
    assert_eq!(bundles, 0, "{left:#}");
}

#[test]
fn the_doctor_tries_every_mode() {
    let place = place();
    let out = place.memobuild(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["modes"].as_array().unwrap().len(), 3);
    assert!(report["checks"].as_array().unwrap().iter().any(|c| c["name"] == "/dev/fuse"));
    // The exit code says whether builds can run steps.
    assert_eq!(out.status.code(), Some(if report["chosen"].is_string() { 0 } else { 6 }));
    let table = place.memobuild(&["doctor"]);
    assert!(text(&table.stdout).contains("MODE"));
}
