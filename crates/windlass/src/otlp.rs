//! Spans to an OpenTelemetry collector, as OTLP over HTTP: through a bounded queue and a thread of its own,
//! so that a collector that is slow or away slows no job.
//!
//! A span that finds the queue full is dropped and counted. A batch that the collector does not take is
//! offered again for a minute, while the queue fills.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use prost::Message as _;

use crate::otlp_settings::{OtlpSettings, certificates};

/// Spans that wait for the collector at most, beside the batch under way.
const QUEUE: usize = 2048;
/// Spans of one batch at most.
const BATCH: usize = 512;
/// How long a span waits for company.
const COMPANY: Duration = Duration::from_secs(1);
/// How long a batch is offered that the collector does not take.
const OFFER_FOR: Duration = Duration::from_secs(60);
/// The longest wait between two offers.
const MOST_WAIT: Duration = Duration::from_secs(15);
/// How long the end of the process waits for a collector that answers.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
/// The longest answer that is read, in bytes.
const MOST_ANSWER: u64 = 64 * 1024;

/// Where headers come from, for messages.
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS or OTEL_EXPORTER_OTLP_TRACES_HEADERS";

/// The way to the collector, once there is one.
static EXPORT: OnceLock<Export> = OnceLock::new();

struct Export {
    spans: SyncSender<Entry>,
    thread: Thread,
    counts: Arc<Counts>,
}

/// What became of spans.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    queue_full: AtomicU64,
    unreachable: AtomicU64,
    refused: AtomicU64,
    /// The last offer failed.
    failing: AtomicBool,
    /// The process ends: nothing is offered twice.
    ending: AtomicBool,
}

enum Entry {
    Span(Box<SpanData>),
    /// Answered when every span before it was offered.
    Flush(SyncSender<()>),
}

/// Sends the traces of this process from here on, if the settings say where to.
///
/// # Errors
/// A certificate or header that cannot be used.
pub(crate) fn start(settings: &OtlpSettings) -> anyhow::Result<()> {
    let Some(endpoint) = &settings.endpoint else { return Ok(()) };
    let resource = resource(settings);
    let mut headers = ureq::http::HeaderMap::new();
    for (name, value) in &settings.headers {
        let name: ureq::http::HeaderName = name.parse().with_context(|| format!("{HEADERS}: the name of a header"))?;
        let value = value.0.parse().map_err(|_| anyhow::anyhow!("{HEADERS}: the value of {name}"))?;
        headers.insert(name, value);
    }
    let counts = Arc::new(Counts::default());
    let offering = Offering {
        agent: agent(settings)?,
        url: endpoint.0.clone(),
        headers,
        resource: (&resource).into(),
        counts: Arc::clone(&counts),
    };
    let (spans, inbox) = sync_channel(QUEUE);
    let run = move || offering.run(&inbox);
    let thread = std::thread::Builder::new().name("windlass-otlp".into()).spawn(run).context("a thread for traces")?;
    let queue = Queue { spans: spans.clone(), counts: Arc::clone(&counts) };
    let provider = SdkTracerProvider::builder()
        .with_span_processor(queue)
        .with_sampler(settings.sampler.clone())
        .with_resource(resource)
        .build();
    global::set_tracer_provider(provider);
    let _ = EXPORT.set(Export { spans, thread: thread.thread().clone(), counts });
    Ok(())
}

fn resource(settings: &OtlpSettings) -> Resource {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let pid = std::process::id();
    let own = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", format!("{host}-{pid}")),
        KeyValue::new("host.name", host),
        KeyValue::new("process.pid", i64::from(pid)),
    ];
    let named = settings.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    // What is set beats what is found.
    Resource::builder_empty().with_attributes(own).with_attributes(named).build()
}

fn agent(settings: &OtlpSettings) -> anyhow::Result<ureq::Agent> {
    let mut tls = ureq::tls::TlsConfig::builder();
    if let Some(path) = &settings.certificate {
        tls = tls.root_certs(ureq::tls::RootCerts::new_with_certs(&certificates(path)?));
    }
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(settings.timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build());
    Ok(config.build().into())
}

/// The process ends: offers what was recorded once more, as [`flush`] does, and nothing twice from here on.
pub(crate) fn finish() {
    let Some(export) = EXPORT.get() else { return };
    export.counts.ending.store(true, Ordering::Relaxed);
    export.thread.unpark();
    flush();
}

/// Waits a moment until what was recorded is with the collector; not for one that does not answer.
fn flush() {
    let Some(export) = EXPORT.get() else { return };
    let (done, offered) = sync_channel(1);
    if !export.counts.failing.load(Ordering::Relaxed) && export.spans.try_send(Entry::Flush(done)).is_ok() {
        let _ = offered.recv_timeout(FLUSH_WITHIN);
    }
}

