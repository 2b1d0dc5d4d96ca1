use std::{
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
};

use memobuild_observe::{StepInfo, StepOutcome};
use serde_json::Value;

use super::*;
use crate::testing;

/// A server that answers requests with these statuses, and then with 200; gives their heads and bodies.
fn server(statuses: Vec<u16>) -> (Destination, Receiver<(String, Value)>) {
    let (url, receiver) = testing::server(statuses.into_iter().map(|status| (status, "")).collect());
    (Destination::new(&url, Some(&"mb_1".into())).unwrap(), receiver)
}

fn build(reporter: &Reporter) {
    let step = StepInfo { id: 0, label: "RUN x".into(), stage: "s".into(), inputs: Vec::new(), line: Some(1) };
    reporter.event(TraceEvent::BuildStarted { steps: vec![step] });
    reporter.event(TraceEvent::NodeDone {
        step: 0,
        outcome: StepOutcome::Executed,
        duration: Duration::from_millis(5),
    });
    reporter.event(TraceEvent::BuildFinished { ok: true, duration: Duration::from_millis(9), cached: 0, executed: 1 });
    reporter.finish();
}

fn start(to: Destination) -> (Reporter, Receiver<String>) {
    let (sender, warnings) = channel();
    (Reporter::start(to, "app".into(), move |text| drop(sender.send(text))), warnings)
}

#[test]
fn a_build_is_told_whole_in_the_end() {
    let (to, requests) = server(Vec::new());
    let trace = TraceContext::new(7, 9);
    let (reporter, warnings) = start(Destination { trace: Some(trace), ..to });
    build(&reporter);
    let (mut events, mut id) = (Vec::new(), None);
    while let Ok((head, body)) = requests.try_recv() {
        assert!(head.starts_with("POST /build-event HTTP/1.1\r\n"), "{head}");
        let lines = head.to_ascii_lowercase();
        for header in ["authorization: bearer mb_1".to_owned(), format!("traceparent: {trace}")] {
            assert!(lines.contains(&header), "{head}");
        }
        assert_eq!(body["seq"], events.len());
        assert_eq!(*id.get_or_insert_with(|| body["build"].clone()), body["build"]);
        events.extend(body["events"].as_array().unwrap().iter().map(|e| e["event"].clone()));
    }
    assert_eq!(events, ["build_started", "node_done", "build_finished"]);
    assert!(warnings.try_recv().is_err());
}

#[test]
fn a_server_that_stumbles_is_asked_again() {
    let (to, requests) = server(vec![503]);
    let (reporter, warnings) = start(to);
    reporter.event(TraceEvent::Warning { message: "w".into() });
    let (_, first) = requests.recv_timeout(Duration::from_secs(20)).unwrap();
    let (_, again) = requests.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((&first, first["seq"].as_u64()), (&again, Some(0)));
    reporter.finish();
    assert!(warnings.try_recv().is_err());
}

#[test]
fn a_server_that_refuses_is_given_up_with_one_warning() {
    for (statuses, why) in
        [(vec![401], "MEMOBUILD_TOKEN"), (vec![403], "may not write"), (vec![503; 9], "answered 503")]
    {
        let (to, requests) = server(statuses.clone());
        let (reporter, warnings) = start(to);
        for _ in 0..3 {
            reporter.event(TraceEvent::Warning { message: "w".into() });
        }
        let warning = warnings.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(warning.contains(why), "{warning}");
        build(&reporter);
        assert!(warnings.try_recv().is_err());
        let asked = requests.try_iter().count();
        assert!(asked <= PATIENCE.max_attempts as usize, "{statuses:?}: {asked}");
    }
}

#[test]
fn nobody_there_costs_no_more_than_a_warning() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (reporter, warnings) = start(Destination::new(&format!("http://127.0.0.1:{port}"), None).unwrap());
    reporter.event(TraceEvent::Warning { message: "w".into() });
    assert!(warnings.recv_timeout(Duration::from_secs(60)).is_ok());
    build(&reporter);
}

#[test]
fn a_server_that_hangs_does_not_hold_the_build() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (reporter, _) = start(Destination::new(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap());
    let began = std::time::Instant::now();
    build(&reporter);
    // Two seconds, and what a busy machine adds.
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn destinations() {
    let to = |url, token: Option<&str>| {
        let token = token.map(memobuild_observe::Secret::from);
        Destination::new(url, token.as_ref()).map(|to| (to.url, to.token))
    };
    assert_eq!(to("http://c:8080/", None), Some(("http://c:8080".into(), None)));
    assert_eq!(to("https://c/x", Some("mb_2\n")), Some(("https://c/x".into(), Some("mb_2".into()))));
    // A registry's login is nobody else's business.
    assert_eq!(to("https://c", Some("me:secret")), Some(("https://c".into(), None)));
    for none in ["grpc://c:1", "c:8080", "http://", ""] {
        assert_eq!(to(none, None), None, "{none}");
    }
}
