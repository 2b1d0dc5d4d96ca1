//! Builds that are stopped by a signal which lets them end in good order.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    common::{Place, text},
    support::{BUILD, all_processes_end, built, busybox_layer, cache, place_with_base},
};

fn start(place: &Place, args: &[&str]) -> Child {
    let mut command = place.command(env!("CARGO_BIN_EXE_memobuild"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A number of seconds that no other process sleeps.
fn long_time() -> String {
    format!("{}", 1_000_000 + u64::from(std::process::id()))
}

/// Processes that sleep for that time, whoever started them.
fn sleepers(time: &str) -> usize {
    let is_one = |cmdline: Vec<u8>| cmdline.split(|b| *b == 0).any(|arg| arg == time.as_bytes());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|p| fs::read(p.path().join("cmdline")).is_ok_and(is_one)).count()
}

#[test]
fn ctrl_c_leaves_no_output_and_no_process() {
    let Some(layer) = busybox_layer() else { return };
    let time = long_time();
    let dockerfile = format!("FROM base\nRUN echo before\nRUN sleep {time} & sleep {time} & (sleep {time})\n");
    let (place, _) = place_with_base(&dockerfile, &[layer]);
    for which in [Signal::INT, Signal::TERM] {
        let child = start(&place, &BUILD);
        let begin = Instant::now();
        while sleepers(&time) < 3 {
            assert!(begin.elapsed() < Duration::from_secs(60), "no step came up");
            sleep(Duration::from_millis(20));
        }
        let begin = Instant::now();
        signal(&child, which);
        let out = child.wait_with_output().unwrap();
        let shown = text(&out.stderr);
        assert_eq!(out.status.code(), Some(128 + which.as_raw()), "{shown}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        assert!(shown.contains("error: cancelled") && !shown.contains("panicked"), "{shown}");
        all_processes_end(&place);
        assert_eq!(sleepers(&time), 0);
        assert!(!place.path("out.tar").exists());
        assert_eq!(scratch(&place), Vec::<String>::new());
    }
    place.write("Dockerfile", "FROM base\nRUN echo before\nRUN echo after\n");
    let shown = built(&place);
    assert!(shown.contains("CACHED"), "what was done before it was stopped is kept: {shown}");
}

#[test]
fn ctrl_c_while_the_image_is_written_leaves_no_output() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY big /big\n")]);
    let noise: Vec<u8> = (0..12_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(place.path("big"), noise).unwrap();
    let mut child = start(&place, &["build", "--progress=plain", "--output", "type=oci,dest=out.tar", "."]);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("exporting to oci")), "the export begins");
    signal(&child, Signal::INT);
    let shown: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{shown:?}");
    assert!(!place.path("out.tar").exists() && shown.iter().any(|l| l.contains("error: cancelled")), "{shown:?}");
    let left = fs::read_dir(place.path("")).unwrap().count();
    assert_eq!(left, 2, "nothing beside the Dockerfile and the file");
}

/// What lies in the cache's directory for things under way.
fn scratch(place: &Place) -> Vec<String> {
    let names = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(cache(place).join(dir)).into_iter().flatten().flatten();
        entries.map(|e| format!("{dir}/{}", e.file_name().to_string_lossy())).collect()
    };
    [names("tmp"), names("scratch")].concat()
}
