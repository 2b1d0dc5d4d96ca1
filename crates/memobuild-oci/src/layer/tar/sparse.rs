//! GNU's sparse files: a map of the parts that hold data, and a reader that fills the holes with zeros.

use super::{header::Block, pax::decimal};

/// Maps with more parts than this are refused: no honest file needs them, and the map is held in memory.
const MAX_PARTS: usize = 1 << 20;
/// Sparse files longer than this are refused: a few bytes of archive would fill a disk with zeros.
const MAX_SIZE: u64 = 1 << 36;

/// Where the data of a sparse file lie.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// Offset and length of each part, in rising order, without overlaps.
    parts: Vec<(u64, u64)>,
}

impl Map {
    pub(super) fn push(&mut self, offset: u64, length: u64) -> Result<(), &'static str> {
        if self.parts.len() >= MAX_PARTS {
            return Err("sparse map with too many parts");
        }
        self.parts.push((offset, length));
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Entries of the old GNU format, `count` of them at `at`; `Ok(false)` once the list has ended.
    pub(super) fn push_old(&mut self, block: &Block<'_>, at: usize, count: usize) -> Result<bool, &'static str> {
        for i in 0..count {
            let at = at + i * 24;
            if block.bytes(at, 1) == [0] {
                return Ok(false);
            }
            let number = |at| block.number(at, 12).and_then(|n| u64::try_from(n).ok()).ok_or("damaged sparse map");
            self.push(number(at)?, number(at + 12)?)?;
        }
        Ok(true)
    }

    /// `offset,length,offset,length...` (PAX format 0.1).
    pub(super) fn from_list(text: &[u8]) -> Result<Self, &'static str> {
        let mut map = Self::default();
        let mut numbers = text.split(|b| *b == b',').map(decimal);
        if text.is_empty() {
            return Ok(map);
        }
        while let Some(offset) = numbers.next() {
            let (Some(offset), Some(Some(length))) = (offset, numbers.next()) else { return Err("damaged sparse map") };
            map.push(offset, length)?;
        }
        Ok(map)
    }

    /// Checks the map against the file's length and that of the data in the archive.
    pub(super) fn check(&self, size: u64, stored: u64) -> Result<(), &'static str> {
        let (mut end, mut data) = (0u64, 0u64);
        for (offset, length) in &self.parts {
            if *offset < end {
                return Err("sparse map out of order");
            }
            end = offset.checked_add(*length).ok_or("sparse map with overflow")?;
            data = data.checked_add(*length).ok_or("sparse map with overflow")?;
        }
        if size > MAX_SIZE {
            return Err("sparse file longer than 64 GiB");
        }
        if end > size || data != stored {
            return Err("sparse map does not fit the file");
        }
        Ok(())
    }

    /// What comes at an offset: bytes of data or of a hole, and how many. `part` is where the last call left off.
    pub(super) fn run(&self, part: &mut usize, offset: u64, size: u64) -> Run {
        while let Some((start, length)) = self.parts.get(*part) {
            if offset < *start {
                return Run::Hole(start - offset);
            }
            if offset < start + length {
                return Run::Data(start + length - offset);
            }
            *part += 1;
        }
        Run::Hole(size.saturating_sub(offset))
    }
}

/// A stretch of a sparse file.
pub(super) enum Run {
    Data(u64),
    Hole(u64),
}
