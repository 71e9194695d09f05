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
//!
//! *Upgrades*: the file carries the number of its format. The first process that opens an older
//! file upgrades it in one transaction, while others wait; a newer one is refused. Processes of
//! the older version that still run then get [`Unexpected`](crate::Error::Unexpected) from every
//! enqueue, exchange and control call, naming both formats (one of format 1 gets SQLite's own
//! words, `no such column: ended`), and write nothing until they are restarted with the newer
//! version: one file is shared by processes of one version at a time. Runs they had in hand end
//! with their leases and are claimed again.

mod attempts;
mod batch;
mod catalogue;
mod claim;
mod connection;
mod control;
mod enqueue;
mod exchange;
mod fault;
mod flow;
mod held;
mod inspect;
mod lanes;
mod ledger;
mod schema;
mod settle;
mod unique;
mod wake;
mod watch;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Mutex, MutexGuard, Notify, mpsc};
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::command::{
    Ack, Cancel, Counts, Enqueued, Exchange, Exchanged, Filter, Found, KEEP_TERMINAL, MAX_CONTROL, Page, WorkerInfo,
    slices,
};
use windlass_jobs::flow::{Mail, Message, Received};
use windlass_jobs::model::Full;
use windlass_jobs::{
    Clock, Durability, JobId, JobRecord, Lease, Limits, NewJob, Progress, Queue, State, SystemClock, Timestamp, Ulid,
};

use crate::{Broker, Control, Enqueue, Error, Inspect, Leases, Outbox, Result, Wake};
use connection::Connection;
use ledger::Ledger;
use wake::Wakes;
use watch::{Look, Watched};

/// How often the file is asked whether another process wrote.
const WATCH_EVERY: Duration = Duration::from_millis(20);
/// After a look at the watched jobs the watcher rests so many times as long as that took, within
/// these bounds: what is said may be late, the drain of a busy queue must not be.
const REST_TIMES: u32 = 5;
const SHORTEST_REST: Duration = Duration::from_millis(5);
const LONGEST_REST: Duration = Duration::from_millis(60);
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
    watched: Watched,
    /// Watched jobs may have changed.
    look: Arc<Notify>,
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
            watched: Watched::default(),
            look: Arc::default(),
            options,
        })))
    }

    async fn enqueue_slice(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        let mut writer = self.0.writer.lock().await;
        let is_synced = writer.sync(jobs.iter().any(|job| job.options.durability == Durability::Fsynced)).await?;
        let mut tx = writer.begin("enqueue").await?;
        let now = self.0.options.clock.now();
        let replies = enqueue::enqueue(tx.conn(), queue, jobs, now).await?;
        tx.commit("enqueue").await?;
        let full = |Full { max_waiting }| Error::QueueFull { queue: queue.clone(), max_waiting };
        let mut accepted = replies.map_err(full)?;
        for (reply, job) in accepted.replies.iter_mut().zip(jobs) {
            let asked = job.options.durability != Durability::Fast;
            reply.durability = if is_synced && asked { Durability::Fsynced } else { Durability::Fast };
        }
        let (any_fresh, any_clash) = accepted
            .replies
            .iter()
            .fold((false, false), |(fresh, clash), reply| (fresh || reply.fresh, clash || reply.clash.is_some()));
        if any_fresh || accepted.moved {
            self.0.wakes.wake_one(queue);
        }
        if any_fresh || any_clash {
            self.0.changed();
        }
        Ok(accepted.replies)
    }
}

impl Inner {
    /// Jobs may have changed: whoever watches one is told. Costs nothing when nobody does.
    fn changed(&self) {
        if self.watched.any() {
            self.look.notify_one();
        }
    }

    fn keep(&self) -> u64 {
        u64::try_from(self.options.keep).unwrap_or(u64::MAX)
    }

    /// Wakes an idle worker if the reply of a verb says so.
    fn wake_if<T>(&self, queue: &Queue, reply: Result<T>, is_news: impl FnOnce(&T) -> bool) -> Result<T> {
        if reply.as_ref().is_ok_and(is_news) {
            self.wakes.wake_one(queue);
        }
        reply
    }

    async fn hear_cancels(&self) {
        // After an error the next change brings them, or the worker's next renewal.
        if let Ok(requested) = self.read_requested().await {
            self.wakes.cancel(requested);
        }
    }

    async fn read_requested(&self) -> Result<Vec<(String, Queue, Lease)>> {
        let mut reader = self.reader().await;
        let requested = control::requested(reader.ready("watch").await?).await;
        if requested.is_err() {
            reader.doubt();
        }
        requested
    }

