//! Results as records in the store.
//!
//! [`exact`]: under a key over whole input trees. [`facts`]: in two phases, definition to path sets, values of a path
//! set to result. [`renewal`]: which of a step's histories counts.

pub(crate) mod exact;
pub mod facts;
pub(crate) mod renewal;

pub(crate) use exact::Memo;
