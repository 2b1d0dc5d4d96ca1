//! Takes a tar stream apart as it passes: into pieces that can be decompressed by themselves, and what a table of
//! contents says of them.
//!
//! In: the tar, in blocks. Out: pieces that joined are that tar (with eStargz's landmark behind it), and [`Item`]s.
//! Never: a file as a whole in memory, or an error because of what the tar is: one that no table can describe is passed
//! on all the same, and why is said.

use std::{
    collections::HashSet,
    io::{self, Read},
    sync::{Arc, mpsc::SyncSender},
};

use memobuild_tree::{Sha256Digest, path};
use sha2::{Digest as _, Sha256};

use super::{
    Format, LANDMARK, PREFETCH_LANDMARK, TOC_NAME,
    rolling::{CHUNK, Crc64, Cutter},
    tar_split::TarSplit,
};
use crate::layer::{
    pipe::ChunkReader,
    tar::{BLOCK, Entry, EntryKind, Header, HeaderKind, TarReader, TarWriter, plain},
};

/// Bytes read at once.
const READ: usize = 128 << 10;
/// What is not contents is cut into pieces of so many bytes, or the headers of one entry more.
const RAW: usize = 1 << 20;
/// More than this in the headers of one entry is no tar that anybody made on purpose.
const HEADERS: usize = 16 << 20;
/// Seconds that RFC 3339 can say, without the begin of the year 1, which Go takes for "no time".
const SAYABLE: std::ops::Range<i64> = -62_135_596_799..253_402_300_800;

/// A piece of the stream, to become a member or frame of its own.
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// How many of them, from the first, are contents of a file; none: headers and padding alone.
    pub(super) contents: usize,
    /// Whether the format added it: it is no part of the layer's own tar.
    pub(super) added: bool,
}

/// A chunk of a file's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Bytes.
    pub(super) size: u64,
    /// Whether it was found to be a hole: zeros alone.
    pub(super) zeros: bool,
}

/// An entry of the archive.
pub(super) struct Item {
    pub(super) entry: Entry,
    /// The mode as its header writes it.
    pub(super) mode: u32,
    /// Its chunks in order; none for what is empty or no file.
    pub(super) cuts: Vec<Cut>,
    /// Digest of the whole contents; `None` where it is that of the only chunk, or there are none.
    pub(super) digest: Option<Sha256Digest>,
}

/// What [`scan`] found.
pub(super) struct Scan {
    /// All entries in order, or why a table of contents can't tell them.
    pub(super) items: Result<Vec<Item>, String>,
    /// For zstd:chunked.
    pub(super) tar_split: Option<TarSplit>,
}

/// A consumer of pieces has gone: it met an error of its own.
struct Gone;

/// Reads the tar to its end and hands its pieces to all of `to`.
pub(super) fn scan(from: ChunkReader, format: Format, level: u32, to: Vec<SyncSender<Arc<Piece>>>) -> io::Result<Scan> {
    let (cutter, tar_split) = match format {
        Format::Estargz => (Cutter::Even, None),
        Format::ZstdChunked => (Cutter::rolling(), Some(TarSplit::new(level)?)),
    };
    let open = Piece { bytes: Vec::new(), contents: 0, added: false };
    let found = Scan { items: Ok(Vec::new()), tar_split };
    let mut scanner = Scanner { format, to, open, cutter, found, names: HashSet::new() };
    match scanner.run(from) {
        Ok(()) => Ok(scanner.found),
        Err(e) => Err(e.unwrap_or_else(|Gone| io::Error::other("the compressor has stopped"))),
    }
}

struct Scanner {
    format: Format,
    to: Vec<SyncSender<Arc<Piece>>>,
    /// The piece that is being filled.
    open: Piece,
    cutter: Cutter,
    found: Scan,
    /// Names so far, clean.
    names: HashSet<Vec<u8>>,
}

/// Contents that have passed.
#[derive(Default)]
struct Passed {
    cuts: Vec<Cut>,
    whole: Option<Sha256>,
    crc: Crc64,
}

