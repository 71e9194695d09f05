//! What the queues hold, looked at every few seconds: for the pages that show it live, and as the
//! history behind their charts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use windlass_broker::{Error, SharedBroker};
use windlass_jobs::command::{Counts, WorkerInfo};
use windlass_jobs::{JobId, Queue, State as JobState, Timestamp};

/// The time between two looks at few queues while a page is open.
const EVERY: Duration = Duration::from_secs(2);
/// The same while none is.
const UNSEEN_EVERY: Duration = Duration::from_secs(10);
/// Queues looked at in a second, at most: with a thousand queues the looks are farther apart.
const QUEUES_PER_SECOND: u32 = 50;
/// Looks that are remembered: ten minutes of them at least.
const KEPT: usize = 300;

/// One look.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) at: Timestamp,
    /// By name.
    pub(crate) queues: Vec<QueueSample>,
    pub(crate) workers: Vec<WorkerInfo>,
    /// The queue did not answer; the rest is of the last time it did.
    pub(crate) away: bool,
}

/// One queue in a look.
#[derive(Debug, Clone)]
pub(crate) struct QueueSample {
    pub(crate) name: Queue,
    pub(crate) counts: Counts,
    /// When the job that is next to run was enqueued.
    pub(crate) oldest: Option<Timestamp>,
}

/// What is remembered of a look.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Point {
    pub(super) at: Timestamp,
    /// Ever ended, and of those failed for good.
    ended: u64,
    failed: u64,
    pub(super) waiting: u64,
    pub(super) running: u64,
    /// How long the job that waits longest has waited, in ms.
    pub(super) latency_ms: u64,
}

/// What happened between two looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) at: Timestamp,
    /// Jobs a second.
    pub(super) ended: f64,
    pub(super) failed: f64,
}

impl Sample {
    async fn take(broker: &SharedBroker) -> Result<Self, Error> {
        let mut queues = Vec::new();
        for name in broker.queues().await? {
            let counts = broker.counts(&name).await?;
            let oldest = if counts.pending == 0 { None } else { oldest(broker, &name).await? };
            queues.push(QueueSample { name, counts, oldest });
        }
        Ok(Self { at: Timestamp::now(), queues, workers: broker.workers().await?, away: false })
    }

    /// All queues together.
    pub(super) fn total(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.queues.iter().map(|queue| of(&queue.counts)).sum()
    }

