//! Spans of requests, under the caller's own where it sends a `traceparent`, which every answer to a traced
//! request names in turn (W3C Trace Context).

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _};
use opentelemetry::{Context, KeyValue, global};
use windlass_jobs::TraceContext;
use windlass_producer::trace::{SCOPE, carried, under};

/// The header that carries a trace, both ways.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The context in which a request is answered. What probes and people ask again and again is no trace.
pub(crate) fn begin(method: &'static str, route: &'static str, headers: &HeaderMap, request_id: &str) -> Context {
    let is_asked_often = !route.starts_with("/api/") || route.starts_with("/api/health");
    if is_asked_often && method != "POST" {
        return Context::new();
    }
    let parent = parent(headers).map_or_else(Context::new, |trace| under(&trace));
    let builder = SpanBuilder::from_name("request").with_kind(SpanKind::Server);
    let mut span = builder.start_with_context(&global::tracer(SCOPE), &parent);
    if !span.span_context().is_valid() {
        return parent;
    }
    if span.is_recording() {
        span.update_name(format!("{method} {route}"));
        span.set_attribute(KeyValue::new("http.request.method", method));
        span.set_attribute(KeyValue::new("http.route", route));
        span.set_attribute(KeyValue::new("windlass.request_id", request_id.to_owned()));
    }
    parent.with_span(span)
}

/// One that is not as it should be, or stands twice, is none.
fn parent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).into_iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok()?.trim().parse().ok()
}

/// The id of a request's trace, for the log.
pub(crate) fn id_of(context: &Context) -> Option<String> {
    carried(context.span().span_context()).map(|trace| trace.trace_id_hex())
}

/// Ends a request's span, and tells the caller where to look.
pub(crate) fn end(context: &Context, status: StatusCode, headers: &mut HeaderMap) {
    let span = context.span();
    if let Some(trace) = carried(span.span_context())
        && let Ok(value) = HeaderValue::from_str(&trace.to_string())
    {
        headers.insert(TRACEPARENT, value);
    }
    if span.is_recording() {
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            span.set_status(Status::Error { description: Cow::Borrowed(status.canonical_reason().unwrap_or("error")) });
        }
        span.end();
    }
}
