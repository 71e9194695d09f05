//! Where jobs wait: five traits, two engines as features (`redis` by default, `sqlite`),
//! inspection and wake-ups.
//!
//! This crate never runs a job, never decides whether one is retried, and never reads a
//! client's clock to decide anything: policy is the worker's, time is the server's. What
//! each verb means is said once, in [`windlass_jobs::model`].

#![forbid(unsafe_code)]

mod error;
pub mod flow;
#[cfg(feature = "redis")]
pub mod redis;
mod sharded;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::command::{Ack, Cancel, Counts, Enqueued, Exchange, Exchanged, Filter, Found, Page, WorkerInfo};
use windlass_jobs::{JobId, JobRecord, Lease, Limits, NewJob, Progress, Queue, State, Ulid};

pub use error::Error;
pub use flow::Outbox;
pub use sharded::Sharded;

/// The result of a broker call.
pub type Result<T> = std::result::Result<T, Error>;

/// Takes jobs.
#[async_trait]
pub trait Enqueue: Send + Sync {
    /// Accepts jobs. An id that is known changes nothing and answers `fresh: false`, so that a
    /// call whose reply was lost can be repeated.
    ///
    /// Any number of jobs is taken, in slices of
    /// [`slices`](windlass_jobs::command::slices); each slice is accepted whole or
    /// not at all, in order. After an error the first slices may have been accepted.
    ///
    /// # Errors
    /// [`Error`]; the jobs are expected to be checked ([`NewJob::check`]).
    async fn enqueue(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Enqueued>>;

    /// Over how many shards a queue is spread, each of which is a queue of its own ([`Queue::shard`]);
    /// 1: it is not. Where a job goes is [`place`](windlass_jobs::place)'s to say.
    fn shards(&self, _queue: &Queue) -> u16 {
        1
    }
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

    /// Forgets successes and failures older than this, a bounded number of them; answers how
    /// many. Expected once a minute per queue, and again at once after a full slice
    /// ([`TIDY_SLICE`](windlass_jobs::command::TIDY_SLICE)).
    ///
    /// # Errors
    /// [`Error`].
    async fn tidy(&self, queue: &Queue, success: Duration, failure: Duration) -> Result<usize>;

    /// Offers parked jobs of these kinds again, at most 500; answers how many. Expected from a
    /// worker that starts, for the kinds it knows.
    ///
    /// # Errors
    /// [`Error`].
    async fn unpark(&self, queue: &Queue, kinds: &[String]) -> Result<usize>;

    /// Sends [`Wake::Canary`] with this token to a worker's own stream, the way every wake-up goes.
    ///
    /// # Errors
    /// [`Error`].
    async fn canary(&self, worker: &str, token: &str) -> Result<()>;

    /// Registers a worker, or says that it is still there. Expected every 5 s.
    ///
    /// # Errors
    /// [`Error`].
    async fn announce(&self, worker: &WorkerInfo) -> Result<()>;

    /// Publishes kinds into the catalogue, a slice at a time; see
    /// [`KindInfo::replaces`](windlass_jobs::catalogue::KindInfo::replaces) for what becomes of a
    /// kind that is there. Expected when a worker starts, and every
    /// [`PUBLISH_EVERY`](windlass_jobs::catalogue::PUBLISH_EVERY).
    ///
    /// # Errors
    /// [`Error`]; the first slices may have been taken.
    async fn publish(&self, kinds: &[KindInfo]) -> Result<()>;

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
    /// Any queue may have jobs, any job may be cancelled: wake-ups may have been missed.
    All,
    /// This run is to be stopped: its job is cancelled.
    Cancel(Queue, Lease),
    /// What [`Leases::canary`] sent.
    Canary(String),
}

/// Changes what is there, by an operator's hand.
#[async_trait]
pub trait Control: Send + Sync {
    /// Cancels a job: at once where it waits, by telling its worker where it runs.
    ///
    /// # Errors
    /// [`Error`].
    async fn cancel(&self, id: &JobId) -> Result<Cancel>;

    /// While paused nothing of the queue is claimed; all else goes on.
    ///
    /// # Errors
    /// [`Error`].
    async fn pause(&self, queue: &Queue, paused: bool) -> Result<()>;

    /// Bounds how many jobs may wait (pending, scheduled, retrying); an enqueue that would pass it
    /// answers [`Error::QueueFull`]. `None`: any number, the default.
    ///
    /// # Errors
    /// [`Error`].
    async fn set_max_waiting(&self, queue: &Queue, max: Option<u64>) -> Result<()>;

    /// Sets how much of the queue may run and start at once, all limits anew. They hold from the
    /// next claim on; what runs already goes on.
    ///
    /// # Errors
    /// [`Error`]; the limits are expected to be checked ([`Limits::check`]).
    async fn set_limits(&self, queue: &Queue, limits: &Limits) -> Result<()>;

    /// Takes jobs out of the dead set and lets them start anew; one answer per id, in order. Any
    /// number of ids, in slices of [`MAX_CONTROL`](windlass_jobs::command::MAX_CONTROL).
    ///
    /// # Errors
    /// [`Error`]; the first slices may have been done.
    async fn replay(&self, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>>;

    /// Forgets terminal jobs; one answer per id, in order, false where it is not terminal or not
    /// known. Any number of ids, in slices.
    ///
    /// # Errors
    /// [`Error`]; the first slices may have been done.
    async fn delete(&self, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>>;
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

    /// Jobs a filter wants, among the first [`SEARCH_WINDOW`](windlass_jobs::command::SEARCH_WINDOW)
    /// of their list; see [`Model::search`](windlass_jobs::model::Model::search).
    ///
    /// # Errors
    /// [`Error`].
    async fn search(&self, queue: &Queue, filter: &Filter, cursor: u64, limit: usize) -> Result<Found>;

    /// How many jobs of a queue stand where.
    ///
    /// # Errors
    /// [`Error`].
    async fn counts(&self, queue: &Queue) -> Result<Counts>;

    /// The queue's limits.
    ///
    /// # Errors
    /// [`Error`].
    async fn limits(&self, queue: &Queue) -> Result<Limits>;

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

    /// Every kind that workers published, by name, also those whose workers are gone; at most
    /// [`MAX_KINDS`](windlass_jobs::catalogue::MAX_KINDS).
    ///
    /// # Errors
    /// [`Error`].
    async fn kinds(&self) -> Result<Vec<KindInfo>>;

    /// Says something whenever the job may have changed, from now on, until the receiver is
    /// dropped. What is said may be late by 100 ms and may stand for several changes.
    async fn watch(&self, id: &JobId) -> mpsc::UnboundedReceiver<()>;

    /// A round trip to the store.
    ///
    /// # Errors
    /// [`Error`] when it does not answer.
    async fn ping(&self) -> Result<()>;
}

/// Everything a process needs of its queue.
pub trait Broker: Enqueue + Leases + Inspect + Control + Outbox {
    /// Which engine this is: `"redis"`, `"sqlite"`.
    fn engine(&self) -> &'static str;

    /// Rises when another server may answer than before: what the former one accepted last may be
    /// lost with it. 0 where there is only one.
    fn generation(&self) -> u64;
}

/// A broker, whichever engine it is.
pub type SharedBroker = Arc<dyn Broker>;

/// Cuts a text into pieces of at most 64 bytes, so that a hash holding them stays a listpack.
#[cfg(feature = "redis")]
fn pieces(text: &[u8]) -> std::slice::Chunks<'_, u8> {
    text.chunks(64)
}
