//! The command's own process, from its fork to its exec: limits, descriptors, capabilities, filter, user.

use std::{
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{
    fs::{Mode, OFlags},
    thread::{CapabilitySet, CapabilitySets, Gid, Uid},
};

use super::{During, Failure, filter};
use crate::{channel, spec::Event, spec::Spec, sys};

/// What Docker and BuildKit give a container.
pub(super) const DEFAULT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Why the command did not start: what a shell or runc would say, and the exit code it would give.
pub(super) struct NotStarted {
    pub(super) reason: String,
    pub(super) code: i32,
}

impl From<Failure> for NotStarted {
    fn from(e: Failure) -> Self {
        Self { reason: format!("{}: {}", e.what, describe(e.errno)), code: 126 }
    }
}

/// The kernel's words for an error number, without Rust's `(os error N)`.
pub(crate) fn describe(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Whether this step runs under namespaces of its own or, in chroot mode, with what its container left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confinement {
    /// Capabilities are dropped and the filter installed.
    Own,
    /// The surrounding container confines already. What can be taken away on top is.
    Inherited,
}

/// Becomes the command. Returns only if that fails; then `report` is still open, and of all other descriptors nothing is.
pub(super) fn become_command(
    spec: &Spec,
    output: (BorrowedFd<'_>, BorrowedFd<'_>),
    listener: Option<BorrowedFd<'_>>,
    report: BorrowedFd<'_>,
    confinement: Confinement,
) -> NotStarted {
    match prepare(spec, output, listener, report, confinement) {
        Ok(()) => exec(spec),
        Err(e) => e,
    }
}

/// Goes to the working directory. One that the image lacks is made, root's, and stays, as runc has it.
fn enter_cwd(cwd: &OsStr) -> io::Result<()> {
    match rustix::process::chdir(cwd) {
        Err(rustix::io::Errno::NOENT) => {
            std::fs::create_dir_all(cwd)?;
            rustix::process::chdir(cwd)?;
        }
        other => other?,
    }
    // What is not below the root has no path that begins with a slash (getcwd(2)).
    match rustix::process::getcwd(Vec::new())?.to_bytes() {
        [b'/', ..] => Ok(()),
        _ => Err(rustix::io::Errno::ACCESS.into()),
    }
}

fn prepare(
    spec: &Spec,
    (stdout, stderr): (BorrowedFd<'_>, BorrowedFd<'_>),
    listener: Option<BorrowedFd<'_>>,
    report: BorrowedFd<'_>,
    confinement: Confinement,
) -> Result<(), NotStarted> {
    sys::reset_signals(false);
    rustix::process::setsid().during(|| "making a session".into())?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .during(|| "opening /dev/null".into())?;
    for (number, fd) in [(0, null.as_fd()), (1, stdout), (2, stderr)] {
        sys::dup_to_stdio(fd, number).during(|| "setting up standard streams".into())?;
    }
    drop(null);
    // Before a path of the Dockerfile's is followed: `/proc/self/fd/N` would lead out by any directory that is open here.
    let kept: Vec<BorrowedFd<'_>> = listener.into_iter().chain([report]).collect();
    sys::close_all_but(&kept).during(|| "closing descriptors".into())?;
    sys::close_on_exec_from_3().during(|| "closing descriptors".into())?;
    enter_cwd(OsStr::from_bytes(&spec.cwd))
        .during(|| format!("chdir to cwd ({:?})", String::from_utf8_lossy(&spec.cwd)))?;
    for (resource, soft, hard) in &spec.limits {
        // Without effect anyway, and where identities are kept.
        if *resource == libc::RLIMIT_LOCKS && spec.room.shape.single {
            continue;
        }
        sys::set_limit(*resource, *soft, *hard).during(|| format!("setting resource limit {resource}"))?;
    }
    let own = confinement == Confinement::Own;
    let choice = filter::Choice {
        confine: !spec.room.shape.insecure,
        supervise: own && spec.supervise,
        answer_ids: own && spec.room.shape.single,
    };
    if choice.confine || choice.supervise {
        let notify = match sys::install_filter(&filter::program(choice), choice.supervise) {
            // Without privileges only a process that gives up set-id programs may, which a build can't.
            Err(e) if !own && e.raw_os_error() == Some(libc::EACCES) => None,
            other => other.during(|| "installing the system call filter".into())?,
        };
        if let (Some(notify), Some(listener)) = (notify, listener) {
            channel::send(listener, &Event::Started {}, &[notify.as_fd()])
                .during(|| "handing the filter over".into())?;
        }
    }
    become_user(spec)?;
    if own {
        // Changes of ids have taken it away.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    }
    Ok(())
}

fn become_user(spec: &Spec) -> Result<(), NotStarted> {
    let keep = if spec.room.shape.insecure { CapabilitySet::all() } else { DEFAULT_CAPABILITIES };
    for capability in CapabilitySet::all().difference(keep).iter() {
        // A capability that the kernel does not know is not in the set either.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let (uid, gid, groups) = &spec.ids;
    if !spec.room.shape.single {
        let groups: Vec<Gid> = groups.iter().map(|g| Gid::from_raw(*g)).collect();
        rustix::thread::set_thread_groups(&groups).during(|| "setting groups".into())?;
        let gid = Gid::from_raw(*gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid).during(|| format!("becoming group {gid:?}"))?;
        let uid = Uid::from_raw(*uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).during(|| format!("becoming user {uid:?}"))?;
    }
    if *uid == 0 || spec.room.shape.single {
        let have = rustix::thread::capabilities(None).during(|| "reading capabilities".into())?;
        let set = have.permitted & keep;
        let sets = CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets).during(|| "setting capabilities".into())?;
    }
    Ok(())
}

fn exec(spec: &Spec) -> NotStarted {
    let strings = |list: &[Box<[u8]>]| -> Vec<CString> {
        list.iter().map(|s| CString::new(s.to_vec()).unwrap_or_default()).collect()
    };
    let (argv, env) = (strings(&spec.argv), strings(&spec.env));
    let Some(command) = spec.argv.first() else {
        return NotStarted { reason: "no command".into(), code: 127 };
    };
    let name = String::from_utf8_lossy(command);
    let mut last = libc::ENOENT;
    for path in candidates(command, &spec.env) {
        let Ok(path) = CString::new(path) else { continue };
        match sys::exec(&path, &argv, &env).raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            // As execvp: a refusal is remembered, the search goes on.
            Some(libc::EACCES) => last = libc::EACCES,
            other => {
                last = other.unwrap_or(libc::EIO);
                break;
            }
        }
    }
    let (reason, code) = match last {
        libc::ENOENT if command.contains(&b'/') => (format!("exec {name:?}: no such file or directory"), 127),
        libc::ENOENT => (format!("exec {name:?}: executable file not found in $PATH"), 127),
        errno => (format!("exec {name:?}: {}", describe(errno)), 126),
    };
    NotStarted { reason, code }
}

/// Where a command may lie: itself if it has a slash, else in each directory of PATH.
fn candidates(command: &[u8], env: &[Box<[u8]>]) -> Vec<Vec<u8>> {
    if command.contains(&b'/') {
        return vec![command.to_vec()];
    }
    let path = env.iter().find_map(|e| e.strip_prefix(b"PATH=")).unwrap_or_default();
    path.split(|b| *b == b':')
        .map(|dir| if dir.is_empty() { command.to_vec() } else { [dir, b"/", command].concat() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_looked_for_along_path() {
        let env: Vec<Box<[u8]>> = vec![b"A=1".as_slice().into(), b"PATH=/a:/b".as_slice().into()];
        assert_eq!(candidates(b"x", &env), [b"/a/x".to_vec(), b"/b/x".to_vec()]);
        assert_eq!(candidates(b"./x", &env), [b"./x".to_vec()]);
    }

    /// The fourteen of Docker's documentation ("Runtime privilege and Linux capabilities"), by the bits that
    /// capabilities(7) gives them, and no other.
    #[test]
    fn steps_have_dockers_default_capabilities() {
        let bits = [
            ("CHOWN", 0),
            ("DAC_OVERRIDE", 1),
            ("FOWNER", 3),
            ("FSETID", 4),
            ("KILL", 5),
            ("SETGID", 6),
            ("SETUID", 7),
            ("SETPCAP", 8),
            ("NET_BIND_SERVICE", 10),
            ("NET_RAW", 13),
            ("SYS_CHROOT", 18),
            ("MKNOD", 27),
            ("AUDIT_WRITE", 29),
            ("SETFCAP", 31),
        ];
        for (name, bit) in bits {
            assert!(DEFAULT_CAPABILITIES.bits() & 1 << bit != 0, "{name}");
        }
        assert_eq!(DEFAULT_CAPABILITIES.bits().count_ones(), 14);
    }
}
