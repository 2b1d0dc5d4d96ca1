//! A PostgreSQL of a test's own, in a directory of its own. Also a part of the tests in `tests/shared`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    reason = "a failure here is a failed test"
)]

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Stdio},
};

/// Whom a root's server runs as: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65534;

/// A server that listens on a socket in its directory.
pub struct PostgresServer {
    dir: tempfile::TempDir,
    bin: PathBuf,
}

impl PostgresServer {
    /// Starts one; `None`, and says so, where PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        let Some(bin) = bin() else {
            println!("skipped: PostgreSQL is not installed");
            return None;
        };
        // Sockets have short names.
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
        if is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let server = Self { dir, bin };
        let data = server.data();
        server.run("initdb", &["-D", &data, "-U", "memobuild", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8"]);
        server.resume();
        Some(server)
    }

    /// Stops it, as an administrator does: connections are ended.
    pub fn stop(&self) {
        self.run("pg_ctl", &["stop", "-w", "-m", "fast", "-D", &self.data()]);
    }

    /// Starts it again.
    pub fn resume(&self) {
        let socket = self.dir.path().display();
        let options =
            format!("-c unix_socket_directories={socket} -c listen_addresses= -c fsync=off -c max_connections=60");
        let log = self.dir.path().join("log").display().to_string();
        self.run("pg_ctl", &["start", "-w", "-t", "120", "-l", &log, "-o", &options, "-D", &self.data()]);
    }

    /// Makes a database and gives its address.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        let socket = self.dir.path().display().to_string().replace('/', "%2F");
        format!("postgres://memobuild@{socket}/{name}")
    }

    /// What a statement gives, as psql prints it without any ornament.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let socket = self.dir.path().display().to_string();
        self.run(
            "psql",
            &["-h", &socket, "-U", "memobuild", "-d", database, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql],
        )
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(self.bin.join(program));
        command.args(args).current_dir("/").stdin(Stdio::null());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        // The server goes on: it must not hold a pipe that is waited for.
        let path = self.dir.path().join(format!("{program}.out"));
        let out = fs::File::create(&path).unwrap();
        command.stdout(out.try_clone().unwrap()).stderr(out);
        let status = command.status().unwrap();
        let said = fs::read_to_string(&path).unwrap();
        assert!(status.success(), "{program} {args:?}: {said}");
        said.trim_end().to_owned()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let mut command = Command::new(self.bin.join("pg_ctl"));
        command.args(["stop", "-w", "-m", "immediate", "-D", &self.data()]).current_dir("/");
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Where `initdb` is: Debian keeps it out of the way of `PATH`.
fn bin() -> Option<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(versions).collect();
    dirs.retain(|dir| dir.join("initdb").is_file() && dir.join("pg_ctl").is_file() && dir.join("psql").is_file());
    dirs.pop()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
