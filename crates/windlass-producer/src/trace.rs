//! Spans of what is put on queues, through whatever OpenTelemetry SDK the program has set up; without one
//! nothing is recorded, and a job is given the trace that its producer's caller came with.

use std::borrow::Cow;

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState,
};
use opentelemetry::{Context, KeyValue, global};
use windlass_jobs::{NewJob, Queue, TraceContext};

use crate::{Accepted, Error};

/// By which instrumentation Windlass' spans are known.
pub const SCOPE: &str = "windlass";

/// What a job carries of a span; `None` for one that belongs to no trace.
#[must_use]
pub fn carried(span: &SpanContext) -> Option<TraceContext> {
    let ids = |trace_id: TraceId, span_id: SpanId| TraceContext {
        trace_id: u128::from_be_bytes(trace_id.to_bytes()),
        span_id: u64::from_be_bytes(span_id.to_bytes()),
        flags: span.trace_flags().to_u8(),
    };
    span.is_valid().then(|| ids(span.trace_id(), span.span_id()))
}

/// A context under the span of another process.
#[must_use]
pub fn under(trace: &TraceContext) -> Context {
    let (trace_id, span_id) = (TraceId::from(trace.trace_id), SpanId::from(trace.span_id));
    let flags = TraceFlags::new(trace.flags);
    Context::new().with_remote_span_context(SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE))
}

/// The span of one call that puts jobs on queues. One that is dropped unended ends then.
pub(crate) struct Sending {
    span: global::BoxedSpan,
    trace: TraceContext,
}

impl Sending {
    /// `None` where there is no trace.
    pub(crate) fn begin() -> Option<Self> {
        let builder = SpanBuilder::from_name("enqueue").with_kind(SpanKind::Producer);
        let span = builder.start_with_context(&global::tracer(SCOPE), &Context::current());
        let trace = carried(span.span_context())?;
        Some(Self { span, trace })
    }

    /// A job that names no trace of its own belongs to this one.
    pub(crate) fn mark(&self, job: &mut NewJob) {
        job.options.trace.get_or_insert(self.trace);
    }

    /// How it went; `queue`: the one that all of them go to.
    pub(crate) fn end(mut self, queue: Option<&Queue>, jobs: &[NewJob], went: Result<&[Accepted], &Error>) {
        if !self.span.is_recording() {
            return;
        }
        self.span.set_attribute(KeyValue::new("messaging.system", SCOPE));
        self.span.set_attribute(KeyValue::new("messaging.operation.name", "enqueue"));
        self.span.set_attribute(KeyValue::new("messaging.operation.type", "send"));
        if let Some(queue) = queue {
            self.span.update_name(format!("enqueue {queue}"));
            self.span.set_attribute(KeyValue::new("messaging.destination.name", queue.to_string()));
        }
        match jobs {
            [job] => self.span.set_attribute(KeyValue::new("windlass.kind", job.kind.clone())),
            jobs => {
                let count = i64::try_from(jobs.len()).unwrap_or(i64::MAX);
                self.span.set_attribute(KeyValue::new("messaging.batch.message_count", count));
            }
        }
        match went {
            Ok(accepted) => {
                if let [one] = accepted {
                    self.span.set_attribute(KeyValue::new("messaging.message.id", one.id.to_string()));
                }
                if accepted.iter().any(|one| one.spooled) {
                    self.span.set_attribute(KeyValue::new("windlass.spooled", true));
                }
            }
            Err(error) => self.span.set_status(Status::Error { description: Cow::Owned(error.to_string()) }),
        }
        self.span.end();
    }
}
