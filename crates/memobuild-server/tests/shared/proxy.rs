//! Stands before an S3 server and does to its answers what networks and busy servers do.

use std::{
    io::{Read, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// What becomes of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// They are passed on.
    Pass,
    /// So many are answered with this status, then they are passed on.
    Status(u16, u32),
    /// They are passed on after a while.
    Slow(Duration),
    /// So many connections are cut after this many bytes of answers, then none.
    Cut(u64, u32),
    /// They get no answer.
    Silent,
}

pub struct Proxy {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    mode: Mode,
    /// Ended when the mode changes: connections that are kept open would go on as before.
    open: Vec<TcpStream>,
    requests: u32,
}

impl Proxy {
    /// Before the server on this port of loopback.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { mode: Mode::Pass, open: Vec::new(), requests: 0 }));
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || serve(&client, port, &shared));
            }
        });
        Self { addr, state }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn set(&self, mode: Mode) {
        let mut state = self.state.lock().unwrap();
        state.mode = mode;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        state.requests = 0;
    }

    /// Connections that something was done to, since the mode was set.
    pub fn harmed(&self) -> u32 {
        self.state.lock().unwrap().requests
    }
}

/// What to do with this connection.
fn decide(state: &Mutex<State>, client: &TcpStream) -> Mode {
    let mut state = state.lock().unwrap();
    state.open.push(client.try_clone().unwrap());
    let mode = state.mode;
    match &mut state.mode {
        Mode::Status(_, left) | Mode::Cut(_, left) => {
            if *left == 0 {
                return Mode::Pass;
            }
            *left -= 1;
        }
        Mode::Pass => return Mode::Pass,
        Mode::Slow(_) | Mode::Silent => {}
    }
    state.requests += 1;
    mode
}

fn serve(client: &TcpStream, port: u16, state: &Mutex<State>) {
    let mode = decide(state, client);
    match mode {
        Mode::Status(status, _) => {
            // The body may be still coming; that it is not read is part of the trouble.
            let mut some = [0; 4096];
            let _ = (&mut &*client).read(&mut some);
            let answer = format!("HTTP/1.1 {status} Trouble\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = (&mut &*client).write_all(answer.as_bytes());
            let _ = client.shutdown(Shutdown::Write);
            drain(client);
        }
        Mode::Silent => drain(client),
        Mode::Slow(pause) => {
            thread::sleep(pause);
            pass(client, port, u64::MAX, state);
        }
        Mode::Cut(bytes, _) => pass(client, port, bytes, state),
        Mode::Pass => pass(client, port, u64::MAX, state),
    }
}

/// Takes what comes until the other side ends.
fn drain(mut client: &TcpStream) {
    let mut some = [0; 65_536];
    while client.read(&mut some).is_ok_and(|n| n > 0) {}
}

fn pass(client: &TcpStream, port: u16, most: u64, state: &Mutex<State>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
    state.lock().unwrap().open.push(server.try_clone().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut &*client, &mut &server);
            let _ = server.shutdown(Shutdown::Write);
        });
        let _ = std::io::copy(&mut (&server).take(most), &mut &*client);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}
