//! The pump: one thread that owns every broker call of a worker.
//!
//! It claims, finishes, renews and announces on a runtime of its own, so that no handler,
//! however busy or blocked, can break a lease. Handlers reach it over a channel; it reaches
//! them over another, the apalis backend's ([`crate::source`]).
//!
//! Delivery is at least once: a reply that is lost after a claim leaves jobs leased to nobody
//! here, and their leases run out; a reply that is lost after a finish makes the finish be
//! sent again, and the fence refuses the second one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use windlass_broker::{SharedBroker, Wake};
use windlass_jobs::command::{
    Ack, Claim, Claimed, Exchange, Exchanged, Finish, KEEP_FAILURE_FOR, KEEP_SUCCESS_FOR, MAX_EXCHANGE, Settle,
    TIDY_SLICE, WorkerInfo,
};
use windlass_jobs::{Lease, Progress, Queue, Timestamp};

use crate::canary::Canary;
use crate::control::{Control, Stop};

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
    Finish { queue: usize, finish: Finish },
    Progress { queue: usize, lease: Lease, progress: Progress },
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
    pub(crate) queues: Vec<Queue>,
    pub(crate) slots: usize,
    pub(crate) lease: Duration,
}

struct Lane {
    queue: Queue,
    outcomes: Vec<Finish>,
    /// Since when the oldest outcome waits.
    waiting_since: Option<Instant>,
    /// The queue may have jobs.
    hot: bool,
    /// Rises with each wake-up, so that an answer older than it does not cool the queue.
    wakes: u64,
    /// A wake-up came while no slot was free: tell another worker.
    pass_on: bool,
    /// When the next scheduled job is due or the next lease ends.
    timer: Option<Instant>,
    /// Not before this after an error.
    retry_at: Option<Instant>,
    failures: u32,
    /// Since when the queue has data, as it last said, and when that was.
    since: Option<Timestamp>,
    heard_at: Timestamp,
    /// When terminal jobs are next forgotten.
    tidy_at: Instant,
    /// Parked jobs of the worker's kinds may be left.
    unpark: bool,
}

struct Running {
    queue: usize,
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
    Said {
        what: &'static str,
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
}

pub(crate) struct Pump {
    broker: SharedBroker,
    options: PumpOptions,
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
    sweep: usize,
    ends: Ends,
    canary: Canary,
    /// The broker's clock, as it last said, and when that was.
    clock: Option<(Timestamp, Instant)>,
    under_way: UnderWay,
}

/// Calls that are not answered yet.
#[derive(Default)]
struct UnderWay {
    last: u64,
    since: Vec<(u64, Instant)>,
}

impl UnderWay {
    fn begin(&mut self) -> u64 {
        self.last += 1;
        self.since.push((self.last, Instant::now()));
        self.last
    }

    fn end(&mut self, call: u64) {
        self.since.retain(|(id, _)| *id != call);
    }

