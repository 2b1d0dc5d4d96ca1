//! A registry in this process that keeps to the OCI distribution specification 1.1 by the letter, and refuses all that
//! the specification lets a registry refuse. What it does beyond that, and what it lacks, is said by [`Options`]. It
//! keeps a log of what it was asked.

mod content;
mod token;
mod upload;
mod wire;

use std::{
    io::{self, BufReader},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use content::State;
pub(crate) use token::{Auth, TokenOptions, User};
use token::{Need, Tokens};
use wire::{Body, Request, Response};

/// Where uploads go on.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// `/v2/...`, and the same all the time.
    #[default]
    Path,
    /// With a scheme and host, and another after each answer.
    Absolute,
    /// Relative to what was asked, with a query, and another after each answer.
    Relative,
}

#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) auth: Auth,
    /// `OCI-Chunk-Min-Length`.
    pub(crate) min_chunk: u64,
    pub(crate) place: Place,
    /// Blobs may be taken over from another repository.
    pub(crate) mount: bool,
    /// And are found where none is named.
    pub(crate) mount_from_anywhere: bool,
    /// The referrers API, whether it filters, and how many it lists on a page.
    pub(crate) referrers: bool,
    pub(crate) filter: bool,
    pub(crate) page: usize,
    /// Ranges of blobs.
    pub(crate) ranges: bool,
    pub(crate) delete: bool,
    pub(crate) immutable_tags: bool,
    /// Manifests have an `ETag`, and `If-Match` and `If-None-Match` are heeded when one is put.
    pub(crate) conditions: bool,
    pub(crate) read_only: Vec<&'static str>,
    /// Blobs are read from another host, which takes no `Authorization`.
    pub(crate) redirect: bool,
    /// Every so many requests that answer, and with it a `Retry-After` of so many seconds.
    pub(crate) refuse_every: Option<(u64, u16, Option<u64>)>,
    /// How long each answer takes.
    pub(crate) slow: Duration,
    /// A connection whose body was not read is closed after the answer, rather than read to its end.
    pub(crate) abrupt: bool,
    /// Manifests above this are refused; the specification asks for at least 4 MiB.
    pub(crate) max_manifest: usize,
    /// Longer bodies of uploads are refused.
    pub(crate) max_request: u64,
    /// What arrived of a PUT that broke off is kept, as that of a PATCH always is.
    pub(crate) keeps_cut_puts: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            auth: Auth::Open,
            min_chunk: 0,
            place: Place::Path,
            mount: true,
            mount_from_anywhere: false,
            referrers: true,
            filter: true,
            page: 1000,
            ranges: true,
            delete: true,
            immutable_tags: false,
            conditions: false,
            read_only: Vec::new(),
            redirect: false,
            refuse_every: None,
            slow: Duration::ZERO,
            abrupt: false,
            max_manifest: 4 << 20,
            max_request: u64::MAX,
            keeps_cut_puts: true,
        }
    }
}

/// One request, as the log has it.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) method: String,
    /// Path and query, as they came.
    pub(crate) target: String,
    pub(crate) status: u16,
    /// Bytes of the body that came in, and bytes of the answer with its head.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) at: Instant,
    pub(crate) authorization: Option<String>,
    /// Whether it came to the host that keeps the blobs.
    pub(crate) storage: bool,
}

struct Shared {
    host: String,
    storage: String,
    options: Mutex<Options>,
    state: Mutex<State>,
    tokens: Mutex<Tokens>,
    asked: Mutex<u64>,
    log: Mutex<Vec<Logged>>,
    ended: AtomicBool,
}

pub(crate) struct Strict {
    shared: Arc<Shared>,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Drop for Strict {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes up those who listen.
        for host in [&self.shared.host, &self.shared.storage] {
            let _ = TcpStream::connect(host);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Strict {
    pub(crate) fn new(options: Options) -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [host, storage] = listeners.each_ref().map(|l| l.local_addr().unwrap());
        let shared = Arc::new(Shared {
            host: host.to_string(),
            storage: storage.to_string(),
            options: Mutex::new(options),
            state: Mutex::default(),
            tokens: Mutex::default(),
            asked: Mutex::default(),
            log: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        for (listener, storage) in listeners.into_iter().zip([false, true]) {
            let shared = shared.clone();
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if shared.ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let shared = shared.clone();
                    thread::spawn(move || shared.connection(stream, storage));
                }
            });
        }
        Self { shared, host: host.to_string(), port: host.port() }
    }

    /// Changes its ways from the next request on.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Options)) {
        change(&mut lock(&self.shared.options));
    }

    /// What it was asked so far.
    pub(crate) fn log(&self) -> Vec<Logged> {
        lock(&self.shared.log).clone()
    }

    pub(crate) fn clear_log(&self) {
        lock(&self.shared.log).clear();
    }

    /// `METHOD path` of what it was asked, without queries.
    pub(crate) fn asked(&self) -> Vec<String> {
        let log = self.log();
        log.iter().map(|l| format!("{} {}", l.method, l.target.split('?').next().unwrap_or_default())).collect()
    }

    /// Forgets all uploads, as a registry does that starts anew.
    pub(crate) fn forget_uploads(&self) {
        lock(&self.shared.state).uploads.clear();
    }