    fn point(&self) -> Point {
        let oldest = self.queues.iter().filter(|queue| !queue.counts.paused).filter_map(|queue| queue.oldest).min();
        let waited = oldest.map_or(Duration::ZERO, |oldest| self.at.since(oldest));
        Point {
            at: self.at,
            ended: self.total(|c| c.success_total + c.failure_total + c.cancelled_total),
            failed: self.total(|c| c.failure_total),
            waiting: self.total(|c| c.pending + c.retrying),
            running: self.total(|c| c.running),
            latency_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// When the pending job that is next to run was enqueued.
async fn oldest(broker: &SharedBroker, queue: &Queue) -> Result<Option<Timestamp>, Error> {
    let head = broker.list(queue, JobState::Pending, 0, 1).await?;
    let Some(ulid) = head.ids.first() else { return Ok(None) };
    Ok(broker.get(&JobId::new(*ulid, queue.clone())).await?.map(|record| record.created_at))
}

/// Looks at the queues until the process stops: often while a page is open, else now and then, so
/// that the first one to look finds a history.
#[derive(Debug)]
pub(super) struct Sampler {
    latest: watch::Sender<Arc<Sample>>,
    history: Mutex<VecDeque<Point>>,
    /// Says that somebody wants a look now.
    wanted: Notify,
}

impl Sampler {
    /// Begins to look; ends with `shutdown`.
    pub(super) fn start(broker: SharedBroker, shutdown: CancellationToken) -> Arc<Self> {
        let sampler = Arc::new(Self {
            latest: watch::Sender::new(Arc::default()),
            history: Mutex::default(),
            wanted: Notify::new(),
        });
        tokio::spawn(look(Arc::clone(&sampler), broker, shutdown));
        sampler
    }

    /// A look of the last seconds.
    pub(super) async fn latest(&self) -> Arc<Sample> {
        let mut looks = self.latest.subscribe();
        let oldest = Timestamp(Timestamp::now().0 - windlass_jobs::millis(EVERY));
        self.wanted.notify_one();
        // Bounded, so that a page is answered although the queue is away.
        let fresh = looks.wait_for(|sample| sample.at > oldest);
        match tokio::time::timeout(EVERY, fresh).await {
            Ok(Ok(sample)) => Arc::clone(&sample),
            // With a thousand queues the looks are farther apart; before the first there is nothing.
            _ => match Arc::clone(&self.latest.borrow()) {
                last if last.at == Timestamp::default() => {
                    Arc::new(Sample { away: true, at: Timestamp::now(), ..Sample::default() })
                }
                last => last,
            },
        }
    }

    /// Says whenever there was a look.
    pub(super) fn looks(&self) -> watch::Receiver<Arc<Sample>> {
        self.wanted.notify_one();
        self.latest.subscribe()
    }

    /// The looks of the last ten minutes, oldest first.
    pub(super) fn history(&self) -> Vec<Point> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Waits until the next look, at least `least` long; false when the process stops.
    async fn pause(&self, least: Duration, shutdown: &CancellationToken) -> bool {
        let next = async {
            tokio::time::sleep(least.max(EVERY)).await;
            if self.latest.receiver_count() == 0 {
                let _ = tokio::time::timeout(UNSEEN_EVERY.saturating_sub(EVERY), self.wanted.notified()).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = next => true,
        }
    }

    fn remember(&self, sample: Sample) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == KEPT {
            history.pop_front();
        }
        history.push_back(sample.point());
        drop(history);
        self.latest.send_replace(Arc::new(sample));
    }
}

/// What happened between the looks of a history. Counters that went back (a queue was emptied)
/// count as nothing.
pub(super) fn rates(history: &[Point]) -> Vec<Rate> {
    let rate = |pair: &[Point]| {
        let [before, after] = pair else { return None };
        let seconds = after.at.since(before.at).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a difference of a few seconds' jobs")]
        let per_second = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        (seconds > 0.0).then(|| Rate {
            at: after.at,
            ended: per_second(before.ended, after.ended),
            failed: per_second(before.failed, after.failed),
        })
    };
    history.windows(2).filter_map(rate).collect()
}

async fn look(sampler: Arc<Sampler>, broker: SharedBroker, shutdown: CancellationToken) {
    // Until nobody else holds it.
    while Arc::strong_count(&sampler) > 1 {
        let taken = tokio::select! {
            () = shutdown.cancelled() => return,
            taken = Sample::take(&broker) => taken,
        };
        let sample = match taken {
            Ok(sample) => sample,
            // Nothing is remembered of a time nobody could look; the pages say that it is so.
            Err(error) => {
                tracing::debug!(error = %crate::problem::chain(&error), "the dashboard waits for the queue");
                let last = Arc::clone(&sampler.latest.borrow());
                sampler.latest.send_replace(Arc::new(Sample { at: Timestamp::now(), away: true, ..(*last).clone() }));
                if sampler.pause(EVERY, &shutdown).await {
                    continue;
                }
                return;
            }
        };
        let queues = u32::try_from(sample.queues.len()).unwrap_or(u32::MAX);
        sampler.remember(sample);
        if !sampler.pause(Duration::from_secs(1) * (queues / QUEUES_PER_SECOND), &shutdown).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_happened_over_the_time_between() {
        let point = |at, ended, failed| Point { at: Timestamp(at), ended, failed, ..Point::default() };
        let seen = rates(&[point(0, 10, 0), point(2000, 14, 1), point(2000, 20, 2), point(4000, 0, 0)]);
        let seen: Vec<_> = seen.iter().map(|r| (r.at.0, r.ended, r.failed)).collect();
        assert_eq!(seen, [(2000, 2.0, 0.5), (4000, 0.0, 0.0)]);
    }
}
