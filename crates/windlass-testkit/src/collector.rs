//! A collector of traces: OTLP over HTTP as protobuf, plain or with TLS, kept in memory.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::certificates::Certificates;

/// A span as it came.
#[derive(Debug, Clone)]
pub struct RecordedSpan {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits, or nothing for the first of a trace.
    pub parent_id: String,
    /// What it is.
    pub name: String,
    /// `SPAN_KIND_SERVER`, `SPAN_KIND_PRODUCER`, …
    pub kind: String,
    /// From when to when, in nanoseconds since 1970.
    pub nanos: (u64, u64),
    /// As text, those of the process among them.
    pub attributes: BTreeMap<String, String>,
    /// The error it ended with.
    pub error: Option<String>,
    /// The names of its events.
    pub events: Vec<String>,
}

#[derive(Debug, Default)]
struct Kept {
    spans: Mutex<Vec<RecordedSpan>>,
    /// The heads of all requests.
    heads: Mutex<String>,
    /// What is answered; 0: nothing, ever.
    status: AtomicU16,
}

/// A collector on a port of its own; what it was sent stays until it is dropped.
#[derive(Debug)]
pub struct Collector {
    /// As `OTEL_EXPORTER_OTLP_ENDPOINT`.
    url: String,
    kept: Arc<Kept>,
}

impl Collector {
    /// Starts one that takes everything.
    ///
    /// # Panics
    /// When the loopback interface has no free port.
    #[must_use]
    pub fn start() -> Self {
        Self::on(None)
    }

    /// The same over TLS, with the server's certificate, which is for the name `localhost`.
    ///
    /// # Panics
    /// When the loopback interface has no free port.
    #[must_use]
    pub fn start_tls(certificates: &Certificates) -> Self {
        let certificate = CertificateDer::from_pem_file(certificates.server_certificate());
        let key = PrivateKeyDer::from_pem_file(certificates.server_key());
        let (certificate, key) = (certificate.expect("a certificate"), key.expect("its key"));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key));
        Self::on(Some(Arc::new(config.expect("the key is that of the certificate"))))
    }

    fn on(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let kept = Arc::new(Kept::default());
        kept.status.store(200, Ordering::Relaxed);
        let url = match tls {
            None => format!("http://127.0.0.1:{port}"),
            Some(_) => format!("https://localhost:{port}"),
        };
        let of_thread = Arc::clone(&kept);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().flatten() {
                let stream: Box<dyn Stream> = match &tls {
                    None => Box::new(stream),
                    Some(config) => {
                        let session = ServerConnection::new(Arc::clone(config)).expect("the config is complete");
                        Box::new(StreamOwned::new(session, stream))
                    }
                };
                // One at a time: there is one sender.
                if let Some(stream) = answer(stream, &of_thread) {
                    held.push(stream);
                }
            }
        });
        Self { url, kept }
    }

    /// As `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Answers with this status from here on, and keeps nothing unless it is 200; 0: never answers.
    pub fn answer_with(&self, status: u16) {
        self.kept.status.store(status, Ordering::Relaxed);
    }

    /// What was sent so far.
    #[must_use]
    pub fn spans(&self) -> Vec<RecordedSpan> {
        lock(&self.kept.spans).clone()
    }

    /// The heads of the requests so far, in lower case.
    #[must_use]
    pub fn heads(&self) -> String {
        lock(&self.kept.heads).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection, plain or not.
trait Stream: Read + Write {}

impl Stream for TcpStream {}

impl Stream for StreamOwned<ServerConnection, TcpStream> {}

/// The connection, when it is to be held without an answer.
fn answer(stream: Box<dyn Stream>, kept: &Kept) -> Option<Box<dyn Stream>> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    lock(&kept.heads).push_str(&head);
    let status = kept.status.load(Ordering::Relaxed);
    let mut stream = reader.into_inner();
    if status == 0 {
        return Some(stream);
    }
    if status == 200 {
        let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("an OTLP request");
        lock(&kept.spans).extend(spans(request));
    }
    let _ = write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    None
}

fn spans(request: ExportTraceServiceRequest) -> Vec<RecordedSpan> {
    let mut all = Vec::new();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
            let kind = span.kind().as_str_name().to_owned();
            all.push(RecordedSpan {
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent_id: hex(&span.parent_span_id),
                kind,
                nanos: (span.start_time_unix_nano, span.end_time_unix_nano),
                attributes: resource.iter().chain(&span.attributes).map(text).collect(),
                error: span.status.filter(|status| status.code == 2).map(|status| status.message),
                events: span.events.into_iter().map(|event| event.name).collect(),
                name: span.name,
            });
        }
    }
    all
}

fn text(attribute: &KeyValue) -> (String, String) {
    let value = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(n)) => n.to_string(),
        Some(any_value::Value::BoolValue(b)) => b.to_string(),
        other => format!("{other:?}"),
    };
    (attribute.key.clone(), value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
