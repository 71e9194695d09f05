//! The engine for one machine: every queue in one SQLite file, shared by any number of
//! processes.
//!
//! It never keeps a job in memory only, never trusts a client's clock (time is the host's),
//! and never writes outside a transaction that holds the file's write lock. What each verb
//! means is said in [`windlass_jobs::model`].
//!
//! *Promise*: with [`Synchronous::Normal`] an accepted job survives the end of the process,
//! however it ends; with [`Synchronous::Full`] a loss of power too. Files on a network file
//! system are not supported: SQLite's locks do not hold there.

mod batch;
mod connection;
mod enqueue;
mod exchange;
mod fault;
mod held;
mod inspect;
mod ledger;
mod schema;
mod settle;
mod wake;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, MutexGuard, mpsc};
use windlass_jobs::command::{
    Ack, Counts, Enqueued, Exchange, Exchanged, KEEP_TERMINAL, MAX_ENQUEUE, Page, WorkerInfo,
};
use windlass_jobs::{Clock, JobId, JobRecord, Lease, NewJob, Progress, Queue, State, SystemClock};

use crate::{Broker, Enqueue, Inspect, Leases, Result, Wake};
use connection::Connection;
use ledger::Ledger;
use wake::Wakes;

/// How often the file is asked whether another process wrote.
const WATCH_EVERY: Duration = Duration::from_millis(20);
/// Connections for reading; a file only.
const READERS: usize = 2;

/// What a commit survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// The end of the process. The last commits before a loss of power may be gone; the file
    /// stays whole. The default.
    #[default]
    Normal,
    /// A loss of power too: every commit waits for the disk.
    Full,
}

/// How a file is opened.
#[derive(Clone)]
pub struct SqliteOptions {
    /// What a commit survives.
    pub synchronous: Synchronous,
    /// How long a call waits for other processes before it answers
    /// [`Unavailable`](crate::Error::Unavailable); default 5 s.
    pub busy_timeout: Duration,
    /// Terminal jobs kept per queue, successes and failures each; default [`KEEP_TERMINAL`].
    pub keep: usize,
    /// The clock; default the host's.
    pub clock: Arc<dyn Clock>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            synchronous: Synchronous::default(),
            busy_timeout: Duration::from_secs(5),
            keep: KEEP_TERMINAL,
            clock: Arc::new(SystemClock),
        }
    }
}

impl std::fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteOptions")
            .field("synchronous", &self.synchronous)
            .field("busy_timeout", &self.busy_timeout)
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

/// All queues of one file. Clones share their connections.
#[derive(Clone)]
pub struct SqliteBroker(Arc<Inner>);

struct Inner {
    /// Held over a whole write and the wake-ups it causes.
    writer: Mutex<Connection>,
    /// Empty for a database in memory, which only the writer can see.
    readers: Vec<Mutex<Connection>>,
    next_reader: AtomicUsize,
    wakes: Wakes,
    options: SqliteOptions,
}

impl SqliteBroker {
    /// Opens a file, making it with its directories if there is none: file mode 0600,
    /// directories 0700. The path `:memory:` is a database of its own in memory, gone with
    /// the last clone.
    ///
    /// Several processes may open the same file at once.
    ///
    /// # Errors
    /// [`Denied`](crate::Error::Denied) or [`Unavailable`](crate::Error::Unavailable) when the
    /// file cannot be made or read; [`Unexpected`](crate::Error::Unexpected) when it is no
    /// database, another program's, or written by a newer version in another format.
    pub async fn open(path: &Path, options: SqliteOptions) -> Result<Self> {
        let file = if path == Path::new(":memory:") { None } else { Some(connection::make_file(path)?) };
        let mut writer = Connection::new(file.as_deref(), &options);
        let mut tx = writer.begin("open").await?;
        schema::prepare(&mut tx, &path.display().to_string()).await?;
        tx.commit("open").await?;
        let readers = if file.is_some() { READERS } else { 0 };
        let readers = (0..readers).map(|_| Mutex::new(Connection::new(file.as_deref(), &options))).collect();
        Ok(Self(Arc::new(Inner {
            writer: Mutex::new(writer),
            readers,
            next_reader: AtomicUsize::new(0),
            wakes: Wakes::default(),
            options,
        })))
    }

    async fn enqueue_slice(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        let mut writer = self.0.writer.lock().await;
        let mut tx = writer.begin("enqueue").await?;
        let now = self.0.options.clock.now();
        let replies = enqueue::enqueue(&mut tx, queue, jobs, now).await?;
        tx.commit("enqueue").await?;
        if replies.iter().any(|reply| reply.fresh) {
            self.0.wakes.wake_one(queue);
        }
        Ok(replies)
    }
}

impl Inner {
    /// A connection for reading, in turn.
    async fn reader(&self) -> MutexGuard<'_, Connection> {
        match self.readers.len() {
            0 => self.writer.lock().await,
            n => self.readers[self.next_reader.fetch_add(1, Ordering::Relaxed) % n].lock().await,
        }
    }
}

/// Runs a read on a connection, which is remade if that fails.
macro_rules! read {
    ($broker:expr, $operation:literal, $call:path $(, $arg:expr)*) => {{
        let mut reader = $broker.0.reader().await;
        let result = $call(reader.ready($operation).await? $(, $arg)*).await;
        if result.is_err() {
            reader.doubt();
        }
        result
    }};
}

