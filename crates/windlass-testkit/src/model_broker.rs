//! A broker that is the model: for tests of everything above the broker.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use windlass_broker::{Broker, Enqueue, Inspect, Leases, Result, Wake};
use windlass_jobs::command::{
    Ack, Counts, Enqueued, Exchange, Exchanged, KEEP_TERMINAL, MAX_ENQUEUE, Page, WorkerInfo,
};
use windlass_jobs::model::Model;
use windlass_jobs::{Clock, JobId, JobRecord, Lease, NewJob, Progress, Queue, State, SystemClock};

/// One [`Model`] per queue behind a lock, with workers and wake-ups. It never fails.
pub struct ModelBroker {
    clock: Arc<dyn Clock>,
    keep: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    queues: BTreeMap<Queue, Model>,
    workers: BTreeMap<String, WorkerInfo>,
    wakes: HashMap<String, mpsc::UnboundedSender<Wake>>,
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

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn queue(&mut self, queue: &Queue, keep: usize) -> &mut Model {
        self.queues.entry(queue.clone()).or_insert_with(|| Model::keeping(queue.clone(), keep))
    }

    /// Wakes a worker; answers false when nobody listens under that name.
    fn wake(&self, worker: &str, queue: &Queue) -> bool {
        self.wakes.get(worker).is_some_and(|sender| sender.send(Wake::Queue(queue.clone())).is_ok())
    }
}

#[async_trait]
impl Enqueue for ModelBroker {
    async fn enqueue(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        let mut inner = self.lock();
        let mut replies = Vec::with_capacity(jobs.len());
        for slice in jobs.chunks(MAX_ENQUEUE) {
            let now = self.clock.now();
            let model = inner.queue(queue, self.keep);
            let (slice, mut wake) = model.enqueue(slice, now);
            replies.extend(slice);
            while let Some(worker) = wake {
                // An exchange that asks for nothing pops the next idle worker.
                wake = if inner.wake(&worker, queue) {
                    None
                } else {
                    inner.queue(queue, self.keep).exchange(&Exchange::default(), now).1
                };
            }
        }
        Ok(replies)
    }
}

#[async_trait]
impl Leases for ModelBroker {
    async fn exchange(&self, queue: &Queue, exchange: &Exchange) -> Result<Exchanged> {
        let mut inner = self.lock();
        let now = self.clock.now();
        let (reply, mut wake) = inner.queue(queue, self.keep).exchange(exchange, now);
        while let Some(worker) = wake {
            wake = if inner.wake(&worker, queue) {
                None
            } else {
                inner.queue(queue, self.keep).exchange(&Exchange::default(), now).1
            };
        }
        Ok(reply)
    }

    async fn renew(&self, queue: &Queue, leases: &[Lease], lease: Duration) -> Result<Vec<Ack>> {
        Ok(self.lock().queue(queue, self.keep).renew(leases, lease, self.clock.now()))
    }

    async fn progress(&self, queue: &Queue, lease: Lease, progress: &Progress) -> Result<Ack> {
        Ok(self.lock().queue(queue, self.keep).progress(lease, progress))
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
impl Inspect for ModelBroker {
    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>> {
        Ok(self.lock().queues.get(&id.queue).and_then(|model| model.get(id.ulid)))
    }

    async fn list(&self, queue: &Queue, state: State, cursor: u64, limit: usize) -> Result<Page> {
        Ok(self.lock().queues.get(queue).map(|model| model.list(state, cursor, limit)).unwrap_or_default())
    }

    async fn counts(&self, queue: &Queue) -> Result<Counts> {
        Ok(self.lock().queues.get(queue).map(Model::counts).unwrap_or_default())
    }

    async fn queues(&self) -> Result<Vec<Queue>> {
        Ok(self.lock().queues.keys().cloned().collect())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        let now = self.clock.now();
        let is_there = |worker: &&WorkerInfo| now.since(worker.seen_at) <= WorkerInfo::GONE_AFTER;
        Ok(self.lock().workers.values().filter(is_there).cloned().collect())
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}

impl Broker for ModelBroker {
    fn engine(&self) -> &'static str {
        "model"
    }
}
