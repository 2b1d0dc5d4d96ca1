//! The table of contents, which both formats have from CRFS (github.com/google/crfs): one JSON object for each entry of
//! the tar and for each further chunk of a file. Fields: stargz-snapshotter `docs/estargz.md`, containers/storage
//! `pkg/chunked/internal/minimal`.

use std::{collections::BTreeMap, io};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use memobuild_image::time;
use memobuild_tree::Sha256Digest;
use serde::Serialize;

use super::{
    Format,
    scan::{Cut, Item},
};
use crate::layer::tar::EntryKind;

/// Where a chunk is in the blob.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    /// Where its member or frame starts, in bytes.
    pub(super) offset: u64,
    /// Where that ends.
    pub(super) end: u64,
    /// Of the contents in it.
    pub(super) digest: Sha256Digest,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Toc<'a> {
    version: u32,
    entries: Vec<TocEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tar_split_digest: Option<String>,
}

/// As Go writes it: what is zero or empty is left out.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct TocEntry<'a> {
    name: &'a str,
    r#type: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    size: u64,
    #[serde(skip_serializing_if = "is_default")]
    modtime: String,
    #[serde(skip_serializing_if = "is_default")]
    link_name: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    mode: u32,
    #[serde(skip_serializing_if = "is_default")]
    uid: u32,
    #[serde(skip_serializing_if = "is_default")]
    gid: u32,
    #[serde(skip_serializing_if = "is_default")]
    dev_major: u32,
    #[serde(skip_serializing_if = "is_default")]
    dev_minor: u32,
    #[serde(skip_serializing_if = "is_default")]
    xattrs: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "is_default")]
    digest: String,
    #[serde(skip_serializing_if = "is_default")]
    offset: u64,
    #[serde(skip_serializing_if = "is_default")]
    end_offset: u64,
    #[serde(skip_serializing_if = "is_default")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "is_default")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "is_default")]
    chunk_digest: String,
    #[serde(skip_serializing_if = "is_default")]
    chunk_type: &'static str,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The table as JSON. `placed` are the chunks of all items, in order.
pub(super) fn toc(
    format: Format,
    items: &[Item],
    placed: &[Placed],
    tar_split: Option<Sha256Digest>,
) -> io::Result<Vec<u8>> {
    let lost = || io::Error::other("chunks were lost on the way");
    let mut entries = Vec::new();
    let mut left = placed;
    for item in items {
        let (own, rest) = left.split_at_checked(item.cuts.len()).ok_or_else(lost)?;
        left = rest;
        push(format, item, own, &mut entries);
    }
    if !left.is_empty() {
        return Err(lost());
    }
    let digest = tar_split.map(|digest| digest.to_string());
    Ok(serde_json::to_vec(&Toc { version: 1, entries, tar_split_digest: digest })?)
}

fn push<'a>(format: Format, item: &'a Item, placed: &[Placed], entries: &mut Vec<TocEntry<'a>>) {
    let mut entry = metadata(format, item);
    if item.cuts.is_empty() {
        entries.push(entry);
        return;
    }
    if let (Format::ZstdChunked, Some(last)) = (format, placed.last()) {
        entry.end_offset = last.end;
    }
    let name = entry.name;
    let mut at = 0;
    for (index, (cut, place)) in item.cuts.iter().zip(placed).enumerate() {
        entry.offset = place.offset;
        entry.chunk_offset = at;
        describe(format, item, index, cut, place, &mut entry);
        at += cut.size;
        let next = TocEntry { name, r#type: "chunk", ..TocEntry::default() };
        entries.push(std::mem::replace(&mut entry, next));
    }
}

/// What differs: eStargz gives each chunk a digest, and a length to each but the last; zstd:chunked both, if there is
/// more than one.
fn describe(format: Format, item: &Item, index: usize, cut: &Cut, place: &Placed, chunk: &mut TocEntry<'_>) {
    let last = index + 1 == item.cuts.len();
    let only = item.cuts.len() == 1;
    if index == 0 {
        chunk.digest = item.digest.unwrap_or(place.digest).to_string();
    }
    match format {
        Format::Estargz => {
            chunk.chunk_digest = place.digest.to_string();
            chunk.chunk_size = if last { 0 } else { cut.size };
        }
        Format::ZstdChunked if !only => {
            chunk.chunk_digest = place.digest.to_string();
            chunk.chunk_size = cut.size;
            chunk.chunk_type = if cut.zeros { "zeros" } else { "" };
        }
        Format::ZstdChunked => {}
    }
}

/// All but the chunks.
fn metadata(format: Format, item: &Item) -> TocEntry<'_> {
    let entry = &item.entry;
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    let (kind, link) = match &entry.kind {
        EntryKind::File => ("reg", ""),
        EntryKind::Link(target) => ("hardlink", text(target)),
        EntryKind::Symlink(target) => ("symlink", text(target)),
        EntryKind::Char => ("char", ""),
        EntryKind::Block => ("block", ""),
        EntryKind::Dir => ("dir", ""),
        EntryKind::Fifo => ("fifo", ""),
    };
    // stargz-snapshotter writes a digest of nothing for an empty file, containers/storage none.
    let empty = format == Format::Estargz && entry.kind == EntryKind::File && entry.size == 0;
    TocEntry {
        name: text(&entry.path),
        r#type: kind,
        size: if entry.kind == EntryKind::File { entry.size } else { 0 },
        modtime: time::rfc3339(entry.mtime.0, entry.mtime.1),
        link_name: link,
        mode: item.mode,
        uid: entry.uid,
        gid: entry.gid,
        dev_major: entry.rdev.0,
        dev_minor: entry.rdev.1,
        xattrs: entry.xattrs.iter().map(|(name, value)| (text(name), BASE64_STANDARD.encode(value))).collect(),
        digest: if empty { Sha256Digest::of(b"").to_string() } else { String::new() },
        ..TocEntry::default()
    }
}
