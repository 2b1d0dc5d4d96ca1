//! Real steps in real sandboxes. The test program is its own sandbox server, hence the harness of its own.
#![allow(unreachable_pub)]

mod basics;
mod mounts;
mod support;

use libtest_mimic::{Arguments, Trial};
use memobuild_sandbox::ModeChoice;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(memobuild_sandbox::SANDBOX_INIT_ARG) {
        memobuild_sandbox::init_main();
    }
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    let traced = root && std::path::Path::new("/dev/fuse").exists();
    if !traced {
        eprintln!("skipped: tests of the traced mode need root and /dev/fuse");
    }
    let mut add = |mode: ModeChoice, lists: &[&[(&str, basics::Test)]]| {
        for (name, test) in lists.iter().copied().flatten() {
            let test = *test;
            trials.push(Trial::test(format!("{}::{name}", mode.name()), move || {
                test(mode);
                Ok(())
            }));
        }
    };
    if traced {
        add(ModeChoice::Traced, &[basics::TESTS, basics::CONFINED, mounts::TESTS, mounts::CONFINED]);
    }
    libtest_mimic::run(&arguments, trials).exit();
}
