//! What comes round: renewals, announcements, the canary, the sweep of the queues, progress; and
//! wake-ups.

use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_broker::{Wake, flow};
use windlass_jobs::catalogue::PUBLISH_EVERY;
use windlass_jobs::command::{KEEP_FAILURE_FOR, KEEP_SUCCESS_FOR, RunningJob, WorkerInfo};
use windlass_jobs::{JobId, Lease, Ulid};

use super::{Pump, Reply, Running, TIDY_EVERY};

impl Pump {
    pub(super) fn wake(&mut self, wake: Wake) {
        match &wake {
            Wake::Canary(token) => {
                if self.canary.hears(token, Instant::now())
                    && let Some(lane) = self.lanes.get_mut(self.sweep)
                {
                    // The second half of the round: a reply to a claim, of whatever size.
                    lane.hot = true;
                    lane.pass_on = true;
                }
                return;
            }
            Wake::Cancel(_, lease) => return self.cancel(*lease),
            Wake::All => self.reconnected(),
            Wake::Queue(_) => {}
        }
        // A worker that drains has no slot for anyone, nor one that holds the queue back.
        let full: Vec<bool> = (0..self.lanes.len()).map(|index| self.room(index) == 0).collect();
        for (lane, full) in self.lanes.iter_mut().zip(full) {
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

    /// Wake-ups go through again: whatever was missed is made up for at once.
    fn reconnected(&mut self) {
        // A cancel may have been missed: renewals tell.
        self.renew(Duration::ZERO);
        for lane in &mut self.lanes {
            lane.retry_at = None;
        }
        if !self.canary.is_under_way() {
            self.send_canary();
        }
    }

    /// Renews the leases of runs older than `young`.
    pub(super) fn renew(&mut self, young: Duration) {
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

    pub(super) fn announce(&mut self) {
        self.publish();
        let mut info = self.options.info.clone();
        info.running = self.running.len();
        info.draining = self.draining();
        info.canary_age_ms = self.health.has_fetched().then(|| as_ms(self.health.canary_age()));
        info.jobs = self.longest_running();
        let broker = Arc::clone(&self.broker);
        self.calls
            .push(Box::pin(async move { Reply::Said { what: "announcement", result: broker.announce(&info).await } }));
    }

    /// Tells the catalogue what this worker knows, at its start and now and then.
    fn publish(&mut self) {
        let now = Instant::now();
        if self.publish_at > now || self.draining() {
            return;
        }
        self.publish_at = now + PUBLISH_EVERY;
        let (broker, kinds) = (Arc::clone(&self.broker), self.options.catalogue.clone());
        self.calls.push(Box::pin(async move { Reply::Published { result: broker.publish(&kinds).await } }));
    }

    pub(super) fn send_canary(&mut self) {
        let token = self.canary.next(Instant::now());
        let (broker, name) = (Arc::clone(&self.broker), self.options.info.name.clone());
        self.calls.push(Box::pin(async move { Reply::Canary { result: broker.canary(&name, &token).await } }));
    }

    /// What it has been busy with longest, for people.
    fn longest_running(&self) -> Vec<RunningJob> {
        let mut running: Vec<_> = self.running.iter().map(|(lease, run)| (run.since, lease.ulid, run)).collect();
        running.sort_by_key(|(since, ulid, _)| (*since, *ulid));
        running.truncate(WorkerInfo::MAX_JOBS);
        let job = |(since, ulid, run): (Instant, Ulid, &Running)| RunningJob {
            id: JobId::new(ulid, self.lanes[run.queue].queue.clone()),
            kind: run.kind.clone(),
            running_ms: as_ms(since.elapsed()),
        };
        running.into_iter().map(job).collect()
    }

    /// One call for one queue, in turn: forgetting what is old, offering what is parked, or
    /// asking it without a reason. So an idle worker's calls do not grow with its queues.
    pub(super) fn sweep(&mut self) {
        let index = self.sweep;
        self.sweep = (self.sweep + 1) % self.lanes.len().max(1);
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let now = Instant::now();
        let (broker, queue) = (Arc::clone(&self.broker), lane.queue.clone());
        if std::mem::take(&mut lane.unpark) {
            let kinds = self.options.known.clone();
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

    /// Carries over what queues have to say to each other.
    pub(super) fn forward(&mut self) {
        let now = Instant::now();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if lane.forwarding || lane.mail.is_none_or(|at| at > now) {
                continue;
            }
            (lane.mail, lane.forwarding) = (None, true);
            let (broker, queue) = (Arc::clone(&self.broker), lane.queue.clone());
            self.calls.push(Box::pin(async move {
                let result = flow::forward(broker.as_ref(), &queue).await;
                Reply::Forwarded { lane: index, result }
            }));
        }
    }

    pub(super) fn write_progress(&mut self) {
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
}

fn as_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
