//! With one mapped id: answers the calls that would change owners or make devices, and remembers what was wanted. Calls
//! that set and get ids are answered by what [`super::identity`] makes of them.
//!
//! Owners of files and directories are written to the attribute [`OWNER_XATTR`] of the file itself, so that they
//! survive renames and copy-up; links, pipes and stand-ins for devices cannot have attributes and are remembered by
//! inode. A caller that goes away in the middle is no error; a call that cannot be carried out fails in the step as it
//! would without this.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
};

use rustix::{
    event::PollFlags,
    fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags},
    io::Errno,
};

use super::{
    During, Failure,
    identity::{self, Identities, Identity, Program},
    mounts, stage,
};
use crate::{
    channel,
    harvest::walk::{OWNER_XATTR, parse_owner},
    spec::Spec,
    sys::notify::{Answer, Call, answer, receive, still_waits},
};

/// A device number, major and minor.
type Number = (u32, u32);

/// What was remembered by inode of the upper directory.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    owners: HashMap<u64, (u32, u32)>,
    /// The same by path: a link copied up keeps the number of the lower one as long as the kernel remembers it.
    paths: HashMap<Vec<u8>, (u32, u32)>,
    devices: HashMap<u64, (u8, Number)>,
}

impl Owners {
    /// The owner that the step gave this file, if it cannot hold attributes.
    pub(crate) fn owner(&self, inode: u64, path: &[u8]) -> Option<(u32, u32)> {
        self.owners.get(&inode).or_else(|| self.paths.get(path)).copied()
    }

    /// The device that this socket stands for: 1 for a character, 2 for a block device, and its number.
    pub(crate) fn device(&self, inode: u64) -> Option<(u8, Number)> {
        self.devices.get(&inode).copied()
    }
}

/// Serves one step.
pub(super) struct Supervisor {
    /// The machine's /proc, which shows the step's processes by the ids that this process knows.
    proc: OwnedFd,
    near: OwnedFd,
    far: OwnedFd,
    listener: Option<OwnedFd>,
    gone: bool,
    owners: Owners,
    identities: Identities,
    single: bool,
    id_limit: u32,
}

/// More groups than this a process cannot have (NGROUPS_MAX).
const MOST_GROUPS: u64 = 65536;

impl Supervisor {
    pub(super) fn new(spec: &Spec) -> Result<Self, Failure> {
        let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .during(|| "opening /proc".into())?;
        let (near, far) = channel::pair().during(|| "making a socket".into())?;
        Ok(Self {
            proc,
            near,
            far,
            listener: None,
            gone: false,
            owners: Owners::default(),
            identities: Identities::new(Identity::new(&spec.asked)),
            single: spec.room.shape.single,
            id_limit: spec.id_limit,
        })
    }

