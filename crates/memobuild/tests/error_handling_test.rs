//! Errors as a program meets them that has memobuild as a library: what they are, what they say, and what is tried again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]

mod library;

use std::{
    error::Error as _,
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use library::Project;
use memobuild::{
    EngineError, Store,
    error::{Backoff, FailureKind, MemoBuildError, RetryConfig},
};
use memobuild_store::StoreError;
use memobuild_tree::{Change, ContentDigest, Diff, File, Meta, Mtime, Node, Sha256Digest};
use proptest::prelude::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// A bundle of one file at `/f`.
fn keep(store: &Store, bytes: &[u8]) -> memobuild_tree::BundleId {
    let writer = store.bundle_writer();
    let content = writer.add_bytes(bytes).unwrap();
    let mut diff = Diff::default();
    let file = File { meta: Meta::new(0o644, Mtime::default()), size: bytes.len() as u64, content, link: None };
    diff.set(b"/f", Change::Put(Node::File(file)));
    writer.finish(&diff).unwrap()
}

/// The texts of an error and of all that it comes from.
fn chain(error: &MemoBuildError) -> Vec<String> {
    let mut all = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        all.push(cause.to_string());
        next = cause.source();
    }
    all
}

// Bytes that are not what they go by.

#[test]
fn bytes_that_differ_from_their_digest_are_an_integrity_failure_and_not_kept() {
    let (_dir, store) = store();
    let announced = Sha256Digest::of(b"what was announced");
    let mut writer = store.oci_blob_writer().unwrap();
    writer.write_all(b"what came").unwrap();
    let error = writer.finish(Some(announced)).unwrap_err();
    let actual = Sha256Digest::of(b"what came");
    let expected = MemoBuildError::CASIntegrityFailure {
        expected: announced.to_string(),
        actual: actual.to_string(),
        data_size: 9,
    };
    assert_eq!(MemoBuildError::from(&error), expected);
    assert_eq!(
        expected.to_string(),
        format!("content does not match its digest: expected {announced}, got {actual} (9 bytes)")
    );
    assert!(!expected.is_retryable() && expected.exit_code() == 4);
    // Under neither name.
    assert!(store.oci_blob_path(&announced).is_none() && store.oci_blob_path(&actual).is_none());
}

#[test]
fn damage_is_told_once_and_is_a_miss_from_then_on() {
    let (dir, store) = store();
    let bytes = b"small enough to be packed into its bundle";
    let id = keep(&store, bytes);
    drop(store);
    let bundle = dir.path().join("bundles").join(id.hex());
    let mut raw = fs::read(&bundle).unwrap();
    let at = raw.windows(8).position(|w| w == &bytes[..8]).expect("it is packed as it is");
    raw[at] ^= 1;
    fs::remove_file(&bundle).unwrap();
    fs::write(&bundle, raw).unwrap();

    let store = Store::open(dir.path()).unwrap();
    // Contents are found by the bundles that are in use.
    let bundle = store.load_bundle(&id).unwrap().unwrap();
    let error = store.content(&ContentDigest::of(bytes)).and_then(|c| c.read_all()).unwrap_err();
    assert!(error.is_damage(), "{error}");
    let known = MemoBuildError::from(&error);
    assert!(matches!(known, MemoBuildError::CacheCoherencyError { .. }), "{known:?}");
    assert!(known.hint().unwrap().contains("counts as not cached") && !known.is_retryable());
    assert_eq!(store.set_aside_count(), 1);
    drop(bundle);
    assert!(!store.has_bundle(&id), "{error:?}");
    assert!(matches!(store.content(&ContentDigest::of(bytes)), Err(StoreError::MissingContent { .. })));
}

