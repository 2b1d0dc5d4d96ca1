//! Reads a tar stream entry by entry.
//!
//! In: any `Read` of an uncompressed archive. Out: [`Entry`]s, and each one's data through `Read` on the reader itself.
//! Memory is bounded whatever the archive says: names and extended headers over 1 MiB are refused, data are streamed.

use std::io::{self, Read, Seek, SeekFrom};

use super::{
    header::{BLOCK, Block, Format, until_nul},
    pax,
    sparse::{Map, Run},
};
use crate::layer::LayerError;

/// The longest extended header or long name that is read (Go's limit too).
const MAX_SPECIAL: u64 = 1 << 20;

/// What an entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A regular file, whose data follow.
    File,
    /// A further name of the file at that path in the archive.
    Link(Vec<u8>),
    /// A symbolic link to that text.
    Symlink(Vec<u8>),
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
}

/// One entry, extended headers taken into account.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The name, as it stands in the archive.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// Permission bits, 0o7777 at most.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Length of the data as they are read (holes included).
    pub(crate) size: u64,
    pub(crate) rdev: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where its first header starts.
    pub(crate) offset: u64,
}

/// What extended headers say of the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: SparseRecords,
}

#[derive(Default)]
struct SparseRecords {
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    name: Option<Vec<u8>>,
    map: Option<Map>,
    /// Format 0.0: an offset that waits for its length.
    offset: Option<u64>,
    map0: Map,
    is_map0: bool,
}

/// A tar archive under way.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Bytes read so far.
    offset: u64,
    entry_offset: u64,
    /// Stored bytes of the entry's data that are still to come.
    left: u64,
    padding: u64,
    sparse: Option<Sparse>,
    skip: fn(&mut R, u64) -> io::Result<u64>,
}

