//! Runs handlers: an apalis `Backend` over any broker, leases, attempts, time limits,
//! isolation, progress, result cache, drain.
//!
//! This crate knows no kind of job, reads no environment, and never lets a handler near the
//! broker: the pump's thread owns every call.

#![forbid(unsafe_code)]

mod admission;
mod cache;
mod canary;
mod child;
mod control;
mod counts;
mod disk;
mod frame;
mod health;
mod isolate;
mod kept;
mod kind;
mod middleware;
mod parents;
mod pins;
mod policy;
mod pool;
mod pump;
mod recycle;
mod registry;
mod result;
mod run;
mod sandbox;
mod source;
mod syscalls;
mod testing;
mod trace;
mod watchdog;
mod worker;

pub use child::child_main;
pub use health::{Condition, Health, HealthLimits};
pub use isolate::Isolation;
pub use kind::{InlineKind, Inputs, IsolatedKind, KindSpec, Parent, RunContext, decode_args, schema_of};
pub use middleware::{Handler, RunReply, RunRequest};
pub use pins::{Housekeeper, release_ended};
pub use recycle::Recycle;
pub use registry::{Executor, Registry};
pub use result::{StoredArtifact, StoredResult};
pub use sandbox::Sandbox;
pub use schemars;
pub use testing::{TestFile, TestRun, TestWorker};
pub use worker::{Error, Share, Worker, WorkerOptions};

/// A number in 0.0–1.0, to spread waits.
fn random() -> f64 {
    fastrand::f64()
}
