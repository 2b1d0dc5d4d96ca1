//! What a storage with an object store needs of a database.
//!
//! Every object has a name of its own, told to the database before the object is made, and is in one of three states
//! there: *upload* (being made; counts in the cap), *blob* (whole, and what a digest stands for), *garbage* (to be
//! deleted). So whatever goes down when, the database knows all objects that there may be, and nothing that is deleted late
//! can hit an object that was made later.

use std::{collections::HashMap, time::Duration};

use crate::{
    BlobId, RecordKey,
    storage::{
        Committed, Record, RecordPut, Result, Usage,
        rows::{Removed, Table, Used},
    },
};

/// A blob's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Place {
    /// The object's name, without the storage's prefix.
    pub(in crate::storage) object: String,
    /// Bytes.
    pub(in crate::storage) size: u64,
}

/// What becomes of a blob that is to be uploaded.
#[derive(Debug)]
pub(in crate::storage) enum Begun {
    /// Upload it under this name.
    Upload(String),
    /// It is there.
    Existed,
    /// There is no room.
    NoRoom,
}

/// Blobs and records as rows. Functions block; times are the database's own, so that the nodes' clocks don't matter.
pub(in crate::storage) trait Metadata: Send + Sync + 'static {
    /// What tells this database from others; made when it was set up.
    fn identity(&self) -> Result<String>;

    /// Where blobs are; without those that are not there.
    fn find(&self, ids: &[BlobId]) -> Result<HashMap<BlobId, Place>>;

    /// Makes room for a blob and writes down the object that is going to be made. After `lease` it counts as given up.
    fn begin(&self, id: BlobId, size: u64, lease: Duration) -> Result<Begun>;

    /// The object is whole: makes the blob visible. If another one did that first, this object is garbage. `None` if the
    /// lease has ended.
    fn finish(&self, id: BlobId, object: &str) -> Result<Option<Committed>>;

    /// The object was not made, or not wholly.
    fn abandon(&self, object: &str) -> Result<()>;

    /// A blob's object is gone: so is the blob, with the records that name it.
    fn lost(&self, id: BlobId, object: &str) -> Result<()>;

    /// Rows under this key with their numbers, newest first.
    fn select(&self, table: Table, key: &RecordKey) -> Result<Vec<(i64, Record)>>;

    /// Puts in a record that is the first under its key, or an item of a list, of which the newest `keep` stay. `None` if
    /// there is no room.
    fn insert(&self, table: Table, key: &RecordKey, record: &Record, keep: usize) -> Result<Option<RecordPut>>;

    /// Rows were used this long ago.
    fn touch(&self, used: &[(Used, Duration)]) -> Result<()>;

    /// Removes some rows: of what was not used for this long, and of what is above `most` bytes. Objects become garbage.
    /// `None` if there is nothing more to remove.
    fn collect(&self, unused_for: Option<Duration>, most: Option<u64>) -> Result<Option<Removed>>;

    /// Objects to be deleted, some at a time; uploads whose lease has ended are among them.
    fn garbage(&self) -> Result<Vec<String>>;

    /// These were deleted: their bytes are free.
    fn forget(&self, objects: &[String]) -> Result<()>;

    /// What there is, with garbage and what is being uploaded.
    fn usage(&self) -> Result<Usage>;

    /// Soon answered.
    fn ready(&self) -> Result<()>;
}

/// The name of a new object. `unique` makes it another one than all that were made before.
pub(in crate::storage) fn object_name(id: BlobId, unique: &str) -> String {
    let kind = match id {
        BlobId::Content(_) => "blobs",
        BlobId::Layer(_) => "layers",
    };
    let hex = id.hex();
    let fan = hex.get(..2).unwrap_or_default();
    format!("{kind}/{fan}/{hex}.{unique}")
}
