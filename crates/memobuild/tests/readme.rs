//! What the pages say: commands in README.md and in docs/ are run as they stand there, links lead somewhere, and the book
//! has all pages.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a failure here is a failed test")]

#[path = "memos/base.rs"]
#[allow(dead_code, reason = "shared with the tests of memos")]
mod base;
mod common;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Place, text};

const MARK: &str = "<!-- test: commands -->";

/// A place in which they make sense.
fn place() -> Place {
    Place::with(&[
        (
            "Dockerfile",
            "FROM scratch AS build\nARG VERSION=1\nCOPY --chmod=755 app.sh /app\n\
             FROM scratch\nCOPY --from=build /app /app\nCMD [\"/app\"]\n",
        ),
        ("app.sh", "#!/bin/sh\necho hello\n"),
        (".dockerignore", "rootfs\n*.tar\n*.svg\n"),
    ])
}

/// A place with the page's own Dockerfile, and with its base image in memobuild's store, so that nothing is fetched.
/// `None` if steps can't be run here.
fn place_of(page: &str) -> Option<Place> {
    if !Path::new(base::BUSYBOX).exists() || !Place::new().memobuild(&["doctor"]).status.success() {
        println!("skipped: needs a static busybox, and a machine that runs steps");
        return None;
    }
    let dockerfile = page.split("```dockerfile\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let place = Place::with(&[("Dockerfile", dockerfile), ("../base/Dockerfile", "FROM base\n")]);
    let layout = format!("base=oci-layout://{}", base::kept("").display());
    place.stdout(&["build", "-q", "-t", "busybox", "--build-context", &layout, "../base"]);
    Some(place)
}

/// Runs them; gives how many there were.
fn run_all(place: &Place, document: &str) -> usize {
    let mut ran = 0;
    for block in document.split(MARK).skip(1) {
        let block = block.split("```").nth(1).unwrap();
        for line in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let out = place.command("sh").args(["-euc", line]).output().unwrap();
            assert!(out.status.success(), "{line}\n{}{}", text(&out.stdout), text(&out.stderr));
            ran += 1;
        }
    }
    ran
}

#[test]
fn the_commands_in_the_readme_work() {
    let place = place();
    let ran = run_all(&place, include_str!("../../../README.md"));
    assert!(ran >= 10, "only {ran} commands were found");
    assert_eq!(place.read("rootfs/app"), "#!/bin/sh\necho hello\n");
    assert!(place.path("app.tar").exists() && place.path("app-docker.tar").exists());
}

#[test]
fn the_commands_in_the_page_on_servers_work() {
    // Its server listens on a port of its own choice, which has to be free here.
    if std::net::TcpListener::bind("127.0.0.1:18080").is_err() {
        println!("skipped: port 18080 is taken");
        return;
    }
    let place = place();
    let script: String = include_str!("../../../docs/shared-cache.md")
        .split(MARK)
        .skip(1)
        .map(|block| {
            let block = block.split("```").nth(1).unwrap();
            block.lines().filter_map(|line| line.strip_prefix("$ ")).map(|line| format!("{line}\n")).collect::<String>()
        })
        .collect();
    assert!(script.lines().count() >= 5, "{script}");
    // One shell, for what the commands leave to each other.
    let script = format!("trap 'kill $(cat ../server.pid) || true' EXIT\n{script}trap - EXIT\n");
    let out = place.command("sh").args(["-euc", &script]).output().unwrap();
    let shown = text(&out.stderr);
    assert!(out.status.success(), "{}{shown}", text(&out.stdout));
    assert!(shown.contains("look-ups found") && place.path("../other-machine").exists(), "{shown}");
}

#[test]
fn the_commands_in_the_page_on_explanations_work() {
    let place = place();
    let ran = run_all(&place, include_str!("../../../docs/explain.md"));
    assert!(ran >= 9, "only {ran} commands were found");
    assert!(place.read("graph.svg").starts_with("<svg"));
}

