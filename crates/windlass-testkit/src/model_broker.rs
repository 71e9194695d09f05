//! A broker that is the model: for tests of everything above the broker.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use windlass_broker::{Broker, Control, Enqueue, Error, Inspect, Leases, Outbox, Result, Wake};
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::command::{
    Ack, Cancel, Counts, Enqueued, Exchange, Exchanged, Filter, Found, KEEP_TERMINAL, MAX_CONTROL, Page, WorkerInfo,
    slices,
};
use windlass_jobs::flow::{Mail, Message, Received};
use windlass_jobs::model::{Full, Model};
use windlass_jobs::{
    Clock, JobId, JobRecord, Lease, Limits, NewJob, Progress, Queue, State, SystemClock, Timestamp, Ulid,
};

/// One [`Model`] per queue behind a lock, with workers, wake-ups and watched jobs. It never
/// fails, except when a queue is full.
pub struct ModelBroker {
    clock: Arc<dyn Clock>,
    keep: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    queues: BTreeMap<Queue, Model>,
    workers: BTreeMap<String, WorkerInfo>,
    kinds: BTreeMap<String, KindInfo>,
    wakes: HashMap<String, mpsc::UnboundedSender<Wake>>,
    watched: Vec<Watched>,
}

/// A job somebody watches, as it was when he was last told.
struct Watched {
    id: JobId,
    sender: mpsc::UnboundedSender<()>,
    seen: Option<JobRecord>,
}

impl Default for ModelBroker {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl ModelBroker {
    /// An empty broker that reads the time from `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::keeping(clock, KEEP_TERMINAL)
    }

    /// An empty broker that keeps only `keep` successes and `keep` failures per queue.
    #[must_use]
    pub fn keeping(clock: Arc<dyn Clock>, keep: usize) -> Self {
        Self { clock, keep, inner: Mutex::default() }
    }

    /// Forgets everything, as a store does that lost its data.
    pub fn lose_everything(&self) {
        self.lock().queues.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a verb on a queue's model, then wakes whom it named and tells who watches.
    fn change<T>(&self, queue: &Queue, verb: impl FnOnce(&mut Model, Timestamp) -> (T, Option<String>)) -> T {
        let mut inner = self.lock();
        let now = self.clock.now();
        let (reply, mut wake) = verb(inner.queue(queue, self.keep), now);
        while let Some(worker) = wake {
            // Nobody listens under that name: an exchange that asks for nothing pops the next idle worker.
            wake = if inner.send(&worker, Wake::Queue(queue.clone())) {
                None
            } else {
                inner.queue(queue, self.keep).exchange(&Exchange::default(), now).1
            };
        }
        inner.tell_watchers(queue);
        reply
    }
}

impl Inner {
    fn queue(&mut self, queue: &Queue, keep: usize) -> &mut Model {
        self.queues.entry(queue.clone()).or_insert_with(|| Model::keeping(queue.clone(), keep))
    }

    /// Says something to a worker; answers false when nobody listens under that name.
    fn send(&self, worker: &str, wake: Wake) -> bool {
        self.wakes.get(worker).is_some_and(|sender| sender.send(wake).is_ok())
    }

    fn tell_watchers(&mut self, queue: &Queue) {
        let Self { queues, watched, .. } = self;
        let Some(model) = queues.get(queue) else { return };
        watched.retain_mut(|watched| {
            let record = if watched.id.queue == *queue { model.get(watched.id.ulid) } else { return true };
            let is_same = record == watched.seen;
            watched.seen = record;
            if is_same { !watched.sender.is_closed() } else { watched.sender.send(()).is_ok() }
        });
    }
}

#[async_trait]
impl Enqueue for ModelBroker {
    async fn enqueue(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        let mut replies = Vec::with_capacity(jobs.len());
        for slice in slices(jobs) {
            let accepted = self.change(queue, |model, now| match model.enqueue(slice, now) {
                Ok((replies, wake)) => (Ok(replies), wake),
                Err(full) => (Err(full), None),
            });
            let full = |Full { max_waiting }| Error::QueueFull { queue: queue.clone(), max_waiting };
            replies.extend(accepted.map_err(full)?);
        }
        Ok(replies)
    }
}

#[async_trait]
impl Leases for ModelBroker {
    async fn exchange(&self, queue: &Queue, exchange: &Exchange) -> Result<Exchanged> {
        Ok(self.change(queue, |model, now| model.exchange(exchange, now)))
    }

    async fn renew(&self, queue: &Queue, leases: &[Lease], lease: Duration) -> Result<Vec<Ack>> {
        Ok(self.change(queue, |model, now| (model.renew(leases, lease, now), None)))
    }

    async fn progress(&self, queue: &Queue, lease: Lease, progress: &Progress) -> Result<Ack> {
        Ok(self.change(queue, |model, _| (model.progress(lease, progress), None)))
    }

    async fn tidy(&self, queue: &Queue, success: Duration, failure: Duration) -> Result<usize> {
        Ok(self.change(queue, |model, now| (model.tidy(success, failure, now), None)))
    }

    async fn unpark(&self, queue: &Queue, kinds: &[String]) -> Result<usize> {
        Ok(self.change(queue, |model, _| model.unpark(kinds)))
    }

    async fn canary(&self, worker: &str, token: &str) -> Result<()> {
        self.lock().send(worker, Wake::Canary(token.to_owned()));
        Ok(())
    }

