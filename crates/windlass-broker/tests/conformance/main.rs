//! Every engine keeps every promise of the model, and a few of its own.

mod model;
#[cfg(feature = "sqlite")]
mod sqlite;
