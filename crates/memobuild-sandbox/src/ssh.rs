//! Hands a step a socket of its own that leads to one of this machine (an ssh agent's): with the owner and mode asked
//! for, on the scratch directory's file system, and gone with the step.

use std::{
    io,
    net::Shutdown,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// A socket being served. Dropped, it stops; connections end when either side closes.
pub(crate) struct Proxy {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens at `path` and passes every connection on to `target`.
    pub(crate) fn start(path: &Path, target: &Path, (uid, gid): (u32, u32), mode: u32) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        // Where ids are mapped this process cannot give the socket away: then everyone in the step may use it.
        let mode = match std::os::unix::fs::chown(path, Some(uid), Some(gid)) {
            Ok(()) => mode,
            Err(_) if (uid, gid) == (0, 0) => mode,
            Err(_) => 0o666,
        };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, target) = (stop.clone(), target.to_owned());
        let thread = std::thread::Builder::new().name("memobuild-ssh".into()).spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                if let (Ok(near), Ok(far)) = (stream, UnixStream::connect(&target)) {
                    // A connection that cannot be served is closed, which the step's program sees.
                    let _ = join(near, far);
                }
            }
        })?;
        Ok(Self { path: path.to_owned(), stop, thread: Some(thread) })
    }
}

/// Passes bytes both ways, each in a thread of its own, until both directions have ended.
fn join(near: UnixStream, far: UnixStream) -> io::Result<()> {
    let back = (far.try_clone()?, near.try_clone()?);
    for (mut from, mut to) in [(near, far), back] {
        std::thread::Builder::new().name("memobuild-ssh".into()).spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        })?;
    }
    Ok(())
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread, which then sees that it is to stop.
        let woken = UnixStream::connect(&self.path).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn bytes_pass_both_ways_and_the_socket_stops() {
        let dir = tempfile::tempdir().unwrap();
        let (agent, socket) = (dir.path().join("agent"), dir.path().join("socket"));
        let listener = UnixListener::bind(&agent).unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            stream.write_all(text.to_uppercase().as_bytes()).unwrap();
        });
        let proxy = Proxy::start(&socket, &agent, (0, 0), 0o600).unwrap();
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "HELLO");
        answering.join().unwrap();
        drop(proxy);
        assert!(UnixStream::connect(&socket).is_err());
    }
}
