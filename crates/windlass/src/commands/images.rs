//! `windlass images`: what the image store holds, by hand.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};
use windlass_jobs::Timestamp;
use windlass_store::images::{Cursor, Images, Stats};

use super::report;
use crate::cli::ImagesVerb;
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, verb: ImagesVerb, as_json: bool) -> anyhow::Result<ExitCode> {
    let images = settings.images.open(settings)?;
    match verb {
        ImagesVerb::Stats => stats(&images, as_json).await,
        ImagesVerb::List { symbol, after, limit } => list(&images, symbol.as_deref(), after, limit, as_json).await,
        ImagesVerb::Cleanup => cleanup(settings, &images, as_json).await,
        ImagesVerb::Verify { repair } => verify(&images, repair, as_json).await,
    }
}

async fn stats(images: &Images, as_json: bool) -> anyhow::Result<ExitCode> {
    let (redis, files) = (images.redis_stats().await?, images.files().stats().await?);
    if as_json {
        report::json_line(&json!({ "redis": redis, "files": files }));
        return Ok(ExitCode::SUCCESS);
    }
    match (&redis, images.redis()) {
        (Some(stats), Some(store)) => show(&format!("Redis {}", store.shown()), stats),
        (None, Some(store)) => report::line(format_args!("Redis {} does not answer; files are used", store.shown())),
        (_, None) => report::line(format_args!("no Redis is set: images are files")),
    }
    show(&format!("files {}", images.files().dir().display()), &files);
    Ok(ExitCode::SUCCESS)
}

fn show(place: &str, stats: &Stats) {
    let age = |ms: Option<i64>| match ms {
        Some(ms) => report::span(Timestamp::now().since(Timestamp(ms))),
        None => "–".to_owned(),
    };
    report::line(format_args!("{place}"));
    report::line(format_args!(
        "  {} images, {}; oldest {}, newest {}, mean age {}",
        stats.count,
        report::size(stats.bytes),
        age(stats.oldest_ms),
        age(stats.newest_ms),
        age(stats.mean_ms)
    ));
    report::line(format_args!(
        "  {} kept ({} of them with bytes that were there), {} read, {} not found",
        stats.puts, stats.dedup, stats.hits, stats.misses
    ));
    report::line(format_args!(
        "  gone: {} by age, {} for room, {} deleted; {} were too large",
        stats.evicted_age, stats.evicted_size, stats.deleted, stats.refused
    ));
}

async fn list(
    images: &Images,
    symbol: Option<&str>,
    after: Option<String>,
    limit: usize,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let after = after.map(|text| text.parse::<Cursor>()).transpose();
    let after = after.context("--after is what the list before ended with")?;
    let page = images.list(symbol, after.as_ref(), limit).await?;
    let next = page.next.map(|cursor| cursor.to_string());
    if as_json {
        let images: Vec<Value> = page.images.iter().map(|meta| json!(meta)).collect();
        report::json_line(&json!({ "images": images, "next": next }));
        return Ok(ExitCode::SUCCESS);
    }
    for meta in &page.images {
        let facts = &meta.facts;
        let left = report::span(meta.expires_at.since(Timestamp::now()));
        report::line(format_args!(
            "{}  {:<16} {:<4} {:>5}×{:<5} {:<4} {:>9}  goes in {left}",
            meta.id,
            facts.symbol,
            facts.interval,
            facts.width_px,
            facts.height_px,
            facts.format,
            report::size(meta.bytes)
        ));
    }
    match next {
        Some(next) => report::line(format_args!("more: --after {next}")),
        None if page.images.is_empty() => report::line(format_args!("no images")),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn cleanup(settings: &Settings, images: &Images, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut removed = images.sweep().await?;
    if let Some(folder) = settings.images.old_folder() {
        removed += folder.clean().await?;
    }
    if as_json {
        report::json_line(&json!({ "images_removed": removed.images, "bytes_freed": removed.bytes }));
    } else {
        report::line(format_args!("{} images gone, {} freed", removed.images, report::size(removed.bytes)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(images: &Images, repair: bool, as_json: bool) -> anyhow::Result<ExitCode> {
    let redis = images.redis().context("there is no Redis to recount; files are counted anew at every start")?;
    let found = redis.verify(repair).await?;
    if as_json {
        report::json_line(&json!(found));
    } else {
        report::line(format_args!(
            "{} images, {} counted, {} there; {} blobs missing, {} without an image, {} wrong holds",
            found.images,
            report::size(u64::try_from(found.counted_bytes).unwrap_or(0)),
            report::size(found.bytes),
            found.missing_blobs,
            found.loose_blobs,
            found.wrong_refs
        ));
        let verdict = match (found.is_right(), found.repaired) {
            (true, _) => "everything is right",
            (false, true) => "put right",
            (false, false) => "wrong: --repair puts the counters right",
        };
        report::line(format_args!("{verdict}"));
    }
    Ok(if found.is_right() || found.repaired { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