/// The same in a build: it mends itself, and says so.
#[test]
fn a_build_goes_on_from_damage() {
    let project = Project::new("FROM scratch\nCOPY a /a\nCOPY b /b\n", &[("a", "content of a"), ("b", "content of b")]);
    project.build();
    for bundle in fs::read_dir(project.beside("store/bundles")).unwrap() {
        let path = bundle.unwrap().path();
        let mut raw = fs::read(&path).unwrap();
        let Some(at) = raw.windows(12).position(|w| w == b"content of a") else { continue };
        raw[at] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, raw).unwrap();
    }
    let tree = project.tree();
    assert_eq!(tree["a"], "100644 content of a");
    // Nothing is left to be mended.
    assert_eq!(project.build().executed(), Vec::<String>::new());
}

#[test]
fn a_base_image_that_is_not_what_its_manifest_says() {
    let project = Project::new("FROM base\nCOPY a /b\n", &[("a", "a")]);
    let layout = project.beside("base");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let absent = Sha256Digest::of(b"the manifest that was meant");
    fs::write(blobs.join(absent.hex()), b"another one altogether").unwrap();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let entry = serde_json::json!({ "mediaType": media_type, "digest": absent.to_string(), "size": 22 });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let mut project = project;
    let place = memobuild_plan::model::ContextSource::OciLayout(layout.display().to_string());
    project.request.options.contexts.insert("base".into(), place);
    let error = project.try_build().result.unwrap_err();
    assert_eq!(error.kind, FailureKind::Registry, "{error}");
    assert!(error.message.contains(&absent.to_string()), "{error}");
    let known = MemoBuildError::from(error);
    assert!(known.exit_code() == 5 && !known.is_retryable(), "{known:?}");
}

// From the errors of the crates below.

fn io(error: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(error)
}