    async fn look_at_watched(&self) {
        for (queue, ulids) in self.watched.list() {
            self.look_at(&queue, &ulids).await;
        }
    }

    async fn look_at(&self, queue: &Queue, ulids: &[Ulid]) {
        match self.look(queue, ulids).await {
            Ok(looks) => self.watched.tell(queue, looks),
            // Looked at again soon.
            Err(_) => self.look.notify_one(),
        }
    }

    async fn look(&self, queue: &Queue, ulids: &[Ulid]) -> Result<HashMap<Ulid, Look>> {
        let mut reader = self.reader().await;
        let looks = watch::look(reader.ready("watch").await?, queue, ulids).await;
        if looks.is_err() {
            reader.doubt();
        }
        looks
    }

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
        $broker.0.changed();
        Ok(result)
    }};
}

#[async_trait]
impl Enqueue for SqliteBroker {
    async fn enqueue(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        let mut replies = Vec::with_capacity(jobs.len());
        for slice in slices(jobs) {
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
        let heard = exchange::heard(exchange, now);
        let peeked = exchange::peek(writer.ready("exchange").await?, queue, &heard, now).await;
        let mut outcome = match peeked {
            Ok(Some(outcome)) => outcome,
            Ok(None) => {
                let mut tx = writer.begin("exchange").await?;
                // Read again: the lock may have been waited for.
                let now = inner.options.clock.now();
                let heard = exchange::heard(exchange, now);
                let outcome = exchange::exchange(tx.conn(), queue, &heard, now, inner.keep()).await?;
                tx.commit("exchange").await?;
                inner.changed();
                outcome
            }
            Err(e) => {
                writer.doubt();
                return Err(e);
            }
        };
        if exchange.claim.as_ref().is_some_and(|claim| !claim.is_heard(outcome.reply.now)) {
            outcome.reply.next_due = Some(outcome.reply.now);
        }
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

    async fn tidy(&self, queue: &Queue, success: Duration, failure: Duration) -> Result<usize> {
        write!(self, "tidy", control::tidy, queue, success, failure, self.0.options.clock.now())
    }

    async fn unpark(&self, queue: &Queue, kinds: &[String]) -> Result<usize> {
        let back: Result<usize> = write!(self, "unpark", control::unpark, queue, kinds);
        self.0.wake_if(queue, back, |back| *back > 0)
    }

    async fn canary(&self, worker: &str, token: &str) -> Result<()> {
        self.0.wakes.send(worker, Wake::Canary(token.to_owned()));
        Ok(())
    }

    async fn announce(&self, worker: &WorkerInfo) -> Result<()> {
        write!(self, "announce", inspect::announce, worker, self.0.options.clock.now())
    }

    async fn publish(&self, kinds: &[KindInfo]) -> Result<()> {
        write!(self, "publish", catalogue::publish, kinds, self.0.options.clock.now())
    }

    async fn retire(&self, worker: &str) -> Result<()> {
        self.0.wakes.retire(worker);
        write!(self, "retire", inspect::retire, worker)
    }

    async fn wakes(&self, worker: &str) -> mpsc::UnboundedReceiver<Wake> {
        let receiver = self.0.wakes.register(worker);
        if !self.0.readers.is_empty() {
            self.start_watcher().await;
        }
        receiver
    }
}

#[async_trait]
impl Control for SqliteBroker {
    async fn cancel(&self, id: &JobId) -> Result<Cancel> {
        let clock = &self.0.options.clock;
        let result: Result<_> = write!(self, "cancel", control::cancel, id, clock.now(), self.0.keep());
        let (reply, tell, news) = result?;
        if news {
            self.0.wakes.wake_one(&id.queue);
        }
        if let Some((worker, lease)) = tell {
            self.0.wakes.send(&worker, Wake::Cancel(id.queue.clone(), lease));
        }
        Ok(reply)
    }

    async fn pause(&self, queue: &Queue, paused: bool) -> Result<()> {
        let waits: Result<bool> = write!(self, "pause", control::pause, queue, paused);
        self.0.wake_if(queue, waits, |waits| *waits).map(drop)
    }

    async fn set_max_waiting(&self, queue: &Queue, max: Option<u64>) -> Result<()> {
        write!(self, "set_max_waiting", control::set_max_waiting, queue, max)
    }

    async fn set_limits(&self, queue: &Queue, limits: &Limits) -> Result<()> {
        let waits: Result<bool> = write!(self, "set limits", lanes::set_limits, queue, limits);
        self.0.wake_if(queue, waits, |waits| *waits).map(drop)
    }

    async fn replay(&self, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>> {
        let mut replies = Vec::with_capacity(ulids.len());
        for slice in ulids.chunks(MAX_CONTROL) {
            let slice: Result<Vec<bool>> = write!(self, "replay", control::replay, queue, slice);
            replies.extend(self.0.wake_if(queue, slice, |slice| slice.contains(&true))?);
        }
        Ok(replies)
    }

    async fn delete(&self, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>> {
        let mut replies = Vec::with_capacity(ulids.len());
        for slice in ulids.chunks(MAX_CONTROL) {
            let slice: Result<Vec<bool>> = write!(self, "delete", control::delete, queue, slice);
            replies.extend(slice?);
        }
        Ok(replies)
    }
}

impl SqliteBroker {
    /// Starts the watcher unless it runs. What is written after this returns is noticed.
    async fn start_watcher(&self) {
        let known = match self.0.readers.len() {
            0 => None,
            _ => self.0.writer.lock().await.version().await.ok(),
        };
        let (inner, look) = (Arc::downgrade(&self.0), Arc::clone(&self.0.look));
        self.0.wakes.watch(|| tokio::spawn(watch_file(inner, look, known)));
    }
}

/// Tells this process what others did: idle workers that there may be jobs, workers that a run
/// is to be stopped, watchers that their job changed; the last of what this one did too.
async fn watch_file(inner: Weak<Inner>, look: Arc<Notify>, mut known: Option<(u64, i64)>) {
    loop {
        let mut is_new = tokio::time::timeout(WATCH_EVERY, look.notified()).await.is_ok();
        let Some(inner) = inner.upgrade() else { return };
        if !inner.wakes.is_listened(|| inner.watched.any()) {
            return;
        }
        if !inner.readers.is_empty() {
            // The writer's connection is the only one that does not count this process's own commits.
            let found = inner.writer.lock().await.version().await.ok();
            if found != known {
                known = found;
                is_new = true;
                inner.wakes.wake_all();
                inner.hear_cancels().await;
            }
        }
        if is_new && inner.watched.any() {
            let begun = Instant::now();
            inner.look_at_watched().await;
            let rest = begun.elapsed().saturating_mul(REST_TIMES).clamp(SHORTEST_REST, LONGEST_REST);
            drop(inner);
            tokio::time::sleep(rest).await;
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

    async fn search(&self, queue: &Queue, filter: &Filter, cursor: u64, limit: usize) -> Result<Found> {
        read!(self, "search", inspect::search, queue, filter, cursor, limit)
    }

    async fn counts(&self, queue: &Queue) -> Result<Counts> {
        let ledger = read!(self, "counts", Ledger::load, queue, "counts")?;
        Ok(ledger.unwrap_or_default().counts)
    }

    async fn limits(&self, queue: &Queue) -> Result<Limits> {
        let ledger = read!(self, "limits", Ledger::load, queue, "limits")?;
        Ok(ledger.and_then(|ledger| ledger.lanes).map(|lanes| lanes.limits).unwrap_or_default())
    }

    async fn queues(&self) -> Result<Vec<Queue>> {
        read!(self, "queues", inspect::queues)
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        read!(self, "workers", inspect::workers, self.0.options.clock.now())
    }

    async fn kinds(&self) -> Result<Vec<KindInfo>> {
        read!(self, "kinds", catalogue::kinds)
    }

    async fn watch(&self, id: &JobId) -> mpsc::UnboundedReceiver<()> {
        let receiver = self.0.watched.add(id);
        self.start_watcher().await;
        // What it looks like now, so that the first change is one.
        self.0.look_at(&id.queue, &[id.ulid]).await;
        receiver
    }

    async fn ping(&self) -> Result<()> {
        read!(self, "ping", inspect::queues).map(drop)
    }
}

#[async_trait]
impl Outbox for SqliteBroker {
    async fn outbox(&self, queue: &Queue) -> Result<Mail> {
        read!(self, "read outbox", flow::outbox, queue, self.0.options.clock.now())
    }

    async fn receive(&self, queue: &Queue, messages: &[Message]) -> Result<Received> {
        let now = self.0.options.clock.now();
        let reply: Result<_> = write!(self, "receive", flow::receive, queue, messages, now, self.0.keep());
        let reply = self.0.wake_if(queue, reply, |(_, news)| *news);
        reply.map(|(heard, _)| Received { now, heard })
    }

    async fn sent(&self, queue: &Queue, done: &[Message], again: &[Message], later: Timestamp) -> Result<()> {
        write!(self, "write outbox", flow::sent, queue, done, again, later)
    }
}

impl Broker for SqliteBroker {
    fn engine(&self) -> &'static str {
        "sqlite"
    }

    fn generation(&self) -> u64 {
        0
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
