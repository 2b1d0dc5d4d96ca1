//! Ends of a server, sudden and ordered. It runs as a process of its own: this test program started again.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use memobuild_server::{Config, Scope, add_token, revoke_token, serve_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::{answer, connect, head, noise, try_send};

const DIR: &str = "MEMOBUILD_SERVER_TEST_DIR";

/// What a client may take its time for, in milliseconds.
pub const IDLE: &str = "MEMOBUILD_SERVER_TEST_IDLE";

/// A file of tokens.
pub const TOKENS: &str = "MEMOBUILD_SERVER_TEST_TOKENS";

/// No test: the process that the others start.
#[test]
#[ignore = "started by other tests"]
fn server_process() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut config = Config::new(dir);
    config.listen.set_port(0);
    if let Ok(idle) = std::env::var(IDLE) {
        config.idle_timeout = Duration::from_millis(idle.parse().unwrap());
    }
    config.tokens = std::env::var_os(TOKENS).map(Into::into);
    serve_with(config, |addr| println!("\nlistening on {addr}")).unwrap();
}

pub struct Process {
    pub child: Child,
    pub addr: SocketAddr,
}

impl Process {
    pub fn start(dir: &Path) -> Self {
        Self::from(Command::new(std::env::current_exe().unwrap()), dir)
    }

    /// By a command that runs this program with what is added to its arguments.
    pub fn from(mut command: Command, dir: &Path) -> Self {
        let mut child = command
            .args(["--exact", "crash::server_process", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = lines.find_map(|line| line.unwrap().strip_prefix("listening on ")?.parse().ok());
        // The test program says more at its end.
        thread::spawn(move || lines.count());
        Self { child, addr: addr.expect("the server did not start") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn killed_in_the_middle_of_puts() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Process::start(&data);
    let addr = server.addr;
    let (sent, acknowledged) = (Mutex::new(HashSet::new()), Mutex::new(HashSet::new()));
    thread::scope(|scope| {
        for client in 0..100u64 {
            let (sent, acknowledged) = (&sent, &acknowledged);
            scope.spawn(move || {
                for n in 0.. {
                    let bytes = noise(client << 32 | n, 100_000 + 4_500 * client as usize);
                    let hex = blake3::hash(&bytes).to_hex().to_string();
                    sent.lock().unwrap().insert(hex.clone());
                    match try_send(addr, "PUT", &format!("/cache/{hex}"), &[], &bytes) {
                        Some(reply) => {
                            assert_eq!(reply.status, 201, "{reply:?}");
                            acknowledged.lock().unwrap().insert(hex);
                        }
                        None => break,
                    }
                }
            });
        }
        let began = Instant::now();
        while acknowledged.lock().unwrap().len() < 120 && began.elapsed() < Duration::from_secs(120) {
            thread::sleep(Duration::from_millis(5));
        }
        server.child.kill().unwrap();
    });
    drop(server);
    let (sent, acknowledged) = (sent.into_inner().unwrap(), acknowledged.into_inner().unwrap());
    assert!(acknowledged.len() >= 120);
    assert!(sent.len() >= acknowledged.len() + 100, "all clients were in the middle of something");

    let server = Process::start(&data);
    let mut whole = 0;
    for hex in &sent {
        let reply = try_send(server.addr, "GET", &format!("/cache/{hex}"), &[], b"").unwrap();
        match reply.status {
            200 => {
                assert_eq!(blake3::hash(&reply.body).to_hex().as_str(), hex);
                whole += 1;
            }
            404 => assert!(!acknowledged.contains(hex), "acknowledged and lost: {hex}"),
            other => panic!("{other}"),
        }
    }
    assert!(whole >= acknowledged.len());
    assert_eq!(fs::read_dir(data.join("tmp")).unwrap().count(), 0);
    let metrics = String::from_utf8(try_send(server.addr, "GET", "/metrics", &[], b"").unwrap().body).unwrap();
    assert!(metrics.contains(&format!("memobuild_storage_blobs {whole}\n")), "{metrics}");
}

#[test]
fn a_hangup_makes_it_read_its_tokens_again() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    let old = add_token(&tokens, "old", Scope::Read).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(TOKENS, &tokens);
    let mut server = Process::from(command, &dir.path().join("data"));
    let status = |token: &str| {
        let auth = format!("Authorization: Bearer {token}");
        try_send(server.addr, "GET", "/metrics", &[&auth], b"").unwrap().status
    };
    let new = add_token(&tokens, "new", Scope::Read).unwrap();
    revoke_token(&tokens, "old").unwrap();
    assert_eq!((status(&old), status(&new)), (200, 401));
    kill_process(Pid::from_child(&server.child), Signal::HUP).unwrap();
    let began = Instant::now();
    while (status(&old), status(&new)) != (401, 200) {
        assert!(began.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&server.child), Signal::TERM).unwrap();
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn told_to_end_it_finishes_what_it_receives() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Process::start(&data);
    let bytes = noise(1, 2_000_000);
    let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
    let mut stream = connect(server.addr);
    stream.write_all(head("PUT", &path, &["Content-Length: 2000000"]).as_bytes()).unwrap();
    stream.write_all(&bytes[..1_000_000]).unwrap();
    // The head must have been read: a connection without a request is simply closed.
    let began = Instant::now();
    while fs::read_dir(data.join("tmp")).unwrap().count() == 0 {
        assert!(began.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&server.child), Signal::TERM).unwrap();
    let began = Instant::now();
    while try_send(server.addr, "GET", "/healthz", &[], b"").is_some() {
        assert!(began.elapsed() < Duration::from_secs(30), "new connections are still taken");
        thread::sleep(Duration::from_millis(10));
    }
    stream.write_all(&bytes[1_000_000..]).unwrap();
    assert_eq!(answer(&stream, "PUT").unwrap().status, 201);
    assert!(server.child.wait().unwrap().success());

    let server = Process::start(&data);
    assert!(try_send(server.addr, "GET", &path, &[], b"").unwrap().body == bytes);
}