struct Sparse {
    map: Map,
    part: usize,
    at: u64,
    size: u64,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        let skip = |inner: &mut R, count| io::copy(&mut inner.take(count), &mut io::sink());
        Self { inner, offset: 0, entry_offset: 0, left: 0, padding: 0, sparse: None, skip }
    }

    /// Bytes of the stream read so far: after [`TarReader::next`], where the entry's stored data start.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The stream itself, of which nothing has been read ahead.
    pub(crate) fn inner_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Bytes of the entry's data, as they are stored, that have not been read.
    pub(crate) fn stored_left(&self) -> u64 {
        self.left
    }

    /// The stream behind the last entry read.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; what was left of the last one's data is skipped. `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        self.skip(self.left + self.padding)?;
        (self.left, self.padding, self.sparse) = (0, 0, None);
        self.entry_offset = self.offset;
        let mut extended = Extended::default();
        loop {
            let Some(block) = self.block()? else { return Ok(None) };
            let block = Block(&block);
            if block.is_zero() {
                // A second block of zeros, or nothing, ends the archive; anything else is damage (as in Go).
                return match self.block()? {
                    Some(next) if !Block(&next).is_zero() => Err(self.invalid("data after the end mark")),
                    _ => Ok(None),
                };
            }
            if !block.checksum_fits() {
                return Err(self.invalid("wrong header checksum"));
            }
            let size = block.number(124, 12).and_then(|n| u64::try_from(n).ok());
            let size = size.ok_or_else(|| self.invalid("damaged size"))?;
            match block.kind() {
                b'x' | b'X' => {
                    let text = self.special(size)?;
                    extended.records(&text).map_err(|what| self.invalid(what))?;
                }
                b'g' => {
                    self.special(size)?;
                    extended = Extended::default();
                    self.entry_offset = self.offset;
                }
                b'L' => extended.path = Some(until_nul(&self.special(size)?).to_vec()),
                b'K' => extended.link = Some(until_nul(&self.special(size)?).to_vec()),
                _ => return self.entry(&block, size, extended).map(Some),
            }
        }
    }

    fn entry(&mut self, block: &Block<'_>, size: u64, mut ext: Extended) -> Result<Entry, LayerError> {
        let path = ext.path.take().unwrap_or_else(|| block.name());
        let path = ext.sparse.name.take().unwrap_or(path);
        let bad = |what| LayerError::Invalid { what, offset: self.entry_offset, entry: Some(path.clone()) };
        let id = |given: Option<u64>, at| {
            let value = given.or_else(|| block.number(at, 8).and_then(|n| u64::try_from(n).ok()));
            value.and_then(|n| u32::try_from(n).ok()).ok_or_else(|| bad("owner out of range"))
        };
        let (uid, gid) = (id(ext.uid, 108)?, id(ext.gid, 116)?);
        let mode = block.number(100, 8).ok_or_else(|| bad("damaged mode"))? as u32 & 0o7777;
        let mtime = match ext.mtime {
            Some(mtime) => mtime,
            None => (block.number(136, 12).ok_or_else(|| bad("damaged time"))?, 0),
        };
        let link = ext.link.take().unwrap_or_else(|| block.text(157, 100).to_vec());
        let kind = match block.kind() {
            0 if path.ends_with(b"/") => EntryKind::Dir,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::Link(link),
            b'2' => EntryKind::Symlink(link),
            b'3' => EntryKind::Char,
            b'4' => EntryKind::Block,
            b'5' => EntryKind::Dir,
            b'6' => EntryKind::Fifo,
            _ => return Err(bad("entry of an unknown type")),
        };
        let mut rdev = (0, 0);
        if matches!(kind, EntryKind::Char | EntryKind::Block) && block.format() != Format::V7 {
            let part = |at| {
                block.number(at, 8).and_then(|n| u32::try_from(n).ok()).ok_or_else(|| bad("damaged device number"))
            };
            rdev = (part(329)?, part(337)?);
        }
        let file = kind == EntryKind::File;
        let stored = if file { ext.size.unwrap_or(size) } else { 0 };
        if stored > i64::MAX as u64 {
            return Err(bad("damaged size"));
        }
        let xattrs = std::mem::take(&mut ext.xattrs);
        let offset = self.entry_offset;
        (self.left, self.padding) = (stored, stored.wrapping_neg() % BLOCK as u64);
        let mut size = stored;
        if file && let Some(length) = self.sparse(block, ext.sparse)? {
            size = length;
        }
        Ok(Entry { path, kind, mode, uid, gid, mtime, size, rdev, xattrs, offset })
    }

    /// Sets up the reading of a sparse file, in whichever of GNU's four formats, and tells its length.
    fn sparse(&mut self, block: &Block<'_>, records: SparseRecords) -> Result<Option<u64>, LayerError> {
        let (map, size) = if block.kind() == b'S' {
            let size = block.number(483, 12).and_then(|n| u64::try_from(n).ok());
            let mut map = Map::default();
            let mut more = map.push_old(block, 386, 4).map_err(|w| self.invalid(w))? && block.bytes(482, 1) != [0];
            while more {
                // These blocks stand before the data and are not counted among them.
                let next = self.block()?.ok_or(LayerError::Truncated { offset: self.entry_offset })?;
                let next = Block(&next);
                more = map.push_old(&next, 0, 21).map_err(|w| self.invalid(w))? && next.bytes(504, 1) != [0];
            }
            (map, size.ok_or_else(|| self.invalid("damaged sparse map"))?)
        } else if records.major == Some(1) && records.minor == Some(0) {
            (self.map_in_data()?, records.size.ok_or_else(|| self.invalid("sparse file without a length"))?)
        } else if let (Some(map), Some(size)) = (records.map, records.size) {
            (map, size)
        } else if records.is_map0 {
            (records.map0, records.size.ok_or_else(|| self.invalid("sparse file without a length"))?)
        } else {
            return Ok(None);
        };
        map.check(size, self.left).map_err(|what| self.invalid(what))?;
        self.sparse = Some(Sparse { map, part: 0, at: 0, size });
        Ok(Some(size))
    }

    /// PAX format 1.0: the map is text in the first blocks of the data.
    fn map_in_data(&mut self) -> Result<Map, LayerError> {
        let mut map = Map::default();
        let (mut number, mut digits) = (0u64, 0);
        let (mut count, mut offset) = (None, None);
        loop {
            if self.left < BLOCK as u64 {
                return Err(self.invalid("damaged sparse map"));
            }
            let block = self.block()?.ok_or(LayerError::Truncated { offset: self.entry_offset })?;
            self.left -= BLOCK as u64;
            for byte in block {
                match byte {
                    b'0'..=b'9' if digits < 19 => (number, digits) = (number * 10 + u64::from(byte - b'0'), digits + 1),
                    b'\n' if digits > 0 => {
                        match (count, offset) {
                            (None, _) => count = Some(number),
                            (_, None) => offset = Some(number),
                            (_, Some(start)) => {
                                map.push(start, number).map_err(|what| self.invalid(what))?;
                                offset = None;
                            }
                        }
                        (number, digits) = (0, 0);
                        if count == Some(map.len() as u64) && offset.is_none() {
                            return Ok(map);
                        }
                    }
                    _ => return Err(self.invalid("damaged sparse map")),
                }
            }
        }
    }

    fn special(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        if size > MAX_SPECIAL {
            return Err(self.invalid("extended header or name over 1 MiB"));
        }
        let mut text = vec![0; size as usize];
        self.exact(&mut text)?;
        self.skip(size.wrapping_neg() % BLOCK as u64)?;
        Ok(text)
    }

    /// A block; `None` where the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|r| !r.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(LayerError::Truncated { offset: self.entry_offset }),
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(LayerError::Read(e)),
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    fn exact(&mut self, out: &mut [u8]) -> Result<(), LayerError> {
        self.inner.read_exact(out).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => LayerError::Truncated { offset: self.entry_offset },
            _ => LayerError::Read(e),
        })?;
        self.offset += out.len() as u64;
        Ok(())
    }

    fn skip(&mut self, count: u64) -> Result<(), LayerError> {
        if count == 0 {
            return Ok(());
        }
        let skipped = (self.skip)(&mut self.inner, count).map_err(LayerError::Read)?;
        self.offset += skipped;
        if skipped < count {
            return Err(LayerError::Truncated { offset: self.entry_offset });
        }
        Ok(())
    }

    fn invalid(&self, what: &'static str) -> LayerError {
        LayerError::Invalid { what, offset: self.entry_offset, entry: None }
    }

    /// Reads data of the entry as they are stored: of a sparse file without its holes.
    pub(crate) fn stored(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(out) = out.get_mut(..most).filter(|o| !o.is_empty()) else { return Ok(0) };
        let count = self.inner.read(out)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut short"));
        }
        self.left -= count as u64;
        self.offset += count as u64;
        Ok(count)
    }
}

