//! The end of a zstd:chunked blob (containers/storage `pkg/chunked/internal/minimal`): the table of contents, tar-split
//! and a footer, each in a skippable frame (RFC 8878, 3.1.2), so that the blob unpacks to the plain tar.

use std::io::{self, Write as _};

use memobuild_tree::Sha256Digest;

use super::{Format, Layer, Made, scan::Item, tar_split::TarSplit};

/// Digest of the table as it is compressed.
pub(super) const MANIFEST_CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";
/// Offset, length, length when unpacked, and type of the table.
const MANIFEST_POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
/// Offset, length and length when unpacked of tar-split. Its digest stands in the table.
const TARSPLIT_POSITION: &str = "io.github.containers.zstd-chunked.tarsplit-position";
/// Digest of tar-split as it is compressed: asked for by releases of containers/storage before the table named it.
const TARSPLIT_CHECKSUM: &str = "io.github.containers.zstd-chunked.tarsplit-checksum";
/// The only type of table that there is.
const CRFS: u64 = 1;
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// Bytes before a skippable frame's content.
const FRAME_HEADER: u64 = 8;
const MAGIC: &[u8; 8] = b"GNUlInUx";

/// Ends the blob.
pub(super) fn finish(layer: &Layer<'_>, items: &[Item], split: TarSplit, made: &mut Made) -> io::Result<()> {
    let (split, split_length) = split.finish()?;
    let split_digest = Sha256Digest::of(&split);
    let toc = layer.toc(Format::ZstdChunked, items, Some(split_digest))?;
    let packed = zstd::bulk::compress(&toc, layer.level as i32)?;
    let toc_at = layer.at + FRAME_HEADER;
    let split_at = toc_at + packed.len() as u64 + FRAME_HEADER;
    let numbers = [
        toc_at,
        packed.len() as u64,
        toc.len() as u64,
        CRFS,
        split_at,
        split.len() as u64,
        split_length,
        u64::from_le_bytes(*MAGIC),
    ];
    let footer: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    for content in [&packed, &split, &footer] {
        let length = u32::try_from(content.len()).map_err(|_| io::Error::other("a table of contents over 4 GiB"))?;
        made.blob.write_all(&SKIPPABLE)?;
        made.blob.write_all(&length.to_le_bytes())?;
        made.blob.write_all(content)?;
    }
    let mut annotate = |key: &str, value: String| made.annotations.insert(key.into(), value);
    annotate(MANIFEST_CHECKSUM, Sha256Digest::of(&packed).to_string());
    annotate(MANIFEST_POSITION, format!("{toc_at}:{}:{}:{CRFS}", packed.len(), toc.len()));
    annotate(TARSPLIT_POSITION, format!("{split_at}:{}:{split_length}", split.len()));
    annotate(TARSPLIT_CHECKSUM, split_digest.to_string());
    Ok(())
}
