//! Results as records in the store.
//!
//! [`exact`]: under a key over whole input trees. [`facts`]: in two phases, definition to path sets, values of a path
//! set to result.

pub(crate) mod exact;
pub mod facts;

pub(crate) use exact::Memo;
