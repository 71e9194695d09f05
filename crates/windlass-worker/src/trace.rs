//! Spans of runs, through the OpenTelemetry SDK that the program sets up before it starts a worker; without
//! one nothing is recorded.
//!
//! The span that enqueued a job is the parent of one for each of its waits and of one for each of its runs. A
//! run's children are the steps of the worker, and those of the step `child` the stages that the handler
//! names in its own process.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{FutureExt as _, Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _};
use opentelemetry::{Context, KeyValue, global};
use serde::{Deserialize, Serialize};
use windlass_broker::SharedBroker;
use windlass_jobs::command::{Claimed, Settle};
use windlass_jobs::{JobId, Progress, RunError, Timestamp, TraceContext};
use windlass_producer::trace::{SCOPE, carried, under};

use crate::pump::Report;

/// Stages of one run that are kept.
const MAX_STAGES: usize = 64;

/// A stage of a run in a child, by the clock of its machine, in nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stage {
    name: Cow<'static, str>,
    began_ns: u64,
    ended_ns: u64,
}

/// The stages of a run as they come: each ends the one before it.
#[derive(Debug, Default)]
pub(crate) struct Stages(Vec<Stage>);

impl Stages {
    pub(crate) fn begin(&mut self, name: &'static str) {
        let now = now_ns();
        self.end_last(now);
        if self.0.len() < MAX_STAGES {
            self.0.push(Stage { name: Cow::Borrowed(name), began_ns: now, ended_ns: 0 });
        }
    }

    pub(crate) fn end(mut self) -> Vec<Stage> {
        self.end_last(now_ns());
        self.0
    }

