//! Where a tar goes: a file that gets its name when it is whole, or standard output.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Stdout, Write},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::TempPath;

use super::OutputError;

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
    File(File),
    Stdout(Stdout),
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(stdout) => stdout.flush(),
        }
    }
}

/// The stream to a [`Dest`].
pub(super) struct Sink {
    out: BufWriter<Target>,
    path: Option<PathBuf>,
    /// The name until it is whole.
    temporary: Option<TempPath>,
}

impl Sink {
    pub(super) fn open(dest: &Dest) -> Result<Self, OutputError> {
        let path = match dest {
            Dest::Dir(path) => return Err(OutputError::IsDirectory(path.clone())),
            Dest::Stdout => return Ok(Self::new(Target::Stdout(io::stdout()), None, None)),
            Dest::File(path) => path,
        };
        let error = |source| OutputError::Io { path: path.clone(), source };
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => return Err(OutputError::IsDirectory(path.clone())),
            // A pipe or device is written to, not replaced.
            Ok(meta) if meta.file_type().is_fifo() || meta.file_type().is_char_device() => {
                let file = OpenOptions::new().write(true).open(path).map_err(error)?;
                return Ok(Self::new(Target::File(file), Some(path.clone()), None));
            }
            _ => {}
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(error)?;
        // The umask takes away what it must, as for any file.
        let mode = fs::Permissions::from_mode(0o666);
        let made =
            tempfile::Builder::new().prefix(".memobuild-").permissions(mode).tempfile_in(parent).map_err(error)?;
        let (file, temporary): (File, TempPath) = made.into_parts();
        Ok(Self::new(Target::File(file), Some(path.clone()), Some(temporary)))
    }

    fn new(out: Target, path: Option<PathBuf>, temporary: Option<TempPath>) -> Self {
        Self { out: BufWriter::with_capacity(256 * 1024, out), path, temporary }
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self) -> Result<(), OutputError> {
        self.out.flush().map_err(|e| self.error(e))?;
        if let (Some(temporary), Some(path)) = (self.temporary.take(), &self.path) {
            temporary.persist(path).map_err(|e| OutputError::Io { path: path.clone(), source: e.error })?;
        }
        Ok(())
    }

    /// Writes the first `size` bytes of a file, or as many as there are; how many. The system copies them by itself
    /// where it can.
    pub(super) fn copy(&mut self, from: &File, size: u64) -> io::Result<u64> {
        self.out.flush()?;
        let mut from = from.take(size);
        match self.out.get_mut() {
            Target::File(file) => io::copy(&mut from, file),
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
