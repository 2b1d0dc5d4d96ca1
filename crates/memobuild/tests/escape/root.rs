//! The step's root directory: no way up from it, and nothing left open that leads elsewhere.

use super::{Test, World};

pub const TESTS: &[(&str, Test)] =
    &[("no_way_up", no_way_up), ("nothing_is_left_open", nothing_is_left_open), ("hard_links_out", hard_links_out)];

fn no_way_up(world: &mut World) {
    let secret = world.host.secret().display().to_string();
    let attempts =
        ["climb", "chroot-twice", "by-other-roots", "directory"].map(|how| (format!("{how}={secret}"), "ENOENT"));
    world.tries("RUN /probe", &attempts);
    let attempts = ["climb", "by-other-roots", "directory"].map(|how| (format!("{how}={secret}"), "ENOENT"));
    world.tries("WORKDIR /deep/er\nUSER 1000\nRUN /probe", &attempts);
}

fn nothing_is_left_open(world: &mut World) {
    world.tries("RUN exec /probe", &[("descriptors", "nothing")]);
    // The three streams lead nowhere but to memobuild, and to nothing.
    world.project.dockerfile("RUN for n in 0 1 2; do readlink /proc/self/fd/$n; done | sed 's/[0-9]//g' > /said\n");
    assert!(world.built().status.success());
    let said = world.project.place.read("../out/said");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, "/dev/null"), "{said}");
    assert!(lines[1..].iter().all(|line| line.starts_with("pipe:")), "{said}");
    world.host.is_unchanged();
}

/// What a link would make one's own is not there.
fn hard_links_out(world: &mut World) {
    let secret = world.host.secret().display().to_string();
    let outside = format!("link=/proc/{}/root{secret}", world.host.process());
    world.tries("RUN /probe", &[(format!("link={secret}"), "ENOENT"), (outside, "ENOENT")]);
}
