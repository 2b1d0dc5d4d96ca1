//! From what a step left in its upper directory to a diff.
//!
//! `walk` runs in the step's namespaces, where owners and attributes have their meaning, and sends what it finds as
//! `message`s; `scan` does so where there is no upper directory, by comparing with how everything looked before; `assemble` runs in the main process, compares with the tree before, hands contents over and builds the
//! diff.

pub(crate) mod assemble;
pub(crate) mod message;
pub(crate) mod scan;
pub(crate) mod walk;
