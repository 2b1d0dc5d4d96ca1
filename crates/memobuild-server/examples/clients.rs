//! Many clients at once for `scripts/bench-server`: `clients ADDR CLIENTS SECONDS`.
//!
//! Each is a thread with a connection that it keeps, and sends what builds send: blobs of a few KiB to 256 KiB that nobody
//! had or that all have, reads of its own and of others' whole and in part, HEAD, batches, records. Every answer is
//! compared with what it must be. Prints one JSON object, and ends with 1 if any answer was wrong.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "whoever starts it reads what came of it")]

use std::{
    error::Error,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Blobs that all clients send and read.
const COMMON: u64 = 200;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("clients: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Fallible<bool> {
    let usage = "usage: clients ADDR CLIENTS SECONDS";
    let mut args = std::env::args().skip(1);
    let addr: SocketAddr = args.next().ok_or(usage)?.parse()?;
    let clients: u64 = args.next().ok_or(usage)?.parse()?;
    let seconds: u64 = args.next().ok_or(usage)?.parse()?;
    let counts = Arc::new(Counts::default());
    let stop = Arc::new(AtomicBool::new(false));
    let start = Arc::new(Barrier::new(usize::try_from(clients)? + 1));
    let mut threads = Vec::new();
    for number in 0..clients {
        let (counts, stop, start) = (counts.clone(), stop.clone(), start.clone());
        let body = move || {
            // All connections are there before the first request.
            let client = Client::connect(addr, number);
            start.wait();
            let mut took = Vec::new();
            if let Err(error) = client.and_then(|mut client| client.work(&stop, &counts, &mut took)) {
                counts.errors.fetch_add(1, Ordering::Relaxed);
                eprintln!("client {number}: {error}");
            }
            took
        };
        threads.push(thread::Builder::new().stack_size(256 << 10).spawn(body)?);
    }
    start.wait();
    let began = Instant::now();
    thread::sleep(Duration::from_secs(seconds));
    stop.store(true, Ordering::Relaxed);
    let mut took: Vec<Duration> = threads.into_iter().flat_map(|t| t.join().unwrap_or_default()).collect();
    let lasted = began.elapsed();
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 1000).map_or(0.0, |d| d.as_secs_f64() * 1e3);
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{}",
        json!({
            "clients": clients, "requests": took.len(), "reads": of(&counts.reads), "writes": of(&counts.writes),
            "errors": of(&counts.errors), "seconds": lasted.as_secs_f64(),
            "p50_ms": at(500), "p99_ms": at(990), "max_ms": at(999),
        })
    );
    Ok(of(&counts.errors) == 0 && !took.is_empty())
}

#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    writes: AtomicU64,
    errors: AtomicU64,
}

/// A keyed sequence: the same for the same client each time.
struct Numbers(blake3::OutputReader);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit.max(1)
    }
}

struct Client {
    stream: BufReader<TcpStream>,
    numbers: Numbers,
    number: u64,
    sent: u64,
}

