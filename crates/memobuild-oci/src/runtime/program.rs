//! Programs that take an image on standard input, and the questions that they are asked.
//!
//! In: a program, its arguments, perhaps an archive. Out: what it wrote, or the end of its complaint. Called by the
//! runtimes that have no API. Never: a shell.

use std::{
    io::{self, Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
};

use super::{RuntimeError, Vars, archive::Archive};
use crate::image::Progress;

/// The longest answer on standard output, in bytes; what goes beyond is dropped.
const MAX_ANSWER: u64 = 64 << 20;
/// The end of standard error that is shown, in bytes.
const TAIL: usize = 2000;

/// What a program left.
pub(super) struct Said {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// Whether a program is on the PATH.
pub(super) fn is_there(vars: Vars<'_>, name: &str) -> bool {
    let path = vars("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(dir.join(name)).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    })
}

/// Runs it to its end, with nothing on standard input.
pub(super) fn ask(program: &str, args: &[&str]) -> Result<Said, RuntimeError> {
    finish(program, start(program, args, Stdio::null())?, |_| Ok(())).map(|(said, ())| said)
}

/// Standard output of a program that must succeed.
pub(super) fn answer(program: &str, args: &[&str]) -> Result<Vec<u8>, RuntimeError> {
    let said = ask(program, args)?;
    match said.status.success() {
        true => Ok(said.stdout),
        false => Err(failed(program, args, &said)),
    }
}

/// Gives it an archive on standard input; bytes that were sent.
pub(super) fn feed(
    program: &str,
    args: &[&str],
    archive: &Archive<'_>,
    progress: Progress<'_>,
) -> Result<u64, RuntimeError> {
    let child = start(program, args, Stdio::piped())?;
    let (said, sent) = finish(program, child, |child| {
        let stdin = child.stdin.take().ok_or_else(|| RuntimeError::Send(io::ErrorKind::BrokenPipe.into()))?;
        let mut pipe = Pipe { out: io::BufWriter::with_capacity(256 * 1024, stdin), broken: false };
        match archive.write(&mut pipe, progress) {
            Ok(sent) => Ok(Some(sent)),
            // It hung up: what it says is the reason.
            Err(_) if pipe.broken => Ok(None),
            Err(error) => {
                // It must not take what it has for all: it ends before its input does.
                let _ = child.kill();
                Err(error)
            }
        }
    })?;
    match sent {
        Some(sent) if said.status.success() => Ok(sent),
        _ => Err(failed(program, args, &said)),
    }
}

pub(super) fn failed(program: &str, args: &[&str], said: &Said) -> RuntimeError {
    let words: Vec<&str> = args.iter().copied().filter(|arg| !arg.starts_with('-')).take(3).collect();
    let mut text = said.stderr.trim().to_owned();
    if text.is_empty() {
        text = said.status.to_string();
    }
    RuntimeError::Program { program: [&[program], words.as_slice()].concat().join(" "), said: text }
}

fn start(program: &str, args: &[&str], stdin: Stdio) -> Result<Child, RuntimeError> {
    let mut command = Command::new(program);
    command.args(args).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|source| RuntimeError::Run { program: program.into(), source })
}

/// Does the work while two threads read what the program writes: it must not wait for a reader.
fn finish<T>(
    program: &str,
    mut child: Child,
    work: impl FnOnce(&mut Child) -> Result<T, RuntimeError>,
) -> Result<(Said, T), RuntimeError> {
    let run = |source| RuntimeError::Run { program: program.into(), source };
    let stdout = child.stdout.take().map(|out| thread::spawn(move || first(out)));
    let stderr = child.stderr.take().map(|out| thread::spawn(move || last(out)));
    let worked = work(&mut child);
    let status = child.wait().map_err(run)?;
    let join = |handle: Option<thread::JoinHandle<Vec<u8>>>| handle.and_then(|h| h.join().ok()).unwrap_or_default();
    let (stdout, stderr) = (join(stdout), join(stderr));
    Ok((Said { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }, worked?))
}

fn first(mut out: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    // What was read before an error is all there is.
    let _ = (&mut out).take(MAX_ANSWER).read_to_end(&mut kept);
    let _ = io::copy(&mut out, &mut io::sink());
    kept
}

fn last(mut out: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = out.read(&mut buffer) {
        kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let surplus = kept.len().saturating_sub(TAIL);
        kept.drain(..surplus);
    }
    kept
}

struct Pipe<W: Write> {
    out: io::BufWriter<W>,
    broken: bool,
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).inspect_err(|_| self.broken = true)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().inspect_err(|_| self.broken = true)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::runtime::{
        archive::{self, LoadImage},
        test_images::{image, layer, remote, store},
    };

    /// What a shell script says of an archive of about 2 MB.
    fn fed(script: &str) -> Result<u64, RuntimeError> {
        let (_keep, store) = store();
        let image = image(&store, &[layer(&store, &"0123456789abcdef".repeat(128 * 1024))]);
        let load = LoadImage { store: &store, image: &image, names: vec!["app:1".parse().unwrap()] };
        let archive = archive::docker(&load, 0).unwrap();
        feed("sh", &["-c", script], &archive, &|_, _| {})
    }

    #[test]
    fn an_archive_arrives_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let sent = fed(&format!("cat > {}", path.display())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), sent);
        let mut archive = tar::Archive::new(fs::File::open(&path).unwrap());
        let names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string());
        assert_eq!(names.filter(|name| name == "manifest.json").count(), 1);
    }

    #[test]
    fn a_program_that_hangs_up_says_why() {
        let error = fed("head -c 10 >/dev/null; echo no space >&2; exit 3").unwrap_err();
        assert!(error.to_string().ends_with("failed: no space"), "{error}");
        // Without a word, and although it was content with half of it.
        let error = fed("exec <&-; exit 0").unwrap_err();
        assert!(matches!(error, RuntimeError::Program { .. }), "{error}");
    }

    #[test]
    fn a_program_that_talks_without_end_is_not_waited_for() {
        let error =
            fed("head -c 1000000 /dev/zero | tr '\\0' x >&2; cat >/dev/null; echo end >&2; exit 1").unwrap_err();
        let said = error.to_string();
        assert!(said.ends_with("xend") && said.len() < TAIL + 100, "{said}");
    }

    #[test]
    fn an_archive_that_can_not_be_made_is_not_taken_for_whole() {
        let (_keep, store) = store();
        let image = image(&store, &[layer(&store, "a"), remote("b")]);
        let load = LoadImage { store: &store, image: &image, names: Vec::new() };
        let archive = archive::docker(&load, 0).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        let script = format!("cat >/dev/null && touch {}", path.display());
        let error = feed("sh", &["-c", &script], &archive, &|_, _| {}).unwrap_err();
        assert!(!error.is_runtimes(), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn programs_are_looked_for_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tool");
        fs::write(&path, "").unwrap();
        let found = dir.path().display().to_string();
        let vars = move |name: &str| (name == "PATH").then(|| format!("/nowhere:{found}"));
        assert!(!is_there(&vars, "tool"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(is_there(&vars, "tool"));
        assert!(matches!(ask("/nowhere/tool", &[]), Err(RuntimeError::Run { .. })));
    }
}
