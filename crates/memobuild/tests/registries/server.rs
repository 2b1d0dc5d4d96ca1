//! docker-registry on loopback, and a proxy before it that counts.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

pub struct Registry {
    child: Child,
    /// Of the proxy.
    pub port: u16,
    log: Arc<Mutex<Vec<String>>>,
    bytes: Arc<Mutex<(u64, u64)>>,
    dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// `None`, said aloud: there is no docker-registry here. `extra` is added to its configuration; `DIR` in it is a
    /// directory in which `files` are.
    pub fn start(extra: &str, files: &[(&str, &[u8])]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let extra = extra.replace("DIR", dir.path().to_str().unwrap());
        let data = dir.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: 127.0.0.1:{own}}}\n{extra}",
            data.display()
        );
        fs::write(dir.path().join("config.yml"), text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.path().join("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            println!("skipped: no docker-registry");
            return None;
        };
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", own)).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let (log, bytes) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<(u64, u64)>>::default());
        let port = proxy(own, log.clone(), bytes.clone());
        Some(Self { child, port, log, bytes, dir })
    }

    pub fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    /// The requests since this was last asked, as `GET /v2/...`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    /// Bytes sent to and received from it since this was last asked.
    pub fn traffic(&self) -> (u64, u64) {
        std::mem::take(&mut *self.bytes.lock().unwrap())
    }
}

/// Passes everything on; writes down the first line of each request, which HTTP/1.1 clients begin a packet with.
fn proxy(to: u16, log: Arc<Mutex<Vec<String>>>, bytes: Arc<Mutex<(u64, u64)>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
            for up in [true, false] {
                let (mut from, mut into) = match up {
                    true => (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    false => (server.try_clone().unwrap(), client.try_clone().unwrap()),
                };
                let (log, bytes) = (log.clone(), bytes.clone());
                thread::spawn(move || {
                    let mut buffer = [0; 64 * 1024];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        let mut bytes = bytes.lock().unwrap();
                        *(if up { &mut bytes.0 } else { &mut bytes.1 }) += count as u64;
                        drop(bytes);
                        let text = String::from_utf8_lossy(&buffer[..count.min(2048)]).into_owned();
                        let line = text.lines().next().and_then(|line| line.strip_suffix(" HTTP/1.1"));
                        if let Some(line) = line.filter(|_| up) {
                            log.lock().unwrap().push(line.to_owned());
                        }
                        if into.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = into.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    port
}
