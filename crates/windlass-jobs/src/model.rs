//! The specification of one queue, as a plain value.
//!
//! Every verb is `(state, command, now) → (state, reply)`: no IO, no clock, no chance. Both
//! engines are compared with it. Where it and an engine differ, one of them is wrong.

mod claim;
mod enqueue;
mod flow;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::attempts::{End, push};
use crate::command::{
    Ack, CANCELLED_ERROR, Cancel, Claim, Counts, Exchange, Exchanged, Filter, Finish, Found, KEEP_TERMINAL,
    MAX_CONTROL, MAX_EXCHANGE, MAX_PAGE, Page, SEARCH_WINDOW, SLICE, Settle, TIDY_SLICE, is_poisoned, leaves_news,
    poisoned_error,
};
use crate::id::{JobId, Lease, Queue, Ulid};
use crate::job::{JobRecord, Progress, Reason, State};
use crate::lanes::Lanes;
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
    /// By the time of failure.
    dead: BTreeSet<(Timestamp, Ulid)>,
    parked: BTreeSet<Ulid>,
    idle: BTreeSet<String>,
    totals: Counts,
    /// Since when there is data.
    since: Option<Timestamp>,
    /// No lease is ended before this.
    reap_after: Timestamp,
    /// When grace was last given.
    graced_at: Option<Timestamp>,
    /// Who holds a unique key.
    uniques: HashMap<String, Hold>,
    /// Whose turn it is among the lanes.
    lanes: Lanes,
    /// The jobs that wait in each lane, front = next; no lane is empty.
    laned: BTreeMap<String, VecDeque<Ulid>>,
    /// Jobs that wait for others, by the time before which they may not run.
    blocked: BTreeSet<(Timestamp, Ulid)>,
    /// What is to be said to other queues, and when.
    outbox: BTreeMap<String, Timestamp>,
}

#[derive(Debug, Clone)]
struct Job {
    record: JobRecord,
    max_attempts: Option<u32>,
    /// Epochs whose lease was ended, and whose worker has not proved alive since.
    lost: BTreeSet<u32>,
    /// When a worker first did not know its kind.
    unknown_since: Option<Timestamp>,
    /// The jobs it still waits for.
    open: BTreeSet<JobId>,
}

/// A unique key's holder, until it ends, starts, or the time is over.
#[derive(Debug, Clone, Copy)]
struct Hold {
    ulid: Ulid,
    until: Timestamp,
}

