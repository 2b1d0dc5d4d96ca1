//! The step's root: overlay, /proc, /sys, /dev, the caller's mounts, masked paths.
//!
//! What is mounted and with which flags follows the OCI runtime specification's default file systems
//! (config-linux.md) and what runc masks by default, so that programs find what they find under BuildKit.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use memobuild_tree::path;
use rustix::{
    fs::{Mode, OFlags},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags},
    thread::UnshareFlags,
};

use super::{
    During, Failure, device,
    mounts::{self, Overlay},
    remove,
};
use crate::{
    channel,
    fuse::sides::Side,
    harvest::walk::OPAQUE,
    spec::{Event, Room, Source, Spec},
    sys,
};

const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;

/// Where the kernel's own file systems stand in the root.
const SYSTEM_DIRS: [&str; 3] = ["proc", "sys", "dev"];

/// Kernel files that tell or change too much of the machine.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Kernel files that may be read only.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A path below the step's directory.
pub(super) fn below(room: &Room, name: &str) -> Vec<u8> {
    [&room.dir, b"/".as_slice(), name.as_bytes()].concat()
}

/// A path in the step's tmpfs.
fn in_memory(room: &Room, name: &str) -> Vec<u8> {
    [&room.mem, b"/".as_slice(), name.as_bytes()].concat()
}

fn mkdir(at: &[u8]) -> Result<(), Failure> {
    rustix::fs::mkdir(OsStr::from_bytes(at), Mode::from_raw_mode(0o755))
        .during(|| format!("making {}", path::display(at)))
}

fn open_place(at: &[u8]) -> Result<OwnedFd, Failure> {
    rustix::fs::open(OsStr::from_bytes(at), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .during(|| format!("opening {}", path::display(at)))
}

fn attach_at(mount: &OwnedFd, at: &[u8]) -> Result<(), Failure> {
    mounts::attach(mount.as_fd(), open_place(at)?.as_fd()).during(|| format!("mounting on {}", path::display(at)))
}

/// Makes a room: the directories of a step and FUSE. Called in the step's mount namespace by the process that stays
/// outside of its pid namespace.
pub(super) fn prepare(room: &Room, socket: BorrowedFd<'_>) -> Result<(), Failure> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .during(|| "making mounts private".into())?;
    attach_at(&mounts::tmpfs(0o755, None, NOSUID | NODEV)?, &room.mem)?;
    for name in ["plain", "rich", "side", "side/empty", "root"].iter().chain(&SYSTEM_DIRS) {
        mkdir(&in_memory(room, name))?;
    }
    if room.shape.fuse {
        mount_fuse(room, socket)?;
        // Kernels before 6.6 have no such attributes in a tmpfs.
        if stubs(room).is_err() {
            remove::remove_all(&in_memory(room, "stubs"))?;
        }
    }
    for name in ["upper", "work"] {
        mkdir(&below(room, name))?;
    }
    Ok(())
}

/// An uppermost lower layer with nothing but the directories that will be mounted over: opaque, so that finding them
/// asks the file server for nothing, which is a dozen questions less.
fn stubs(room: &Room) -> Result<(), Failure> {
    mkdir(&in_memory(room, "stubs"))?;
    for name in SYSTEM_DIRS {
        let at = in_memory(room, &format!("stubs/{name}"));
        mkdir(&at)?;
        let at = OsStr::from_bytes(&at);
        rustix::fs::setxattr(at, OPAQUE, b"y", rustix::fs::XattrFlags::empty()).during(|| "making stubs".into())?;
    }
    Ok(())
}

/// Makes what a room has of the kernel's file systems. Called by pid 1, whose namespaces /proc and /sys show.
pub(super) fn furnish(room: &Room) -> Result<(), Failure> {
    if room.shape.no_network {
        sys::unshare(UnshareFlags::NEWNET).during(|| "making a network namespace".into())?;
        sys::interface_up(b"lo").during(|| "bringing the loopback device up".into())?;
    }
    attach_at(&mounts::make("proc", &[], (NOSUID | NODEV | NOEXEC) as u32)?, &in_memory(room, "proc"))?;
    attach_at(&sysfs(room)?, &in_memory(room, "sys"))?;
    let (dev, nodes) = (in_memory(room, "dev"), in_memory(room, "nodes"));
    mkdir(&nodes)?;
    attach_at(&mounts::tmpfs(0o700, Some(1 << 20), NOSUID | NOEXEC)?, &nodes)?;
    attach_at(&mounts::tmpfs(0o755, Some(64 << 20), NOSUID | no_devices(room))?, &dev)?;
    device::fill(&room.shape, open_place(&dev)?.as_fd(), &nodes)?;
    if !room.shape.insecure {
        confine_kernel_files(room)?;
    }
    Ok(())
}

/// What keeps a step from the devices of nodes that it makes, or that an image brings: all that it sees is mounted so.
fn no_devices(room: &Room) -> u64 {
    if room.shape.insecure { 0 } else { NODEV }
}

/// Mounts the overlay of a step at `mem/root`.
pub(super) fn overlay(spec: &Spec) -> Result<(), Failure> {
    let room = &spec.room;
    start_root_meta(spec)?;
    let stubs = in_memory(room, "stubs");
    let mut lowers = spec.lowers.clone();
    if room.shape.fuse && rustix::fs::stat(OsStr::from_bytes(&stubs)).is_ok() {
        lowers.insert(0, stubs.into());
    }
    let overlay = mounts::overlay(
        &Overlay {
            lowers: &lowers,
            data: spec.data.as_deref(),
            upper: &below(room, "upper"),
            work: &below(room, "work"),
        },
        no_devices(room),
    )?;
    attach_at(&overlay, &in_memory(room, "root"))
}

/// Mounts both sides and hands their devices over. No descriptor of them stays here: the server's death must be the
/// mounts'.
fn mount_fuse(room: &Room, socket: BorrowedFd<'_>) -> Result<(), Failure> {
    let devices = [Side::Plain, Side::Rich].map(|side| mount_side(room, side));
    let [plain, rich] = devices;
    channel::send(socket, &Event::Fuse {}, &[plain?.as_fd(), rich?.as_fd()])
        .during(|| "handing the FUSE devices over".into())
}

/// The device must be opened in the namespace that mounts it.
fn mount_side(room: &Room, side: Side) -> Result<OwnedFd, Failure> {
    use std::os::fd::AsRawFd;
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .during(|| "opening /dev/fuse".into())?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read=1048576",
        device.as_raw_fd()
    );
    let options = std::ffi::CString::new(options).unwrap_or_default();
    let at = in_memory(room, side.name());
    rustix::mount::mount("memobuild", OsStr::from_bytes(&at), "fuse", MountFlags::RDONLY, options.as_c_str())
        .during(|| "mounting FUSE".into())?;
    Ok(device)
}

