//! The pump: one thread that owns every broker call of a worker.
//!
//! It claims, finishes, renews and announces on a runtime of its own, so that no handler,
//! however busy or blocked, can break a lease. Handlers reach it over a channel; it reaches
//! them over another, the apalis backend's ([`crate::source`]).
//!
//! Delivery is at least once: a reply that is lost after a claim leaves jobs leased to nobody
//! here, and their leases run out; a reply that is lost after a finish makes the finish be
//! sent again, and the fence refuses the second one.

mod chores;
mod claim;
mod lane;
mod reply;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use windlass_broker::SharedBroker;
use windlass_broker::flow::Forwarded;
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::command::{Ack, Claimed, Exchanged, Finish, Settle, WorkerInfo};
use windlass_jobs::{JobId, Lease, PriorityWeights, Progress, Queue, Timestamp, chain};

use crate::admission::{Admission, Need};
use crate::canary::Canary;
use crate::control::{Control, Stop};
use crate::health::Health;
use crate::kept::Kept;
use crate::worker::Share;
use lane::{Lane, UnderWay};

/// Exchanges in flight at once.
const MAX_CALLS: usize = 3;
/// A batch this large is sent although another is under way.
const GOOD_BATCH: usize = 64;
/// How long outcomes wait for company.
const COMPANY: Duration = Duration::from_millis(1);
/// How often the worker says that it is there.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);
/// How often one queue is asked without a reason, in turn.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often terminal jobs past their time are forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// How often is looked whether a held queue has room, beside when a run ends.
const HELD_LOOK_EVERY: Duration = Duration::from_secs(1);
/// After how long is tried again to say something to another queue.
const SAY_AGAIN: Duration = Duration::from_secs(1);
/// How often progress is written at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// How long a run that was told to stop has to say so before its job is released for it.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long finished results wait for an unreachable broker when the worker stops.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// A claimed job on its way to a handler.
#[derive(Debug)]
pub(crate) struct Job {
    /// Index of its queue among the worker's.
    pub(crate) queue: usize,
    pub(crate) claimed: Claimed,
    pub(crate) control: Arc<Control>,
}

/// What handlers tell the pump.
#[derive(Debug)]
pub(crate) enum Report {
    Finish {
        queue: usize,
        finish: Finish,
    },
    Progress {
        queue: usize,
        lease: Lease,
        progress: Progress,
    },
    /// The job found no room beside its slot: it was not started.
    Held {
        queue: usize,
        lease: Lease,
        need: Need,
    },
}

/// When to stop: told by the process, heard by the pump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopOrder {
    Run,
    /// Claim nothing more; end when all is done, or when this time is over.
    Drain(Duration),
}

/// What the pump needs to know.
#[derive(Debug, Clone)]
pub(crate) struct PumpOptions {
    pub(crate) info: WorkerInfo,
    /// The names of the kinds it knows, aliases included.
    pub(crate) known: Vec<String>,
    /// What it publishes about them.
    pub(crate) catalogue: Vec<KindInfo>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) slots: usize,
    /// How much of the worker each queue may have, in the order of `queues`.
    pub(crate) shares: Vec<Share>,
    pub(crate) admission: Arc<Admission>,
    /// How priorities share its claims; `None`: strictly.
    pub(crate) priorities: Option<PriorityWeights>,
    pub(crate) lease: Duration,
    /// Hears of jobs that were told of the success of one they depend on.
    pub(crate) told: mpsc::UnboundedSender<Vec<(JobId, JobId)>>,
    /// Where ends of runs are kept that the broker could not be told of.
    pub(crate) kept_dir: Option<PathBuf>,
}

struct Running {
    queue: usize,
    kind: String,
    control: Arc<Control>,
    since: Instant,
    lost: bool,
}

