//! Bodies: how large, how slow, and how many at once.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::Shared;
use crate::problem::{Code, Problem};

/// After [`ApiOptions::body_timeout`](crate::ApiOptions::body_timeout), a body goes on only
/// if it came at least this fast on average.
const BYTES_PER_SECOND: usize = 64 * 1024;

/// A whole body, counted against all bodies in memory until it is dropped.
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read(shared: &Shared, headers: &HeaderMap, body: Body, limit: usize) -> Result<Read, Problem> {
    check_encoding(headers)?;
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > limit) {
        return Err(too_large(limit));
    }
    let expected = announced.unwrap_or(limit);
    let room = shared
        .room_for(expected)
        .ok_or_else(|| Problem::new(Code::Busy, "too many bodies are being read at the moment").retry_after(1))?;
    let started = Instant::now();
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0));
    let mut chunks = body.into_data_stream();
    loop {
        let earned = Duration::from_secs((bytes.len() / BYTES_PER_SECOND) as u64);
        let deadline = started + shared.options.body_timeout + earned;
        match timeout_at(deadline, chunks.next()).await {
            Err(_) => return Err(closing(Problem::new(Code::BodyTimeout, "the body came too slowly"))),
            Ok(None) => return Ok(Read { bytes: bytes.freeze(), _room: room }),
            Ok(Some(Err(_))) => return Err(closing(Problem::new(Code::BodyUnreadable, "the body broke off"))),
            Ok(Some(Ok(chunk))) if bytes.len() + chunk.len() > limit => return Err(too_large(limit)),
            Ok(Some(Ok(chunk))) => bytes.extend_from_slice(&chunk),
        }
    }
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    Err(Problem::new(Code::EncodingUnsupported, "send the body without a content encoding"))
}

/// Takes only `application/json`, with or without parameters.
pub(crate) fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(Code::MediaTypeUnsupported, "send JSON with Content-Type: application/json"))
}

fn too_large(limit: usize) -> Problem {
    closing(Problem::new(Code::BodyTooLarge, format!("at most {limit} bytes are taken")))
}

/// The rest of the body is not waited for.
fn closing(problem: Problem) -> Problem {
    problem.header(header::CONNECTION, HeaderValue::from_static("close"))
}
