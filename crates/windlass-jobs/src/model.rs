//! The specification of one queue, as a plain value.
//!
//! Every verb is `(state, command, now) → (state, reply)`: no IO, no clock, no chance. Both
//! engines are compared with it. Where it and an engine differ, one of them is wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::command::{
    Ack, Claim, Claimed, Counts, Enqueued, Exchange, Exchanged, Finish, KEEP_TERMINAL, MAX_EXCHANGE, MAX_PAGE, Page,
    SLICE, Settle, is_poisoned, leaves_news, poisoned_error,
};
use crate::id::{JobId, Lease, Queue, Ulid};
use crate::job::{DEFAULT_MAX_ATTEMPTS, JobRecord, NewJob, Progress, Reason, State, When};
use crate::outcome::RunError;
use crate::time::Timestamp;

/// A queue's whole state.
#[derive(Debug, Clone)]
pub struct Model {
    queue: Queue,
    keep: usize,
    jobs: HashMap<Ulid, Job>,
    /// Front = next to run.
    waiting: [VecDeque<Ulid>; 3],
    due: BTreeSet<(Timestamp, Ulid)>,
    leases: BTreeMap<Lease, Timestamp>,
    /// Front = newest.
    done: VecDeque<Ulid>,
    /// Front = newest.
    dead: VecDeque<Ulid>,
    idle: BTreeSet<String>,
    totals: Counts,
}

#[derive(Debug, Clone)]
struct Job {
    record: JobRecord,
    max_attempts: Option<u32>,
}