    fn end_last(&mut self, now: u64) {
        if let Some(last) = self.0.last_mut().filter(|last| last.ended_ns == 0) {
            last.ended_ns = now;
        }
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The context in which a run does its work: that of its own span, where there is a trace.
pub(crate) fn begin(tracer: &BoxedTracer, claimed: &Claimed, id: impl FnOnce() -> JobId) -> Context {
    let parent = TraceContext::of_short(&claimed.options).map_or_else(Context::new, |trace| under(&trace));
    let builder = SpanBuilder::from_name("run").with_kind(SpanKind::Consumer);
    let mut span = builder.start_with_context(tracer, &parent);
    if !span.span_context().is_valid() {
        return parent;
    }
    if span.is_recording() {
        let id = id();
        span.update_name(format!("run {}", claimed.kind));
        for attribute in [
            KeyValue::new("messaging.system", SCOPE),
            KeyValue::new("messaging.operation.name", "run"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.destination.name", id.queue.to_string()),
            KeyValue::new("messaging.message.id", id.to_string()),
            KeyValue::new("windlass.kind", claimed.kind.clone()),
            KeyValue::new("windlass.attempt", i64::from(claimed.failures) + 1),
            KeyValue::new("windlass.run", i64::from(claimed.lease.epoch)),
        ] {
            span.set_attribute(attribute);
        }
    }
    parent.with_span(span)
}

/// The id of a context's trace, for the log.
pub(crate) fn id_of(context: &Context) -> Option<String> {
    carried(context.span().span_context()).map(|trace| trace.trace_id_hex())
}

/// Ends a run's span by what is reported of it.
pub(crate) fn end(context: &Context, report: &Report) {
    let span = context.span();
    if !span.is_recording() {
        return;
    }
    let outcome = |word: &'static str| span.set_attribute(KeyValue::new("windlass.outcome", word));
    let fail = |error: &str| {
        let error: RunError = serde_json::from_str(error).unwrap_or_else(|_| RunError::new("error", error));
        span.set_attribute(KeyValue::new("error.type", error.code.clone()));
        span.set_status(Status::Error { description: Cow::Owned(error.message) });
    };
    match report {
        Report::Held { .. } => outcome("held"),
        Report::Progress { .. } => {}
        Report::Finish { finish, .. } => match &finish.settle {
            Settle::Success { skipped: false, .. } => outcome("success"),
            Settle::Success { skipped: true, .. } => outcome("skipped"),
            Settle::Failure { reason, error, .. } => {
                outcome(reason.as_str());
                fail(error);
            }
            Settle::Retry { delay, error, .. } => {
                outcome("retry");
                let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
                span.set_attribute(KeyValue::new("windlass.retry_delay_ms", delay_ms));
                fail(error);
            }
            Settle::Snooze { .. } => outcome("snoozed"),
            Settle::Cancelled { .. } => outcome("cancelled"),
            Settle::Release => outcome("released"),
            Settle::Unknown { .. } => outcome("unknown_kind"),
        },
    }
    span.end();
}

/// Records how long a job waited before a run: from its enqueue, or the end of the attempt before it, by
/// the broker's clock.
pub(crate) async fn waited(broker: SharedBroker, id: JobId, epoch: u32, trace: TraceContext) {
    let Ok(Some(record)) = broker.get(&id).await else { return };
    let Some(until) = record.started_at.filter(|_| record.epoch == epoch) else { return };
    let before = record.earlier.first().map_or(record.created_at, |attempt| attempt.ended_at);
    let builder = SpanBuilder::from_name(format!("wait {}", id.queue)).with_start_time(instant(before.min(until)));
    let mut span = builder.start_with_context(&global::tracer(SCOPE), &under(&trace));
    span.set_attribute(KeyValue::new("messaging.message.id", id.to_string()));
    span.end_with_timestamp(instant(until));
}

fn instant(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
}

/// A step of a run, as a span of its own under whatever is under way.
pub(crate) fn step<T>(name: &'static str, work: impl Future<Output = T>) -> impl Future<Output = T> {
    let work = Box::pin(work);
    async move {
        let here = Context::current();
        if !here.span().is_recording() {
            return work.await;
        }
        // It ends when it is dropped, as it is when the run is given up.
        let span = SpanBuilder::from_name(name).start_with_context(&global::tracer(SCOPE), &here);
        work.with_context(here.with_span(span)).await
    }
}

/// A stage of a run inside this process; it ends when it is dropped. `None` where nothing is recorded.
pub(crate) fn stage(name: &'static str) -> Option<global::BoxedSpan> {
    let here = Context::current();
    let is_recorded = here.span().is_recording();
    is_recorded.then(|| SpanBuilder::from_name(name).start_with_context(&global::tracer(SCOPE), &here))
}

/// Whether the run under way is recorded.
pub(crate) fn is_recorded() -> bool {
    Context::current().span().is_recording()
}

/// Records the stages of a child, under whatever is under way.
pub(crate) fn record(stages: Vec<Stage>) {
    if stages.is_empty() || !is_recorded() {
        return;
    }
    let (here, tracer) = (Context::current(), global::tracer(SCOPE));
    let at = |ns| UNIX_EPOCH + Duration::from_nanos(ns);
    for Stage { name, began_ns, ended_ns } in stages {
        let builder = SpanBuilder::from_name(name).with_start_time(at(began_ns));
        builder.start_with_context(&tracer, &here).end_with_timestamp(at(ended_ns.max(began_ns)));
    }
}

/// Notes progress on the span under way: what a child that dies leaves behind.
pub(crate) fn progressed(progress: &Progress) {
    let here = Context::current();
    let span = here.span();
    if span.is_recording() {
        let percent = KeyValue::new("windlass.percent", f64::from(progress.percent));
        let message = KeyValue::new("windlass.message", progress.message.clone());
        span.add_event("progress", vec![percent, message]);
    }
}

/// Notes that an equal job's result was taken.
pub(crate) fn cached() {
    Context::current().span().set_attribute(KeyValue::new("windlass.cached", true));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_each_other_and_are_bounded() {
        let mut stages = Stages::default();
        for _ in 0..MAX_STAGES + 5 {
            stages.begin("a");
        }
        let ended = stages.end();
        assert_eq!(ended.len(), MAX_STAGES);
        for pair in ended.windows(2) {
            assert!(pair[0].began_ns <= pair[0].ended_ns && pair[0].ended_ns <= pair[1].began_ns, "{pair:?}");
        }
        assert!(ended.iter().all(|stage| stage.ended_ns > 0));
    }
}
