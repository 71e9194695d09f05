//! Carrying over what queues have to say to each other about jobs that wait for others; see
//! [`windlass_jobs::flow`].
//!
//! Every step may be lost with its process, or done twice: a message leaves the outbox after it
//! was heard, and hearing it again changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use windlass_jobs::command::{Cancel, SLICE};
use windlass_jobs::flow::{Ended, Heard, Mail, Message, News, Received, UNKNOWN_FOR, ask_again_after};
use windlass_jobs::{JobId, JobRecord, Queue, Timestamp};

use crate::{Control, Inspect, Result};

/// The most jobs that [`cancel_tree`] cancels.
pub const MAX_TREE: usize = 10_000;

/// What one queue says to another, as an engine keeps it.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// What a queue has to say by now; see [`Model::outbox`](windlass_jobs::model::Model::outbox).
    ///
    /// # Errors
    /// [`Error`](crate::Error).
    async fn outbox(&self, queue: &Queue) -> Result<Mail>;

    /// Says messages to the jobs of one queue that they are to, at most [`SLICE`]; see
    /// [`Model::receive`](windlass_jobs::model::Model::receive).
    ///
    /// # Errors
    /// [`Error`](crate::Error).
    async fn receive(&self, queue: &Queue, messages: &[Message]) -> Result<Received>;

    /// Takes messages that were heard off a queue's outbox, and puts off others.
    ///
    /// # Errors
    /// [`Error`](crate::Error).
    async fn sent(&self, queue: &Queue, done: &[Message], again: &[Message], later: Timestamp) -> Result<()>;
}

/// What [`forward`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// So many messages were carried over, or put off.
    pub messages: usize,
    /// There may be more that are due.
    pub more: bool,
    /// After how long some are to be said again.
    pub again: Option<Duration>,
    /// Jobs that were told of the success of one they depend on, each with that one.
    pub told: Vec<(JobId, JobId)>,
}

/// Carries over what a queue has to say by now, [`SLICE`] messages at most. Expected of a worker
/// whenever an exchange answers that a message is due.
///
/// # Errors
/// [`Error`](crate::Error). What was not taken off the outbox is said again the next time.
pub async fn forward<B: Outbox + ?Sized>(broker: &B, queue: &Queue) -> Result<Forwarded> {
    let Mail { now, messages } = broker.outbox(queue).await?;
    if messages.is_empty() {
        return Ok(Forwarded::default());
    }
    let count = messages.len();
    let mut by_queue: BTreeMap<Queue, Vec<Message>> = BTreeMap::new();
    for message in messages {
        by_queue.entry(message.to.queue.clone()).or_default().push(message);
    }
    let (mut done, mut again, mut answers) = (Vec::with_capacity(count), Vec::new(), Vec::new());
    let mut told = Vec::new();
    let succeeded = |message: &Message| {
        (message.news == News::Ended(Ended::Success)).then(|| (message.to.clone(), message.from.clone()))
    };
    let mut wait: Option<Duration> = None;
    for (to, messages) in by_queue {
        let heard = broker.receive(&to, &messages).await?.heard;
        told.extend(messages.iter().filter_map(succeeded));
        for (message, heard) in messages.into_iter().zip(heard) {
            match (message.news, heard) {
                (News::Waits(since), Heard::Ended(Ended::Unknown)) if now.since(since) < UNKNOWN_FOR => {
                    let after = ask_again_after(now.since(since));
                    wait = Some(wait.map_or(after, |before| before.min(after)));
                    again.push(message);
                }
                (News::Waits(_), Heard::Ended(ended)) => {
                    let (to, from) = (message.from.clone(), message.to.clone());
                    answers.push(Message { to, from, news: News::Ended(ended) });
                    done.push(message);
                }
                _ => done.push(message),
            }
        }
    }
    if !answers.is_empty() {
        broker.receive(queue, &answers).await?;
        told.extend(answers.iter().filter_map(succeeded));
    }
    broker.sent(queue, &done, &again, now.plus(wait.unwrap_or_default())).await?;
    Ok(Forwarded { messages: count, more: count >= SLICE, again: wait, told })
}

/// Cancels a job and every job it is tied to, however far, by what depends on what: those that
/// wait first, so that nothing new starts. Answers what became of each, the job itself first.
///
/// Jobs that were enqueued so recently that their parents were not told of them yet are cancelled
/// by what they depend on, unless that is to make them run. A job that `may` is false for is left
/// alone, with all that is tied to it only.
///
/// # Errors
/// [`Error`](crate::Error); some may be cancelled. At most [`MAX_TREE`] are.
pub async fn cancel_tree<B: Inspect + Control + ?Sized>(
    broker: &B,
    id: &JobId,
    may: impl Fn(&JobRecord) -> bool + Send + Sync,
) -> Result<Vec<(JobId, Cancel)>> {
    let (mut seen, mut todo, mut jobs) = (BTreeSet::from([id.clone()]), vec![id.clone()], Vec::new());
    while let Some(next) = todo.pop() {
        let Some(record) = broker.get(&next).await?.filter(&may) else { continue };
        let parents = record.options.depends_on.map(|after| after.parents).unwrap_or_default();
        for tied in parents.into_iter().chain(record.children) {
            if seen.len() < MAX_TREE && seen.insert(tied.clone()) {
                todo.push(tied);
            }
        }
        jobs.push((record.waits_for == 0, next));
    }
    jobs.sort();
    let mut cancelled = Vec::with_capacity(jobs.len());
    for (_, job) in jobs {
        let reply = broker.cancel(&job).await?;
        cancelled.push((job, reply));
    }
    cancelled.sort_by_key(|(job, _)| job != id);
    Ok(cancelled)
}
