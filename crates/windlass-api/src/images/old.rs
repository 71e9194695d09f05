//! The eight routes of the image store that this one replaces, with its bodies.
//!
//! Members of our own are added, none is left out. The images of both places and the files of
//! the old folder are one store to its callers.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderName;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use windlass_jobs::Timestamp;
use windlass_store::images::{ImageMeta, Images, OldFile, OldFolder, Removed, Stats};

use super::charts::store;
use super::media_type;
use crate::Shared;
use crate::problem::{Code, Problem};

/// Images of one symbol in one answer at most, the newest; each comes whole.
const MAX_IMAGES: usize = 200;
/// Bytes of them at most.
const MAX_BYTES: usize = 32 << 20;

const MIB: f64 = 1_048_576.0;

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn megabytes(bytes: u64) -> f64 {
    round(bytes as f64 / MIB)
}

fn age_hours(created_ms: Option<i64>) -> Option<f64> {
    let now = Timestamp::now();
    created_ms.map(|ms| round(now.since(Timestamp(ms)).as_secs_f64() / 3600.0))
}

fn hours(span: Duration) -> Value {
    let hours = span.as_secs_f64() / 3600.0;
    if hours.fract() == 0.0 { json!(hours as u64) } else { json!(round(hours)) }
}

fn symbol_of(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(symbol)| symbol).map_err(|_| Problem::new(Code::QueryInvalid, "the symbol is not UTF-8"))
}

fn old_folder(shared: &Shared) -> Option<&OldFolder> {
    shared.options.old_images.as_ref()
}

async fn old_files(shared: &Shared) -> Result<Vec<OldFile>, Problem> {
    match old_folder(shared) {
        Some(folder) => Ok(folder.list().await?),
        None => Ok(Vec::new()),
    }
}

/// The counts of Redis; those of the files while it is away.
async fn current(images: &Images) -> Result<(Stats, bool), Problem> {
    match images.redis_stats().await? {
        Some(stats) => Ok((stats, true)),
        None => Ok((images.files().stats().await?, false)),
    }
}

async fn redis_stats(images: &Images) -> Result<Value, Problem> {
    let (stats, on_redis) = current(images).await?;
    let options = images.options();
    Ok(json!({
        "total_images": stats.count,
        "total_size_mb": megabytes(stats.bytes),
        "oldest_image_age_hours": age_hours(stats.oldest_ms),
        "newest_image_age_hours": age_hours(stats.newest_ms),
        "average_age_hours": age_hours(stats.mean_ms),
        "max_age_hours": hours(options.max_age),
        "max_size_mb": options.max_total_bytes >> 20,
        "redis_url": images.redis().map_or("none", |redis| redis.shown()),
        "redis_available": on_redis,
    }))
}

/// `GET /redis/images/stats`.
pub(crate) async fn stats(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "success": true, "stats": redis_stats(store(&shared)?).await? })))
}

fn removed(removed: Removed) -> Value {
    json!({ "images_removed": removed.images, "bytes_freed": removed.bytes, "errors": 0 })
}

/// `POST /redis/images/cleanup`.
pub(crate) async fn cleanup(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    let swept = store(&shared)?.sweep().await?;
    let message = format!("Cleanup completed: {} images removed", swept.images);
    Ok(Json(json!({ "success": true, "message": message, "stats": removed(swept) })))
}

/// `GET /redis/images/{symbol}`: the images themselves, newest first.
pub(crate) async fn list(
    State(shared): State<Shared>,
    symbol: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let symbol = symbol_of(symbol)?;
    let images = store(&shared)?;
    let page = images.list(Some(&symbol), None, MAX_IMAGES).await?;
    let (mut items, mut bytes) = (Vec::new(), 0);
    let mut truncated = page.next.is_some();
    for meta in &page.images {
        let Some(file) = images.bytes(&meta.sha).await? else { continue };
        bytes += file.len();
        if bytes > MAX_BYTES {
            truncated = true;
            break;
        }
        items.push(item(&file, of_image(meta), meta.id.as_str(), &meta.facts.format));
    }
    if let Some(folder) = old_folder(&shared) {
        for old in folder.list().await?.iter().filter(|old| old.symbol == symbol) {
            let Some(file) = folder.bytes(&old.name).await? else { continue };
            bytes += file.len();
            if bytes > MAX_BYTES || items.len() >= MAX_IMAGES {
                truncated = true;
                break;
            }
            items.push(item(&file, of_file(old), &old.name, old.format));
        }
    }
    let name = HeaderName::from_static("x-truncated");
    Ok(([(name, if truncated { "true" } else { "false" })], Json(items)).into_response())
}

