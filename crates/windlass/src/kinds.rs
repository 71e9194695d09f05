//! The only list of kinds: worker, API, child and command line read it.

use windlass_worker::Registry;

use crate::runtime::Stores;

/// Every kind this binary can do. Kinds that work on the stores themselves need them to run;
/// where they are only named or checked, none are given.
pub(crate) fn registry(stores: Option<&Stores>) -> Registry {
    let mut registry = Registry::new();
    windlass_pdf::register(&mut registry);
    windlass_chart::register(&mut registry);
    crate::probe::register(&mut registry);
    crate::system::register(&mut registry, stores.map(|stores| &stores.broker));
    crate::duties::register(&mut registry, stores);
    registry
}
