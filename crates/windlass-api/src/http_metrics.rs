//! What was asked of the API and how long the answers took, in the Prometheus text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The upper ends of the histogram's buckets, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Requests since the process started. What it can hold is bounded by the table of routes: what lies at none
/// of them counts as one.
#[derive(Debug, Default)]
pub(crate) struct HttpMetrics {
    routes: Mutex<BTreeMap<(&'static str, &'static str), OneRoute>>,
}

#[derive(Debug, Default)]
struct OneRoute {
    /// By status.
    answers: BTreeMap<u16, u64>,
    /// Below each end of [`BUCKETS`], and above all of them.
    buckets: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

impl HttpMetrics {
    /// Counts an answer. Of a stream of events the time is that to its head.
    pub(crate) fn count(&self, method: &'static str, route: &'static str, status: u16, took: Duration) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let one = routes.entry((route, method)).or_default();
        let seconds = took.as_secs_f64();
        *one.answers.entry(status).or_default() += 1;
        one.buckets[BUCKETS.iter().position(|end| seconds <= *end).unwrap_or(BUCKETS.len())] += 1;
        one.seconds += seconds;
    }

    /// Every figure. Routes, methods and statuses need no escaping.
    pub(crate) fn render(&self) -> String {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(4096);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# HELP windlass_http_requests_total Requests answered.\n# TYPE windlass_http_requests_total counter"
        );
        for ((route, method), one) in &*routes {
            for (status, n) in &one.answers {
                let _ = writeln!(
                    text,
                    "windlass_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} {n}"
                );
            }
        }
        let name = "windlass_http_request_seconds";
        let _ = writeln!(text, "# HELP {name} How long answers took, to their head.\n# TYPE {name} histogram");
        for ((route, method), one) in &*routes {
            let labels = format!("method=\"{method}\",route=\"{route}\"");
            let mut below = 0;
            for (end, n) in BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]).zip(one.buckets) {
                below += n;
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{end}\"}} {below}");
            }
            let _ = writeln!(text, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {below}", one.seconds);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let metrics = HttpMetrics::default();
        for ms in [1, 4, 40, 60_000] {
            metrics.count("GET", "/x", 200, Duration::from_millis(ms));
        }
        metrics.count("GET", "/x", 503, Duration::from_millis(4));
        let text = metrics.render();
        for line in [
            "windlass_http_requests_total{method=\"GET\",route=\"/x\",status=\"200\"} 4",
            "windlass_http_requests_total{method=\"GET\",route=\"/x\",status=\"503\"} 1",
            "windlass_http_request_seconds_bucket{method=\"GET\",route=\"/x\",le=\"0.001\"} 1",
            "windlass_http_request_seconds_bucket{method=\"GET\",route=\"/x\",le=\"0.005\"} 3",
            "windlass_http_request_seconds_bucket{method=\"GET\",route=\"/x\",le=\"10\"} 4",
            "windlass_http_request_seconds_bucket{method=\"GET\",route=\"/x\",le=\"+Inf\"} 5",
            "windlass_http_request_seconds_count{method=\"GET\",route=\"/x\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
