//! What every storage must do, whatever it is made of.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::{
    io::Read as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use memobuild_tree::{ContentDigest, Sha256Digest};

use super::*;

/// A storage under test, and what a test needs beside it.
pub(super) trait Bed: Sync {
    fn storage(&self) -> &dyn Storage;

    /// As if last used so many seconds ago.
    fn age(&self, id: BlobId, seconds: i64);

    /// What is counted is what there is.
    fn counted(&self);
}

/// Makes an empty storage with this cap.
pub(super) type New<'a> = &'a dyn Fn(Option<u64>) -> Box<dyn Bed + 'a>;

/// A case with its name.
type Case = (&'static str, fn(New<'_>));

/// All of them, one after the other.
pub(super) fn all(new: New<'_>) {
    let cases: [Case; 12] = [
        ("blobs", blobs),
        ("a long blob", a_long_blob),
        ("the first record stays", the_first_record_stays_and_needs_its_blobs),
        ("lists", lists_are_bounded_and_newest_first),
        ("slots", a_slot_has_the_last_value_and_only_that),
        ("least recently used", what_was_not_used_for_longest_goes_with_the_records_that_name_it),
        ("given up", a_writer_that_is_given_up_leaves_nothing),
        ("one of many is first", one_of_many_is_first),
        ("one item of many", lists_that_many_add_to),
        ("one blob from many", one_blob_from_many),
        ("the cap with many", the_cap_is_held_when_many_put),
        ("collecting beside puts", records_are_whole_while_blobs_go),
    ];
    for (name, case) in cases {
        let began = Instant::now();
        println!("{name}");
        case(new);
        println!("    {} ms", began.elapsed().as_millis());
    }
}

pub(super) fn put(storage: &dyn Storage, bytes: &[u8]) -> Result<(BlobId, Committed)> {
    let id = BlobId::Content(ContentDigest::of(bytes));
    Ok((id, put_as(storage, id, bytes)?))
}

fn put_as(storage: &dyn Storage, id: BlobId, bytes: &[u8]) -> Result<Committed> {
    let mut writer = CheckedWriter::new(id, u64::MAX, Some(storage.blob_create(id)?));
    for piece in bytes.chunks(256 << 10) {
        writer.take(piece)?;
    }
    writer.finish()
}

pub(super) fn get(storage: &dyn Storage, id: BlobId, from: u64) -> Option<Vec<u8>> {
    let mut blob = storage.blob_read(id, from).unwrap()?;
    let mut bytes = Vec::new();
    blob.content.read_to_end(&mut bytes).unwrap();
    assert_eq!(blob.size.saturating_sub(from), bytes.len() as u64);
    Some(bytes)
}

pub(super) fn key(n: u8) -> RecordKey {
    format!("test:{}", ContentDigest::of(&[n])).parse().unwrap()
}

pub(super) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn blobs(new: New<'_>) {
    let bed = new(None);
    let storage = bed.storage();
    storage.ready().unwrap();
    let (id, committed) = put(storage, b"hello").unwrap();
    assert_eq!(committed, Committed::Created);
    assert_eq!(put(storage, b"hello").unwrap().1, Committed::Existed);
    assert_eq!(storage.blob_size(id).unwrap(), Some(5));
    assert_eq!(get(storage, id, 0).unwrap(), b"hello");
    assert_eq!(get(storage, id, 3).unwrap(), b"lo");
    assert_eq!(get(storage, id, 5).unwrap(), b"");
    // The same bytes by the other digest are another blob.
    let layer = BlobId::Layer(Sha256Digest::of(b"hello"));
    assert_eq!(storage.blob_size(layer).unwrap(), None);
    assert!(storage.blob_read(layer, 0).unwrap().is_none());
    assert_eq!(put_as(storage, layer, b"hello").unwrap(), Committed::Created);
    let (empty, _) = put(storage, b"").unwrap();
    assert_eq!(storage.blob_size(empty).unwrap(), Some(0));
    assert_eq!(get(storage, empty, 0).unwrap(), b"");
    let absent = BlobId::Content(ContentDigest::of(b"absent"));
    assert_eq!(storage.blobs_missing(&[absent, id, layer, absent, empty]).unwrap(), [absent, absent]);
    assert!(matches!(put_as(storage, absent, b"other"), Err(StorageError::Integrity { .. })));
    assert_eq!(storage.blob_size(absent).unwrap(), None);
    assert_eq!(storage.usage().unwrap(), Usage { blobs: 3, records: 0, bytes: 10, max_bytes: None });
    bed.counted();
}

