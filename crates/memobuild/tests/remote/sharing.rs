//! What two machines move between each other, in requests and bytes.

use std::fmt::Write as _;

use crate::{
    common::text,
    image, on, project,
    server::Server,
    summary,
    support::{Project, traced},
    warnings, well,
};

fn is_content(request: &&String) -> bool {
    request.contains(" /cache/layer/")
}

#[test]
fn a_cold_machine_runs_nothing_and_moves_no_content() {
    if !traced() {
        return;
    }
    let (server, project) = (Server::start(), project());
    let url = server.url();
    let iid = |machine: &str| project.place.read(&format!("../{machine}.iid"));
    let first = well(&project, "one", &url, &["-t", "app", "--iidfile", "../one.iid"]);
    assert_eq!(first.runs().len(), 4);
    assert!(summary(&first).starts_with(&format!("shared cache {url}: 0 of ")), "{}", summary(&first));
    assert!(server.traffic().0 > 3_000_000);
    server.requests();

    let second = well(&project, "two", &url, &["-t", "app", "--iidfile", "../two.iid"]);
    assert!(second.ran.is_empty() && second.reused.len() >= 7, "{second:?}");
    assert_eq!(iid("one"), iid("two"));
    let asked = server.requests();
    assert!(asked.iter().all(|r| r.starts_with("GET /record/")), "{asked:?}");
    // One for each step, and for what an image's config says of its layers.
    assert!(asked.len() <= second.reused.len() + 12, "{asked:?}");
    let (sent, received) = server.traffic();
    assert!(sent < 20_000 && received < 60_000, "{sent} {received}");

    // What the image consists of comes when somebody wants to have it.
    let get = |program: &[&str]| {
        let mut command = project.command(program);
        command.env("MEMOBUILD_CACHE_DIR", crate::dir(&project, "two")).output().unwrap()
    };
    let out = get(&["export", "app", "-o", "type=tar,dest=../rootfs.tar"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let tar = std::fs::metadata(project.place.path("../rootfs.tar")).unwrap();
    assert!(tar.len() > 3_000_000);
}

#[test]
fn an_image_made_elsewhere_is_the_same() {
    if !traced() {
        return;
    }
    let (server, project) = (Server::start(), project());
    let (first, _) = image(&project, "one", &server.url(), &[]);
    server.requests();
    server.traffic();
    let (second, built) = image(&project, "two", &server.url(), &[]);
    assert!(built.ran.is_empty() && warnings(&built).is_empty(), "{built:?}");
    assert_eq!(first, second);
    let (sent, received) = server.traffic();
    assert!(sent < 40_000 && received > 3_000_000 && received < 3_300_000, "{sent} {received}");
    // Packs of the image's three changes and of two that hold files of the first, and one large file; each once.
    let mut contents: Vec<String> = server.requests().into_iter().filter(|r| is_content(&r)).collect();
    let all = contents.len();
    contents.sort();
    contents.dedup();
    assert!(contents.len() == all && all <= 6, "{contents:?}");
    // Now they are here.
    let (third, _) = image(&project, "two", &server.url(), &[]);
    assert_eq!(first, third);
    assert!(!server.requests().iter().any(|r| is_content(&r)));
}

/// A build that finds all on its own disk asks for nothing, and sends nothing that it sent before.
#[test]
fn what_is_here_is_not_asked_for() {
    if !traced() {
        return;
    }
    let (mut server, project) = (Server::start(), project());
    well(&project, "one", &server.url(), &[]);
    server.requests();
    let again = well(&project, "one", &server.url(), &[]);
    assert!(again.ran.is_empty());
    assert_eq!(server.requests(), ["POST /cache/missing"]);
    // Unless the server has lost it.
    server.start_empty();
    well(&project, "one", &server.url(), &[]);
    let second = well(&project, "two", &server.url(), &[]);
    assert!(second.ran.is_empty(), "{second:?}");
}

/// What was built before there was a server is shared from then on.
#[test]
fn older_results_are_shared_when_they_are_used() {
    if !traced() {
        return;
    }
    let (server, project) = (Server::start(), project());
    on(&project, "one", "", &[]);
    assert!(server.requests().is_empty());
    assert!(well(&project, "one", &server.url(), &[]).ran.is_empty());
    assert!(well(&project, "two", &server.url(), &[]).ran.is_empty());
}

#[test]
fn a_step_that_does_not_depend_on_an_edit_is_found_by_its_facts() {
    if !traced() {
        return;
    }
    let (server, project) = (Server::start(), project());
    well(&project, "one", &server.url(), &[]);
    server.traffic();
    server.requests();
    project.write("README.md", "2");
    let second = well(&project, "two", &server.url(), &[]);
    assert!(second.runs().is_empty() && !second.ran.is_empty(), "{second:?}");
    let (sent, received) = server.traffic();
    assert!(sent < 60_000 && received < 120_000, "{sent} {received}");
    // A third machine finds the edit's result as well.
    let third = well(&project, "three", &server.url(), &[]);
    assert!(third.ran.is_empty(), "{third:?}");
}

#[test]
fn one_edited_file_among_many_moves_its_own_size() {
    if !traced() {
        return;
    }
    let server = Server::start();
    let project = Project::new("COPY . /all\n", &[(".dockerignore", "Dockerfile\n")]);
    for n in 0..10_000 {
        let mut content = String::new();
        (0..10).for_each(|i| writeln!(content, "{:x}", (n * 31 + i) * 2_654_435_761_u64).unwrap());
        project.write(&format!("d{}/f{n}", n % 100), &content);
    }
    well(&project, "one", &server.url(), &[]);
    well(&project, "two", &server.url(), &["--output", "type=tar,dest=../two.tar"]);
    let (_, whole) = server.traffic();
    assert!(whole > 400_000, "{whole}");
    server.requests();
    project.write("d7/f7", "edited");
    well(&project, "one", &server.url(), &[]);
    let (sent, received) = server.traffic();
    assert!(sent < 40_000 && received < 20_000, "{sent} {received}");
    let second = well(&project, "two", &server.url(), &["--output", "type=tar,dest=../two.tar"]);
    assert!(second.ran.is_empty(), "{second:?}");
    let (sent, received) = server.traffic();
    assert!(sent < 20_000 && received < 40_000, "{sent} {received}");
    assert!(server.requests().len() < 40);
    // A machine that has nothing reads both.
    well(&project, "three", &server.url(), &["--output", "type=tar,dest=../three.tar"]);
    let tar = |machine: &str| std::fs::read(project.place.path(&format!("../{machine}.tar"))).unwrap();
    assert!(tar("two") == tar("three"));
}

#[test]
fn thirty_thousand_small_files_are_a_handful_of_requests() {
    if !traced() {
        return;
    }
    let server = Server::start();
    let many = "RUN mkdir -p /m && cd /m && i=0 && while [ $i -lt 30000 ]; do echo $i > f$i; i=$((i+1)); done\n";
    let project = Project::new(many, &[(".dockerignore", "Dockerfile\n")]);
    well(&project, "one", &server.url(), &[]);
    let asked = server.requests();
    assert!(asked.len() < 40, "{asked:?}");
    let second = well(&project, "two", &server.url(), &["--output", "type=tar,dest=../two.tar"]);
    assert!(second.ran.is_empty(), "{second:?}");
    let asked = server.requests();
    assert!(asked.len() < 20, "{asked:?}");
    assert_eq!(asked.iter().filter(is_content).count(), 2, "diff and pack: {asked:?}");
}

/// Their owners are no true ones.
#[test]
fn results_of_a_user_with_one_id_stay_there() {
    if !rustix::process::geteuid().is_root() || !traced() {
        println!("skipped: needs root, to be somebody else");
        return;
    }
    let (server, mut project) = (Server::start(), project());
    let root = project.place.path("..");
    project.runner = ["setpriv", "--reuid", "64321", "--regid", "64321", "--clear-groups"].map(String::from).to_vec();
    project.write("../settings.toml", &format!("[remote]\nurl = {:?}\nsingle-owner = true\n", server.url()));
    project.shell(&format!("chown -R 64321:64321 {}", root.display()));
    let doctor = project.command(&["doctor"]).output();
    let able =
        |out: &std::process::Output| text(&out.stdout).lines().any(|l| l.starts_with("traced ") && l.contains(" ok "));
    if !doctor.is_ok_and(|out| able(&out)) {
        println!("skipped: another user can't run steps here");
        return;
    }
    let first = well(&project, "one", &server.url(), &[]);
    assert!(summary(&first).contains("results of RUN steps stay here"), "{}", summary(&first));
    let second = well(&project, "two", &server.url(), &[]);
    assert_eq!(second.runs().len(), 4, "{second:?}");
    let asked = |machine: &str| {
        let mut command = project.build_command(&[]);
        command.env("MEMOBUILD_CACHE_DIR", crate::dir(&project, machine));
        command.env("MEMOBUILD_CONFIG", project.place.path("../settings.toml"));
        crate::support::Built::of(command.output().unwrap())
    };
    let third = asked("three");
    assert!(third.output.status.success() && third.runs().len() == 4, "{third:?}");
    let fourth = asked("four");
    assert!(fourth.output.status.success() && fourth.ran.is_empty(), "{fourth:?}");
}

/// What a step yields is there for others while a later one still runs.
#[test]
fn results_are_sent_while_the_build_goes_on() {
    if !traced() {
        return;
    }
    let (server, project) = (Server::start(), project());
    project.dockerfile(
        "FROM base\nRUN head -c 200000 /dev/urandom > /made\nRUN while [ ! -e /tmp/never ]; do sleep 1; done\n",
    );
    let mut build = project.build_command(&[]);
    build.env("MEMOBUILD_REMOTE_URL", server.url()).stderr(std::process::Stdio::null());
    let mut build = build.spawn().unwrap();
    let mut seen = Vec::new();
    let told = |seen: &[String]| seen.iter().any(|r| r.starts_with("PUT /record/m1-result-"));
    for _ in 0..600 {
        seen.extend(server.requests());
        if told(&seen) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let running = build.try_wait().unwrap().is_none();
    rustix::process::kill_process(rustix::process::Pid::from_child(&build), rustix::process::Signal::INT).unwrap();
    build.wait().unwrap();
    assert!(running && told(&seen), "{seen:?}");
}
