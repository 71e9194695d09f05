//! `GET /api/tasks/{id}/result`: what came out, as bytes or as JSON.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use windlass_jobs::{JobRecord, State as JobState};
use windlass_store::Digest;
use windlass_worker::StoredArtifact;

use crate::auth::Caller;
use crate::problem::{Code, Problem};
use crate::task::{self, stored_result};
use crate::{Shared, sheets};

/// A result never changes; it is kept for a day.
const CACHE: &str = "private, max-age=86400, immutable";

/// Shown by a browser; everything else is offered for saving, for it could be a page.
const INLINE: [&str; 10] = [
    "application/pdf",
    "application/json",
    "text/plain",
    "text/csv",
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/gif",
    "image/bmp",
    "image/tiff",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultQuery {
    /// Which artifact: its name, or its index from 0. Default: the first.
    artifact: Option<String>,
}

pub(crate) async fn result(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<ResultQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|_| Problem::new(Code::QueryInvalid, "only ?artifact= is known here"))?;
    let record = task::find(&shared, &caller, id).await?;
    let answer = of_record(&shared, &headers, &query, &record).await;
    answer.map_err(|problem| sheets::legacy::about(&record, problem))
}

async fn of_record(
    shared: &Shared,
    headers: &HeaderMap,
    query: &ResultQuery,
    record: &JobRecord,
) -> Result<Response, Problem> {
    check_finished(record)?;
    let stored = stored_result(record);
    let artifact = match &query.artifact {
        Some(wanted) => Some(pick(&stored.artifacts, wanted).ok_or_else(|| {
            Problem::new(
                Code::ArtifactNotFound,
                format!("the task has {} artifacts, none of this name", stored.artifacts.len()),
            )
        })?),
        None => stored.artifacts.first().filter(|artifact| !prefers_json(headers, &artifact.media_type)),
    };
    match artifact {
        Some(artifact) => send_artifact(shared, headers, artifact).await,
        None => Ok(send_json(headers, stored.value.to_string().into())),
    }
}

fn check_finished(record: &JobRecord) -> Result<(), Problem> {
    let (code, detail) = match record.state {
        JobState::Success => return Ok(()),
        JobState::Failure => (Code::TaskFailed, "the task failed; there is no result"),
        JobState::Cancelled => (Code::TaskCancelled, "the task was cancelled; there is no result"),
        _ => (Code::TaskNotCompleted, "the task has not ended yet"),
    };
    let task = json!({
        "task_id": record.id,
        "status": record.state,
        "reason": record.reason,
        "error": record.error,
    });
    Err(Problem::new(code, detail).with("task", task))
}

fn pick<'a>(artifacts: &'a [StoredArtifact], wanted: &str) -> Option<&'a StoredArtifact> {
    let by_name = artifacts.iter().find(|artifact| artifact.name == wanted);
    by_name.or_else(|| wanted.parse::<usize>().ok().and_then(|index| artifacts.get(index)))
}

/// True when the caller asks for JSON and would not take the artifact as well.
fn prefers_json(headers: &HeaderMap, media_type: &str) -> bool {
    let accepts = |wanted: &str| {
        let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        ranges.filter_map(|range| range.split(';').next()).any(|range| range.trim().eq_ignore_ascii_case(wanted))
    };
    accepts("application/json") && !accepts("*/*") && !accepts(media_type)
}

async fn send_artifact(shared: &Shared, headers: &HeaderMap, artifact: &StoredArtifact) -> Result<Response, Problem> {
    let gone = || Problem::new(Code::ResultExpired, "the artifact is no longer kept; run the task again");
    let digest: Digest = artifact.blob.parse().map_err(|_| gone())?;
    let etag = format!("\"{}\"", digest.hex());
    if matches(headers, &etag) && shared.services.artifacts.touch(&digest).await? {
        return Ok(with_cache(StatusCode::NOT_MODIFIED, &etag, Body::empty()));
    }
    let bytes = shared.services.artifacts.get(&digest).await?.ok_or_else(gone)?;
    let mut response = with_cache(StatusCode::OK, &etag, Body::from(bytes));
    let media_type =
        HeaderValue::from_str(&artifact.media_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    if artifact.media_type == "application/pdf" {
        // The page of its task shows it in a frame.
        let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'self'");
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if let Ok(disposition) = HeaderValue::from_str(&disposition(&artifact.name, &artifact.media_type)) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

fn send_json(headers: &HeaderMap, text: Bytes) -> Response {
    let etag = format!("\"{}\"", Digest::of(&text).hex());
    if matches(headers, &etag) {
        return with_cache(StatusCode::NOT_MODIFIED, &etag, Body::empty());
    }
    let mut response = with_cache(StatusCode::OK, &etag, Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The same URL answers JSON or an artifact, hence `Vary`.
fn with_cache(status: StatusCode, etag: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHE));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// True when `If-None-Match` names the tag; compared weakly, as RFC 9110 asks.
pub(crate) fn matches(headers: &HeaderMap, etag: &str) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    tags.map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// `inline; filename="…"`, with the exact name by RFC 8187 when it is not plain ASCII.
fn disposition(name: &str, media_type: &str) -> String {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let how = if INLINE.contains(&essence.as_str()) { "inline" } else { "attachment" };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ' ' | '(' | ')' | '+' | ',');
    let short: String = name.chars().take(128).collect();
    let plain: String = short.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if plain == short {
        return format!("{how}; filename=\"{plain}\"");
    }
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let without_control = short.bytes().filter(|b| !b.is_ascii_control() && !matches!(b, b'/' | b'\\'));
    let exact: String =
        without_control.map(|b| if safe(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect();
    format!("{how}; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B28, B29: a name reaches the header as text, never as a path or a header of its own.
    #[test]
    fn file_names_are_made_harmless() {
        let check = |name, media_type, expected: &str| assert_eq!(disposition(name, media_type), expected);
        check("cards.pdf", "application/pdf", "inline; filename=\"cards.pdf\"");
        check("a.html", "text/html", "attachment; filename=\"a.html\"");
        check("a.svg", "image/svg+xml", "attachment; filename=\"a.svg\"");
        check("é\".pdf", "application/pdf", "inline; filename=\"__.pdf\"; filename*=UTF-8''%C3%A9%22.pdf");
        check(
            "../../etc/passwd",
            "text/plain",
            "inline; filename=\".._.._etc_passwd\"; filename*=UTF-8''....etcpasswd",
        );
        check(
            "a\r\nSet-Cookie: x",
            "",
            "attachment; filename=\"a__Set-Cookie_ x\"; filename*=UTF-8''aSet-Cookie%3A%20x",
        );
    }

    #[test]
    fn json_is_preferred_only_when_asked_for_alone() {
        let check = |accept: &'static str, expected| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(prefers_json(&headers, "application/pdf"), expected, "{accept}");
        };
        check("application/json", true);
        check("application/json;q=0.9, text/html", true);
        check("application/json, text/plain, */*", false);
        check("application/pdf, application/json", false);
        check("*/*", false);
        check("", false);
    }
}
