//! What a call's status means to those who use a server.

use std::error::Error as _;

use tonic::{Code, Status};

use crate::remote::RemoteError;

/// A failed call. `with_token`: whether one was sent.
pub(super) fn failed(status: Status, with_token: bool) -> RemoteError {
    let detail: String = status.message().chars().take(300).collect();
    let answered = |status, detail| RemoteError::Status { status, retry_after: None, detail };
    // What never reached a server has a status of the client's own making.
    if let Some(cause) = transport(&status) {
        return RemoteError::Unreachable(cause);
    }
    match status.code() {
        Code::Unavailable | Code::Cancelled => RemoteError::Unreachable(detail),
        Code::DeadlineExceeded => RemoteError::TimedOut(detail),
        Code::Unauthenticated => RemoteError::Unauthorized { with_token, detail },
        Code::PermissionDenied => RemoteError::Forbidden(detail),
        Code::ResourceExhausted => RemoteError::Full(detail),
        Code::Unimplemented => RemoteError::Foreign(format!("it is no cache of the Remote Execution API: {detail}")),
        Code::NotFound => answered(404, detail),
        Code::Aborted => answered(503, detail),
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition | Code::AlreadyExists => {
            answered(400, detail)
        }
        _ => answered(500, detail),
    }
}

/// Whether a result was refused since blobs that it names are not there.
pub(super) fn is_missing(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::NotFound | Code::InvalidArgument)
}

/// The innermost cause of a failure of the connection.
fn transport(status: &Status) -> Option<String> {
    let mut cause = status.source()?;
    cause.downcast_ref::<tonic::transport::Error>()?;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Some(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart() {
        let of = |code| failed(Status::new(code, "words"), true);
        assert!(of(Code::Unavailable).is_transient());
        assert!(of(Code::DeadlineExceeded).is_transient());
        assert!(of(Code::Internal).is_transient());
        assert!(of(Code::Unauthenticated).is_final());
        assert!(of(Code::Unimplemented).is_final());
        for code in [Code::PermissionDenied, Code::ResourceExhausted, Code::InvalidArgument, Code::NotFound] {
            assert!(!of(code).is_transient() && !of(code).is_final(), "{code:?}");
        }
    }
}