    /// True when a call has gone unanswered for so long that the broker may have stalled.
    fn any_older_than(&self, span: Duration) -> bool {
        self.since.iter().any(|(_, since)| since.elapsed() > span)
    }
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

impl Lane {
    /// A queue whose data is gone, or younger than it was, has lost it: FLUSHALL, a restart
    /// without persistence, a failover to a replica that had nothing.
    fn notice_loss(&mut self, now: Timestamp, since: Option<Timestamp>) {
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

impl Pump {
    pub(crate) fn new(
        broker: SharedBroker,
        options: PumpOptions,
        jobs: mpsc::UnboundedSender<Vec<Job>>,
        canary: Canary,
    ) -> Self {
        let lane = |queue: &Queue| Lane {
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
        };
        Self {
            broker,
            lanes: options.queues.iter().map(lane).collect(),
            options,
            running: HashMap::new(),
            progress: HashMap::new(),
            reserved: 0,
            exchanges: 0,
            calls: FuturesUnordered::new(),
            jobs: Some(jobs),
            cursor: 0,
            sweep: 0,
            ends: Ends::default(),
            canary,
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
        let mut wakes = self.broker.wakes(&self.options.info.name).await;
        let mut renew = ticker(self.options.lease / 3);
        let mut announce = ticker(ANNOUNCE_EVERY);
        let mut sweep = ticker(SWEEP_EVERY);
        let mut write_progress = ticker(PROGRESS_EVERY);
        let mut canary = ticker(Canary::EVERY);
        let mut received = Vec::with_capacity(256);
        loop {
            self.issue();
            if self.is_over() {
                break;
            }
            let sleep = tokio::time::sleep_until(self.next_instant().into());
            tokio::select! {
                biased;
                Some(reply) = self.calls.next(), if !self.calls.is_empty() => self.take_reply(reply),
                n = reports.recv_many(&mut received, 256) => {
                    debug_assert!(n > 0, "handlers hold a sender as long as the pump runs");
                    for report in received.drain(..) {
                        self.take_report(report);
                    }
                }
                Some(wake) = wakes.recv() => self.wake(wake),
                Ok(()) = orders.changed() => self.order(*orders.borrow_and_update()),
                _ = renew.tick() => self.renew(self.options.lease / 4),
                _ = announce.tick() => self.announce(),
                _ = sweep.tick() => self.sweep(),
                _ = canary.tick() => self.send_canary(),
                _ = write_progress.tick(), if !self.progress.is_empty() => self.write_progress(),
                () = sleep => self.timers(),
            }
        }
        if let Err(error) = self.broker.retire(&self.options.info.name).await {
            tracing::debug!(error = %chain(&error), "worker not taken off the list");
        }
    }

    fn free(&self) -> usize {
        self.options.slots.saturating_sub(self.running.len() + self.reserved)
    }

    fn draining(&self) -> bool {
        self.jobs.is_none()
    }

    /// Sends as many exchanges as may be under way.
    fn issue(&mut self) {
        while self.exchanges < MAX_CALLS {
            let Some(index) = self.pick(Instant::now()) else { return };
            self.send_exchange(index);
        }
    }

    /// The next queue that is worth a call, in turn.
    fn pick(&mut self, now: Instant) -> Option<usize> {
        let free = self.free();
        let draining = self.draining();
        let count = self.lanes.len();
        (0..count).map(|i| (self.cursor + i) % count).find(|&i| {
            let lane = &self.lanes[i];
            if lane.retry_at.is_some_and(|at| at > now) {
                return false;
            }
            let want = if lane.hot && !draining { free.min(MAX_EXCHANGE) } else { 0 };
            let ready = lane.outcomes.len();
            if want == 0 && ready == 0 {
                return lane.pass_on && !draining;
            }
            let aged = lane.waiting_since.is_some_and(|since| now.duration_since(since) >= COMPANY);
            self.exchanges == 0 || want.max(ready) >= GOOD_BATCH || aged
        })
    }

    fn send_exchange(&mut self, index: usize) {
        self.cursor = (index + 1) % self.lanes.len();
        let free = self.free();
        let draining = self.draining();
        let lane = &mut self.lanes[index];
        let want = if lane.hot && !draining { free.min(MAX_EXCHANGE) } else { 0 };
        let rest = lane.outcomes.split_off(lane.outcomes.len().min(MAX_EXCHANGE));
        let finishes = std::mem::replace(&mut lane.outcomes, rest);
        if lane.outcomes.is_empty() {
            lane.waiting_since = None;
        }
        let claim = (want > 0 || lane.pass_on).then(|| {
            let sent_at = self.clock.map(|(at, heard)| at.plus(heard.elapsed()));
            let (worker, lease) = (self.options.info.name.clone(), self.options.lease);
            let mut claim = Claim { worker, max: want, lease, grace: lane.failures > 0, sent_at };
            claim.grace |= self.under_way.any_older_than(claim.patience());
            claim
        });
        let call = self.under_way.begin();
        lane.pass_on = false;
        self.reserved += want;
        self.exchanges += 1;
        let (broker, queue, wakes) = (Arc::clone(&self.broker), lane.queue.clone(), lane.wakes);
        self.calls.push(Box::pin(async move {
            let exchange = Exchange { finishes, claim };
            let result = broker.exchange(&queue, &exchange).await;
            Reply::Exchanged { call, lane: index, wakes, asked: want, finishes: exchange.finishes, result }
        }));
    }

    fn take_reply(&mut self, reply: Reply) {
        match reply {
            Reply::Exchanged { call, lane, wakes, asked, finishes, result } => {
                self.under_way.end(call);
                self.exchanges -= 1;
                self.reserved -= asked;
                match result {
                    Ok(exchanged) => self.take_exchanged(lane, wakes, asked, &finishes, exchanged),
                    Err(error) => self.take_exchange_error(lane, finishes, &error),
                }
            }
            Reply::Renewed { call, leases, result } => {
                self.under_way.end(call);
                self.take_renewed(&leases, result);
            }
            Reply::Said { what, result } => {
                if let Err(error) = result {
                    tracing::debug!(error = %chain(&error), "{what} not written");
                }
            }
            Reply::Tidied { lane, result } => {
                let more = result.is_ok_and(|forgotten| forgotten >= TIDY_SLICE);
                self.lanes[lane].tidy_at = Instant::now() + if more { COMPANY } else { TIDY_EVERY };
            }
            Reply::Unparked { lane, result } => match result {
                Ok(0) => {}
                Ok(back) => {
                    tracing::info!(queue = %self.lanes[lane].queue, back, "parked jobs are offered again");
                    self.lanes[lane].unpark = true;
                }
                Err(_) => self.lanes[lane].unpark = true,
            },
        }
    }

    fn take_renewed(&mut self, leases: &[Lease], result: windlass_broker::Result<Vec<Ack>>) {
        match result {
            Ok(acks) => {
                for (lease, ack) in leases.iter().zip(acks) {
                    match ack {
                        Ack::Taken => {}
                        Ack::Stale => self.lose(*lease),
                        Ack::Cancel => self.cancel(*lease),
                    }
                }
            }
            Err(error) => tracing::warn!(error = %chain(&error), "leases not renewed"),
        }
    }

    fn take_exchanged(&mut self, index: usize, wakes: u64, asked: usize, finishes: &[Finish], exchanged: Exchanged) {
        for (finish, ack) in finishes.iter().zip(&exchanged.acks) {
            if *ack == Ack::Stale {
                // Refused, or taken before and the reply lost: either way the job is accounted for.
                tracing::debug!(job = %finish.lease.ulid, epoch = finish.lease.epoch, "finish refused: the lease is not held");
            }
        }
        let now = Instant::now();
        let lane = &mut self.lanes[index];
        if lane.failures > 0 {
            tracing::info!(queue = %lane.queue, "queue answers again");
            lane.failures = 0;
        }
        lane.retry_at = None;
        if exchanged.claimed.len() < asked && lane.wakes == wakes {
            lane.hot = false;
            let next = [exchanged.next_due, exchanged.next_lease].into_iter().flatten().min();
            // A little late rather than a little early: an early question finds nothing.
            lane.timer = next.map(|at| now + at.since(exchanged.now) + COMPANY);
        }
        self.clock = Some((exchanged.now, now));
        lane.notice_loss(exchanged.now, exchanged.since);
        self.canary.came_back();
        self.start(index, exchanged.claimed, now);
    }

    fn start(&mut self, queue: usize, claimed: Vec<Claimed>, now: Instant) {
        if claimed.is_empty() {
            return;
        }
        let mut batch = Vec::with_capacity(claimed.len());
        for claimed in claimed {
            let control = Arc::new(Control::default());
            let running = Running { queue, control: Arc::clone(&control), since: now, lost: false };
            self.running.insert(claimed.lease, running);
            batch.push(Job { queue, claimed, control });
        }
        let unsent = match &self.jobs {
            Some(jobs) => jobs.send(batch).err().map(|e| e.0),
            None => Some(batch),
        };
        for job in unsent.into_iter().flatten() {
            self.finish(queue, Finish { lease: job.claimed.lease, settle: Settle::Release });
        }
    }

    fn take_exchange_error(&mut self, index: usize, mut finishes: Vec<Finish>, error: &windlass_broker::Error) {
        let lane = &mut self.lanes[index];
        finishes.append(&mut lane.outcomes);
        if !finishes.is_empty() {
            lane.waiting_since.get_or_insert_with(Instant::now);
        }
        lane.outcomes = finishes;
        lane.hot = true;
        if lane.failures == 0 {
            tracing::warn!(queue = %lane.queue, error = %chain(error), "queue does not answer");
        }
        lane.failures = lane.failures.saturating_add(1);
        lane.retry_at = Some(Instant::now() + retry_wait(lane.failures));
    }

    fn take_report(&mut self, report: Report) {
        match report {
            Report::Finish { queue, finish } => self.finish(queue, finish),
            Report::Progress { queue, lease, progress } => {
                if self.running.contains_key(&lease) {
                    self.progress.insert(lease, (queue, progress));
                }
            }
        }
    }

    fn finish(&mut self, queue: usize, finish: Finish) {
        self.progress.remove(&finish.lease);
        match self.running.remove(&finish.lease) {
            Some(running) if !running.lost => {
                let lane = &mut self.lanes[queue];
                lane.outcomes.push(finish);
                lane.waiting_since.get_or_insert_with(Instant::now);
            }
            // Lost to another worker, or released when the grace was over.
            _ => {}
        }
    }

    fn lose(&mut self, lease: Lease) {
        if let Some(running) = self.running.get_mut(&lease) {
            tracing::warn!(job = %lease.ulid, queue = %self.lanes[running.queue].queue, "lease lost: the run is stopped");
            running.lost = true;
            running.control.stop(Stop::LeaseLost);
        }
    }

    fn cancel(&mut self, lease: Lease) {
        if let Some(running) = self.running.get(&lease) {
            tracing::info!(job = %lease.ulid, queue = %self.lanes[running.queue].queue, "cancelled on request: the run is stopped");
            running.control.stop(Stop::Cancelled);
        }
    }

    fn wake(&mut self, wake: Wake) {
        match &wake {
            Wake::Canary(token) => {
                if self.canary.hears(token)
                    && let Some(lane) = self.lanes.get_mut(self.sweep)
                {
                    // The second half of the round: a reply to a claim, of whatever size.
                    lane.hot = true;
                    lane.pass_on = true;
                }
                return;
            }
            Wake::Cancel(_, lease) => return self.cancel(*lease),
            // A cancel may have been missed: renewals tell.
            Wake::All => self.renew(Duration::ZERO),
            Wake::Queue(_) => {}
        }
        let full = self.free() == 0;
        for lane in &mut self.lanes {
            let meant = match &wake {
                Wake::All => true,
                Wake::Queue(queue) => *queue == lane.queue,
                Wake::Cancel(..) | Wake::Canary(_) => false,
            };
            if meant {
                lane.hot = true;
                lane.wakes += 1;
                lane.pass_on = full && wake != Wake::All;
            }
        }
    }

    fn order(&mut self, order: StopOrder) {
        let StopOrder::Drain(grace) = order else { return };
        let now = Instant::now();
        self.jobs = None;
        let stop_at = self.ends.stop_at.map_or(now + grace, |at| at.min(now + grace));
        self.ends.stop_at = Some(stop_at);
    }

    /// Renews the leases of runs older than `young`.
    fn renew(&mut self, young: Duration) {
        for index in 0..self.lanes.len() {
            let held = self.running.iter().filter(|(_, r)| r.queue == index && !r.lost && r.since.elapsed() > young);
            let leases: Vec<Lease> = held.map(|(lease, _)| *lease).collect();
            if leases.is_empty() {
                continue;
            }
            let (broker, queue, lease) =
                (Arc::clone(&self.broker), self.lanes[index].queue.clone(), self.options.lease);
            let call = self.under_way.begin();
            self.calls.push(Box::pin(async move {
                let result = broker.renew(&queue, &leases, lease).await;
                Reply::Renewed { call, leases, result }
            }));
        }
    }

    fn announce(&mut self) {
        let mut info = self.options.info.clone();
        info.running = self.running.len();
        let broker = Arc::clone(&self.broker);
        self.calls
            .push(Box::pin(async move { Reply::Said { what: "announcement", result: broker.announce(&info).await } }));
    }

    fn send_canary(&mut self) {
        let token = self.canary.next();
        let (broker, name) = (Arc::clone(&self.broker), self.options.info.name.clone());
        let send = async move { Reply::Said { what: "canary", result: broker.canary(&name, &token).await } };
        self.calls.push(Box::pin(send));
    }

    /// One call for one queue, in turn: forgetting what is old, offering what is parked, or
    /// asking it without a reason. So an idle worker's calls do not grow with its queues.
    fn sweep(&mut self) {
        let index = self.sweep;
        self.sweep = (self.sweep + 1) % self.lanes.len().max(1);
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let now = Instant::now();
        let (broker, queue) = (Arc::clone(&self.broker), lane.queue.clone());
        if std::mem::take(&mut lane.unpark) {
            let kinds = self.options.info.kinds.clone();
            self.calls.push(Box::pin(async move {
                let result = broker.unpark(&queue, &kinds).await;
                Reply::Unparked { lane: index, result }
            }));
        } else if lane.tidy_at <= now {
            lane.tidy_at = now + TIDY_EVERY;
            self.calls.push(Box::pin(async move {
                let result = broker.tidy(&queue, KEEP_SUCCESS_FOR, KEEP_FAILURE_FOR).await;
                Reply::Tidied { lane: index, result }
            }));
        } else {
            lane.hot = true;
        }
    }

    fn write_progress(&mut self) {
        let written: Vec<_> =
            self.progress.drain().map(|(lease, (lane, p))| (self.lanes[lane].queue.clone(), lease, p)).collect();
        let broker = Arc::clone(&self.broker);
        self.calls.push(Box::pin(async move {
            let mut result = Ok(());
            for (queue, lease, progress) in written {
                result = result.and(broker.progress(&queue, lease, &progress).await.map(|_| ()));
            }
            Reply::Said { what: "progress", result }
        }));
    }

    /// What a passed instant brings about.
    fn timers(&mut self) {
        let now = Instant::now();
        for lane in &mut self.lanes {
            if lane.timer.is_some_and(|at| at <= now) {
                lane.timer = None;
                lane.hot = true;
            }
        }
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
        }
    }

    fn next_instant(&self) -> Instant {
        let now = Instant::now();
        let has_room = self.free() > 0 && !self.draining();
        let lanes = self.lanes.iter().flat_map(|lane| {
            let waits = !lane.outcomes.is_empty() || (lane.hot && has_room);
            [
                lane.timer.filter(|_| has_room),
                lane.retry_at.filter(|at| waits && *at > now),
                lane.waiting_since
                    .filter(|_| self.exchanges < MAX_CALLS && lane.retry_at.is_none())
                    .map(|at| at + COMPANY),
            ]
        });
        let ends = [
            self.ends.stop_at.filter(|_| self.ends.release_at.is_none()),
            self.ends.release_at.filter(|_| !self.running.is_empty()),
            self.ends.give_up_at,
        ];
        lanes.chain(ends).flatten().min().unwrap_or(now + Duration::from_secs(3600))
    }

    fn is_over(&self) -> bool {
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
            tracing::error!(
                unwritten,
                "stopping although the queue does not answer: these jobs run again when their leases end"
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

/// 100 ms, doubled with each failure up to 1 s, ±25 %.
fn retry_wait(failures: u32) -> Duration {
    let backoff = windlass_jobs::Backoff::Exponential { base_ms: 100, max_ms: 800 };
    backoff.delay(failures, crate::random())
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