#[test]
fn a_program_passes_errors_of_a_store_on() {
    fn open(dir: &Path) -> memobuild::error::Result<Store> {
        Ok(Store::open(dir)?)
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = open(&dir.path().join("file")).unwrap_err();
    assert!(matches!(error, MemoBuildError::StorageError { .. }), "{error:?}");
    assert!(error.to_string().contains("/file"), "{error}");
}

#[test]
fn every_error_of_the_store_has_a_kind_a_text_and_a_way_out() {
    let digest = ContentDigest::of(b"x");
    let bundle = memobuild_tree::BundleId::from_bytes([7; 32]);
    let at = Path::new("/cache/bundles/x");
    // The error; what stands in the common one; a word of its hint. Hints that a person can act on are not lost.
    let table: Vec<(StoreError, &str, &str)> = vec![
        (StoreError::io("write", at)(io(libc::EIO)), "could not write /cache/bundles/x: ", ""),
        (StoreError::io("write", at)(io(libc::ENOSPC)), "could not write /cache/bundles/x: ", "memobuild prune"),
        (StoreError::io("write", at)(io(libc::EDQUOT)), "could not write /cache/bundles/x: ", "memobuild prune"),
        (StoreError::io("open", at)(io(libc::EACCES)), "could not open /cache/bundles/x: ", "another user"),
        (
            StoreError::Corrupt { what: "bundle", path: at.into(), detail: "cut short".into() },
            "bundle /cache/bundles/x in the cache is damaged: cut short",
            "build again",
        ),
        (StoreError::MissingContent { digest, at: None }, "in the cache is damaged: it is not there", "build again"),
        (StoreError::MissingBundle(bundle), "in the cache is damaged: it is not there", "build again"),
        (
            StoreError::Format { dir: "/cache".into(), found: "9".into(), supported: "1" },
            "could not use /cache: /cache has store format \"9\"",
            "MEMOBUILD_CACHE_DIR",
        ),
        (StoreError::ChangedWhileRead { path: "/src/a".into() }, "could not read /src/a: ", "build again"),
    ];
    for (error, text, hint) in table {
        let known = MemoBuildError::from(&error);
        assert!(known.to_string().contains(text), "{known}");
        assert_eq!((known.kind(), known.exit_code(), known.is_retryable()), (FailureKind::Cache, 4, false), "{known}");
        // By way of a build, what was being done and the hint come with it.
        let hinted = error.hint();
        let damage = error.is_damage();
        let engine = EngineError::from(error);
        assert_eq!((engine.kind, &engine.hint), (FailureKind::Cache, &hinted));
        let through = MemoBuildError::from(engine.clone());
        assert_eq!((through.root(), through.to_string()), (&known, engine.message));
        assert!(through.hint().unwrap_or_default().contains(hint), "{through}: {:?}", through.hint());
        assert_eq!(damage, matches!(known, MemoBuildError::CacheCoherencyError { .. }), "{known}");
        assert_eq!(chain(&through).last(), Some(&known.to_string()));
    }
}

#[test]
fn what_could_not_be_fetched_is_a_matter_of_the_network() {
    let source: Box<dyn std::error::Error + Send + Sync> = "connection reset by peer".into();
    let error = StoreError::Fetch { digest: ContentDigest::of(b"x"), source };
    let engine = EngineError::from(error);
    assert_eq!(engine.kind, FailureKind::Registry);
    assert!(engine.message.ends_with(": connection reset by peer"), "{}", engine.message);
    let known = MemoBuildError::from(engine);
    assert!(matches!(known.root(), MemoBuildError::NetworkError { .. }) && known.exit_code() == 5, "{known:?}");
}

#[test]
fn an_error_of_a_build_keeps_its_kind_its_hint_and_the_end_of_its_log() {
    use FailureKind::*;
    for (kind, code) in [(Step, 1), (Usage, 2), (Dockerfile, 3), (Cache, 4), (Registry, 5), (Machine, 6)] {
        let plain = EngineError::new(kind, "what happened");
        let known = MemoBuildError::from(plain.clone());
        assert_eq!((known.kind(), known.exit_code()), (kind, code));
        assert!(known.to_string().contains("what happened"), "{known}");
        let hinted = MemoBuildError::from(plain.with_hint("do this"));
        assert_eq!((hinted.hint().as_deref(), hinted.exit_code()), (Some("do this"), code));
        assert_eq!(hinted.root(), &known);
        assert_eq!(hinted.to_string(), "what happened");
    }
    let log_tail = vec!["cc -c a.c".to_owned(), "a.c:1: error".to_owned()];
    let failed = EngineError { log_tail: log_tail.clone(), ..EngineError::new(Step, "exit code: 2") };
    assert_eq!(MemoBuildError::from(failed), MemoBuildError::StepFailed { message: "exit code: 2".into(), log_tail });
}

/// A cause of another kind does not change what the failure is: a step that failed for want of disk is the disk's trouble
/// only if that is what ended the build.
#[test]
fn the_failures_own_kind_stands_above_its_cause() {
    let cause = MemoBuildError::StorageError { operation: "write /x".into(), reason: "no space left".into() };
    let with = |kind| EngineError { cause: Some(Box::new(cause.clone())), ..EngineError::new(kind, "while doing it") };
    let same = MemoBuildError::from(with(FailureKind::Cache));
    assert_eq!((same.root(), chain(&same).len()), (&cause, 2));
    let other = MemoBuildError::from(with(FailureKind::Step));
    assert_eq!(other, MemoBuildError::StepFailed { message: "while doing it".into(), log_tail: vec![] });
}

#[test]
fn contexts_nest_and_the_outermost_hint_counts() {
    let root = MemoBuildError::NetworkError { message: "reset".into(), retryable: true, attempt: 1 };
    let inner = root.clone().context("fetching a layer", Some("inner hint".into()));
    assert_eq!(inner.hint().as_deref(), Some("inner hint"));
    let outer = inner.clone().context("pulling app", None);
    assert_eq!(outer.hint().as_deref(), Some("inner hint"));
    let hinted = outer.context("building", Some("outer hint".into()));
    assert_eq!(hinted.hint().as_deref(), Some("outer hint"));
    assert_eq!(chain(&hinted), ["building", "pulling app", "fetching a layer", "reset"]);
    assert!(hinted.is_retryable() && hinted.kind() == FailureKind::Registry);
    // Without anybody's hint, that of the kind.
    assert_eq!(root.context("x", None).hint().as_deref(), Some("try again later"));
}

// Builds that fail, by what the caller can do about it.

#[test]
fn each_failure_of_a_build_has_its_own_exit_code() {
    let files: &[(&str, &str)] = &[("a", "a")];
    let case = |dockerfile: &str| Project::new(dockerfile, files);
    let missing = case("FROM scratch\nCOPY b /b\n");
    let mut target = case("FROM scratch AS one\nCOPY a /a\n");
    target.request.options.target = Some("two".into());
    let wrong = case("FROM scratch\nCOPPY a /a\n");
    let no_context = case("FROM scratch\n");
    fs::remove_dir_all(no_context.path("")).unwrap();
    let unreachable = case("FROM 127.0.0.1:1/none\n");
    for (project, kind, words) in [
        (missing, FailureKind::Step, "/b"),
        (target, FailureKind::Usage, "two"),
        (wrong, FailureKind::Dockerfile, "COPPY"),
        (no_context, FailureKind::Usage, "work"),
        (unreachable, FailureKind::Registry, "127.0.0.1:1"),
    ] {
        let built = project.try_build();
        let error = built.result.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(words), "{error}");
        let code = kind.exit_code();
        let known = MemoBuildError::from(error.clone());
        assert_eq!((known.kind(), known.exit_code()), (kind, code), "{known:?}");
        // Who listens hears of it as well, and that the build is over.
        use memobuild::TraceEvent::{BuildFinished, Error};
        assert!(built.events.iter().any(|e| matches!(e, Error { message } if *message == error.message)), "{error}");
        assert!(matches!(built.events.last(), Some(BuildFinished { ok: false, .. })), "{:?}", built.events.last());
    }
}

