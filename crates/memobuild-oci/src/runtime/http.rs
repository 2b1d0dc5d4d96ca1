//! HTTP/1.1 (RFC 9112) over a unix socket or plain TCP, as far as the API of container engines needs it.
//!
//! In: a path below the server, and perhaps a body that is made while it is sent (chunked). Out: status, headers and a
//! body of bounded length. One connection for each request. Called by [`super::engine`]. Never: follows a redirect, or
//! waits without end.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

/// The longest head of an answer, in bytes.
const MAX_HEAD: u64 = 64 * 1024;
/// Interim answers (1xx) before the real one.
const MAX_INTERIM: usize = 8;
/// Bytes in one chunk of a body that is sent.
const CHUNK: usize = 256 * 1024;
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

/// An exchange that did not come to an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or not for this user.
    #[error("could not connect to {address}")]
    Connect {
        /// Where.
        address: Address,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The connection broke off.
    #[error("the connection to {address} broke off")]
    Broken {
        /// Where.
        address: Address,
        /// What it met.
        #[source]
        source: io::Error,
    },
    /// Nothing came or went for that long.
    #[error("{address} did not answer for {} s", waited.as_secs())]
    TimedOut {
        /// Where.
        address: Address,
        /// How long was waited.
        waited: Duration,
    },
    /// An answer that is not HTTP, or longer than anything sensible.
    #[error("{address} gave no sensible answer: {why}")]
    Malformed {
        /// Where.
        address: Address,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A request whose body is made while it is sent.
#[derive(Debug)]
pub(super) enum UploadError<E> {
    /// The exchange failed.
    Client(ClientError),
    /// Whoever makes the body failed.
    Body(E),
}

/// What a server answered. The body is read from it.
pub(super) struct Answer {
    /// The status code.
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    address: Address,
    waited: Duration,
    body: Body,
}

/// Speaks to one server.
#[derive(Debug, Clone)]
pub(super) struct Client {
    address: Address,
}

impl Client {
    pub(super) fn new(address: Address) -> Self {
        Self { address }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// A request without a body. `wait` is how long the server may be silent.
    pub(super) fn call(&self, method: &str, path: &str, wait: Duration) -> Result<Answer, ClientError> {
        let mut stream = self.connect(wait)?;
        // POST without a body has to say so; GET must not carry the header in vain.
        let length = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
        let head = format!("{}{length}\r\n", self.head(method, path));
        stream.write_all(head.as_bytes()).map_err(|e| self.broken(e, wait))?;
        self.answer(stream, wait)
    }

    /// A POST whose body is what `body` writes. A server that hangs up on it may have said why: its answer is then given.
    pub(super) fn upload<E>(
        &self,
        path: &str,
        content_type: &str,
        wait: Duration,
        body: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Answer, UploadError<E>> {
        let stream = self.connect(wait).map_err(UploadError::Client)?;
        self.upload_on(stream, path, content_type, wait, body)
    }

    fn upload_on<E>(
        &self,
        mut stream: Stream,
        path: &str,
        content_type: &str,
        wait: Duration,
        body: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Answer, UploadError<E>> {
        let head = self.head("POST", path);
        let head = format!("{head}Content-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n");
        if let Err(error) = stream.write_all(head.as_bytes()) {
            return self.why_broken(stream, error, wait).map_err(UploadError::Client);
        }
        let mut chunks = Chunks { stream: &mut stream, buffer: Vec::with_capacity(CHUNK), failed: None };
        let made = body(&mut chunks);
        let (written, failed) = match &made {
            Ok(()) => (chunks.finish(), None),
            Err(_) => (Ok(()), chunks.failed.take()),
        };
        match (made, failed.or(written.err())) {
            // Without the last chunk the server takes what it has for cut off, as it must.
            (Err(error), None) => Err(UploadError::Body(error)),
            (_, Some(error)) => self.why_broken(stream, error, wait).map_err(UploadError::Client),
            (Ok(()), None) => self.answer(stream, wait).map_err(UploadError::Client),
        }
    }

    fn head(&self, method: &str, path: &str) -> String {
        let host = match &self.address {
            Address::Unix(_) => "localhost",
            Address::Tcp(host) => host,
        };
        let agent = concat!("memobuild/", env!("CARGO_PKG_VERSION"));
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nConnection: close\r\n")
    }

    fn connect(&self, wait: Duration) -> Result<Stream, ClientError> {
        let failed = |source| ClientError::Connect { address: self.address.clone(), source };
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(failed)?;
                stream
                    .set_read_timeout(Some(wait))
                    .and_then(|()| stream.set_write_timeout(Some(wait)))
                    .map_err(failed)?;
                Ok(Stream::Unix(stream))
            }
            Address::Tcp(host) => {
                let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for to in host.to_socket_addrs().map_err(failed)? {
                    match TcpStream::connect_timeout(&to, CONNECT) {
                        Ok(stream) => {
                            stream
                                .set_read_timeout(Some(wait))
                                .and_then(|()| stream.set_write_timeout(Some(wait)))
                                .map_err(failed)?;
                            return Ok(Stream::Tcp(stream));
                        }
                        Err(e) => error = e,
                    }
                }
                Err(failed(error))
            }
        }
    }

    fn answer(&self, stream: Stream, wait: Duration) -> Result<Answer, ClientError> {
        let mut reader = BufReader::new(stream);
        let malformed = |why| ClientError::Malformed { address: self.address.clone(), why };
        for _ in 0..MAX_INTERIM {
            let head = read_head(&mut reader).map_err(|e| self.broken(e, wait))?;
            let Some((status, headers)) = parse_head(&head) else { return Err(malformed("not HTTP")) };
            if (100..200).contains(&status) {
                continue;
            }
            let framing = framing(status, &headers).ok_or_else(|| malformed("the length of its body can't be told"))?;
            let body = Body { reader, framing };
            return Ok(Answer { status, headers, address: self.address.clone(), waited: wait, body });
        }
        Err(malformed("too many interim answers"))
    }

    /// What a server that took no more said before it hung up, or else that it did.
    fn why_broken(&self, stream: Stream, error: io::Error, wait: Duration) -> Result<Answer, ClientError> {
        match self.answer(stream, wait) {
            Ok(answer) if answer.status >= 400 => Ok(answer),
            _ => Err(self.broken(error, wait)),
        }
    }

    fn broken(&self, source: io::Error, waited: Duration) -> ClientError {
        broken(&self.address, source, waited)
    }
}

fn broken(address: &Address, source: io::Error, waited: Duration) -> ClientError {
    let address = address.clone();
    match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TimedOut { address, waited },
        _ => ClientError::Broken { address, source },
    }
}

impl Answer {
    /// A header's value; `name` in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body, of `limit` bytes at most.
    pub(super) fn bytes(mut self, limit: u64) -> Result<Vec<u8>, ClientError> {
        let mut out = Vec::new();
        let read = (&mut self.body).take(limit.saturating_add(1)).read_to_end(&mut out);
        read.map_err(|e| broken(&self.address, e, self.waited))?;
        match out.len() as u64 > limit {
            true => Err(ClientError::Malformed { address: self.address, why: "it is longer than anything sensible" }),
            false => Ok(out),
        }
    }
}

/// The lines up to the empty one.
fn read_head(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut limited = reader.take(MAX_HEAD);
    loop {
        let begin = head.len();
        if limited.read_until(b'\n', &mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if matches!(head.get(begin..), Some(b"\r\n" | b"\n")) {
            return Ok(head);
        }
    }
}

type Head = (u16, Vec<(String, String)>);

fn parse_head(head: &[u8]) -> Option<Head> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let mut first = lines.next()?.splitn(3, ' ');
    if !first.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = first.next().filter(|s| s.len() == 3)?.parse().ok()?;
    let mut headers = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(':')?;
        headers.push((key.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some((status, headers))
}

/// How the end of a body is told (RFC 9112, section 6.3).
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// So many bytes are left of the chunk; `None` before the first and after the last one.
    Chunked { left: u64, state: ChunkState },
    /// Up to the end of the connection.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    First,
    Inside,
    End,
}

fn framing(status: u16, headers: &[(String, String)]) -> Option<Framing> {
    let value = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if matches!(status, 204 | 304) {
        return Some(Framing::Length(0));
    }
    match (value("transfer-encoding"), value("content-length")) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => {
            Some(Framing::Chunked { left: 0, state: ChunkState::First })
        }
        (Some(_), _) => None,
        (None, Some(length)) => length.parse().ok().map(Framing::Length),
        (None, None) => Some(Framing::Close),
    }
}

struct Body {
    reader: BufReader<Stream>,
    framing: Framing,
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Framing::Chunked { left: 0, state } = self.framing
            && state != ChunkState::End
        {
            if state == ChunkState::Inside {
                line(&mut self.reader)?;
            }
            let left = chunk_size(&line(&mut self.reader)?)?;
            let state = if left == 0 { ChunkState::End } else { ChunkState::Inside };
            self.framing = Framing::Chunked { left, state };
        }
        let left = match &mut self.framing {
            Framing::Close => return self.reader.read(out),
            Framing::Length(left) | Framing::Chunked { left, .. } => left,
        };
        let most = out.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let count = self.reader.read(out.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *left -= count as u64;
        Ok(count)
    }
}

/// A line of the chunked coding without its end.
fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut text = Vec::new();
    reader.take(1024).read_until(b'\n', &mut text)?;
    if text.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&text).trim_end_matches('\r').to_owned())
}

