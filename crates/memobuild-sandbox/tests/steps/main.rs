//! Real steps in real sandboxes. The test program is its own sandbox server, hence the harness of its own.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod basics;
mod looks;
mod mounts;
mod ownership;
mod robust;
mod support;
mod users;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use libtest_mimic::{Arguments, Trial};
use memobuild_sandbox::ModeChoice;

/// Lists of tests.
type Lists = Vec<&'static [(&'static str, basics::Test)]>;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(memobuild_sandbox::SANDBOX_INIT_ARG) {
        memobuild_sandbox::init_main();
    }
    if let Ok(value) = std::env::var(robust::VARIABLE) {
        return robust::hang(&value);
    }
    let mut arguments = Arguments::from_args();
    // More at once than processors makes each slower, and the time limits in some mean something.
    arguments.test_threads.get_or_insert(2);
    let trials = match std::env::var(users::VARIABLE) {
        Ok(kind) => as_user(&kind),
        Err(_) => as_root(),
    };
    libtest_mimic::run(&arguments, trials).exit();
}

fn everywhere() -> Lists {
    vec![basics::TESTS, looks::TESTS, mounts::TESTS]
}

fn confined() -> Lists {
    let mut lists = everywhere();
    lists.extend([basics::CONFINED, mounts::CONFINED]);
    lists
}

fn trials(prefix: &str, mode: ModeChoice, lists: Lists) -> Vec<Trial> {
    let tests = lists.into_iter().flatten();
    let trial = |(name, test): &(&str, basics::Test)| {
        let test = *test;
        Trial::test(format!("{prefix}{}::{name}", mode.name()), move || {
            test(mode);
            Ok(())
        })
    };
    tests.map(trial).collect()
}

/// What an ordinary user can run, in the program that `users::run_as` starts.
fn as_user(kind: &str) -> Vec<Trial> {
    let mut lists = confined();
    lists.push(if kind == "user" { ownership::SINGLE } else { ownership::TRUE });
    let mut all = trials(&format!("{kind}::"), ModeChoice::Exact, lists.clone());
    lists.push(looks::TRACED);
    all.extend(trials(&format!("{kind}::"), ModeChoice::Traced, lists));
    all
}

fn as_root() -> Vec<Trial> {
    let mut all = Vec::new();
    if !std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0) {
        eprintln!("skipped: these tests need root, and play ordinary users themselves");
        return all;
    }
    let mut modes = vec![ModeChoice::Exact];
    if let Ok(fuse) = std::fs::metadata("/dev/fuse") {
        modes.push(ModeChoice::Traced);
        // Distributions leave it open to all.
        if fuse.permissions().mode() & 0o006 != 0o006 {
            let _ = std::fs::set_permissions("/dev/fuse", std::fs::Permissions::from_mode(0o666));
        }
    } else {
        eprintln!("skipped: tests of the traced mode need /dev/fuse");
    }
    for mode in &modes {
        let mut lists = confined();
        lists.extend([ownership::TRUE, robust::TESTS]);
        if *mode == ModeChoice::Traced {
            lists.extend([robust::TRACED, robust::ROOT, looks::TRACED]);
        }
        all.extend(trials("", *mode, lists));
    }
    let mut lists = everywhere();
    lists.push(robust::TESTS);
    all.extend(trials("", ModeChoice::Chroot, lists));
    if let Ok(expected) = std::env::var("MEMOBUILD_SANDBOX_TEST_EXPECT") {
        let name = format!("{expected}::is_chosen_by_itself");
        all.push(Trial::test(name, move || {
            let mode = support::World::new(ModeChoice::Auto).sandbox.mode().unwrap();
            assert_eq!(mode.kind.name(), expected, "{}", mode.why);
            println!("{}", mode.why);
            Ok(())
        }));
    }
    for user in users::find() {
        for trial in as_user(user.kind) {
            let (name, user) = (trial.name().to_owned(), user.clone());
            if modes.contains(&ModeChoice::Traced) || name.contains("::exact::") {
                all.push(Trial::test(name.clone(), move || {
                    users::run_as(&user, &name);
                    Ok(())
                }));
            }
        }
    }
    all
}