#[test]
fn a_store_that_can_not_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = Store::open(&dir.path().join("file/store")).unwrap_err();
    let known = MemoBuildError::from(&error);
    assert!(matches!(known, MemoBuildError::StorageError { .. }) && known.exit_code() == 4, "{known:?}");
    assert!(known.to_string().contains("file/store"), "{known}");

    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("format"), "of another time\n").unwrap();
    let error = Store::open(&other).unwrap_err();
    assert!(matches!(error, StoreError::Format { .. }), "{error}");
    assert_eq!(fs::read_to_string(other.join("format")).unwrap(), "of another time\n");
}

// Trying again.

/// A host that answers each request by the next of these answers, the last one for ever. Gives its address and how many
/// requests came.
fn host(answers: &'static [&'static str]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                request.push(byte[0]);
            }
            if request.is_empty() {
                continue;
            }
            let n = count.fetch_add(1, Ordering::SeqCst);
            let answer = answers[n.min(answers.len() - 1)];
            let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (address, asked)
}

fn pulled_from(address: &str) -> EngineError {
    let project = Project::new(&format!("FROM {address}/some/image:1\n"), &[]);
    project.try_build().result.unwrap_err()
}

#[test]
fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    let (address, asked) = host(&["503 Unavailable", "429 Too Many Requests\r\nRetry-After: 0", "404 Not Found"]);
    let error = pulled_from(&address);
    assert_eq!(error.kind, FailureKind::Registry, "{error}");
    let asked = asked.load(Ordering::SeqCst);
    // What is not found may be asked for by more than one name; what has trouble is asked once more each time.
    assert!(asked >= 3, "{asked} requests");
    assert!(!MemoBuildError::from(error).is_retryable());

    let (address, again) = host(&["404 Not Found"]);
    let known = MemoBuildError::from(pulled_from(&address));
    assert_eq!(asked - again.load(Ordering::SeqCst), 2, "the two answers that may pass, and no other, cost a request");
    assert!(matches!(known.root(), MemoBuildError::NetworkError { retryable: false, .. }), "{known:?}");
}