fn side_files(spec: &Spec) -> Result<(), Failure> {
    let dir = open_place(&in_memory(&spec.room, "side"))?;
    for file in &spec.side {
        let what = || "making a file in memory".to_owned();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let out =
            rustix::fs::openat(&dir, OsStr::from_bytes(&file.name), flags, Mode::from_raw_mode(0o600)).during(what)?;
        let mut rest: &[u8] = &file.bytes;
        while !rest.is_empty() {
            let written = rustix::io::write(&out, rest).during(what)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        let (uid, gid) = file.owner;
        if (uid, gid) != (0, 0) {
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            rustix::fs::fchown(&out, Some(uid), Some(gid)).during(|| "setting the owner of a secret".into())?;
        }
        rustix::fs::fchmod(&out, Mode::from_raw_mode(file.mode)).during(what)?;
    }
    Ok(())
}

/// Gives the upper root directory the metadata of the tree's root.
fn start_root_meta(spec: &Spec) -> Result<(), Failure> {
    let what = || "setting up the root directory".to_owned();
    let upper = below(&spec.room, "upper");
    let dir = rustix::fs::open(
        OsStr::from_bytes(&upper),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .during(what)?;
    let (uid, gid) = spec.root.owner;
    if (uid, gid) != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(&dir, Some(uid), Some(gid)).during(what)?;
    }
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(spec.root.mode)).during(what)?;
    for (name, value) in &spec.root.xattrs {
        rustix::fs::fsetxattr(&dir, OsStr::from_bytes(name), value, rustix::fs::XattrFlags::empty()).during(what)?;
    }
    let time = rustix::fs::Timespec { tv_sec: spec.root.mtime.0, tv_nsec: spec.root.mtime.1.into() };
    rustix::fs::futimens(&dir, &rustix::fs::Timestamps { last_access: time, last_modification: time }).during(what)
}

