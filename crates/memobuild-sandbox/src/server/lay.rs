//! Lays a tree out in a directory, by orders from the main process.

use std::{
    ffi::OsStr,
    os::{fd::BorrowedFd, unix::ffi::OsStrExt},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{During, Failure};
use crate::{
    channel::Receiver,
    layout::write::{Removal, Writer},
    spec::Event,
};

pub(super) fn lay_out(dir: &[u8], layer: bool, socket: BorrowedFd<'_>) -> Result<(), Failure> {
    let what = || format!("making {}", String::from_utf8_lossy(dir));
    let name = OsStr::from_bytes(dir);
    match rustix::fs::mkdir(name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) if !layer => {}
        other => other.during(what)?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(name, flags, Mode::empty()).during(what)?;
    let _ = crate::sys::raise_open_files();
    let mut writer = Writer::new(top, if layer { Removal::Whiteout } else { Removal::Real });
    let mut receiver = Receiver::new();
    loop {
        match receiver.receive::<Event>(socket).during(|| "hearing what to lay out".into())? {
            Some((Event::Harvest { bytes }, _)) => writer.message(&bytes)?,
            Some((Event::Done {}, _)) => return writer.finish(),
            _ => return Err(Failure { what: "hearing what to lay out".into(), errno: libc::ECONNABORTED }),
        }
    }
}
