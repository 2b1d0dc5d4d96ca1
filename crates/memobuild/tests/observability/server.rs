//! `memobuild server` with all that it logs.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::Place;

pub struct Server {
    pub place: Place,
    /// Without a scheme.
    pub addr: String,
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub fn start(place: Place, logs: &str, more: &[&str]) -> Self {
        let mut child = place
            .command(env!("CARGO_BIN_EXE_memobuild"))
            .args(["server", "--listen", "127.0.0.1:0", "--data-dir", "data", "--audit-log", "audit"])
            .args(more)
            .env("RUST_LOG", logs)
            .env("MEMOBUILD_JSON_LOGS", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let patience = Duration::from_secs(60);
        let addr = loop {
            let line = lines.recv_timeout(patience).expect("the server says where it listens");
            if let Some(addr) = line.strip_prefix("listening on http://") {
                break addr.to_owned();
            }
        };
        Self { place, addr, child, lines }
    }

    /// Ends it; gives all lines that it has logged since it listens.
    pub fn stop(mut self) -> (Place, Vec<String>) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        // Until the thread that reads has come to the end.
        let lines = self.lines.iter().collect();
        (std::mem::replace(&mut self.place, Place::new()), lines)
    }
}

/// The lines that are JSON.
pub fn objects<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Value> {
    lines.into_iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