fn a_long_blob(new: New<'_>) {
    let bed = new(None);
    let storage = bed.storage();
    let bytes = noise(1, (35 << 20) + 17);
    let (id, committed) = put(storage, &bytes).unwrap();
    assert_eq!(committed, Committed::Created);
    for from in [0, 1 << 20, (8 << 20) - 1, bytes.len() - 1, bytes.len()] {
        assert!(get(storage, id, from as u64).unwrap() == bytes.get(from..).unwrap());
    }
    // A reader that is left early.
    let mut blob = storage.blob_read(id, 100).unwrap().unwrap();
    let mut some = vec![0; 1000];
    blob.content.read_exact(&mut some).unwrap();
    assert!(some == bytes.get(100..1100).unwrap());
    bed.counted();
}

fn the_first_record_stays_and_needs_its_blobs(new: New<'_>) {
    let bed = new(None);
    let storage = bed.storage();
    let absent = BlobId::Content(ContentDigest::of(b"absent"));
    let (there, _) = put(storage, b"there").unwrap();
    let incomplete = Record { value: b"a".to_vec(), blobs: vec![there, absent] };
    assert_eq!(storage.record_put(&key(1), &incomplete).unwrap(), RecordPut::Missing(vec![absent]));
    assert_eq!(storage.record(&key(1)).unwrap(), None);
    let first = Record { value: b"a".to_vec(), blobs: vec![there, there] };
    assert_eq!(storage.record_put(&key(1), &first).unwrap(), RecordPut::Stored);
    let second = Record { value: b"b".to_vec(), blobs: vec![] };
    assert_eq!(storage.record_put(&key(1), &second).unwrap(), RecordPut::Existing(first.clone()));
    assert_eq!(storage.record(&key(1)).unwrap(), Some(first));
    assert_eq!(storage.record(&key(2)).unwrap(), None);
    bed.counted();
}

fn lists_are_bounded_and_newest_first(new: New<'_>) {
    let bed = new(None);
    let storage = bed.storage();
    let (blob, _) = put(storage, b"blob").unwrap();
    let item = |n: usize| Record { value: vec![u8::try_from(n).unwrap()], blobs: vec![blob; n % 3] };
    for n in 0..LIST_ITEMS + 5 {
        assert!(storage.list_add(&key(1), &item(n)).unwrap().is_empty());
    }
    let before = storage.usage().unwrap();
    storage.list_add(&key(1), &item(10)).unwrap();
    let list = storage.list(&key(1)).unwrap();
    assert_eq!(list.len(), LIST_ITEMS);
    assert_eq!(list.first(), Some(&item(10)));
    assert_eq!(list.get(1), Some(&item(LIST_ITEMS + 4)));
    assert_eq!(list.iter().filter(|i| **i == item(10)).count(), 1);
    assert_eq!(storage.usage().unwrap(), before);
    let absent = BlobId::Content(ContentDigest::of(b"absent"));
    let incomplete = Record { value: vec![], blobs: vec![absent] };
    assert_eq!(storage.list_add(&key(1), &incomplete).unwrap(), [absent]);
    bed.counted();
    assert_eq!(storage.record(&key(1)).unwrap(), None);
    assert_eq!(storage.list(&key(2)).unwrap(), []);
}

