//! `GET /api/cache/stats` and `POST /api/cache/clear`: the results and artifacts that are kept.

use std::fmt::Write as _;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use windlass_store::{Artifacts, Room, Stats};

use crate::Shared;
use crate::problem::Problem;

/// `GET /api/cache/stats`.
///
/// *Shape*: `{"cache_size_mb", "max_size_mb", "entry_count", "hit_rate", "hits", "misses",
/// "evictions", "oldest", "results": {"entries", "size_mb"}, "artifacts": {…}, "uploads":
/// {"entries", "size_mb", "max_size_mb", "jobs"}}`. MB are 2^20 bytes with two decimals, `hit_rate`
/// 0.0–1.0 with four, `oldest` the last use of the entry that goes next, or null.
pub(crate) async fn stats(State(shared): State<Shared>) -> Result<Response, Problem> {
    let stats = shared.services.artifacts.stats().await?;
    Ok(axum::Json(view(&stats)).into_response())
}

/// `POST /api/cache/clear`: forgets every result; `{"success", "message", "cleared"}`. Files of
/// finished tasks stay downloadable.
pub(crate) async fn clear(State(shared): State<Shared>) -> Result<Response, Problem> {
    let cleared = shared.services.results.clear().await?;
    tracing::info!(cleared, "result cache cleared on request");
    let body = json!({ "success": true, "message": "Cache cleared successfully", "cleared": cleared });
    Ok(axum::Json(body).into_response())
}

/// The statistics as callers see them, over HTTP and on the command line.
#[must_use]
pub fn view(stats: &Stats) -> Value {
    let room = |room: &Room| json!({ "entries": room.entries, "size_mb": mib(room.bytes) });
    let mut uploads = room(&stats.uploads);
    uploads["max_size_mb"] = mib(stats.upload_bytes).into();
    uploads["jobs"] = stats.pinned_jobs.into();
    json!({
        "cache_size_mb": mib(stats.results.bytes + stats.artifacts.bytes),
        "max_size_mb": mib(stats.cache_bytes),
        "entry_count": stats.results.entries + stats.artifacts.entries,
        "hit_rate": (stats.hit_rate() * 10_000.0).round() / 10_000.0,
        "hits": stats.hits,
        "misses": stats.misses,
        "evictions": stats.evictions,
        "oldest": stats.oldest,
        "results": room(&stats.results),
        "artifacts": room(&stats.artifacts),
        "uploads": uploads,
    })
}

/// How full the cache is and what became of what was asked, in the Prometheus text format; nothing while its
/// store does not answer.
pub(crate) async fn metrics(artifacts: &dyn Artifacts) -> String {
    let mut text = String::new();
    let Ok(Ok(stats)) = tokio::time::timeout(WITHIN, artifacts.stats()).await else { return text };
    let rooms = [("results", &stats.results), ("artifacts", &stats.artifacts), ("uploads", &stats.uploads)];
    // Writing to a String cannot fail.
    let head = |text: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    };
    head(&mut text, "windlass_cache_entries", "gauge", "Results, files and uploads that are kept.");
    for (of, room) in rooms {
        let _ = writeln!(text, "windlass_cache_entries{{of=\"{of}\"}} {}", room.entries);
    }
    head(&mut text, "windlass_cache_bytes", "gauge", "What they hold.");
    for (of, room) in rooms {
        let _ = writeln!(text, "windlass_cache_bytes{{of=\"{of}\"}} {}", room.bytes);
    }
    head(&mut text, "windlass_cache_max_bytes", "gauge", "What they may hold; results and artifacts share it.");
    for (of, most) in [("results", stats.cache_bytes), ("uploads", stats.upload_bytes)] {
        let _ = writeln!(text, "windlass_cache_max_bytes{{of=\"{of}\"}} {most}");
    }
    for (name, help, value) in [
        ("windlass_cache_hits_total", "Jobs answered with an equal job's result.", stats.hits),
        ("windlass_cache_misses_total", "Cacheable jobs that had to be run.", stats.misses),
        ("windlass_cache_evictions_total", "Entries that went because the cache was full.", stats.evictions),
    ] {
        head(&mut text, name, "counter", help);
        let _ = writeln!(text, "{name} {value}");
    }
    text
}

/// How long the cache's store is waited for.
const WITHIN: Duration = Duration::from_secs(1);

/// Bytes in MiB, with two decimals.
#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn mib(bytes: u64) -> f64 {
    (bytes as f64 / 1_048_576.0 * 100.0).round() / 100.0
}
