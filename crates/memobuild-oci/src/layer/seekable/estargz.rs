//! The end of an eStargz blob (stargz-snapshotter `docs/estargz.md`): the table of contents as the last entry of the tar
//! in a gzip member of its own, and a footer of 51 bytes that says where it starts.
//!
//! As BuildKit writes them, both stand behind the tar's end mark: programs that know nothing of eStargz unpack the same
//! files as from the plain layer. The diff ID is that of the whole stream, and so another one.

use std::io::{self, Write as _};

use memobuild_tree::Sha256Digest;
use sha2::Digest as _;

use super::{Format, Hashed, Layer, Made, TOC_NAME, scan::Item};
use crate::layer::{
    gzip::Compressors,
    tar::{Header, HeaderKind, TarWriter},
};

/// Digest of the table, without which nobody reads it (`docs/estargz.md`, "Content Verification").
pub(super) const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Bytes that the whole layer unpacks to, for containers/storage (`estargz/types.go`).
const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";

/// Ends the blob.
pub(super) fn finish(layer: &Layer<'_>, items: &[Item], mut hashed: Hashed, made: &mut Made) -> io::Result<()> {
    let toc = layer.toc(Format::Estargz, items, None)?;
    let digest = Sha256Digest::of(&toc);
    let mut tar = TarWriter::new(Vec::new());
    tar.file(&Header::new(TOC_NAME, HeaderKind::File, 0o644), &toc)?;
    let tar = tar.finish()?;
    hashed.all.update(&tar);
    made.blob.write_all(&Compressors::of_level(layer.level)?.member(&tar)?)?;
    made.blob.write_all(&footer(layer.at))?;
    made.diff_id = Sha256Digest::from_bytes(hashed.all.finalize().into());
    let size = hashed.size + tar.len() as u64;
    made.annotations.insert(TOC_DIGEST.into(), digest.to_string());
    made.annotations.insert(UNCOMPRESSED_SIZE.into(), size.to_string());
    Ok(())
}

/// An empty gzip member (RFC 1952) with an extra field that holds the offset of the table's member.
fn footer(offset: u64) -> Vec<u8> {
    let field = format!("{offset:016x}STARGZ");
    let mut out = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
    out.extend_from_slice(&26_u16.to_le_bytes());
    out.extend_from_slice(b"SG");
    out.extend_from_slice(&22_u16.to_le_bytes());
    out.extend_from_slice(field.as_bytes());
    // A last stored block of nothing; checksum and length of nothing.
    out.extend_from_slice(&[1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_footer_is_an_empty_member_of_51_bytes() {
        let footer = footer(0xabc);
        assert_eq!(footer.len(), 51);
        assert_eq!(&footer[16..38], b"0000000000000abcSTARGZ");
        let mut back = Vec::new();
        let mut member = flate2::read::GzDecoder::new(footer.as_slice());
        io::Read::read_to_end(&mut member, &mut back).unwrap();
        assert!(back.is_empty());
        assert_eq!(member.header().unwrap().extra(), Some(&footer[12..38]));
    }
}
