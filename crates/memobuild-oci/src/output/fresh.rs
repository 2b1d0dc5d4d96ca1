//! A file that gets its name when it is whole. Where the file system can, it has none until then: however the process
//! ends, nothing is left of it.

use std::{
    fs::{self, File},
    io::{self, Seek as _},
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags},
    io::Errno,
};
use tempfile::TempPath;

/// How temporary files begin where they must have a name.
const PREFIX: &str = ".memobuild-";
/// Open files by number: what has no name is linked by it.
const OPEN_FILES: &str = "/proc/self/fd";

/// A file under way; without [`Fresh::give`] it goes when this does.
pub(super) struct Fresh {
    file: File,
    named: Option<TempPath>,
}

impl Fresh {
    /// Makes one in the directory where it will lie.
    pub(super) fn create_in(dir: &Path, mode: u32) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        if Path::new(OPEN_FILES).exists()
            && let Ok(file) = rustix::fs::open(dir, flags, Mode::from_raw_mode(mode))
        {
            return Ok(Self { file: file.into(), named: None });
        }
        let (file, named) = named_in(dir, mode)?;
        Ok(Self { file, named: Some(named) })
    }

    /// To be written to.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name; what stood there is replaced.
    pub(super) fn give(self, path: &Path) -> io::Result<()> {
        match self.named {
            Some(named) => named.persist(path).map_err(|e| e.error),
            None => name(&self.file, path),
        }
    }
}

fn named_in(dir: &Path, mode: u32) -> io::Result<(File, TempPath)> {
    // The umask takes away what it must, as for any file.
    let mode = fs::Permissions::from_mode(mode);
    let made = tempfile::Builder::new().prefix(PREFIX).permissions(mode).tempfile_in(dir)?;
    Ok(made.into_parts())
}

fn name(mut file: &File, path: &Path) -> io::Result<()> {
    let open = format!("{OPEN_FILES}/{}", file.as_raw_fd());
    let link = |to: &Path| rustix::fs::linkat(CWD, &*open, CWD, to, AtFlags::SYMLINK_FOLLOW);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match link(path) {
        Ok(()) => Ok(()),
        // A link replaces nothing: it takes a name beside it, for a moment.
        Err(Errno::EXIST) => {
            let beside =
                tempfile::Builder::new().prefix(PREFIX).make_in(dir, |to| link(to).map_err(io::Error::from))?;
            beside.into_temp_path().persist(path).map_err(|e| e.error)
        }
        // Something on this machine forbids links of open files.
        Err(_) => {
            let (mut copy, named) = named_in(dir, file.metadata()?.permissions().mode() & 0o777)?;
            file.rewind()?;
            io::copy(&mut file, &mut copy)?;
            named.persist(path).map_err(|e| e.error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_has_its_name_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        for text in ["first", "second"] {
            let before = names();
            let fresh = Fresh::create_in(dir.path(), 0o640).unwrap();
            fresh.file().write_all(text.as_bytes()).unwrap();
            if fresh.named.is_none() {
                assert_eq!(names(), before, "nothing to be left");
            }
            fresh.give(&path).unwrap();
            assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names()), (text, 1));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        }
        drop(Fresh::create_in(dir.path(), 0o666).unwrap());
        let (file, named) = named_in(dir.path(), 0o666).unwrap();
        drop(Fresh { file, named: Some(named) });
        assert_eq!(names(), 1);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kept"), "kept").unwrap();
        std::os::unix::fs::symlink("kept", dir.path().join("out")).unwrap();
        Fresh::create_in(dir.path(), 0o666).unwrap().give(&dir.path().join("out")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("kept")).unwrap(), "kept");
        assert_eq!(fs::read_to_string(dir.path().join("out")).unwrap(), "");
    }
}