/// Runs a write in a transaction of its own.
macro_rules! write {
    ($broker:expr, $operation:literal, $call:path $(, $arg:expr)*) => {{
        let mut writer = $broker.0.writer.lock().await;
        let mut tx = writer.begin($operation).await?;
        let result = $call(tx.conn() $(, $arg)*).await?;
        tx.commit($operation).await?;
        Ok(result)
    }};
}

#[async_trait]
impl Enqueue for SqliteBroker {
    async fn enqueue(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        let mut replies = Vec::with_capacity(jobs.len());
        for slice in jobs.chunks(MAX_ENQUEUE) {
            replies.extend(self.enqueue_slice(queue, slice).await?);
        }
        Ok(replies)
    }
}

#[async_trait]
impl Leases for SqliteBroker {
    async fn exchange(&self, queue: &Queue, exchange: &Exchange) -> Result<Exchanged> {
        let inner = &*self.0;
        let mut writer = inner.writer.lock().await;
        let now = inner.options.clock.now();
        let peeked = exchange::peek(writer.ready("exchange").await?, queue, exchange, now).await;
        let outcome = match peeked {
            Ok(Some(outcome)) => outcome,
            Ok(None) => {
                let mut tx = writer.begin("exchange").await?;
                // Read again: the lock may have been waited for.
                let now = inner.options.clock.now();
                let keep = u64::try_from(inner.options.keep).unwrap_or(u64::MAX);
                let outcome = exchange::exchange(tx.conn(), queue, exchange, now, keep).await?;
                tx.commit("exchange").await?;
                outcome
            }
            Err(e) => {
                writer.doubt();
                return Err(e);
            }
        };
        // Before the writer is let go: see `Wakes`.
        if let Some(claim) = exchange.claim.as_ref().filter(|_| outcome.idle) {
            inner.wakes.idle(queue, &claim.worker);
        }
        if outcome.news {
            inner.wakes.wake_one(queue);
        }
        Ok(outcome.reply)
    }

    async fn renew(&self, queue: &Queue, leases: &[Lease], lease: Duration) -> Result<Vec<Ack>> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        write!(self, "renew", held::renew, queue, leases, lease, self.0.options.clock.now())
    }

    async fn progress(&self, queue: &Queue, lease: Lease, progress: &Progress) -> Result<Ack> {
        write!(self, "progress", held::progress, queue, lease, progress)
    }

    async fn announce(&self, worker: &WorkerInfo) -> Result<()> {
        write!(self, "announce", inspect::announce, worker, self.0.options.clock.now())
    }

    async fn retire(&self, worker: &str) -> Result<()> {
        self.0.wakes.retire(worker);
        write!(self, "retire", inspect::retire, worker)
    }

    async fn wakes(&self, worker: &str) -> mpsc::UnboundedReceiver<Wake> {
        let receiver = self.0.wakes.register(worker);
        if !self.0.readers.is_empty() {
            // Known before this returns, so that whatever is written from now on is noticed.
            let known = self.0.writer.lock().await.version().await.ok();
            let inner = Arc::downgrade(&self.0);
            self.0.wakes.watch(|| tokio::spawn(watch(inner, known)));
        }
        receiver
    }
}

/// Wakes the idle workers of this process when another one has written. It asks the writer's
/// connection, the only one that does not count this process's own commits.
async fn watch(inner: Weak<Inner>, mut known: Option<(u64, i64)>) {
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        if !inner.wakes.is_listened() {
            return;
        }
        let found = inner.writer.lock().await.version().await.ok();
        if found != known {
            known = found;
            inner.wakes.wake_all();
        }
    }
}

#[async_trait]
impl Inspect for SqliteBroker {
    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>> {
        read!(self, "get", inspect::get, id)
    }

    async fn list(&self, queue: &Queue, state: State, cursor: u64, limit: usize) -> Result<Page> {
        read!(self, "list", inspect::list, queue, state, cursor, limit)
    }

    async fn counts(&self, queue: &Queue) -> Result<Counts> {
        let ledger = read!(self, "counts", Ledger::load, queue, "counts")?;
        Ok(ledger.unwrap_or_default().counts)
    }

    async fn queues(&self) -> Result<Vec<Queue>> {
        read!(self, "queues", inspect::queues)
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        read!(self, "workers", inspect::workers, self.0.options.clock.now())
    }

    async fn ping(&self) -> Result<()> {
        read!(self, "ping", inspect::queues).map(drop)
    }
}

impl Broker for SqliteBroker {
    fn engine(&self) -> &'static str {
        "sqlite"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    /// SQLite rolls a transaction back by itself when the file is full, and the driver does
    /// not notice: without a new connection every later call would fail.
    #[tokio::test]
    async fn a_full_file_is_said_and_left() {
        let dir = tempfile::tempdir().unwrap();
        let broker = SqliteBroker::open(&dir.path().join("queue.db"), SqliteOptions::default()).await.unwrap();
        {
            let mut writer = broker.0.writer.lock().await;
            let conn = writer.ready("test").await.unwrap();
            sqlx::query("PRAGMA max_page_count = 1").execute(conn).await.unwrap();
        }
        let queue = Queue::new("q").unwrap();
        let jobs: Vec<NewJob> = (0..200).map(|_| NewJob::new("noop", &"x".repeat(2_000)).unwrap()).collect();
        let refused = broker.enqueue(&queue, &jobs).await;
        assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
        assert_eq!(broker.counts(&queue).await.unwrap(), Counts::default());
        // The new connection knows nothing of the bound: there is room again.
        broker.enqueue(&queue, &jobs).await.unwrap();
        assert_eq!(broker.counts(&queue).await.unwrap().pending, 200);
    }
}
