//! Writes a tar stream as Go's `archive/tar` does with `FormatPAX`: ustar headers, and an extended header only where a
//! value does not fit. Equal input gives equal bytes.

use std::io::{self, Read, Write};

use super::{header::BLOCK, pax::push_record};

/// The largest number that eleven octal digits hold: sizes and times.
const MAX_12: u64 = 0o77_777_777_777;
/// The largest number that seven octal digits hold: owners and device numbers.
const MAX_8: u64 = 0o7_777_777;

const SHORT: &str = "a file is shorter than its header says";

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderKind {
    File,
    Link,
    Symlink,
    Char,
    Block,
    Dir,
    Fifo,
}

/// One entry to be written.
#[derive(Debug, Clone)]
pub(crate) struct Header<'a> {
    /// Relative, without `./`; a directory's ends in a slash.
    pub(crate) path: &'a [u8],
    pub(crate) kind: HeaderKind,
    /// Target of a link of either kind.
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whole seconds.
    pub(crate) mtime: i64,
    pub(crate) size: u64,
    pub(crate) rdev: (u32, u32),
    pub(crate) xattrs: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Header<'a> {
    pub(crate) fn new(path: &'a [u8], kind: HeaderKind, mode: u32) -> Self {
        Self { path, kind, link: b"", mode, uid: 0, gid: 0, mtime: 0, size: 0, rdev: (0, 0), xattrs: Vec::new() }
    }
}

/// A tar archive being written.
pub(crate) struct TarWriter<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, buffer: vec![0; 64 * 1024] }
    }

    /// Writes a header. For a file the data must follow through [`TarWriter::data`].
    pub(crate) fn header(&mut self, header: &Header<'_>) -> io::Result<()> {
        let records = records(header);
        if !records.is_empty() {
            let mut text = Vec::new();
            for (key, value) in &records {
                push_record(&mut text, key, value);
            }
            self.out.write_all(&extended(header.path, text.len())?)?;
            self.out.write_all(&text)?;
            self.pad(text.len() as u64)?;
        }
        self.out.write_all(&block(header)?)
    }

    /// Writes a file's data; `from` must give exactly `size` bytes.
    pub(crate) fn data(&mut self, from: &mut dyn Read, size: u64) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let buffer = self.buffer.get_mut(..most).unwrap_or_default();
            let count = match from.read(buffer) {
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, SHORT));
                }
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.out.write_all(buffer.get(..count).unwrap_or_default())?;
            left -= count as u64;
        }
        self.pad(size)
    }

    /// Writes a file's data by a way of the stream's own, which says how much it took.
    pub(crate) fn data_by(&mut self, size: u64, copy: impl FnOnce(&mut W) -> io::Result<u64>) -> io::Result<()> {
        if copy(&mut self.out)? != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, SHORT));
        }
        self.pad(size)
    }

    /// Writes a whole file.
    pub(crate) fn file(&mut self, header: &Header<'_>, bytes: &[u8]) -> io::Result<()> {
        self.header(&Header { size: bytes.len() as u64, ..header.clone() })?;
        self.out.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// What has been written to.
    pub(crate) fn get_ref(&self) -> &W {
        &self.out
    }

    /// Writes the end mark.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = size.wrapping_neg() as usize % BLOCK;
        self.out.write_all([0; BLOCK].get(..padding).unwrap_or_default())
    }
}

/// The extended records that an entry needs, sorted by key.
fn records(header: &Header<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut out: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut need = |key: &[u8], value: &[u8]| out.push((key.to_vec(), value.to_vec()));
    for (key, text) in [(&b"path"[..], header.path), (b"linkpath", header.link)] {
        if text.len() > 100 || !text.is_ascii() {
            need(key, text);
        }
    }
    for (key, id) in [(&b"uid"[..], header.uid), (b"gid", header.gid)] {
        if u64::from(id) > MAX_8 {
            need(key, id.to_string().as_bytes());
        }
    }
    if header.size > MAX_12 {
        need(b"size", header.size.to_string().as_bytes());
    }
    if u64::try_from(header.mtime).map_or(true, |t| t > MAX_12) {
        need(b"mtime", header.mtime.to_string().as_bytes());
    }
    for (name, value) in &header.xattrs {
        need(&[b"SCHILY.xattr.", *name].concat(), value);
    }
    out.sort();
    out
}

fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}

/// Puts text into a field, cut to fit. A name that is cut must not end in a slash, or it reads as a directory.
fn put(block: &mut [u8; BLOCK], at: usize, length: usize, text: &[u8]) {
    let cut = text.get(..length.min(text.len())).unwrap_or_default();
    let end =
        if cut.len() < text.len() { cut.iter().rposition(|b| *b != b'/').map_or(0, |i| i + 1) } else { cut.len() };
    let text = cut.get(..end).unwrap_or_default();
    if let Some(field) = block.get_mut(at..at + text.len()) {
        field.copy_from_slice(text);
    }
}

/// Puts an octal number into a field with a NUL behind it; zero where it does not fit (a record then says it).
fn put_octal(block: &mut [u8; BLOCK], at: usize, length: usize, value: u64) {
    let digits = length - 1;
    let value = if value >> (3 * digits as u32).min(63) == 0 { value } else { 0 };
    put(block, at, length, format!("{value:0digits$o}").as_bytes());
}

fn seal(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    put(&mut block, 257, 8, b"ustar\x0000");
    put(&mut block, 148, 8, b"        ");
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    put(&mut block, 148, 8, format!("{sum:06o}\0 ").as_bytes());
    block
}

fn block(header: &Header<'_>) -> io::Result<[u8; BLOCK]> {
    let (major, minor) = header.rdev;
    if u64::from(major.max(minor)) > MAX_8 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "device number too large for a tar archive"));
    }
    let mut out = [0; BLOCK];
    put(&mut out, 0, 100, &ascii(header.path));
    put_octal(&mut out, 100, 8, u64::from(header.mode));
    put_octal(&mut out, 108, 8, u64::from(header.uid));
    put_octal(&mut out, 116, 8, u64::from(header.gid));
    put_octal(&mut out, 124, 12, header.size);
    put_octal(&mut out, 136, 12, u64::try_from(header.mtime).unwrap_or(0));
    out[156] = match header.kind {
        HeaderKind::File => b'0',
        HeaderKind::Link => b'1',
        HeaderKind::Symlink => b'2',
        HeaderKind::Char => b'3',
        HeaderKind::Block => b'4',
        HeaderKind::Dir => b'5',
        HeaderKind::Fifo => b'6',
    };
    put(&mut out, 157, 100, &ascii(header.link));
    put_octal(&mut out, 329, 8, u64::from(major));
    put_octal(&mut out, 337, 8, u64::from(minor));
    Ok(seal(out))
}

/// The header before the records of an entry, named as Go names it.
fn extended(path: &[u8], size: usize) -> io::Result<[u8; BLOCK]> {
    if size > 1 << 20 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "names and extended attributes of one file over 1 MiB",
        ));
    }
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let split = path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
    let (dir, file) = path.split_at(split);
    let mut out = [0; BLOCK];
    put(&mut out, 0, 100, &ascii(&[dir, b"PaxHeaders.0/", file].concat()));
    put_octal(&mut out, 124, 12, size as u64);
    out[156] = b'x';
    Ok(seal(out))
}
