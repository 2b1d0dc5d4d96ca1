//! What a build is to programs that watch over many: which trace it is part of, and its spans.

mod context;
pub(crate) mod otlp;
pub(crate) mod timeline;

pub(crate) use context::{Trace, random, trace};
