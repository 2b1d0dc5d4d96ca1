//! A proxy that takes one request a connection, writes it down, and does harm if it is told to.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// What happens to answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Nothing comes, ever.
    Silence,
    /// The connection is closed.
    Closed,
    /// 500, as from a proxy.
    Failing,
    /// A byte of each blob is another.
    Changed,
    /// Blobs end in the middle.
    Cut,
    /// A byte of each record is another.
    ChangedRecords,
    /// The record of another key.
    WrongRecords,
    /// A page of a web site.
    Page,
}

#[derive(Default)]
struct Seen {
    requests: Vec<String>,
    sent: u64,
    received: u64,
    record: Option<Vec<u8>>,
}

pub struct Proxy {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    fault: Arc<Mutex<Fault>>,
}

impl Proxy {
    pub fn start(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, fault) = (Arc::<Mutex<Seen>>::default(), Arc::new(Mutex::new(Fault::None)));
        let proxy = Self { port, seen: seen.clone(), fault: fault.clone() };
        let to = to.to_owned();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (to, seen, fault) = (to.clone(), seen.clone(), *fault.lock().unwrap());
                // Whoever is cut off is of no interest here.
                thread::spawn(move || pass(client, &to, &seen, fault));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn fault(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap().requests)
    }

    pub fn traffic(&self) -> (u64, u64) {
        let mut seen = self.seen.lock().unwrap();
        (std::mem::take(&mut seen.sent), std::mem::take(&mut seen.received))
    }
}

fn pass(mut client: TcpStream, to: &str, seen: &Mutex<Seen>, fault: Fault) -> std::io::Result<()> {
    let mut from = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head += &line;
    }
    let first = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    {
        let mut seen = seen.lock().unwrap();
        seen.requests.push(first.clone());
        seen.sent += (head.len() + body.len()) as u64;
    }
    let canned = |text: &str| format!("HTTP/1.1 {text}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}");
    match fault {
        Fault::Silence => {
            thread::sleep(Duration::from_secs(600));
            return Ok(());
        }
        Fault::Closed => return Ok(()),
        Fault::Failing => return client.write_all(canned("500 Internal Server Error").as_bytes()),
        Fault::Page => return client.write_all(canned("200 OK").as_bytes()),
        _ => {}
    }
    let mut server = TcpStream::connect(to)?;
    write!(server, "{head}connection: close\r\n\r\n")?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let is_blob = first.starts_with("GET /cache/layer/");
    let is_record =
        first.starts_with("GET /record/") && !first.ends_with("/list") && answer.starts_with(b"HTTP/1.1 200");
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let middle = at + (answer.len() - at) / 2;
    match fault {
        Fault::Changed if is_blob => answer[middle] ^= 1,
        Fault::Cut if is_blob => answer.truncate(middle),
        // Base64 stays base64.
        Fault::ChangedRecords if is_record => answer[middle] = if answer[middle] == b'A' { b'B' } else { b'A' },
        Fault::WrongRecords if is_record => {
            let mut seen = seen.lock().unwrap();
            if let Some(before) = seen.record.replace(answer.clone()) {
                answer = before;
            }
        }
        _ => {}
    }
    seen.lock().unwrap().received += answer.len() as u64;
    client.write_all(&answer)
}
