//! What a job is: kinds, args, options, outcomes, progress, the state machine, backoff,
//! ids and the clock as a value.
//!
//! This crate never does IO, starts no thread and reads no environment. [`model`] is the
//! specification of the broker: both engines are compared with it.

#![forbid(unsafe_code)]

pub mod attempts;
mod backoff;
pub mod catalogue;
pub mod command;
mod durability;
mod error;
pub mod flow;
mod id;
mod job;
pub mod lanes;
mod limits;
pub mod model;
mod outcome;
mod priorities;
mod shards;
mod time;
mod trace;
mod unique;

pub use backoff::Backoff;
pub use durability::Durability;
pub use error::chain;
pub use flow::{DependsOn, OnFailure};
pub use id::{JobId, Lease, NameError, Queue, Ulid, check_kind, new_ulid};
pub use job::{
    DEFAULT_MAX_ATTEMPTS, JobRecord, MAX_ARGS_BYTES, MAX_DELIVERIES, MAX_MAX_ATTEMPTS, MAX_RESULT_BYTES,
    MAX_SCHEDULE_AHEAD, NewJob, Options, Priority, Progress, Reason, State, When,
};
pub use limits::{Limits, Rate};
pub use outcome::{ArtifactFile, Done, Outcome, RunError, Violation};
pub use priorities::PriorityWeights;
pub use shards::{MAX_SHARDS, place};
pub use time::{Clock, SetClock, SystemClock, Timestamp, millis};
pub use trace::{TraceContext, TraceError};
pub use unique::{MAX_KEY_BYTES, OnClash, Unique, Until, check_key};
