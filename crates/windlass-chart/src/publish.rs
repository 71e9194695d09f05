//! From a drawn chart to a kept one: what the worker does with the image after the child, and
//! with a cached result before it is answered.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use windlass_jobs::RunError;
use windlass_store::images::{Facts, ImageId, ImageMeta, Images, NewImage, Place, Stored};
use windlass_store::{Digest, Services};
use windlass_worker::StoredResult;

use crate::RENDERER_VERSION;
use crate::args::{ChartArgs, Format, Return, Store};

/// The largest image that travels in a result.
const MAX_INLINE_BYTES: u64 = 1 << 20;

/// What of the args the image store needs to know, and a reader may want to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    symbol: String,
    interval: String,
    #[serde(rename = "type")]
    chart_type: String,
    theme: String,
    quality: Option<u8>,
    spec: String,
    store: Store,
    inline: bool,
}

impl About {
    pub(crate) fn of(args: &ChartArgs) -> Self {
        let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
        let lossy = args.format == Format::Jpeg || args.lossy;
        Self {
            symbol: args.symbol.trim().to_owned(),
            interval: args.interval.to_string(),
            chart_type: word(json!(args.chart_type)),
            theme: word(json!(args.theme)),
            quality: lossy.then(|| args.quality.unwrap_or(crate::encode::DEFAULT_QUALITY)),
            spec: spec_hash(args),
            store: args.store,
            inline: args.returns == Return::Inline,
        }
    }
}

/// What equal charts have in common: SHA-256 of all args with defaults filled in, but for
/// where the image goes, and of the renderer's version.
fn spec_hash(args: &ChartArgs) -> String {
    let plain = ChartArgs { store: Store::default(), returns: Return::default(), ..args.clone() };
    let json = serde_json::to_vec(&(RENDERER_VERSION, plain, crate::font::second())).unwrap_or_default();
    Digest::of(&json).hex()
}

/// The artifact of that name and its bytes.
async fn artifact(result: &StoredResult, services: &Services, index: usize) -> Option<Bytes> {
    let digest: Digest = result.artifacts.get(index)?.blob.parse().ok()?;
    services.artifacts.get(&digest).await.ok().flatten()
}

fn thumb_index(result: &StoredResult) -> Option<usize> {
    result.artifacts.iter().position(|artifact| artifact.name == "thumb.png")
}

fn failed(code: &str) -> impl Fn(windlass_store::Error) -> RunError {
    let code = code.to_owned();
    move |error| RunError::new(code.as_str(), windlass_jobs::chain(&error))
}

/// Keeps the image of a fresh result and tells its readers where.
pub(crate) async fn publish(result: &mut StoredResult, services: &Services) -> Result<(), RunError> {
    let Some(images) = services.images.as_deref() else { return inline_of(result, services).await };
    let about: About = serde_json::from_value(result.value["about"].clone())
        .map_err(|error| RunError::new("result_invalid", error.to_string()))?;
    if about.store.dedupe
        && let Some(stored) = same(images, &about, result).await
    {
        tell(result, images, &stored, true);
        return inline_of(result, services).await;
    }
    let stored = put(images, &about, result, services).await?;
    tell(result, images, &stored, false);
    inline_of(result, services).await
}

/// An image of equal args that is kept already, with the same bytes.
async fn same(images: &Images, about: &About, result: &StoredResult) -> Option<Stored> {
    let stored = images.find(&about.spec).await.ok().flatten()?;
    let blob: Digest = result.artifacts.first()?.blob.parse().ok()?;
    let has_thumb = stored.meta.thumb.is_some() == about.store.thumbnail_width_px.is_some();
    (stored.meta.sha == blob && has_thumb).then_some(stored)
}

async fn put(images: &Images, about: &About, result: &StoredResult, services: &Services) -> Result<Stored, RunError> {
    let gone = || RunError::new("storage", "the drawn image is no longer there");
    let bytes = artifact(result, services, 0).await.ok_or_else(gone)?;
    let thumb = match thumb_index(result) {
        Some(index) => artifact(result, services, index).await,
        None => None,
    };
    let side = |name: &str| result.value[name].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let image = NewImage {
        id: ImageId::new(),
        bytes,
        thumb,
        facts: Facts {
            symbol: about.symbol.clone(),
            interval: about.interval.clone(),
            chart_type: about.chart_type.clone(),
            theme: about.theme.clone(),
            format: result.value["format"].as_str().unwrap_or_default().to_owned(),
            quality: about.quality,
            width_px: side("width_px"),
            height_px: side("height_px"),
            spec: about.spec.clone(),
        },
        created_at: None,
        max_age: about.store.max_age_hours.map(|hours| Duration::from_secs_f64(hours * 3600.0)),
    };
    images.put(&image).await.map_err(failed("images"))
}

/// Writes into a result where its image is.
fn tell(result: &mut StoredResult, images: &Images, stored: &Stored, reused: bool) {
    let ImageMeta { id, sha, thumb, created_at, expires_at, .. } = &stored.meta;
    let value = &mut result.value;
    value["image_id"] = json!(id);
    value["etag"] = json!(sha.hex());
    value["created_at"] = json!(created_at);
    value["expires_at"] = json!(expires_at);
    value["stored_in"] = json!(stored.place);
    value["reused"] = json!(reused);
    value["thumb_id"] = json!(thumb.map(|digest| digest.hex()));
    // Without a Redis in the settings, files are where images belong.
    if stored.place == Place::Files && images.redis().is_some() {
        let note = json!("Redis is away: the image is a file of the machine that drew it until it is back");
        if let Some(notes) = value["notes"].as_array_mut().filter(|notes| !notes.contains(&note)) {
            notes.push(note);
        }
    }
}

/// With `"return": "inline"`: the file itself.
async fn inline_of(result: &mut StoredResult, services: &Services) -> Result<(), RunError> {
    if result.value["about"]["inline"] != json!(true) {
        return Ok(());
    }
    let bytes = result.artifacts.first().map_or(0, |artifact| artifact.bytes);
    if bytes > MAX_INLINE_BYTES {
        if let Some(notes) = result.value["notes"].as_array_mut() {
            notes.push(json!(format!("{bytes} bytes are too many for the result: read the image by its id")));
        }
        return Ok(());
    }
    let gone = || RunError::new("storage", "the drawn image is no longer there");
    let file = artifact(result, services, 0).await.ok_or_else(gone)?;
    result.value["data"] = json!(STANDARD.encode(file));
    Ok(())
}

/// Whether a cached result may be answered: its image is kept still, or again. It is
/// `reused` then.
pub(crate) async fn revive(result: &mut StoredResult, services: &Services) -> bool {
    let Some(images) = services.images.as_deref() else { return true };
    let Ok(about) = serde_json::from_value::<About>(result.value["about"].clone()) else { return false };
    if !about.store.dedupe {
        return false;
    }
    let known = match result.value["image_id"].as_str().map(str::parse::<ImageId>) {
        Some(Ok(id)) => images.get(&id).await.ok().flatten(),
        _ => None,
    };
    let stored = match known {
        Some(stored) => Some(stored),
        // Swept or deleted meanwhile; its bytes are with the result.
        None => put(images, &about, result, services).await.ok(),
    };
    let Some(stored) = stored else { return false };
    tell(result, images, &stored, true);
    true
}
