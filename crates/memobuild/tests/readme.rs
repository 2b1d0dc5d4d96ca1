//! The commands in README.md are run as they stand there.

mod common;

use common::{Place, text};

const MARK: &str = "<!-- test: commands -->";

#[test]
fn the_commands_in_the_readme_work() {
    let readme = include_str!("../../../README.md");
    let place = Place::with(&[
        ("Dockerfile", "FROM scratch\nCOPY --chmod=755 app.sh /app\nCMD [\"/app\"]\n"),
        ("app.sh", "#!/bin/sh\necho hello\n"),
        (".dockerignore", "rootfs\n*.tar\n"),
    ]);
    let mut ran = 0;
    for block in readme.split(MARK).skip(1) {
        let block = block.split("```").nth(1).unwrap();
        for line in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let out = place.command("sh").args(["-euc", line]).output().unwrap();
            assert!(out.status.success(), "{line}\n{}{}", text(&out.stdout), text(&out.stderr));
            ran += 1;
        }
    }
    assert!(ran >= 10, "only {ran} commands were found");
    assert_eq!(place.read("rootfs/app"), "#!/bin/sh\necho hello\n");
    assert!(place.path("app.tar").exists() && place.path("app-docker.tar").exists());
}
