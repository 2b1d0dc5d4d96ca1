//! HTTP/1.1 as a server speaks it (RFC 9112): requests with their bodies, several over one connection.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
};

pub(super) struct Request {
    pub(super) method: String,
    /// As it was sent.
    pub(super) target: String,
    /// Decoded, without the query.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The next on a connection; `None` where it ends.
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        // A greeting in TLS, say, has no lines to wait for.
        match from.fill_buf()?.first() {
            None => return Ok(None),
            Some(byte) if !byte.is_ascii_uppercase() => return Err(io::Error::other("no HTTP")),
            Some(_) => {}
        }
        let Some(first) = line(from)? else { return Ok(None) };
        let mut words = first.split(' ');
        let (Some(method), Some(target), Some("HTTP/1.1"), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(io::Error::other(format!("no HTTP/1.1 request: {first:?}")));
        };
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut headers = Vec::new();
        loop {
            let Some(text) = line(from)? else { return Ok(None) };
            if text.is_empty() {
                break;
            }
            let Some((name, value)) = text.split_once(':') else { return Err(io::Error::other("no header")) };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (path, query) = (decode(path, false), pairs(query));
        Ok(Some(Self { method, path, query, headers, target }))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(super) fn is_reading(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }
}

fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    from.by_ref().take(64 * 1024).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = bytes.strip_suffix(b"\r\n").ok_or_else(|| io::Error::other("a line that does not end"))?;
    String::from_utf8(text.to_vec()).map(Some).map_err(io::Error::other)
}

/// `a=b&c=d` with %-codes, as in queries and forms.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |p: &str| p.split_once('=').map(|(n, v)| (decode(n, true), decode(v, true)));
    text.split('&').filter_map(pair).collect()
}

fn decode(text: &str, plus: bool) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let hex: Vec<u8> = bytes.by_ref().take(2).collect();
                let hex = std::str::from_utf8(&hex).unwrap_or_default();
                out.push(u8::from_str_radix(hex, 16).unwrap_or(b'?'));
            }
            b'+' if plus => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A request's body, as it comes in.
pub(super) struct Body<'a> {
    from: &'a mut BufReader<TcpStream>,
    /// As `Content-Length` says; `None`: in chunks.
    pub(super) declared: Option<u64>,
    /// What is left of it, or of the present chunk.
    left: u64,
    ended: bool,
    pub(super) received: u64,
}

impl<'a> Body<'a> {
    /// The error is for a request that does not say how long its body is.
    pub(super) fn of(request: &Request, from: &'a mut BufReader<TcpStream>) -> io::Result<Self> {
        let length = match request.header("content-length") {
            Some(text) => Some(text.parse().map_err(io::Error::other)?),
            None => None,
        };
        let chunked = request.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        if chunked && length.is_some() {
            return Err(io::Error::other("both a length and chunks"));
        }
        let declared = if chunked { None } else { Some(length.unwrap_or(0)) };
        let left = declared.unwrap_or(0);
        Ok(Self { from, declared, left, ended: declared == Some(0), received: 0 })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        if self.left == 0 {
            let size = line(self.from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            self.left =
                u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).map_err(io::Error::other)?;
            if self.left == 0 {
                while !line(self.from)?.ok_or(io::ErrorKind::UnexpectedEof)?.is_empty() {}
                self.ended = true;
                return Ok(0);
            }
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.from.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.received += count as u64;
        if self.left == 0 {
            if self.declared.is_some() {
                self.ended = true;
            } else {
                line(self.from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            }
        }
        Ok(count)
    }
}

pub(super) struct Response {
    pub(super) status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Response {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(super) fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::new(status).with("content-type", "application/json").holding(value.to_string().into_bytes())
    }

    /// In the form of distribution-spec, "Error Codes".
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &serde_json::json!({"errors": [{"code": code, "message": message}]}))
    }

    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(super) fn holding(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    /// Bytes that were written.
    pub(super) fn write(&self, to: &mut impl Write, head: bool, close: bool) -> io::Result<u64> {
        let mut text = format!("HTTP/1.1 {} -\r\n", self.status);
        if self.status != 204 {
            text += &format!("content-length: {}\r\n", self.body.len());
        }
        if close {
            text += "connection: close\r\n";
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        to.write_all(text.as_bytes())?;
        let body: &[u8] = if head { &[] } else { &self.body };
        to.write_all(body)?;
        to.flush()?;
        Ok((text.len() + body.len()) as u64)
    }
}