fn item(file: &[u8], metadata: Value, key: &str, format: &str) -> Value {
    let data = format!("data:{};base64,{}", media_type(format), STANDARD.encode(file));
    json!({ "data": data, "metadata": metadata, "key": key })
}

fn of_image(meta: &ImageMeta) -> Value {
    json!({
        "symbol": meta.facts.symbol,
        "interval": meta.facts.interval,
        "chart_type": meta.facts.chart_type,
        "created_at": meta.created_at,
        "size_bytes": meta.bytes,
        "format": meta.facts.format.to_ascii_uppercase(),
        "quality": meta.facts.quality,
    })
}

fn of_file(old: &OldFile) -> Value {
    json!({
        "symbol": old.symbol,
        "interval": old.interval,
        "chart_type": "candle",
        "created_at": old.created_at,
        "size_bytes": old.bytes,
        "format": old.format.to_ascii_uppercase(),
        "quality": null,
    })
}

async fn clear(shared: &Shared, symbol: Option<String>, interval: Option<String>) -> Result<Removed, Problem> {
    let mut all = store(shared)?.clear(symbol.as_deref(), interval.as_deref()).await?;
    if let Some(folder) = old_folder(shared) {
        let wanted = move |old: &OldFile| {
            symbol.as_ref().is_none_or(|symbol| old.symbol == *symbol)
                && interval.as_ref().is_none_or(|interval| old.interval == *interval)
        };
        all += folder.remove(wanted).await?;
    }
    Ok(all)
}

/// `DELETE /redis/images/{symbol}`.
pub(crate) async fn clear_symbol(
    State(shared): State<Shared>,
    symbol: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let symbol = symbol_of(symbol)?;
    let cleared = clear(&shared, Some(symbol.clone()), None).await?;
    let message = format!("Cleared {} images for {symbol}", cleared.images);
    Ok(Json(json!({ "success": true, "message": message, "count": cleared.images })))
}

/// `DELETE /redis/images`.
pub(crate) async fn clear_all(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    let cleared = clear(&shared, None, None).await?;
    let message = format!("Cleared {} images", cleared.images);
    Ok(Json(json!({ "success": true, "message": message, "count": cleared.images })))
}

/// `GET /charts/storage/stats`: files and Redis side by side.
pub(crate) async fn storage_stats(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    let images = store(&shared)?;
    let (twin, old) = (images.files().stats().await?, old_files(&shared).await?);
    let old_ms = old.iter().map(|file| file.created_at.0).min();
    let oldest = [twin.oldest_ms, old_ms].into_iter().flatten().min();
    let bytes = twin.bytes + old.iter().map(|file| file.bytes).sum::<u64>();
    let directory = old_folder(&shared).map_or_else(|| images.files().dir(), OldFolder::dir);
    let files = json!({
        "total_files": twin.count + old.len() as u64,
        "total_size_mb": megabytes(bytes),
        "oldest_file_age_hours": age_hours(oldest),
        "directory": directory.display().to_string(),
    });
    Ok(Json(json!({ "success": true, "redis": redis_stats(images).await?, "files": files })))
}

/// `POST /charts/cleanup`: both stores, and the old folder.
pub(crate) async fn cleanup_all(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    let images = store(&shared)?;
    let redis = images.sweep_redis().await?.unwrap_or_default();
    let mut files = images.files().sweep().await?;
    if let Some(folder) = old_folder(&shared) {
        files += folder.clean().await?;
    }
    let message = format!("Cleanup completed: {} images and {} files removed", redis.images, files.images);
    let stats = json!({
        "redis": removed(redis),
        "files": { "files_removed": files.images, "bytes_freed": files.bytes, "errors": 0 },
    });
    Ok(Json(json!({ "success": true, "message": message, "stats": stats })))
}

/// `DELETE /charts/{symbol}/{interval}`.
pub(crate) async fn clear_interval(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let path = path.map_err(|_| Problem::new(Code::QueryInvalid, "symbol and interval are not UTF-8"))?;
    let Path((symbol, interval)) = path;
    let cleared = clear(&shared, Some(symbol.clone()), Some(interval.clone())).await?;
    Ok(Json(if cleared.images > 0 {
        json!({ "success": true, "message": format!("Cleaned up charts for {symbol}_{interval}"), "count": cleared.images })
    } else {
        json!({ "success": false, "message": format!("No charts found for {symbol}_{interval}"), "count": 0 })
    }))
}
