//! Hands a step a socket of its own that leads to one of this machine (an ssh agent's): it can get the owner and mode
//! asked for, lies on the scratch directory's file system, and is gone with the step.

use std::{
    io,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
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
    pub(crate) fn start(path: &Path, target: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
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
        let proxy = Proxy::start(&socket, &agent).unwrap();
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