fn a_slot_has_the_last_value_and_only_that(new: New<'_>) {
    let bed = new(None);
    let storage = bed.storage();
    let (first, _) = put(storage, b"first").unwrap();
    let (second, _) = put(storage, b"second").unwrap();
    let value = |n: u8, blobs: &[BlobId]| Record { value: vec![n; 1000], blobs: blobs.to_vec() };
    assert_eq!(storage.slot(&key(1)).unwrap(), None);
    assert_eq!(storage.slot_put(&key(1), &value(1, &[first])).unwrap(), []);
    let one = storage.usage().unwrap();
    assert_eq!(storage.slot(&key(1)).unwrap(), Some(value(1, &[first])));
    // One that can't be there leaves the other.
    let absent = BlobId::Content(ContentDigest::of(b"absent"));
    assert_eq!(storage.slot_put(&key(1), &value(2, &[absent, second])).unwrap(), [absent]);
    assert_eq!(storage.slot(&key(1)).unwrap(), Some(value(1, &[first])));
    for record in [value(2, &[second]), value(1, &[first]), value(1, &[first]), value(2, &[second])] {
        assert_eq!(storage.slot_put(&key(1), &record).unwrap(), []);
        assert_eq!(storage.slot(&key(1)).unwrap(), Some(record));
        assert_eq!(storage.usage().unwrap(), one, "what was replaced takes no room");
    }
    assert_eq!(storage.slot(&key(2)).unwrap(), None);
    at_once(|n| assert_eq!(storage.slot_put(&key(1), &value(n, &[])).unwrap(), []));
    let last = storage.slot(&key(1)).unwrap().unwrap();
    assert!((0..8).any(|n| last == value(n, &[])));
    // Only what the last value names is used with it.
    assert_eq!(storage.slot_put(&key(1), &value(9, &[second])).unwrap(), []);
    assert_eq!(storage.usage().unwrap().records, 1);
    bed.age(first, 100);
    bed.age(second, 100);
    storage.slot(&key(1)).unwrap();
    storage.flush().unwrap();
    storage.gc(Some(Duration::from_secs(50))).unwrap();
    assert_eq!(storage.blobs_missing(&[first, second]).unwrap(), [first]);
    assert_eq!(storage.slot(&key(1)).unwrap(), Some(value(9, &[second])));
    bed.counted();
}

fn what_was_not_used_for_longest_goes_with_the_records_that_name_it(new: New<'_>) {
    let bed = new(Some(10_000));
    let storage = bed.storage();
    let (old, _) = put(storage, &[1; 4000]).unwrap();
    let (newer, _) = put(storage, &[2; 4000]).unwrap();
    storage.record_put(&key(1), &Record { value: vec![], blobs: vec![old] }).unwrap();
    bed.age(old, 100);
    bed.age(newer, 50);
    let (last, committed) = put(storage, &[3; 4000]).unwrap();
    assert_eq!(committed, Committed::Created);
    assert_eq!(storage.blob_size(old).unwrap(), None);
    assert_eq!(storage.record(&key(1)).unwrap(), None);
    assert_eq!(storage.blob_size(newer).unwrap(), Some(4000));
    assert_eq!(storage.blob_size(last).unwrap(), Some(4000));
    assert_eq!(storage.usage().unwrap().bytes, 8000);
    assert!(matches!(put(storage, &[4; 10_001]), Err(StorageError::Full)));
    assert_eq!(storage.usage().unwrap().bytes, 8000);
    assert_eq!(storage.blob_size(last).unwrap(), Some(4000));

    bed.age(newer, 3 * 86_400);
    let report = storage.gc(Some(Duration::from_secs(2 * 86_400))).unwrap();
    assert_eq!(report, GcReport { blobs: 1, records: 0, freed_bytes: 4000 });
    assert_eq!(storage.blob_size(newer).unwrap(), None);
    bed.counted();
    assert_eq!(get(storage, last, 0).unwrap(), [3; 4000]);
}

fn a_writer_that_is_given_up_leaves_nothing(new: New<'_>) {
    let bed = new(None);
    let storage = bed.storage();
    let id = BlobId::Content(ContentDigest::of(b"x"));
    let mut writer = storage.blob_create(id).unwrap();
    writer.write(&[0; 1_000_000]).unwrap();
    drop(writer);
    assert_eq!(storage.usage().unwrap().bytes, 0);
    assert_eq!(storage.blob_size(id).unwrap(), None);
    assert_eq!(put(storage, b"x").unwrap().1, Committed::Created);
    assert_eq!(storage.usage().unwrap().bytes, 1);
    bed.counted();
}

/// Runs this on many threads at once.
fn at_once<T: Send>(work: impl Fn(u8) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn one_of_many_is_first(new: New<'_>) {
    let bed = new(None);
    let storage = bed.storage();
    let (there, _) = put(storage, b"there").unwrap();
    for round in 0..10 {
        let results = at_once(|n| {
            let record = Record { value: vec![n], blobs: vec![there] };
            (record.clone(), storage.record_put(&key(round), &record).unwrap())
        });
        let first = storage.record(&key(round)).unwrap().unwrap();
        let stored: Vec<_> = results.iter().filter(|(_, put)| *put == RecordPut::Stored).collect();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored.first().unwrap().0, first);
        for (_, put) in results.iter().filter(|(_, put)| *put != RecordPut::Stored) {
            assert_eq!(*put, RecordPut::Existing(first.clone()));
        }
    }
    bed.counted();
}

