//! Where jobs wait: four traits, two engines as features (`redis` by default, `sqlite`),
//! inspection and wake-ups.
//!
//! This crate never runs a job, never decides whether one is retried, and never reads a
//! client's clock to decide anything: policy is the worker's, time is the server's. What
//! each verb means is said once, in [`windlass_jobs::model`].

#![forbid(unsafe_code)]

mod error;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use windlass_jobs::command::{Ack, Counts, Enqueued, Exchange, Exchanged, Page, WorkerInfo};
use windlass_jobs::{JobId, JobRecord, Lease, NewJob, Progress, Queue, State};

pub use error::Error;

/// The result of a broker call.
pub type Result<T> = std::result::Result<T, Error>;

/// Takes jobs.
#[async_trait]
pub trait Enqueue: Send + Sync {
    /// Accepts jobs. An id that is known changes nothing and answers `fresh: false`, so that a
    /// call whose reply was lost can be repeated.
    ///
    /// Any number of jobs is taken, in slices of
    /// [`MAX_ENQUEUE`](windlass_jobs::command::MAX_ENQUEUE); each slice is accepted whole or
    /// not at all, in order. After an error the first slices may have been accepted.
    ///
    /// # Errors
    /// [`Error`]; the jobs are expected to be checked ([`NewJob::check`]).
    async fn enqueue(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Enqueued>>;
}

/// Hands jobs to workers and takes back what became of them.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Finishes, reaps, promotes and claims in one step; see
    /// [`Model::exchange`](windlass_jobs::model::Model::exchange).
    ///
    /// # Errors
    /// [`Error`]. After a lost reply the same finishes may be sent again: those that were
    /// taken answer stale, and what was claimed comes back when its lease ends.
    async fn exchange(&self, queue: &Queue, exchange: &Exchange) -> Result<Exchanged>;

    /// Moves the end of each held lease to now + `lease`. One ack per lease.
    ///
    /// # Errors
    /// [`Error`].
    async fn renew(&self, queue: &Queue, leases: &[Lease], lease: Duration) -> Result<Vec<Ack>>;

    /// Writes a running job's progress into its hash.
    ///
    /// # Errors
    /// [`Error`].
    async fn progress(&self, queue: &Queue, lease: Lease, progress: &Progress) -> Result<Ack>;

    /// Registers a worker, or says that it is still there. Expected every 5 s.
    ///
    /// # Errors
    /// [`Error`].
    async fn announce(&self, worker: &WorkerInfo) -> Result<()>;

    /// Takes a worker that stops off the list.
    ///
    /// # Errors
    /// [`Error`].
    async fn retire(&self, worker: &str) -> Result<()>;

    /// Wake-ups for a worker, from now on. The stream never ends while the broker lives: after
    /// a lost connection it reconnects and says [`Wake::All`].
    async fn wakes(&self, worker: &str) -> mpsc::UnboundedReceiver<Wake>;
}

/// Why a worker should ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// This queue has jobs.
    Queue(Queue),
    /// Any queue may have jobs: wake-ups may have been missed.
    All,
}

/// Reads what is there; changes nothing.
#[async_trait]
pub trait Inspect: Send + Sync {
    /// One job; `None` when it is not known or past retention.
    ///
    /// # Errors
    /// [`Error`].
    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>>;

    /// One page of the jobs in a state; see [`Model::list`](windlass_jobs::model::Model::list).
    ///
    /// Successes and cancelled jobs share one list, as do scheduled and retrying ones.
    ///
    /// # Errors
    /// [`Error`].
    async fn list(&self, queue: &Queue, state: State, cursor: u64, limit: usize) -> Result<Page>;

    /// How many jobs of a queue stand where.
    ///
    /// # Errors
    /// [`Error`].
    async fn counts(&self, queue: &Queue) -> Result<Counts>;

    /// Every queue that ever got a job or a worker, by name.
    ///
    /// # Errors
    /// [`Error`].
    async fn queues(&self) -> Result<Vec<Queue>>;

    /// The workers heard of within [`WorkerInfo::GONE_AFTER`], by name.
    ///
    /// # Errors
    /// [`Error`].
    async fn workers(&self) -> Result<Vec<WorkerInfo>>;

    /// A round trip to the store.
    ///
    /// # Errors
    /// [`Error`] when it does not answer.
    async fn ping(&self) -> Result<()>;
}

/// Everything a process needs of its queue.
pub trait Broker: Enqueue + Leases + Inspect {
    /// Which engine this is: `"redis"`, `"sqlite"`.
    fn engine(&self) -> &'static str;
}

/// A broker, whichever engine it is.
pub type SharedBroker = Arc<dyn Broker>;

/// Cuts a text into pieces of at most 64 bytes, so that a hash holding them stays a listpack.
#[cfg(feature = "redis")]
fn pieces(text: &[u8]) -> std::slice::Chunks<'_, u8> {
    text.chunks(64)
}
