//! Whatever happens to a server, the build goes on and is right.

use std::{
    io::Write as _,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use crate::{
    common::{Place, text},
    image, on, project,
    proxy::Fault,
    server::Server,
    summary,
    support::traced,
    try_on, warnings, well,
};

/// Much longer than a build takes, and than a server is waited for.
const BOUND: Duration = Duration::from_secs(120);

#[test]
fn a_server_that_is_not_there_is_told_once() {
    if !traced() {
        return;
    }
    let project = project();
    let begun = Instant::now();
    let built = on(&project, "one", "http://127.0.0.1:9", &[]);
    assert!(begun.elapsed() < BOUND);
    assert_eq!(built.runs().len(), 4);
    assert_eq!(warnings(&built).len(), 1, "{:?}", warnings(&built));
    let warning = &warnings(&built)[0];
    assert!(warning.starts_with("shared cache http://127.0.0.1:9: ") && warning.ends_with("going on without it"));
    assert!(summary(&built).contains("results not sent"), "{}", summary(&built));
}

/// From the begin on.
#[test]
fn a_server_that_fails_costs_little() {
    if !traced() {
        return;
    }
    let (server, project) = (Server::start(), project());
    for (machine, fault) in
        [("one", Fault::Failing), ("two", Fault::Closed), ("three", Fault::Silence), ("four", Fault::Page)]
    {
        server.fault(fault);
        let begun = Instant::now();
        let built = on(&project, machine, &server.url(), &[]);
        assert!(begun.elapsed() < BOUND, "{fault:?}");
        assert_eq!(built.runs().len(), 4, "{fault:?}");
        assert_eq!(warnings(&built).len(), 1, "{fault:?} {:?}", warnings(&built));
        let asked = server.requests();
        assert!(asked.len() < 40, "{fault:?} {asked:?}");
    }
}

/// When contents are wanted of what was found.
#[test]
fn what_comes_damaged_is_made_anew() {
    if !traced() {
        return;
    }
    let (server, project) = (Server::start(), project());
    // Without what is made by chance, so that it is the same when it is made again.
    project.replace("head -c 3000000 /dev/urandom", "head -c 3000000 /dev/zero");
    let (alone, _) = image(&project, "alone", "", &[]);
    let (first, _) = image(&project, "one", &server.url(), &[]);
    assert_eq!(first, alone);
    let all = [Fault::Changed, Fault::Cut, Fault::ChangedRecords, Fault::WrongRecords];
    for (n, fault) in all.into_iter().enumerate() {
        server.fault(fault);
        let begun = Instant::now();
        let (image, built) = image(&project, &format!("m{n}"), &server.url(), &[]);
        assert!(begun.elapsed() < BOUND, "{fault:?}");
        assert_eq!(image, alone, "{fault:?}");
        assert!(!built.runs().is_empty(), "{fault:?}");
        assert!(warnings(&built).len() <= 1, "{fault:?} {:?}", warnings(&built));
    }
    server.fault(Fault::None);
    let (last, built) = image(&project, "last", &server.url(), &[]);
    assert!(built.ran.is_empty() && last == alone);
}

/// It is killed while a step runs, and is there again when the step is done.
#[test]
fn a_server_may_go_away_and_come_back() {
    if !traced() {
        return;
    }
    let (mut server, project) = (Server::start(), project());
    // A step that goes on when it is told to.
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let wait = format!("wget -q -O /told http://127.0.0.1:{}/", gate.local_addr().unwrap().port());
    project.dockerfile(&format!("FROM base\nRUN echo 1 > /one\nRUN {wait}\nRUN cat /one /told > /two\n"));
    let url = server.direct.clone();
    let built = thread::scope(|scope| {
        let build = scope.spawn(|| on(&project, "one", &url, &[]));
        let (mut step, _) = gate.accept().unwrap();
        server.stop();
        server.start_again();
        step.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nyes").unwrap();
        drop(step);
        build.join().unwrap()
    });
    assert_eq!(built.runs().len(), 3);
    assert!(!summary(&built).contains("not sent"), "{}", summary(&built));
    let second = well(&project, "two", &url, &[]);
    assert!(second.ran.is_empty(), "{second:?}");
}

#[test]
fn a_token_that_is_missing_or_wrong_is_told_once() {
    if !traced() {
        return;
    }
    let place = Place::new();
    let token = |name: &str, scope: &str| {
        place.stdout(&["server", "token", "add", name, "--tokens", "tokens", "--scope", scope]).trim().to_owned()
    };
    let (write, read) = (token("ci", "write"), token("laptop", "read"));
    let server = Server::in_place(place, &["--tokens", "tokens"]);
    let project = project();
    let with = |machine: &str, token: Option<&str>| {
        let mut command = project.build_command(&[]);
        command.env("MEMOBUILD_CACHE_DIR", crate::dir(&project, machine)).env("MEMOBUILD_REMOTE_URL", server.url());
        token.map(|token| command.env("MEMOBUILD_TOKEN", token));
        let built = crate::support::Built::of(command.output().unwrap());
        assert!(built.output.status.success(), "{}", text(&built.output.stderr));
        built
    };
    for (machine, token) in [("one", None), ("two", Some("wrong"))] {
        let built = with(machine, token);
        assert_eq!(warnings(&built).len(), 1, "{:?}", warnings(&built));
        assert!(warnings(&built)[0].contains("token"), "{:?}", warnings(&built));
        assert!(server.requests().len() <= 8);
        assert!(!text(&built.output.stderr).contains("wrong\""));
    }
    // One that may only read is nothing to be warned of.
    let built = with("three", Some(&read));
    assert!(warnings(&built).is_empty() && built.runs().len() == 4, "{:?}", warnings(&built));
    assert!(summary(&built).contains("the token does not allow it"), "{}", summary(&built));
    assert!(warnings(&with("four", Some(&write))).is_empty());
    let built = with("five", Some(&read));
    assert!(built.ran.is_empty() && warnings(&built).is_empty(), "{built:?}");
}

#[test]
fn an_address_that_is_none_is_a_mistake() {
    let project = project();
    for url in ["cache.example", "ftp://h", "http://u:p@h"] {
        let built = try_on(&project, "one", url, &[]);
        assert_eq!(built.output.status.code(), Some(2), "{url}");
        assert!(text(&built.output.stderr).contains("MEMOBUILD_REMOTE_URL"), "{url}");
    }
}
