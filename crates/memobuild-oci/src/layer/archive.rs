//! `ADD` of a local archive: unpacked as moby's `archive.Unpack` does it in a chroot at the destination.
//!
//! Owners, modes and times are those in the archive; `.wh.` names are plain names; links on the way are followed within
//! the destination; what stands there already is merged with or replaced, as `tar x` would.

use std::io::{self, Read};

use memobuild_store::BundleWriter;
use memobuild_tree::{Dir, DirChange};

use super::{LayerError, build::Rules, decompress::Sniffed, import::read_archive, tar::TarReader};

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtractOptions<'a> {
    /// Absolute path of the destination directory in the image, links followed.
    pub dest: &'a [u8],
    /// What stands there now; `None`: not known, or nothing.
    pub below: Option<&'a Dir>,
    /// `--chown`: uid and gid instead of those in the archive.
    pub owner: Option<(u32, u32)>,
}

/// Whether a file is an archive, told by content as BuildKit tells it: gzip, bzip2, xz, zstd or nothing, and a tar
/// header in it. Reads no more than is needed; a file that can't be read is none.
pub fn is_archive(reader: &mut dyn Read) -> bool {
    let first = |stream: &mut dyn Read| Ok(matches!(TarReader::new(stream).next(), Ok(Some(_))));
    Sniffed::new(reader).and_then(|mut source: Sniffed<&mut dyn Read>| source.unpack(first)).unwrap_or(false)
}

/// The changes that unpacking makes to the directory at the destination (which has no metadata of its own in them);
/// the contents are added to `writer`.
pub fn extract(
    reader: impl Read + Send,
    writer: &BundleWriter,
    options: &ExtractOptions<'_>,
) -> Result<DirChange, LayerError> {
    let ExtractOptions { dest, below, owner } = *options;
    let rules = Rules { whiteouts: false, below, owner, dest };
    let done = read_archive(reader, None, None, rules, writer)?;
    if done.read == 0 {
        return Err(LayerError::Read(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is empty")));
    }
    Ok(done.diff.root)
}
