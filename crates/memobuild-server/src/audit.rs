//! The audit log: a JSON object a line for each change, each refusal, and the first use of a token or certificate from an
//! address within an hour. Of refusals for sending too much, one a minute: whoever floods the server must not flood this.
//! It says who, what, and how it ended; never a token.
//!
//! A line is one write to a file opened for appending, made before the answer is sent: what a client was told is in the log,
//! whatever happens next. The file is opened anew on SIGHUP, for those who rotate it.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{clock, peer::How};

/// For how long a client that was seen at an address is not worth another line.
pub(crate) const SEEN_FOR: Duration = Duration::from_secs(3600);

/// For how long a client that sends too much is not worth another line.
pub(crate) const LIMITED_FOR: Duration = Duration::from_secs(60);

/// Clients and addresses that are remembered for that.
const MOST_SEEN: usize = 10_000;

/// One line, without its time.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Entry<'a> {
    pub(crate) event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<&'a str>,
    /// How the client said who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) auth: Option<How>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    /// The code of an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'a str>,
    /// Bytes of the request's body that were taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<&'a str>,
    /// Counts of a collection, and what else belongs to one kind of event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<&'a serde_json::Value>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

/// The log; without a file it takes nothing.
pub(crate) struct Audit {
    path: PathBuf,
    file: Mutex<File>,
    seen: Mutex<HashMap<(String, Option<IpAddr>), Instant>>,
    failures: AtomicU64,
}

impl Audit {
    /// Opens the file, or makes it readable by its owner only.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = Mutex::new(append(path)?);
        Ok(Self { path: path.to_owned(), file, seen: Mutex::default(), failures: AtomicU64::new(0) })
    }

    /// Opens the file anew. The old one stays if that fails.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        let file = append(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    /// Lines that could not be written.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Writes a line. A log that can't be written stops no request: it is told, and counted.
    pub(crate) fn write(&self, entry: &Entry<'_>) {
        let written = serde_json::to_vec(&Line { time: clock::timestamp(), entry }).map_err(io::Error::other).and_then(
            |mut line| {
                line.push(b'\n');
                self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
            },
        );
        if let Err(error) = written {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!("cannot write to the audit log {}: {error}", self.path.display());
        }
    }

    /// Whether this was not seen from this address within this time.
    pub(crate) fn is_new(&self, what: &str, address: Option<IpAddr>, within: Duration, now: Instant) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (what.to_owned(), address);
        if seen.get(&key).is_some_and(|at| now.saturating_duration_since(*at) < within) {
            return false;
        }
        if seen.len() >= MOST_SEEN {
            seen.retain(|_, at| now.saturating_duration_since(*at) < SEEN_FOR);
        }
        if seen.len() >= MOST_SEEN {
            // A line too many is better than memory without bounds.
            seen.clear();
        }
        seen.insert(key, now);
        true
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn lines_are_objects_and_the_file_may_be_moved_away() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("audit"), dir.path().join("audit.1"));
        let audit = Audit::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let hostile = "/cache/\n{\"event\":\"gc\"}\u{2028}\u{1b}[2J";
        audit.write(&Entry { event: "refusal", path: Some(hostile), status: Some(400), ..Entry::default() });
        fs::rename(&path, &old).unwrap();
        audit.write(&Entry { event: "change", client: Some("ci"), auth: Some(How::Token), ..Entry::default() });
        audit.reopen().unwrap();
        audit.write(&Entry { event: "gc", ..Entry::default() });
        let read = |path| -> Vec<serde_json::Value> {
            fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let (first, second) = (read(&old), read(&path));
        assert_eq!((first.len(), second.len()), (2, 1));
        assert_eq!(first[0]["path"], hostile);
        assert_eq!((&first[1]["client"], &first[1]["auth"]), (&"ci".into(), &"token".into()));
        assert!(second[0]["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(audit.failures(), 0);
    }

    #[test]
    fn who_was_seen_is_remembered_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(&dir.path().join("audit")).unwrap();
        let (start, here) = (Instant::now(), "192.0.2.1".parse().ok());
        assert!(audit.is_new("ci", here, SEEN_FOR, start));
        assert!(!audit.is_new("ci", here, SEEN_FOR, start));
        assert!(
            audit.is_new("ci", "192.0.2.2".parse().ok(), SEEN_FOR, start) && audit.is_new("dev", here, SEEN_FOR, start)
        );
        assert!(audit.is_new("ci", here, SEEN_FOR, start + SEEN_FOR));
        assert!(audit.is_new("ci", here, LIMITED_FOR, start + SEEN_FOR + LIMITED_FOR));
        for n in 0..3 * MOST_SEEN {
            audit.is_new(&n.to_string(), None, SEEN_FOR, start);
        }
        assert!(audit.seen.lock().unwrap().len() <= MOST_SEEN);
    }
}
