//! One 512-byte header block, taken apart.

/// Bytes in a block.
pub(crate) const BLOCK: usize = 512;

/// A header block whose checksum has been verified.
pub(super) struct Block<'a>(pub(super) &'a [u8; BLOCK]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// No magic: names only.
    V7,
    /// POSIX: a prefix of 155 bytes.
    Ustar,
    /// Schilling's: a prefix of 131 bytes, then times.
    Star,
    /// GNU: no prefix, but sparse maps and base-256 numbers.
    Gnu,
}

impl<'a> Block<'a> {
    pub(super) fn bytes(&self, at: usize, length: usize) -> &'a [u8] {
        self.0.get(at..at + length).unwrap_or_default()
    }

    /// A field that ends at its first NUL.
    pub(super) fn text(&self, at: usize, length: usize) -> &'a [u8] {
        until_nul(self.bytes(at, length))
    }

    pub(super) fn number(&self, at: usize, length: usize) -> Option<i64> {
        number(self.bytes(at, length))
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn format(&self) -> Format {
        match (self.bytes(257, 6), self.bytes(263, 2)) {
            (b"ustar\0", _) if self.bytes(508, 4) == b"tar\0" => Format::Star,
            (b"ustar\0", _) => Format::Ustar,
            (b"ustar ", b" \0") => Format::Gnu,
            _ => Format::V7,
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }

    /// The sum of all bytes, those of the checksum field taken as blanks; old tools summed signed bytes.
    pub(super) fn checksum_fits(&self) -> bool {
        let Some(expected) = octal(self.bytes(148, 8)) else { return false };
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (i, byte) in self.0.iter().enumerate() {
            let byte = if (148..156).contains(&i) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        expected == unsigned || expected == signed
    }

    /// The whole name, prefix included.
    pub(super) fn name(&self) -> Vec<u8> {
        let prefix = match self.format() {
            Format::Ustar => self.text(345, 155),
            Format::Star => self.text(345, 131),
            _ => b"",
        };
        let name = self.text(0, 100);
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

/// A numeric field: octal, or base-256 where the first bit is set.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.split_first() {
        Some((first, rest)) if first & 0x80 != 0 => base256(*first, rest),
        _ => octal(field),
    }
}

fn base256(first: u8, rest: &[u8]) -> Option<i64> {
    // Two's complement; the second bit is the sign.
    let negative = first & 0x40 != 0;
    let flip = if negative { 0xff } else { 0 };
    let mut value = u64::from((first ^ flip) & 0x7f);
    for byte in rest {
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte ^ flip);
    }
    let value = i64::try_from(value).ok()?;
    Some(if negative { !value } else { value })
}

fn octal(field: &[u8]) -> Option<i64> {
    let trim = |b: &u8| matches!(*b, b' ' | 0);
    let start = field.iter().position(|b| !trim(b)).unwrap_or(field.len());
    let text = until_nul(field.get(start..)?);
    let end = text.iter().rposition(|b| !trim(b)).map_or(0, |i| i + 1);
    text.get(..end)?.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_kinds() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(number(&[0xbf; 12]), None);
    }
}
