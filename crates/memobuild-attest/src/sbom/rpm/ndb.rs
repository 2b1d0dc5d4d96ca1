//! `Packages.db`: rpm's own database, which SUSE uses (rpm's `lib/backend/ndb/rpmpkg.c`). Slots say where each header is;
//! numbers have the lowest byte first.

use super::HEADER_LIMIT;

const PAGE: usize = 4096;
const BLOCK: usize = 16;
const SLOT: usize = 16;
/// The first slots of the first page hold the head of the file.
const FIRST_SLOT: usize = 2;

/// The headers, in the order of their slots.
pub(crate) fn headers(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    if bytes.get(..4) != Some(b"RpmP") || number(bytes, 4) != Some(0) {
        return Err("not a package database of rpm's, or one of another version".into());
    }
    let pages = number(bytes, 12).ok_or("cut short")? as usize;
    let slots =
        pages.checked_mul(PAGE).and_then(|end| bytes.get(FIRST_SLOT * SLOT..end)).ok_or("its slots are cut short")?;
    let mut headers = Vec::new();
    for slot in slots.chunks_exact(SLOT) {
        if slot.get(..4) != Some(b"Slot") {
            return Err("a damaged slot".into());
        }
        let (index, block) = (number(slot, 4), number(slot, 8).unwrap_or_default() as usize);
        // An offset of zero: the slot is free.
        if block > 0 {
            headers.push(blob(bytes, block * BLOCK, index).ok_or("a damaged package header")?);
        }
    }
    Ok(headers)
}

/// The bytes behind a head of magic number, package index, generation and length.
fn blob(bytes: &[u8], at: usize, index: Option<u32>) -> Option<Vec<u8>> {
    let head = bytes.get(at..at.checked_add(16)?)?;
    if head.get(..4)? != b"BlbS" || number(head, 4) != index {
        return None;
    }
    let len = number(head, 12)? as usize;
    let start = at + 16;
    (len <= HEADER_LIMIT).then(|| bytes.get(start..start.checked_add(len)?).map(<[u8]>::to_vec))?
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(header: &[u8]) -> Vec<u8> {
        let mut bytes = b"RpmP".to_vec();
        for number in [0u32, 1, 1, 2, 0, 0, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for slot in FIRST_SLOT..PAGE / SLOT {
            bytes.extend_from_slice(b"Slot");
            let used = slot == FIRST_SLOT + 1;
            for number in if used { [7u32, (PAGE / BLOCK) as u32, 3] } else { [0; 3] } {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.extend_from_slice(b"BlbS");
        for number in [7u32, 1, header.len() as u32] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(header);
        bytes
    }

    #[test]
    fn used_slots_are_read_and_damage_is_found() {
        let whole = database(b"header");
        assert_eq!(headers(&whole).unwrap(), [b"header"]);
        for cut in [0, 20, 100, whole.len() - 1] {
            assert!(headers(whole.get(..cut).unwrap()).is_err(), "{cut}");
        }
        let mut other = whole.clone();
        other[PAGE + 4] = 8;
        assert!(headers(&other).is_err());
    }
}
