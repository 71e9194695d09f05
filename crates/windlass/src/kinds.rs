//! The only list of kinds: worker, API, child and command line read it.

use std::sync::Arc;

use windlass_chart::{Defaults, Kept};
use windlass_market::Market;
use windlass_store::images::Images;
use windlass_worker::Registry;

use crate::candles::MarketCandles;
use crate::runtime::Stores;
use crate::settings::Settings;

/// Every kind this binary can do, to be run: with the stores and settings that some of them need.
///
/// # Errors
/// When a Redis that jobs are forwarded to cannot be used.
pub(crate) fn for_worker(settings: &Settings, stores: &Stores) -> anyhow::Result<Registry> {
    let images = stores.services.images.clone();
    let mut registry = all(Some(stores), settings.images.defaults, images, &stores.market);
    settings.bridge.register(&mut registry)?;
    Ok(registry)
}

/// Every kind this binary can do, where kinds are only named or checked, and in a child.
pub(crate) fn registry() -> Registry {
    all(None, Defaults::default(), None, &Market::default())
}

fn all(stores: Option<&Stores>, charts: Defaults, images: Option<Arc<Images>>, market: &Market) -> Registry {
    let mut registry = Registry::new();
    windlass_pdf::register(&mut registry);
    let candles = stores.map(|_| Kept::new(MarketCandles(market.clone()))).unwrap_or_default();
    windlass_chart::register(&mut registry, charts, images, &candles);
    windlass_market::register(&mut registry, market);
    crate::probe::register(&mut registry);
    crate::system::register(&mut registry, stores.map(|stores| &stores.broker));
    crate::duties::register(&mut registry, stores);
    registry
}
