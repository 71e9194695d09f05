//! The only list of kinds: worker, API, child and command line read it.

use std::sync::OnceLock;

use windlass_broker::SharedBroker;
pub(crate) use windlass_market::kinds::Market;
use windlass_worker::Registry;

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

/// Every kind this binary can do. Kinds that work on the queues themselves need the broker to
/// run; where they are only named or checked, none is given.
pub(crate) fn registry(broker: Option<&SharedBroker>) -> Registry {
    let mut registry = Registry::new();
    windlass_pdf::register(&mut registry);
    windlass_chart::register(&mut registry);
    windlass_market::register(&mut registry, &market());
    crate::probe::register(&mut registry);
    crate::system::register(&mut registry, broker);
    registry
}
