//! Where traces go, by the names that OpenTelemetry gives its settings.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use opentelemetry_sdk::trace::Sampler;

use crate::settings::{Found, Secret, bad};

/// What is told about traces.
#[derive(Debug, Clone)]
pub(crate) struct OtlpSettings {
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or `OTEL_EXPORTER_OTLP_ENDPOINT` with `/v1/traces` behind it:
    /// `http://…` or `https://…`. None, or `OTEL_SDK_DISABLED=true`: there are no traces.
    pub(crate) endpoint: Option<Secret>,
    /// Sent with each batch, such as a key: `OTEL_EXPORTER_OTLP_HEADERS` (`name=value,…`, percent-encoded).
    pub(crate) headers: Vec<(String, Secret)>,
    /// For one batch: `OTEL_EXPORTER_OTLP_TIMEOUT`, 1–600,000 ms, default 10,000.
    pub(crate) timeout: Duration,
    /// The authorities that an `https` collector is trusted by, a PEM file:
    /// `OTEL_EXPORTER_OTLP_CERTIFICATE`; default those of Mozilla.
    pub(crate) certificate: Option<PathBuf>,
    /// What the process is: `OTEL_RESOURCE_ATTRIBUTES` (`name=value,…`, percent-encoded), with
    /// `OTEL_SERVICE_NAME` (default `windlass`) as `service.name`.
    pub(crate) resource: Vec<(String, String)>,
    /// Which traces are recorded: `OTEL_TRACES_SAMPLER` (default `parentbased_always_on`), of the ratios
    /// `OTEL_TRACES_SAMPLER_ARG` (0–1, default 1).
    pub(crate) sampler: Sampler,
}

impl OtlpSettings {
    /// Default of [`OtlpSettings::timeout`].
    const TIMEOUT: Duration = Duration::from_secs(10);

    pub(crate) fn read(found: &Found) -> anyhow::Result<Self> {
        if let Some(protocol) = found.text("OTEL_EXPORTER_OTLP_PROTOCOL")
            && protocol.trim() != "http/protobuf"
        {
            return Err(bad(
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                protocol,
                "http/protobuf, on port 4318 of most collectors,",
            ));
        }
        let is_off = found.parse("OTEL_SDK_DISABLED", "true or false", |_| true)?.unwrap_or(false);
        let timeout_ms =
            found.parse::<u64>("OTEL_EXPORTER_OTLP_TIMEOUT", "1 to 600000", |ms| (1..=600_000).contains(ms))?;
        let mut resource = pairs(found, "OTEL_RESOURCE_ATTRIBUTES")?;
        if let Some(name) = found.text("OTEL_SERVICE_NAME") {
            resource.retain(|(key, _)| key != "service.name");
            resource.push(("service.name".to_owned(), name.trim().to_owned()));
        } else if !resource.iter().any(|(key, _)| key == "service.name") {
            resource.push(("service.name".to_owned(), "windlass".to_owned()));
        }
        let headers = pairs(found, "OTEL_EXPORTER_OTLP_HEADERS")?;
        Ok(Self {
            endpoint: endpoint(found)?.filter(|_| !is_off),
            headers: headers.into_iter().map(|(name, value)| (name, Secret(value))).collect(),
            timeout: timeout_ms.map_or(Self::TIMEOUT, Duration::from_millis),
            certificate: found.text("OTEL_EXPORTER_OTLP_CERTIFICATE").map(PathBuf::from),
            resource,
            sampler: sampler(found)?,
        })
    }
}

fn endpoint(found: &Found) -> anyhow::Result<Option<Secret>> {
    let (name, path) = match found.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        Some(_) => ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""),
        None => ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces"),
    };
    let Some(text) = found.text(name).map(str::trim) else { return Ok(None) };
    let url = format!("{}{path}", if path.is_empty() { text } else { text.trim_end_matches('/') });
    let is_http = ["http", "https"].contains(&url.split("://").next().unwrap_or_default());
    match url.parse::<ureq::http::Uri>() {
        Ok(uri) if is_http && uri.host().is_some_and(|host| !host.is_empty()) => Ok(Some(Secret(url))),
        _ => Err(bad(name, text, "an address such as http://collector:4318")),
    }
}

/// `name=value,…`, as the headers of W3C Baggage.
fn pairs(found: &Found, name: &str) -> anyhow::Result<Vec<(String, String)>> {
    let Some(text) = found.text(name) else { return Ok(Vec::new()) };
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
        let key = key.trim();
        (!key.is_empty()).then(|| (key.to_owned(), value.into_owned()))
    };
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let all: Option<Vec<_>> = parts.map(pair).collect();
    all.ok_or_else(|| bad(name, text, "name=value pairs, separated by commas and percent-encoded,"))
}

fn sampler(found: &Found) -> anyhow::Result<Sampler> {
    let name = "OTEL_TRACES_SAMPLER";
    let ratio = found.parse::<f64>("OTEL_TRACES_SAMPLER_ARG", "0 to 1", |ratio| (0.0..=1.0).contains(ratio))?;
    let by_parent = |root| Sampler::ParentBased(Box::new(root));
    let ratio_of = || Sampler::TraceIdRatioBased(ratio.unwrap_or(1.0));
    let sampler = match found.text(name).map_or("parentbased_always_on", str::trim) {
        "always_on" => Sampler::AlwaysOn,
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => ratio_of(),
        "parentbased_always_on" => by_parent(Sampler::AlwaysOn),
        "parentbased_always_off" => by_parent(Sampler::AlwaysOff),
        "parentbased_traceidratio" => by_parent(ratio_of()),
        other => {
            let allowed = "always_on, always_off, traceidratio or one of these with parentbased_ before it";
            return Err(bad(name, other, allowed));
        }
    };
    if ratio.is_some() && !found.text(name).is_some_and(|name| name.contains("traceidratio")) {
        bail!(
            "OTEL_TRACES_SAMPLER_ARG is the ratio of the samplers traceidratio and parentbased_traceidratio alone: set OTEL_TRACES_SAMPLER"
        );
    }
    Ok(sampler)
}

/// The PEM file of an authority, read.
pub(crate) fn certificates(path: &std::path::Path) -> anyhow::Result<Vec<ureq::tls::Certificate<'static>>> {
    let context = || format!("OTEL_EXPORTER_OTLP_CERTIFICATE, {}", path.display());
    let pem = std::fs::read(path).with_context(context)?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        if let ureq::tls::PemItem::Certificate(certificate) = item.with_context(context)? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        bail!("{}: there is no certificate in it", context());
    }
    Ok(certificates)
}
