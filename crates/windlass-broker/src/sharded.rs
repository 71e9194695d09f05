//! Queues that are spread over shards, as one queue to whoever puts jobs in and looks.
//!
//! A shard is a queue like any other, with keys in a slot of its own; only names are added up here. A
//! worker asks the shards themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::command::{
    Ack, Cancel, Counts, Enqueued, Exchange, Exchanged, Filter, Found, MAX_PAGE, Page, WorkerInfo,
};
use windlass_jobs::flow::{Mail, Message, Received};
use windlass_jobs::{
    JobId, JobRecord, Lease, Limits, MAX_SHARDS, NewJob, Progress, Queue, State, Timestamp, Ulid, place,
};

use crate::{Broker, Control, Enqueue, Error, Inspect, Leases, Outbox, Result, SharedBroker, Wake};

/// A broker some of whose queues are spread over shards.
pub struct Sharded {
    inner: SharedBroker,
    shards: BTreeMap<Queue, u16>,
}

/// A cursor of a queue with shards is its shard, and behind that the cursor there, of so many bits.
const CURSOR_BITS: u32 = 40;

impl Sharded {
    /// Spreads these queues over so many shards each, 2 to [`MAX_SHARDS`]; others are left as they are.
    /// Every process of an installation has to be told the same. Where there are none, the broker itself.
    #[must_use]
    pub fn over(inner: SharedBroker, shards: BTreeMap<Queue, u16>) -> SharedBroker {
        if shards.is_empty() {
            return inner;
        }
        let shards = shards.into_iter().map(|(queue, n)| (queue, n.clamp(1, MAX_SHARDS))).collect();
        std::sync::Arc::new(Self { inner, shards })
    }

    /// The queue's shards, or itself.
    fn all(&self, queue: &Queue) -> Vec<Queue> {
        queue.spread(self.shards(queue))
    }

    /// The job by its whole id, where only its queue is known.
    async fn find(&self, id: &JobId) -> Result<JobId> {
        for shard in self.all(&id.queue) {
            let found = JobId::new(id.ulid, shard);
            if self.shards(&id.queue) == 1 || self.inner.get(&found).await?.is_some() {
                return Ok(found);
            }
        }
        Ok(id.clone())
    }

    /// The queue that a shard is one of.
    fn whole(&self, queue: Queue) -> Queue {
        let name = Queue::new(queue.name()).ok().filter(|name| queue.is_shard() && self.shards.contains_key(name));
        name.unwrap_or(queue)
    }

    /// The shard in which a page starts, with the cursor there, and those behind it.
    fn starting_at(&self, queue: &Queue, cursor: u64) -> impl Iterator<Item = (u64, Queue, u64)> + use<> {
        let (first, at) = (cursor >> CURSOR_BITS, cursor & ((1 << CURSOR_BITS) - 1));
        let shards = (0_u64..).zip(self.all(queue)).filter(move |(n, _)| *n >= first);
        shards.map(move |(n, shard)| (n, shard, if n == first { at } else { 0 }))
    }
}

/// The cursor of a place in a shard.
const fn cursor(shard: u64, at: u64) -> u64 {
    (shard << CURSOR_BITS) | at
}

/// Any of several answers, by place.
fn either(mut sum: Vec<bool>, more: Vec<bool>) -> Vec<bool> {
    if sum.is_empty() {
        return more;
    }
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum |= more);
    sum
}

fn add(sum: Counts, more: Counts) -> Counts {
    Counts {
        pending: sum.pending + more.pending,
        scheduled: sum.scheduled + more.scheduled,
        retrying: sum.retrying + more.retrying,
        running: sum.running + more.running,
        dead: sum.dead + more.dead,
        parked: sum.parked + more.parked,
        blocked: sum.blocked + more.blocked,
        paused: sum.paused || more.paused,
        max_waiting: sum.max_waiting.zip(more.max_waiting).map(|(sum, more)| sum + more),
        enqueued_total: sum.enqueued_total + more.enqueued_total,
        success_total: sum.success_total + more.success_total,
        failure_total: sum.failure_total + more.failure_total,
        cancelled_total: sum.cancelled_total + more.cancelled_total,
        retried_total: sum.retried_total + more.retried_total,
        expired_leases_total: sum.expired_leases_total + more.expired_leases_total,
    }
}

