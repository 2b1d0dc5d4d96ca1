//! Where a tar goes: a file that gets its name when it is whole, or standard output.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Stdout, Write},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use super::{OutputError, fresh::Fresh};

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dest {
    /// A file; what stood there is replaced.
    File(PathBuf),
    /// Standard output (`dest=-`).
    Stdout,
    /// A directory (`tar=false`), made if it lacks.
    Dir(PathBuf),
}

enum Target {
    /// One that gets its name when it is whole.
    Fresh(Fresh),
    /// A pipe or device.
    Open(File),
    Stdout(Stdout),
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Fresh(fresh) => fresh.file().write(bytes),
            Self::Open(file) => file.write(bytes),
            Self::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Fresh(fresh) => fresh.file().flush(),
            Self::Open(file) => file.flush(),
            Self::Stdout(stdout) => stdout.flush(),
        }
    }
}

/// The stream to a [`Dest`].
pub(super) struct Sink {
    out: BufWriter<Target>,
    path: Option<PathBuf>,
}

impl Sink {
    pub(super) fn open(dest: &Dest) -> Result<Self, OutputError> {
        let path = match dest {
            Dest::Dir(path) => return Err(OutputError::IsDirectory(path.clone())),
            Dest::Stdout => return Ok(Self::new(Target::Stdout(io::stdout()), None)),
            Dest::File(path) => path,
        };
        let error = |source| OutputError::Io { path: path.clone(), source };
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => return Err(OutputError::IsDirectory(path.clone())),
            // A pipe or device is written to, not replaced.
            Ok(meta) if meta.file_type().is_fifo() || meta.file_type().is_char_device() => {
                let file = OpenOptions::new().write(true).open(path).map_err(error)?;
                return Ok(Self::new(Target::Open(file), Some(path.clone())));
            }
            _ => {}
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(error)?;
        let fresh = Fresh::create_in(parent, 0o666).map_err(error)?;
        Ok(Self::new(Target::Fresh(fresh), Some(path.clone())))
    }

    fn new(out: Target, path: Option<PathBuf>) -> Self {
        Self { out: BufWriter::with_capacity(256 * 1024, out), path }
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self) -> Result<(), OutputError> {
        self.out.flush().map_err(|e| self.error(e))?;
        let (target, _) = self.out.into_parts();
        match (target, self.path) {
            (Target::Fresh(fresh), Some(path)) => fresh.give(&path).map_err(|source| OutputError::Io { path, source }),
            _ => Ok(()),
        }
    }

    /// Writes the first `size` bytes of a file, or as many as there are; how many. The system copies them by itself
    /// where it can.
    pub(super) fn copy(&mut self, from: &File, size: u64) -> io::Result<u64> {
        self.out.flush()?;
        let mut from = from.take(size);
        match self.out.get_mut() {
            Target::Fresh(fresh) => io::copy(&mut from, &mut fresh.file()),
            Target::Open(file) => io::copy(&mut from, file),
            Target::Stdout(stdout) => io::copy(&mut from, stdout),
        }
    }

    pub(super) fn error(&self, source: io::Error) -> OutputError {
        match &self.path {
            Some(path) => OutputError::Io { path: path.clone(), source },
            None => OutputError::Stdout(source),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
