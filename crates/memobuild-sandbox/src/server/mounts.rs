//! Making mounts without a place and putting them in place: thin words over the kernel's mount calls.

use std::{
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use memobuild_tree::path;
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

use super::{During, Failure};
use crate::sys;

/// Longest string that `fsconfig` takes (it copies at most 256 bytes, the final zero included).
const MAX_OPTION: usize = 255;

/// How often the kernel is asked again for a path that it could not follow for races.
const MOST_TRIES: u32 = 10_000;

/// A new file system of a type without a device, by options, not attached anywhere yet.
pub(super) fn make(kind: &str, options: &[(&str, String)], attributes: u32) -> Result<OwnedFd, Failure> {
    let what = || format!("mounting a {kind}");
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).during(what)?;
    for (key, value) in options {
        fsconfig_set_string(fs.as_fd(), *key, value.as_str()).during(|| format!("mounting a {kind}: option {key}"))?;
    }
    fsconfig_create(fs.as_fd()).during(what)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes);
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).during(what)
}

/// A tmpfs of at most `size` bytes. Its source is what df shows, and scripts look for.
pub(super) fn tmpfs(mode: u32, size: Option<u64>, attributes: u64) -> Result<OwnedFd, Failure> {
    let mut options = vec![("source", "tmpfs".to_owned()), ("mode", format!("{mode:o}"))];
    options.extend(size.map(|size| ("size", size.to_string())));
    make("tmpfs", &options, attributes as u32)
}

/// A copy of the mount tree at a path, all that is mounted below it included, with attributes added.
pub(super) fn bind(from: &[u8], attributes: u64) -> Result<OwnedFd, Failure> {
    let at = OsStr::from_bytes(from);
    let what = || format!("binding {}", Path::new(at).display());
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let mount = open_tree(CWD, at, flags).during(what)?;
    if attributes != 0 {
        sys::mount_set_attributes(mount.as_fd(), attributes, true).during(what)?;
    }
    Ok(mount)
}

/// Mounts on the place that the descriptor stands for.
pub(super) fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", place, c"", flags)?)
}

/// What an overlay is made of.
pub(super) struct Overlay<'a> {
    /// Uppermost first.
    pub(super) lowers: &'a [Box<[u8]>],
    /// Directory that `user.overlay.redirect` of data-only files starts from.
    pub(super) data: Option<&'a [u8]>,
    pub(super) upper: &'a [u8],
    pub(super) work: &'a [u8],
}

/// An overlay, not attached anywhere yet.
pub(super) fn overlay(o: &Overlay<'_>, attributes: u64) -> Result<OwnedFd, Failure> {
    // `volatile` spares a sync of the whole upper file system when the overlay goes; kernels before 5.10 lack it.
    let fs = match configure(o, true) {
        Err(e) if e.errno == libc::EINVAL => configure(o, false)?,
        other => other?,
    };
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(attributes as u32))
        .during(|| "mounting the overlay".into())
}

fn configure(o: &Overlay<'_>, volatile: bool) -> Result<OwnedFd, Failure> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).during(|| "opening an overlay".into())?;
    let mut keep = Vec::new();
    let mut set = |key: &str, value: &[u8]| -> Result<(), Failure> {
        let name = short_name(value, &mut keep)?;
        fsconfig_set_string(fs.as_fd(), key, name.as_c_str())
            .during(|| format!("overlay option {key}={}", path::display(value)))
    };
    let mut plus = true;
    for (index, lower) in o.lowers.iter().enumerate() {
        match set("lowerdir+", lower) {
            // Kernels before 6.8 know only the list in one string.
            Err(e) if e.errno == libc::EINVAL && index == 0 => plus = false,
            other => other?,
        }
        if !plus {
            break;
        }
    }
    if !plus {
        let mut all = Vec::new();
        for lower in o.lowers {
            if !all.is_empty() {
                all.push(b':');
            }
            for byte in lower.iter() {
                if matches!(byte, b':' | b'\\') {
                    all.push(b'\\');
                }
                all.push(*byte);
            }
        }
        fsconfig_set_string(fs.as_fd(), "lowerdir", OsStr::from_bytes(&all))
            .during(|| "overlay option lowerdir".into())?;
    }
    if let Some(data) = o.data {
        set("datadir+", data)?;
    }
    set("upperdir", o.upper)?;
    set("workdir", o.work)?;
    fsconfig_set_flag(fs.as_fd(), "userxattr").during(|| "overlay option userxattr".into())?;
    if volatile {
        fsconfig_set_flag(fs.as_fd(), "volatile").during(|| "overlay option volatile".into())?;
    }
    fsconfig_create(fs.as_fd()).during(|| format!("making the overlay{}", complaint(&fs)))?;
    Ok(fs)
}

/// What the kernel has to say about a file system that could not be made.
fn complaint(fs: &OwnedFd) -> String {
    let mut text = vec![0; 1024];
    match rustix::io::read(fs, &mut text) {
        Ok(length) => format!(" ({})", String::from_utf8_lossy(text.get(2..length).unwrap_or_default()).trim()),
        Err(_) => String::new(),
    }
}

/// A name for a path that is short enough for `fsconfig`: itself, or by way of a descriptor kept open.
fn short_name(at: &[u8], keep: &mut Vec<OwnedFd>) -> Result<CString, Failure> {
    let what = || format!("opening {}", path::display(at));
    let name = if at.len() < MAX_OPTION {
        at.to_vec()
    } else {
        let fd = rustix::fs::open(OsStr::from_bytes(at), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during(what)?;
        let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
        keep.push(fd);
        name.into_bytes()
    };
    CString::new(name).map_err(io::Error::from).during(what)
}

/// Opens a path below a root, links followed within it, making what lacks: directories on the way, and a directory or
/// an empty file at the end.
pub(super) fn place(root: BorrowedFd<'_>, at: &[u8], directory: bool) -> Result<OwnedFd, Failure> {
    let what = || format!("mount point {}", path::display(at));
    match open_in(root, at) {
        Err(Errno::NOENT) => {}
        other => return other.during(what),
    }
    let parts = path::components(at);
    let mut done: Vec<&[u8]> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let parent = open_in(root, &path::from_components(&done)).during(what)?;
        let name = OsStr::from_bytes(part);
        let made = if directory || index + 1 < parts.len() {
            rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))
        } else {
            rustix::fs::mknodat(&parent, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).during(what),
        }
        done.push(part);
    }
    open_in(root, at).during(what)
}

/// Opens a path below a root as a place only.
pub(crate) fn open_in(root: BorrowedFd<'_>, at: &[u8]) -> rustix::io::Result<OwnedFd> {
    let mut relative: &[u8] = at;
    while let [b'/', rest @ ..] = relative {
        relative = rest;
    }
    let relative = if relative.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(relative) };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    resolve_in(root, relative, flags, resolve)
}

/// openat2 for places. Whenever anything at all is mounted or renamed on the machine meanwhile, the kernel can't tell that
/// a `..` stayed within bounds, and says so: then it is asked again.
pub(super) fn resolve_in(
    from: impl AsFd,
    name: &OsStr,
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(&from, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < MOST_TRIES => tries += 1,
            other => return other,
        }
    }
}
