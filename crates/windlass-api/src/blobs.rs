//! `POST /api/blobs`, `PUT`, `HEAD` and `GET /api/blobs/{sha256}`: inputs of jobs, named by their
//! SHA-256. An uploaded blob is kept for a day, and for as long as jobs hold it.

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

/// The bytes of a blob; asking keeps it for a day more.
pub(crate) async fn get(
    State(shared): State<Shared>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let digest = parse(name)?;
    let bytes = shared.services.artifacts.get(&digest).await?.ok_or_else(not_found)?;
    // Whatever it is, a browser is not to take it for a page.
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=86400, immutable")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
    ];
    let mut response = (headers, bytes).into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", digest.hex())) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

/// Stores a body part by part as it comes; memory holds no more than one of them.
async fn store(shared: &Shared, headers: &HeaderMap, body: Body, name: Option<Digest>) -> Result<Response, Problem> {
    let mut parts = body::Parts::open(shared, headers, body, shared.options.blob_bytes)?;
    let mut upload = shared.services.artifacts.upload().await?;
    while let Some(part) = parts.next().await? {
        upload.write(part).await?;
    }
    let bytes = upload.bytes();
    let digest = match upload.finish(name).await {
        Err(windlass_store::Error::OtherBytes { found }) => {
            return Err(Problem::new(Code::DigestMismatch, format!("the body is {found}; nothing was stored")));
        }
        other => other?,
    };
    let mut response =
        (StatusCode::CREATED, axum::Json(json!({ "blob": digest.to_string(), "bytes": bytes }))).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/blobs/{}", digest.hex())) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}
