//! The only list of kinds: worker, API, child and command line read it.

use windlass_worker::Registry;

/// Every kind this binary can do.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    windlass_pdf::register(&mut registry);
    windlass_chart::register(&mut registry);
    crate::probe::register(&mut registry);
    registry
}
