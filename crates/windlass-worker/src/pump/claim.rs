//! Which queue is asked next, and for how many jobs.
//!
//! Queues that have jobs take turns by weight (stride scheduling): each claimed job moves its
//! queue's place by one over its weight, and the queue furthest behind is next. What a queue does
//! not use goes to the others at once.

use std::sync::Arc;
use std::time::Instant;

use windlass_jobs::command::{Claim, Exchange, MAX_EXCHANGE};

use super::{COMPANY, GOOD_BATCH, MAX_CALLS, Pump, Reply};

impl Pump {
    /// Slots nobody has or is promised.
    pub(super) fn free(&self) -> usize {
        self.options.slots.saturating_sub(self.running.len() + self.reserved)
    }

    pub(super) fn draining(&self) -> bool {
        self.jobs.is_none()
    }

    /// How many jobs of a queue could be run now.
    pub(super) fn room(&self, index: usize) -> usize {
        let lane = &self.lanes[index];
        if self.draining() || lane.held.is_some() {
            return 0;
        }
        let taken = match lane.slots {
            usize::MAX => 0,
            // Shards of a queue have its slots together.
            _ => {
                let shards = self.lanes.iter().filter(|other| other.queue.name() == lane.queue.name());
                shards.map(|other| other.running + other.reserved).sum()
            }
        };
        let own = lane.slots.saturating_sub(taken);
        own.min(self.free()).min(MAX_EXCHANGE)
    }

    /// Sends as many exchanges as may be under way.
    pub(super) fn issue(&mut self) {
        while self.exchanges < MAX_CALLS {
            let now = Instant::now();
            let next = self.next_claim(now);
            let Some(index) = self.pick(next, now) else { return };
            let want = if next == Some(index) { self.share(index, now) } else { 0 };
            self.send_exchange(index, want);
        }
    }

    fn may_claim(&self, index: usize, now: Instant) -> bool {
        let lane = &self.lanes[index];
        lane.hot && lane.retry_at.is_none_or(|at| at <= now) && self.room(index) > 0
    }

    /// The queue whose turn it is to get jobs.
    fn next_claim(&mut self, now: Instant) -> Option<usize> {
        let count = self.lanes.len();
        let mut next: Option<usize> = None;
        for index in (0..count).map(|i| (self.cursor + i) % count) {
            if !self.may_claim(index, now) {
                continue;
            }
            let lane = &mut self.lanes[index];
            if std::mem::take(&mut lane.rested) {
                // Who had nothing to do has saved nothing up.
                lane.place = lane.place.max(self.turn);
            }
            if next.is_none_or(|best| self.lanes[index].place < self.lanes[best].place) {
                next = Some(index);
            }
        }
        next
    }

    /// The next queue that is worth a call: the one whose turn it is, unless another has outcomes
    /// that have waited or a wake-up to pass on.
    fn pick(&self, next: Option<usize>, now: Instant) -> Option<usize> {
        let count = self.lanes.len();
        let worth = |index: usize| {
            let lane = &self.lanes[index];
            if lane.retry_at.is_some_and(|at| at > now) {
                return false;
            }
            let want = if next == Some(index) { self.room(index) } else { 0 };
            let ready = lane.outcomes.len();
            if want == 0 && ready == 0 {
                return lane.pass_on;
            }
            let aged = lane.waiting_since.is_some_and(|since| now.duration_since(since) >= COMPANY);
            self.exchanges == 0 || want.max(ready) >= GOOD_BATCH || aged
        };
        let others = (0..count).map(|i| (self.cursor + i) % count).filter(|index| next != Some(*index));
        others
            .clone()
            .find(|index| self.lanes[*index].waiting_since.is_some() && worth(*index))
            .or(next.filter(|index| worth(*index)))
            .or_else(|| others.clone().find(|index| worth(*index)))
    }

    /// How many jobs the queue whose turn it is asks for: its part of the free slots by weight
    /// among the queues that may have jobs.
    fn share(&self, index: usize, now: Instant) -> usize {
        let weights =
            |lanes: &mut dyn Iterator<Item = usize>| -> usize { lanes.map(|other| self.lanes[other].weight).sum() };
        let all = weights(&mut (0..self.lanes.len()).filter(|other| self.may_claim(*other, now)));
        let own = self.free() * self.lanes[index].weight / all.max(1);
        self.room(index).min(own.max(1))
    }

    fn send_exchange(&mut self, index: usize, want: usize) {
        self.cursor = (index + 1) % self.lanes.len();
        let lane = &mut self.lanes[index];
        if want > 0 {
            self.turn = lane.place;
            lane.move_on(want);
        }
        let rest = lane.outcomes.split_off(lane.outcomes.len().min(MAX_EXCHANGE));
        let finishes = std::mem::replace(&mut lane.outcomes, rest);
        if lane.outcomes.is_empty() {
            lane.waiting_since = None;
        }
        let claim = (want > 0 || lane.pass_on).then(|| {
            let sent_at = self.clock.map(|(at, heard)| at.plus(heard.elapsed()));
            let (worker, lease) = (self.options.info.name.clone(), self.options.lease);
            let quotas = self.options.priorities.map(|weights| weights.share(want, &mut lane.credit));
            let mut claim = Claim { worker, max: want, lease, grace: lane.failures > 0, sent_at, quotas };
            claim.grace |= self.under_way.any_older_than(claim.patience());
            claim
        });
        let call = self.under_way.begin();
        lane.pass_on = false;
        lane.reserved += want;
        self.reserved += want;
        self.exchanges += 1;
        let (broker, queue, wakes) = (Arc::clone(&self.broker), lane.queue.clone(), lane.wakes);
        self.calls.push(Box::pin(async move {
            let exchange = Exchange { finishes, claim };
            let result = broker.exchange(&queue, &exchange).await;
            Reply::Exchanged { call, lane: index, wakes, asked: want, finishes: exchange.finishes, result }
        }));
    }
}
