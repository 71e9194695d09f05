//! What a bridge has done, as counters: the source of its metrics.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of one source.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) taken: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) revoked: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) waiting: AtomicU64,
    pub(crate) open: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(u64::try_from(more).unwrap_or(0), Ordering::Relaxed);
}

/// The counters of a bridge, by source.
#[derive(Debug, Default)]
pub struct Counters(pub(crate) Vec<(String, Arc<Meter>)>);

/// Name, kind and value of a metric.
type Metric = (&'static str, &'static str, fn(&Meter) -> &AtomicU64);

const METRICS: &[Metric] = &[
    ("taken_total", "counter", |m| &m.taken),
    ("refused_total", "counter", |m| &m.refused),
    ("revoked_total", "counter", |m| &m.revoked),
    ("answered_total", "counter", |m| &m.answered),
    ("errors_total", "counter", |m| &m.errors),
    ("lag_jobs", "gauge", |m| &m.waiting),
    ("custody_jobs", "gauge", |m| &m.open),
];

impl Counters {
    /// The counters in the Prometheus text format; all names begin with `windlass_bridge_`.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        for (name, kind, value) in METRICS {
            let _ = writeln!(text, "# TYPE windlass_bridge_{name} {kind}");
            for (source, meter) in &self.0 {
                let source = source.replace('\\', "\\\\").replace('"', "\\\"");
                let value = value(meter).load(Ordering::Relaxed);
                let _ = writeln!(text, "windlass_bridge_{name}{{source=\"{source}\"}} {value}");
            }
        }
        text
    }
}
