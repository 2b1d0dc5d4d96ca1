//! Processor architectures: the names that images, QEMU and ELF files have for them (elf(5); the generic System V ABI,
//! chapter "Object Files").

/// Length of the part of an ELF header that tells the machine: identification, type, machine.
pub(crate) const HEAD: usize = 20;

/// A processor architecture that Linux runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The platform, as images have it.
    pub(crate) platform: &'static str,
    /// The end of the name of QEMU's user mode emulator for it.
    pub(crate) qemu: &'static str,
    /// Whether its words have 64 bits.
    wide: bool,
    little: bool,
    /// `e_machine`.
    number: u16,
    /// `e_flags` that its kernel insists on.
    flags: u32,
    /// Instructions that end a process with 0, where they are known here.
    exit: &'static [u8],
}

const fn machine(platform: &'static str, qemu: &'static str, class: (bool, bool), number: u16) -> Machine {
    Machine { platform, qemu, wide: class.0, little: class.1, number, flags: 0, exit: &[] }
}

impl Machine {
    const fn exits(self, flags: u32, exit: &'static [u8]) -> Self {
        Self { flags, exit, ..self }
    }
}

const WIDE_LITTLE: (bool, bool) = (true, true);
const WIDE_BIG: (bool, bool) = (true, false);
const LITTLE: (bool, bool) = (false, true);
const BIG: (bool, bool) = (false, false);

/// All of them.
pub(crate) const MACHINES: [Machine; 13] = [
    // mov eax, 60; xor edi, edi; syscall
    machine("linux/amd64", "x86_64", WIDE_LITTLE, 62).exits(0, b"\xb8\x3c\0\0\0\x31\xff\x0f\x05"),
    // mov x0, 0; mov x8, 93; svc 0
    machine("linux/arm64", "aarch64", WIDE_LITTLE, 183).exits(0, b"\x00\x00\x80\xd2\xa8\x0b\x80\xd2\x01\x00\x00\xd4"),
    // mov r0, 0; mov r7, 1; svc 0
    machine("linux/arm/v7", "arm", LITTLE, 40).exits(0x0500_0000, b"\x00\x00\xa0\xe3\x01\x70\xa0\xe3\x00\x00\x00\xef"),
    // mov eax, 1; xor ebx, ebx; int 0x80
    machine("linux/386", "i386", LITTLE, 3).exits(0, b"\xb8\x01\0\0\0\x31\xdb\xcd\x80"),
    // li a7, 93; li a0, 0; ecall
    machine("linux/riscv64", "riscv64", WIDE_LITTLE, 243).exits(0, b"\x93\x08\xd0\x05\x13\x05\x00\x00\x73\x00\x00\x00"),
    // li r0, 1; li r3, 0; sc
    machine("linux/ppc64le", "ppc64le", WIDE_LITTLE, 21).exits(2, b"\x01\x00\x00\x38\x00\x00\x60\x38\x02\x00\x00\x44"),
    // lhi %r2, 0; svc 1
    machine("linux/s390x", "s390x", WIDE_BIG, 22).exits(0, b"\xa7\x28\x00\x00\x0a\x01"),
    machine("linux/ppc64", "ppc64", WIDE_BIG, 21),
    machine("linux/loong64", "loongarch64", WIDE_LITTLE, 258),
    machine("linux/mips64le", "mips64el", WIDE_LITTLE, 8),
    machine("linux/mips64", "mips64", WIDE_BIG, 8),
    machine("linux/mipsle", "mipsel", LITTLE, 8),
    machine("linux/mips", "mips", BIG, 8),
];

/// Where the test program is loaded.
const LOAD_AT: u64 = 0x40_0000;
const EXECUTABLE: u16 = 2;

impl Machine {
    /// The one that this program was made for, which is the one that it runs on.
    pub(crate) fn host() -> Option<Self> {
        let platform = match std::env::consts::ARCH {
            "x86_64" => "linux/amd64",
            "aarch64" => "linux/arm64",
            "x86" => "linux/386",
            "arm" => "linux/arm",
            "riscv64" => "linux/riscv64",
            "s390x" => "linux/s390x",
            "powerpc64" if cfg!(target_endian = "little") => "linux/ppc64le",
            "powerpc64" => "linux/ppc64",
            "loongarch64" => "linux/loong64",
            _ => return None,
        };
        Self::of_platform(platform)
    }