/// Mounts all that belongs in the root and makes it the root of this process. Called by pid 1.
pub(super) fn enter(spec: &Spec) -> Result<(), Failure> {
    side_files(spec)?;
    let root = open_place(&in_memory(&spec.room, "root"))?;
    let root = root.as_fd();
    for name in SYSTEM_DIRS {
        let what = || format!("mounting on /{name}");
        let place = mounts::place(root, name.as_bytes(), true)?;
        let mount = open_place(&in_memory(&spec.room, name))?;
        mounts::attach(mount.as_fd(), place.as_fd()).during(what)?;
    }
    for mount in &spec.mounts {
        mount_one(spec, root, &mount.target, &mount.source)?;
    }
    rustix::process::fchdir(root).during(|| "entering the root".into())?;
    rustix::process::pivot_root(".", ".").during(|| "making the root the root".into())?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).during(|| "leaving the old root".into())?;
    rustix::process::chdir("/").during(|| "entering the root".into())?;
    rustix::system::sethostname(&spec.hostname).during(|| "setting the host name".into())
}

/// The kernel lets only the owner of the network namespace mount a new sysfs; others get the machine's, read-only.
fn sysfs(room: &Room) -> Result<OwnedFd, Failure> {
    let mut attributes = NOSUID | NODEV | NOEXEC;
    if !room.shape.insecure {
        attributes |= RDONLY;
    }
    mounts::make("sysfs", &[], attributes as u32).or_else(|_| mounts::bind(b"/sys", attributes))
}

fn mount_one(spec: &Spec, root: BorrowedFd<'_>, target: &[u8], source: &Source) -> Result<(), Failure> {
    let (mount, directory) = match source {
        Source::Bind { path, attributes } => bound(path, attributes | no_devices(&spec.room))?,
        Source::Scratch { lowers, number, below: at, attributes } => {
            let [upper, work] = ["upper", "work"].map(|name| below(&spec.room, &format!("{name}{number}")));
            let whole = in_memory(&spec.room, &format!("whole{number}"));
            for dir in [&upper, &work, &whole] {
                mkdir(dir)?;
            }
            if let Some(first) = lowers.first() {
                copy_directory_meta(first, &upper)?;
            }
            let overlay = Overlay { lowers, data: None, upper: &upper, work: &work };
            attach_at(&mounts::overlay(&overlay, NODEV)?, &whole)?;
            bound(&[whole.as_slice(), at].concat(), attributes | NODEV)?
        }
        Source::Tmpfs { size, attributes } => (mounts::tmpfs(0o1777, *size, NOSUID | NODEV | attributes)?, true),
    };
    let place = mounts::place(root, target, directory)?;
    mounts::attach(mount.as_fd(), place.as_fd()).during(|| format!("mounting on {}", path::display(target)))
}

/// A bind mount, and whether it is of a directory.
fn bound(at: &[u8], attributes: u64) -> Result<(OwnedFd, bool), Failure> {
    let mount = mounts::bind(at, attributes)?;
    let stat = rustix::fs::fstat(&mount).during(|| format!("looking at {}", path::display(at)))?;
    Ok((mount, rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir()))
}

/// An overlay's root shows its upper directory's mode and owner.
fn copy_directory_meta(from: &[u8], to: &[u8]) -> Result<(), Failure> {
    let what = || format!("copying the mode of {}", path::display(from));
    let stat = rustix::fs::stat(OsStr::from_bytes(from)).during(what)?;
    let to = OsStr::from_bytes(to);
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::chown(to, Some(uid), Some(gid)).during(what)?;
    rustix::fs::chmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).during(what)
}

/// Hides and write-protects kernel files. What this kernel does not have needs neither.
fn confine_kernel_files(room: &Room) -> Result<(), Failure> {
    let mem = open_place(&room.mem)?;
    let empty = in_memory(room, "side/empty");
    for at in MASKED {
        let Ok(place) = mounts::open_in(mem.as_fd(), at.as_bytes()) else { continue };
        let what = || format!("masking {at}");
        let stat = rustix::fs::fstat(&place).during(what)?;
        let over = if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            mounts::bind(&empty, RDONLY | NOSUID | NODEV | NOEXEC)?
        } else {
            mounts::bind(b"/dev/null", 0)?
        };
        mounts::attach(over.as_fd(), place.as_fd()).during(what)?;
    }
    for at in READ_ONLY {
        let Ok(place) = mounts::open_in(mem.as_fd(), at.as_bytes()) else { continue };
        let what = || format!("write-protecting {at}");
        let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
            | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC
            | rustix::mount::OpenTreeFlags::AT_RECURSIVE
            | rustix::mount::OpenTreeFlags::AT_EMPTY_PATH;
        let mount = rustix::mount::open_tree(&place, c"", flags).during(what)?;
        sys::mount_set_attributes(mount.as_fd(), RDONLY | NOSUID | NODEV | NOEXEC, true).during(what)?;
        mounts::attach(mount.as_fd(), place.as_fd()).during(what)?;
    }
    Ok(())
}