impl<R: Read + Seek> TarReader<R> {
    /// A reader that jumps over data that nobody reads. Data that lack at the end are then not missed.
    pub(crate) fn seeking(inner: R) -> Self {
        let skip = |inner: &mut R, count: u64| {
            let by = i64::try_from(count).map_err(io::Error::other)?;
            inner.seek(SeekFrom::Current(by)).map(|_| count)
        };
        Self { skip, ..Self::new(inner) }
    }
}

impl<R: Read> Read for TarReader<R> {
    /// The data of the current entry, holes as zeros.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(sparse) = &mut self.sparse else { return self.stored(out) };
        let run = sparse.map.run(&mut sparse.part, sparse.at, sparse.size);
        let (Run::Data(length) | Run::Hole(length)) = run;
        let most = out.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let out = out.get_mut(..most).unwrap_or_default();
        let count = match run {
            Run::Hole(_) => {
                out.fill(0);
                out.len()
            }
            Run::Data(_) => self.stored(out)?,
        };
        if let Some(sparse) = &mut self.sparse {
            sparse.at += count as u64;
        }
        Ok(count)
    }
}

impl Extended {
    fn records(&mut self, text: &[u8]) -> Result<(), &'static str> {
        for (key, value) in pax::records(text)? {
            self.record(key, value)?;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "damaged PAX value";
        // An empty value takes back what an earlier header said (POSIX).
        let owned = || (!value.is_empty()).then(|| value.to_vec());
        let number = || match value {
            b"" => Ok(None),
            _ => pax::decimal(value).map(Some).ok_or(BAD),
        };
        match key {
            b"path" => self.path = owned(),
            b"linkpath" => self.link = owned(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(pax::time(value).ok_or(BAD)?),
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.minor" => self.sparse.minor = number()?,
            b"GNU.sparse.name" => self.sparse.name = owned(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = number()?,
            b"GNU.sparse.map" => self.sparse.map = Some(Map::from_list(value)?),
            b"GNU.sparse.offset" => (self.sparse.offset, self.sparse.is_map0) = (number()?, true),
            b"GNU.sparse.numbytes" => {
                let (Some(offset), Some(length)) = (self.sparse.offset.take(), number()?) else { return Err(BAD) };
                self.sparse.map0.push(offset, length)?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() {
                        return Err(BAD);
                    }
                    self.xattrs.retain(|(n, _)| n != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}
