//! One package header: an index of tags and their data (rpm's docs, "RPM v4 package format", "Header structure"), in the
//! database without the magic number before it.

/// The tags that are read (rpm's `rpmtag.h`).
pub(super) mod tag {
    pub(crate) const NAME: u32 = 1000;
    pub(crate) const VERSION: u32 = 1001;
    pub(crate) const RELEASE: u32 = 1002;
    pub(crate) const EPOCH: u32 = 1003;
    pub(crate) const SUMMARY: u32 = 1004;
    pub(crate) const VENDOR: u32 = 1011;
    pub(crate) const LICENSE: u32 = 1014;
    pub(crate) const PACKAGER: u32 = 1015;
    pub(crate) const URL: u32 = 1020;
    pub(crate) const ARCH: u32 = 1022;
    pub(crate) const SOURCERPM: u32 = 1044;
}

/// Types of data.
const INT32: u32 = 4;
const STRING: u32 = 6;
const I18NSTRING: u32 = 9;

/// A header that was taken apart.
pub(super) struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

/// Four bytes of a slice, the highest first.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

impl<'a> Header<'a> {
    /// `None` if it is shorter than it says.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (count, len) = (number(bytes, 0)? as usize, number(bytes, 4)? as usize);
        let (index, rest) = bytes.get(8..)?.split_at_checked(count.checked_mul(16)?)?;
        Some(Self { index, data: rest.get(..len)? })
    }

    /// Type and data, open at its end. The last entry of a tag counts: it was added later.
    fn find(&self, tag: u32) -> Option<(u32, &'a [u8])> {
        let mut entries = self.index.chunks_exact(16).rev();
        let entry = entries.find(|e| number(e, 0) == Some(tag))?;
        Some((number(entry, 4)?, self.data.get(number(entry, 8)? as usize..)?))
    }

    /// A text; of one in several languages the first, which is in none of them.
    pub(super) fn text(&self, tag: u32) -> Option<String> {
        let (kind, data) = self.find(tag)?;
        if !matches!(kind, STRING | I18NSTRING) {
            return None;
        }
        let text = data.split(|b| *b == 0).next()?;
        Some(String::from_utf8_lossy(text).trim().to_owned())
    }

    /// The first number of an array.
    pub(super) fn number(&self, tag: u32) -> Option<u32> {
        let (kind, data) = self.find(tag)?;
        (kind == INT32).then(|| number(data, 0)).flatten()
    }
}
