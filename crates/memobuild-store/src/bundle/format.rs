//! The layout of a bundle file, and reading it back without trusting it.
//!
//! ```text
//! magic (16)                         "memobuild bundle", then from here on little-endian:
//! packed contents                    one after the other, unframed
//! diff                               memobuild-tree's canonical encoding; its BLAKE3 is the bundle's name
//! entries     n * (32 + 8 + 4)       content digest, offset, length; in order of offsets
//! references  m * 32                 bundles that hold contents which the diff names
//! blobs       k * (32 + 8)           large files which the diff names: digest, size
//! footer (96)                        version, offset and length of the diff, n, m, k, BLAKE3 of entries to here, magic
//! ```
//!
//! The footer stands at the end, so a file that was cut short has none.

use std::{fs::File, io, os::unix::fs::FileExt};

use memobuild_tree::{BundleId, ContentDigest};

pub(crate) const MAGIC: &[u8; 16] = b"memobuild bundle";
const VERSION: u64 = 1;
const FOOTER: usize = 96;
const ENTRY: usize = 44;
const REF: usize = 32;
const BLOB: usize = 40;
/// Read from the end at first: enough for the whole of a small bundle's tables.
const TAIL: u64 = 16 * 1024;

/// Where a packed content lies in its bundle's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedEntry {
    pub(crate) digest: ContentDigest,
    pub(crate) at: u64,
    pub(crate) len: u32,
}

/// What stands at the end of a bundle. The entries stay as they are on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tables {
    entries: Vec<u8>,
    pub(crate) refs: Vec<BundleId>,
    pub(crate) blobs: Vec<(ContentDigest, u64)>,
}

impl Tables {
    /// Tables of these parts; entries in order of offsets.
    pub(crate) fn new(entries: &[PackedEntry], refs: Vec<BundleId>, blobs: Vec<(ContentDigest, u64)>) -> Self {
        let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
        for entry in entries {
            bytes.extend_from_slice(entry.digest.as_bytes());
            bytes.extend_from_slice(&entry.at.to_le_bytes());
            bytes.extend_from_slice(&entry.len.to_le_bytes());
        }
        Self { entries: bytes, refs, blobs }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() / ENTRY
    }

    pub(crate) fn get(&self, number: u32) -> Option<PackedEntry> {
        let start = (number as usize).checked_mul(ENTRY)?;
        self.entries.get(start..)?.get(..ENTRY).and_then(entry)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = PackedEntry> {
        self.entries.chunks_exact(ENTRY).filter_map(entry)
    }
}

fn entry(bytes: &[u8]) -> Option<PackedEntry> {
    let (digest, rest) = bytes.split_first_chunk::<32>()?;
    let (at, len) = rest.split_first_chunk::<8>()?;
    Some(PackedEntry {
        digest: ContentDigest::from_bytes(*digest),
        at: u64::from_le_bytes(*at),
        len: u32::from_le_bytes(*len.first_chunk::<4>()?),
    })
}

/// Where the parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    diff_at: u64,
    diff_len: u64,
    entries: u64,
    refs: u64,
    blobs: u64,
}

impl Footer {
    pub(crate) fn diff_at(&self) -> u64 {
        self.diff_at
    }

    pub(crate) fn diff_len(&self) -> usize {
        // Checked against the file's length when it was read.
        self.diff_len as usize
    }

    /// Bytes of the three tables; `None` if the numbers make no sense.
    fn tables_len(&self) -> Option<u64> {
        let entries = self.entries.checked_mul(ENTRY as u64)?;
        let refs = self.refs.checked_mul(REF as u64)?;
        entries.checked_add(refs)?.checked_add(self.blobs.checked_mul(BLOB as u64)?)
    }
}

