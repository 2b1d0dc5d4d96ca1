//! Measures what a step costs: `RUN echo N > /fN`, fifty times on top of one another, as a build does.
//!
//! `cargo run --release -p memobuild-sandbox --example echo_steps [MODE [STEPS [DIR]]]`; prints one line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../tests/steps/support.rs"]
#[allow(dead_code, unreachable_pub)]
mod support;

use std::time::{Duration, Instant};

use memobuild_sandbox::{ModeChoice, SANDBOX_INIT_ARG, init_main};

fn main() {
    let mut args = std::env::args().skip(1);
    let mode = args.next();
    if mode.as_deref() == Some(SANDBOX_INIT_ARG) {
        init_main();
    }
    let mode = match mode.as_deref() {
        None | Some("auto") => ModeChoice::Auto,
        Some("traced") => ModeChoice::Traced,
        Some("exact") => ModeChoice::Exact,
        Some("chroot") => ModeChoice::Chroot,
        Some(other) => panic!("no mode {other}"),
    };
    let steps: u32 = args.next().map_or(50, |n| n.parse().expect("a number of steps"));
    let datadir = args.next().as_deref() != Some("nodatadir");
    let world = support::World::with(mode, |config| config.datadir = datadir);
    let start = Instant::now();
    let chosen = world.sandbox.mode().expect("a mode");
    let probing = start.elapsed();
    let mut tree = world.base.clone();
    let mut each = Vec::new();
    let (mut setup, mut run, mut harvest) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for n in 0..steps {
        let start = Instant::now();
        let (outcome, _) = world.run(&world.shell(&tree, &format!("echo {n} > /f{n}")));
        tree = outcome.diff.apply(&tree).expect("a diff that fits");
        each.push(start.elapsed());
        setup += outcome.timings.setup;
        run += outcome.timings.run;
        harvest += outcome.timings.harvest;
    }
    each.sort();
    let total: Duration = each.iter().sum();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    println!(
        "{}: {steps} steps, mean {:.2} ms, median {:.2} ms, worst {:.2} ms (set-up {:.2}, run {:.2}, harvest {:.2}); start {:.1} ms",
        chosen.why,
        ms(total) / f64::from(steps),
        ms(each[each.len() / 2]),
        ms(each[each.len() - 1]),
        ms(setup) / f64::from(steps),
        ms(run) / f64::from(steps),
        ms(harvest) / f64::from(steps),
        ms(probing),
    );
}