impl Model {
    /// An empty queue.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self::keeping(queue, KEEP_TERMINAL)
    }

    /// An empty queue that keeps only `keep` successes and `keep` failures.
    #[must_use]
    pub fn keeping(queue: Queue, keep: usize) -> Self {
        Self {
            queue,
            keep,
            jobs: HashMap::new(),
            waiting: Default::default(),
            due: BTreeSet::new(),
            leases: BTreeMap::new(),
            done: VecDeque::new(),
            dead: VecDeque::new(),
            idle: BTreeSet::new(),
            totals: Counts::default(),
        }
    }

    /// Accepts jobs, all or none. A known id changes nothing.
    ///
    /// Answers what became of each, in order, and the idle worker to wake, if any.
    pub fn enqueue(&mut self, jobs: &[NewJob], now: Timestamp) -> (Vec<Enqueued>, Option<String>) {
        let mut replies = Vec::with_capacity(jobs.len());
        let mut any = false;
        for job in jobs {
            let fresh = !self.jobs.contains_key(&job.ulid);
            if fresh {
                self.accept(job, now);
                any = true;
            }
            replies.push(Enqueued { ulid: job.ulid, fresh });
        }
        let wake = if any { self.idle.pop_first() } else { None };
        (replies, wake)
    }

    fn accept(&mut self, job: &NewJob, now: Timestamp) {
        let run_at = match job.when {
            When::Now => None,
            When::At(at) => Some(at),
            When::After(delay) => Some(now.plus(delay)),
        };
        let run_at = run_at.filter(|at| *at > now);
        let record = JobRecord {
            id: JobId::new(job.ulid, self.queue.clone()),
            kind: job.kind.clone(),
            args: job.args.get().to_owned(),
            state: if run_at.is_some() { State::Scheduled } else { State::Pending },
            reason: None,
            failures: 0,
            max_attempts: job.options.max_attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS),
            epoch: 0,
            deliveries: 0,
            options: job.options.clone(),
            created_at: now,
            run_at,
            started_at: None,
            finished_at: None,
            worker: None,
            progress: None,
            result: None,
            skipped: false,
            error: None,
        };
        self.totals.enqueued_total += 1;
        match run_at {
            Some(at) => {
                self.due.insert((at, job.ulid));
            }
            None => self.waiting[job.options.priority.index()].push_back(job.ulid),
        }
        self.jobs.insert(job.ulid, Job { record, max_attempts: job.options.max_attempts });
    }

    /// Finishes, reaps, promotes and claims, in this order, in one step.
    ///
    /// Answers the reply and the idle worker to wake, if there is news for one ([`leaves_news`]).
    pub fn exchange(&mut self, exchange: &Exchange, now: Timestamp) -> (Exchanged, Option<String>) {
        let mut reply = Exchanged { now, ..Exchanged::default() };
        let mut front = Vec::new();
        for finish in exchange.finishes.iter().take(MAX_EXCHANGE) {
            reply.acks.push(self.finish(finish, now, &mut front));
        }
        if let Some(claim) = &exchange.claim {
            self.reap(now, &mut front);
            self.give_back(front);
            self.promote(now);
            self.claim(claim, now, &mut reply);
        } else {
            self.give_back(front);
        }
        self.trim();
        let waiting = self.waiting.iter().any(|list| !list.is_empty());
        let news = leaves_news(exchange, &reply, waiting, !self.due.is_empty());
        let wake = if news { self.idle.pop_first() } else { None };
        (reply, wake)
    }

    fn finish(&mut self, finish: &Finish, now: Timestamp, front: &mut Vec<Ulid>) -> Ack {
        if self.leases.remove(&finish.lease).is_none() {
            return Ack::Stale;
        }
        let ulid = finish.lease.ulid;
        let Some(job) = self.jobs.get_mut(&ulid) else { return Ack::Stale };
        let record = &mut job.record;
        match &finish.settle {
            Settle::Success { result, skipped } => {
                record.state = State::Success;
                record.result.clone_from(result);
                record.skipped = *skipped;
                record.finished_at = Some(now);
                self.totals.success_total += 1;
                self.done.push_front(ulid);
            }
            Settle::Failure { reason, failures, error } => {
                record.failures = *failures;
                self.bury(ulid, *reason, error, now);
            }
            Settle::Retry { delay, failures, error } => {
                record.failures = *failures;
                record.error = read_error(error);
                self.totals.retried_total += 1;
                self.put_off(ulid, State::Retrying, *delay, now);
            }
            Settle::Snooze { delay } => self.put_off(ulid, State::Scheduled, *delay, now),
            Settle::Cancelled { error } => {
                record.state = State::Cancelled;
                record.error = read_error(error);
                record.finished_at = Some(now);
                self.totals.cancelled_total += 1;
                self.done.push_front(ulid);
            }
            Settle::Release => {
                record.deliveries -= 1;
                front.push(ulid);
            }
        }
        Ack::Taken
    }

    fn bury(&mut self, ulid: Ulid, reason: Reason, error: &str, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&ulid) else { return };
        job.record.state = State::Failure;
        job.record.reason = Some(reason);
        job.record.error = read_error(error);
        job.record.finished_at = Some(now);
        self.totals.failure_total += 1;
        self.dead.push_front(ulid);
    }

    fn put_off(&mut self, ulid: Ulid, state: State, delay: Duration, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&ulid) else { return };
        let run_at = now.plus(delay);
        job.record.state = state;
        job.record.deliveries -= 1;
        job.record.run_at = Some(run_at);
        job.record.progress = None;
        self.due.insert((run_at, ulid));
    }

    fn reap(&mut self, now: Timestamp, front: &mut Vec<Ulid>) {
        let mut expired: Vec<(Timestamp, Lease)> =
            self.leases.iter().filter(|(_, until)| **until <= now).map(|(lease, until)| (*until, *lease)).collect();
        expired.sort_by_key(|(until, lease)| (*until, lease.to_string()));
        for (_, lease) in expired.into_iter().take(SLICE) {
            self.leases.remove(&lease);
            self.totals.expired_leases_total += 1;
            let Some(job) = self.jobs.get(&lease.ulid) else { continue };
            if is_poisoned(job.record.deliveries) {
                let worker = job.record.worker.clone().unwrap_or_default();
                let error = poisoned_error(&worker, job.record.deliveries);
                self.bury(lease.ulid, Reason::Poisoned, &error, now);
            } else {
                front.push(lease.ulid);
            }
        }
    }

    /// Puts jobs back before all that wait, the first of them first.
    fn give_back(&mut self, front: Vec<Ulid>) {
        for ulid in front.into_iter().rev() {
            let Some(job) = self.jobs.get_mut(&ulid) else { continue };
            job.record.state = State::Pending;
            job.record.progress = None;
            self.waiting[job.record.options.priority.index()].push_front(ulid);
        }
    }

    fn promote(&mut self, now: Timestamp) {
        for _ in 0..SLICE {
            let Some((at, ulid)) = self.due.first().copied().filter(|(at, _)| *at <= now) else { break };
            self.due.remove(&(at, ulid));
            let Some(job) = self.jobs.get_mut(&ulid) else { continue };
            job.record.state = State::Pending;
            job.record.run_at = None;
            self.waiting[job.record.options.priority.index()].push_back(ulid);
        }
    }

    fn claim(&mut self, claim: &Claim, now: Timestamp, reply: &mut Exchanged) {
        let max = claim.max.min(MAX_EXCHANGE);
        while reply.claimed.len() < max {
            let Some(ulid) = self.waiting.iter_mut().find_map(VecDeque::pop_front) else { break };
            let Some(job) = self.jobs.get_mut(&ulid) else { continue };
            let record = &mut job.record;
            record.state = State::Running;
            record.epoch += 1;
            record.deliveries += 1;
            record.started_at = Some(now);
            record.worker = Some(claim.worker.clone());
            let lease = Lease { ulid, epoch: record.epoch };
            self.leases.insert(lease, now.plus(claim.lease));
            reply.claimed.push(Claimed {
                lease,
                kind: record.kind.clone(),
                args: record.args.clone(),
                failures: record.failures,
                max_attempts: job.max_attempts,
                deliveries: record.deliveries,
                options: record.options.to_short(),
            });
        }
        if reply.claimed.len() < max {
            self.idle.insert(claim.worker.clone());
            reply.next_due = self.due.first().map(|(at, _)| *at);
            reply.next_lease = self.leases.values().min().copied();
        }
    }

    fn trim(&mut self) {
        for list in [&mut self.done, &mut self.dead] {
            while list.len() > self.keep {
                if let Some(ulid) = list.pop_back() {
                    self.jobs.remove(&ulid);
                }
            }
        }
    }

    /// Moves the end of each held lease to `now + lease`; answers one ack per lease.
    pub fn renew(&mut self, leases: &[Lease], lease: Duration, now: Timestamp) -> Vec<Ack> {
        let renew = |held: &Lease| match self.leases.get_mut(held) {
            Some(until) => {
                *until = now.plus(lease);
                Ack::Taken
            }
            None => Ack::Stale,
        };
        leases.iter().map(renew).collect()
    }

    /// Writes a running job's progress.
    pub fn progress(&mut self, lease: Lease, progress: &Progress) -> Ack {
        match self.jobs.get_mut(&lease.ulid).filter(|_| self.leases.contains_key(&lease)) {
            Some(job) => {
                job.record.progress = Some(progress.clone());
                Ack::Taken
            }
            None => Ack::Stale,
        }
    }

    /// One job.
    #[must_use]
    pub fn get(&self, ulid: Ulid) -> Option<JobRecord> {
        self.jobs.get(&ulid).map(|job| job.record.clone())
    }

    /// One page of the jobs in a state, from `cursor` (0 or [`Page::next`]). Successes and
    /// cancelled jobs share one list, as do scheduled and retrying ones.
    #[must_use]
    pub fn list(&self, state: State, cursor: u64, limit: usize) -> Page {
        let all: Vec<Ulid> = match state {
            State::Pending => self.waiting.iter().flatten().copied().collect(),
            State::Scheduled | State::Retrying => self.due.iter().map(|(_, ulid)| *ulid).collect(),
            State::Running => {
                let mut running: Vec<_> =
                    self.leases.iter().map(|(lease, until)| (*until, lease.to_string(), lease.ulid)).collect();
                running.sort();
                running.into_iter().map(|(_, _, ulid)| ulid).collect()
            }
            State::Success | State::Cancelled => self.done.iter().copied().collect(),
            State::Failure => self.dead.iter().copied().collect(),
        };
        let start = usize::try_from(cursor).unwrap_or(usize::MAX).min(all.len());
        let end = start.saturating_add(limit.min(MAX_PAGE)).min(all.len());
        Page { ids: all[start..end].to_vec(), next: (end < all.len()).then(|| u64::try_from(end).unwrap_or(u64::MAX)) }
    }

    /// How many jobs stand where.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let len = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let retrying = self
            .due
            .iter()
            .filter(|(_, ulid)| self.jobs.get(ulid).is_some_and(|j| j.record.state == State::Retrying))
            .count();
        Counts {
            pending: self.waiting.iter().map(|list| len(list.len())).sum(),
            scheduled: len(self.due.len() - retrying),
            retrying: len(retrying),
            running: len(self.leases.len()),
            dead: len(self.dead.len()),
            ..self.totals
        }
    }
}