fn chunk_size(line: &str) -> io::Result<u64> {
    let digits = line.split(';').next().unwrap_or_default().trim();
    // `from_str_radix` takes a sign.
    let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let size = u64::from_str_radix(digits, 16).ok().filter(|_| hex);
    size.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a chunk of the answer has no length"))
}

/// The body of a request, in chunks.
struct Chunks<'a> {
    stream: &'a mut Stream,
    buffer: Vec<u8>,
    /// What the connection met: whoever writes may report it as an error of its own.
    failed: Option<io::Error>,
}

impl Chunks<'_> {
    fn send(&mut self, last: bool) -> io::Result<()> {
        let mut sent = Ok(());
        if !self.buffer.is_empty() {
            let size = format!("{:x}\r\n", self.buffer.len());
            sent = self
                .stream
                .write_all(size.as_bytes())
                .and_then(|()| self.stream.write_all(&self.buffer))
                .and_then(|()| self.stream.write_all(b"\r\n"));
            self.buffer.clear();
        }
        if last {
            sent = sent.and_then(|()| self.stream.write_all(b"0\r\n\r\n"));
        }
        sent.map_err(|e| {
            let copy = io::Error::new(e.kind(), e.to_string());
            self.failed.get_or_insert(e);
            copy
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        self.send(true)
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK.saturating_sub(self.buffer.len());
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.buffer.extend_from_slice(taken);
        if self.buffer.len() >= CHUNK {
            self.send(false)?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send(false)
    }
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(out),
            Self::Tcp(stream) => stream.read(out),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.flush(),
            Self::Tcp(stream) => stream.flush(),
        }
    }
}

/// A value for a query: all but RFC 3986's unreserved characters as `%XX`.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