/// The bytes that follow the packed contents: diff, tables, footer.
pub(crate) fn encode_tail(diff: &[u8], diff_at: u64, tables: &Tables) -> (Footer, Vec<u8>) {
    let footer = Footer {
        diff_at,
        diff_len: diff.len() as u64,
        entries: tables.len() as u64,
        refs: tables.refs.len() as u64,
        blobs: tables.blobs.len() as u64,
    };
    let mut out = Vec::with_capacity(diff.len() + tables.entries.len() + FOOTER + 4096);
    out.extend_from_slice(diff);
    out.extend_from_slice(&tables.entries);
    for id in &tables.refs {
        out.extend_from_slice(id.as_bytes());
    }
    for (digest, size) in &tables.blobs {
        out.extend_from_slice(digest.as_bytes());
        out.extend_from_slice(&size.to_le_bytes());
    }
    for number in [VERSION, footer.diff_at, footer.diff_len, footer.entries, footer.refs, footer.blobs] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let sum = blake3::hash(out.get(diff.len()..).unwrap_or_default());
    out.extend_from_slice(sum.as_bytes());
    out.extend_from_slice(MAGIC);
    (footer, out)
}

/// Reads footer and tables of a file of that length, or says what is wrong with it.
pub(crate) fn read(file: &File, len: u64) -> Result<(Footer, Tables), String> {
    let read_from = |at: u64, count: u64| -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; usize::try_from(count).map_err(|_| "too large")?];
        file.read_exact_at(&mut bytes, at).map_err(|e: io::Error| e.to_string())?;
        Ok(bytes)
    };
    let mut tail = read_from(len.saturating_sub(TAIL), len.min(TAIL))?;
    let footer_bytes = tail.last_chunk::<FOOTER>().ok_or("cut short")?;
    let footer = parse_footer(footer_bytes)?;
    let tables_len = footer.tables_len().ok_or("impossible table sizes")?;
    let tables_at = footer.diff_at.checked_add(footer.diff_len).ok_or("impossible offsets")?;
    if footer.diff_at < MAGIC.len() as u64
        || tables_at.checked_add(tables_len).and_then(|end| end.checked_add(FOOTER as u64)) != Some(len)
    {
        return Err("the parts do not fill the file".into());
    }
    let wanted = tables_len + FOOTER as u64;
    if wanted > tail.len() as u64 {
        tail = read_from(tables_at, wanted)?;
    } else {
        tail.drain(..tail.len() - wanted as usize);
    }
    let (summed, end) = tail.split_at_checked(tail.len() - 48).ok_or("cut short")?;
    if end.first_chunk::<32>() != Some(blake3::hash(summed).as_bytes()) {
        return Err("its tables do not have their checksum".into());
    }
    Ok((footer, parse_tables(&footer, summed).ok_or("impossible table sizes")?))
}

fn parse_footer(bytes: &[u8; FOOTER]) -> Result<Footer, String> {
    if bytes.last_chunk::<16>() != Some(MAGIC) {
        return Err("it does not end as a bundle does".into());
    }
    let mut numbers = bytes.chunks_exact(8).filter_map(|c| c.first_chunk::<8>()).map(|c| u64::from_le_bytes(*c));
    let mut next = || numbers.next().ok_or("cut short");
    let version = next()?;
    if version != VERSION {
        return Err(format!("unknown version {version}"));
    }
    Ok(Footer { diff_at: next()?, diff_len: next()?, entries: next()?, refs: next()?, blobs: next()? })
}

fn parse_tables(footer: &Footer, bytes: &[u8]) -> Option<Tables> {
    let (entries, rest) = bytes.split_at_checked(footer.entries as usize * ENTRY)?;
    let (refs, rest) = rest.split_at_checked(footer.refs as usize * REF)?;
    let blobs = rest.get(..footer.blobs as usize * BLOB)?;
    // Contents lie between the magic and the diff.
    let inside = |e: PackedEntry| {
        e.at >= MAGIC.len() as u64 && e.at.checked_add(u64::from(e.len)).is_some_and(|end| end <= footer.diff_at)
    };
    if !entries.chunks_exact(ENTRY).filter_map(entry).all(inside) {
        return None;
    }
    let blob = |b: &[u8]| {
        let (digest, size) = b.split_first_chunk::<32>()?;
        Some((ContentDigest::from_bytes(*digest), u64::from_le_bytes(*size.first_chunk::<8>()?)))
    };
    Some(Tables {
        entries: entries.to_vec(),
        refs: refs.chunks_exact(REF).filter_map(|c| c.first_chunk::<32>()).map(|c| BundleId::from_bytes(*c)).collect(),
        blobs: blobs.chunks_exact(BLOB).filter_map(blob).collect(),
    })
}
