//! Puts jobs on queues; small enough for a web service to depend on.
//!
//! It never runs a job, never knows a kind, and has no SQL and no HTTP in its tree (a test).

#![forbid(unsafe_code)]

#[cfg(feature = "catalogue")]
mod catalogue;
mod flow;
#[cfg(feature = "spool")]
mod spool;
pub mod trace;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use windlass_broker::Enqueue;
use windlass_jobs::command::Clash;
use windlass_jobs::{Durability, JobId, NewJob, Queue, Violation};

#[cfg(feature = "catalogue")]
pub use catalogue::Catalogue;
pub use flow::{Flow, MAX_FLOW, MAX_TIES};
#[cfg(feature = "spool")]
pub use spool::{Spool, SpoolError};
use trace::Sending;

/// Puts jobs on queues. Clones share the broker.
///
/// ```
/// # use std::sync::{Arc, Mutex};
/// use windlass_broker::Enqueue;
/// use windlass_jobs::{NewJob, Queue};
/// use windlass_producer::Producer;
/// # use windlass_jobs::command::Enqueued;
/// # struct Shelf(Mutex<usize>);
/// # #[async_trait::async_trait]
/// # impl Enqueue for Shelf {
/// #     async fn enqueue(&self, _: &Queue, jobs: &[NewJob]) -> windlass_broker::Result<Vec<Enqueued>> {
/// #         *self.0.lock().unwrap() += jobs.len();
/// #         Ok(jobs.iter().map(|job| Enqueued::fresh(job.ulid)).collect())
/// #     }
/// # }
///
/// # async fn example(broker: Arc<dyn Enqueue>) -> Result<(), Box<dyn std::error::Error>> {
/// // `broker` is any engine, such as `windlass_broker::redis::RedisBroker` in an `Arc`.
/// let producer = Producer::new(broker);
/// let mail = Queue::new("mail")?;
/// let job = NewJob::new("mail.welcome", &serde_json::json!({ "user": 7 }))?;
/// let accepted = producer.enqueue(&mail, job).await?;
/// assert!(accepted.fresh);
/// println!("{}", accepted.id); // 01K9ZQ4T8Z6V0YQ0M5R7T2W3XK.mail
/// # Ok(())
/// # }
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(example(Arc::new(Shelf(Mutex::new(0))))).unwrap();
/// ```
#[derive(Clone)]
pub struct Producer {
    broker: Arc<dyn Enqueue>,
    #[cfg(feature = "catalogue")]
    catalogue: Option<Arc<Catalogue>>,
    #[cfg(feature = "spool")]
    spool: Option<Spool>,
}

impl Producer {
    /// A producer for the queues of a broker.
    #[must_use]
    pub fn new(broker: Arc<dyn Enqueue>) -> Self {
        Self {
            broker,
            #[cfg(feature = "catalogue")]
            catalogue: None,
            #[cfg(feature = "spool")]
            spool: None,
        }
    }

    /// Accepts jobs into a spool while the broker does not answer. Somebody has to
    /// [forward](Spool::forward) it.
    #[cfg(feature = "spool")]
    #[must_use]
    pub fn spooling(mut self, spool: Spool) -> Self {
        self.spool = Some(spool);
        self
    }

    /// Writes jobs down that the broker did not answer for: some of them may be on their queue, on
    /// which their ids are known then.
    #[cfg(feature = "spool")]
    async fn kept(&self, queue: &Queue, jobs: &[NewJob], error: &windlass_broker::Error) -> Option<Vec<Accepted>> {
        let spool = self.spool.as_ref().filter(|_| matches!(error, windlass_broker::Error::Unavailable { .. }))?;
        // What depends on other jobs is tied to them on their queues, or not accepted.
        if jobs.iter().any(|job| job.options.depends_on.is_some()) {
            return None;
        }
        if let Err(error) = spool.put(queue, jobs).await {
            tracing::error!(error = %error, cause = ?std::error::Error::source(&error), "a job is not spooled");
            return None;
        }
        let id = |job: &NewJob| JobId::new(job.ulid, queue.clone());
        Some(
            jobs.iter()
                .map(|job| Accepted { id: id(job), fresh: true, clash: None, durability: None, spooled: true })
                .collect(),
        )
    }

