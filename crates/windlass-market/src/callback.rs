//! Closing by another application's own code: `trading.call_close`, and the relay that asks for it.
//!
//! What is asked for stands in the tables. For each of it the relay enqueues one job under an id made of
//! the leg's key, so that however often it does so there is one; and writes down what the job ends in.
//! The job is a kind of that application's, or ours that calls it over HTTP. Both are sent the key, and
//! must answer the same for a key that they have seen. Jobs are read by many: no price stands in their args,
//! results and errors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use windlass_jobs::{Backoff, JobId, NewJob, Outcome, Queue, Ulid, Violation, chain};
use windlass_worker::{InlineKind, KindSpec, RunContext};

use crate::kinds::{QUEUE, done, failed};
use crate::market::{Inner, Market};
use crate::positions::{After, Answered, AskState, Asked, AskedCount, Callback, Hold, Holder, Positions, Waiting};
use crate::stop::Stop;

/// Where jobs of closings go, and what becomes of them.
#[async_trait]
pub trait CloseJobs: Send + Sync {
    /// Enqueues a job; one of a known id changes nothing.
    ///
    /// # Errors
    /// Why not, for the log.
    async fn enqueue(&self, queue: &Queue, job: NewJob) -> Result<(), String>;
    /// What has become of a job.
    ///
    /// # Errors
    /// Why that is not known, for the log.
    async fn fate(&self, id: &JobId) -> Result<Fate, String>;
}

/// What has become of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// There is none of this id.
    Unknown,
    /// It has not ended.
    Open,
    /// It answered this.
    Done(Value),
    /// It lies in the dead set, or was cancelled: the code of its error.
    Dead(String),
}

/// What a pass over the open closings did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Jobs enqueued.
    pub enqueued: u64,
    /// Closings answered.
    pub answered: u64,
    /// Closings that failed for good just now.
    pub failed: u64,
    /// What went wrong first, for the log. The other closings were looked at in any case.
    pub trouble: Option<String>,
}

/// Closings looked at in one pass, of each state.
const MOST: i64 = 500;
/// Closings looked at, at once.
const AT_ONCE: usize = 4;

/// Where the looking at open closings goes on: each is looked at in its turn, however many there are.
#[derive(Debug, Default)]
pub struct Relay {
    enqueued: Option<After>,
    failed: Option<After>,
    gone: Option<After>,
}

impl Relay {
    /// Asks for what is to be closed, and writes down what was answered. Failed ones are looked at too if
    /// asked for: a job may have been taken out of the dead set and have succeeded.
    pub async fn pass(
        &mut self,
        store: &Positions,
        jobs: &dyn CloseJobs,
        callback: &Callback,
        with_failed: bool,
    ) -> Relayed {
        let mut relayed = Relayed::default();
        let queue = match Queue::new(callback.queue()) {
            Ok(queue) => queue,
            Err(error) => return Relayed { trouble: Some(error.to_string()), ..relayed },
        };
        let desk = Desk { store, jobs, callback, queue };
        desk.enqueue_new(&mut relayed).await;
        desk.look(Waiting::Enqueued, &mut self.enqueued, &mut relayed).await;
        if with_failed {
            desk.look(Waiting::Failed, &mut self.failed, &mut relayed).await;
            desk.look(Waiting::Gone, &mut self.gone, &mut relayed).await;
        }
        relayed
    }
}

impl Relayed {
    fn note<T>(&mut self, done: Result<T, String>) -> Option<T> {
        done.map_err(|error| self.trouble.get_or_insert(error)).ok()
    }
}

/// What a pass works with.
struct Desk<'a> {
    store: &'a Positions,
    jobs: &'a dyn CloseJobs,
    callback: &'a Callback,
    queue: Queue,
}