    /// Uploads that were neither closed nor cancelled, and hold something.
    pub(crate) fn open_uploads(&self) -> usize {
        let uploads: Vec<_> = lock(&self.shared.state).uploads.values().cloned().collect();
        uploads.iter().filter(|upload| !lock(upload).is_empty()).count()
    }
}

impl Shared {
    fn options(&self) -> Options {
        lock(&self.options).clone()
    }

    fn connection(&self, stream: TcpStream, storage: bool) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        let mut to = stream.try_clone()?;
        let mut from = BufReader::new(stream);
        loop {
            let request = match Request::read(&mut from) {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Other => {
                    return Response::new(400).write(&mut to, false, true).map(drop);
                }
                Err(e) => return Err(e),
            };
            if self.ended.load(Ordering::Relaxed) {
                return Ok(());
            }
            let at = Instant::now();
            let mut body = Body::of(&request, &mut from)?;
            let answer = if storage { Ok(self.stored(&request)) } else { self.answer(&request, &mut body) };
            let mut sent = 0;
            let mut close = request.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
            if !body.has_ended() && answer.is_ok() {
                close |= self.options().abrupt;
                if !close {
                    close |= io::copy(&mut body, &mut io::sink()).is_err();
                }
            }
            let received = body.received;
            let status = answer.as_ref().map_or(0, |a| a.status);
            // Before the answer: who has read it finds it in the log.
            let mut log = lock(&self.log);
            let authorization = request.header("authorization").map(str::to_owned);
            let (method, target) = (request.method.clone(), request.target.clone());
            log.push(Logged { method, target, status, received, sent, at, authorization, storage });
            let index = log.len() - 1;
            drop(log);
            let written = answer.and_then(|answer| answer.write(&mut to, request.method == "HEAD", close));
            if let Ok(count) = &written {
                sent = *count;
            }
            if let Some(entry) = lock(&self.log).get_mut(index) {
                entry.sent = sent;
            }
            written?;
            if close {
                return Ok(());
            }
        }
    }

    /// `Err`: the connection broke.
    fn answer(&self, request: &Request, body: &mut Body<'_>) -> io::Result<Response> {
        let options = self.options();
        thread::sleep(options.slow);
        if let (Auth::Token(tokens), "/token") = (&options.auth, request.path.as_str()) {
            return Ok(lock(&self.tokens).serve(tokens, request, body));
        }
        if let Some((every, status, wait)) = options.refuse_every {
            let mut asked = lock(&self.asked);
            *asked += 1;
            if asked.is_multiple_of(every) {
                let code = if status == 429 { "TOOMANYREQUESTS" } else { "UNAVAILABLE" };
                let answer = Response::error(status, code, "too many requests");
                return Ok(match wait {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                });
            }
        }
        let Some(rest) = request.path.strip_prefix("/v2/") else { return Ok(Response::new(404)) };
        let route = Route::of(rest);
        let name = route.as_ref().map(|r| r.name).unwrap_or_default();
        let mut needs: Vec<Need<'_>> = Vec::new();
        if !name.is_empty() {
            needs.push((name, "pull"));
            if !request.is_reading() {
                needs.push((name, "push"));
            }
        }
        if let (Some(from), "POST") = (request.parameter("from"), request.method.as_str()) {
            needs.push((from, "pull"));
        }
        if let Some(refusal) = lock(&self.tokens).refuse(&options.auth, &self.host, request, &needs) {
            return Ok(refusal);
        }
        let Some(route) = route else {
            return Ok(if rest.is_empty() { Response::json(200, &serde_json::json!({})) } else { Response::new(404) });
        };
        if !is_name(name) {
            return Ok(Response::error(400, "NAME_INVALID", "invalid repository name"));
        }
        if options.read_only.contains(&name) && !request.is_reading() {
            return Ok(Response::error(403, "DENIED", "the repository is read-only"));
        }
        match route.kind {
            Kind::Upload(id) => self.upload(&options, name, id, request, body),
            Kind::Blob(digest) => Ok(self.blob(&options, name, digest, request)),
            Kind::Manifest(reference) => self.manifest(&options, name, reference, request, body),
            Kind::Referrers(digest) => Ok(self.referrers(&options, name, digest, request)),
            Kind::Tags => Ok(self.tags(&options, name, request)),
        }
    }
}

/// What a path asks for.
struct Route<'a> {
    name: &'a str,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Upload(&'a str),
    Blob(&'a str),
    Manifest(&'a str),
    Referrers(&'a str),
    Tags,
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        if let Some(name) = path.strip_suffix("/tags/list") {
            return Some(Self { name, kind: Kind::Tags });
        }
        if let Some((name, id)) = path.rsplit_once("/blobs/uploads/") {
            return Some(Self { name, kind: Kind::Upload(id) });
        }
        let (rest, last) = path.rsplit_once('/')?;
        let (name, kind) = rest.rsplit_once('/')?;
        let kind = match kind {
            "blobs" => Kind::Blob(last),
            "manifests" => Kind::Manifest(last),
            "referrers" => Kind::Referrers(last),
            _ => return None,
        };
        Some(Self { name, kind })
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by slashes.
fn is_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.split('/').all(|part| {
        part.starts_with(word)
            && part.ends_with(word)
            && part.split(word).all(|s| matches!(s, "" | "." | "_" | "__") || s.chars().all(|c| c == '-'))
    })
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.starts_with(word) && tag.len() <= 128 && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}