/// What became of spans, in the Prometheus text format; nothing where there are no traces.
pub(crate) fn metrics() -> String {
    let mut text = String::new();
    let Some(Export { counts, .. }) = EXPORT.get() else { return text };
    let up = u8::from(!counts.failing.load(Ordering::Relaxed));
    let sent = counts.sent.load(Ordering::Relaxed);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# HELP windlass_otlp_up 0 while the collector of traces does not take them.\n\
         # TYPE windlass_otlp_up gauge\nwindlass_otlp_up {up}\n\
         # HELP windlass_otlp_spans_sent_total Spans the collector took.\n\
         # TYPE windlass_otlp_spans_sent_total counter\nwindlass_otlp_spans_sent_total {sent}\n\
         # HELP windlass_otlp_spans_dropped_total Spans that were given up, by why.\n\
         # TYPE windlass_otlp_spans_dropped_total counter\n"
    );
    let dropped =
        [("queue_full", &counts.queue_full), ("unreachable", &counts.unreachable), ("refused", &counts.refused)];
    for (why, count) in dropped {
        let count = count.load(Ordering::Relaxed);
        let _ = writeln!(text, "windlass_otlp_spans_dropped_total{{why=\"{why}\"}} {count}");
    }
    text
}

/// Where the SDK puts what ended.
#[derive(Debug)]
struct Queue {
    spans: SyncSender<Entry>,
    counts: Arc<Counts>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry")
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(Entry::Span(Box::new(span))).is_err() {
            self.counts.queue_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        flush();
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        finish();
        Ok(())
    }
}

/// What the collector made of a batch.
enum Offered {
    Taken {
        refused: u64,
    },
    /// It may be offered again, after so long if the collector says.
    Later(String, Option<Duration>),
    Refused(String),
}

struct Offering {
    agent: ureq::Agent,
    url: String,
    headers: ureq::http::HeaderMap,
    resource: ResourceAttributesWithSchema,
    counts: Arc<Counts>,
}

impl Offering {
    fn run(&self, inbox: &Receiver<Entry>) {
        while let Ok(mut entry) = inbox.recv() {
            let (mut batch, mut flushed) = (Vec::new(), None);
            let company = Instant::now() + COMPANY;
            loop {
                match entry {
                    Entry::Span(span) => batch.push(*span),
                    Entry::Flush(done) => flushed = Some(done),
                }
                if flushed.is_some() || batch.len() >= BATCH {
                    break;
                }
                match inbox.recv_timeout(company.saturating_duration_since(Instant::now())) {
                    Ok(next) => entry = next,
                    Err(_) => break,
                }
            }
            self.send(batch);
            if let Some(done) = flushed {
                let _ = done.try_send(());
            }
        }
    }

    /// Offers a batch until it is taken, refused, or was offered for long enough.
    fn send(&self, batch: Vec<SpanData>) {
        if batch.is_empty() {
            return;
        }
        let spans = batch.len() as u64;
        let request =
            ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(batch, &self.resource) };
        let body = request.encode_to_vec();
        let begun = Instant::now();
        let mut wait = Duration::from_secs(1);
        loop {
            match self.offer(&body) {
                Offered::Taken { refused } => {
                    self.counts.sent.fetch_add(spans.saturating_sub(refused), Ordering::Relaxed);
                    self.counts.refused.fetch_add(refused, Ordering::Relaxed);
                    return self.says(None);
                }
                Offered::Refused(why) => {
                    self.counts.refused.fetch_add(spans, Ordering::Relaxed);
                    return self.says(Some(&why));
                }
                Offered::Later(why, after) => {
                    self.says(Some(&why));
                    let pause = after.unwrap_or(wait).min(MOST_WAIT);
                    if begun.elapsed() + pause > OFFER_FOR || !self.pause(pause) {
                        self.counts.unreachable.fetch_add(spans, Ordering::Relaxed);
                        return;
                    }
                    wait = (wait * 2).min(MOST_WAIT);
                }
            }
        }
    }

    /// False when the process ends.
    fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while !self.counts.ending.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::park_timeout(left);
        }
        false
    }

    /// Says a change once.
    fn says(&self, failed: Option<&str>) {
        let was = self.counts.failing.swap(failed.is_some(), Ordering::Relaxed);
        match failed {
            Some(error) if !was => tracing::warn!(event = "otlp_failed", error, "traces do not reach their collector"),
            None if was => tracing::info!(event = "otlp_recovered", "traces reach their collector again"),
            _ => {}
        }
    }

    fn offer(&self, body: &[u8]) -> Offered {
        let mut request = self.agent.post(&self.url).content_type("application/x-protobuf");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut answer = match request.send(body) {
            Ok(answer) => answer,
            Err(error) => return Offered::Later(error.to_string(), None),
        };
        let status = answer.status().as_u16();
        let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let read = answer.body_mut().with_config().limit(MOST_ANSWER).read_to_vec().unwrap_or_default();
        match status {
            200..=299 => {
                let partial = ExportTraceServiceResponse::decode(read.as_slice()).ok().and_then(|r| r.partial_success);
                let refused = partial.map_or(0, |partial| partial.rejected_spans);
                Offered::Taken { refused: u64::try_from(refused).unwrap_or(0) }
            }
            // OTLP 1.5, retryable response codes.
            429 | 502 | 503 | 504 => Offered::Later(format!("status {status}"), after.map(Duration::from_secs)),
            _ => Offered::Refused(format!("status {status}")),
        }
    }
}
