//! `kill -9` of the builder at any moment of a build with much going on.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::Stdio,
    thread::sleep,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    project::{Project, damaged, faults, is_clean, mounts_of, under_way},
    support::{all_processes_end, cache},
};

/// Each number follows from the one before: a seed gives the same moments again.
struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn part(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from((self.0 >> 33) as u32) / f64::from(1u32 << 31)
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// After each kill the next build is right; then no process, mount or file is left, and nothing is wrong in the cache.
#[test]
fn killed_at_any_moment() {
    let Some(project) = Project::new() else { return };
    let place = &project.place;
    let wanted = number("MEMOBUILD_KILLS").unwrap_or(20);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("MEMOBUILD_KILL_SEED").unwrap_or(now.as_nanos() as u64);
    println!("{wanted} kills, MEMOBUILD_KILL_SEED={seed}");
    let (expected, time) = project.reference();
    let mut random = Random(seed);
    let (mut killed, mut rounds, mut with_leftovers) = (0, 0, 0);
    while killed < wanted {
        rounds += 1;
        assert!(rounds <= 2 * wanted + 20, "only {killed} of {rounds} were killed before they ended");
        // All steps run again, in a cache that knows their like or, now and then, in one that is still to be made.
        place.write("salt", &format!("{rounds}"));
        if rounds % 5 == 0 {
            fs::remove_dir_all(cache(place)).unwrap();
        }
        let mut child = project.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(time.mul_f64(random.part()));
        child.kill().unwrap();
        if child.wait().unwrap().signal() != Some(9) {
            fs::remove_file(place.path("out.tar")).unwrap();
            continue;
        }
        killed += 1;
        // What it was about lies about, and nothing is damaged by that.
        let left = faults(place);
        assert!(left.iter().all(|(kind, _)| kind == "leftover"), "round {rounds}: {left:?}");
        with_leftovers += usize::from(!left.is_empty());
        // It may have ended its work in the very moment; then the output is whole.
        let _ = fs::remove_file(place.path("out.tar"));
        assert!(project.build() == expected, "round {rounds}: another image");
        all_processes_end(place);
        let said = place.stdout(&["doctor", "--clean"]);
        assert_eq!(under_way(place), Vec::<String>::new(), "round {rounds}: {said}");
        assert_eq!(mounts_of(place), Vec::<String>::new(), "round {rounds}");
        is_clean(place);
        assert_eq!(damaged(place), Vec::<std::path::PathBuf>::new(), "round {rounds}");
    }
    println!("killed {killed} of {rounds} builds of {time:?}; {with_leftovers} left something for the clean-up");
    assert!(wanted < 100 || with_leftovers > 0);
    // What has not been touched for a while was not lost either.
    place.write("salt", "1");
    assert!(project.build() == expected);
    is_clean(place);
}
