//! Where traces go, by the names that OpenTelemetry gives its settings.
//!
//! Other programs of the same environment read most of these names, too: while this one sends no traces,
//! nothing in them is looked at. `OTEL_EXPORTER_OTLP_TRACES_…` beats `OTEL_EXPORTER_OTLP_…`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use opentelemetry_sdk::trace::Sampler;

use crate::settings::{Found, Secret, bad};

/// What is told about traces.
#[derive(Debug, Clone)]
pub(crate) struct OtlpSettings {
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or `OTEL_EXPORTER_OTLP_ENDPOINT` with `/v1/traces` behind it:
    /// `http://…` or `https://…`. None, `OTEL_SDK_DISABLED=true` or `OTEL_TRACES_EXPORTER=none`: there are no
    /// traces.
    pub(crate) endpoint: Option<Secret>,
    /// Sent with each batch, such as a key: `OTEL_EXPORTER_OTLP_HEADERS` (`name=value,…`, percent-encoded)
    /// or `OTEL_EXPORTER_OTLP_TRACES_HEADERS`.
    pub(crate) headers: Vec<(String, Secret)>,
    /// For one batch: `OTEL_EXPORTER_OTLP_TIMEOUT` or `OTEL_EXPORTER_OTLP_TRACES_TIMEOUT`, 1–600,000 ms,
    /// default 10,000.
    pub(crate) timeout: Duration,
    /// The authorities that an `https` collector is trusted by, a PEM file:
    /// `OTEL_EXPORTER_OTLP_CERTIFICATE` or `OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE`; default those of Mozilla.
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
        let Some(endpoint) = endpoint(found)? else { return Ok(Self::off()) };
        let name = of_traces(found, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL");
        if let Some(protocol) = found.text(name).filter(|protocol| protocol.trim() != "http/protobuf") {
            return Err(bad(name, protocol, "http/protobuf, on port 4318 of most collectors,"));
        }
        let name = of_traces(found, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT");
        let timeout_ms = found.parse::<u64>(name, "1 to 600000", |ms| (1..=600_000).contains(ms))?;
        let mut resource = pairs(found, "OTEL_RESOURCE_ATTRIBUTES")?;
        if let Some(name) = found.text("OTEL_SERVICE_NAME") {
            resource.retain(|(key, _)| key != "service.name");
            resource.push(("service.name".to_owned(), name.trim().to_owned()));
        } else if !resource.iter().any(|(key, _)| key == "service.name") {
            resource.push(("service.name".to_owned(), "windlass".to_owned()));
        }
        let name = of_traces(found, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS");
        let headers = pairs(found, name)?;
        let name = of_traces(found, "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE");
        Ok(Self {
            endpoint: Some(endpoint),
            headers: headers.into_iter().map(|(name, value)| (name, Secret(value))).collect(),
            timeout: timeout_ms.map_or(Self::TIMEOUT, Duration::from_millis),
            certificate: found.text(name).map(PathBuf::from),
            resource,
            sampler: sampler(found)?,
        })
    }

    /// No traces.
    fn off() -> Self {
        let (headers, resource) = (Vec::new(), Vec::new());
        Self {
            endpoint: None,
            headers,
            timeout: Self::TIMEOUT,
            certificate: None,
            resource,
            sampler: Sampler::AlwaysOff,
        }
    }
}

/// The name for traces alone, where it is set, else the one for everything.
fn of_traces<'a>(found: &Found, own: &'a str, shared: &'a str) -> &'a str {
    if found.text(own).is_some() { own } else { shared }
}

/// True when an endpoint is not to be used.
fn is_off(found: &Found) -> anyhow::Result<bool> {
    let name = "OTEL_SDK_DISABLED";
    match found.text(name).map(|text| text.trim().to_ascii_lowercase()).as_deref() {
        None | Some("false") => {}
        Some("true") => return Ok(true),
        Some(other) => return Err(bad(name, other, "true or false")),
    }
    let name = "OTEL_TRACES_EXPORTER";
    let Some(text) = found.text(name) else { return Ok(false) };
    match text.split(',').map(str::trim).find(|word| matches!(*word, "otlp" | "none")) {
        Some(word) => Ok(word == "none"),
        None => Err(bad(name, text, "otlp or none")),
    }
}

fn endpoint(found: &Found) -> anyhow::Result<Option<Secret>> {
    let name = of_traces(found, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
    let path = if name == "OTEL_EXPORTER_OTLP_ENDPOINT" { "/v1/traces" } else { "" };
    let Some(text) = found.text(name).map(str::trim) else { return Ok(None) };
    if is_off(found)? {
        return Ok(None);
    }
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
    let names = "OTEL_EXPORTER_OTLP_CERTIFICATE or OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE";
    let context = || format!("{names}, {}", path.display());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::read;

    const ON: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

    /// What other programs are told of their own exporters, all of it of no use here.
    const SHARED: [(&str, &str); 7] = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "geheim"),
        ("OTEL_RESOURCE_ATTRIBUTES", "no pairs"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "endpoint=http://a"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere"),
    ];

    #[test]
    fn what_others_share_stops_nothing_while_there_are_no_traces() {
        let with = |more: &[(&str, &str)]| read(&[more, &SHARED].concat(), &[]);
        for off in [
            vec![("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_SDK_DISABLED", "perhaps")],
            vec![ON, ("OTEL_TRACES_EXPORTER", "none")],
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"), ("OTEL_SDK_DISABLED", "TRUE")],
        ] {
            assert!(with(&off).unwrap().otlp.endpoint.is_none(), "{off:?}");
        }
        let check = |more: &[(&str, &str)], part: &str| {
            let text = format!("{:#}", read(&[&[ON], more].concat(), &[]).unwrap_err());
            assert!(text.contains(part) && !text.contains("geheim"), "{text}");
        };
        for (name, value) in &SHARED[..6] {
            check(&[(*name, *value)], name);
        }
        check(&[("OTEL_TRACES_EXPORTER", "zipkin")], "otlp or none");
        check(&[("OTEL_SDK_DISABLED", "perhaps")], "true or false");
        check(&[("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "geheim")], "OTEL_EXPORTER_OTLP_TRACES_HEADERS");
    }

    #[test]
    fn what_is_set_for_traces_alone_beats_what_is_set_for_everything() {
        let own = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://own:4318/v1/traces"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "key=own"),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/own.pem"),
            ("OTEL_TRACES_EXPORTER", "console, otlp"),
        ];
        let shared = SHARED.into_iter().filter(|(name, _)| name.starts_with("OTEL_EXPORTER"));
        let env: Vec<_> = own.into_iter().chain([ON]).chain(shared).collect();
        let otlp = read(&env, &[]).unwrap().otlp;
        assert_eq!(otlp.endpoint.unwrap().0, "http://own:4318/v1/traces");
        assert_eq!(otlp.timeout, Duration::from_millis(250));
        assert_eq!((otlp.headers[0].0.as_str(), otlp.headers[0].1.0.as_str()), ("key", "own"));
        assert_eq!(otlp.certificate, Some(PathBuf::from("/own.pem")));
    }
}
