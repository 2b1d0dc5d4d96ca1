//! Meaning of `RUN --mount` options.

use crate::ast::{Mount, MountError};

pub(crate) type Expander<'a> = &'a mut dyn FnMut(&str) -> Result<String, String>;

pub(crate) fn resolve(
    fields: &[String],
    expand: Option<Expander<'_>>,
) -> Result<Mount, MountError> {
    let _ = (fields, expand);
    todo!()
}
