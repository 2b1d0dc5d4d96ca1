//! Steps that try to get out: of their root directory, of their namespaces, of their rights. Each attempt must be refused
//! with the error that the sandbox promises, and the machine around it must be as it was.
//!
//! A trial is one group of attempts, by one kind of user, in one sandbox mode: `user::exact::mounting`. What the machine
//! can't run is an ignored trial, with the reason on standard error. What is tried is in `probe.c`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]
#![allow(unreachable_pub, dead_code, reason = "modules of several tests")]

#[path = "../memos/base.rs"]
mod base;
#[path = "../common/mod.rs"]
mod common;
#[path = "../bad_input/support.rs"]
mod images;
#[path = "../memos/support.rs"]
mod support;

mod calls;
mod descriptors;
mod devices;
mod host;
mod links;
mod mounting;
mod network;
mod processes;
mod program;
mod rights;
mod root;
mod who;
mod world;

use libtest_mimic::{Arguments, Trial};

use self::{who::Who, world::World};

/// A group of attempts.
pub type Test = fn(&mut World);

/// Where a step has namespaces of its own.
const CONFINED: &[&[(&str, Test)]] = &[
    calls::TESTS,
    descriptors::TESTS,
    devices::TESTS,
    links::TESTS,
    mounting::TESTS,
    network::TESTS,
    processes::TESTS,
    rights::TESTS,
    root::TESTS,
];

/// Where all that keeps a step in is chroot, capabilities and the filter.
const CHROOT: &[&[(&str, Test)]] = &[calls::EVERYWHERE, mounting::EVERYWHERE, links::EVERYWHERE];

fn main() {
    let mut arguments = Arguments::from_args();
    // Each is mostly one process that waits for another.
    arguments.test_threads.get_or_insert(2);
    let mut trials = Vec::new();
    for who in Who::all() {
        for mode in ["traced", "exact", "chroot"] {
            let lists = if mode == "chroot" { CHROOT } else { CONFINED };
            if mode == "chroot" && who != Who::Root {
                continue;
            }
            let lacking = who.lacks(mode);
            if let Some(lacking) = &lacking {
                eprintln!("skipped: {}::{mode}: {lacking}", who.name());
            }
            for (name, test) in lists.iter().copied().flatten() {
                let test = *test;
                let trial = Trial::test(format!("{}::{mode}::{name}", who.name()), move || {
                    test(&mut World::new(who, mode));
                    Ok(())
                });
                trials.push(trial.with_ignored_flag(lacking.is_some()));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}