    #[cfg(not(feature = "spool"))]
    #[expect(clippy::unused_async, reason = "the same with and without a spool")]
    async fn kept(&self, _: &Queue, _: &[NewJob], _: &windlass_broker::Error) -> Option<Vec<Accepted>> {
        None
    }

    /// Checks jobs against what workers have published about their kinds, too: args that do not
    /// fit, and kinds that no worker ever published, are refused.
    #[cfg(feature = "catalogue")]
    #[must_use]
    pub fn checked(mut self, catalogue: Arc<Catalogue>) -> Self {
        self.catalogue = Some(catalogue);
        self
    }

    #[cfg(feature = "catalogue")]
    fn refused_by_kind(&self, jobs: &[NewJob]) -> Vec<Refusal> {
        self.catalogue.as_ref().map(|catalogue| catalogue.check_all(jobs)).unwrap_or_default()
    }

    #[cfg(not(feature = "catalogue"))]
    fn refused_by_kind(&self, _: &[NewJob]) -> Vec<Refusal> {
        Vec::new()
    }

    /// Puts one job, owned or borrowed, on a queue.
    ///
    /// # Errors
    /// [`Error::Refused`] when something is wrong with the job: nothing was queued.
    /// [`Error::Broker`] when the broker did not answer in order.
    pub async fn enqueue(
        &self,
        queue: &Queue,
        job: impl std::borrow::Borrow<NewJob> + Send + Sync,
    ) -> Result<Accepted, Error> {
        let accepted = self.enqueue_slice(queue, std::slice::from_ref(job.borrow()).into()).await?;
        accepted.into_iter().next().ok_or_else(|| short_answer(0, 1))
    }