    /// Where the command's process sends the descriptor of its filter.
    pub(super) fn far_end(&self) -> BorrowedFd<'_> {
        self.far.as_fd()
    }

    /// What to poll for input.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        if self.gone {
            return None;
        }
        Some(self.listener.as_ref().unwrap_or(&self.near).as_fd())
    }

    pub(super) fn into_owners(self) -> Owners {
        self.owners
    }

    /// Something came.
    pub(super) fn serve(&mut self, ready: PollFlags) -> Result<(), Failure> {
        let Some(listener) = self.listener.take() else {
            match stage::receive_descriptor(self.near.as_fd()) {
                Some(listener) => self.listener = Some(listener),
                None => self.gone = true,
            }
            return Ok(());
        };
        if !ready.contains(PollFlags::IN) {
            // Every process under the filter is gone.
            self.gone = true;
            return Ok(());
        }
        if let Some(call) = receive(listener.as_fd()).during(|| "hearing of a system call".into())? {
            let result = match self.carry_out(listener.as_fd(), &call) {
                Ok(answer) => answer,
                Err(e) => Answer::Error(e.raw_os_error()),
            };
            answer(listener.as_fd(), call.id, result).during(|| "answering a system call".into())?;
        }
        self.listener = Some(listener);
        Ok(())
    }

    fn carry_out(&mut self, listener: BorrowedFd<'_>, call: &Call) -> Result<Answer, Errno> {
        if let Some(answer) = self.not_ours(call) {
            return Ok(answer);
        }
        let [a, b, c, d, e, _] = call.args;
        let here = libc::AT_FDCWD;
        match call.number {
            libc::SYS_fchown => {
                let target = self.open_proc(call.pid, &format!("fd/{}", a as i32), true)?;
                self.chown(listener, call, &target, (b as u32, c as u32))
            }
            libc::SYS_fchownat => {
                let name = self.string(call.pid, b)?;
                let flags = e as i32;
                let target = if name.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
                    let at = if a as i32 == here { "cwd".into() } else { format!("fd/{}", a as i32) };
                    self.open_proc(call.pid, &at, true)?
                } else {
                    self.find(call.pid, a as i32, &name, flags & libc::AT_SYMLINK_NOFOLLOW == 0)?
                };
                self.chown(listener, call, &target, (c as u32, d as u32))
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chown | libc::SYS_lchown => {
                let name = self.string(call.pid, a)?;
                let target = self.find(call.pid, here, &name, call.number == libc::SYS_chown)?;
                self.chown(listener, call, &target, (b as u32, c as u32))
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mknod => {
                let name = self.string(call.pid, a)?;
                self.mknod(listener, call, here, &name, (b as u32, c))
            }
            libc::SYS_mknodat => {
                let name = self.string(call.pid, b)?;
                self.mknod(listener, call, a as i32, &name, (c as u32, d))
            }
            _ => self.ids(listener, call),
        }
    }

    /// What the caller is.
    fn identity(&mut self, call: &Call) -> Result<Identity, Errno> {
        let proc = &self.proc;
        self.identities.of(call.pid, || program(proc, call.pid)).map_err(errno)
    }

    /// Calls that set or get ids.
    fn ids(&mut self, listener: BorrowedFd<'_>, call: &Call) -> Result<Answer, Errno> {
        let mut who = self.identity(call)?;
        let [a, b, c, ..] = call.args;
        let (x, y, z) = (a as u32, b as u32, c as u32);
        let root = who.is_root();
        let value = |id: u32| Ok(Answer::Value(id.into()));
        let result = match call.number {
            libc::SYS_getuid => return value(who.uids[0]),
            libc::SYS_geteuid => return value(who.uids[1]),
            libc::SYS_getgid => return value(who.gids[0]),
            libc::SYS_getegid => return value(who.gids[1]),
            libc::SYS_getresuid => {
                return self.give(listener, call, &[(a, who.uids[0]), (b, who.uids[1]), (c, who.uids[2])]);
            }
            libc::SYS_getresgid => {
                return self.give(listener, call, &[(a, who.gids[0]), (b, who.gids[1]), (c, who.gids[2])]);
            }
            libc::SYS_getgroups => return self.get_groups(listener, call, &who),
            // Both tell the id that files are made with, and nothing else; setting it changes nothing here.
            libc::SYS_setfsuid => return value(who.uids[1]),
            libc::SYS_setfsgid => return value(who.gids[1]),
            libc::SYS_setuid => identity::set(&mut who.uids, root, x),
            libc::SYS_setgid => identity::set(&mut who.gids, root, x),
            libc::SYS_setreuid => identity::set_two(&mut who.uids, root, x, y),
            libc::SYS_setregid => identity::set_two(&mut who.gids, root, x, y),
            libc::SYS_setresuid => identity::set_three(&mut who.uids, root, [x, y, z]),
            libc::SYS_setresgid => identity::set_three(&mut who.gids, root, [x, y, z]),
            libc::SYS_setgroups if a > MOST_GROUPS => Err(libc::EINVAL),
            libc::SYS_setgroups => {
                let bytes = self.bytes(call.pid, b, a as usize * 4)?;
                let groups = bytes.chunks_exact(4).map(|g| g.try_into().map(u32::from_le_bytes).unwrap_or_default());
                who.set_groups(groups.collect())
            }
            _ => return Err(Errno::NOSYS),
        };
        if let Err(errno) = result {
            return Ok(Answer::Error(errno));
        }
        if !still_waits(listener, call.id) {
            return Err(Errno::SRCH);
        }
        self.identities.change(call.pid, who).map_err(errno)?;
        Ok(Answer::Value(0))
    }

    fn get_groups(&self, listener: BorrowedFd<'_>, call: &Call, who: &Identity) -> Result<Answer, Errno> {
        let [size, list, ..] = call.args;
        let count = who.groups.len();
        if size as i32 != 0 {
            if (size as i32) < count as i32 {
                return Ok(Answer::Error(libc::EINVAL));
            }
            let places: Vec<(u64, u32)> =
                who.groups.iter().enumerate().map(|(n, group)| (list + 4 * n as u64, *group)).collect();
            self.give(listener, call, &places)?;
        }
        Ok(Answer::Value(count as i64))
    }

    /// Writes ids to places in the caller's memory.
    fn give(&self, listener: BorrowedFd<'_>, call: &Call, ids: &[(u64, u32)]) -> Result<Answer, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let memory = rustix::fs::openat(&self.proc, format!("{}/mem", call.pid), flags, Mode::empty())?;
        if !still_waits(listener, call.id) {
            return Err(Errno::SRCH);
        }
        for (address, id) in ids {
            let written = rustix::io::pwrite(&memory, &id.to_le_bytes(), *address);
            if written != Ok(4) {
                return Ok(Answer::Error(libc::EFAULT));
            }
        }
        Ok(Answer::Value(0))
    }

    /// Bytes in the caller's memory.
    fn bytes(&self, pid: u32, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let memory = rustix::fs::openat(&self.proc, format!("{pid}/mem"), flags, Mode::empty())?;
        let mut out = vec![0; length];
        match rustix::io::pread(&memory, &mut out, address) {
            Ok(got) if got == length => Ok(out),
            _ if length == 0 => Ok(out),
            _ => Err(Errno::FAULT),
        }
    }

    /// With ranges of ids the kernel decides on its own but for what it cannot do at all, and then only root's calls
    /// are carried out here.
    fn not_ours(&self, call: &Call) -> Option<Answer> {
        if self.single {
            return None;
        }
        let [_, b, c, d, _, _] = call.args;
        let ids = match call.number {
            libc::SYS_fchownat => [c, d],
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chown | libc::SYS_lchown => [b, c],
            libc::SYS_fchown => [b, c],
            _ => return (!self.is_root(call.pid)).then_some(Answer::Error(libc::EPERM)),
        };
        let beyond = |id: u64| id as u32 != u32::MAX && id as u32 >= self.id_limit;
        if !ids.into_iter().any(beyond) {
            return Some(Answer::Continue);
        }
        (!self.is_root(call.pid)).then_some(Answer::Error(libc::EPERM))
    }

    /// Whether the caller is root in the step.
    fn is_root(&self, pid: u32) -> bool {
        // The second of four ids is the effective one; /proc tells them as this process sees them.
        self.status(pid, "Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
    }

    fn chown(
        &mut self,
        listener: BorrowedFd<'_>,
        call: &Call,
        target: &OwnedFd,
        (uid, gid): (u32, u32),
    ) -> Result<Answer, Errno> {
        if self.single && !self.identity(call)?.may_give(uid, gid) {
            return Ok(Answer::Error(libc::EPERM));
        }
        if !still_waits(listener, call.id) {
            return Err(Errno::SRCH);
        }
        // The real call copies the file up and takes set-id bits away, as the wanted one would.
        let here = |id: u32| if self.single || id >= self.id_limit { 0 } else { id };
        let keep = |id: u32, shown: u32| if id == u32::MAX && !self.single { u32::MAX } else { shown };
        let (shown_uid, shown_gid) = (keep(uid, here(uid)), keep(gid, here(gid)));
        let uid_arg = (shown_uid != u32::MAX).then(|| Uid::from_raw(shown_uid));
        let gid_arg = (shown_gid != u32::MAX).then(|| Gid::from_raw(shown_gid));
        rustix::fs::chownat(target, "", uid_arg, gid_arg, AtFlags::EMPTY_PATH)?;
        let stat = rustix::fs::fstat(target)?;
        let attribute = matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory);
        // Attributes are set by path only, and only this /proc knows this process.
        rustix::process::fchdir(&self.proc)?;
        let path = format!("self/fd/{}", target.as_raw_fd());
        // Starts at this process's root, which pivot_root made the step's.
        let own_path = rustix::fs::readlinkat(&self.proc, path.as_str(), Vec::new())?.into_bytes();
        let mut owner = if attribute {
            let mut value = [0u8; 64];
            match rustix::fs::getxattr(path.as_str(), OsStr::from_bytes(OWNER_XATTR), &mut value) {
                Ok(length) => value.get(..length).and_then(parse_owner).unwrap_or_default(),
                Err(_) => (0, 0),
            }
        } else {
            self.owners.owner(stat.st_ino, &own_path).unwrap_or_default()
        };
        if uid != u32::MAX {
            owner.0 = uid;
        }
        if gid != u32::MAX {
            owner.1 = gid;
        }
        if attribute {
            let value = format!("{}:{}", owner.0, owner.1);
            let name = OsStr::from_bytes(OWNER_XATTR);
            match rustix::fs::setxattr(path.as_str(), name, value.as_bytes(), XattrFlags::empty()) {
                // Outside of the root (a tmpfs without attributes, /proc) no owner is ever asked for.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::ROFS | Errno::PERM) => {}
                Err(e) => return Err(e),
            }
        } else {
            self.owners.owners.insert(stat.st_ino, owner);
            self.owners.paths.insert(own_path, owner);
        }
        Ok(Answer::Value(0))
    }

    /// Puts a socket where a device is wanted: it cannot be opened, as the device could not.
    fn mknod(
        &mut self,
        listener: BorrowedFd<'_>,
        call: &Call,
        dir: i32,
        name: &[u8],
        (mode, number): (u32, u64),
    ) -> Result<Answer, Errno> {
        let (parent, last) = match name.iter().rposition(|b| *b == b'/') {
            Some(slash) => (name.get(..=slash).unwrap_or_default(), name.get(slash + 1..).unwrap_or_default()),
            None => (b".".as_slice(), name),
        };
        let parent = self.find(call.pid, dir, parent, true)?;
        if !still_waits(listener, call.id) {
            return Err(Errno::SRCH);
        }
        let umask = self.umask(call.pid).unwrap_or(0o022);
        let permissions = Mode::from_raw_mode(mode & 0o7777 & !umask);
        rustix::fs::mknodat(&parent, OsStr::from_bytes(last), FileType::Socket, permissions, 0)?;
        let stat = rustix::fs::statat(&parent, OsStr::from_bytes(last), AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = if mode & libc::S_IFMT == libc::S_IFBLK { 2 } else { 1 };
        let number = (rustix::fs::major(number), rustix::fs::minor(number));
        self.owners.devices.insert(stat.st_ino, (kind, number));
        Ok(Answer::Value(0))
    }

    fn umask(&self, pid: u32) -> Option<u32> {
        u32::from_str_radix(self.status(pid, "Umask:")?.trim(), 8).ok()
    }

    /// A line of /proc/PID/status.
    fn status(&self, pid: u32, field: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.proc, format!("{pid}/status"), flags, Mode::empty());
        let mut text = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(file.ok()?), &mut text).ok()?;
        text.lines().find_map(|l| l.strip_prefix(field)).map(str::to_owned)
    }

    fn open_proc(&self, pid: u32, what: &str, follow: bool) -> Result<OwnedFd, Errno> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        match rustix::fs::openat(&self.proc, format!("{pid}/{what}"), flags, Mode::empty()) {
            Err(Errno::NOENT) if what.starts_with("fd/") => Err(Errno::BADF),
            other => other,
        }
    }

    /// A C string in the caller's memory.
    fn string(&self, pid: u32, address: u64) -> Result<Vec<u8>, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let memory = rustix::fs::openat(&self.proc, format!("{pid}/mem"), flags, Mode::empty())?;
        let mut out = Vec::new();
        while out.len() < libc::PATH_MAX as usize {
            let mut piece = [0u8; 256];
            // Never across a page, which might not be there.
            let at = address + out.len() as u64;
            let room = (4096 - at % 4096).min(256) as usize;
            let piece = piece.get_mut(..room).ok_or(Errno::FAULT)?;
            let got = rustix::io::pread(&memory, &mut *piece, at).map_err(|_| Errno::FAULT)?;
            let piece = piece.get(..got).filter(|p| !p.is_empty()).ok_or(Errno::FAULT)?;
            if let Some(end) = piece.iter().position(|b| *b == 0) {
                out.extend_from_slice(piece.get(..end).unwrap_or_default());
                return Ok(out);
            }
            out.extend_from_slice(piece);
        }
        Err(Errno::NAMETOOLONG)
    }

    /// Opens what a path means to the caller.
    fn find(&self, pid: u32, dir: i32, name: &[u8], follow: bool) -> Result<OwnedFd, Errno> {
        if name.is_empty() {
            return Err(Errno::NOENT);
        }
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        let base = if dir == libc::AT_FDCWD { "cwd".into() } else { format!("fd/{dir}") };
        if name.first() != Some(&b'/') {
            let base = self.open_proc(pid, &base, true)?;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            match mounts::resolve_in(&base, OsStr::from_bytes(name), flags, resolve) {
                // It leads up or through an absolute link: once more, from the root.
                Err(Errno::XDEV) => {}
                other => return other,
            }
        }
        let root = self.open_proc(pid, "root", true)?;
        let mut whole = OsString::new();
        if name.first() != Some(&b'/') {
            let from = rustix::fs::readlinkat(&self.proc, format!("{pid}/{base}"), Vec::new())?;
            // What readlink shows starts at this process's root, which pivot_root made the step's.
            whole = OsString::from_vec(from.into_bytes());
            whole.push("/");
        }
        whole.push(OsStr::from_bytes(name));
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        mounts::resolve_in(&root, whole.as_os_str(), flags, resolve)
    }
}

fn errno(e: io::Error) -> Errno {
    Errno::from_io_error(&e).unwrap_or(Errno::IO)
}

/// What a process runs, and as whom that makes it run.
fn program(proc: &OwnedFd, pid: u32) -> Option<Program> {
    let at = format!("{pid}/exe");
    let stat = rustix::fs::statat(proc, at.as_str(), AtFlags::empty()).ok()?;
    let id = (stat.st_dev, stat.st_ino);
    let mode = stat.st_mode;
    if mode & (libc::S_ISUID | libc::S_ISGID) == 0 {
        return Some(Program { id, user: None, group: None });
    }
    rustix::process::fchdir(proc).ok()?;
    let mut value = [0u8; 64];
    let owner = match rustix::fs::getxattr(at.as_str(), OsStr::from_bytes(OWNER_XATTR), &mut value) {
        Ok(length) => value.get(..length).and_then(parse_owner).unwrap_or_default(),
        Err(_) => (0, 0),
    };
    // Without the group's right to execute the bit means something else.
    let group = mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0;
    Some(Program { id, user: (mode & libc::S_ISUID != 0).then_some(owner.0), group: group.then_some(owner.1) })
}
