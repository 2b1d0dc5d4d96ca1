//! Against this project's server, and against BuildGrid where it is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]

use std::{
    io::{Seek as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use memobuild_server::{Config, Scope, Server, add_token};
use memobuild_tree::{KeyDigest, Sha256Digest};

use super::*;

/// A server in this process, ended when dropped.
struct Running {
    addr: SocketAddr,
    dir: tempfile::TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn with(change: impl FnOnce(&mut Config, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("data"));
        config.listen.set_port(0);
        change(&mut config, dir.path());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(config).await.unwrap();
                tell.send(server.local_addr()).unwrap();
                server.run(async { drop(stopped.await) }).await;
            });
        });
        Self { addr: told.recv().unwrap(), dir, stop: Some(stop), thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("grpc://{}", self.addr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

fn name(n: u8) -> RecordName {
    RecordName { ns: "result".into(), key: KeyDigest::from_bytes([n; 32]) }
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(byte).collect()
}

fn blob(bytes: &[u8]) -> Blob {
    Blob { digest: Sha256Digest::of(bytes), size: bytes.len() as u64 }
}

fn send(remote: &Grpc, bytes: &[u8]) -> Result<Blob, RemoteError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    // Wherever it stands.
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    remote.send(&blob(bytes), &mut file).map(|()| blob(bytes))
}

fn fetch(remote: &Grpc, blob: &Blob) -> Result<Vec<u8>, RemoteError> {
    let mut bytes = Vec::new();
    remote.fetch(blob, &mut bytes).map(|()| bytes)
}

/// What any such server must do.
fn works(remote: &Grpc, seed: u64) {
    let sizes = [0, 1, 1000, 300_000, SMALL as usize, SMALL as usize + 1, 5_000_000];
    for (seed, size) in (seed..).zip(sizes) {
        let bytes = noise(seed, size);
        if size > 0 {
            assert_eq!(remote.missing(&[blob(&bytes)]).unwrap(), [blob(&bytes)]);
            assert!(matches!(fetch(remote, &blob(&bytes)), Err(RemoteError::NoBlob(_))), "{size}");
        }
        send(remote, &bytes).unwrap();
        send(remote, &bytes).unwrap();
        assert_eq!(remote.missing(&[blob(&bytes)]).unwrap(), []);
        assert!(fetch(remote, &blob(&bytes)).unwrap() == bytes, "{size}");
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"other bytes").unwrap();
    assert!(remote.send(&blob(b"those bytes"), &mut file).is_err());
    assert_eq!(remote.missing(&[blob(b"those bytes")]).unwrap(), [blob(b"those bytes")]);

    let (first, second) = (noise(seed + 20, 5000), noise(seed + 21, 2_000_000));
    let blobs = [blob(&first), blob(&second)];
    assert_eq!(remote.record(&name(1)).unwrap(), None);
    assert_eq!(remote.record_put(&name(1), b"value", &blobs).unwrap(), Put::Missing(blobs.to_vec()));
    assert_eq!(remote.record(&name(1)).unwrap(), None);
    send(remote, &first).unwrap();
    assert_eq!(remote.record_put(&name(1), b"value", &blobs).unwrap(), Put::Missing(vec![blobs[1]]));
    send(remote, &second).unwrap();
    assert_eq!(remote.record_put(&name(1), b"value", &blobs).unwrap(), Put::Stored);
    assert_eq!(remote.record(&name(1)).unwrap().as_deref(), Some(b"value".as_slice()));
    assert_eq!(remote.record_put(&name(1), b"another", &[]).unwrap(), Put::Existing(b"value".to_vec()));
    let longest = noise(seed + 22, MAX_VALUE);
    assert_eq!(remote.record_put(&name(2), &longest, &[]).unwrap(), Put::Stored);
    assert!(remote.record(&name(2)).unwrap().unwrap() == longest);

    // A list under the name of a record is another thing.
    assert_eq!(remote.list(&name(1)).unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(remote.list_add(&name(1), b"a", &[blob(b"gone")]).unwrap(), [blob(b"gone")]);
    assert_eq!(remote.list_add(&name(1), b"a", &blobs).unwrap(), []);
    for item in 0..40 {
        assert_eq!(remote.list_add(&name(1), &[item], &[]).unwrap(), []);
    }
    remote.list_add(&name(1), &[30], &[]).unwrap();
    let items = remote.list(&name(1)).unwrap();
    assert_eq!((items.len(), &items[..3]), (encoding::LIST_ITEMS, [vec![30], vec![39], vec![38]].as_slice()));
}

fn open(url: &str, token: Option<&str>) -> Result<Grpc, RemoteError> {
    let options = RemoteOptions::new("grpc://none").map_err(RemoteError::Foreign)?;
    Grpc::new(&RemoteOptions { url: url.to_owned(), token: token.map(Into::into), ..options })
}

#[test]
fn this_projects_server() {
    let server = Running::with(|_, _| ());
    let remote = open(&server.url(), None).unwrap();
    works(&remote, 0);
    // Another instance has other records and the same blobs.
    let other = open(&format!("{}/a/b/", server.url()), None).unwrap();
    assert_eq!(other.record(&name(1)).unwrap(), None);
    assert_eq!(fetch(&other, &blob(&noise(2, 1000))).unwrap(), noise(2, 1000));
    works(&other, 100);
}

#[test]
fn many_threads_use_one() {
    let server = Running::with(|_, _| ());
    let remote = open(&server.url(), None).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let remote = &remote;
            scope.spawn(move || {
                for n in 0..10 {
                    let bytes = noise(thread * 100 + n, if n == 0 { 3_000_000 } else { 10_000 });
                    let blob = send(remote, &bytes).unwrap();
                    assert!(fetch(remote, &blob).unwrap() == bytes);
                }
            });
        }
    });
}