    /// Puts jobs, a `Vec` or a slice of any length, on a queue, in order. Answers one entry
    /// per job, in order. Jobs that are lent and belong to a trace are copied.
    ///
    /// Every job is checked before the first is sent. Over
    /// [`MAX_ENQUEUE`](windlass_jobs::command::MAX_ENQUEUE) jobs are accepted slice by slice.
    ///
    /// # Errors
    /// [`Error::Refused`] with everything wrong with any of the jobs: none was queued.
    /// [`Error::Broker`]: the first slices may have been accepted. Enqueuing the same jobs
    /// again is safe: an id that is known changes nothing.
    pub async fn enqueue_all<'a>(
        &self,
        queue: &Queue,
        jobs: impl Into<Cow<'a, [NewJob]>> + Send,
    ) -> Result<Vec<Accepted>, Error> {
        self.enqueue_slice(queue, jobs.into()).await
    }

    async fn enqueue_slice(&self, queue: &Queue, mut jobs: Cow<'_, [NewJob]>) -> Result<Vec<Accepted>, Error> {
        let mut refusals = check_all(&jobs);
        refusals.extend(self.refused_by_kind(&jobs));
        if !refusals.is_empty() {
            return Err(Error::Refused(refusals));
        }
        let Some(sending) = Sending::begin() else { return self.send(queue, &jobs).await };
        if jobs.iter().any(|job| job.options.trace.is_none()) {
            jobs.to_mut().iter_mut().for_each(|job| sending.mark(job));
        }
        let sent = self.send(queue, &jobs).await;
        sending.end(Some(queue), &jobs, sent.as_deref());
        sent
    }

    /// Puts each job on its shard where its queue is spread over some, before its id is told to anybody;
    /// those that depend on another of them follow it.
    ///
    /// # Errors
    /// Jobs whose keys belong on different shards.
    pub fn place(&self, jobs: &mut [(&mut Queue, &mut NewJob)]) -> Result<(), Vec<Refusal>> {
        let (mut wrong, mut moved) = (Vec::new(), HashMap::new());
        for (index, (queue, job)) in jobs.iter_mut().enumerate() {
            match windlass_jobs::place(queue, self.broker.shards(queue), job) {
                Ok(shard) if shard == **queue => {}
                Ok(shard) => {
                    moved.insert(JobId::new(job.ulid, queue.clone()), shard.clone());
                    **queue = shard;
                }
                Err(violation) => wrong.push(Refusal { index, violation }),
            }
        }
        for (_, job) in jobs.iter_mut().filter(|_| !moved.is_empty()) {
            for parent in job.options.depends_on.iter_mut().flat_map(|after| &mut after.parents) {
                if let Some(shard) = moved.get(parent) {
                    parent.queue = shard.clone();
                }
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Sends jobs that were checked, each to its shard.
    async fn send(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Accepted>, Error> {
        if self.broker.shards(queue) == 1 {
            return self.send_to(queue, jobs).await;
        }
        let mut placed: Vec<(Queue, NewJob)> = jobs.iter().map(|job| (queue.clone(), job.clone())).collect();
        self.place(&mut placed.iter_mut().map(|(queue, job)| (queue, job)).collect::<Vec<_>>())
            .map_err(Error::Refused)?;
        let mut parts: BTreeMap<Queue, (Vec<usize>, Vec<NewJob>)> = BTreeMap::new();
        for (index, (shard, job)) in placed.into_iter().enumerate() {
            let (indexes, jobs) = parts.entry(shard).or_default();
            indexes.push(index);
            jobs.push(job);
        }
        let mut accepted: Vec<Option<Accepted>> = vec![None; jobs.len()];
        for (shard, (indexes, jobs)) in parts {
            for (index, reply) in indexes.into_iter().zip(self.send_to(&shard, &jobs).await?) {
                accepted[index] = Some(reply);
            }
        }
        Ok(accepted.into_iter().flatten().collect())
    }

    /// Sends jobs to a queue that is not spread, or to a shard.
    async fn send_to(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Accepted>, Error> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let replies = match self.broker.enqueue(queue, jobs).await {
            Ok(replies) => replies,
            Err(error) => return self.kept(queue, jobs, &error).await.ok_or(Error::Broker(error)),
        };
        if replies.len() != jobs.len() {
            return Err(short_answer(replies.len(), jobs.len()));
        }
        let accepted = |(reply, job): (windlass_jobs::command::Enqueued, &NewJob)| Accepted {
            id: JobId::new(reply.clash.map_or(reply.ulid, |clash| clash.with), queue.clone()),
            fresh: reply.fresh,
            clash: reply.clash,
            durability: (job.options.durability != Durability::Fast).then_some(reply.durability),
            spooled: false,
        };
        Ok(replies.into_iter().zip(jobs).map(accepted).collect())
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Producer")
    }
}

/// A job the broker or the spool has: it is not lost from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// By which anyone finds it again: with a clash that of the job which holds the unique key.
    pub id: JobId,
    /// False when the id was known before, and nothing was changed, or there is a clash.
    pub fresh: bool,
    /// Another job with its unique key stands for it.
    pub clash: Option<Clash>,
    /// What was reached, if more than [`Durability::Fast`] was asked for and it is not spooled. The
    /// job is accepted, whatever it says.
    pub durability: Option<Durability>,
    /// It waits on this machine's disk for the broker to answer again; a clash is seen only then.
    pub spooled: bool,
}

/// One thing wrong with one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which job, from 0.
    pub index: usize,
    /// What is wrong; its path starts at the job (`"/args"`, `"/max_attempts"`).
    pub violation: Violation,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Violation { path, message, .. } = &self.violation;
        write!(f, "job {}, {path}: {message}", self.index)
    }
}

/// Why jobs were not, or may not have been, enqueued.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something is wrong with the jobs. None was queued.
    #[error("refused: {}", list(.0))]
    Refused(Vec<Refusal>),
    /// The broker did not do it, or its answer was lost; see [`windlass_broker::Error`].
    #[error("enqueue")]
    Broker(#[from] windlass_broker::Error),
}

/// Everything wrong with any of the jobs that can be known without their kinds, in order.
#[must_use]
pub fn check_all(jobs: &[NewJob]) -> Vec<Refusal> {
    let of_one = |(index, job): (usize, &NewJob)| {
        job.check().into_iter().map(move |violation| Refusal { index, violation }).collect::<Vec<_>>()
    };
    jobs.iter().enumerate().flat_map(of_one).collect()
}

/// The first refusals, and how many more there are.
fn list(refusals: &[Refusal]) -> String {
    const SHOWN: usize = 5;
    let mut text = refusals.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if refusals.len() > SHOWN {
        text.push_str(&format!("; {} more", refusals.len() - SHOWN));
    }
    text
}

fn short_answer(found: usize, expected: usize) -> Error {
    let detail = format!("{found} answers for {expected} jobs");
    Error::Broker(windlass_broker::Error::Unexpected { operation: "enqueue", detail })
}
