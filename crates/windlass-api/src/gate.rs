//! What every request passes: its id and span, the limits of its head, the site and key
//! checks, and the headers of every answer.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use crate::Shared;
use crate::problem::{Code, Problem};
use crate::routes::{self, Scope};

/// The header that carries a request's id, both ways.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Set on every answer that does not bring its own.
const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Lets a request through to its handler, and its answer out.
pub(crate) async fn gate(
    State(shared): State<Shared>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let request_id = request_id(request.headers());
    let route = path.as_ref().map_or("", MatchedPath::as_str);
    let span = tracing::info_span!("request", method = method_name(request.method()), route, %request_id);
    let started = Instant::now();
    let answer = async {
        match admit(&shared, route, request.method(), request.uri(), request.headers()) {
            Ok(()) => guarded(next.run(request)).await,
            Err(problem) => problem.into_response(),
        }
    };
    let mut response = answer.instrument(span.clone()).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = problem.render(&request_id);
    }
    finish(response.headers_mut(), &request_id);
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), elapsed_ms, "answered"));
    response
}

/// A method for the log: a caller may send any word of any length.
fn method_name(method: &Method) -> &str {
    if method.as_str().len() <= 16 { method.as_str() } else { "other" }
}

fn admit(shared: &Shared, route: &str, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let max = shared.options.url_bytes;
    if uri.path_and_query().is_some_and(|text| text.as_str().len() > max) {
        return Err(Problem::new(Code::UrlTooLong, format!("path and query may have at most {max} bytes")));
    }
    shared.options.auth.check_site(method, uri, headers)?;
    if route.is_empty() {
        return Ok(()); // the fallback answers 404
    }
    let Some(route) = routes::find(method.as_str(), route) else {
        let allowed = routes::allowed(route);
        let problem = Problem::new(Code::MethodNotAllowed, format!("this path knows {allowed}"));
        return Err(match HeaderValue::from_str(&allowed) {
            Ok(allowed) => problem.header(header::ALLOW, allowed),
            Err(_) => problem,
        });
    };
    match route.scope {
        Scope::Public => Ok(()),
        // Every key may do everything.
        Scope::Read | Scope::Write | Scope::Admin => shared.options.auth.check_key(headers),
    }
}

/// A handler that panics is one failed request, not a broken connection.
async fn guarded(answer: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("the handler panicked");
        Problem::new(Code::Internal, "the server made a mistake").into_response()
    })
}

/// The caller's id when it is `[A-Za-z0-9_-]{1,64}`, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let fits = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(fits);
    given.map_or_else(|| windlass_jobs::new_ulid().to_string(), str::to_owned)
}

fn finish(headers: &mut HeaderMap, request_id: &str) {
    for (name, value) in SECURITY_HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
}