impl Scanner {
    fn run(&mut self, from: ChunkReader) -> Result<(), Result<io::Error, Gone>> {
        let mut tar = TarReader::new(Recorder { from, raw: Vec::new(), on: true });
        let mut padding = 0;
        loop {
            let next = tar.next();
            // Padding of the contents before, and all headers of this entry.
            let raw = std::mem::take(&mut tar.inner_mut().raw);
            self.raw(&raw).map_err(Err)?;
            let ended = match next {
                Ok(Some(entry)) => {
                    let said = self.say(&entry, raw.get(padding..).unwrap_or_default());
                    let stored = tar.stored_left();
                    padding = (stored.wrapping_neg() % BLOCK as u64) as usize;
                    let passed = self.contents(&mut tar).map_err(Err)?;
                    self.take(entry, said, &raw, stored, passed).map_err(Ok)?;
                    continue;
                }
                Ok(None) => Ok(()),
                Err(e) => Err(e.to_string()),
            };
            if let Err(why) = ended {
                self.refuse(why);
            } else if let Some(split) = &mut self.found.tar_split {
                split.segment(&raw).map_err(Ok)?;
            }
            break;
        }
        let mut rest = tar.into_inner().from;
        self.rest(&mut rest)?;
        if self.format == Format::Estargz && self.found.items.is_ok() {
            self.landmark().map_err(Err)?;
        }
        self.send().map_err(Err)
    }

    /// Whether a table of contents can say that entry, and if so its mode.
    fn say(&self, entry: &Entry, header: &[u8]) -> Result<u32, &'static str> {
        if self.found.items.is_err() {
            return Err("");
        }
        let mode = plain(header)?.mode;
        let link = match &entry.kind {
            EntryKind::Link(target) | EntryKind::Symlink(target) => target.as_slice(),
            _ => b"",
        };
        let names = entry.xattrs.iter().map(|(name, _)| name.as_slice());
        if names.chain([link, &entry.path]).any(|text| std::str::from_utf8(text).is_err()) {
            return Err("a name that is not UTF-8");
        }
        if !SAYABLE.contains(&entry.mtime.0) {
            return Err("a time before the year 1 or after 9999");
        }
        let name = clean(&entry.path);
        if self.format == Format::Estargz && [TOC_NAME, LANDMARK, PREFETCH_LANDMARK].contains(&name.as_slice()) {
            return Err("a name that eStargz needs itself");
        }
        if self.names.contains(&name) {
            return Err("a second entry of that name");
        }
        match &entry.kind {
            EntryKind::Link(target) if !self.names.contains(&clean(target)) => Err("a hard link to another layer"),
            _ => Ok(mode),
        }
    }

    /// Writes an entry down whose contents have passed.
    fn take(
        &mut self,
        entry: Entry,
        said: Result<u32, &'static str>,
        raw: &[u8],
        stored: u64,
        passed: Option<Passed>,
    ) -> io::Result<()> {
        let Some(Passed { cuts, whole, mut crc }) = passed else {
            self.refuse("the archive is cut short".into());
            return Ok(());
        };
        let mode = match said {
            Ok(mode) => mode,
            Err(why) => {
                self.refuse(format!("{}: {why}", path::display(&entry.path)));
                return Ok(());
            }
        };
        if let Some(split) = &mut self.found.tar_split {
            split.segment(raw)?;
            split.file(&entry.path, stored, crc.take())?;
        }
        if let Ok(items) = &mut self.found.items {
            self.names.insert(clean(&entry.path));
            let digest = whole.map(|hasher| Sha256Digest::from_bytes(hasher.finalize().into()));
            items.push(Item { entry, mode, cuts, digest });
        }
        Ok(())
    }

    /// There will be no table of contents; the first reason counts.
    fn refuse(&mut self, why: String) {
        if self.found.items.is_ok() {
            self.found = Scan { items: Err(why), tar_split: None };
            self.names = HashSet::new();
        }
    }

    /// Passes an entry's contents on, cut into pieces. `None` where they end too early.
    fn contents(&mut self, tar: &mut TarReader<Recorder>) -> Result<Option<Passed>, Gone> {
        let mut passed = Passed::default();
        if tar.stored_left() == 0 {
            return Ok(Some(passed));
        }
        self.send()?;
        self.open.bytes = Vec::with_capacity(self.cutter.capacity(tar.stored_left()));
        self.cutter.restart();
        tar.inner_mut().on = false;
        let mut whole = true;
        loop {
            whole &= fill(tar, &mut self.open.bytes);
            let end = !whole || tar.stored_left() == 0;
            while let Some((length, zeros)) = self.cutter.cut(&self.open.bytes, end) {
                let rest = self.open.bytes.split_off(length);
                let last = end && rest.is_empty();
                self.open.contents = length;
                // The digest of one chunk is taken with the chunk.
                if !(last && passed.cuts.is_empty()) {
                    passed.whole.get_or_insert_with(Sha256::new).update(&self.open.bytes);
                }
                if self.found.tar_split.is_some() {
                    passed.crc.update(&self.open.bytes);
                }
                passed.cuts.push(Cut { size: length as u64, zeros });
                if last {
                    break;
                }
                self.send()?;
                self.open.bytes = rest;
            }
            if end {
                tar.inner_mut().on = true;
                return Ok(whole.then_some(passed));
            }
        }
    }

    /// Passes on what stands behind the end mark. eStargz leaves out what is no padding: it is the table of contents of
    /// an eStargz layer that is made anew.
    fn rest(&mut self, from: &mut ChunkReader) -> Result<(), Result<io::Error, Gone>> {
        loop {
            let mut raw = Vec::new();
            from.take(RAW as u64).read_to_end(&mut raw).map_err(Ok)?;
            let left_out = self.format == Format::Estargz && self.found.items.is_ok() && raw.iter().any(|b| *b != 0);
            if raw.is_empty() {
                return Ok(());
            }
            if left_out {
                io::copy(from, &mut io::sink()).map_err(Ok)?;
                return Ok(());
            }
            if let Some(split) = &mut self.found.tar_split {
                split.segment(&raw).map_err(Ok)?;
            }
            self.raw(&raw).map_err(Err)?;
        }
    }

    /// The file that says that nothing is to be fetched ahead. Behind the end mark, where programs that know nothing of
    /// eStargz don't see it, as BuildKit hides the table of contents.
    fn landmark(&mut self) -> Result<(), Gone> {
        self.send()?;
        self.open.added = true;
        let mut header = TarWriter::new(Vec::new());
        // Writing to memory does not fail, and the name needs no extended header.
        let size = LANDMARK_CONTENTS.len() as u64;
        let _ = header.header(&Header { size, ..Header::new(LANDMARK, HeaderKind::File, 0o644) });
        self.raw(header.get_ref())?;
        self.send()?;
        self.open.bytes = LANDMARK_CONTENTS.to_vec();
        self.open.contents = LANDMARK_CONTENTS.len();
        self.raw(&[0; BLOCK - LANDMARK_CONTENTS.len()])?;
        let entry = Entry {
            path: LANDMARK.to_vec(),
            kind: EntryKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size,
            rdev: (0, 0),
            xattrs: Vec::new(),
            offset: 0,
        };
        if let Ok(items) = &mut self.found.items {
            items.push(Item { entry, mode: 0o644, cuts: vec![Cut { size, zeros: false }], digest: None });
        }
        Ok(())
    }

    /// Appends what is no contents. In eStargz it stands in the member of the contents before, in zstd:chunked in a
    /// frame of its own.
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        if self.format == Format::ZstdChunked && self.open.contents > 0 && !bytes.is_empty() {
            self.send()?;
        }
        self.open.bytes.extend_from_slice(bytes);
        if self.open.bytes.len() - self.open.contents >= RAW { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Gone> {
        if self.open.bytes.is_empty() {
            return Ok(());
        }
        let fresh = Piece { bytes: Vec::new(), contents: 0, added: self.open.added };
        let piece = Arc::new(std::mem::replace(&mut self.open, fresh));
        self.to.iter().try_for_each(|to| to.send(piece.clone()).map_err(|_| Gone))
    }
}

