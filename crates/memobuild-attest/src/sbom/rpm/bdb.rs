//! `Packages`: a hash database of Berkeley DB's, which rpm wrote before 4.16 (rpm's `lib/backend/bdb_ro.cc`). Its pages are
//! looked through in turn: which bucket a header is in does not matter. Numbers are in the order of the machine that
//! wrote them, which the magic number shows.

use super::HEADER_LIMIT;

const MAGIC: u32 = 0x0006_1561;
const PAGE_HEAD: usize = 26;
/// Types of pages.
const HASH_UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const HASH: u8 = 13;
/// Types of items.
const ON_PAGE: u8 = 1;
const OFF_PAGE: u8 = 3;

struct Database<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    page: usize,
    last: usize,
}

/// The headers, in the order of their pages.
pub(crate) fn headers(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let magic = |big_endian| number(bytes, 12, 4, big_endian) == Some(MAGIC as usize);
    let big_endian = match (magic(false), magic(true)) {
        (true, _) => false,
        (_, true) => true,
        _ => return Err("not a hash database of Berkeley DB's".into()),
    };
    let field = |at| number(bytes, at, 4, big_endian).ok_or("cut short");
    let (version, page, last) = (field(16)?, field(20)?, field(32)?);
    if !(8..=10).contains(&version) || !(512..=65536).contains(&page) || !page.is_power_of_two() {
        return Err(format!("a hash database of version {version} with pages of {page} bytes"));
    }
    let db = Database { bytes, big_endian, page, last };
    let mut headers = Vec::new();
    for at in 1..=last {
        db.values(at, &mut headers).ok_or_else(|| format!("its page {at} is damaged"))?;
    }
    Ok(headers)
}

fn number(bytes: &[u8], at: usize, len: usize, big_endian: bool) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    let fold = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
    Some(if big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) })
}

impl Database<'_> {
    fn page(&self, at: usize) -> Option<&[u8]> {
        let start = at.checked_mul(self.page)?;
        (at <= self.last).then(|| self.bytes.get(start..start.checked_add(self.page)?))?
    }

    fn number(&self, page: &[u8], at: usize, len: usize) -> Option<usize> {
        number(page, at, len, self.big_endian)
    }

    /// The values of a page, if it is one of a hash: items are pairs of key and value, from the end of the page down.
    fn values(&self, at: usize, headers: &mut Vec<Vec<u8>>) -> Option<()> {
        let page = self.page(at)?;
        if !matches!(page.get(25)?, &(HASH_UNSORTED | HASH)) {
            return Some(());
        }
        let count = self.number(page, 20, 2)?;
        for pair in 0..count / 2 {
            let place = |item: usize| self.number(page, PAGE_HEAD + 2 * item, 2);
            let (key, value) = (place(2 * pair)?, place(2 * pair + 1)?);
            let item = page.get(value..key)?;
            let found = match *item.first()? {
                ON_PAGE => item.get(1..)?.to_vec(),
                OFF_PAGE => self.overflow(self.number(item, 4, 4)?, self.number(item, 8, 4)?)?,
                _ => return None,
            };
            // One entry, with key 0, holds the number for the next package, and is no header.
            if found.len() > 8 {
                headers.push(found);
            }
        }
        Some(())
    }

    /// A value that is too long for a page, from a chain of them.
    fn overflow(&self, first: usize, len: usize) -> Option<Vec<u8>> {
        if len > HEADER_LIMIT.min(self.bytes.len()) {
            return None;
        }
        let mut value = Vec::with_capacity(len);
        let mut at = first;
        while value.len() < len {
            let page = self.page(at)?;
            let part = self.number(page, 22, 2)?;
            // An empty part would let a circle go on for ever.
            if page.get(25)? != &OVERFLOW || part == 0 || at == 0 {
                return None;
            }
            value.extend_from_slice(page.get(PAGE_HEAD..PAGE_HEAD + part)?);
            at = self.number(page, 16, 4)?;
        }
        (value.len() == len).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 512;

    /// A head, a page of one hash bucket with one short and one long value, and the long value's two pages.
    fn database(long: &[u8], big_endian: bool) -> Vec<u8> {
        let mut bytes = vec![0; PAGE * 4];
        let mut put = |at: usize, value: usize, len: usize| {
            let le = value.to_le_bytes();
            let mut part = le[..len].to_vec();
            if big_endian {
                part.reverse();
            }
            bytes[at..at + len].copy_from_slice(&part);
        };
        for (at, value) in [(12, MAGIC as usize), (16, 9), (20, PAGE), (32, 3)] {
            put(at, value, 4);
        }
        // Items: key at 507, next number (no header) at 502, key at 497, off-page value at 485.
        put(PAGE + 20, 4, 2);
        for (i, at) in [507, 502, 497, 485].into_iter().enumerate() {
            put(PAGE + PAGE_HEAD + 2 * i, at, 2);
        }
        put(PAGE + 485 + 4, 2, 4);
        put(PAGE + 485 + 8, long.len(), 4);
        let half = long.len() / 2;
        for (page, next, part) in [(2, 3, half), (3, 0, long.len() - half)] {
            put(page * PAGE + 16, next, 4);
            put(page * PAGE + 22, part, 2);
        }
        for (at, kind) in [(PAGE + 25, HASH), (PAGE + 507, 1), (PAGE + 502, 1), (PAGE + 497, 1), (PAGE + 485, OFF_PAGE)]
        {
            bytes[at] = kind;
        }
        for (page, part) in [(2, &long[..half]), (3, &long[half..])] {
            bytes[page * PAGE + 25] = OVERFLOW;
            bytes[page * PAGE + PAGE_HEAD..][..part.len()].copy_from_slice(part);
        }
        bytes
    }

    #[test]
    fn long_values_are_put_together_in_both_byte_orders() {
        let long: Vec<u8> = (0..700u32).map(|n| n as u8).collect();
        for big_endian in [false, true] {
            assert_eq!(headers(&database(&long, big_endian)).unwrap(), [long.as_slice()]);
        }
    }

    #[test]
    fn damage_and_circles_are_errors() {
        let whole = database(&[1; 700], false);
        assert!(headers(whole.get(..100).unwrap()).is_err());
        assert!(headers(whole.get(..3 * PAGE).unwrap()).is_err());
        let mut circle = whole.clone();
        circle[3 * PAGE + 22] = 0;
        circle[3 * PAGE + 23] = 0;
        circle[3 * PAGE + 16] = 2;
        assert!(headers(&circle).is_err());
    }
}
