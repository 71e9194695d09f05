//! What is asked of a broker and what it answers, as plain values.
//!
//! The model and both engines speak these types; [`crate::model`] says what each means.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::durability::Durability;
use crate::id::{JobId, Lease, Queue, Ulid};
use crate::job::{MAX_DELIVERIES, NewJob, Options, Reason, State};
use crate::time::Timestamp;

/// Most jobs one enqueue call of an engine takes; producers cut larger batches.
pub const MAX_ENQUEUE: usize = 250;
/// Most jobs that the jobs of one such call wait for, together, unless it is a single one.
pub const MAX_EDGES: usize = 1_000;
/// Most finishes, and most claims, in one exchange.
pub const MAX_EXCHANGE: usize = 128;
/// Most jobs promoted, and most reaped, in one exchange.
pub const SLICE: usize = 100;
/// Terminal jobs kept per queue, successes (with cancelled ones) and failures each.
pub const KEEP_TERMINAL: usize = 100_000;
/// Most entries one page of a list answers.
pub const MAX_PAGE: usize = 500;
/// Most jobs one slice of a replay, delete or unpark touches.
pub const MAX_CONTROL: usize = 500;
/// Most jobs of each list that one tidy touches.
pub const TIDY_SLICE: usize = 250;
/// How long successes and cancelled jobs are kept, within [`KEEP_TERMINAL`].
pub const KEEP_SUCCESS_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long failures are kept, within [`KEEP_TERMINAL`].
pub const KEEP_FAILURE_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a job of a kind that no worker knows is offered before it is parked.
pub const PARK_AFTER: Duration = Duration::from_secs(15 * 60);
/// Most jobs taken off the waiting lists by one exchange, those included that turn out to be
/// expired or cancelled.
pub const MAX_LOOKED_AT: usize = 256;

/// Cuts jobs into slices, in order, each of which one enqueue call of an engine takes:
/// [`MAX_ENQUEUE`] jobs and [`MAX_EDGES`] dependencies at most.
pub fn slices(mut jobs: &[NewJob]) -> impl Iterator<Item = &[NewJob]> {
    let edges = |job: &NewJob| job.options.depends_on.as_ref().map_or(0, |after| after.parents.len());
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = |job: &&NewJob| {
            sum += edges(job);
            sum <= MAX_EDGES
        };
        let end = jobs.iter().take(MAX_ENQUEUE).take_while(fits).count().max(1).min(jobs.len());
        let (slice, rest) = jobs.split_at(end);
        jobs = rest;
        (!slice.is_empty()).then_some(slice)
    })
}

/// What became of one enqueued job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// The job.
    pub ulid: Ulid,
    /// False when it was not accepted: its id was known, and nothing was changed, or there is
    /// a clash.
    pub fresh: bool,
    /// Another job holds its unique key.
    pub clash: Option<Clash>,
    /// What was reached of the durability that it asks for.
    pub durability: Durability,
}

/// The job that holds a unique key, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clash {
    /// The job that stands for the one that was not accepted.
    pub with: Ulid,
    /// True when it took over the new one's kind, args and options.
    pub replaced: bool,
}

impl Enqueued {
    /// Accepted.
    #[must_use]
    pub const fn fresh(ulid: Ulid) -> Self {
        Self { ulid, fresh: true, clash: None, durability: Durability::Fast }
    }

    /// Known before: nothing was changed.
    #[must_use]
    pub const fn known(ulid: Ulid) -> Self {
        Self { ulid, fresh: false, clash: None, durability: Durability::Fast }
    }
}

