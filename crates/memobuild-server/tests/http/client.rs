//! A server in this process, and a client that does no more than it is told to.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread::JoinHandle,
    time::Duration,
};

use memobuild_server::{Config, Reloader, Server};
use serde_json::Value;

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The code of an error.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// The head of a request after which the connection ends; `extra`: whole lines.
pub fn head(method: &str, path: &str, extra: &[&str]) -> String {
    let extra: String = extra.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: cache\r\nConnection: close\r\n{extra}\r\n")
}

/// Reads an answer; `None` if the connection ends before it does.
pub fn answer(stream: &TcpStream, method: &str) -> Option<Reply> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut reply = Reply { status, headers, body: Vec::new() };
    if method == "HEAD" || matches!(status, 100 | 204 | 304) {
        return Some(reply);
    }
    if reply.header("transfer-encoding") == Some("chunked") {
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            if size == 0 {
                return Some(reply);
            }
            reply.body.extend(&chunk[..size]);
        }
    }
    reply.body = vec![0; reply.header("content-length")?.parse().ok()?];
    reader.read_exact(&mut reply.body).ok()?;
    Some(reply)
}

/// One request with a body of known length.
pub fn try_send(addr: SocketAddr, method: &str, path: &str, extra: &[&str], body: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let length = format!("Content-Length: {}", body.len());
    let mut lines = extra.to_vec();
    if !body.is_empty() || matches!(method, "PUT" | "POST") {
        lines.push(&length);
    }
    stream.write_all(head(method, path, &lines).as_bytes()).ok()?;
    // A server that refuses a body may close before it has all: its answer counts.
    let _ = stream.write_all(body);
    answer(&stream, method)
}

/// A server with a directory of its own, ended when dropped.
pub struct Running {
    pub addr: SocketAddr,
    pub dir: tempfile::TempDir,
    pub reloader: Reloader,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("data"));
        config.listen.set_port(0);
        change(&mut config);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(config).await.unwrap();
                tell.send((server.local_addr(), server.reloader())).unwrap();
                server.run(async { drop(stopped.await) }).await;
            });
        });
        let (addr, reloader) = told.recv().expect("the server did not start");
        Self { addr, dir, reloader, stop: Some(stop), thread: Some(thread) }
    }

    pub fn send(&self, method: &str, path: &str, extra: &[&str], body: &[u8]) -> Reply {
        let reply = try_send(self.addr, method, path, extra, body).expect("an answer");
        // Of every answer whatever.
        assert_eq!(reply.header("x-memobuild-api-version"), Some("1.0"), "{reply:?}");
        if reply.status >= 400 && method != "HEAD" {
            assert_eq!(reply.header("content-type"), Some("application/json"), "{reply:?}");
            assert!(!reply.error().is_empty(), "{reply:?}");
        }
        reply
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub fn put(&self, path: &str, body: &[u8]) -> Reply {
        self.send("PUT", path, &[], body)
    }

    /// Puts a blob by BLAKE3; gives its digest.
    pub fn blob(&self, bytes: &[u8]) -> String {
        let hex = blake3::hash(bytes).to_hex().to_string();
        let reply = self.put(&format!("/cache/{hex}"), bytes);
        assert!(matches!(reply.status, 200 | 201), "{reply:?}");
        hex
    }

    /// Files under the data directory, by path from it, without the database and what names the layout.
    pub fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![self.dir.path().join("data")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.parent() != Some(&self.dir.path().join("data")) {
                    let name = path.strip_prefix(self.dir.path().join("data")).unwrap();
                    found.push(name.display().to_string());
                }
            }
        }
        found
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// Bytes that don't compress, other ones for each seed.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