#[test]
fn tokens_go_along() {
    let mut tokens = Vec::new();
    let server = Running::with(|config, dir| {
        let file = dir.join("tokens");
        tokens = vec![add_token(&file, "r", Scope::Read).unwrap(), add_token(&file, "w", Scope::Write).unwrap()];
        config.tokens = Some(file);
    });
    let with = |token: Option<&str>| open(&server.url(), token).unwrap();
    assert!(matches!(with(None).record(&name(1)), Err(RemoteError::Unauthorized { with_token: false, .. })));
    assert!(matches!(with(Some("mb_no")).record(&name(1)), Err(RemoteError::Unauthorized { with_token: true, .. })));
    assert_eq!(with(Some(&tokens[0])).record(&name(1)).unwrap(), None);
    assert!(matches!(send(&with(Some(&tokens[0])), b"x"), Err(RemoteError::Forbidden(_))));
    send(&with(Some(&tokens[1])), b"x").unwrap();
    assert!(open(&server.url(), Some("a\nb")).is_err());
}

#[test]
fn a_list_loses_what_its_server_lost() {
    let server = Running::with(|_, _| ());
    let remote = open(&server.url(), None).unwrap();
    let one = send(&remote, b"one").unwrap();
    let two = send(&remote, b"two").unwrap();
    remote.list_add(&name(1), b"1", &[one]).unwrap();
    remote.list_add(&name(1), b"2", &[two]).unwrap();
    assert_eq!(remote.list(&name(1)).unwrap(), [b"2", b"1"]);
    // As if it had been damaged and taken away under the server's hands.
    let hex = one.digest.hex();
    std::fs::remove_file(server.dir.path().join("data/layers").join(&hex[..2]).join(&hex)).unwrap();
    assert_eq!(remote.missing(&[one, two]).unwrap(), [one]);
    remote.list_add(&name(1), b"3", &[two]).unwrap();
    assert_eq!(remote.list(&name(1)).unwrap(), [b"3", b"2"]);
}

#[test]
fn nobody_there_and_somebody_else() {
    let port = free_port();
    let begun = Instant::now();
    let nobody = open(&format!("grpc://127.0.0.1:{port}"), None).unwrap();
    let error = nobody.record(&name(1)).unwrap_err();
    assert!(matches!(&error, RemoteError::Unreachable(_)), "{error:?}");
    // One that does not speak TLS.
    let server = Running::with(|_, _| ());
    let plain = open(&format!("grpcs://{}", server.addr), None).unwrap();
    let error = plain.record(&name(1)).unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    // One that takes connections and says nothing. Generous: only an endless wait is wrong.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = open(&format!("grpc://{}", listener.local_addr().unwrap()), None).unwrap();
    let error = silent.record(&name(1)).unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(120));
    for wrong in ["http://h", "grpc://", "grpc://h h", "grpcs:///x", "grpc://a:b:c"] {
        assert!(open(wrong, None).is_err(), "{wrong}");
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A process that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn buildgrid() {
    let Some(bgd) = std::env::var_os("BUILDGRID") else {
        println!("skipped: BUILDGRID names no `bgd` (PyPI buildgrid)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = format!(
        "server:\n  - !channel\n    address: 127.0.0.1:{port}\n    insecure-mode: true\n\
         instances:\n  - name: ''\n    storages:\n      - !lru-storage &cas\n        size: 256M\n\
         \x20   caches:\n      - !lru-action-cache &results\n        storage: *cas\n        max-cached-refs: 1000\n        allow-updates: true\n\
         \x20   services:\n      - !cas\n        storage: *cas\n      - !bytestream\n        storage: *cas\n      - !action-cache\n        cache: *results\n\
         thread-pool-size: 10\n"
    );
    let file = dir.path().join("config.yml");
    std::fs::write(&file, config).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut command = Command::new(bgd);
    command.arg("server").arg("start").arg(&file).current_dir(dir.path());
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let mut server = Ended(child);
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        assert!(server.0.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(60), "{}", log());
        std::thread::sleep(Duration::from_millis(100));
    }
    works(&open(&format!("grpc://127.0.0.1:{port}"), None).unwrap(), 0);
}
