//! Results shared between machines: caches in registries, in directories, and inside images.
//!
//! In: records and bundles of the store, from a build under way ([`Exporter`]). Out: the same on another machine, as an
//! [`memobuild_store::Upstream`] and [`memobuild_store::Provider`] of its store ([`Importer`]). Called by the engine. It
//! knows neither plans nor what records mean: it is told which of them to carry.
//!
//! # The artifact
//! An OCI image manifest that any registry takes, with a config of its own media type. It holds *generations*: what one
//! build exported, newest first.
//!
//! | part | media type | read when |
//! |---|---|---|
//! | directory, and the records that exact hits need | `application/vnd.memobuild.cache.config.v1+json` | at once |
//! | facts: path sets and what was found at their paths | `application/vnd.memobuild.cache.table.v1+zstd` | a step is not an exact hit |
//! | trees: the diffs of bundles, tables of contents of base layers | the same | a tree must be put together |
//! | packs: the contents that a bundle brought | `application/vnd.memobuild.cache.pack.v1+zstd` | a file of it is read |
//! | large files | `application/vnd.memobuild.cache.file.v1+zstd` | it is read |
//!
//! A build that is all hits so asks for two documents and no content.
#![forbid(unsafe_code)]

mod depot;
mod directory;
mod error;
mod export;
mod import;
mod inline;
mod pack;
mod remote;
mod table;

pub use depot::Place;
pub use error::CacheError;
pub use export::{ExportReport, Exporter, Sources};
pub use import::Importer;
pub use inline::{FIELD as INLINE_FIELD, inline};
pub use remote::{Finished, Namespace, RemoteCache, RemoteError, RemoteOptions, RemoteReport};
pub use table::Entry;

/// What a build hands over when all its steps are done.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// Small records: enough for a build whose inputs are all the same.
    pub records: Vec<Entry>,
    /// Records that only a look-up by facts reads.
    pub facts: Vec<Entry>,
    /// Tables of contents of base layers, as records.
    pub trees: Vec<Entry>,
    /// Bundles with their contents.
    pub bundles: Vec<memobuild_tree::BundleId>,
    /// Bundles of which the diff is told, but no content (`mode=min`).
    pub named: Vec<memobuild_tree::BundleId>,
}

impl Collected {
    /// Adds a record to the part in which it is looked for.
    pub fn add(&mut self, entry: Entry) {
        match import::is_of(&entry.ns) {
            import::Part::Records => self.records.push(entry),
            import::Part::Facts => self.facts.push(entry),
            import::Part::Trees => self.trees.push(entry),
        }
    }
}
