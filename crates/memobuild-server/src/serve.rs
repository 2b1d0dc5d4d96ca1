//! Listening, accepting, and ending in good order.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
};

use crate::{
    Config, Reloader, ServerError,
    auth::Auth,
    builds::{Builds, Live, PostgresBuilds, SqliteBuilds, follow},
    door::Door,
    guard::Guard,
    metrics::{Metrics, add},
    opening::Opening,
    patience::Patient,
    peer::Peer,
    routes::{self, App},
    storage::{self, Storage},
    stream::Stream,
};

/// How often last uses are written down.
const FLUSH_EVERY: Duration = Duration::from_secs(30);

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that may wait to be accepted; the kernel may allow fewer (`net.core.somaxconn`). Where there is no room more
/// of them are refused, or cut off after they seemed to be made: some hundred clients come at once when a build begins
/// everywhere.
const BACKLOG: u32 = 4096;

/// How long events that are not yet told of are waited for at the end.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT, in a runtime of its own. Requests under way are finished; a second signal ends that too.
///
/// # Errors
/// If the server can't start: see [`ServerError`].
pub fn serve(config: Config) -> Result<(), ServerError> {
    serve_with(config, |_| ())
}

/// As [`serve`]; calls `ready` with the address once connections are accepted.
pub fn serve_with(config: Config, ready: impl FnOnce(SocketAddr)) -> Result<(), ServerError> {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServerError::Runtime)?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(ServerError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(ServerError::Runtime)?;
        let mut stop = async move || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let server = Server::bind(config).await?;
        reload_on_hangup(server.reloader())?;
        ready(server.local_addr());
        let (first, told) = tokio::sync::oneshot::channel();
        let run = server.run(async { told.await.unwrap_or_default() });
        let signals = async {
            stop().await;
            // The server may have ended by itself.
            let _ = first.send(());
            stop().await;
        };
        tokio::select! {
            () = run => {}
            () = signals => tracing::warn!("stopped at once by a second signal"),
        }
        Ok(())
    });
    // What a client was told nothing of may be left half done: it is under a temporary name.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    app: Arc<App>,
    /// Where other servers take events too.
    followed: Option<Arc<PostgresBuilds>>,
}

/// What is kept, of whichever kind.
struct Kept {
    storage: Arc<dyn Storage>,
    builds: Arc<dyn Builds>,
    /// The same, if other servers have them too.
    followed: Option<Arc<PostgresBuilds>>,
}

impl Server {
    /// Opens the storage and listens.
    ///
    /// # Errors
    /// [`ServerError::Open`] for an address that others reach, without tokens and without leave for anonymous access.
    pub async fn bind(config: Config) -> Result<Self, ServerError> {
        let tls = config.security.tls.as_ref();
        let certificates = tls.filter(|tls| tls.client_ca.is_some()).map(|tls| tls.client_scope);
        let loopback = config.listen.ip().is_loopback();
        let auth = Auth::new(config.tokens.as_deref(), certificates, loopback, config.allow_anonymous)?;
        if auth.refuses_all() {
            return Err(ServerError::Open(config.listen));
        }
        let wanted = config.clone();
        let kept = tokio::task::spawn_blocking(move || Kept::open(&wanted))
            .await
            .map_err(|error| ServerError::Runtime(io::Error::other(error)))??;
        Self::with(config, auth, kept).await
    }

    async fn with(config: Config, auth: Auth, kept: Kept) -> Result<Self, ServerError> {
        let Kept { storage, builds, followed } = kept;
        let guard = Guard::open(&config.security)?;
        let addr = config.listen;
        let listening = |source| ServerError::Listen { addr, source };
        let listener = listen(addr).map_err(listening)?;
        let addr = listener.local_addr().map_err(listening)?;
        let (metrics, live) = (Arc::new(Metrics::default()), Arc::new(Live::new(followed.is_some())));
        let app = Arc::new(App { config, auth, storage, metrics, guard, builds, live });
        Ok(Self { listener, addr, app, followed })
    }

    /// Where it listens: with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// What reads its files again.
    pub fn reloader(&self) -> Reloader {
        Reloader(self.app.clone())
    }

