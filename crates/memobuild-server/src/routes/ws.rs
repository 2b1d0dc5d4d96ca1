//! `GET /ws`: builds as they go on, over a WebSocket (RFC 6455).
//!
//! Everybody is told of all builds, without their steps; a client that sends `{"watch": ID}` is told of that build's steps
//! and outputs as well (`{"watch": null}` ends that). Messages are JSON in text frames. A client that does not keep up, or
//! does not answer pings, is sent away: what it missed it asks for by `GET /api/builds`.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code, rejection::WebSocketUpgradeRejection},
    },
    http::StatusCode,
    response::IntoResponse as _,
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{Answer, App, schemas::ErrorBody};
use crate::{
    auth::SUBPROTOCOL,
    builds::{BuildId, Watcher},
    reply::ApiError,
};

/// The longest message that a client may send, in bytes.
const LONGEST: usize = 4 << 10;

/// How often clients are asked whether they are there.
const PING: Duration = Duration::from_secs(20);

/// How long one may take to take a message.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    watch: Option<String>,
}

/// Builds as they go on, over a WebSocket
#[utoipa::path(get, path = "/ws", tag = "builds", operation_id = "watch",
    responses((status = 101, description = "Messages of the subprotocol memobuild.v1"),
        (status = 426, description = "Not a WebSocket's handshake", body = ErrorBody),
        (status = 503, description = "Too many watch", body = ErrorBody)))]
pub(super) async fn ws(
    State(app): State<Arc<App>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let upgrade = upgrade.map_err(|error| {
        ApiError::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", error.to_string())
            .with_header(axum::http::header::UPGRADE, axum::http::HeaderValue::from_static("websocket"))
    })?;
    let watcher = app.live.watch().ok_or_else(|| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_watchers",
            "too many clients watch; ask for /api/builds",
        )
    })?;
    let upgrade = upgrade.protocols([SUBPROTOCOL]).max_message_size(LONGEST).max_frame_size(LONGEST);
    Ok(upgrade.on_upgrade(|socket| serve(socket, watcher)).into_response())
}

/// Until either side has enough.
async fn serve(mut socket: WebSocket, mut watcher: Watcher) {
    let mut watched: Option<BuildId> = None;
    let mut heard = Instant::now();
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        let sent = tokio::select! {
            // Whoever may be closed is closed, however much there is to tell.
            biased;
            () = ended(&mut watcher.closed) => break Some((close_code::AWAY, "the server ends")),
            message = socket.recv() => {
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Text(text))) => match wish(&text) {
                        Some(wish) => {
                            let told = json!({ "type": "watching", "build": wish });
                            watched = wish;
                            send(&mut socket, Message::Text(told.to_string().into())).await
                        }
                        None => break Some((close_code::POLICY, "not a message that is known here")),
                    },
                    Some(Ok(Message::Binary(_))) => break Some((close_code::UNSUPPORTED, "text is expected")),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break None,
                }
            }
            told = watcher.changes.recv() => match told {
                Ok(told) => {
                    let brief = send(&mut socket, Message::Text(told.brief.as_str().into())).await;
                    match brief {
                        Ok(()) if watched.as_ref() == Some(&told.build) => {
                            send(&mut socket, Message::Text(told.detail.as_str().into())).await
                        }
                        other => other,
                    }
                }
                Err(RecvError::Lagged(_)) => break Some((close_code::AGAIN, "too slow")),
                Err(RecvError::Closed) => break None,
            },
            _ = ping.tick() => match heard.elapsed() > 2 * PING {
                true => Err(()),
                false => send(&mut socket, Message::Ping(Vec::new().into())).await,
            },
        };
        if sent.is_err() {
            break None;
        }
    };
    if let Some((code, reason)) = end {
        let _ = send(&mut socket, Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
        // The answer to it, so that what was sent is not lost with a reset.
        let _ = timeout(Duration::from_secs(1), async { while let Some(Ok(_)) = socket.recv().await {} }).await;
    }
}

/// Waits until the server ends.
async fn ended(closed: &mut watch::Receiver<bool>) {
    // An error: nobody is there any more who could say so.
    let _ = closed.wait_for(|closed| *closed).await;
}

/// What a client wants to watch; `None` if that can't be understood.
fn wish(text: &str) -> Option<Option<BuildId>> {
    let wish: Wish = serde_json::from_str(text).ok()?;
    wish.watch.map(|id| id.parse()).transpose().ok()
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), ()> {
    match timeout(PATIENCE, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes() {
        assert_eq!(wish(r#"{"watch":null}"#), Some(None));
        assert_eq!(wish(r#"{"watch":"0123456789"}"#).flatten().map(|id| id.to_string()), Some("0123456789".into()));
        for bad in ["", "{", "[]", r#"{"watch":7}"#, r#"{"watch":"../../x"}"#, r#"{"look":"0123456789"}"#] {
            assert_eq!(wish(bad), None, "{bad}");
        }
    }
}
