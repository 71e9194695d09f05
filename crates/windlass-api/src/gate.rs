//! What every request passes: its id and span, the limits of its head, the site and key
//! checks, and the headers of every answer.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use opentelemetry::trace::FutureExt as _;
use tracing::Instrument as _;
use windlass_jobs::Timestamp;
use windlass_store::Decision;

use crate::Shared;
use crate::audit::Entry;
use crate::auth::{self, Caller};
use crate::keys::Rate;
use crate::problem::{Code, Problem};
use crate::routes::{self, Route};
use crate::session::{self, SessionKey};
use crate::trace;

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
    let page = crate::dashboard::is_page(route).then(|| request.uri().clone());
    let at = routes::find(request.method().as_str(), route).map_or(("other", "none"), |at| (at.method, at.path));
    let context = trace::begin(at.0, at.1, request.headers(), &request_id);
    let trace_id = trace::id_of(&context);
    let span = tracing::info_span!("request", method = method_name(request.method()), route, %request_id, trace_id);
    let started = Instant::now();
    let (mut request, mut audit) = (request, None);
    let answer = async {
        let session = session::of(&shared, request.method(), request.headers()).await;
        match admit(&shared, route, &request, session.as_ref()) {
            Ok(Admitted::Nowhere) => guarded(next.run(request)).await,
            Ok(Admitted::At(route, caller)) => {
                let allowed = allow(&shared, &caller, route).await;
                let changes = route.scope.is_audited() && *request.method() != Method::GET;
                if changes || allowed.as_ref().is_err_and(|problem| problem.status_code() == StatusCode::FORBIDDEN) {
                    audit = Some(entry(&caller, route, request.uri(), &request_id));
                }
                match allowed {
                    Ok(headers) => {
                        request.extensions_mut().insert(caller);
                        let mut response = guarded(next.run(request)).await;
                        response.headers_mut().extend(headers);
                        response
                    }
                    Err(problem) => problem.into_response(),
                }
            }
            Err(problem) => problem.into_response(),
        }
    };
    let mut response = answer.with_context(context.clone()).instrument(span.clone()).await;
    if let Some(entry) = audit {
        shared.auditor.take(Entry { status: response.status().as_u16(), ..entry });
    }
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = match page {
            Some(page) => crate::dashboard::problem(&shared, &page, problem, &request_id),
            None => problem.render(&request_id),
        };
    }
    finish(response.headers_mut(), &request_id);
    trace::end(&context, response.status(), response.headers_mut());
    shared.http.count(at.0, at.1, response.status().as_u16(), started.elapsed());
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), elapsed_ms, "answered"));
    response
}

/// A method for the log: a caller may send any word of any length.
fn method_name(method: &Method) -> &str {
    if method.as_str().len() <= 16 { method.as_str() } else { "other" }
}

/// Where a request goes.
enum Admitted {
    /// To the fallback, which answers 404.
    Nowhere,
    At(&'static Route, Caller),
}

fn admit(shared: &Shared, route: &str, request: &Request, session: Option<&SessionKey>) -> Result<Admitted, Problem> {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let max = shared.options.url_bytes;
    if uri.path_and_query().is_some_and(|text| text.as_str().len() > max) {
        return Err(Problem::new(Code::UrlTooLong, format!("path and query may have at most {max} bytes")));
    }
    shared.options.auth.check_site(&shared.options.cors_origins, method, uri, headers)?;
    if route.is_empty() {
        return Ok(Admitted::Nowhere);
    }
    let Some(route) = routes::find(method.as_str(), route) else {
        let allowed = routes::allowed(route);
        let problem = Problem::new(Code::MethodNotAllowed, format!("this path knows {allowed}"));
        return Err(match HeaderValue::from_str(&allowed) {
            Ok(allowed) => problem.header(header::ALLOW, allowed),
            Err(_) => problem,
        });
    };
    Ok(Admitted::At(route, shared.options.auth.identify(&shared.ring, headers, session, route)?))
}

/// Whether the caller may do it now; what the answer is to say of the caller's rate.
async fn allow(shared: &Shared, caller: &Caller, route: &Route) -> Result<HeaderMap, Problem> {
    auth::check_scope(caller, route)?;
    let Some((id, rate)) = caller.rate() else { return Ok(HeaderMap::new()) };
    let Some(rate) = rate.or(shared.options.rate) else { return Ok(HeaderMap::new()) };
    let answer = shared.caching.rate_limits.check(&format!("api-key:{id}"), rate.quota(), 1).await?;
    let decision = answer.value;
    let headers = rate_headers(rate, decision);
    if decision.allowed {
        return Ok(headers);
    }
    let detail = format!("the key may ask {} times in {} ms", rate.limit, rate.period_ms);
    let problem = Problem::new(Code::RateLimited, detail).retry_after(seconds(decision.retry_after_ms).max(1));
    Err(headers.into_iter().fold(problem, |problem, (name, value)| match name {
        Some(name) => problem.header(name, value),
        None => problem,
    }))
}

/// `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers.
fn rate_headers(rate: Rate, decision: Decision) -> HeaderMap {
    let policy = format!("\"key\";q={};w={}", rate.limit, rate.period_ms.div_ceil(1000));
    let left = format!("\"key\";r={};t={}", decision.remaining, seconds(decision.reset_ms));
    let mut headers = HeaderMap::new();
    for (name, text) in [("ratelimit-policy", policy), ("ratelimit", left)] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
    headers
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX)
}

/// What the audit log is to say of a request.
fn entry(caller: &Caller, route: &Route, uri: &Uri, request_id: &str) -> Entry {
    let (who, name) = caller.who();
    Entry {
        at: Timestamp::now(),
        who: who.to_owned(),
        name: name.map(str::to_owned),
        action: format!("{} {}", route.method, route.path),
        target: uri.path().chars().take(200).collect(),
        status: 0,
        request_id: Some(request_id.to_owned()),
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