/// More jobs would wait than the queue may hold; nothing was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// How many may wait.
    pub max_waiting: u64,
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
            dead: BTreeSet::new(),
            parked: BTreeSet::new(),
            idle: BTreeSet::new(),
            totals: Counts::default(),
            since: None,
            reap_after: Timestamp::default(),
            graced_at: None,
            uniques: HashMap::new(),
            lanes: Lanes::default(),
            laned: BTreeMap::new(),
            blocked: BTreeSet::new(),
            outbox: BTreeMap::new(),
        }
    }

    /// Finishes, reaps, promotes and claims, in this order, in one step.
    ///
    /// Answers the reply and the idle worker to wake, if there is news for one ([`leaves_news`]).
    pub fn exchange(&mut self, exchange: &Exchange, now: Timestamp) -> (Exchanged, Option<String>) {
        if exchange.claim.as_ref().is_some_and(|claim| !claim.is_heard(now)) {
            let finishes = exchange.finishes.clone();
            let (mut reply, wake) = self.exchange(&Exchange { finishes, claim: None }, now);
            reply.next_due = Some(now);
            return (reply, wake);
        }
        let mut reply = Exchanged { now, since: self.since, ..Exchanged::default() };
        let mut front = Vec::new();
        for finish in exchange.finishes.iter().take(MAX_EXCHANGE) {
            let ack = self.finish(finish, now, &mut front);
            if ack == Ack::Taken {
                self.run_ended(finish.lease.ulid, now);
            }
            reply.acks.push(ack);
        }
        if let Some(claim) = &exchange.claim {
            self.grant_grace(claim, now);
            self.reap(now, &mut front);
            self.give_back(front);
            self.promote(now);
            self.claim(claim, now, &mut reply);
        } else {
            self.give_back(front);
        }
        self.trim();
        reply.next_message = self.outbox.values().min().copied();
        let waiting = self.any_waiting();
        let news = !self.totals.paused && leaves_news(exchange, &reply, waiting, !self.due.is_empty());
        let wake = if news { self.idle.pop_first() } else { None };
        (reply, wake)
    }

    fn finish(&mut self, finish: &Finish, now: Timestamp, front: &mut Vec<Ulid>) -> Ack {
        let ulid = finish.lease.ulid;
        if self.leases.remove(&finish.lease).is_none() {
            self.prove_alive(finish.lease);
            return Ack::Stale;
        }
        let Some(job) = self.jobs.get_mut(&ulid) else { return Ack::Stale };
        if finish.settle.runs_again() {
            job.record.deliveries -= 1;
            if job.record.cancel_requested {
                self.end_cancelled(ulid, CANCELLED_ERROR, now);
                return Ack::Taken;
            }
        }
        let record = &mut job.record;
        record.cancel_requested = false;
        match &finish.settle {
            Settle::Success { result, skipped } => {
                record.state = State::Success;
                record.result.clone_from(result);
                record.skipped = *skipped;
                record.finished_at = Some(now);
                self.totals.success_total += 1;
                self.done.push_front(ulid);
                self.ended(ulid, now);
            }
            Settle::Failure { reason, failures, error } => {
                record.failures = *failures;
                self.bury(ulid, *reason, error, now);
            }
            Settle::Retry { delay, failures, error } => {
                record.failures = *failures;
                record.error = read_error(error);
                remember(record, End::Retried, now);
                self.totals.retried_total += 1;
                self.put_off(ulid, State::Retrying, *delay, now);
            }
            Settle::Snooze { delay } => self.put_off(ulid, State::Scheduled, *delay, now),
            Settle::Cancelled { error } => self.end_cancelled(ulid, error, now),
            Settle::Release => front.push(ulid),
            Settle::Unknown { delay, park_after } => {
                let since = *job.unknown_since.get_or_insert(now);
                if now.since(since) >= *park_after {
                    record.state = State::Pending;
                    record.progress = None;
                    self.parked.insert(ulid);
                } else {
                    self.put_off(ulid, State::Scheduled, *delay, now);
                }
            }
        }
        Ack::Taken
    }

    /// A worker whose lease was ended speaks: it was alive, so that delivery was no crash.
    fn prove_alive(&mut self, lease: Lease) {
        if let Some(job) = self.jobs.get_mut(&lease.ulid)
            && !job.record.state.is_terminal()
            && job.lost.remove(&lease.epoch)
        {
            job.record.deliveries = job.record.deliveries.saturating_sub(1);
        }
    }

    fn bury(&mut self, ulid: Ulid, reason: Reason, error: &str, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&ulid) else { return };
        job.record.state = State::Failure;
        job.record.reason = Some(reason);
        job.record.error = read_error(error);
        job.record.finished_at = Some(now);
        self.totals.failure_total += 1;
        self.dead.insert((now, ulid));
        self.ended(ulid, now);
    }

    fn end_cancelled(&mut self, ulid: Ulid, error: &str, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&ulid) else { return };
        job.record.state = State::Cancelled;
        job.record.cancel_requested = false;
        job.record.run_at = None;
        job.record.error = read_error(error);
        job.record.finished_at = Some(now);
        self.totals.cancelled_total += 1;
        self.done.push_front(ulid);
        self.ended(ulid, now);
    }

    fn put_off(&mut self, ulid: Ulid, state: State, delay: Duration, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&ulid) else { return };
        let run_at = now.plus(delay);
        job.record.state = state;
        job.record.run_at = Some(run_at);
        job.record.progress = None;
        self.due.insert((run_at, ulid));
    }

    fn grant_grace(&mut self, claim: &Claim, now: Timestamp) {
        let rested = self.graced_at.is_none_or(|at| now.since(at) >= claim.lease * 3);
        if claim.grace && rested {
            self.graced_at = Some(now);
            self.reap_after = now.plus(claim.lease);
        }
    }

    fn reap(&mut self, now: Timestamp, front: &mut Vec<Ulid>) {
        if now < self.reap_after {
            return;
        }
        let mut expired: Vec<(Timestamp, Lease)> =
            self.leases.iter().filter(|(_, until)| **until <= now).map(|(lease, until)| (*until, *lease)).collect();
        expired.sort_by_key(|(until, lease)| (*until, lease.to_string()));
        for (_, lease) in expired.into_iter().take(SLICE) {
            self.leases.remove(&lease);
            self.totals.expired_leases_total += 1;
            let Some(job) = self.jobs.get_mut(&lease.ulid) else { continue };
            job.lost.insert(lease.epoch);
            if job.record.cancel_requested {
                self.end_cancelled(lease.ulid, CANCELLED_ERROR, now);
            } else if is_poisoned(job.record.deliveries) {
                let worker = job.record.worker.clone().unwrap_or_default();
                let error = poisoned_error(&worker, job.record.deliveries);
                self.bury(lease.ulid, Reason::Poisoned, &error, now);
            } else {
                remember(&mut job.record, End::Lost, now);
                front.push(lease.ulid);
            }
            self.run_ended(lease.ulid, now);
        }
    }

    /// Puts jobs back before all that wait, the first of them first.
    fn give_back(&mut self, front: Vec<Ulid>) {
        for ulid in front.into_iter().rev() {
            let Some(job) = self.jobs.get_mut(&ulid) else { continue };
            job.record.state = State::Pending;
            job.record.progress = None;
            self.wait_first(ulid);
        }
    }

    fn promote(&mut self, now: Timestamp) {
        for _ in 0..SLICE {
            let Some((at, ulid)) = self.due.first().copied().filter(|(at, _)| *at <= now) else { break };
            self.due.remove(&(at, ulid));
            self.join_queue(ulid);
        }
    }

    /// Puts a job behind all that wait.
    fn join_queue(&mut self, ulid: Ulid) {
        let Some(job) = self.jobs.get_mut(&ulid) else { return };
        job.record.state = State::Pending;
        job.record.run_at = None;
        self.wait_last(ulid);
    }

    fn trim(&mut self) {
        while self.done.len() > self.keep {
            if let Some(ulid) = self.done.pop_back() {
                self.jobs.remove(&ulid);
            }
        }
        while self.dead.len() > self.keep {
            if let Some((_, ulid)) = self.dead.pop_first() {
                self.jobs.remove(&ulid);
            }
        }
    }

    /// Forgets terminal jobs past their time, the oldest [`TIDY_SLICE`] of each list at most;
    /// answers how many.
    pub fn tidy(&mut self, success: Duration, failure: Duration, now: Timestamp) -> usize {
        let mut gone = Vec::new();
        for ulid in self.done.iter().rev().take(TIDY_SLICE) {
            let at = self.jobs.get(ulid).and_then(|job| job.record.finished_at);
            if at.is_some_and(|at| now.since(at) < success) {
                break;
            }
            gone.push(*ulid);
        }
        self.done.truncate(self.done.len() - gone.len());
        let old = self.dead.iter().take(TIDY_SLICE).take_while(|(at, _)| now.since(*at) >= failure).copied();
        for entry in old.collect::<Vec<_>>() {
            self.dead.remove(&entry);
            gone.push(entry.1);
        }
        for ulid in &gone {
            self.jobs.remove(ulid);
        }
        gone.len()
    }

    /// Moves the end of each held lease to `now + lease`; answers one ack per lease.
    pub fn renew(&mut self, leases: &[Lease], lease: Duration, now: Timestamp) -> Vec<Ack> {
        let mut acks = Vec::with_capacity(leases.len());
        for held in leases {
            acks.push(match self.leases.get_mut(held) {
                Some(until) => {
                    *until = now.plus(lease);
                    let cancel = self.jobs.get(&held.ulid).is_some_and(|job| job.record.cancel_requested);
                    if cancel { Ack::Cancel } else { Ack::Taken }
                }
                None => {
                    self.prove_alive(*held);
                    Ack::Stale
                }
            });
        }
        acks
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

    /// Cancels a job: at once where it waits, by its worker where it runs. In the latter case
    /// the worker to tell is answered too.
    pub fn cancel(&mut self, ulid: Ulid, now: Timestamp) -> (Cancel, Option<(String, Lease)>) {
        let Some(job) = self.jobs.get_mut(&ulid) else { return (Cancel::Unknown, None) };
        let record = &mut job.record;
        match record.state {
            State::Running => {
                record.cancel_requested = true;
                let lease = Lease { ulid, epoch: record.epoch };
                return (Cancel::Requested, record.worker.clone().map(|worker| (worker, lease)));
            }
            State::Scheduled | State::Retrying => {
                let at = record.run_at.unwrap_or_default();
                self.due.remove(&(at, ulid));
                self.blocked.remove(&(at, ulid));
            }
            State::Pending => {
                self.parked.remove(&ulid);
                self.waiting.iter_mut().for_each(|list| list.retain(|waiting| *waiting != ulid));
                self.laned.values_mut().for_each(|jobs| jobs.retain(|waiting| *waiting != ulid));
                self.laned.retain(|_, jobs| !jobs.is_empty());
            }
            ended => return (Cancel::Ended(ended), None),
        }
        if let Some(lane) = self.lane(ulid) {
            self.lanes.let_go(&lane, ulid, now);
        }
        self.end_cancelled(ulid, CANCELLED_ERROR, now);
        self.trim();
        (Cancel::Done, None)
    }

    /// While paused nothing is claimed; everything else goes on. Answers the idle worker to wake
    /// after a resume.
    pub fn pause(&mut self, paused: bool) -> Option<String> {
        self.totals.paused = paused;
        if !paused && self.any_waiting() { self.idle.pop_first() } else { None }
    }

    /// Bounds how many jobs may wait (pending, scheduled, retrying); `None`: any number.
    pub fn set_max_waiting(&mut self, max: Option<u64>) {
        self.totals.max_waiting = max;
    }

    /// Takes jobs out of the dead set and lets them start anew, behind all that wait, with all
    /// their attempts. Answers for each whether it was there, and the idle worker to wake.
    pub fn replay(&mut self, ulids: &[Ulid]) -> (Vec<bool>, Option<String>) {
        let mut any = false;
        let mut replay = |ulid: &Ulid| {
            let Some(job) = self.jobs.get_mut(ulid).filter(|job| job.record.state == State::Failure) else {
                return false;
            };
            let record = &mut job.record;
            self.dead.remove(&(record.finished_at.unwrap_or_default(), *ulid));
            if let Some((reason, at)) = record.reason.zip(record.finished_at) {
                remember(record, End::Failed(reason), at);
            }
            (record.reason, record.finished_at, record.expires_at) = (None, None, None);
            (record.failures, record.deliveries, record.progress) = (0, 0, None);
            job.lost.clear();
            job.unknown_since = None;
            any = true;
            self.join_queue(*ulid);
            true
        };
        let replies = ulids.iter().take(MAX_CONTROL).map(&mut replay).collect();
        let wake = if any { self.idle.pop_first() } else { None };
        (replies, wake)
    }

    /// Forgets terminal jobs. Answers for each whether it was one.
    pub fn delete(&mut self, ulids: &[Ulid]) -> Vec<bool> {
        let mut delete = |ulid: &Ulid| {
            let Some(job) = self.jobs.get(ulid).filter(|job| job.record.state.is_terminal()) else { return false };
            self.dead.remove(&(job.record.finished_at.unwrap_or_default(), *ulid));
            self.done.retain(|done| done != ulid);
            self.jobs.remove(ulid);
            true
        };
        ulids.iter().take(MAX_CONTROL).map(&mut delete).collect()
    }

    /// Offers parked jobs of these kinds again, oldest first, [`MAX_CONTROL`] at most; answers how
    /// many, and the idle worker to wake.
    pub fn unpark(&mut self, kinds: &[String]) -> (usize, Option<String>) {
        let known = |ulid: &&Ulid| self.jobs.get(*ulid).is_some_and(|job| kinds.contains(&job.record.kind));
        let back: Vec<Ulid> = self.parked.iter().filter(known).take(MAX_CONTROL).copied().collect();
        for ulid in &back {
            self.parked.remove(ulid);
            if let Some(job) = self.jobs.get_mut(ulid) {
                job.unknown_since = None;
            }
            self.join_queue(*ulid);
        }
        let wake = if back.is_empty() { None } else { self.idle.pop_first() };
        (back.len(), wake)
    }

    /// One job.
    #[must_use]
    pub fn get(&self, ulid: Ulid) -> Option<JobRecord> {
        self.jobs.get(&ulid).map(|job| job.record.clone())
    }

    /// One page of the jobs in a state, from `cursor` (0 or [`Page::next`]). Successes and
    /// cancelled jobs share one list, as do scheduled and retrying ones, and after them those that wait
    /// for other jobs; parked ones are in none, but [`Model::search`] finds them. Of the pending ones those with lanes come last, lane by lane, by name.
    #[must_use]
    pub fn list(&self, state: State, cursor: u64, limit: usize) -> Page {
        let all = self.whole_list(state);
        let start = usize::try_from(cursor).unwrap_or(usize::MAX).min(all.len());
        let end = start.saturating_add(limit.clamp(1, MAX_PAGE)).min(all.len());
        Page { ids: all[start..end].to_vec(), next: (end < all.len()).then(|| len(end)) }
    }

    /// Up to `limit` jobs a filter wants, from entry `cursor` (0 or [`Found::next`]) of their list
    /// to the end of the [`SEARCH_WINDOW`]. How many entries a reply gets through is the engine's
    /// affair; together they find the same.
    #[must_use]
    pub fn search(&self, filter: &Filter, cursor: u64, limit: usize) -> Found {
        let all = match (filter.parked, filter.state) {
            (true, State::Pending) => self.parked.iter().copied().collect(),
            (true, _) => Vec::new(),
            (false, state) => self.whole_list(state),
        };
        let wanted = |ulid: &Ulid| {
            self.jobs.get(ulid).is_some_and(|job| {
                let labels = &job.record.options.labels;
                job.record.state == filter.state
                    && filter.kind.as_ref().is_none_or(|kind| *kind == job.record.kind)
                    && filter.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
            })
        };
        let limit = limit.clamp(1, MAX_PAGE);
        let mut found = Found { beyond: cursor >= SEARCH_WINDOW, ..Found::default() };
        for (at, ulid) in (0..).zip(&all).skip(usize::try_from(cursor).unwrap_or(usize::MAX)) {
            if at >= SEARCH_WINDOW {
                return Found { beyond: true, ..found };
            }
            if found.ids.len() == limit {
                return Found { next: Some(at), ..found };
            }
            if wanted(ulid) {
                found.ids.push(*ulid);
            }
        }
        found
    }

    fn whole_list(&self, state: State) -> Vec<Ulid> {
        match state {
            State::Pending => self.waiting.iter().flatten().chain(self.laned.values().flatten()).copied().collect(),
            State::Scheduled | State::Retrying => self.due.iter().chain(&self.blocked).map(|(_, ulid)| *ulid).collect(),
            State::Running => {
                let mut running: Vec<_> =
                    self.leases.iter().map(|(lease, until)| (*until, lease.to_string(), lease.ulid)).collect();
                running.sort();
                running.into_iter().map(|(_, _, ulid)| ulid).collect()
            }
            State::Success | State::Cancelled => self.done.iter().copied().collect(),
            State::Failure => self.dead.iter().rev().map(|(_, ulid)| *ulid).collect(),
        }
    }

    /// How many jobs stand where.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let is_retrying =
            |(_, ulid): &&(Timestamp, Ulid)| self.jobs.get(ulid).is_some_and(|j| j.record.state == State::Retrying);
        let retrying = self.due.iter().filter(is_retrying).count();
        Counts {
            pending: self.pending_count(),
            scheduled: len(self.due.len() - retrying),
            retrying: len(retrying),
            running: len(self.leases.len()),
            dead: len(self.dead.len()),
            parked: len(self.parked.len()),
            blocked: len(self.blocked.len()),
            ..self.totals
        }
    }

    fn waiting_count(&self) -> u64 {
        self.pending_count() + len(self.due.len()) + len(self.blocked.len())
    }
}

fn len(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// An attempt has ended, and another one will follow.
fn remember(record: &mut JobRecord, end: End, at: Timestamp) {
    if let Some(entry) = record.entry(end, at) {
        push(&mut record.earlier, entry);
    }
}

fn read_error(text: &str) -> Option<RunError> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests;
