//! As much of the ELF format as shows where a program's sections and segments are (ELF-64 and System V gABI, chapters 4
//! and 5). Only headers are read, and then what is asked for.

use std::io;

use crate::Files;

/// Tables longer than this, in bytes, are damaged or made to cost memory.
const TABLE_LIMIT: u64 = 16 << 20;

/// A section.
#[derive(Debug)]
struct Section {
    name: u32,
    kind: u32,
    offset: u64,
    size: u64,
}

/// A loaded segment.
#[derive(Debug)]
struct Segment {
    writable: bool,
    offset: u64,
    address: u64,
    size: u64,
}

/// A program whose headers were read.
pub(super) struct Elf<'a> {
    files: &'a dyn Files,
    path: &'a [u8],
    size: u64,
    /// Whether numbers are written with the highest byte first.
    pub(super) big_endian: bool,
    wide: bool,
    sections: Vec<Section>,
    segments: Vec<Segment>,
    names: Vec<u8>,
}

/// Reads numbers out of a header.
#[derive(Clone, Copy)]
struct Numbers<'b> {
    bytes: &'b [u8],
    big_endian: bool,
    wide: bool,
}

impl Numbers<'_> {
    fn number(self, at: usize, len: usize) -> Option<u64> {
        number(self.bytes.get(at..at.checked_add(len)?)?, self.big_endian)
    }

    /// A number at one place in 64-bit files and another in 32-bit ones, of 8 or 4 bytes.
    fn word(self, wide: usize, narrow: usize) -> Option<u64> {
        if self.wide { self.number(wide, 8) } else { self.number(narrow, 4) }
    }
}

/// Up to eight bytes as a number.
pub(super) fn number(bytes: &[u8], big_endian: bool) -> Option<u64> {
    let fold = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    match bytes.len() {
        0..=8 if big_endian => Some(bytes.iter().fold(0, fold)),
        0..=8 => Some(bytes.iter().rev().fold(0, fold)),
        _ => None,
    }
}

impl<'a> Elf<'a> {
    /// Reads the headers; `None` if it is no ELF file, or a damaged one.
    pub(super) fn open(files: &'a dyn Files, path: &'a [u8], size: u64) -> io::Result<Option<Self>> {
        if size < 52 {
            return Ok(None);
        }
        let head = files.read_at(path, 0, 64)?;
        let (wide, big_endian) = match head.get(..6) {
            Some([0x7f, b'E', b'L', b'F', class @ 1..=2, data @ 1..=2]) => (*class == 2, *data == 2),
            _ => return Ok(None),
        };
        let elf =
            Self { files, path, size, big_endian, wide, sections: Vec::new(), segments: Vec::new(), names: Vec::new() };
        elf.tables(&head)
    }

    fn numbers<'b>(&self, bytes: &'b [u8]) -> Numbers<'b> {
        Numbers { bytes, big_endian: self.big_endian, wide: self.wide }
    }

    fn tables(mut self, head: &[u8]) -> io::Result<Option<Self>> {
        let head = self.numbers(head);
        let at = |wide, narrow| head.number(if self.wide { wide } else { narrow }, 2);
        let (Some(phoff), Some(shoff)) = (head.word(32, 28), head.word(40, 32)) else {
            return Ok(None);
        };
        let (Some(phsize), Some(phnum)) = (at(54, 42), at(56, 44)) else {
            return Ok(None);
        };
        let (Some(shsize), Some(shnum), Some(shnames)) = (at(58, 46), at(60, 48), at(62, 50)) else {
            return Ok(None);
        };
        for row in self.rows(phoff, phsize, phnum)? {
            let row = self.numbers(&row);
            let flags = row.number(if self.wide { 4 } else { 24 }, 4);
            let fields = (row.number(0, 4), flags, row.word(8, 4), row.word(16, 8), row.word(32, 16));
            // 1 is PT_LOAD, flag 2 is PF_W.
            if let (Some(1), Some(flags), Some(offset), Some(address), Some(size)) = fields {
                self.segments.push(Segment { writable: flags & 2 != 0, offset, address, size });
            }
        }
        for row in self.rows(shoff, shsize, shnum)? {
            let row = self.numbers(&row);
            let fields = (row.number(0, 4), row.number(4, 4), row.word(24, 16), row.word(32, 20));
            if let (Some(name), Some(kind), Some(offset), Some(size)) = fields {
                self.sections.push(Section { name: name as u32, kind: kind as u32, offset, size });
            }
        }
        if let Some(names) = self.sections.get(shnames as usize) {
            self.names = self.range(names.offset, names.size.min(TABLE_LIMIT))?;
        }
        Ok(Some(self))
    }

    fn rows(&self, offset: u64, size: u64, count: u64) -> io::Result<Vec<Vec<u8>>> {
        if offset == 0 || size == 0 || size * count > TABLE_LIMIT {
            return Ok(Vec::new());
        }
        let table = self.range(offset, size * count)?;
        Ok(table.chunks_exact(size as usize).map(<[u8]>::to_vec).collect())
    }

    /// Bytes of the file, as many of them as there are.
    pub(super) fn range(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let len = len.min(self.size.saturating_sub(offset));
        match usize::try_from(len) {
            Ok(0) | Err(_) => Ok(Vec::new()),
            Ok(len) => self.files.read_at(self.path, offset, len),
        }
    }

    /// Offset and length in the file of the section of that name; `None` too where it takes no room in the file.
    pub(super) fn section(&self, name: &str) -> Option<(u64, u64)> {
        let wanted = [name.as_bytes(), b"\0"].concat();
        let named = |s: &&Section| self.names.get(s.name as usize..).is_some_and(|n| n.starts_with(&wanted));
        // 8 is SHT_NOBITS.
        self.sections.iter().filter(|s| s.kind != 8).find(named).map(|s| (s.offset, s.size))
    }

    /// Offset and length in the file of the first writable segment.
    pub(super) fn data_segment(&self) -> Option<(u64, u64)> {
        self.segments.iter().find(|s| s.writable && s.size > 0).map(|s| (s.offset, s.size))
    }

    /// Bytes by the address at which they are loaded; empty if nothing is loaded there.
    pub(super) fn at_address(&self, address: u64, len: u64) -> io::Result<Vec<u8>> {
        for s in &self.segments {
            let Some(into) = address.checked_sub(s.address).filter(|into| *into < s.size) else {
                continue;
            };
            return match s.offset.checked_add(into) {
                Some(offset) => self.range(offset, len.min(s.size - into)),
                None => Ok(Vec::new()),
            };
        }
        Ok(Vec::new())
    }
}