impl Client {
    fn connect(addr: SocketAddr, number: u64) -> Fallible<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        let numbers = Numbers(blake3::Hasher::new_derive_key("clients").update(&number.to_le_bytes()).finalize_xof());
        Ok(Self { stream: BufReader::with_capacity(64 << 10, stream), numbers, number, sent: 0 })
    }

    fn work(&mut self, stop: &AtomicBool, counts: &Counts, took: &mut Vec<Duration>) -> Fallible<()> {
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let counter = match self.numbers.below(10) {
                0 => self.put_own().map(|()| &counts.writes)?,
                1 => self.put_common().map(|()| &counts.writes)?,
                2 => self.record().map(|()| &counts.writes)?,
                3 => self.missing().map(|()| &counts.reads)?,
                4 => self.head_own().map(|()| &counts.reads)?,
                5 => self.part_of_own().map(|()| &counts.reads)?,
                6 | 7 => self.get_own().map(|()| &counts.reads)?,
                _ => self.get_common().map(|()| &counts.reads)?,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            took.push(began.elapsed());
        }
        Ok(())
    }

    fn request(&mut self, method: &str, path: &str, extra: &str, body: &[u8]) -> Fallible<(u16, Vec<u8>)> {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let mut message = format!("{method} {path} HTTP/1.1\r\nHost: cache\r\n{extra}{length}\r\n").into_bytes();
        message.extend_from_slice(body);
        self.stream.get_mut().write_all(&message)?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).ok_or("no status")?.parse()?;
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse()?;
            }
        }
        let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
        self.stream.read_exact(&mut body)?;
        Ok((status, body))
    }

    fn put(&mut self, bytes: &[u8]) -> Fallible<()> {
        let path = format!("/cache/{}", blake3::hash(bytes).to_hex());
        let (status, body) = self.request("PUT", &path, "", bytes)?;
        expect(matches!(status, 200 | 201), || format!("PUT: {status} {}", String::from_utf8_lossy(&body)))
    }

    fn put_own(&mut self) -> Fallible<()> {
        self.put(&own(self.number, self.sent))?;
        self.sent += 1;
        Ok(())
    }

    fn put_common(&mut self) -> Fallible<()> {
        let seed = self.numbers.below(COMMON);
        self.put(&common(seed))
    }

    /// One of those that this client has sent; the first if there is none yet.
    fn some_own(&mut self) -> Fallible<Vec<u8>> {
        if self.sent == 0 {
            self.put_own()?;
        }
        let which = self.numbers.below(self.sent);
        Ok(own(self.number, which))
    }

    fn get_own(&mut self) -> Fallible<()> {
        let bytes = self.some_own()?;
        let (status, body) = self.request("GET", &format!("/cache/{}", blake3::hash(&bytes).to_hex()), "", b"")?;
        expect(status == 200 && body == bytes, || format!("GET of what was sent: {status}, {} bytes", body.len()))
    }

    /// It may not be there yet; what is there is whole.
    fn get_common(&mut self) -> Fallible<()> {
        let bytes = common(self.numbers.below(COMMON));
        let (status, body) = self.request("GET", &format!("/cache/{}", blake3::hash(&bytes).to_hex()), "", b"")?;
        expect(status == 404 || (status == 200 && body == bytes), || format!("GET: {status}, {} bytes", body.len()))
    }

    fn head_own(&mut self) -> Fallible<()> {
        let bytes = self.some_own()?;
        let (status, _) = self.request("HEAD", &format!("/cache/{}", blake3::hash(&bytes).to_hex()), "", b"")?;
        expect(status == 200, || format!("HEAD of what was sent: {status}"))
    }

    fn part_of_own(&mut self) -> Fallible<()> {
        let bytes = self.some_own()?;
        let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
        let (status, body) = self.request("GET", &path, "Range: bytes=100-999\r\n", b"")?;
        expect(status == 206 && bytes.get(100..1000) == Some(&body), || format!("a range: {status}"))
    }

    fn missing(&mut self) -> Fallible<()> {
        let mut digests = vec![blake3::hash(b"nobody has this").to_hex().to_string()];
        for _ in 0..20 {
            digests.push(blake3::hash(&self.some_own()?).to_hex().to_string());
        }
        let body = serde_json::to_vec(&digests)?;
        let (status, body) = self.request("POST", "/cache/missing", "Content-Type: application/json\r\n", &body)?;
        let missing: Value = serde_json::from_slice(&body)?;
        expect(status == 200 && missing == json!(digests.get(..1)), || format!("missing: {status} {missing}"))
    }

    /// A record that names a blob of this client, put and read.
    fn record(&mut self) -> Fallible<()> {
        let blob = blake3::hash(&self.some_own()?).to_hex().to_string();
        let key = format!("/record/bench:{blob}");
        let value = BASE64_STANDARD.encode(&blob);
        let record = json!({ "value": value, "blobs": [blob] });
        let (status, body) = self.request("PUT", &key, "", record.to_string().as_bytes())?;
        expect(matches!(status, 200 | 201), || format!("a record: {status} {}", String::from_utf8_lossy(&body)))?;
        let (status, body) = self.request("GET", &key, "", b"")?;
        let got: Value = serde_json::from_slice(&body)?;
        expect(status == 200 && got.get("value") == record.get("value"), || format!("a record read: {status} {got}"))
    }
}

fn expect(good: bool, otherwise: impl FnOnce() -> String) -> Fallible<()> {
    if good { Ok(()) } else { Err(otherwise().into()) }
}

fn own(client: u64, n: u64) -> Vec<u8> {
    noise(&[1, client, n])
}

fn common(n: u64) -> Vec<u8> {
    noise(&[2, n])
}

/// 4 KiB mostly, as many as 256 KiB now and then.
fn noise(seed: &[u64]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    for part in seed {
        hasher.update(&part.to_le_bytes());
    }
    let mut bytes = vec![0; if seed.last().is_some_and(|n| n % 16 == 7) { 256 << 10 } else { 4 << 10 }];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
