//! Which headers say nothing beyond what an [`Entry`](super::Entry) holds. Formats that repeat an archive's metadata
//! outside of it, and are checked against it, can take only such.

use super::{
    header::{BLOCK, Block, Format},
    pax,
};

/// What a plain header says that an entry does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plain {
    /// The mode as it is written: some tools put the file's type into it.
    pub(crate) mode: u32,
}

/// Looks at all blocks of one entry's header, extended ones included. The error says what is beyond an entry.
pub(crate) fn plain(mut header: &[u8]) -> Result<Plain, &'static str> {
    const BAD: &str = "a header that can't be taken apart";
    loop {
        let (first, rest) = header.split_first_chunk::<BLOCK>().ok_or(BAD)?;
        let block = Block(first);
        let size = block.number(124, 12).and_then(|n| usize::try_from(n).ok()).ok_or(BAD)?;
        match block.kind() {
            b'x' | b'X' => {
                for (key, _) in pax::records(rest.get(..size).ok_or(BAD)?)? {
                    match key {
                        b"atime" | b"ctime" => return Err("times of access or change"),
                        _ if key.starts_with(b"GNU.sparse.") => return Err("a sparse file"),
                        _ => {}
                    }
                }
            }
            b'L' | b'K' => {}
            b'S' => return Err("a sparse file"),
            b'g' => return Err("a header for all entries"),
            kind @ (0 | b'0'..=b'6') => {
                if !rest.is_empty() {
                    return Err(BAD);
                }
                let times = match block.format() {
                    Format::Star => true,
                    Format::Gnu => block.bytes(345, 24).iter().any(|b| *b != 0),
                    Format::V7 | Format::Ustar => false,
                };
                if times {
                    return Err("times of access or change");
                }
                if kind != 0 && kind != b'0' && size != 0 {
                    return Err("a length of something that has no contents");
                }
                let mode = block.number(100, 8).and_then(|mode| u32::try_from(mode).ok()).ok_or(BAD)?;
                return Ok(Plain { mode });
            }
            _ => return Err("an entry of an unusual type"),
        }
        header = rest.get(size.next_multiple_of(BLOCK)..).ok_or(BAD)?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Header, HeaderKind, TarWriter};
    use super::*;

    fn header(header: &Header<'_>) -> Vec<u8> {
        let mut out = TarWriter::new(Vec::new());
        out.header(header).unwrap();
        let mut bytes = out.finish().unwrap();
        bytes.truncate(bytes.len() - 2 * BLOCK);
        bytes
    }

    #[test]
    fn our_own_headers_are_plain_and_those_that_say_more_are_not() {
        let long = [b'n'; 200];
        let file =
            Header { xattrs: vec![(b"security.capability", b"x")], ..Header::new(&long, HeaderKind::File, 0o4755) };
        assert_eq!(plain(&header(&file)), Ok(Plain { mode: 0o4755 }));
        let link = header(&Header { link: b"a", ..Header::new(b"b", HeaderKind::Link, 0o644) });
        assert_eq!(plain(&link), Ok(Plain { mode: 0o644 }));
        let mut sized = link.clone();
        sized[134] = b'7';
        assert_eq!(plain(&sized), Err("a length of something that has no contents"));
        let mut star = link.clone();
        star[508..512].copy_from_slice(b"tar\0");
        assert_eq!(plain(&star), Err("times of access or change"));
        let mut text = Vec::new();
        pax::push_record(&mut text, b"atime", b"1.5");
        let mut extended = header(&Header { size: text.len() as u64, ..Header::new(b"x", HeaderKind::File, 0) });
        extended[156] = b'x';
        text.resize(BLOCK, 0);
        assert_eq!(plain(&[extended, text, link.clone()].concat()), Err("times of access or change"));
        assert!(plain(&link[..500]).is_err() && plain(&[link.clone(), link].concat()).is_err());
    }
}
