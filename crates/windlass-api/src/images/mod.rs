//! Charts that are kept: our routes and those of the system that this one replaces.

pub(crate) mod charts;
pub(crate) mod old;

use std::fmt::Write as _;

use windlass_store::images::{Health, Images};

/// The image store for `/metrics`, in the Prometheus text format: the numbers of
/// `GET /api/charts/stats`. Redis away: its numbers are left out, `windlass_images_redis_up` is 0.
pub(crate) async fn metrics(images: &Images) -> String {
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
    };
    let redis = images.redis_stats().await.ok().flatten();
    if images.health() != Health::Files {
        put("windlass_images_redis_up", "gauge", u64::from(redis.is_some()));
    }
    if let Some(stats) = redis {
        put("windlass_images_count", "gauge", stats.count);
        put("windlass_images_bytes", "gauge", stats.bytes);
        for (name, value) in [
            ("windlass_images_puts_total", stats.puts),
            ("windlass_images_deduplicated_total", stats.dedup),
            ("windlass_images_hits_total", stats.hits),
            ("windlass_images_misses_total", stats.misses),
            ("windlass_images_evicted_by_age_total", stats.evicted_age),
            ("windlass_images_evicted_by_size_total", stats.evicted_size),
            ("windlass_images_deleted_total", stats.deleted),
            ("windlass_images_refused_total", stats.refused),
        ] {
            put(name, "counter", value);
        }
    }
    if let Ok(files) = images.files().stats().await {
        put("windlass_images_files_count", "gauge", files.count);
        put("windlass_images_files_bytes", "gauge", files.bytes);
    }
    text
}

/// The media type of a format's name.
fn media_type(format: &str) -> &'static str {
    match format {
        "png" => "image/png",
        "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
