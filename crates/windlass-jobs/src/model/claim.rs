//! Handing jobs out: by priority, and within one in turn between the list of jobs without lanes
//! and the ring of lanes.

use std::collections::VecDeque;

use super::{Model, len};
use crate::command::{Claim, Claimed, EXPIRED_ERROR, Exchanged, MAX_EXCHANGE, MAX_LOOKED_AT};
use crate::id::{Lease, Ulid};
use crate::job::{Reason, State};
use crate::lanes::{Visit, lane_name};
use crate::limits::Limits;
use crate::time::Timestamp;

impl Model {
    pub(super) fn claim(&mut self, claim: &Claim, now: Timestamp, reply: &mut Exchanged) {
        let max = claim.max.min(MAX_EXCHANGE);
        let (slots, starts) = self.lanes.room(self.leases.len(), now);
        let most = if self.totals.paused { 0 } else { max.min(slots).min(starts) };
        if most > 0 {
            self.lanes.wake(now);
        }
        let mut looked_at = 0;
        for (priority, quota) in claim.rounds(most) {
            let until = reply.claimed.len().saturating_add(quota).min(most);
            while reply.claimed.len() < until && looked_at < MAX_LOOKED_AT {
                let (list, ring) = (!self.waiting[priority].is_empty(), self.lanes.is_ready(priority));
                let from_ring = match (list, ring) {
                    (false, false) => break,
                    (true, true) => {
                        self.lanes.ring_is_next = !self.lanes.ring_is_next;
                        !self.lanes.ring_is_next
                    }
                    (_, ring) => ring,
                };
                looked_at += 1;
                if from_ring {
                    self.claim_from_ring(priority, claim, now, reply);
                } else if let Some(ulid) = self.waiting[priority].pop_front()
                    && !self.bury_expired(ulid, now)
                {
                    self.run(ulid, claim, now, reply);
                }
            }
        }
        self.lanes.started(reply.claimed.len(), now);
        if reply.claimed.len() < max {
            self.idle.insert(claim.worker.clone());
            let unseen = most > 0 && looked_at == MAX_LOOKED_AT && self.any_waiting();
            let due = self.due.first().map(|(at, _)| *at);
            reply.next_due = if unseen { Some(now) } else { earliest(due, self.next_chance(reply, slots, starts)) };
            reply.next_lease = self.leases.values().min().copied();
        }
    }

    /// When a limit of time lets something start that waits now. Whatever waits for a running job
    /// to end is told of it then.
    fn next_chance(&self, reply: &Exchanged, slots: usize, starts: usize) -> Option<Timestamp> {
        let claimed = reply.claimed.len();
        if self.totals.paused || claimed >= slots {
            None
        } else if claimed >= starts {
            self.lanes.next_start().filter(|_| self.any_waiting())
        } else {
            self.lanes.next_timer()
        }
    }

    fn claim_from_ring(&mut self, priority: usize, claim: &Claim, now: Timestamp, reply: &mut Exchanged) {
        let Visit::Lane(name) = self.lanes.visit(priority) else { return };
        match self.laned.get(&name).and_then(VecDeque::front).copied() {
            None => self.lanes.leave(&name, now),
            Some(ulid) if self.bury_expired(ulid, now) => self.pop_lane(&name),
            Some(ulid) => {
                if self.lanes.start(&name, ulid, now) {
                    self.pop_lane(&name);
                    self.run(ulid, claim, now, reply);
                }
            }
        }
    }

    fn pop_lane(&mut self, name: &str) {
        if let Some(jobs) = self.laned.get_mut(name) {
            jobs.pop_front();
            if jobs.is_empty() {
                self.laned.remove(name);
            }
        }
    }

    fn bury_expired(&mut self, ulid: Ulid, now: Timestamp) -> bool {
        let is_expired = |job: &super::Job| job.record.epoch == 0 && job.record.expires_at.is_some_and(|at| at <= now);
        let expired = self.jobs.get(&ulid).is_some_and(is_expired);
        if expired {
            self.bury(ulid, Reason::Expired, EXPIRED_ERROR, now);
        }
        expired
    }

    fn run(&mut self, ulid: Ulid, claim: &Claim, now: Timestamp, reply: &mut Exchanged) {
        let Some(job) = self.jobs.get_mut(&ulid) else { return };
        let record = &mut job.record;
        let is_first = record.epoch == 0;
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
        if is_first && job.holds_until_started() {
            self.let_go(ulid);
        }
    }

    /// The lane of a job, if it has one.
    pub(super) fn lane(&self, ulid: Ulid) -> Option<String> {
        let options = &self.jobs.get(&ulid)?.record.options;
        lane_name(options, options.priority)
    }

    /// Puts a job behind all that wait with it; before them, if it holds its ordering key.
    pub(super) fn wait_last(&mut self, ulid: Ulid) {
        match self.lane(ulid) {
            Some(lane) if self.lanes.owns_order(&lane, ulid) => self.wait_first(ulid),
            Some(lane) => {
                self.lanes.join(&lane);
                self.laned.entry(lane).or_default().push_back(ulid);
            }
            None => {
                let priority = self.jobs.get(&ulid).map_or(1, |job| job.record.options.priority.index());
                self.waiting[priority].push_back(ulid);
            }
        }
    }

    /// Puts a job before all that wait with it.
    pub(super) fn wait_first(&mut self, ulid: Ulid) {
        match self.lane(ulid) {
            Some(lane) => {
                self.lanes.return_to(&lane, ulid);
                self.laned.entry(lane).or_default().push_front(ulid);
            }
            None => {
                let priority = self.jobs.get(&ulid).map_or(1, |job| job.record.options.priority.index());
                self.waiting[priority].push_front(ulid);
            }
        }
    }

    /// A run has ended: what its lane held for it goes to others.
    pub(super) fn run_ended(&mut self, ulid: Ulid, now: Timestamp) {
        let Some(lane) = self.lane(ulid) else { return };
        let ended = self.jobs.get(&ulid).is_none_or(|job| job.record.state.is_terminal());
        let again = !ended && !self.parked.contains(&ulid);
        self.lanes.finished(&lane, ulid, again, now);
    }

    /// Changes the queue's limits; what waits looks again. Answers the idle worker to wake.
    pub fn set_limits(&mut self, limits: &Limits) -> Option<String> {
        self.lanes.set_limits(limits.clone());
        if self.any_waiting() { self.idle.pop_first() } else { None }
    }

    /// The queue's limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.lanes.limits
    }

    /// True when some job may wait for nothing but a worker.
    pub(super) fn any_waiting(&self) -> bool {
        self.waiting.iter().any(|list| !list.is_empty()) || (0..3).any(|priority| self.lanes.is_ready(priority))
    }

    /// How many jobs wait for a worker.
    pub(super) fn pending_count(&self) -> u64 {
        let lists: u64 = self.waiting.iter().map(|list| len(list.len())).sum();
        lists + self.laned.values().map(|jobs| len(jobs.len())).sum::<u64>()
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}
