//! How many requests a second a server answers, for `scripts/bench-server`: `rate ADDR METHOD PATHS CONNECTIONS SECONDS`.
//!
//! For HEAD, to which wrk and h2load wait for a body that never comes. As in wrk two threads wait for many connections at
//! once (epoll), and each connection has one request under way. PATHS is a file with a path in each line, asked for in
//! turn. Prints one JSON object.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "whoever starts it reads what came of it")]

use std::{
    error::Error,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};
use serde_json::json;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const THREADS: usize = 2;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rate: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Fallible<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addr, method, paths, connections, seconds] = args.as_slice() else {
        return Err("usage: rate ADDR METHOD PATHS CONNECTIONS SECONDS".into());
    };
    let addr: SocketAddr = addr.parse()?;
    let requests: Vec<Vec<u8>> = std::fs::read_to_string(paths)?
        .lines()
        .map(|path| format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").into_bytes())
        .collect();
    let connections = connections.parse::<usize>()? / THREADS;
    let lasts = Duration::from_secs(seconds.parse()?);
    let head = method == "HEAD";
    let began = Instant::now();
    let seen = thread::scope(|scope| {
        let ask = |thread| {
            let requests = &requests;
            scope.spawn(move || ask(addr, requests, thread * requests.len() / THREADS, connections, lasts, head))
        };
        let threads: Vec<_> = (0..THREADS).map(ask).collect();
        threads.into_iter().map(|t| t.join().map_err(|_| "a thread ended early")?).collect::<Fallible<Vec<Seen>>>()
    })?;
    let took = began.elapsed().as_secs_f64();
    let errors: usize = seen.iter().map(|s| s.errors).sum();
    let mut micros: Vec<u32> = seen.into_iter().flat_map(|s| s.micros).collect();
    micros.sort_unstable();
    let p99 = micros.get(micros.len() * 99 / 100).map_or(0.0, |micros| f64::from(*micros) / 1e3);
    println!("{}", json!({ "requests": micros.len(), "errors": errors, "seconds": took, "p99_ms": p99 }));
    Ok(())
}

#[derive(Default)]
struct Seen {
    micros: Vec<u32>,
    errors: usize,
}

struct Connection {
    stream: TcpStream,
    asked: Instant,
    got: Vec<u8>,
}

fn ask(
    addr: SocketAddr,
    requests: &[Vec<u8>],
    first: usize,
    connections: usize,
    lasts: Duration,
    head: bool,
) -> Fallible<Seen> {
    let mut order = requests.iter().cycle().skip(first);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut open = Vec::new();
    for number in 0..connections {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.write_all(order.next().ok_or("no paths")?)?;
        stream.set_nonblocking(true)?;
        epoll::add(&poll, &stream, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
        open.push(Connection { stream, asked: Instant::now(), got: Vec::with_capacity(8 << 10) });
    }
    let (began, mut seen) = (Instant::now(), Seen::default());
    let mut events = Vec::with_capacity(connections);
    let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
    while began.elapsed() < lasts {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), Some(&patience))?;
        for event in &events {
            let number = usize::try_from(event.data.u64())?;
            let Some(connection) = open.get_mut(number) else { continue };
            let mut piece = [0; 16 << 10];
            match connection.stream.read(&mut piece) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(n) => connection.got.extend_from_slice(piece.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            }
            let Some(good) = finished(&connection.got, head)? else { continue };
            seen.errors += usize::from(!good);
            seen.micros.push(u32::try_from(connection.asked.elapsed().as_micros())?);
            connection.got.clear();
            connection.asked = Instant::now();
            // A request is far shorter than a socket's buffer.
            connection.stream.write_all(order.next().ok_or("no paths")?)?;
        }
    }
    Ok(seen)
}

/// Whether this is a whole answer, and if so whether it is a good one.
fn finished(got: &[u8], head: bool) -> Fallible<Option<bool>> {
    let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(got.get(..end).unwrap_or_default())?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let body = if head { 0 } else { length.ok_or("an answer without a length")? };
    let good = text.starts_with("HTTP/1.1 200 ") && length.is_some();
    Ok((got.len() >= end + 4 + body).then_some(good))
}