/// How a run ended, in the broker's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settle {
    /// Done; the result as JSON text, if there is one.
    Success {
        /// The result.
        result: Option<String>,
        /// There was nothing to do.
        skipped: bool,
    },
    /// Will not be done: to the dead set.
    Failure {
        /// Why.
        reason: Reason,
        /// Failed runs, this one included.
        failures: u32,
        /// The error as JSON text.
        error: String,
    },
    /// Failed; to be run again after a wait.
    Retry {
        /// The wait.
        delay: Duration,
        /// Failed runs, this one included.
        failures: u32,
        /// The error as JSON text.
        error: String,
    },
    /// Put off without an attempt.
    Snooze {
        /// The wait.
        delay: Duration,
    },
    /// No longer wanted.
    Cancelled {
        /// Why, as JSON text of an error.
        error: String,
    },
    /// Given back unstarted or unfinished: to the front of its list, no attempt spent.
    Release,
    /// This worker does not know the kind: left to others for a while, no attempt spent; parked
    /// when nobody knew it for `park_after`.
    Unknown {
        /// The wait.
        delay: Duration,
        /// From the first time on.
        park_after: Duration,
    },
}

impl Settle {
    /// True when the job would run again: a requested cancel then ends it instead.
    #[must_use]
    pub const fn runs_again(&self) -> bool {
        matches!(self, Self::Retry { .. } | Self::Snooze { .. } | Self::Release | Self::Unknown { .. })
    }
}

/// One finish: whose lease, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// The fence.
    pub lease: Lease,
    /// How it ended.
    pub settle: Settle,
}

/// A worker's wish for jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who asks: `[A-Za-z0-9_-]{1,32}`.
    pub worker: String,
    /// Free slots, 0–[`MAX_EXCHANGE`]. With 0 nothing is claimed and the wake-up is passed on.
    pub max: usize,
    /// How long a claimed job stays claimed without a renewal.
    pub lease: Duration,
    /// The worker had lost the broker: leases are not ended for one `lease` from now, so that
    /// live workers renew first. Heard at most once in three leases.
    pub grace: bool,
    /// When it was sent, by the broker's clock as the worker reckons it from earlier replies. One
    /// that comes too late ([`Claim::is_heard`]) lay before a broker that stalled: nobody waits for
    /// its answer, and ending leases on its word would end those of workers that could not renew.
    pub sent_at: Option<Timestamp>,
    /// Of each priority up to so many first, as long as there are as many; what is left of `max`
    /// goes to the highest that waits, as all of it does for `None`. See
    /// [`PriorityWeights`](crate::PriorityWeights).
    pub quotas: Option<[usize; 3]>,
}

impl Claim {
    /// In which order priorities are claimed: each with how many jobs may be claimed in all when it
    /// is done with, of `most`.
    pub fn rounds(&self, most: usize) -> impl Iterator<Item = (usize, usize)> {
        let quotas = self.quotas.map(|quotas| [0, 1, 2].map(|p| (p, quotas[p])));
        let strict = [0, 1, 2].map(|p| (p, most));
        quotas.into_iter().flatten().chain(strict)
    }

    /// How late a claim may come: an eighth of the lease, at least 250 ms. With renewals every
    /// third of a lease, a stall that lets leases run out makes every claim sent before it late.
    #[must_use]
    pub fn patience(&self) -> Duration {
        (self.lease / 8).max(Duration::from_millis(250))
    }

    /// False when it came too late to be acted on: nothing is ended, promoted or claimed for it,
    /// and the worker is told to ask again.
    #[must_use]
    pub fn is_heard(&self, now: Timestamp) -> bool {
        self.sent_at.is_none_or(|at| now.since(at) <= self.patience())
    }
}

/// Finishes and a claim in one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// At most [`MAX_EXCHANGE`].
    pub finishes: Vec<Finish>,
    /// None: only finish.
    pub claim: Option<Claim>,
}

/// Whether a fenced write was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Taken.
    Taken,
    /// Refused: the lease is not, or no longer, held under this epoch.
    Stale,
    /// Taken, and the job is to be cancelled (answered to renewals only).
    Cancel,
}

/// What became of a wish to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// It was waiting and is cancelled.
    Done,
    /// It is running: its worker is told, and it will not run again.
    Requested,
    /// It had ended before.
    Ended(State),
    /// It is not known.
    Unknown,
}

