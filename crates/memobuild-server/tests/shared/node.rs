//! A server as a process of its own: this test program started again.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use memobuild_server::{Config, serve_with};

use crate::{
    Bed,
    client::{Reply, try_send},
    seaweed::{KEY, SECRET},
};

const DIR: &str = "MEMOBUILD_SERVER_TEST_DIR";
const STORAGE: &str = "MEMOBUILD_SERVER_TEST_STORAGE";
const METADATA: &str = "MEMOBUILD_SERVER_TEST_METADATA";
const MAX: &str = "MEMOBUILD_SERVER_TEST_MAX";

/// No test: the process that the others start.
#[test]
#[ignore = "started by other tests"]
fn server_process() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut config = Config::new(dir);
    config.listen.set_port(0);
    config.storage = std::env::var(STORAGE).ok();
    config.metadata = std::env::var(METADATA).ok();
    config.max_size = std::env::var(MAX).ok().map(|max| max.parse().unwrap());
    config.shutdown_grace = Duration::from_secs(5);
    serve_with(config, |addr| println!("\nlistening on {addr}")).unwrap();
}

pub struct Node {
    child: Child,
    pub addr: SocketAddr,
    dir: PathBuf,
    /// Unless it was given one.
    _own: Option<tempfile::TempDir>,
}

impl Node {
    pub fn start(bed: &Bed<'_>, endpoint: &str, max_size: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Self::start_in(bed, endpoint, max_size, dir.path(), &[]);
        node._own = Some(dir);
        node
    }

    /// `wrapper`: a program and its arguments that the server is started by.
    pub fn start_in(bed: &Bed<'_>, endpoint: &str, max_size: Option<u64>, dir: &Path, wrapper: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = match wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .args(["--exact", "node::server_process", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .env(STORAGE, &bed.storage)
            .env(METADATA, &bed.metadata)
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .stdout(Stdio::piped());
        if let Some(max) = max_size {
            command.env(MAX, max.to_string());
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = lines.find_map(|line| line.unwrap().strip_prefix("listening on ")?.parse().ok());
        // The test program says more at its end.
        thread::spawn(move || lines.count());
        let Some(addr) = addr else {
            let _ = child.wait();
            panic!("the server did not start");
        };
        Self { child, addr, dir: dir.to_owned(), _own: None }
    }

    /// With no time for anything.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Files that are being received, by name: there are never any.
    pub fn spooled(&self) -> usize {
        std::fs::read_dir(self.dir.join("spool")).unwrap().count()
    }

    /// The most memory that it had so far, in bytes.
    pub fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub fn send(&self, method: &str, path: &str, extra: &[&str], body: &[u8]) -> Reply {
        let reply = try_send(self.addr, method, path, extra, body).expect("an answer");
        assert_eq!(reply.header("x-memobuild-api-version"), Some("1.0"), "{reply:?}");
        reply
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    /// Puts a blob by BLAKE3; gives its path.
    pub fn blob(&self, bytes: &[u8]) -> String {
        let path = path(bytes);
        let reply = self.send("PUT", &path, &[], bytes);
        assert!(matches!(reply.status, 200 | 201), "{reply:?}");
        path
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a blob is.
pub fn path(bytes: &[u8]) -> String {
    format!("/cache/{}", blake3::hash(bytes).to_hex())
}
