//! The only list of kinds: worker, API, child and command line read it.

use std::sync::{Arc, OnceLock};

use windlass_chart::Defaults;
pub(crate) use windlass_market::kinds::Market;
use windlass_store::images::Images;
use windlass_worker::Registry;

use crate::runtime::Stores;
use crate::settings::Settings;

/// The positions of this process, said once at start.
static MARKET: OnceLock<Market> = OnceLock::new();

/// Says where the positions of this process lie. They are opened when they are first needed.
pub(crate) fn offer_market(market: Market) {
    // A second word is never said: commands are run once in a process.
    let _ = MARKET.set(market);
}

/// The positions of this process; none before [`offer_market`].
pub(crate) fn market() -> Market {
    MARKET.get().cloned().unwrap_or_default()
}

/// Every kind this binary can do, to be run: with the stores and settings that some of them need.
pub(crate) fn for_worker(settings: &Settings, stores: &Stores) -> Registry {
    all(Some(stores), settings.images.defaults, stores.services.images.clone())
}

/// Every kind this binary can do, where kinds are only named or checked, and in a child.
pub(crate) fn registry() -> Registry {
    all(None, Defaults::default(), None)
}

fn all(stores: Option<&Stores>, charts: Defaults, images: Option<Arc<Images>>) -> Registry {
    let mut registry = Registry::new();
    windlass_pdf::register(&mut registry);
    windlass_chart::register(&mut registry, charts, images);
    windlass_market::register(&mut registry, &market());
    crate::probe::register(&mut registry);
    crate::system::register(&mut registry, stores.map(|stores| &stores.broker));
    crate::duties::register(&mut registry, stores);
    registry
}
