//! How records and lists stand in an action cache.
//!
//! A record is the result of an *action* that nobody ever runs: its digest is the SHA-256 of
//!
//! ```text
//! parts, each with its length before it (u64, little endian):
//! "memobuild remote action 1"   "record" or "list"   namespace   key (32 bytes)
//! ```
//! The value is the action's standard output; the blobs that it needs are output files, so that a server which checks
//! that results are whole, and keeps what they name, does so for these.

use bazel_remote_apis::build::bazel::remote::execution::v2 as rex;
use memobuild_tree::Sha256Digest;

use crate::remote::{Blob, MAX_BLOBS, RecordName};

const ACTION: &[u8] = b"memobuild remote action 1";

/// Items that a list keeps, and bytes of all of them together: one message carries them.
pub(super) const LIST_ITEMS: usize = 32;
const LIST_BYTES: usize = 1 << 20;

const LIST_FORMAT: u8 = 1;

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Record,
    List,
}

/// The digest of the action that stands for a name.
pub(super) fn action(kind: Kind, name: &RecordName) -> rex::Digest {
    let kind: &[u8] = match kind {
        Kind::Record => b"record",
        Kind::List => b"list",
    };
    let mut text = Vec::new();
    for part in [ACTION, kind, name.ns.as_bytes(), name.key.as_bytes()] {
        text.extend((part.len() as u64).to_le_bytes());
        text.extend(part);
    }
    digest(&Blob { digest: Sha256Digest::of(&text), size: text.len() as u64 })
}

/// A blob as the API names it.
pub(super) fn digest(blob: &Blob) -> rex::Digest {
    rex::Digest { hash: blob.digest.hex(), size_bytes: i64::try_from(blob.size).unwrap_or(i64::MAX) }
}

/// A result with this value, which needs these blobs.
pub(super) fn result(value: Vec<u8>, blobs: &[Blob]) -> rex::ActionResult {
    let mut names: Vec<String> = blobs.iter().map(|blob| blob.digest.hex()).collect();
    names.sort_unstable();
    names.dedup();
    let files = names.into_iter().filter_map(|hex| {
        let blob = blobs.iter().find(|blob| blob.digest.hex() == hex)?;
        Some(rex::OutputFile { path: format!("blobs/{hex}"), digest: Some(digest(blob)), ..Default::default() })
    });
    rex::ActionResult { output_files: files.collect(), stdout_raw: value, ..Default::default() }
}

/// An item of a list, and what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: Vec<u8>,
    pub(super) blobs: Vec<Blob>,
}

/// A list's value.
pub(super) fn list(items: &[Item]) -> Vec<u8> {
    let mut out = vec![LIST_FORMAT];
    for item in items {
        out.extend((item.value.len() as u32).to_le_bytes());
        out.extend(&item.value);
        out.extend((item.blobs.len() as u32).to_le_bytes());
        for blob in &item.blobs {
            out.extend(blob.digest.as_bytes());
            out.extend(blob.size.to_le_bytes());
        }
    }
    out
}

/// The items of a list's value; `None` if it is none.
pub(super) fn items(value: &[u8]) -> Option<Vec<Item>> {
    let (format, mut rest) = value.split_first()?;
    if *format != LIST_FORMAT {
        return None;
    }
    let mut items = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(*take(&mut rest)?);
        let (value, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        rest = after;
        let count = u32::from_le_bytes(*take(&mut rest)?);
        let mut blobs = Vec::new();
        for _ in 0..count {
            let digest = Sha256Digest::from_bytes(*take(&mut rest)?);
            blobs.push(Blob { digest, size: u64::from_le_bytes(*take(&mut rest)?) });
        }
        items.push(Item { value: value.to_vec(), blobs });
    }
    Some(items)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(first)
}

/// A list with a new head: an equal item moves there, and the oldest go that there is no room for.
pub(super) fn with_head(head: Item, mut items: Vec<Item>) -> Vec<Item> {
    items.retain(|item| item.value != head.value);
    items.insert(0, head);
    let (mut bytes, mut blobs) = (0, 0);
    let fits = |item: &Item| {
        bytes += item.value.len() + 8 + 40 * item.blobs.len();
        blobs += item.blobs.len();
        bytes <= LIST_BYTES && blobs <= MAX_BLOBS
    };
    let room = items.iter().map(fits).take_while(|fits| *fits).count();
    // The new one at any rate.
    items.truncate(room.clamp(1, LIST_ITEMS));
    items
}

#[cfg(test)]
mod tests {
    use memobuild_tree::KeyDigest;

    use super::*;

    fn blob(n: u8) -> Blob {
        Blob { digest: Sha256Digest::of(&[n]), size: u64::from(n) }
    }

    fn item(n: u8, size: usize) -> Item {
        Item { value: vec![n; size], blobs: vec![blob(n), blob(n + 1)] }
    }

    #[test]
    fn names_have_actions_of_their_own() {
        let name = |ns: &str, key: u8| RecordName { ns: ns.into(), key: KeyDigest::from_bytes([key; 32]) };
        let one = action(Kind::Record, &name("a", 1));
        // What is stored must be found by later versions: the digest of this very encoding.
        assert_eq!(one.hash, "7215e14668acadeb75fe5388a089e42549fbde50eb2c2299108eb9f831fe0c76");
        assert_eq!(one.size_bytes, 25 + 6 + 1 + 32 + 4 * 8);
        for other in [
            action(Kind::List, &name("a", 1)),
            action(Kind::Record, &name("b", 1)),
            action(Kind::Record, &name("a", 2)),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn lists_round_trip() {
        for items_in in [vec![], vec![item(1, 0)], vec![item(1, 10), item(2, 1000)]] {
            assert_eq!(items(&list(&items_in)), Some(items_in));
        }
        let whole = list(&[item(1, 10), item(2, 20)]);
        let first = list(&[item(1, 10)]).len();
        for end in 0..whole.len() {
            // Cut between two items it is a list of fewer.
            assert_eq!(items(&whole[..end]).is_some(), end == 1 || end == first, "{end}");
        }
        assert_eq!(items(&[2]), None);
    }

    #[test]
    fn heads_push_out_the_oldest() {
        let mut items = Vec::new();
        for n in 0..40 {
            items = with_head(item(n, 10), items);
        }
        assert_eq!(items.len(), LIST_ITEMS);
        assert_eq!((items[0].value[0], items[LIST_ITEMS - 1].value[0]), (39, 8));
        items = with_head(item(20, 10), items);
        assert_eq!((items.len(), items[0].value[0], items[1].value[0]), (LIST_ITEMS, 20, 39));
        for n in 50..60 {
            items = with_head(item(n, 200 << 10), items);
        }
        assert_eq!(items.len(), 5);
    }

    #[test]
    fn a_blob_that_is_named_twice_is_one_file() {
        let result = result(b"v".to_vec(), &[blob(2), blob(1), blob(2)]);
        assert_eq!(result.output_files.len(), 2);
        assert_eq!(result.stdout_raw, b"v");
    }
}
