//! The commands in README.md and in docs/explain.md are run as they stand there.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

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
