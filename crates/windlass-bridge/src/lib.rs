//! Takes jobs from stock apalis-redis storages and from Celery clients, answers in their own
//! formats, and hands jobs to stock apalis workers: an application moves over without a change to its
//! producers.
//!
//! It never runs a job, never reads the environment, and never holds a job in memory alone: until the
//! queue has it, it lies in the source's Redis, in the custody of any bridge that asks.

#![forbid(unsafe_code)]

mod apalis;
mod bridge;
mod celery;
mod counters;
mod custody;
mod health;
mod routes;
mod source;

pub use apalis::{Forward, ForwardError};
pub use bridge::{Bridge, Options, QueueOf};
pub use celery::CeleryOptions;
pub use counters::Counters;
pub use custody::Note;
pub use routes::{ApalisRoute, ApalisRoutes, CeleryQueue, CeleryQueues, ForwardRoutes, TaskRoute, TaskRoutes};
pub use source::{AnySource, BadSource};