/// A job a worker got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The job and its fence.
    pub lease: Lease,
    /// What is to be done; `""` when the job's record is damaged.
    pub kind: String,
    /// With what, as JSON text.
    pub args: String,
    /// Failed runs before this one.
    pub failures: u32,
    /// Runs at most; `None`: the kind's own.
    pub max_attempts: Option<u32>,
    /// Claims that did not end in order, this one included.
    pub deliveries: u32,
    /// Options in their short form; see [`Options::read_short`].
    pub options: String,
}

/// The answer to an [`Exchange`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchanged {
    /// The broker's clock.
    pub now: Timestamp,
    /// One per finish, in order.
    pub acks: Vec<Ack>,
    /// What was claimed, first to be run first.
    pub claimed: Vec<Claimed>,
    /// When the next scheduled or retrying job is due; now, when jobs were left that were not
    /// looked at. Set only when fewer jobs than asked for were found: the worker then sets a
    /// timer for it.
    pub next_due: Option<Timestamp>,
    /// When the next lease ends; set as `next_due` is.
    pub next_lease: Option<Timestamp>,
    /// Since when the queue has data: the first job it accepted. One that is gone, or later
    /// than before, means that the store lost its data.
    pub since: Option<Timestamp>,
    /// When the first message of the queue's outbox is to be carried over.
    pub next_message: Option<Timestamp>,
}

/// How many jobs of a queue stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Waiting for a worker, now.
    pub pending: u64,
    /// Waiting for their time, now.
    pub scheduled: u64,
    /// Waiting their backoff, now.
    pub retrying: u64,
    /// Running, now.
    pub running: u64,
    /// In the dead set, now.
    pub dead: u64,
    /// Held because no worker knows their kind, now.
    pub parked: u64,
    /// Held until the jobs they depend on have ended, now; their state is scheduled.
    #[serde(default)]
    pub blocked: u64,
    /// Nothing is claimed while true.
    #[serde(default)]
    pub paused: bool,
    /// Most jobs that may wait (pending, scheduled, retrying, blocked).
    #[serde(default)]
    pub max_waiting: Option<u64>,
    /// Ever enqueued.
    pub enqueued_total: u64,
    /// Ever succeeded.
    pub success_total: u64,
    /// Ever failed for good.
    pub failure_total: u64,
    /// Ever cancelled.
    pub cancelled_total: u64,
    /// Runs that failed and were retried, ever.
    pub retried_total: u64,
    /// Leases that expired, ever.
    pub expired_leases_total: u64,
}

impl Counts {
    /// Jobs that are not terminal.
    #[must_use]
    pub const fn unfinished(&self) -> u64 {
        self.pending + self.scheduled + self.retrying + self.running + self.parked + self.blocked
    }
}

/// Most entries of a list that a search looks at, from its start.
pub const SEARCH_WINDOW: u64 = 10_000;

/// Which jobs of a queue a search wants: all that is said must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Where they stand, exactly.
    pub state: State,
    /// Of the pending ones, those that are held because no worker knows their kind; they stand in
    /// a list of their own. Nothing is found in another state.
    pub parked: bool,
    /// What they do.
    pub kind: Option<String>,
    /// Labels they carry.
    pub labels: std::collections::BTreeMap<String, String>,
}

impl Filter {
    /// All jobs in a state.
    #[must_use]
    pub const fn of(state: State) -> Self {
        Self { state, parked: false, kind: None, labels: std::collections::BTreeMap::new() }
    }
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order of [`Page::ids`], at most as many as asked for.
    pub ids: Vec<Ulid>,
    /// Where to go on; `None` when the list, or the window, is at its end.
    pub next: Option<u64>,
    /// The list goes on behind the window: there may be more that were not looked at.
    pub beyond: bool,
}