impl Desk<'_> {
    /// Enqueues the jobs of all that was asked for since, however old others are that wait for an answer.
    async fn enqueue_new(&self, relayed: &mut Relayed) {
        let mut after = None;
        loop {
            let page = self.store.asked(Waiting::New, after, MOST).await.map_err(|e| chain(&e));
            let Some(page) = relayed.note(page) else { return };
            let is_last = i64::try_from(page.len()).unwrap_or(MOST) < MOST;
            after = page.last().map(After::from);
            let mut done = stream::iter(page).map(|asked| self.enqueue(asked)).buffer_unordered(AT_ONCE);
            let mut enqueued = Vec::new();
            while let Some(one) = done.next().await {
                enqueued.extend(relayed.note(one));
            }
            drop(done);
            relayed.enqueued += enqueued.len() as u64;
            relayed.note(self.store.enqueued(&enqueued).await.map_err(|e| chain(&e)));
            // Where not one was taken the others wait.
            if is_last || enqueued.is_empty() {
                return;
            }
        }
    }

    async fn enqueue(&self, asked: Asked) -> Result<After, String> {
        let job = job(&asked, self.callback).map_err(|e| e.to_string())?;
        self.jobs.enqueue(&self.queue, job).await.map(|()| After::from(&asked))
    }

    /// Looks what has become of the next ones.
    async fn look(&self, waiting: Waiting, place: &mut Option<After>, relayed: &mut Relayed) {
        let page = self.store.asked(waiting, *place, MOST).await.map_err(|e| chain(&e));
        let Some(page) = relayed.note(page) else { return };
        let is_last = i64::try_from(page.len()).unwrap_or(MOST) < MOST;
        *place = page.last().filter(|_| !is_last).map(After::from);
        let mut done = stream::iter(page).map(|asked| self.settle(asked)).buffer_unordered(AT_ONCE);
        while let Some(one) = done.next().await {
            let Some(one) = relayed.note(one) else { continue };
            relayed.enqueued += one.enqueued;
            relayed.answered += one.answered;
            relayed.failed += one.failed;
        }
    }

    async fn settle(&self, asked: Asked) -> Result<Relayed, String> {
        let mut relayed = Relayed::default();
        match self.jobs.fate(&JobId::new(ulid(&asked), self.queue.clone())).await? {
            // The queue has lost it.
            Fate::Unknown if asked.state == AskState::Asked => {
                self.enqueue(asked).await?;
                relayed.enqueued = 1;
            }
            Fate::Unknown | Fate::Open => {}
            Fate::Done(answer) => match answer_of(&answer) {
                Some(answered) => {
                    let fresh = self.store.answered(&asked, answered, &answer).await.map_err(|e| chain(&e))?;
                    relayed.answered = u64::from(fresh);
                }
                None => relayed.failed = fail(self.store, &asked, "callback_answer").await?,
            },
            Fate::Dead(code) => relayed.failed = fail(self.store, &asked, word(&code)).await?,
        }
        Ok(relayed)
    }
}

/// A code of an error; what is none may hold anything, and is not shown.
fn word(code: &str) -> &str {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
    if (1..=64).contains(&code.len()) && code.bytes().all(is_word) { code } else { "failed" }
}

async fn fail(store: &Positions, asked: &Asked, why: &str) -> Result<u64, String> {
    let fresh = store.ask_failed(asked, why).await.map_err(|e| chain(&e))?;
    if fresh {
        tracing::error!(
            position = asked.position_id,
            key = asked.key(),
            why,
            "a position is not closed by its application"
        );
    }
    Ok(u64::from(fresh))
}

/// `{"outcome": "closed" | "already_closed", …}`, or that word alone.
fn answer_of(answer: &Value) -> Option<Answered> {
    match answer.get("outcome").unwrap_or(answer).as_str()? {
        "closed" => Some(Answered::Closed),
        "already_closed" => Some(Answered::AlreadyClosed),
        _ => None,
    }
}

/// The id of a leg's job: the same whoever makes it.
fn ulid(asked: &Asked) -> Ulid {
    let hash = Sha256::digest(asked.key().as_bytes());
    let random = hash.iter().take(16).fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    Ulid::from_parts(u64::try_from(asked.asked_at_ms).unwrap_or(0), random)
}

fn job(asked: &Asked, callback: &Callback) -> Result<NewJob, serde_json::Error> {
    let new = match callback.kind() {
        Some(kind) => NewJob::new(kind, &asked.notice())?,
        None => NewJob::new(CALL, &json!({ "key": asked.key() }))?,
    };
    let mut job = NewJob { ulid: ulid(asked), ..new };
    job.options.max_attempts = Some(callback.attempts);
    job.options.backoff = Some(Backoff::Exponential { base_ms: 200, max_ms: 30_000 });
    if callback.kind().is_some() {
        job.options.timeout = Some(Duration::from_secs(callback.timeout_seconds));
    }
    Ok(job)
}

/// The kind that calls over HTTP.
pub const CALL: &str = "trading.call_close";

pub(crate) struct CallClose(pub(crate) Market);

/// Args of `trading.call_close`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallArgs {
    /// Of a closing that was asked for: what is sent stands in the tables.
    key: String,
}

#[async_trait]
impl InlineKind for CallClose {
    type Args = CallArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: QUEUE,
            max_attempts: 10,
            timeout: Duration::from_secs(330),
            ..KindSpec::new(CALL, "Have a position closed by the application whose it is")
        }
    }

    fn check(&self, args: &CallArgs) -> Vec<Violation> {
        if Asked::is_key(&args.key) {
            return Vec::new();
        }
        vec![Violation::new("/key", "out_of_range", "the key of a closing is needed, as in close:17:0")]
    }

    async fn run(&self, args: CallArgs, _ctx: &dyn RunContext) -> Outcome {
        let Some(callback) = self.0.callback().cloned() else {
            return Outcome::fatal("no_callback", "this process knows no application that closes positions");
        };
        let asked = async { self.0.store().await?.asked_by_key(&args.key).await };
        let asked = match asked.await {
            Ok(Some(asked)) => asked,
            Ok(None) => return Outcome::fatal("closing_unknown", "no closing of this key was asked for"),
            Err(error) => return failed(&error),
        };
        if let AskState::Ended(answered) = asked.state {
            return done(json!({ "outcome": answered }), true);
        }
        let payload = asked.payload();
        let called = tokio::task::spawn_blocking(move || call(&callback, &payload)).await;
        let (answered, answer) = match called {
            Ok(Ok(answered)) => answered,
            Ok(Err(outcome)) => return outcome,
            Err(error) => return Outcome::retry("callback_failed", error.to_string()),
        };
        // With all that it said. Where that fails, the relay writes what the job ends in.
        let written = async { self.0.store().await?.answered(&asked, answered, &answer).await };
        if let Err(error) = written.await {
            tracing::warn!(key = args.key, error = chain(&error), "an answer is written down without its words");
        }
        done(json!({ "outcome": answered }), false)
    }
}

