//! QEMU's user mode emulators on this machine: where they lie, and how they are registered with the kernel.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use super::{
    kernel::is_native,
    machine::{MACHINES, Machine, is_static},
};

/// Where Debian has links whose name tells the emulator that it is called with flag P.
const DEBIAN: &str = "/usr/libexec/qemu-binfmt";
/// Looked at besides PATH.
const USUAL: [&str; 2] = ["/usr/bin", "/usr/local/bin"];
/// The first QEMU that hears from the kernel whether it was called with flag P.
const KNOWS_P: u32 = 6;
/// The kernel refuses longer registrations.
const LONGEST: usize = 1920;

/// An emulator that needs nothing of a step's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Emulator {
    /// What it emulates.
    pub(crate) machine: Machine,
    /// The program.
    pub(crate) path: PathBuf,
}

impl Emulator {
    /// Those on this machine, for all that it can't run itself. Looked for once.
    pub(super) fn all() -> &'static [Self] {
        static ALL: OnceLock<Vec<Emulator>> = OnceLock::new();
        ALL.get_or_init(|| MACHINES.into_iter().filter(|machine| !is_native(*machine)).filter_map(Self::find).collect())
    }

    /// The one for a machine.
    fn find(machine: Machine) -> Option<Self> {
        let debian = Path::new(DEBIAN).join(format!("{}-binfmt-P", machine.qemu));
        if fits(&debian) {
            return Some(Self { machine, path: debian });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(USUAL.map(PathBuf::from)).collect();
        let names = [format!("qemu-{}-static", machine.qemu), format!("qemu-{}", machine.qemu)];
        let at = names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
        let usable = |at: &PathBuf| at.is_absolute() && fits(at) && version(at).is_some_and(|major| major >= KNOWS_P);
        Some(Self { machine, path: at.into_iter().find(usable)? })
    }

    /// The line that registers it. Flags: F, the kernel opens the program now, so that no step has to have it; C, set-id
    /// programs are; O, it gets the command's file open; P, and its first argument, by which programs like busybox tell
    /// what they are. `None` if no such line can be written.
    pub(crate) fn registration(&self) -> Option<Box<[u8]>> {
        use std::os::unix::ffi::OsStrExt;
        let escaped = |bytes: &[u8]| bytes.iter().map(|b| format!("\\x{b:02x}")).collect::<String>();
        let (magic, mask) = (escaped(&self.machine.head()), escaped(&self.machine.mask()));
        let path = self.path.as_os_str().as_bytes();
        let start = format!(":memobuild-{}:M::{magic}:{mask}:", self.machine.qemu);
        let line = [start.as_bytes(), path, b":POCF"].concat();
        // What ends a field can't be told from what belongs to it.
        let plain = !path.iter().any(|b| matches!(b, b':' | b'\n'));
        (plain && line.len() <= LONGEST).then(|| line.into())
    }
}

/// Whether it is a program of this machine that needs no other file.
fn fits(at: &Path) -> bool {
    const HEADERS: u64 = 4096;
    let mut head = Vec::new();
    let read = fs::File::open(at).and_then(|file| file.take(HEADERS).read_to_end(&mut head));
    read.is_ok() && Machine::of_program(&head).is_some_and(is_native) && is_static(&head)
}

/// The major version that it says it has.
fn version(at: &Path) -> Option<u32> {
    let output = Command::new(at).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    major(&String::from_utf8_lossy(&output.stdout))
}

/// `7` of `qemu-aarch64 version 7.2.15 (...)`.
fn major(text: &str) -> Option<u32> {
    let (_, rest) = text.lines().next()?.split_once(" version ")?;
    rest.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major("qemu-aarch64 version 7.2.15 (Debian 1:7.2+dfsg-7)\nCopyright"), Some(7));
        assert_eq!(major("qemu-arm version 10.0.2"), Some(10));
        assert_eq!(major("something else"), None);
    }

    #[test]
    fn a_registration_is_one_line_of_the_kernels_form() {
        let machine = Machine::of_platform("linux/arm64").unwrap();
        let emulator = Emulator { machine, path: "/usr/bin/qemu-aarch64-static".into() };
        let line = String::from_utf8(emulator.registration().unwrap().into_vec()).unwrap();
        let fields: Vec<&str> = line.split(':').collect();
        assert_eq!(fields.len(), 8, "{line}");
        assert_eq!((fields[1], fields[2], fields[7]), ("memobuild-aarch64", "M", "POCF"));
        assert!(
            fields[4].starts_with("\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00") && fields[4].len() == fields[5].len()
        );
        let emulator = Emulator { machine, path: "/a:b/qemu".into() };
        assert_eq!(emulator.registration(), None);
    }
}
