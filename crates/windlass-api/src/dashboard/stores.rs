//! The pages of what is kept beside the queue: images, caches, and the settings in force.

use maud::html;

use super::Body;
use super::view::{bytes, moment, number};
use crate::Shared;
use crate::problem::{Code, Problem};

/// Images on a page.
const PAGE: usize = 60;

/// Which images are wanted.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ImagesWish {
    symbol: Option<String>,
    after: Option<windlass_store::images::Cursor>,
}

impl ImagesWish {
    pub(super) fn read(pairs: &[(String, String)]) -> Result<Self, Problem> {
        let mut wish = Self::default();
        for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            let wrong =
                || Problem::new(Code::QueryInvalid, format!("{name:?} is not known here, or not with this value"));
            match name.as_str() {
                "symbol" => wish.symbol = Some(value.clone()),
                "after" => wish.after = Some(value.parse().map_err(|_| wrong())?),
                _ => return Err(wrong()),
            }
        }
        Ok(wish)
    }
}

/// The gallery: newest first, by thumbnail.
pub(super) async fn images(shared: &Shared, wish: &ImagesWish) -> Result<Body, Problem> {
    let base = shared.options.base_path.as_str();
    let Some(images) = shared.services.images.as_deref() else {
        let content = html! { h1 { "Images" } p class="empty" { "No image store is set up." } };
        return Ok(Body::new("Images", content));
    };
    let page = images.list(wish.symbol.as_deref(), wish.after.as_ref(), PAGE).await?;
    let files = images.files().stats().await?;
    let redis = images.redis_stats().await?.unwrap_or_default();
    let symbol = wish.symbol.as_deref().unwrap_or_default();
    let content = html! {
        h1 { "Images" }
        p class="quiet" { (number(files.count + redis.count)) @if files.count + redis.count == 1 { " image, " } @else { " images, " } (bytes(files.bytes + redis.bytes)) }
        form class="filter" action={ (base) "/images" } {
            label { "Symbol " input name="symbol" value=(symbol) placeholder="any"; }
            button { "Filter" }
        }
        @if page.images.is_empty() { p class="empty" { "Nothing here." } }
        div class="gallery" {
            @for image in &page.images {
                @let url = format!("{base}/api/charts/{}", image.id);
                figure {
                    a href=(url) {
                        @if image.thumb.is_some() { img src={ (url) "/thumb" } alt={ "Chart of " (image.facts.symbol) } loading="lazy"; }
                        @else { img src=(url) alt={ "Chart of " (image.facts.symbol) } loading="lazy"; }
                    }
                    figcaption { strong { (image.facts.symbol) } " " (image.facts.interval) br; span class="quiet" { (moment(image.created_at)) ", " (bytes(image.bytes)) } }
                }
            }
        }
        nav class="pages" {
            @if let Some(next) = &page.next {
                @let query = form_urlencoded::Serializer::new(String::new()).append_pair("symbol", symbol).append_pair("after", &next.to_string()).finish();
                a href={ (base) "/images?" (query) } { "Older" }
            }
        }
    };
    Ok(Body::new("Images", content))
}

/// The result cache, and the caches of other services by namespace.
pub(super) async fn caches(shared: &Shared) -> Result<Body, Problem> {
    let results = crate::cache::view(&shared.services.artifacts.stats().await?);
    let results = serde_json::to_string_pretty(&results).unwrap_or_default();
    let counts = shared.caching.cache.counts().await.value;
    let reads = counts.hits + counts.misses;
    let content = html! {
        h1 { "Caches" }
        section {
            h2 { "Namespaces" }
            p class="quiet" {
                (number(counts.hits)) " hits, " (number(counts.misses)) " misses"
                @if let Some(percent) = (counts.hits * 100).checked_div(reads) { ", " (percent) " % found" }
                ", " (bytes(counts.memory_bytes as u64)) " in this process"
            }
            div class="scroll" { table {
                thead { tr { th { "Namespace" } th class="num" { "Values" } } }
                tbody { @for (namespace, count) in &counts.by_namespace { tr { td { (namespace) } td class="num" { (number(*count)) } } } }
            } }
        }
        section { h2 { "Results of jobs" } pre { (results) } }
    };
    Ok(Body::new("Caches", content))
}

/// What is set, with secrets hidden.
pub(super) fn settings(shared: &Shared) -> Body {
    let content = html! {
        h1 { "Settings" }
        p class="quiet" { "Windlass " (env!("CARGO_PKG_VERSION")) ", queue on " (shared.broker.engine()) ". What is not listed is at its default." }
        @if shared.options.settings.is_empty() { p class="empty" { "Everything is at its default." } }
        @else { div class="scroll" { table {
            thead { tr { th { "Setting" } th { "Value" } } }
            tbody { @for (name, value) in &shared.options.settings { tr { td { code { (name) } } td { code { (value) } } } } }
        } } }
    };
    Body { title: "Settings".to_owned(), content, done: true }
}
