//! `memobuild server` on loopback.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    common::Place,
    proxy::{Fault, Proxy},
};

pub struct Server {
    place: Place,
    args: Vec<String>,
    child: Child,
    /// Where it is reached without anything in between.
    pub direct: String,
    pub proxy: Proxy,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub fn start() -> Self {
        Self::in_place(Place::new(), &[])
    }

    pub fn in_place(place: Place, args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (child, addr) = listen(&place, "127.0.0.1:0", &args);
        let proxy = Proxy::start(&addr);
        Self { place, args, child, direct: format!("http://{addr}"), proxy }
    }

    /// Through the proxy.
    pub fn url(&self) -> String {
        self.proxy.url()
    }

    /// `GET /record/...` of all requests since this was last asked.
    pub fn requests(&self) -> Vec<String> {
        // What is told for the dashboard is no traffic of the cache.
        self.proxy.requests().into_iter().filter(|request| request != "POST /build-event").collect()
    }

    /// Bytes sent to and received from it since this was last asked.
    pub fn traffic(&self) -> (u64, u64) {
        self.proxy.traffic()
    }

    pub fn fault(&self, fault: Fault) {
        self.proxy.fault(fault);
    }

    pub fn stop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
        self.child.wait().unwrap();
    }

    pub fn start_again(&mut self) {
        let addr = self.direct.strip_prefix("http://").unwrap().to_owned();
        (self.child, _) = listen(&self.place, &addr, &self.args);
    }

    /// Stops it and starts one that has nothing.
    pub fn start_empty(&mut self) {
        self.stop();
        std::fs::remove_dir_all(self.place.path("data")).unwrap();
        self.start_again();
    }
}

fn listen(place: &Place, addr: &str, args: &[String]) -> (Child, String) {
    let mut child = place
        .command(env!("CARGO_BIN_EXE_memobuild"))
        .args(["server", "--listen", addr, "--data-dir", "data"])
        .args(args)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let addr = line.trim().strip_prefix("listening on http://").expect("the address").to_owned();
    // Whatever else it says must not fill the pipe.
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    (child, addr)
}