/// The longest answer that is read, in bytes.
const MOST_BYTES: u64 = 64 * 1024;

/// `POST` with the closing as JSON and its key as `Idempotency-Key`. 2xx and 409 are answers; 5xx, 408, 425, 429
/// and silence are tried again; anything else is not. What it says beyond that is for the log alone.
fn call(callback: &Callback, closing: &Value) -> Result<(Answered, Value), Outcome> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        // Not through whatever the environment names: the call carries a secret.
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(callback.timeout_seconds)))
        .build()
        .into();
    let key = closing.get("key").and_then(Value::as_str).unwrap_or_default();
    let mut request = agent
        .post(&callback.close)
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .header("idempotency-key", key);
    if let Some(secret) = &callback.key {
        request = request.header("authorization", format!("Bearer {}", secret.0));
    }
    let failed = |error: ureq::Error| Outcome::retry("callback_failed", chain(&error));
    let mut answer = request.send(closing.to_string()).map_err(failed)?;
    let status = answer.status().as_u16();
    let text = answer.body_mut().with_config().limit(MOST_BYTES).read_to_string().map_err(failed)?;
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    if let (200..=299 | 409, Some(answered)) = (status, answer_of(&value)) {
        return Ok((answered, value));
    }
    tracing::debug!(key, status, said = text.chars().take(200).collect::<String>(), "an application does not close");
    let said = format!("it answered with status {status}");
    Err(match status {
        200..=299 => Outcome::fatal("callback_answer", format!("{said}; outcome closed or already_closed is needed")),
        408 | 425 | 429 | 500..=599 => Outcome::retry("callback_failed", said),
        _ => Outcome::fatal("callback_refused", said),
    })
}

/// The relay of a process, for as long as it lives, or stands by.
pub(crate) async fn run(market: &Inner, jobs: Arc<dyn CloseJobs>, callback: &Callback, mut stop: Stop) {
    let mut hold = Hold::new(SHARD, market.owner());
    let mut relay = Relay::default();
    let (mut failed_at, mut said, mut alarmed) = (None::<Instant>, None::<Instant>, None::<Instant>);
    while !stop.is_said() {
        let with_failed = failed_at.is_none_or(|at| at.elapsed() >= FAILED_EVERY);
        let pass = async {
            let store = market.store().await.map_err(|e| chain(&e))?;
            if hold.keep(store, false).await.map_err(|e| chain(&e))? == Holder::Other {
                // Whoever has the lease tells them.
                market.count_asked(AskedCount::default());
                return Ok(false);
            }
            let relayed = relay.pass(store, jobs.as_ref(), callback, with_failed).await;
            market.count_asked(store.asked_count().await.map_err(|e| chain(&e))?);
            relayed.trouble.map_or(Ok(true), Err)
        };
        let pause = match pass.await {
            Ok(true) => EVERY,
            Ok(false) => PAUSE,
            Err(error) => {
                if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                    said = Some(Instant::now());
                    tracing::warn!(error, "closings are not asked for");
                }
                PAUSE
            }
        };
        if with_failed {
            failed_at = Some(Instant::now());
            market.tell_failed(&mut alarmed);
        }
        stop.rest(pause).await;
    }
    if let Ok(store) = market.store().await
        && let Err(error) = hold.release(store).await
    {
        tracing::debug!(error = chain(&error), "the lease of the relay ends by itself");
    }
}

/// The shard whose lease says who relays.
const SHARD: i64 = 4;
const EVERY: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_secs(1);
/// How often failed closings are looked at.
const FAILED_EVERY: Duration = Duration::from_secs(5);
const SAY_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_and_sentences_are_not() {
        for (code, told) in [("callback_failed", "callback_failed"), ("", "failed"), ("sold at 1.07", "failed")] {
            assert_eq!(word(code), told);
        }
        assert_eq!(word(&"x".repeat(65)), "failed");
    }

    #[test]
    fn answers_are_words_or_objects() {
        assert_eq!(answer_of(&json!("closed")), Some(Answered::Closed));
        assert_eq!(answer_of(&json!({ "outcome": "already_closed", "x": 1 })), Some(Answered::AlreadyClosed));
        for bad in [json!(null), json!("done"), json!({ "outcome": 1 }), json!({})] {
            assert_eq!(answer_of(&bad), None, "{bad}");
        }
    }
}
