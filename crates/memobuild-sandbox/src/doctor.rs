//! What this machine can and cannot do, for `memobuild doctor` and for error messages.

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What, a few words.
    pub name: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it, where something can be done.
    pub hint: Option<String>,
}
