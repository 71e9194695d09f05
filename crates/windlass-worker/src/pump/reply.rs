//! What the broker answered and what handlers report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_broker::flow::Forwarded;
use windlass_jobs::command::{Ack, Claimed, Exchanged, Finish, Settle, TIDY_SLICE};
use windlass_jobs::{Lease, chain};

use super::{COMPANY, Job, Pump, Reply, Report, Running, SAY_AGAIN, TIDY_EVERY};
use crate::control::{Control, Stop};
use crate::health::RunEnd;

impl Pump {
    pub(super) fn take_reply(&mut self, reply: Reply) {
        match reply {
            Reply::Exchanged { call, lane, wakes, asked, finishes, result } => {
                self.under_way.end(call);
                self.exchanges -= 1;
                self.reserved -= asked;
                self.lanes[lane].reserved -= asked;
                match result {
                    Ok(exchanged) => self.take_exchanged(lane, wakes, asked, &finishes, exchanged),
                    Err(error) => self.take_exchange_error(lane, asked, finishes, &error),
                }
            }
            Reply::Renewed { call, leases, result } => {
                self.under_way.end(call);
                self.take_renewed(&leases, result);
            }
            Reply::Canary { result } => {
                self.canary.was_sent();
                if let Err(error) = result {
                    tracing::debug!(error = %chain(&error), "canary not sent");
                }
            }
            Reply::Published { result } => {
                if let Err(error) = result {
                    tracing::debug!(error = %chain(&error), "kinds not published");
                    // With the next announcement.
                    self.publish_at = Instant::now();
                }
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
            Reply::Forwarded { lane, result } => self.take_forwarded(lane, result),
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

    fn take_forwarded(&mut self, index: usize, result: windlass_broker::Result<Forwarded>) {
        let lane = &mut self.lanes[index];
        lane.forwarding = false;
        let next = match result {
            Ok(Forwarded { more, again, told, .. }) => {
                if !told.is_empty() {
                    let _ = self.options.told.send(told);
                }
                if more { Some(Duration::ZERO) } else { again }
            }
            Err(error) => {
                tracing::warn!(queue = %lane.queue, error = %chain(&error), "what others wait for is not said yet");
                Some(SAY_AGAIN)
            }
        };
        let next = next.map(|after| Instant::now() + after);
        lane.mail = lane.mail.into_iter().chain(next).min();
        self.forward();
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
        self.kept.told(finishes);
        let now = Instant::now();
        let lane = &mut self.lanes[index];
        if lane.failures > 0 {
            tracing::info!(queue = %lane.queue, "queue answers again");
            lane.failures = 0;
        }
        lane.retry_at = None;
        lane.move_back(asked.saturating_sub(exchanged.claimed.len()));
        if exchanged.claimed.len() < asked && lane.wakes == wakes {
            lane.hot = false;
            lane.rested = true;
            let next = [exchanged.next_due, exchanged.next_lease].into_iter().flatten().min();
            // A little late rather than a little early: an early question finds nothing.
            lane.timer = next.map(|at| now + at.since(exchanged.now) + COMPANY);
        }
        if let Some(at) = exchanged.next_message {
            let at = now + at.since(exchanged.now);
            lane.mail = Some(lane.mail.map_or(at, |before| before.min(at)));
        }
        self.clock = Some((exchanged.now, now));
        lane.notice_loss(exchanged.now, exchanged.since);
        self.canary.came_back();
        self.start(index, exchanged.claimed, now);
        self.forward();
    }

    fn start(&mut self, queue: usize, claimed: Vec<Claimed>, now: Instant) {
        if claimed.is_empty() {
            return;
        }
        let mut batch = Vec::with_capacity(claimed.len());
        for claimed in claimed {
            let control = Arc::new(Control::default());
            let kind = claimed.kind.clone();
            let running = Running { queue, kind, control: Arc::clone(&control), since: now, lost: false };
            self.lanes[queue].running += 1;
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

    fn take_exchange_error(
        &mut self,
        index: usize,
        asked: usize,
        mut finishes: Vec<Finish>,
        error: &windlass_broker::Error,
    ) {
        let lane = &mut self.lanes[index];
        lane.move_back(asked);
        finishes.append(&mut lane.outcomes);
        if !finishes.is_empty() {
            lane.waiting_since.get_or_insert_with(Instant::now);
        }
        lane.outcomes = finishes;
        if error.is_retryable() {
            self.kept.keep(&lane.queue, &lane.outcomes);
        }
        lane.hot = true;
        if lane.failures == 0 {
            tracing::warn!(queue = %lane.queue, error = %chain(error), "queue does not answer");
        }
        lane.failures = lane.failures.saturating_add(1);
        lane.retry_at = Some(Instant::now() + retry_wait(lane.failures));
    }

    pub(super) fn take_report(&mut self, report: Report) {
        match report {
            Report::Finish { queue, finish } => self.finish(queue, finish),
            Report::Held { queue, lease, need } => {
                self.lanes[queue].held = Some(need);
                self.finish(queue, Finish { lease, settle: Settle::Release });
            }
            Report::Progress { queue, lease, progress } => {
                if self.running.contains_key(&lease) {
                    self.progress.insert(lease, (queue, progress));
                }
            }
        }
    }

    pub(super) fn finish(&mut self, queue: usize, finish: Finish) {
        self.progress.remove(&finish.lease);
        self.health.ended(RunEnd::of(&finish.settle));
        let removed = self.running.remove(&finish.lease);
        if removed.is_some() {
            self.lanes[queue].running -= 1;
        }
        self.let_held_go();
        match removed {
            Some(running) if !running.lost => {
                let lane = &mut self.lanes[queue];
                lane.outcomes.push(finish);
                lane.waiting_since.get_or_insert_with(Instant::now);
            }
            // Lost to another worker, or released when the grace was over.
            _ => {}
        }
    }

    /// Writes down the ends of runs that wait for a queue that does not answer, of each queue at once.
    pub(super) fn keep_ends(&mut self) {
        for lane in self.lanes.iter().filter(|lane| lane.failures > 0) {
            self.kept.keep(&lane.queue, &lane.outcomes);
        }
    }

    /// Claims again from queues whose first job finds room by now.
    pub(super) fn let_held_go(&mut self) {
        let now = Instant::now();
        for lane in &mut self.lanes {
            if lane.held.as_ref().is_some_and(|need| self.options.admission.has_room(need, now)) {
                lane.held = None;
                lane.hot = true;
            }
        }
    }

    fn lose(&mut self, lease: Lease) {
        if let Some(running) = self.running.get_mut(&lease) {
            tracing::warn!(job = %lease.ulid, queue = %self.lanes[running.queue].queue, "lease lost: the run is stopped");
            running.lost = true;
            running.control.stop(Stop::LeaseLost);
        }
    }

    pub(super) fn cancel(&mut self, lease: Lease) {
        if let Some(running) = self.running.get(&lease) {
            tracing::info!(job = %lease.ulid, queue = %self.lanes[running.queue].queue, "cancelled on request: the run is stopped");
            running.control.stop(Stop::Cancelled);
        }
    }
}

/// 100 ms, doubled with each failure up to 1 s, ±25 %.
fn retry_wait(failures: u32) -> Duration {
    let backoff = windlass_jobs::Backoff::Exponential { base_ms: 100, max_ms: 800 };
    backoff.delay(failures, crate::random())
}
