//! What browsers of other sites may ask, and how answers are packed.

use std::time::Duration;

use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate as _, SizeAbove};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser remembers what it may ask.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Smaller answers are sent as they are, in bytes.
const SMALL: u16 = 1_024;

/// Lets pages of these sites ask; `None` when there are none. Keys are sent as headers, so no cookie of
/// a browser is ever taken (no `Access-Control-Allow-Credentials`).
pub(crate) fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let name = HeaderName::from_static;
    let sent = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::IF_NONE_MATCH,
        name("idempotency-key"),
        name("x-request-id"),
        crate::trace::TRACEPARENT,
    ];
    let shown = [
        header::LOCATION,
        header::ETAG,
        header::RETRY_AFTER,
        header::CONTENT_DISPOSITION,
        name("ratelimit"),
        name("ratelimit-policy"),
        name("x-request-id"),
        crate::trace::TRACEPARENT,
    ];
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE];
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods(methods)
            .allow_headers(sent)
            .expose_headers(shown)
            .max_age(MAX_AGE),
    )
}

/// Packs answers with zstd or gzip where the client takes it; no pictures, no event streams, nothing
/// small, nothing with an `ETag`, which names the bytes as they are, and no page of the dashboard: it
/// holds a secret of its session beside what the address says (CRIME, BREACH).
pub(crate) fn compression() -> CompressionLayer<impl tower_http::compression::Predicate> {
    let fits = |_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions| {
        let is_page = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        !is_page && !headers.contains_key(header::ETAG)
    };
    CompressionLayer::new().compress_when(DefaultPredicate::new().and(SizeAbove::new(SMALL)).and(fits))
}