const LANDMARK_CONTENTS: &[u8] = &[0xf];

/// Reads on in the contents of an entry; false where they end too early.
fn fill(tar: &mut TarReader<Recorder>, bytes: &mut Vec<u8>) -> bool {
    let mut at = bytes.len();
    // Never over the end of an even chunk, whose buffer has room for no more.
    let room = CHUNK - at % CHUNK;
    bytes.resize(at + room.min(READ).min(usize::try_from(tar.stored_left()).unwrap_or(READ)), 0);
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match tar.stored(rest) {
            Ok(count) if count > 0 => at += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => {
                bytes.truncate(at);
                return false;
            }
        }
    }
    true
}

/// A name as a path from the root, so that different spellings of it are equal.
fn clean(name: &[u8]) -> Vec<u8> {
    path::components(name).join(&b'/')
}

/// Keeps what is read, so that headers can be passed on byte for byte.
struct Recorder {
    from: ChunkReader,
    raw: Vec<u8>,
    on: bool,
}

impl Read for Recorder {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.raw.len() > HEADERS {
            return Err(io::Error::other("extended headers without end"));
        }
        let count = self.from.read(out)?;
        if self.on {
            self.raw.extend_from_slice(out.get(..count).unwrap_or_default());
        }
        Ok(count)
    }
}