fn lists_that_many_add_to(new: New<'_>) {
    let bed = new(None);
    let storage = bed.storage();
    let (there, _) = put(storage, b"there").unwrap();
    at_once(|n| {
        for item in 0..20u8 {
            // Half of them are the same from all.
            let owner = if item % 2 == 0 { 255 } else { n };
            let record = Record { value: vec![owner, item], blobs: vec![there] };
            assert_eq!(storage.list_add(&key(1), &record).unwrap(), []);
        }
    });
    let list = storage.list(&key(1)).unwrap();
    assert_eq!(list.len(), LIST_ITEMS);
    let mut values: Vec<_> = list.iter().map(|item| &item.value).collect();
    values.sort();
    values.dedup();
    assert_eq!(values.len(), LIST_ITEMS, "equal items are one");
    bed.counted();
}

fn one_blob_from_many(new: New<'_>) {
    let bed = new(None);
    let storage = bed.storage();
    for round in 0..5 {
        let bytes = noise(round, 300_000);
        let results = at_once(|_| put(storage, &bytes).unwrap());
        let created = results.iter().filter(|(_, committed)| *committed == Committed::Created).count();
        assert_eq!(created, 1);
        assert!(get(storage, results.first().unwrap().0, 0).unwrap() == bytes);
    }
    storage.flush().unwrap();
    assert_eq!(storage.usage().unwrap().bytes, 5 * 300_000);
    bed.counted();
}

fn the_cap_is_held_when_many_put(new: New<'_>) {
    let max = 1_000_000;
    let bed = new(Some(max));
    let storage = bed.storage();
    let stored = AtomicU64::new(0);
    at_once(|n| {
        for round in 0..10 {
            match put(storage, &noise(u64::from(n) << 32 | round, 90_000)) {
                Ok(_) => drop(stored.fetch_add(1, Ordering::Relaxed)),
                // What others are sending can't be removed.
                Err(StorageError::Full) => {}
                Err(error) => panic!("{error:?}"),
            }
            let usage = storage.usage().unwrap();
            assert!(usage.bytes <= max, "{usage:?}");
        }
    });
    assert!(stored.into_inner() >= 40);
    assert!(storage.usage().unwrap().blobs >= 5);
    bed.counted();
}

fn records_are_whole_while_blobs_go(new: New<'_>) {
    let bed = new(None);
    let storage = bed.storage();
    let done = AtomicBool::new(false);
    let (stored, lost) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let (bed, done, stored, lost) = (&bed, &done, &stored, &lost);
        let putters: Vec<_> = (0..4u64)
            .map(|n| {
                scope.spawn(move || {
                    for round in 0..40u64 {
                        // Blobs are shared by all, keys are not.
                        let blobs: Vec<_> =
                            (0..3).map(|i| put(storage, &noise((round + i) % 7, 2000)).unwrap().0).collect();
                        let key = key(u8::try_from(n * 40 + round).unwrap());
                        let record = Record { value: vec![1], blobs };
                        match storage.record_put(&key, &record).unwrap() {
                            RecordPut::Stored => drop(stored.fetch_add(1, Ordering::Relaxed)),
                            RecordPut::Missing(_) => drop(lost.fetch_add(1, Ordering::Relaxed)),
                            RecordPut::Existing(_) => panic!("nobody else has this key"),
                        }
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                bed.age(BlobId::Content(ContentDigest::of(&noise(n % 7, 2000))), 100);
                storage.gc(Some(Duration::from_secs(50))).unwrap();
            }
        });
        putters.into_iter().for_each(|putter| putter.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(stored.load(Ordering::Relaxed) + lost.load(Ordering::Relaxed), 160);
    for n in 0..160 {
        if let Some(record) = storage.record(&key(n)).unwrap() {
            assert_eq!(storage.blobs_missing(&record.blobs).unwrap(), []);
            for id in record.blobs {
                assert_eq!(get(storage, id, 0).unwrap().len(), 2000);
            }
        }
    }
    bed.counted();
}