/// One page of a list of ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The jobs, at most as many as asked for: waiting ones next to run first, running ones next to expire first, due ones
    /// next to run first, terminal ones newest first.
    pub ids: Vec<Ulid>,
    /// Where the next page starts; `None` on the last.
    pub next: Option<u64>,
}

/// A worker as it announces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// `[A-Za-z0-9_-]{1,32}`, unique per process start.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// The queues it serves.
    pub queues: Vec<Queue>,
    /// The kinds it knows.
    pub kinds: Vec<String>,
    /// How many jobs it runs at once.
    pub slots: usize,
    /// How many it runs now.
    pub running: usize,
    /// What it has run longest, at most [`WorkerInfo::MAX_JOBS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<RunningJob>,
    /// How long ago, in ms, it last proved that it can fetch; `None` before the first time.
    #[serde(default)]
    pub canary_age_ms: Option<u64>,
    /// It was told to stop and finishes what it has.
    #[serde(default)]
    pub draining: bool,
    /// When it started.
    pub started_at: Timestamp,
    /// When it last announced itself; written by the broker's clock.
    pub seen_at: Timestamp,
    /// The program's version.
    pub version: String,
}

/// A job a worker runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningJob {
    /// The job.
    pub id: JobId,
    /// What it does.
    pub kind: String,
    /// For how long, in ms, when the worker said so.
    pub running_ms: u64,
}

impl WorkerInfo {
    /// How many running jobs an announcement names at most.
    pub const MAX_JOBS: usize = 20;
    /// A worker not heard of for this long counts as gone.
    pub const GONE_AFTER: Duration = Duration::from_secs(15);
}

/// How a job whose lease expired goes on: policy, decided once for model and engines.
#[must_use]
pub const fn is_poisoned(deliveries: u32) -> bool {
    deliveries >= MAX_DELIVERIES
}

/// Whether an exchange leaves something another idle worker should hear of: jobs that wait, or a
/// due time nobody may know. A worker that goes idle itself was answered both.
///
/// `waiting`: jobs wait after it; `due`: scheduled or retrying jobs are there after it.
#[must_use]
pub fn leaves_news(exchange: &Exchange, reply: &Exchanged, waiting: bool, due: bool) -> bool {
    let max = exchange.claim.as_ref().map(|claim| claim.max);
    if max.is_some_and(|max| reply.claimed.len() < max) {
        return false;
    }
    let put_off = |(finish, ack): (&Finish, &Ack)| *ack == Ack::Taken && finish.settle.runs_again();
    let unknown_due = || max == Some(0) || exchange.finishes.iter().zip(&reply.acks).any(put_off);
    waiting || (due && unknown_due())
}

/// The error kept with a job cancelled on request, as JSON text.
pub const CANCELLED_ERROR: &str = r#"{"code":"cancelled","message":"cancelled on request"}"#;
/// The error kept with a job that was not started in time, as JSON text.
pub const EXPIRED_ERROR: &str = r#"{"code":"expired","message":"not started before its expiry"}"#;

/// The error kept with a poisoned job, as JSON text.
#[must_use]
pub fn poisoned_error(worker: &str, deliveries: u32) -> String {
    let message = format!("its lease expired {deliveries} times, last with worker {worker}");
    serde_json::json!({ "code": "poisoned", "message": message }).to_string()
}

/// The runs a job may have: its own word, else the kind's.
#[must_use]
pub fn effective_max_attempts(job: Option<u32>, kind: u32) -> u32 {
    job.unwrap_or(kind).max(1)
}

/// The state a fresh job starts in.
#[must_use]
pub const fn first_state(run_at: Option<Timestamp>) -> State {
    if run_at.is_some() { State::Scheduled } else { State::Pending }
}

/// Options of a claimed job, decoded.
///
/// # Errors
/// A sentence that names the word that cannot be read.
pub fn decode_options(claimed: &Claimed) -> Result<Options, String> {
    let mut options = Options { max_attempts: claimed.max_attempts, ..Options::default() };
    options.read_short(&claimed.options)?;
    Ok(options)
}
