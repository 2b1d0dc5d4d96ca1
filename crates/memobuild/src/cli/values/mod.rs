//! Texts of the command line to values: one file per syntax. In: one argument. Out: the value, or one sentence that
//! says what was expected. Called by clap while it reads the arguments; these functions look at files only where the
//! argument names one that must exist.

mod cache;
mod context;
mod csv;
mod host;
mod output;
mod pair;
mod secret;
mod size;
mod ulimit;

pub(crate) use cache::{cache_from, cache_to};
pub(crate) use context::{build_context, context_input};
pub(crate) use host::host;
pub(crate) use output::output;
pub(crate) use pair::{annotation, build_arg, label};
pub(crate) use secret::{secret, ssh};
pub(crate) use size::{age, size};
pub(crate) use ulimit::ulimit;

/// A yes-or-no value as Go's `strconv.ParseBool` reads it, which is what docker's flags do.
fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{key}={value}: expected true or false")),
    }
}
