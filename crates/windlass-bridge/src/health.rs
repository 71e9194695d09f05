//! Whether a part of a bridge works: each change is said once.

use std::error::Error;

use crate::counters::{Meter, add};

/// One thing that a bridge does again and again.
#[derive(Debug)]
pub(crate) struct Health {
    /// What it does, behind "cannot".
    what: &'static str,
    is_well: bool,
}

impl Health {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, is_well: true }
    }

    /// It failed: counted always, said the first time.
    pub(crate) fn fails(&mut self, source: &str, meter: &Meter, error: &dyn Error) {
        add(&meter.errors, 1);
        if std::mem::replace(&mut self.is_well, false) {
            let (what, error) = (self.what, windlass_jobs::chain(error));
            tracing::warn!(source, error, "the bridge cannot {what}");
        }
    }

    /// It went well: said after a failure.
    pub(crate) fn works(&mut self, source: &str) {
        if !std::mem::replace(&mut self.is_well, true) {
            tracing::info!(source, "the bridge can {} again", self.what);
        }
    }
}
