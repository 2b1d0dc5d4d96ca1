//! Handlers of other machines' programs for this server's user namespace alone (binfmt_misc, since Linux 6.7).
//!
//! The kernel asks the innermost user namespace that has a binfmt_misc of its own. It lives as long as its mount, which
//! is attached nowhere: whoever holds its descriptor decides.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags},
    mount::MountPropagationFlags,
    thread::UnshareFlags,
};

use super::{During, Failure, mounts};
use crate::{spec::Bytes, sys};

const ATTRIBUTES: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// Registers handlers, each a line as binfmt_misc takes it. Called in a process of its own in the server's user
/// namespace, which must not be the machine's.
pub(super) fn register(lines: &[Bytes]) -> Result<OwnedFd, Failure> {
    // File systems are made by whoever may mount in its mount namespace.
    sys::unshare(UnshareFlags::NEWNS).during(|| "making a mount namespace".into())?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .during(|| "making mounts private".into())?;
    let mount = mounts::make("binfmt_misc", &[], ATTRIBUTES as u32)
        .map_err(|e| Failure { what: format!("{} in a user namespace, as Linux 6.7 can", e.what), ..e })?;
    for line in lines {
        let what = || "registering an emulator".to_owned();
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let register = rustix::fs::openat(mount.as_fd(), "register", flags, Mode::empty()).during(what)?;
        rustix::io::write(&register, line).during(what)?;
    }
    Ok(mount)
}