    /// The one of a platform `os/architecture[/variant]`; variants are the same machine.
    pub(crate) fn of_platform(platform: &str) -> Option<Self> {
        let words = |text: &'static str| -> &'static str { text.rsplit_once("/v").map_or(text, |(rest, _)| rest) };
        MACHINES.into_iter().find(|machine| {
            let name = words(machine.platform);
            platform.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The one that a program is for, by the first bytes of its file; `None` for what is no ELF program, or one for
    /// a machine that images are not made for.
    pub(crate) fn of_program(head: &[u8]) -> Option<Self> {
        MACHINES.into_iter().find(|machine| matches(head, &machine.head(), &machine.mask()))
    }

    /// How a program's file begins.
    pub(crate) fn head(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        let class = [if self.wide { 2 } else { 1 }, if self.little { 1 } else { 2 }, 1];
        let ident = b"\x7fELF".iter().copied().chain(class).chain([0; 9]);
        let rest = self.half(EXECUTABLE).into_iter().chain(self.half(self.number));
        for (slot, byte) in head.iter_mut().zip(ident.chain(rest)) {
            *slot = byte;
        }
        head
    }

    /// Which bits of [`Machine::head`] all programs of the machine share: not the ABI's number and version, nor
    /// whether they can be moved (ET_EXEC is 2, ET_DYN is 3).
    pub(crate) fn mask(&self) -> [u8; HEAD] {
        let mut mask = [0xff; HEAD];
        mask[7] = 0;
        mask[8] = 0;
        mask[if self.little { 16 } else { 17 }] = 0xfe;
        mask
    }

    fn half(&self, value: u16) -> [u8; 2] {
        if self.little { value.to_le_bytes() } else { value.to_be_bytes() }
    }

    fn word(&self, value: u32) -> [u8; 4] {
        if self.little { value.to_le_bytes() } else { value.to_be_bytes() }
    }

    /// An address or offset.
    fn long(&self, value: u64) -> Vec<u8> {
        match (self.wide, self.little) {
            (true, true) => value.to_le_bytes().to_vec(),
            (true, false) => value.to_be_bytes().to_vec(),
            (false, _) => self.word(u32::try_from(value).unwrap_or(u32::MAX)).to_vec(),
        }
    }

    /// The smallest program: it ends with 0; where the instructions for that are not known here, it only begins.
    pub(crate) fn smallest_program(&self) -> Vec<u8> {
        let (header, segment): (u16, u16) = if self.wide { (64, 56) } else { (52, 32) };
        let begin = u64::from(header + segment);
        let length = begin + self.exit.len().max(4) as u64;
        let mut out = self.head().to_vec();
        out.extend(self.word(1));
        out.extend(self.long(LOAD_AT + begin));
        out.extend(self.long(header.into()));
        out.extend(self.long(0));
        out.extend(self.word(self.flags));
        for half in [header, segment, 1, 0, 0, 0] {
            out.extend(self.half(half));
        }
        const LOAD: u32 = 1;
        const READ_AND_EXECUTE: u32 = 5;
        out.extend(self.word(LOAD));
        if self.wide {
            out.extend(self.word(READ_AND_EXECUTE));
        }
        for long in [0, LOAD_AT, LOAD_AT, length, length] {
            out.extend(self.long(long));
        }
        if !self.wide {
            out.extend(self.word(READ_AND_EXECUTE));
        }
        out.extend(self.long(0x1_0000));
        out.extend(self.exit);
        out.resize(length as usize, 0);
        out
    }
}

/// Whether the bytes are the magic ones, where the mask has ones: the kernel's way in binfmt_misc.
pub(super) fn matches(bytes: &[u8], magic: &[u8], mask: &[u8]) -> bool {
    let masks = mask.iter().copied().chain(std::iter::repeat(0xff));
    bytes.len() >= magic.len() && bytes.iter().zip(magic).zip(masks).all(|((b, m), mask)| (b ^ m) & mask == 0)
}

/// Whether an ELF program needs no loader: it has no `PT_INTERP` in its first bytes, which must hold its program
/// headers. Anything else is `false`.
pub(super) fn is_static(head: &[u8]) -> bool {
    let wide = head.get(4) == Some(&2);
    let little = head.get(5) == Some(&1);
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = head.get(at..at.checked_add(length)?)?;
        let fold = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        let sum = if little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) };
        usize::try_from(sum).ok()
    };
    let look = || {
        let (table, size, count) = match wide {
            true => (number(32, 8)?, number(54, 2)?, number(56, 2)?),
            false => (number(28, 4)?, number(42, 2)?, number(44, 2)?),
        };
        const INTERP: usize = 3;
        for index in 0..count {
            if number(table.checked_add(size.checked_mul(index)?)?, 4)? == INTERP {
                return Some(false);
            }
        }
        Some(true)
    };
    head.starts_with(b"\x7fELF") && look().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_is_known_by_its_programs_and_by_its_platform() {
        for machine in MACHINES {
            let program = machine.smallest_program();
            assert_eq!(Machine::of_program(&program), Some(machine));
            assert_eq!(Machine::of_platform(machine.platform), Some(machine));
            assert!(is_static(&program), "{machine:?}");
        }
        assert_eq!(Machine::of_platform("linux/arm/v6").map(|m| m.qemu), Some("arm"));
        assert_eq!(Machine::of_platform("linux/amd64/v3").map(|m| m.qemu), Some("x86_64"));
        assert_eq!(Machine::of_platform("windows/amd64"), None);
        assert_eq!(Machine::of_program(b"#!/bin/sh\n"), None);
        assert_eq!(Machine::of_program(b"\x7fELF\x02\x01\x01"), None);
    }

    #[test]
    fn programs_that_can_be_moved_and_other_abis_are_the_same_machine() {
        let arm64 = Machine::of_platform("linux/arm64").unwrap();
        let mut head = arm64.head();
        head[16] = 3;
        head[7] = 3;
        assert_eq!(Machine::of_program(&head), Some(arm64));
        // An object file is no program.
        head[16] = 1;
        assert_eq!(Machine::of_program(&head), None);
    }

    #[test]
    fn the_smallest_program_runs_on_its_machine() {
        let Some(host) = Machine::host() else { return };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::write(&path, host.smallest_program()).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        // By a shell: another test's fork may have the file open for writing still.
        let status = std::process::Command::new("sh").arg("-c").arg(&path).status().unwrap();
        assert!(status.success(), "{status}");
    }

    #[test]
    fn a_program_with_a_loader_is_not_static() {
        let mut program = Machine::of_platform("linux/arm64").unwrap().smallest_program();
        program[64] = 3;
        assert!(!is_static(&program));
        assert!(!is_static(&program[..70]));
        assert!(!is_static(b"#!/bin/sh"));
    }
}