enum Reply {
    Exchanged {
        call: u64,
        lane: usize,
        wakes: u64,
        asked: usize,
        finishes: Vec<Finish>,
        result: windlass_broker::Result<Exchanged>,
    },
    Renewed {
        call: u64,
        leases: Vec<Lease>,
        result: windlass_broker::Result<Vec<Ack>>,
    },
    /// The broker has a canary, or does not.
    Canary {
        result: windlass_broker::Result<()>,
    },
    Said {
        what: &'static str,
        result: windlass_broker::Result<()>,
    },
    /// The catalogue has the worker's kinds, or does not.
    Published {
        result: windlass_broker::Result<()>,
    },
    Tidied {
        lane: usize,
        result: windlass_broker::Result<usize>,
    },
    Unparked {
        lane: usize,
        result: windlass_broker::Result<usize>,
    },
    /// What the queue had to say to others was said.
    Forwarded {
        lane: usize,
        result: windlass_broker::Result<Forwarded>,
    },
}

pub(crate) struct Pump {
    broker: SharedBroker,
    options: PumpOptions,
    kept: Kept,
    lanes: Vec<Lane>,
    running: HashMap<Lease, Running>,
    progress: HashMap<Lease, (usize, Progress)>,
    /// Slots promised to claims under way.
    reserved: usize,
    exchanges: usize,
    calls: FuturesUnordered<BoxFuture<'static, Reply>>,
    /// Where jobs go; gone once the worker drains.
    jobs: Option<mpsc::UnboundedSender<Vec<Job>>>,
    cursor: usize,
    /// Where the queue stood that had the last turn.
    turn: f64,
    sweep: usize,
    ends: Ends,
    canary: Canary,
    health: Health,
    /// When its kinds are published next.
    publish_at: Instant,
    /// The broker's clock, as it last said, and when that was.
    clock: Option<(Timestamp, Instant)>,
    under_way: UnderWay,
}

/// The stations of a stop.
#[derive(Default)]
struct Ends {
    /// Runs are told to stop.
    stop_at: Option<Instant>,
    /// Runs that did not answer are released.
    release_at: Option<Instant>,
    /// Whatever could not be written is left to the leases.
    give_up_at: Option<Instant>,
}

impl Pump {
    pub(crate) fn new(
        broker: SharedBroker,
        options: PumpOptions,
        jobs: mpsc::UnboundedSender<Vec<Job>>,
        health: Health,
    ) -> Self {
        Self {
            broker,
            kept: Kept::new(options.kept_dir.clone()),
            lanes: options.queues.iter().zip(&options.shares).map(|(queue, share)| Lane::new(queue, *share)).collect(),
            options,
            running: HashMap::new(),
            progress: HashMap::new(),
            reserved: 0,
            exchanges: 0,
            calls: FuturesUnordered::new(),
            jobs: Some(jobs),
            cursor: 0,
            turn: 0.0,
            sweep: 0,
            ends: Ends::default(),
            canary: Canary::new(health.clone()),
            health,
            publish_at: Instant::now(),
            clock: None,
            under_way: UnderWay::default(),
        }
    }

    /// Runs until a drain is ordered and over.
    pub(crate) async fn run(
        mut self,
        mut reports: mpsc::UnboundedReceiver<Report>,
        mut orders: watch::Receiver<StopOrder>,
    ) {
        let _guard = self.health.pump_guard();
        let mut wakes = self.broker.wakes(&self.options.info.name).await;
        let mut renew = ticker(self.options.lease / 3);
        let mut announce = ticker(ANNOUNCE_EVERY);
        let mut sweep = ticker(SWEEP_EVERY);
        let mut write_progress = ticker(PROGRESS_EVERY);
        let mut canary = ticker(Canary::HURRY);
        let mut received = Vec::with_capacity(256);
        loop {
            self.issue();
            if self.is_over() {
                break;
            }
            self.health.runs(self.running.len());
            let sleep = tokio::time::sleep_until(self.next_instant().into());
            tokio::select! {
                biased;
                Some(reply) = self.calls.next(), if !self.calls.is_empty() => self.take_reply(reply),
                n = reports.recv_many(&mut received, 256) => {
                    debug_assert!(n > 0, "handlers hold a sender as long as the pump runs");
                    for report in received.drain(..) {
                        self.take_report(report);
                    }
                    self.keep_ends();
                }
                Some(wake) = wakes.recv() => self.wake(wake),
                Ok(()) = orders.changed() => self.order(*orders.borrow_and_update()),
                _ = renew.tick() => self.renew(self.options.lease / 4),
                _ = announce.tick() => self.announce(),
                _ = sweep.tick() => self.sweep(),
                _ = canary.tick() => if self.canary.is_due(Instant::now()) { self.send_canary() },
                _ = write_progress.tick(), if !self.progress.is_empty() => self.write_progress(),
                () = sleep => self.timers(),
            }
        }
        // A call that is under way may hold what the last one waits for, and an announcement must
        // not come after it.
        let last = async { while self.calls.next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS, last).await;
        self.calls.clear();
        if let Err(error) = self.broker.retire(&self.options.info.name).await {
            tracing::debug!(error = %chain(&error), "worker not taken off the list");
        }
    }

