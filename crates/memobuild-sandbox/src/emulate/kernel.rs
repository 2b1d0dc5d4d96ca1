//! What the kernel runs by itself: programs of this machine, and those that binfmt_misc has a handler for
//! (the kernel's Documentation/admin-guide/binfmt-misc.rst).

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

use super::machine::{Machine, matches};

/// Where the machine's handlers are listed.
const BINFMT_MISC: &str = "/proc/sys/fs/binfmt_misc";

/// An enabled handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handler {
    /// The program that runs such files.
    pub(super) interpreter: Vec<u8>,
    /// Whether the interpreter was opened when it was registered (flag F): it need not be in a step's root then.
    pub(super) opened: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

impl Handler {
    /// Reads the description that the kernel gives of an enabled handler by magic bytes.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = text.split(|b| *b == b'\n');
        if lines.next() != Some(b"enabled".as_slice()) {
            return None;
        }
        let field = |name: &str| text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()));
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse().ok();
        Some(Self {
            interpreter: field("interpreter ")?.to_vec(),
            opened: field("flags: ").is_some_and(|flags| flags.contains(&b'F')),
            offset: field("offset ").and_then(number).unwrap_or(0),
            magic: unhex(field("magic ")?)?,
            mask: field("mask ").map_or(Some(Vec::new()), unhex)?,
        })
    }

    /// Whether it runs files that begin so.
    fn takes(&self, head: &[u8]) -> bool {
        head.get(self.offset..).is_some_and(|bytes| matches(bytes, &self.magic, &self.mask))
    }
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

/// What is known of the kernel's handlers.
#[derive(Debug)]
pub(super) enum Handlers {
    /// They are listed: these are enabled.
    Listed(Vec<Handler>),
    /// The list can't be seen, as in most containers: there may be some all the same.
    Hidden,
}

impl Handlers {
    pub(super) fn look() -> Self {
        Self::look_in(Path::new(BINFMT_MISC))
    }

    fn look_in(dir: &Path) -> Self {
        let (Ok(status), Ok(entries)) = (fs::read(dir.join("status")), fs::read_dir(dir)) else { return Self::Hidden };
        if !status.starts_with(b"enabled") {
            return Self::Listed(Vec::new());
        }
        let parse = |entry: io::Result<fs::DirEntry>| {
            let name = entry.ok()?.file_name();
            let special = matches!(name.as_bytes(), b"status" | b"register");
            if special { None } else { Handler::parse(&fs::read(dir.join(name)).ok()?) }
        };
        Self::Listed(entries.filter_map(parse).collect())
    }

    /// The handler of programs that begin so, if it is known to work in a step; `has` tells whether a path is in the
    /// step's root.
    pub(super) fn find(&self, head: &[u8], has: impl Fn(&[u8]) -> bool) -> Option<&Handler> {
        let Self::Listed(all) = self else { return None };
        all.iter().find(|handler| handler.takes(head) && (handler.opened || has(&handler.interpreter)))
    }
}

/// Whether the kernel starts a program of that machine, tried with the smallest there is. Where handlers can't be
/// listed, this is the way to know.
pub(super) fn starts(machine: Machine) -> bool {
    // A file that somebody may still write to can't be started; a child of another thread may have it for a moment.
    const TRIES: u32 = 20;
    for _ in 0..TRIES {
        match start(machine) {
            Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) => {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            other => return other.is_ok(),
        }
    }
    false
}

fn start(machine: Machine) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let file = rustix::fs::memfd_create("memobuild-try", rustix::fs::MemfdFlags::CLOEXEC)?;
    let name = |file: &std::os::fd::OwnedFd| format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::io::write(file.as_fd(), &machine.smallest_program())?;
    let readable = rustix::fs::open(name(&file), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    drop(file);
    let mut command = Command::new(name(&readable));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env_clear();
    let mut child = command.spawn()?;
    // How it ends does not matter: an emulator that does not know its instructions has started it.
    child.wait().map(drop)
}

/// Whether this machine runs programs of that one itself.
pub(super) fn is_native(machine: Machine) -> bool {
    static OLDER: OnceLock<bool> = OnceLock::new();
    let Some(host) = Machine::host() else { return true };
    match (host.platform, machine.platform) {
        (a, b) if a == b => true,
        // Most of these processors can, if their kernel was made so.
        ("linux/amd64", "linux/386") | ("linux/arm64", "linux/arm/v7") => {
            *OLDER.get_or_init(|| Handlers::look().find(&machine.head(), |_| true).is_none() && starts(machine))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    const ARM64: &[u8] = b"enabled\ninterpreter /usr/bin/qemu\nflags: POF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn arm64() -> Machine {
        Machine::of_platform("linux/arm64").unwrap()
    }

    #[test]
    fn handlers_are_read_as_the_kernel_tells_them() {
        let handler = Handler::parse(ARM64).unwrap();
        assert!(handler.opened && handler.interpreter == b"/usr/bin/qemu");
        assert!(handler.takes(&arm64().head()));
        assert!(!handler.takes(&Machine::of_platform("linux/riscv64").unwrap().head()));
        assert!(!handler.takes(b"\x7fELF"));
        let text = String::from_utf8_lossy(ARM64).into_owned();
        assert_eq!(Handler::parse(text.replace("enabled", "disabled").as_bytes()), None);
        assert_eq!(Handler::parse(b"enabled\ninterpreter /usr/bin/java\nflags: \nextension .jar\n"), None);
        let no_mask = text.split("mask").next().unwrap();
        assert!(Handler::parse(no_mask.as_bytes()).unwrap().takes(&arm64().head()));
    }

    #[test]
    fn a_handler_whose_interpreter_is_looked_for_in_the_root_needs_it_there() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Handlers::look_in(dir.path()), Handlers::Hidden));
        fs::write(dir.path().join("status"), "enabled\n").unwrap();
        let text = String::from_utf8_lossy(ARM64).replace("POF", "PO");
        fs::write(dir.path().join("qemu"), text).unwrap();
        let handlers = Handlers::look_in(dir.path());
        assert!(handlers.find(&arm64().head(), |_| false).is_none());
        assert!(handlers.find(&arm64().head(), |path| path == b"/usr/bin/qemu").is_some());
        fs::write(dir.path().join("status"), "disabled\n").unwrap();
        assert!(Handlers::look_in(dir.path()).find(&arm64().head(), |_| true).is_none());
    }

    #[test]
    fn this_machine_runs_its_own_programs() {
        let Some(host) = Machine::host() else { return };
        assert!(is_native(host) && starts(host));
        let mips = Machine::of_platform("linux/mips").unwrap();
        assert!(!is_native(mips));
        if let listed @ Handlers::Listed(_) = Handlers::look() {
            assert_eq!(
                starts(mips),
                listed.find(&mips.head(), |at| Path::new(OsStr::from_bytes(at)).exists()).is_some()
            );
        }
    }
}
