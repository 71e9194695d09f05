//! `/api/charts`: images by id, their thumbnails, lists, counts.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_jobs::Timestamp;
use windlass_store::Digest;
use windlass_store::images::{Cursor, Health, ImageId, ImageMeta, Images};

use super::media_type;
use crate::Shared;
use crate::auth::Caller;
use crate::paging::{Listing, PAGE, PageQuery};
use crate::problem::{Code, Problem};
use crate::result::matches;

fn gone() -> Problem {
    Problem::new(Code::ImageNotFound, "there is no such image, or it is no longer kept")
}

/// The store of images; a process without one has no images.
pub(super) fn store(shared: &Shared) -> Result<&Images, Problem> {
    shared.services.images.as_deref().ok_or_else(gone)
}

async fn find(shared: &Shared, id: Result<Path<String>, PathRejection>) -> Result<ImageMeta, Problem> {
    let id: ImageId = id.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(gone)?;
    Ok(store(shared)?.get(&id).await?.ok_or_else(gone)?.meta)
}

/// `GET /api/charts/{id}`: the image.
pub(crate) async fn image(
    State(shared): State<Shared>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let meta = find(&shared, id).await?;
    let name = format!("{}.{}", meta.id, meta.facts.format);
    send(&shared, &headers, &Answer::fixed(&meta, meta.sha, media_type(&meta.facts.format), name)).await
}

/// `GET /api/charts/{id}/thumb`: the small picture beside it.
pub(crate) async fn thumb(
    State(shared): State<Shared>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let meta = find(&shared, id).await?;
    let digest = meta.thumb.ok_or_else(|| Problem::new(Code::ImageNotFound, "the image has no thumbnail"))?;
    send(&shared, &headers, &Answer::fixed(&meta, digest, "image/png", format!("{}-thumb.png", meta.id))).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LatestQuery {
    /// As exchanges write it.
    symbol: String,
    /// Only of this interval.
    interval: Option<String>,
}

/// `GET /api/charts/latest?symbol=`: the newest image of a symbol, asked for anew every time.
pub(crate) async fn latest(
    State(shared): State<Shared>,
    headers: HeaderMap,
    query: Result<Query<LatestQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|_| Problem::new(Code::QueryInvalid, "?symbol= and ?interval= are known here"))?;
    let images = store(&shared)?;
    let mut after: Option<Cursor> = None;
    loop {
        let page = images.list(Some(&query.symbol), after.as_ref(), PAGE).await?;
        let fits = |meta: &&ImageMeta| query.interval.as_ref().is_none_or(|wanted| meta.facts.interval == *wanted);
        if let Some(meta) = page.images.iter().find(fits) {
            let name = format!("{}.{}", meta.id, meta.facts.format);
            let answer = Answer::fixed(meta, meta.sha, media_type(&meta.facts.format), name);
            return send(&shared, &headers, &Answer { cache: "no-cache".to_owned(), ..answer }).await;
        }
        after = Some(page.next.ok_or_else(gone)?);
    }
}

/// An image to be sent.
struct Answer {
    digest: Digest,
    media_type: &'static str,
    name: String,
    cache: String,
}

impl Answer {
    /// Bytes that never change under their address, until they go.
    fn fixed(meta: &ImageMeta, digest: Digest, media_type: &'static str, name: String) -> Self {
        let left_s = meta.expires_at.since(Timestamp::now()).as_secs();
        Self { digest, media_type, name, cache: format!("private, max-age={left_s}, immutable") }
    }

    fn headers(&self) -> [(header::HeaderName, String); 2] {
        [(header::ETAG, format!("\"{}\"", self.digest.hex())), (header::CACHE_CONTROL, self.cache.clone())]
    }
}

/// Sends bytes, or says that the reader has them: then they are not even fetched.
async fn send(shared: &Shared, headers: &HeaderMap, answer: &Answer) -> Result<Response, Problem> {
    if matches(headers, &format!("\"{}\"", answer.digest.hex())) {
        return Ok((StatusCode::NOT_MODIFIED, answer.headers()).into_response());
    }
    let bytes = store(shared)?.bytes(&answer.digest).await?.ok_or_else(gone)?;
    let mut response = (answer.headers(), Body::from(bytes)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.media_type));
    // Ids and formats are letters and digits: nothing to escape.
    if let Ok(value) = HeaderValue::from_str(&format!("inline; filename=\"{}\"", answer.name)) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// `DELETE /api/charts/{id}`.
pub(crate) async fn delete(
    State(shared): State<Shared>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let id: ImageId = id.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(gone)?;
    if store(&shared)?.delete(&id).await? { Ok(Json(json!({ "deleted": true, "image_id": id }))) } else { Err(gone()) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Only of this symbol.
    symbol: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// 1–500; default 50.
    limit: Option<usize>,
}

/// `GET /api/charts?symbol=&cursor=&limit=`: newest first.
pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let wrong = |detail: &str| Problem::new(Code::QueryInvalid, detail);
    let Query(ListQuery { symbol, cursor, limit }) =
        query.map_err(|_| wrong("?symbol=, ?cursor= and ?limit= are known here"))?;
    let filter = symbol.clone().unwrap_or_default();
    let listing = Listing { path: "/api/charts", filter: &filter, caller: &caller };
    let signer = shared.ring.signer();
    let (after, limit) = PageQuery { cursor, limit }.read(signer, &listing, PAGE)?;
    let after = after.and_then(|text| text.parse::<Cursor>().ok());
    let page = store(&shared)?.list(symbol.as_deref(), after.as_ref(), limit).await?;
    let images: Vec<Value> = page.images.iter().map(shown).collect();
    Ok(Json(json!({ "images": images, "next": page.next.map(|next| listing.seal(signer, &next.to_string())) })))
}

/// An image in a list.
fn shown(meta: &ImageMeta) -> Value {
    let facts = &meta.facts;
    json!({
        "image_id": meta.id,
        "url": format!("/api/charts/{}", meta.id),
        "thumb_url": meta.thumb.map(|_| format!("/api/charts/{}/thumb", meta.id)),
        "etag": meta.sha.hex(),
        "symbol": facts.symbol,
        "interval": facts.interval,
        "type": facts.chart_type,
        "theme": facts.theme,
        "format": facts.format,
        "quality": facts.quality,
        "width_px": facts.width_px,
        "height_px": facts.height_px,
        "bytes": meta.bytes,
        "created_at": meta.created_at,
        "expires_at": meta.expires_at,
    })
}

/// `GET /api/charts/stats`: levels and counters of both places.
pub(crate) async fn stats(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    let images = store(&shared)?;
    let redis = images.redis_stats().await?;
    let files = images.files().stats().await?;
    let options = images.options();
    let health = match images.health() {
        Health::Redis => "redis",
        Health::Away => "redis_away",
        Health::Files => "files",
    };
    Ok(Json(json!({
        "store": health,
        "redis": redis,
        "files": files,
        "limits": {
            "max_age_s": options.max_age.as_secs(),
            "max_total_bytes": options.max_total_bytes,
            "max_image_bytes": options.max_image_bytes,
            "max_file_bytes": options.max_file_bytes,
            "cleanup_interval_s": options.cleanup_interval.as_secs(),
            "cleanup": options.cleanup,
            "evict": options.evict,
        },
    })))
}