fn read_error(text: &str) -> Option<RunError> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue::new("q").unwrap()
    }

    fn claim(max: usize) -> Exchange {
        Exchange { finishes: vec![], claim: Some(Claim { worker: "w".into(), max, lease: Duration::from_secs(30) }) }
    }

    fn jobs(n: usize) -> Vec<NewJob> {
        (0..n).map(|i| NewJob::new("noop", &i).unwrap()).collect()
    }

    #[test]
    fn a_stale_epoch_is_refused_alone() {
        let mut model = Model::new(queue());
        model.enqueue(&jobs(2), Timestamp(0));
        let (first, _) = model.exchange(&claim(2), Timestamp(0));
        // Both leases expire; both jobs are claimed again.
        let (second, _) = model.exchange(&claim(1), Timestamp(40_000));
        assert_eq!(second.claimed[0].lease.epoch, 2);
        let done = |lease| Finish { lease, settle: Settle::Success { result: None, skipped: false } };
        let finishes = vec![done(first.claimed[0].lease), done(second.claimed[0].lease), done(first.claimed[1].lease)];
        let (reply, _) = model.exchange(&Exchange { finishes, claim: None }, Timestamp(40_001));
        assert_eq!(reply.acks, [Ack::Stale, Ack::Taken, Ack::Stale]);
    }

    #[test]
    fn a_job_whose_lease_expires_three_times_is_poisoned() {
        let mut model = Model::new(queue());
        model.enqueue(&jobs(1), Timestamp(0));
        for run in 0..3 {
            let (reply, _) = model.exchange(&claim(1), Timestamp(run * 30_000));
            assert_eq!(reply.claimed.len(), 1);
        }
        let (reply, _) = model.exchange(&claim(1), Timestamp(90_000));
        assert!(reply.claimed.is_empty());
        let record = model.get(model.dead[0]).unwrap();
        assert_eq!((record.state, record.reason), (State::Failure, Some(Reason::Poisoned)));
    }

    #[test]
    fn a_release_costs_neither_attempt_nor_delivery_and_keeps_the_order() {
        let mut model = Model::new(queue());
        let all = jobs(4);
        model.enqueue(&all, Timestamp(0));
        for _ in 0..10 {
            let (reply, _) = model.exchange(&claim(3), Timestamp(0));
            let order: Vec<Ulid> = reply.claimed.iter().map(|c| c.lease.ulid).collect();
            assert_eq!(order, all[..3].iter().map(|j| j.ulid).collect::<Vec<_>>());
            assert!(reply.claimed.iter().all(|c| c.deliveries == 1 && c.failures == 0));
            let finishes = reply.claimed.iter().map(|c| Finish { lease: c.lease, settle: Settle::Release }).collect();
            model.exchange(&Exchange { finishes, claim: None }, Timestamp(0));
        }
    }
}