    /// Serves until `stop` is done and requests under way are finished, or were given their time.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { listener, app, followed, .. } = self;
        if let Some(builds) = followed {
            tokio::spawn(follow(builds, app.live.clone()));
        }
        let router = routes::router(app.clone());
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(most_connections(app.config.max_connections, file_limit())));
        let http = protocols(app.config.idle_timeout);
        let mut flush = tokio::time::interval(FLUSH_EVERY);
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = async {
                // The semaphore is never closed.
                let slot = slots.clone().acquire_owned().await.ok();
                (slot, listener.accept().await)
            };
            tokio::select! {
                () = &mut stop => break,
                _ = flush.tick() => flush_storage(app.storage.clone()),
                (slot, accepted) = accepted => match accepted {
                    Ok((stream, addr)) => {
                        // Answers are written whole; waiting to join them with later ones only delays them.
                        let _ = stream.set_nodelay(true);
                        let (app, http, watcher) = (app.clone(), http.clone(), graceful.watcher());
                        let table = router.clone();
                        tokio::spawn(async move {
                            add(&app.metrics.connections, 1);
                            if let Some((stream, peer)) = secured(&app, stream, addr).await {
                                let stream = Opening::new(stream, app.config.idle_timeout);
                                let door = Arc::new(Door::new(app.clone(), table, peer));
                                let service = service_fn(move |request| door.clone().answer(request));
                                let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
                                let connection = watcher.watch(connection);
                                if let Err(error) = connection.await {
                                    tracing::debug!("a connection failed: {error}");
                                }
                            }
                            app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        // Most likely no file descriptor is free: others must end first.
                        tracing::warn!("cannot accept a connection: {error}");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        drop(listener);
        app.live.close();
        if tokio::time::timeout(app.config.shutdown_grace, graceful.shutdown()).await.is_err() {
            tracing::warn!("some requests did not finish in time");
        }
        let storage = app.storage.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || storage.flush()).await {
            tracing::warn!("cannot write down what was used last: {error}");
        }
        // Whether they arrived is told by the log.
        let _ = tokio::task::spawn_blocking(move || app.guard.hooks.finish(LAST_EVENTS)).await;
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Who starts again at once need not wait for what is left of old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// HTTP/1.1, and HTTP/2 for clients that begin with its preface (RFC 9113 section 3.3): gRPC has nothing else.
fn protocols(idle: Duration) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(64 << 10);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(idle)
        .keep_alive_timeout(idle)
        // Each may have a file open and a few pieces in memory.
        .max_concurrent_streams(100)
        .max_header_list_size(16 << 10)
        .max_send_buf_size(256 << 10)
        // The defaults, 64 KiB, are one round trip for each of them.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    http
}

/// The connection as requests see it, and whom it is with; `None` if TLS was not agreed on.
async fn secured(app: &App, stream: TcpStream, addr: SocketAddr) -> Option<(Stream, Peer)> {
    let stream = Patient::new(stream, app.config.idle_timeout);
    let Some(tls) = &app.guard.tls else {
        return Some((Stream::Plain(stream), Peer { addr, certificate: None }));
    };
    match tls.accept(stream, HANDSHAKE_TIMEOUT.min(app.config.idle_timeout)).await {
        Ok((stream, certificate)) => Some((Stream::Tls(Box::new(stream)), Peer { addr, certificate })),
        Err(error) => {
            add(&app.metrics.handshake_failures, 1);
            app.guard.refused_handshake(addr, &error);
            None
        }
    }
}

/// Reads settings again on each SIGHUP, if there are any to read.
fn reload_on_hangup(reloader: Reloader) -> Result<(), ServerError> {
    if !reloader.has_files() {
        return Ok(());
    }
    let mut hangup = signal(SignalKind::hangup()).map_err(ServerError::Runtime)?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let reloader = reloader.clone();
            // Failures are in the log.
            let _ = tokio::task::spawn_blocking(move || reloader.reload()).await;
        }
    });
    Ok(())
}

impl Kept {
    fn open(config: &Config) -> storage::Result<Self> {
        let (storage, database) = storage::open(config)?;
        let followed = database.map(|database| Arc::new(PostgresBuilds::new(database, config.builds)));
        // In the database that servers share, or else beside the blobs.
        let builds: Arc<dyn Builds> = match followed.clone() {
            Some(builds) => builds,
            None => Arc::new(SqliteBuilds::open(&config.data_dir.join("builds.sqlite"), config.builds)?),
        };
        // Those that grew too old while no server ran.
        builds.prune(builds.now()?)?;
        Ok(Self { storage, builds, followed })
    }
}

/// As many files as this process may have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // What can't be raised is reckoned with below.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

fn file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// A connection needs a socket and perhaps a blob's file: those that are let in must not starve of files.
fn most_connections(wanted: usize, files: Option<u64>) -> usize {
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    wanted.min(files.saturating_sub(64) / 2).clamp(1, Semaphore::MAX_PERMITS)
}

fn flush_storage(storage: Arc<dyn Storage>) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = storage.flush() {
            tracing::warn!("cannot write down what was used last: {error}");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_their_blobs() {
        assert_eq!(most_connections(8192, Some(1024)), 480);
        assert_eq!(most_connections(100, Some(1024)), 100);
        assert_eq!(most_connections(8192, None), 8192);
        assert_eq!(most_connections(8192, Some(10)), 1);
        assert_eq!(most_connections(usize::MAX, None), Semaphore::MAX_PERMITS);
    }
}