    async fn announce(&self, worker: &WorkerInfo) -> Result<()> {
        let mut inner = self.lock();
        for queue in &worker.queues {
            inner.queue(queue, self.keep);
        }
        let seen = WorkerInfo { seen_at: self.clock.now(), ..worker.clone() };
        inner.workers.insert(worker.name.clone(), seen);
        Ok(())
    }

    async fn publish(&self, kinds: &[KindInfo]) -> Result<()> {
        let now = self.clock.now();
        let mut inner = self.lock();
        for kind in kinds {
            let kept = inner.kinds.get(&kind.name);
            if kept.is_none_or(|kept| kind.replaces(kept.version, now.since(kept.seen_at))) {
                inner.kinds.insert(kind.name.clone(), KindInfo { seen_at: now, ..kind.clone() });
            }
        }
        Ok(())
    }

    async fn retire(&self, worker: &str) -> Result<()> {
        self.lock().workers.remove(worker);
        Ok(())
    }

    async fn wakes(&self, worker: &str) -> mpsc::UnboundedReceiver<Wake> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().wakes.insert(worker.to_owned(), sender);
        receiver
    }
}

#[async_trait]
impl Control for ModelBroker {
    async fn cancel(&self, id: &JobId) -> Result<Cancel> {
        let (reply, tell) = self.change(&id.queue, |model, now| (model.cancel(id.ulid, now), None));
        if let Some((worker, lease)) = tell {
            self.lock().send(&worker, Wake::Cancel(id.queue.clone(), lease));
        }
        Ok(reply)
    }

    async fn pause(&self, queue: &Queue, paused: bool) -> Result<()> {
        self.change(queue, |model, _| ((), model.pause(paused)));
        Ok(())
    }

    async fn set_max_waiting(&self, queue: &Queue, max: Option<u64>) -> Result<()> {
        self.change(queue, |model, _| (model.set_max_waiting(max), None));
        Ok(())
    }

    async fn set_limits(&self, queue: &Queue, limits: &Limits) -> Result<()> {
        self.change(queue, |model, _| ((), model.set_limits(limits)));
        Ok(())
    }

    async fn replay(&self, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>> {
        let slices = ulids.chunks(MAX_CONTROL);
        Ok(slices.flat_map(|slice| self.change(queue, |model, _| model.replay(slice))).collect())
    }

    async fn delete(&self, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>> {
        let slices = ulids.chunks(MAX_CONTROL);
        Ok(slices.flat_map(|slice| self.change(queue, |model, _| (model.delete(slice), None))).collect())
    }
}

#[async_trait]
impl Inspect for ModelBroker {
    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>> {
        Ok(self.lock().queues.get(&id.queue).and_then(|model| model.get(id.ulid)))
    }

    async fn list(&self, queue: &Queue, state: State, cursor: u64, limit: usize) -> Result<Page> {
        Ok(self.lock().queues.get(queue).map(|model| model.list(state, cursor, limit)).unwrap_or_default())
    }

    async fn search(&self, queue: &Queue, filter: &Filter, cursor: u64, limit: usize) -> Result<Found> {
        Ok(self.lock().queues.get(queue).map(|model| model.search(filter, cursor, limit)).unwrap_or_default())
    }

    async fn counts(&self, queue: &Queue) -> Result<Counts> {
        Ok(self.lock().queues.get(queue).map(Model::counts).unwrap_or_default())
    }

    async fn limits(&self, queue: &Queue) -> Result<Limits> {
        Ok(self.lock().queues.get(queue).map(|model| model.limits().clone()).unwrap_or_default())
    }

    async fn queues(&self) -> Result<Vec<Queue>> {
        Ok(self.lock().queues.keys().cloned().collect())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        let now = self.clock.now();
        let is_there = |worker: &&WorkerInfo| now.since(worker.seen_at) <= WorkerInfo::GONE_AFTER;
        Ok(self.lock().workers.values().filter(is_there).cloned().collect())
    }

    async fn kinds(&self) -> Result<Vec<KindInfo>> {
        Ok(self.lock().kinds.values().cloned().collect())
    }

    async fn watch(&self, id: &JobId) -> mpsc::UnboundedReceiver<()> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut inner = self.lock();
        let seen = inner.queues.get(&id.queue).and_then(|model| model.get(id.ulid));
        inner.watched.push(Watched { id: id.clone(), sender, seen });
        receiver
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Outbox for ModelBroker {
    async fn outbox(&self, queue: &Queue) -> Result<Mail> {
        let now = self.clock.now();
        let messages = self.lock().queues.get(queue).map(|model| model.outbox(now)).unwrap_or_default();
        Ok(Mail { now, messages })
    }

    async fn receive(&self, queue: &Queue, messages: &[Message]) -> Result<Received> {
        Ok(self.change(queue, |model, now| {
            let (heard, wake) = model.receive(messages, now);
            (Received { now, heard }, wake)
        }))
    }

    async fn sent(&self, queue: &Queue, done: &[Message], again: &[Message], later: Timestamp) -> Result<()> {
        self.change(queue, |model, _| (model.sent(done, again, later), None));
        Ok(())
    }
}

impl Broker for ModelBroker {
    fn engine(&self) -> &'static str {
        "model"
    }

    fn generation(&self) -> u64 {
        0
    }
}
