//! Trees laid out on disk: for the modes without FUSE.
//!
//! `order` turns a diff into a stream of small orders; `write` carries them out, in the server's namespaces where
//! owners have their meaning; `layers` keeps chains of directories for the exact mode, `roots` whole trees for the
//! chroot mode.

pub(crate) mod layers;
pub(crate) mod order;
pub(crate) mod roots;
pub(crate) mod write;
