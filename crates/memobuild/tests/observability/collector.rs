//! A collector that takes all spans and keeps what it was sent.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value;

/// Requests: a head, and a body.
type Taken = Mutex<Vec<(String, Vec<u8>)>>;

pub struct Collector {
    pub url: String,
    taken: Arc<Taken>,
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let taken = Arc::<Taken>::default();
        let kept = taken.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
                let lines = head.to_ascii_lowercase();
                let length = lines.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                reader.read_exact(&mut body).unwrap();
                kept.lock().unwrap().push((head, body));
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { url, taken }
    }

    /// Heads and bodies of the requests that came since this was last asked.
    pub fn requests(&self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut self.taken.lock().unwrap())
    }

    /// The spans in them.
    pub fn spans(&self) -> Vec<Value> {
        let all = self.requests().into_iter().flat_map(|(_, body)| {
            let body: Value = serde_json::from_slice(&body).unwrap();
            body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
        });
        all.collect()
    }
}