#[async_trait]
impl Enqueue for Sharded {
    async fn enqueue(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        let shards = self.shards(queue);
        if shards == 1 {
            return self.inner.enqueue(queue, jobs).await;
        }
        let mut parts: BTreeMap<Queue, Vec<usize>> = BTreeMap::new();
        for (index, job) in jobs.iter().enumerate() {
            let unexpected = |detail| Error::Unexpected { operation: "enqueue", detail };
            let shard = place(queue, shards, job).map_err(|violation| unexpected(violation.message))?;
            parts.entry(shard).or_default().push(index);
        }
        let mut replies: Vec<Option<Enqueued>> = vec![None; jobs.len()];
        for (shard, indexes) in parts {
            let part: Vec<NewJob> = indexes.iter().map(|index| jobs[*index].clone()).collect();
            for (index, reply) in indexes.into_iter().zip(self.inner.enqueue(&shard, &part).await?) {
                replies[index] = Some(reply);
            }
        }
        Ok(replies.into_iter().flatten().collect())
    }

    fn shards(&self, queue: &Queue) -> u16 {
        self.shards.get(queue).copied().unwrap_or(1)
    }
}

#[async_trait]
impl Leases for Sharded {
    async fn exchange(&self, queue: &Queue, exchange: &Exchange) -> Result<Exchanged> {
        self.inner.exchange(queue, exchange).await
    }

    async fn renew(&self, queue: &Queue, leases: &[Lease], lease: Duration) -> Result<Vec<Ack>> {
        self.inner.renew(queue, leases, lease).await
    }

    async fn progress(&self, queue: &Queue, lease: Lease, progress: &Progress) -> Result<Ack> {
        self.inner.progress(queue, lease, progress).await
    }

    async fn tidy(&self, queue: &Queue, success: Duration, failure: Duration) -> Result<usize> {
        let mut gone = 0;
        for shard in self.all(queue) {
            gone += self.inner.tidy(&shard, success, failure).await?;
        }
        Ok(gone)
    }

    async fn unpark(&self, queue: &Queue, kinds: &[String]) -> Result<usize> {
        let mut back = 0;
        for shard in self.all(queue) {
            back += self.inner.unpark(&shard, kinds).await?;
        }
        Ok(back)
    }

    async fn canary(&self, worker: &str, token: &str) -> Result<()> {
        self.inner.canary(worker, token).await
    }

    async fn announce(&self, worker: &WorkerInfo) -> Result<()> {
        self.inner.announce(worker).await
    }

    async fn publish(&self, kinds: &[KindInfo]) -> Result<()> {
        self.inner.publish(kinds).await
    }

    async fn retire(&self, worker: &str) -> Result<()> {
        self.inner.retire(worker).await
    }

    async fn wakes(&self, worker: &str) -> mpsc::UnboundedReceiver<Wake> {
        self.inner.wakes(worker).await
    }
}

#[async_trait]
impl Control for Sharded {
    async fn cancel(&self, id: &JobId) -> Result<Cancel> {
        self.inner.cancel(&self.find(id).await?).await
    }

    async fn pause(&self, queue: &Queue, paused: bool) -> Result<()> {
        for shard in self.all(queue) {
            self.inner.pause(&shard, paused).await?;
        }
        Ok(())
    }

    /// Each shard gets its part, rounded up.
    async fn set_max_waiting(&self, queue: &Queue, max: Option<u64>) -> Result<()> {
        let part = max.map(|max| max.div_ceil(u64::from(self.shards(queue))));
        for shard in self.all(queue) {
            self.inner.set_max_waiting(&shard, part).await?;
        }
        Ok(())
    }

    /// They hold for each shard.
    async fn set_limits(&self, queue: &Queue, limits: &Limits) -> Result<()> {
        for shard in self.all(queue) {
            self.inner.set_limits(&shard, limits).await?;
        }
        Ok(())
    }

