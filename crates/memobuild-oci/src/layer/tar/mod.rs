//! The tar format as streams: POSIX ustar and PAX, GNU's long names and sparse files, old V7.
//!
//! Reading follows Go's `archive/tar` (what docker, containerd and BuildKit read with) in what it accepts; writing
//! follows its `FormatPAX`. Nothing here knows of layers.

mod header;
mod pax;
mod read;
mod sparse;
mod write;

pub(crate) use header::BLOCK;
pub(crate) use read::{Entry, EntryKind, TarReader};
pub(crate) use write::{Header, HeaderKind, TarWriter};
