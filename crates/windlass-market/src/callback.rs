//! Closing by another application's own code: `trading.call_close`, and the relay that asks for it.
//!
//! What is asked for stands in the tables. For each of it the relay enqueues one job under an id made of
//! the leg's key, so that however often it does so there is one; and writes down what the job ends in.
//! The job is a kind of that application's, or ours that calls it over HTTP. Both are sent the key, and
//! must answer the same for a key that they have seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use windlass_jobs::{Backoff, JobId, NewJob, Outcome, Queue, Ulid, Violation, chain};
use windlass_worker::{InlineKind, KindSpec, RunContext};

use crate::kinds::{QUEUE, done};
use crate::market::{Inner, Market};
use crate::positions::{Answered, Asked, Callback, Hold, Holder, Positions};

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
    /// It lies in the dead set, or was cancelled: why.
    Dead(String),
}

/// What a pass over the open closings did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Jobs enqueued.
    pub enqueued: u64,
    /// Closings answered.
    pub answered: u64,
    /// Closings that failed for good just now.
    pub failed: u64,
}

/// Closings looked at in one pass.
const MOST: i64 = 500;

/// Asks for what is to be closed, and writes down what was answered. Failed ones are looked at too if
/// asked for: a job may have been taken out of the dead set and have succeeded.
///
/// # Errors
/// What went wrong first, for the log; what was done before then stands.
pub async fn relay(
    store: &Positions,
    jobs: &dyn CloseJobs,
    callback: &Callback,
    with_failed: bool,
) -> Result<Relayed, String> {
    let mut relayed = Relayed::default();
    let queue = Queue::new(callback.queue()).map_err(|e| e.to_string())?;
    for asked in store.asked(with_failed, MOST).await.map_err(|e| chain(&e))? {
        let id = JobId::new(ulid(&asked), queue.clone());
        match jobs.fate(&id).await? {
            Fate::Unknown if asked.failed => {}
            Fate::Unknown => {
                let job = job(&asked, callback).map_err(|e| e.to_string())?;
                jobs.enqueue(&queue, job).await?;
                relayed.enqueued += 1;
            }
            Fate::Open => {}
            Fate::Done(answer) => match answer_of(&answer) {
                Some(answered) => {
                    let fresh = store.answered(&asked, answered, &answer).await.map_err(|e| chain(&e))?;
                    relayed.answered += u64::from(fresh);
                }
                None => relayed.failed += fail(store, &asked, &format!("it answered {answer}")).await?,
            },
            Fate::Dead(why) => relayed.failed += fail(store, &asked, &why).await?,
        }
    }
    Ok(relayed)
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
    let payload = asked.payload();
    let new = match callback.kind() {
        Some(kind) => NewJob::new(kind, &payload)?,
        None => NewJob::new(CALL, &json!({ "closing": payload }))?,
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
    /// What is sent, with its `key`.
    closing: Value,
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
        match args.closing.get("key").and_then(Value::as_str) {
            Some(key) if key.starts_with("close:") => Vec::new(),
            _ => vec![Violation::new("/closing/key", "required", "the key of a closing is needed, as in close:17:0")],
        }
    }

    async fn run(&self, args: CallArgs, _ctx: &dyn RunContext) -> Outcome {
        let Some(callback) = self.0.callback().cloned() else {
            return Outcome::fatal("no_callback", "this process knows no application that closes positions");
        };
        let called = tokio::task::spawn_blocking(move || call(&callback, &args.closing)).await;
        called.unwrap_or_else(|e| Outcome::retry("callback_failed", e.to_string()))
    }
}

/// The longest answer that is read, in bytes.
const MOST_BYTES: u64 = 64 * 1024;

/// `POST` with the closing as JSON and its key as `Idempotency-Key`. 2xx and 409 are answers; 5xx, 408, 425, 429
/// and silence are tried again; anything else is not.
fn call(callback: &Callback, closing: &Value) -> Outcome {
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
    let mut answer = match request.send(closing.to_string()) {
        Ok(answer) => answer,
        Err(error) => return Outcome::retry("callback_failed", chain(&error)),
    };
    let status = answer.status().as_u16();
    let text = answer.body_mut().with_config().limit(MOST_BYTES).read_to_string();
    let text = match text {
        Ok(text) => text,
        Err(error) => return Outcome::retry("callback_failed", chain(&error)),
    };
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let said = || format!("status {status}: {}", text.chars().take(200).collect::<String>());
    match status {
        200..=299 | 409 if answer_of(&value).is_some() => done(value, false),
        200..=299 => {
            Outcome::fatal("callback_answer", format!("{}; outcome closed or already_closed is needed", said()))
        }
        408 | 425 | 429 | 500..=599 => Outcome::retry("callback_failed", said()),
        _ => Outcome::fatal("callback_refused", said()),
    }
}

/// The relay of a process, for as long as it lives, or stands by.
pub(crate) async fn run(market: &Inner, jobs: Arc<dyn CloseJobs>, callback: &Callback) {
    let mut hold = Hold::new(SHARD, market.owner());
    let (mut failed_at, mut said, mut alarmed) = (None::<Instant>, None::<Instant>, None::<Instant>);
    loop {
        let with_failed = failed_at.is_none_or(|at| at.elapsed() >= FAILED_EVERY);
        let pass = async {
            let store = market.store().await.map_err(|e| chain(&e))?;
            if hold.keep(store, false).await.map_err(|e| chain(&e))? == Holder::Other {
                return Ok(false);
            }
            relay(store, jobs.as_ref(), callback, with_failed).await?;
            market.count_asked(store.asked_count().await.map_err(|e| chain(&e))?);
            Ok::<_, String>(true)
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
        tokio::time::sleep(pause).await;
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
    fn answers_are_words_or_objects() {
        assert_eq!(answer_of(&json!("closed")), Some(Answered::Closed));
        assert_eq!(answer_of(&json!({ "outcome": "already_closed", "x": 1 })), Some(Answered::AlreadyClosed));
        for bad in [json!(null), json!("done"), json!({ "outcome": 1 }), json!({})] {
            assert_eq!(answer_of(&bad), None, "{bad}");
        }
    }
}
