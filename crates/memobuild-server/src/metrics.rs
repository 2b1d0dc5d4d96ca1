//! Counters, and the text in which Prometheus reads them (exposition format 0.0.4). Names and units are by its naming
//! conventions: base units, `_total` for what only grows.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::storage::Usage;

/// Upper bounds of the histogram's buckets, in seconds.
const BOUNDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// What counts up or down by itself.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) integrity_failures: AtomicU64,
    pub(crate) blob_hits: AtomicU64,
    pub(crate) blob_misses: AtomicU64,
    pub(crate) record_hits: AtomicU64,
    pub(crate) record_misses: AtomicU64,
    pub(crate) gc_freed_bytes: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) handshake_failures: AtomicU64,
    /// Written when a route is first asked for, read from then on: no request waits for another to be counted.
    routes: RwLock<BTreeMap<String, Route>>,
    failed_calls: Mutex<BTreeMap<(String, i32), u64>>,
}

/// What is counted of a route.
#[derive(Default)]
struct Route {
    answers: RwLock<BTreeMap<(&'static str, u16), AtomicU64>>,
    /// Answers by the first bound that they took no longer than; the last is of those that took longer than any.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Route {
    fn answered(&self, method: &'static str, status: u16, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(place) {
            add(bucket, 1);
        }
        add(&self.micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        let key = (method, status);
        if let Some(n) = read(&self.answers).get(&key) {
            return add(n, 1);
        }
        add(write(&self.answers).entry(key).or_default(), 1);
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Metrics {
    /// Counts a look-up.
    pub(crate) fn looked_up(&self, record: bool, hit: bool) {
        add(
            match (record, hit) {
                (false, true) => &self.blob_hits,
                (false, false) => &self.blob_misses,
                (true, true) => &self.record_hits,
                (true, false) => &self.record_misses,
            },
            1,
        );
    }

    /// Counts an answer, and the time until its body began. Routes and methods are few: never what a client made up.
    pub(crate) fn answered(&self, route: &str, method: &'static str, status: u16, took: Duration) {
        if let Some(route) = read(&self.routes).get(route) {
            return route.answered(method, status, took);
        }
        write(&self.routes).entry(route.to_owned()).or_default().answered(method, status, took);
    }

    /// Counts a gRPC call that failed, by its status code; HTTP's is always 200.
    pub(crate) fn call_failed(&self, route: &str, code: i32) {
        let key = (route.to_owned(), code);
        *self.failed_calls.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    /// The text for Prometheus.
    pub(crate) fn text(&self, usage: &Usage, watchers: u64) -> String {
        let mut out = String::new();
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        head(&mut out, "memobuild_http_requests_total", "counter", "Requests answered.");
        let routes = read(&self.routes);
        for (route, counts) in &*routes {
            for ((method, status), n) in &*read(&counts.answers) {
                let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
                let _ = writeln!(out, "memobuild_http_requests_total{{{labels}}} {}", of(n));
            }
        }
        let name = "memobuild_grpc_failures_total";
        head(&mut out, name, "counter", "Calls that were answered with a gRPC status other than OK.");
        for ((route, code), n) in &*self.failed_calls.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(out, "{name}{{code=\"{code}\",route=\"{route}\"}} {n}");
        }
        let name = "memobuild_http_request_duration_seconds";
        head(&mut out, name, "histogram", "Time from a request's head to its answer's.");
        for (route, counts) in &*routes {
            // Buckets are cumulative, and the last is the count.
            let mut sum = 0;
            let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (bucket, bound) in counts.buckets.iter().zip(bounds) {
                sum += of(bucket);
                let _ = writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"{bound}\"}} {sum}");
            }
            let seconds = Duration::from_micros(of(&counts.micros)).as_secs_f64();
            let _ = writeln!(out, "{name}_sum{{route=\"{route}\"}} {seconds}");
            let _ = writeln!(out, "{name}_count{{route=\"{route}\"}} {sum}");
        }
        drop(routes);
        let name = "memobuild_lookups_total";
        head(&mut out, name, "counter", "Look-ups of blobs and records by GET and HEAD.");
        for (kind, result, counter) in [
            ("blob", "hit", &self.blob_hits),
            ("blob", "miss", &self.blob_misses),
            ("record", "hit", &self.record_hits),
            ("record", "miss", &self.record_misses),
        ] {
            let _ = writeln!(out, "{name}{{kind=\"{kind}\",result=\"{result}\"}} {}", of(counter));
        }
        for (name, kind, help, value) in [
            ("memobuild_received_bytes_total", "counter", "Bytes of bodies received.", of(&self.received_bytes)),
            ("memobuild_sent_bytes_total", "counter", "Bytes of blobs sent.", of(&self.sent_bytes)),
            (
                "memobuild_integrity_failures_total",
                "counter",
                "Bodies that were not what their digest names.",
                of(&self.integrity_failures),
            ),
            ("memobuild_gc_freed_bytes_total", "counter", "Bytes freed by POST /gc.", of(&self.gc_freed_bytes)),
            (
                "memobuild_tls_handshake_failures_total",
                "counter",
                "Connections that ended before TLS was agreed on.",
                of(&self.handshake_failures),
            ),
            ("memobuild_connections", "gauge", "Connections open.", of(&self.connections)),
            ("memobuild_watchers", "gauge", "WebSockets that watch builds.", watchers),
            ("memobuild_storage_blobs", "gauge", "Blobs stored.", usage.blobs),
            ("memobuild_storage_records", "gauge", "Records stored.", usage.records),
            ("memobuild_storage_bytes", "gauge", "Bytes stored and being received.", usage.bytes),
        ] {
            head(&mut out, name, kind, help);
            let _ = writeln!(out, "{name} {value}");
        }
        if let Some(max) = usage.max_bytes {
            head(&mut out, "memobuild_storage_limit_bytes", "gauge", "The most bytes that may be stored.");
            let _ = writeln!(out, "memobuild_storage_limit_bytes {max}");
        }
        out
    }
}

pub(crate) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        metrics.answered("/x", "GET", 200, Duration::from_millis(3));
        metrics.answered("/x", "GET", 200, Duration::from_millis(70));
        metrics.answered("/x", "GET", 404, Duration::from_secs(60));
        let text = metrics.text(&Usage::default(), 0);
        for line in [
            r#"memobuild_http_requests_total{method="GET",route="/x",status="200"} 2"#,
            r#"memobuild_http_request_duration_seconds_bucket{route="/x",le="0.001"} 0"#,
            r#"memobuild_http_request_duration_seconds_bucket{route="/x",le="0.005"} 1"#,
            r#"memobuild_http_request_duration_seconds_bucket{route="/x",le="30"} 2"#,
            r#"memobuild_http_request_duration_seconds_bucket{route="/x",le="+Inf"} 3"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("limit_bytes"));
    }
}
