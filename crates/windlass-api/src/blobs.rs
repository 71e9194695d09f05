//! `POST /api/blobs`, `PUT` and `HEAD /api/blobs/{sha256}`: inputs of jobs, named by their
//! SHA-256. An uploaded blob is kept for a day, and longer while jobs use it.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use windlass_store::Digest;

use crate::problem::{Code, Problem};
use crate::{Shared, body};

pub(crate) async fn post(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    store(&shared, &headers, body, None).await
}

pub(crate) async fn put(
    State(shared): State<Shared>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let name = parse(name)?;
    store(&shared, &headers, body, Some(name)).await
}

/// Whether a blob is there; asking keeps it for a day more, so that a yes can be relied on.
pub(crate) async fn head(
    State(shared): State<Shared>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let digest = parse(name)?;
    if shared.services.artifacts.touch(&digest).await? { Ok(StatusCode::OK.into_response()) } else { Err(not_found()) }
}

/// A name that cannot be one is answered as one that is not there.
fn parse(name: Result<Path<String>, PathRejection>) -> Result<Digest, Problem> {
    name.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(not_found)
}

fn not_found() -> Problem {
    Problem::new(Code::BlobNotFound, "there is no blob of this name")
}

async fn store(shared: &Shared, headers: &HeaderMap, body: Body, name: Option<Digest>) -> Result<Response, Problem> {
    let body = body::read(shared, headers, body, shared.options.blob_bytes).await?;
    if let Some(name) = name {
        let bytes = body.bytes.clone();
        let found = tokio::task::spawn_blocking(move || Digest::of(&bytes)).await;
        let found = found.map_err(|_| Problem::new(Code::Internal, "the server made a mistake"))?;
        if found != name {
            return Err(Problem::new(Code::DigestMismatch, format!("the body is {found}; nothing was stored")));
        }
    }
    let bytes = body.bytes.len();
    let digest = shared.services.artifacts.put(body.bytes.clone()).await?;
    let mut response =
        (StatusCode::CREATED, axum::Json(json!({ "blob": digest.to_string(), "bytes": bytes }))).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/blobs/{}", digest.hex())) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}
