//! Passing failures are tried again, by the rules of registries: 100 ms doubled up to 5 s, less some by chance.

use std::{
    fs::File,
    io::{self, Write},
    time::Duration,
};

use memobuild_observe::{Backoff, RetryConfig};
use memobuild_oci::registry::patience;

use super::{Blob, Put, RecordName, Remote, RemoteError};

/// The longest wait that a server may ask of what a step waits for.
const LONGEST_AWAITED: Duration = Duration::from_secs(1);

/// The same of what is done beside the build, which waits for it in the end.
const LONGEST_BESIDE: Duration = Duration::from_secs(10);

/// Tries again.
pub(super) struct Retry<R>(pub(super) R);

/// Tries again what a step waits for: not often, and not for long.
pub(super) fn awaited<T>(ask: impl FnMut() -> Result<T, RemoteError>) -> Result<T, RemoteError> {
    again(Backoff::new(RetryConfig::default()), LONGEST_AWAITED, ask)
}

/// Tries again what is done beside the build. The breaker ends that.
fn beside<T>(ask: impl FnMut() -> Result<T, RemoteError>) -> Result<T, RemoteError> {
    again(patience(), LONGEST_BESIDE, ask)
}

fn again<T>(
    mut backoff: Backoff,
    longest: Duration,
    mut ask: impl FnMut() -> Result<T, RemoteError>,
) -> Result<T, RemoteError> {
    loop {
        let answer = ask();
        let may = |e: &RemoteError| e.is_transient() && e.wish().is_none_or(|wish| wish <= longest);
        match &answer {
            Err(e) if may(e) && backoff.again(e.wish()) => tracing::debug!("trying again: {e}"),
            _ => return answer,
        }
    }
}

impl<R: Remote> Remote for Retry<R> {
    fn record(&self, name: &RecordName) -> Result<Option<Vec<u8>>, RemoteError> {
        awaited(|| self.0.record(name))
    }

    fn record_put(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Put, RemoteError> {
        beside(|| self.0.record_put(name, value, blobs))
    }

    fn list(&self, name: &RecordName) -> Result<Vec<Vec<u8>>, RemoteError> {
        awaited(|| self.0.list(name))
    }

    fn list_add(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        beside(|| self.0.list_add(name, value, blobs))
    }

    fn missing(&self, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        beside(|| self.0.missing(blobs))
    }

    /// Only as long as nothing was written: whoever writes can begin anew.
    fn fetch(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError> {
        let (mut to, mut broken) = (Touched { to, touched: false }, None);
        let fetched = awaited(|| match self.0.fetch(blob, &mut to) {
            Err(e) if to.touched => {
                broken = Some(e);
                Ok(())
            }
            other => other,
        });
        match broken {
            Some(e) => Err(e),
            None => fetched,
        }
    }

    fn send(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError> {
        beside(|| self.0.send(blob, from))
    }
}

struct Touched<'a> {
    to: &'a mut dyn Write,
    touched: bool,
}

impl Write for Touched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.touched = true;
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::testing::{Fake, blob, file, name};

    #[test]
    fn passing_failures_pass() {
        let retry = Retry(Fake::failing(2));
        assert_eq!(retry.record(&name(1)).unwrap(), None);
        assert_eq!(retry.0.calls().len(), 3);
        let retry = Retry(Fake::failing(9));
        retry.record(&name(1)).unwrap_err();
        assert_eq!(retry.0.calls().len(), RetryConfig::default().max_attempts as usize);
        let retry = Retry(Fake::failing(4));
        retry.send(&blob(b"x"), &mut file(b"x")).unwrap();
        let mut got = Vec::new();
        retry.fetch(&blob(b"x"), &mut got).unwrap();
        assert_eq!(got, b"x");
    }

    #[test]
    fn what_will_not_change_is_not_tried_again() {
        let retry = Retry(Fake::default());
        assert!(matches!(retry.fetch(&blob(b"x"), &mut Vec::new()), Err(RemoteError::NoBlob(_))));
        assert_eq!(retry.0.calls().len(), 1);
        let wish = || -> Result<(), _> {
            let (retry_after, detail) = (Some(Duration::from_secs(2)), String::new());
            Err(RemoteError::Status { status: 503, retry_after, detail })
        };
        let mut asked = 0;
        awaited(|| {
            asked += 1;
            wish()
        })
        .unwrap_err();
        assert_eq!(asked, 1);
    }
}