/// A wish of more than a minute is for a person to decide on: no wait, and the caller hears that later may be better.
#[test]
fn a_long_wish_is_handed_on() {
    let (address, asked) = host(&["503 Unavailable\r\nRetry-After: 3600"]);
    let begin = std::time::Instant::now();
    let known = MemoBuildError::from(pulled_from(&address));
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    assert!(known.is_retryable() && known.kind() == FailureKind::Registry, "{known:?}");
    assert!(matches!(known.root(), MemoBuildError::NetworkError { attempt: 1, .. }), "{known:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn only_a_network_that_may_recover_is_worth_another_attempt() {
    let message = || "x".to_owned();
    let never = [
        MemoBuildError::CASIntegrityFailure { expected: message(), actual: message(), data_size: 1 },
        MemoBuildError::NetworkError { message: message(), retryable: false, attempt: 3 },
        MemoBuildError::StorageError { operation: message(), reason: message() },
        MemoBuildError::CacheCoherencyError { hash: message(), reason: message() },
        MemoBuildError::DockerfileError { message: message() },
        MemoBuildError::StepFailed { message: message(), log_tail: vec![] },
        MemoBuildError::UsageError { message: message() },
        MemoBuildError::MachineError { message: message() },
    ];
    for error in never {
        assert!(!error.is_retryable() && !error.clone().context("y", None).is_retryable(), "{error:?}");
    }
}

/// What a caller makes of it: as many attempts as the rule says, and none after an error that will not pass.
#[test]
fn a_loop_over_the_rule_ends() {
    let attempts = |error: MemoBuildError| {
        let rule = RetryConfig { initial_delay: Duration::ZERO, ..RetryConfig::default() }.attempts(4);
        let (mut backoff, mut made) = (Backoff::new(rule), 0);
        loop {
            made += 1;
            if !(error.is_retryable() && backoff.again(None)) {
                return made;
            }
        }
    };
    let network = |retryable| MemoBuildError::NetworkError { message: "x".into(), retryable, attempt: 1 };
    assert_eq!((attempts(network(true)), attempts(network(false))), (4, 1));
}

fn rules() -> impl Strategy<Value = RetryConfig> {
    (1_u32..9, 0_u64..2000, 1.0..8.0_f64, 0_u64..10_000, any::<bool>()).prop_map(|(n, first, factor, most, jitter)| {
        RetryConfig {
            max_attempts: n,
            initial_delay: Duration::from_millis(first),
            backoff_factor: factor,
            max_delay: Duration::from_millis(most),
            jitter,
        }
    })
}

proptest! {
    /// Waits grow, never above the longest; there is one less of them than attempts; chance takes a quarter at most.
    #[test]
    fn waits_follow_the_rule(rule in rules()) {
        let plain: Vec<Duration> = (1..rule.max_attempts).map(|n| rule.delay(n)).collect();
        prop_assert!(plain.is_sorted() && plain.iter().all(|wait| *wait <= rule.max_delay), "{:?}", plain);
        let mut backoff = Backoff::new(rule);
        let mut waited = Vec::new();
        while let Some(wait) = backoff.next_delay(None) {
            waited.push(wait);
            prop_assert!(waited.len() < 9);
        }
        prop_assert_eq!(waited.len(), plain.len());
        prop_assert_eq!(backoff.attempt(), rule.max_attempts);
        for (wait, plain) in waited.iter().zip(&plain) {
            let least = if rule.jitter { plain.mul_f64(0.75) } else { *plain };
            prop_assert!(wait <= plain && *wait + Duration::from_nanos(2) >= least, "{:?} of {:?}", wait, plain);
        }
    }

    /// A server's wish is never cut short, and one of more than a minute ends it.
    #[test]
    fn wishes_are_kept(rule in rules(), wish in 0_u64..120) {
        let wish = Duration::from_secs(wish);
        let next = Backoff::new(rule).next_delay(Some(wish));
        let expected = rule.max_attempts > 1 && wish <= Duration::from_secs(60);
        prop_assert_eq!(next.is_some(), expected);
        prop_assert!(next.is_none_or(|wait| wait >= wish));
    }
}
