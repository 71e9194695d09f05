//! One queue as the pump sees it, and the calls that are under way.

use std::time::{Duration, Instant};

use windlass_jobs::command::Finish;
use windlass_jobs::{Queue, Timestamp};

use super::TIDY_EVERY;
use crate::admission::Need;
use crate::worker::Share;

/// What the pump knows of one queue.
pub(super) struct Lane {
    pub(super) queue: Queue,
    pub(super) outcomes: Vec<Finish>,
    /// Since when the oldest outcome waits.
    pub(super) waiting_since: Option<Instant>,
    /// The queue may have jobs.
    pub(super) hot: bool,
    /// Rises with each wake-up, so that an answer older than it does not cool the queue.
    pub(super) wakes: u64,
    /// A wake-up came while no slot was free: tell another worker.
    pub(super) pass_on: bool,
    /// When the next scheduled job is due or the next lease ends.
    pub(super) timer: Option<Instant>,
    /// Not before this after an error.
    pub(super) retry_at: Option<Instant>,
    pub(super) failures: u32,
    /// Since when the queue has data, as it last said, and when that was.
    pub(super) since: Option<Timestamp>,
    pub(super) heard_at: Timestamp,
    /// When terminal jobs are next forgotten.
    pub(super) tidy_at: Instant,
    /// Parked jobs of the worker's kinds may be left.
    pub(super) unpark: bool,
    /// How many of the worker's slots it may have.
    pub(super) slots: usize,
    /// How many slots it has, and how many are promised to its claims under way.
    pub(super) running: usize,
    pub(super) reserved: usize,
    /// Its part of the worker beside other queues that have jobs.
    pub(super) weight: usize,
    /// How far its claims have moved it on, in jobs over weight; the least is next.
    pub(super) place: f64,
    /// What its priorities are owed of claims, where those are weighted.
    pub(super) credit: [f64; 3],
    /// It had nothing to do since its last turn.
    pub(super) rested: bool,
    /// When it has something to say to other queues; none while that is being said.
    pub(super) mail: Option<Instant>,
    /// It is being said.
    pub(super) forwarding: bool,
    /// The job at its head found no room here; nothing is claimed until there is some.
    pub(super) held: Option<Need>,
}

impl Lane {
    /// A queue that may have anything.
    pub(super) fn new(queue: &Queue, share: Share) -> Self {
        Self {
            queue: queue.clone(),
            outcomes: Vec::new(),
            waiting_since: None,
            hot: true,
            wakes: 0,
            pass_on: false,
            timer: None,
            retry_at: None,
            failures: 0,
            since: None,
            heard_at: Timestamp::default(),
            tidy_at: Instant::now() + TIDY_EVERY,
            unpark: true,
            slots: share.slots.unwrap_or(usize::MAX),
            running: 0,
            reserved: 0,
            weight: share.weight.max(1) as usize,
            place: 0.0,
            credit: [0.0; 3],
            rested: true,
            mail: None,
            forwarding: false,
            held: None,
        }
    }

    /// Its turn has given it a number of jobs.
    #[expect(clippy::cast_precision_loss, reason = "at most 128 jobs, and weights of at most 1,000")]
    pub(super) fn move_on(&mut self, jobs: usize) {
        self.place += jobs as f64 / self.weight as f64;
    }

    /// It got fewer jobs than its turn was charged for.
    #[expect(clippy::cast_precision_loss, reason = "at most 128 jobs, and weights of at most 1,000")]
    pub(super) fn move_back(&mut self, jobs: usize) {
        self.place -= jobs as f64 / self.weight as f64;
    }

    /// A queue whose data is gone, or younger than it was, has lost it: FLUSHALL, a restart
    /// without persistence, a failover to a replica that had nothing.
    pub(super) fn notice_loss(&mut self, now: Timestamp, since: Option<Timestamp>) {
        // Replies of calls that were under way together may come in any order.
        if now < self.heard_at {
            return;
        }
        self.heard_at = now;
        if let Some(before) = self.since
            && since.is_none_or(|since| since > before)
        {
            tracing::error!(queue = %self.queue, %before, event = "queue_data_lost", "the queue has lost its data");
        }
        self.since = since;
    }
}

/// Calls that are not answered yet.
#[derive(Default)]
pub(super) struct UnderWay {
    last: u64,
    since: Vec<(u64, Instant)>,
}

impl UnderWay {
    pub(super) fn begin(&mut self) -> u64 {
        self.last += 1;
        self.since.push((self.last, Instant::now()));
        self.last
    }

    pub(super) fn end(&mut self, call: u64) {
        self.since.retain(|(id, _)| *id != call);
    }

    /// True when a call has gone unanswered for so long that the broker may have stalled.
    pub(super) fn any_older_than(&self, span: Duration) -> bool {
        self.since.iter().any(|(_, since)| since.elapsed() > span)
    }
}
