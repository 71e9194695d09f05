//! The only list of kinds: worker, API, child and command line read it.

use windlass_broker::SharedBroker;
use windlass_worker::Registry;

/// Every kind this binary can do. Kinds that work on the queues themselves need the broker to
/// run; where they are only named or checked, none is given.
pub(crate) fn registry(broker: Option<&SharedBroker>) -> Registry {
    let mut registry = Registry::new();
    windlass_pdf::register(&mut registry);
    windlass_chart::register(&mut registry);
    crate::probe::register(&mut registry);
    crate::system::register(&mut registry, broker);
    registry
}
