//! Who leads, and what time it is: one call to the store a second answers both.
//!
//! The clock is the store's: between two calls it is carried on by this host's monotonic clock,
//! which nobody can set. It lags by at most the time of one reply, so that nothing is early.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use windlass_jobs::{Timestamp, new_ulid};
use windlass_store::records::{self, Fence, Lead, Records, Snapshot};

use crate::state::{SCHEDULES, SPACE, STATES};

/// How long a leader that is not heard of leads on.
pub(crate) const TTL: Duration = Duration::from_millis(2_500);
/// How often the lease is renewed, and asked for.
const EVERY: Duration = Duration::from_millis(700);
/// A leader stops so long before its lease ends: its last writes are on their way then.
const MARGIN: Duration = Duration::from_millis(300);
/// After an error it is asked again this soon.
const AGAIN: Duration = Duration::from_millis(200);

/// What this process knows of the lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Set while this process leads, by the last answer.
    pub(crate) fence: Option<Fence>,
    /// Until when that holds, by this host's monotonic clock.
    pub(crate) valid_until: Option<Instant>,
    /// The version of the schedules.
    pub(crate) version: u64,
    /// Who leads; `""` when nobody does or it is not known.
    pub(crate) holder: String,
    /// The store has answered, and has what it should have.
    pub(crate) heard: bool,
    /// How often it had lost everything and was seeded by this process.
    pub(crate) seeded: u64,
}

impl Standing {
    /// The fence, while it surely holds.
    pub(crate) fn leads(&self) -> Option<&Fence> {
        self.fence.as_ref().filter(|_| self.valid_until.is_some_and(|until| Instant::now() < until))
    }
}

/// The store's clock, carried on by this host's.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreClock(Arc<Mutex<Option<(Timestamp, Instant)>>>);

impl StoreClock {
    /// Takes in an answer that came after `took`: the store's clock shows `now` to `now + took`.
    /// What is carried on stays while it lies within, so that a slow answer sets nothing back.
    fn set(&self, now: Timestamp, took: Duration) {
        let carried = self.now();
        if carried.is_none_or(|at| at < now || at > now.plus(took)) {
            *self.lock() = Some((now, Instant::now()));
        }
    }

    /// Now; `None` before the first answer.
    pub(crate) fn now(&self) -> Option<Timestamp> {
        self.lock().map(|(at, since)| at.plus(since.elapsed()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Timestamp, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for the lease, again and again, until it is stopped.
pub(crate) struct LeaseTask {
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) clock: StoreClock,
    task: JoinHandle<()>,
    records: Arc<dyn Records>,
}

impl LeaseTask {
    pub(crate) fn start(records: Arc<dyn Records>, snapshot: Option<Snapshot>) -> Self {
        let (sender, standing) = watch::channel(Standing::default());
        let clock = StoreClock::default();
        let asker = Asker {
            who: format!("sched-{}", new_ulid()),
            records: Arc::clone(&records),
            clock: clock.clone(),
            snapshot,
            copied_at: None,
            silent_since: None,
            seeded: 0,
        };
        let task = tokio::spawn(asker.run(sender));
        Self { standing, clock, task, records }
    }

    /// Stops asking and gives the lease back, so that another takes over at once.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        let fence = self.standing.borrow().fence.clone();
        if let Some(fence) = fence
            && let Err(e) = self.records.resign(SPACE, &fence).await
        {
            tracing::debug!(error = %e, "the lease ends by itself");
        }
    }
}

impl Drop for LeaseTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Asker {
    who: String,
    records: Arc<dyn Records>,
    clock: StoreClock,
    snapshot: Option<Snapshot>,
    copied_at: Option<tokio::time::Instant>,
    silent_since: Option<Instant>,
    seeded: u64,
}

impl Asker {
    async fn run(mut self, sender: watch::Sender<Standing>) {
        loop {
            let pause = match self.ask(&sender).await {
                Ok(()) => EVERY,
                Err(e) => {
                    if self.silent_since.is_none() {
                        tracing::warn!(error = %chain(&e), "schedules: the store does not answer");
                        self.silent_since = Some(Instant::now());
                    }
                    AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask(&mut self, sender: &watch::Sender<Standing>) -> windlass_store::Result<()> {
        let asked_at = Instant::now();
        let lead = self.records.lead(SPACE, &self.who, TTL).await?;
        self.clock.set(lead.meta.now, asked_at.elapsed());
        if let Some(since) = self.silent_since.take() {
            tracing::info!(silent_ms = since.elapsed().as_millis(), "schedules: the store answers again");
        }
        let lead = self.look_after_copy(lead).await?;
        let was = sender.borrow().clone();
        if was.fence != lead.fence {
            match &lead.fence {
                Some(fence) => tracing::info!(who = self.who, epoch = fence.epoch, "scheduler_leads"),
                None => tracing::info!(leader = lead.holder, "scheduler_follows"),
            }
        }
        let valid_until = lead.fence.as_ref().map(|_| asked_at + TTL - MARGIN);
        let standing = Standing {
            fence: lead.fence,
            valid_until,
            version: lead.meta.version,
            holder: lead.holder,
            heard: true,
            seeded: self.seeded,
        };
        sender.send_replace(standing);
        Ok(())
    }

    /// Restores what the store lost, and copies what is new.
    async fn look_after_copy(&mut self, lead: Lead) -> windlass_store::Result<Lead> {
        let Some(snapshot) = &self.snapshot else { return Ok(lead) };
        let before = lead.meta.clone();
        let meta = snapshot.look_after(self.records.as_ref(), lead.meta.clone(), &mut self.copied_at).await?;
        if meta == before {
            return Ok(lead);
        }
        self.seeded += 1;
        self.records.lead(SPACE, &self.who, TTL).await
    }
}

/// Keeps a copy of the schedules of a process that runs no scheduler, and seeds an empty store from
/// it, until the handle is aborted.
#[must_use]
pub fn keep_copy(records: Arc<dyn Records>, file: &std::path::Path) -> JoinHandle<()> {
    records::keep_copy(records, Snapshot::open(file, SPACE, &[SCHEDULES, STATES]))
}

/// An error with all its sources on one line.
pub(crate) use windlass_jobs::chain;
