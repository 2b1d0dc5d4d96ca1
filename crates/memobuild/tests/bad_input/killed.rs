//! Builds that are stopped, killed, or run side by side.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    common::{Place, text},
    support::{BUILD, all_processes_end, built, busybox_layer, cache, files_below, place_with_base},
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

const STEPS: &str = "FROM base AS a\nRUN head -c 300000 /dev/zero >/a && sleep 0.1\nRUN cat /a /a >/aa\n\
    FROM base AS b\nRUN mkdir /b && echo b >/b/b && sleep 0.2\nRUN echo b2 >>/b/b && ls /b >/b/list\n\
    FROM base\nCOPY --from=a /aa /aa\nCOPY --from=b /b /b\nRUN cat /b/b >/end && wc -c /aa >>/end\n";

/// What a build in a cache of its own gives, and the time that it takes.
fn reference(dockerfile: &str, layer: &[u8]) -> (Vec<u8>, Duration) {
    let (place, _) = place_with_base(dockerfile, &[layer.to_vec()]);
    let begin = Instant::now();
    (reproducible(&place), begin.elapsed())
}

fn reproducible(place: &Place) -> Vec<u8> {
    let args: Vec<&str> = BUILD.iter().copied().take(6).chain(["--reproducible", "."]).collect();
    let out = place.memobuild(&args);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let bytes = fs::read(place.path("out.tar")).unwrap();
    fs::remove_file(place.path("out.tar")).unwrap();
    bytes
}

/// The same files by other commands.
fn variant(number: u32) -> String {
    STEPS.replace("RUN ", &format!("RUN : {number} && "))
}

#[test]
fn killed_at_any_moment_the_next_build_is_right() {
    let Some(layer) = busybox_layer() else { return };
    let (expected, time) = reference(STEPS, &layer);
    let (place, _) = place_with_base(STEPS, &[layer]);
    let args: Vec<&str> = BUILD.iter().copied().take(6).chain(["--reproducible", "."]).collect();
    let mut state = u64::from(std::process::id()) | 1;
    let mut killed = 0;
    for round in 0..20 {
        // Four rounds go for the same results, then others are wanted.
        place.write("Dockerfile", &variant(round / 4));
        let mut child = start(&place, &args);
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // With nothing to reuse a build surely takes half the time of another; later ones may find all and end first.
        let longest = if round % 4 == 0 { time / 2 } else { time };
        sleep(longest.mul_f64(f64::from((state >> 33) as u32) / f64::from(1u32 << 31)));
        child.kill().unwrap();
        let out = child.wait_with_output().unwrap();
        killed += usize::from(out.status.signal() == Some(9));
        if out.status.signal() == Some(9) && place.path("out.tar").exists() {
            // It may have ended its work in the very moment; then the output is whole.
            assert!(fs::read(place.path("out.tar")).unwrap().ends_with(&[0; 1024]));
        }
        let _ = fs::remove_file(place.path("out.tar"));
    }
    println!("killed {killed} of 20 builds before they ended");
    assert!(killed >= 5);
    all_processes_end(&place);
    for round in 0..5 {
        place.write("Dockerfile", &variant(round));
        assert!(reproducible(&place) == expected, "another result after {killed} kills");
    }
    // What the killed ones left goes with the next clean-up.
    place.stdout(&["prune", "--all", "--force"]);
    let left: Vec<_> = scratch(&place);
    assert_eq!(left, Vec::<String>::new());
    assert!(reproducible(&place) == expected);
}

#[test]
fn several_builds_at_once_in_one_cache() {
    let Some(layer) = busybox_layer() else { return };
    let (expected, _) = reference(STEPS, &layer);
    for count in [2, 4] {
        let (place, _) = place_with_base(STEPS, std::slice::from_ref(&layer));
        let outputs: Vec<String> = (0..count).map(|n| format!("type=tar,dest=out{n}.tar")).collect();
        let args = |output: &'static str| -> Vec<&str> {
            vec![
                "build",
                "--progress=plain",
                "--build-context",
                "base=oci-layout://base",
                "--reproducible",
                "--output",
                output,
                ".",
            ]
        };
        let children: Vec<Child> =
            outputs.iter().map(|output| start(&place, &args(Box::leak(output.clone().into_boxed_str())))).collect();
        let mut ran = 0;
        for (n, child) in children.into_iter().enumerate() {
            let out = child.wait_with_output().unwrap();
            let shown = text(&out.stderr);
            assert!(out.status.success(), "build {n} of {count}: {shown}");
            assert!(fs::read(place.path(&format!("out{n}.tar"))).unwrap() == expected, "build {n} of {count}");
            ran += shown.lines().filter(|l| l.contains(" DONE ")).count();
        }
        println!("{count} builds at once: {ran} steps and transfers done");
        // Nothing of the cache is damaged.
        assert!(files_below(&cache(&place)).iter().all(|f| !f.to_string_lossy().ends_with(".damaged")));
    }
}
