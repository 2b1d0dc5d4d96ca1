//! tar-split: all of a tar but its files' contents, as lines of JSON, from which containers/storage puts the very same
//! tar together again (github.com/vbatts/tar-split, `tar/storage`).

use std::io::{self, Write as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

/// Contents of a file.
const FILE: u8 = 1;
/// Bytes of the archive.
const SEGMENT: u8 = 2;

/// A line. `name_raw` of the original is for names that are not UTF-8, which no table of contents can say either.
#[derive(Serialize)]
struct Line<'a> {
    r#type: u8,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    payload: Option<String>,
    position: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The lines so far, compressed.
pub(super) struct TarSplit {
    to: zstd::Encoder<'static, Vec<u8>>,
    length: u64,
    position: u64,
}

impl TarSplit {
    /// None yet. The level is one of zstd's.
    pub(super) fn new(level: u32) -> io::Result<Self> {
        Ok(Self { to: zstd::Encoder::new(Vec::new(), level as i32)?, length: 0, position: 0 })
    }

    /// Padding and headers as they stand in the archive.
    pub(super) fn segment(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.line(Line {
            r#type: SEGMENT,
            name: "",
            size: 0,
            payload: Some(BASE64_STANDARD.encode(bytes)),
            position: 0,
        })
    }

    /// An entry, with the CRC-64 of its contents if it has any.
    pub(super) fn file(&mut self, name: &[u8], size: u64, crc: [u8; 8]) -> io::Result<()> {
        let payload = (size > 0).then(|| BASE64_STANDARD.encode(crc));
        let name = std::str::from_utf8(name).unwrap_or_default();
        self.line(Line { r#type: FILE, name, size, payload, position: 0 })
    }

    fn line(&mut self, line: Line<'_>) -> io::Result<()> {
        let mut text = serde_json::to_vec(&Line { position: self.position, ..line })?;
        text.push(b'\n');
        self.position += 1;
        self.length += text.len() as u64;
        self.to.write_all(&text)
    }

    /// All lines as a zstd frame, and their length in bytes before compression.
    pub(super) fn finish(self) -> io::Result<(Vec<u8>, u64)> {
        Ok((self.to.finish()?, self.length))
    }
}
