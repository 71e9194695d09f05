//! Bodies: how large, how slow, and how many at once.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
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
    let mut parts = Parts::begin(shared, headers, body, limit, limit)?;
    let mut bytes = BytesMut::with_capacity(parts.announced.unwrap_or(0));
    while let Some(part) = parts.next().await? {
        bytes.extend_from_slice(&part);
    }
    Ok(Read { bytes: bytes.freeze(), _room: parts.room })
}

/// What a body that is not kept whole may take of memory while it comes, in bytes.
const PART_ROOM: usize = 1024 * 1024;

/// A body as it comes: its size, speed and share of memory bounded.
pub(crate) struct Parts {
    chunks: BodyDataStream,
    announced: Option<usize>,
    read: usize,
    limit: usize,
    started: Instant,
    timeout: Duration,
    room: OwnedSemaphorePermit,
}

impl Parts {
    /// For a caller that keeps no more than a part of it in memory.
    pub(crate) fn open(shared: &Shared, headers: &HeaderMap, body: Body, limit: usize) -> Result<Self, Problem> {
        Self::begin(shared, headers, body, limit, PART_ROOM)
    }

    fn begin(
        shared: &Shared,
        headers: &HeaderMap,
        body: Body,
        limit: usize,
        most_room: usize,
    ) -> Result<Self, Problem> {
        check_encoding(headers)?;
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
        if announced.is_some_and(|bytes| bytes > limit) {
            return Err(too_large(limit));
        }
        let room = shared
            .room_for(announced.unwrap_or(limit).min(most_room))
            .ok_or_else(|| Problem::new(Code::Busy, "too many bodies are being read at the moment").retry_after(1))?;
        let (started, timeout) = (Instant::now(), shared.options.body_timeout);
        Ok(Self { chunks: body.into_data_stream(), announced, read: 0, limit, started, timeout, room })
    }

    /// The next part; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let earned = Duration::from_secs((self.read / BYTES_PER_SECOND) as u64);
        match timeout_at(self.started + self.timeout + earned, self.chunks.next()).await {
            Err(_) => Err(closing(Problem::new(Code::BodyTimeout, "the body came too slowly"))),
            Ok(None) => Ok(None),
            Ok(Some(Err(_))) => Err(closing(Problem::new(Code::BodyUnreadable, "the body broke off"))),
            Ok(Some(Ok(part))) if self.read + part.len() > self.limit => Err(too_large(self.limit)),
            Ok(Some(Ok(part))) => {
                self.read += part.len();
                Ok(Some(part))
            }
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