    fn order(&mut self, order: StopOrder) {
        let StopOrder::Drain(grace) = order else { return };
        let now = Instant::now();
        if self.jobs.take().is_some() {
            self.health.drains();
            self.announce();
        }
        let stop_at = self.ends.stop_at.map_or(now + grace, |at| at.min(now + grace));
        self.ends.stop_at = Some(stop_at);
    }

    /// What a passed instant brings about.
    fn timers(&mut self) {
        let now = Instant::now();
        self.let_held_go();
        for lane in &mut self.lanes {
            if lane.timer.is_some_and(|at| at <= now) {
                lane.timer = None;
                lane.hot = true;
            }
        }
        self.forward();
        if self.ends.stop_at.is_some_and(|at| at <= now) && self.ends.release_at.is_none() {
            for running in self.running.values() {
                running.control.stop(Stop::Shutdown);
            }
            self.ends.release_at = Some(now + LAST_WORDS);
            self.ends.give_up_at = Some(now + LAST_WORDS + LAST_FLUSH);
        }
        if self.ends.release_at.is_some_and(|at| at <= now) {
            let silent: Vec<(Lease, usize)> = self.running.iter().map(|(lease, r)| (*lease, r.queue)).collect();
            for (lease, queue) in silent {
                self.finish(queue, Finish { lease, settle: Settle::Release });
            }
            self.keep_ends();
        }
    }

    fn next_instant(&self) -> Instant {
        let now = Instant::now();
        let has_room = self.free() > 0 && !self.draining();
        let lanes = self.lanes.iter().flat_map(|lane| {
            let waits = !lane.outcomes.is_empty() || (lane.hot && has_room);
            [
                lane.timer.filter(|_| has_room),
                lane.mail.filter(|_| !lane.forwarding),
                lane.retry_at.filter(|at| waits && *at > now),
                lane.waiting_since
                    .filter(|_| self.exchanges < MAX_CALLS && lane.retry_at.is_none())
                    .map(|at| at + COMPANY),
            ]
        });
        // Room that is kept for another job is kept for some time only.
        let held = self.lanes.iter().any(|lane| lane.held.is_some()).then(|| now + HELD_LOOK_EVERY);
        let ends = [
            held,
            self.ends.stop_at.filter(|_| self.ends.release_at.is_none()),
            self.ends.release_at.filter(|_| !self.running.is_empty()),
            self.ends.give_up_at,
        ];
        lanes.chain(ends).flatten().min().unwrap_or(now + Duration::from_secs(3600))
    }

    fn is_over(&mut self) -> bool {
        if !self.draining() {
            return false;
        }
        let written = self.lanes.iter().all(|lane| lane.outcomes.is_empty()) && self.exchanges == 0;
        if self.running.is_empty() && written {
            return true;
        }
        let over = self.ends.give_up_at.is_some_and(|at| at <= Instant::now());
        if over {
            let unwritten: usize = self.lanes.iter().map(|lane| lane.outcomes.len()).sum();
            for lane in &self.lanes {
                self.kept.keep(&lane.queue, &lane.outcomes);
            }
            let kept = self.kept.len();
            tracing::error!(
                unwritten,
                kept,
                "stopping although the queue does not answer: of these jobs those that are kept are told of when a \
                 worker starts here, the others run again when their leases end"
            );
        }
        over
    }
}

/// A tick that is late is not made up for.
fn ticker(every: Duration) -> tokio::time::Interval {
    let mut ticker = tokio::time::interval(every.max(Duration::from_millis(1)));
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticker
}
