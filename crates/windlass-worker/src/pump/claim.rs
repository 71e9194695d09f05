//! Which queue is asked next, and for how many jobs.

use std::sync::Arc;
use std::time::Instant;

use windlass_jobs::command::{Claim, Exchange, MAX_EXCHANGE};

use super::{COMPANY, GOOD_BATCH, MAX_CALLS, Pump, Reply};

impl Pump {
    pub(super) fn free(&self) -> usize {
        self.options.slots.saturating_sub(self.running.len() + self.reserved)
    }

    pub(super) fn draining(&self) -> bool {
        self.jobs.is_none()
    }

    /// Sends as many exchanges as may be under way.
    pub(super) fn issue(&mut self) {
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
                return lane.pass_on;
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
}
