//! `GET /api/quotes/socket`: quotes over a WebSocket that stays open.
//!
//! Each message, text or binary, is a quote or a list as `POST /api/quotes` takes it, and is answered by
//! one text message in its order: `{"accepted", "rejected"}`, or `{"code", "detail"}` when it was not
//! taken as a whole. Who sends faster than quotes are kept is slowed down by the connection itself.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::quotes;
use crate::Shared;
use crate::problem::{Code, Problem};

/// How long a feed may be silent, pings included.
const SILENCE: Duration = Duration::from_secs(120);
/// The largest message, in bytes; a list of quotes may be split.
const MESSAGE_BYTES: usize = 1024 * 1024;

/// 101, and then answers to messages until either side closes.
pub(crate) async fn open(
    State(shared): State<Shared>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let wrong = |rejection: WebSocketUpgradeRejection| {
        Problem::new(Code::BodyInvalid, format!("a WebSocket is opened here: {}", rejection.body_text()))
    };
    let upgrade = upgrade.map_err(wrong)?;
    let Ok(permit) = Arc::clone(&shared.streams).try_acquire_owned() else {
        let detail = format!("{} streams are open", shared.options.event_streams);
        return Err(Problem::new(Code::TooManyStreams, detail).retry_after(5));
    };
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES).max_frame_size(MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(move |socket| serve(socket, shared, permit)))
}

async fn serve(mut socket: WebSocket, shared: Shared, _permit: OwnedSemaphorePermit) {
    loop {
        let message = tokio::select! {
            () = shared.shutdown.cancelled() => {
                let frame = CloseFrame { code: close_code::AWAY, reason: "the server stops".into() };
                let _ = socket.send(Message::Close(Some(frame))).await;
                return;
            }
            message = tokio::time::timeout(SILENCE, socket.recv()) => message,
        };
        let Ok(Some(Ok(message))) = message else { return };
        let bytes = match message {
            Message::Text(text) => text.as_bytes().to_vec(),
            Message::Binary(bytes) => bytes.to_vec(),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        let answer = match quotes::take(&shared, &bytes).await {
            Ok(told) => told,
            Err(problem) => json!({ "code": problem.code().as_str(), "detail": problem.detail() }),
        };
        if socket.send(Message::Text(answer.to_string().into())).await.is_err() {
            return;
        }
    }
}