    async fn replay(&self, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>> {
        let mut replies = Vec::new();
        for shard in self.all(queue) {
            replies = either(replies, self.inner.replay(&shard, ulids).await?);
        }
        Ok(replies)
    }

    async fn delete(&self, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>> {
        let mut replies = Vec::new();
        for shard in self.all(queue) {
            replies = either(replies, self.inner.delete(&shard, ulids).await?);
        }
        Ok(replies)
    }
}

#[async_trait]
impl Inspect for Sharded {
    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>> {
        for shard in self.all(&id.queue) {
            let found = self.inner.get(&JobId::new(id.ulid, shard)).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    async fn list(&self, queue: &Queue, state: State, from: u64, limit: usize) -> Result<Page> {
        let limit = limit.clamp(1, MAX_PAGE);
        let mut page = Page::default();
        for (n, shard, at) in self.starting_at(queue, from) {
            if page.ids.len() == limit {
                return Ok(Page { next: Some(cursor(n, at)), ..page });
            }
            let found = self.inner.list(&shard, state, at, limit - page.ids.len()).await?;
            page.ids.extend(found.ids);
            if let Some(next) = found.next {
                return Ok(Page { next: Some(cursor(n, next)), ..page });
            }
        }
        Ok(page)
    }

    async fn search(&self, queue: &Queue, filter: &Filter, from: u64, limit: usize) -> Result<Found> {
        let limit = limit.clamp(1, MAX_PAGE);
        let mut all = Found::default();
        for (n, shard, at) in self.starting_at(queue, from) {
            if all.ids.len() == limit {
                return Ok(Found { next: Some(cursor(n, at)), ..all });
            }
            let found = self.inner.search(&shard, filter, at, limit - all.ids.len()).await?;
            all.ids.extend(found.ids);
            all.beyond |= found.beyond;
            if let Some(next) = found.next {
                return Ok(Found { next: Some(cursor(n, next)), ..all });
            }
        }
        Ok(all)
    }

    async fn counts(&self, queue: &Queue) -> Result<Counts> {
        let mut sum: Option<Counts> = None;
        for shard in self.all(queue) {
            let counts = self.inner.counts(&shard).await?;
            sum = Some(sum.map_or(counts, |sum| add(sum, counts)));
        }
        Ok(sum.unwrap_or_default())
    }

    async fn limits(&self, queue: &Queue) -> Result<Limits> {
        // They are the same for all.
        match self.all(queue).first() {
            Some(shard) => self.inner.limits(shard).await,
            None => Ok(Limits::default()),
        }
    }

    async fn queues(&self) -> Result<Vec<Queue>> {
        let queues: BTreeSet<Queue> = self.inner.queues().await?.into_iter().map(|queue| self.whole(queue)).collect();
        Ok(queues.into_iter().collect())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        let mut workers = self.inner.workers().await?;
        for worker in &mut workers {
            let queues = std::mem::take(&mut worker.queues).into_iter().map(|queue| self.whole(queue));
            for queue in queues {
                if !worker.queues.contains(&queue) {
                    worker.queues.push(queue);
                }
            }
        }
        Ok(workers)
    }

    async fn kinds(&self) -> Result<Vec<KindInfo>> {
        self.inner.kinds().await
    }

    async fn watch(&self, id: &JobId) -> mpsc::UnboundedReceiver<()> {
        let found = self.find(id).await.unwrap_or_else(|_| id.clone());
        self.inner.watch(&found).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
}

#[async_trait]
impl Outbox for Sharded {
    async fn outbox(&self, queue: &Queue) -> Result<Mail> {
        self.inner.outbox(queue).await
    }

    async fn receive(&self, queue: &Queue, messages: &[Message]) -> Result<Received> {
        self.inner.receive(queue, messages).await
    }

    async fn sent(&self, queue: &Queue, done: &[Message], again: &[Message], later: Timestamp) -> Result<()> {
        self.inner.sent(queue, done, again, later).await
    }
}

impl Broker for Sharded {
    fn engine(&self) -> &'static str {
        self.inner.engine()
    }

    fn generation(&self) -> u64 {
        self.inner.generation()
    }
}
