//! Jobs that were accepted while the queue's store was away: a folder of append-only files.
//!
//! A job is accepted once its line, with a checksum, has reached the disk. When the store is back
//! every line is forwarded under its own id, which changes nothing where the id is known, and how
//! far that came is written down as well: a crash in between forwards nothing twice. Each process
//! writes a file of its own and holds a lock on it; files of processes that are gone are taken over.

mod entry;
mod files;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use windlass_broker::Enqueue;
use windlass_jobs::command::MAX_ENQUEUE;
use windlass_jobs::{Durability, NewJob, Queue, Ulid};

use entry::Entry;
use files::{Reader, Segment};

/// A folder that keeps jobs until they can be forwarded. Clones share it.
#[derive(Debug, Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    max_bytes: u64,
    state: Mutex<State>,
    /// Said when a job has come in.
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What is written to.
    current: Option<Segment>,
    /// Written to no more, in order.
    closed: Vec<Segment>,
    /// The jobs in all of them, and whose they are.
    held: HashMap<Ulid, Option<String>>,
    /// Whether it has been said that jobs come in.
    said: bool,
}

/// A job that waits, and whose it is.
type Held = (Ulid, Option<String>);

/// Why a job was not spooled. It was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It would be larger than allowed.
    #[error("the spool is full: {max_bytes} bytes are allowed")]
    Full {
        /// See [`Spool::open`].
        max_bytes: u64,
    },
    /// The disk refused.
    #[error("spool {}", dir.display())]
    Disk {
        /// The folder.
        dir: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

impl Spool {
    /// Default bound of a spool, in bytes.
    pub const MAX_BYTES: u64 = 256 * 1024 * 1024;
    /// How often the store is tried while jobs wait, at most.
    const RETRY_EVERY: Duration = Duration::from_millis(500);
    /// How often the folder is searched for files of processes that are gone.
    const SEARCH_EVERY: Duration = Duration::from_secs(10);

    /// Opens a folder, which is made on the first job, for at most `max_bytes` of waiting jobs of
    /// this process. Jobs that processes before this one left there are held again.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        let mut state = State::default();
        adopt(dir, &mut state)?;
        let inner = Inner { dir: dir.to_owned(), max_bytes, state: Mutex::new(state), filled: Notify::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How many jobs wait here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.state().held.len()
    }

    /// True when nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True when this job waits here: it is accepted, though no queue knows it yet.
    #[must_use]
    pub fn holds(&self, ulid: Ulid) -> bool {
        self.inner.state().held.contains_key(&ulid)
    }

    /// Whose job it is, if it waits here; the inner one is none where a job has no tenant.
    #[must_use]
    pub fn tenant_of(&self, ulid: Ulid) -> Option<Option<String>> {
        self.inner.state().held.get(&ulid).cloned()
    }

    /// Writes jobs down; they are on the disk when this returns.
    ///
    /// # Errors
    /// [`SpoolError`]: none of them is kept.
    pub async fn put(&self, queue: &Queue, jobs: &[NewJob]) -> Result<(), SpoolError> {
        let lines: Vec<String> = jobs.iter().map(|job| Entry::new(queue, job).to_line()).collect();
        let held: Vec<Held> = jobs.iter().map(|job| (job.ulid, job.options.tenant.clone())).collect();
        let inner = Arc::clone(&self.inner);
        let writing = tokio::task::spawn_blocking(move || inner.write(&lines, held));
        let disk = |source| SpoolError::Disk { dir: self.inner.dir.clone(), source };
        writing.await.map_err(|e| disk(io::Error::other(e)))??;
        self.inner.filled.notify_one();
        Ok(())
    }

    /// Forwards whatever waits here, now and later, until the task is aborted.
    pub async fn forward(self, broker: Arc<dyn Enqueue>) {
        loop {
            match self.forward_all(broker.as_ref()).await {
                Ok(0) => {}
                Ok(forwarded) => tracing::info!(forwarded, left = self.len(), "spooled jobs are on their queues"),
                Err(Stop::Away) => {
                    // Processes that lost the store together do not come back together.
                    let spread = Duration::from_millis(u64::from(std::process::id()) % 100);
                    tokio::time::sleep(Self::RETRY_EVERY + spread).await;
                    continue;
                }
                Err(Stop::Disk(error)) => {
                    tracing::error!(%error, spool = %self.inner.dir.display(), "spooled jobs cannot be read; tried again");
                    tokio::time::sleep(Self::SEARCH_EVERY).await;
                }
            }
            let _ = tokio::time::timeout(Self::SEARCH_EVERY, self.inner.filled.notified()).await;
        }
    }

    /// Forwards what is there now; how many jobs that were.
    async fn forward_all(&self, broker: &dyn Enqueue) -> Result<usize, Stop> {
        let mut forwarded = 0;
        while let Some(mut segment) = self.inner.next()? {
            let result = self.forward_one(broker, &mut segment, &mut forwarded).await;
            if let Err(stop) = result {
                self.inner.state().closed.insert(0, segment);
                return Err(stop);
            }
            segment.remove()?;
        }
        Ok(forwarded)
    }

    async fn forward_one(&self, broker: &dyn Enqueue, segment: &mut Segment, sum: &mut usize) -> Result<(), Stop> {
        let mut reader = segment.reader()?;
        loop {
            let batch = next_batch(&mut reader)?;
            let Some(queue) = batch.queue else { return Ok(()) };
            match broker.enqueue(&queue, &batch.jobs).await {
                Ok(replies) => {
                    let durabilities: Vec<Durability> = replies.iter().map(|reply| reply.durability).collect();
                    for reply in replies {
                        if let Some(clash) = reply.clash {
                            tracing::warn!(%queue, job = %reply.ulid, with = %clash.with, replaced = clash.replaced,
                                "a spooled job's unique key was held when it was forwarded");
                        }
                    }
                    say_what_is_missed(&queue, &batch.jobs, &durabilities);
                    *sum += batch.jobs.len();
                }
                Err(windlass_broker::Error::QueueFull { .. }) => {
                    // Others behind it are not held up.
                    self.inner.write(&batch.lines, Vec::new()).map_err(|e| Stop::Disk(io::Error::other(e)))?;
                    segment.passed(reader.at())?;
                    return Err(Stop::Away);
                }
                Err(error @ windlass_broker::Error::Unexpected { .. }) => {
                    tracing::error!(%queue, jobs = batch.jobs.len(), error = %error, file = %segment.refused().display(),
                        "spooled jobs are refused; they are kept in a file");
                    segment.refuse(&batch.lines)?;
                }
                Err(_) => return Err(Stop::Away),
            }
            segment.passed(reader.at())?;
            let mut state = self.inner.state();
            for job in &batch.jobs {
                state.held.remove(&job.ulid);
            }
            if state.held.is_empty() {
                state.said = false;
            }
        }
    }
}

/// Why forwarding ends early.
#[derive(Debug)]
enum Stop {
    /// The store is not there yet.
    Away,
    /// A file cannot be read or written.
    Disk(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Whoever asked for more than was reached has gone: the log says it.
fn say_what_is_missed(queue: &Queue, jobs: &[NewJob], reached: &[Durability]) {
    for (job, reached) in jobs.iter().zip(reached) {
        let wish = job.options.durability;
        if wish != Durability::Fast && *reached == Durability::Fast {
            tracing::warn!(%queue, job = %job.ulid, %wish, "a spooled job was forwarded, but is no more than fast");
        }
    }
}

/// Jobs of one queue that stand one after the other.
#[derive(Default)]
struct Batch {
    queue: Option<Queue>,
    jobs: Vec<NewJob>,
    lines: Vec<String>,
}

fn next_batch(reader: &mut Reader) -> io::Result<Batch> {
    let mut batch = Batch::default();
    while batch.jobs.len() < MAX_ENQUEUE {
        let Some(line) = reader.peek()? else { break };
        let Some((queue, job)) = Entry::of_line(line).and_then(Entry::job) else {
            reader.skip_broken();
            continue;
        };
        if batch.queue.as_ref().is_some_and(|own| *own != queue) {
            break;
        }
        batch.queue = Some(queue);
        batch.jobs.push(job);
        batch.lines.push(reader.take());
    }
    Ok(batch)
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, lines: &[String], new: Vec<Held>) -> Result<(), SpoolError> {
        let disk = |source| SpoolError::Disk { dir: self.dir.clone(), source };
        let mut state = self.state();
        let bytes: u64 = lines.iter().map(|line| line.len() as u64).sum();
        let kept: u64 = state.closed.iter().chain(&state.current).map(Segment::bytes).sum();
        // What only changes its place was accepted before.
        if !new.is_empty() && kept + bytes > self.max_bytes {
            return Err(SpoolError::Full { max_bytes: self.max_bytes });
        }
        let mut segment = match state.current.take() {
            Some(segment) => segment,
            None => Segment::create(&self.dir).map_err(disk)?,
        };
        let written = segment.append(lines);
        state.current = Some(segment);
        written.map_err(disk)?;
        state.held.extend(new);
        if !std::mem::replace(&mut state.said, true) {
            tracing::warn!(spool = %self.dir.display(), "the queue's store is away: jobs are accepted into the spool");
        }
        Ok(())
    }

    /// The oldest file, which is then written to no more.
    fn next(&self) -> io::Result<Option<Segment>> {
        let mut state = self.state();
        if state.closed.is_empty() {
            let current = state.current.take();
            state.closed.extend(current);
        }
        if state.closed.is_empty() {
            adopt(&self.dir, &mut state)?;
        }
        Ok(if state.closed.is_empty() { None } else { Some(state.closed.remove(0)) })
    }
}

/// Takes over the files that no process holds.
fn adopt(dir: &Path, state: &mut State) -> io::Result<()> {
    for mut segment in files::orphans(dir)? {
        let mut reader = segment.reader()?;
        while let Some(line) = reader.peek()? {
            state.held.extend(Entry::of_line(line).and_then(|entry| entry.held()));
            reader.take();
        }
        state.closed.push(segment);
    }
    Ok(())
}
