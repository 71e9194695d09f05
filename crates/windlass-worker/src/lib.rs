//! Runs handlers.
pub mod kind;
pub use kind::{IsolatedKind, InlineKind, Inputs, KindSpec, RunContext, decode_args};
