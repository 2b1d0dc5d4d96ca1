//! What the environment decides: the cache directory, the image's time.

use std::path::{Path, PathBuf};

use memobuild_store::Store;

use super::{Failure, text};

/// `MEMOBUILD_CACHE_DIR`, else `$XDG_CACHE_HOME/memobuild`, else `~/.cache/memobuild`. Relative paths in
/// `XDG_CACHE_HOME` are ignored, as its specification demands.
pub(crate) fn cache_dir() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("MEMOBUILD_CACHE_DIR") {
        return std::path::absolute(&dir).map_err(|e| Failure::file("cannot find the current directory", &e));
    }
    if let Some(dir) = set("XDG_CACHE_HOME").filter(|d| d.is_absolute()) {
        return Ok(dir.join("memobuild"));
    }
    set("HOME").map(|home| home.join(".cache/memobuild")).ok_or_else(|| {
        Failure::usage("there is no place for the cache: neither MEMOBUILD_CACHE_DIR nor HOME is set")
            .with_hint("set MEMOBUILD_CACHE_DIR to a directory")
    })
}

/// Opens the store and passes on what it has to say.
pub(crate) fn open_store() -> Result<Store, Failure> {
    let store = Store::open(&cache_dir()?)?;
    for warning in store.warnings() {
        text::to_stderr(&format!("warning: {warning}\n"));
    }
    Ok(store)
}

/// Ends this process's part in a store when it is dropped, whichever threads still hold it: they end with the process.
pub(crate) struct Leaving<'a>(pub(crate) &'a Store);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The store if there is one already: commands that only look make none.
pub(crate) fn existing_store() -> Result<Option<Store>, Failure> {
    if cache_dir()?.is_dir() { open_store().map(Some) } else { Ok(None) }
}

/// Where the cache is, as a person writes it: with `~` for the home directory.
pub(crate) fn display_path(path: &Path) -> String {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|h| h.parent().is_some());
    match home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_path_buf)) {
        Some(rest) => format!("~/{}", rest.display()),
        None => path.display().to_string(),
    }
}

/// `SOURCE_DATE_EPOCH` as text, where it is set.
pub(crate) fn source_date_epoch() -> Option<String> {
    std::env::var("SOURCE_DATE_EPOCH").ok().filter(|v| !v.is_empty())
}