#[test]
fn the_commands_in_the_page_on_observability_work() {
    let place = place();
    let ran = run_all(&place, include_str!("../../../docs/observability.md"));
    assert!(ran >= 10, "only {ran} commands were found");
    assert!(place.read("../build.log").lines().all(|line| line.starts_with('{')));
    assert!(place.read("../builds.csv").lines().count() > 5);
    // The page names all that is printed.
    let (metrics, page) = (place.read("../memobuild.prom"), include_str!("../../../docs/observability.md"));
    let families = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let unnamed: Vec<&str> = families.filter(|family| !page.contains(&format!("`{family}`"))).collect();
    assert!(metrics.contains("memobuild_builds_total{result=\"success\"}") && unnamed.is_empty(), "{unnamed:?}");
}

#[test]
fn the_commands_in_the_first_page_work() {
    let page = include_str!("../../../docs/start.md");
    let Some(place) = place_of(page) else { return };
    let ran = run_all(&place, page);
    assert!(ran >= 15, "only {ran} commands were found");
    assert_eq!(place.read("../rootfs/app/index.txt"), "one.md\ntwo.md\n");
    assert!(place.path("../app.tar").exists());
}

#[test]
fn the_commands_in_the_page_on_caching_work() {
    let page = include_str!("../../../docs/caching.md");
    let Some(place) = place_of(page) else { return };
    let ran = run_all(&place, page);
    assert!(ran >= 12, "only {ran} commands were found");
    // As the page and its picture say, where steps are traced.
    let doctor = place.stdout(&["doctor"]);
    if doctor.lines().any(|line| line.starts_with("traced ") && line.contains(" ok ")) {
        let (read, listed) = (place.stdout(&["explain-cache", "wc -l"]), place.stdout(&["explain-cache", "ls notes"]));
        assert!(read.contains("list changed (read by the step)"), "{read}");
        assert!(listed.contains("all that it looks at is the same"), "{listed}");
    }
}

#[test]
fn the_commands_in_the_pages_on_moving_here_and_on_trouble_work() {
    let pages = [include_str!("../../../docs/migrating.md"), include_str!("../../../docs/troubleshooting.md")];
    for page in pages {
        let ran = run_all(&place(), page);
        assert!(ran >= 8, "only {ran} commands were found");
    }
}

#[test]
fn the_page_of_commands_is_what_the_program_says() {
    let mut check = Command::new(root().join("scripts/command-reference"));
    let out = check.arg("--check").env("MEMOBUILD", env!("CARGO_BIN_EXE_memobuild")).output().unwrap();
    assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
}

/// The repository's.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Markdown files in and below a directory, as paths from the root.
fn pages(dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(dir)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{dir}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(pages(&path));
        } else if Path::new(&path).extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found
}

/// The files that a page leads to or takes in, as it names them. What stands in blocks of code is none.
fn links(page: &str) -> Vec<&str> {
    let shown = page.split("```").step_by(2).flat_map(|prose| prose.split("](").skip(1));
    let shown = shown.filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://"));
    let included = page.split("{{#include ").skip(1).filter_map(|rest| rest.split("}}").next());
    shown.chain(included).collect()
}

/// By what a heading is linked to.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading.replace(' ', "-").chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

#[test]
fn links_in_the_pages_lead_somewhere() {
    let mut all = pages("docs");
    all.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(str::to_owned));
    let mut followed = 0;
    for page in all {
        let at = root().join(&page);
        for link in links(&fs::read_to_string(&at).unwrap()) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { at.clone() } else { at.parent().unwrap().join(file) };
            assert!(target.exists(), "{page} leads to {link}");
            if !heading.is_empty() {
                let there = fs::read_to_string(&target).unwrap();
                let found = there.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
                assert!(found, "{page} leads to {link}");
            }
            followed += 1;
        }
    }
    assert!(followed >= 100, "only {followed} links were found");
}

#[test]
fn the_book_has_all_pages() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let named: BTreeSet<String> = links(&summary).iter().map(|link| format!("docs/{link}")).collect();
    let mut there: BTreeSet<String> = pages("docs").into_iter().collect();
    there.remove("docs/SUMMARY.md");
    assert_eq!(named, there);
}
