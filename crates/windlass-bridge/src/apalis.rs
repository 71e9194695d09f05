//! Namespaces of stock apalis-redis 1.0 storages: as a source, and as a target.
//!
//! The source reads the stock keys with a script of its own: the stock one ends for good where 8,000
//! jobs are due, and takes no more at the first time-out.

use std::sync::LazyLock;
use std::time::Duration;

use apalis_core::backend::codec::Codec as _;
use apalis_core::backend::{TaskSink as _, WireFormatBackend};
use apalis_core::task::builder::TaskBuilder;
use apalis_core::task::status::Status;
use apalis_core::task::task_id::TaskId;
use apalis_redis::{Config, RedisStorage};
use async_trait::async_trait;
use serde_json::Value;
use serde_json::value::RawValue;
use windlass_jobs::{MAX_MAX_ATTEMPTS, MAX_SCHEDULE_AHEAD, NewJob, Options, Timestamp, Ulid, When};
use windlass_redis::{Cmd, Error, Link, Script};

use crate::custody::{Custody, Row, turn_script};
use crate::routes::ApalisRoute;
use crate::source::{Foreign, News, Refusal, Source, What, derived, label};

/// How jobs lie in a namespace.
type Storage = RedisStorage<Box<RawValue>, Link>;

/// The name under which taken jobs are in flight. No worker registers with it, so that nobody takes
/// its jobs for abandoned.
const WORKER: &str = "windlass";
/// How long an ended job's args and result are kept in its namespace.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

static TURN: LazyLock<Script> = LazyLock::new(|| turn_script(include_str!("scripts/take_apalis.lua")));
static TELL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/tell_apalis.lua")));

pub(crate) struct Apalis {
    name: String,
    route: ApalisRoute,
    config: Config,
    custody: Custody,
}

impl Apalis {
    pub(crate) fn new(link: Link, route: ApalisRoute) -> Self {
        let config = Config::default().queue(&route.namespace);
        let custody = Custody { link, base: format!("{}:windlass", route.namespace) };
        Self { name: format!("apalis {}", route.namespace), route, config, custody }
    }

    fn inflight(&self) -> String {
        format!("{}:{WORKER}", self.config.inflight_jobs_set())
    }
}

/// A ULID, the stock id, stays what it is; any other id has one derived.
fn ulid_of(namespace: &str, id: &str) -> Ulid {
    Ulid::from_string(id).ok().filter(|ulid| ulid.to_string() == id).unwrap_or_else(|| derived(namespace, id))
}

fn text(field: Option<&Option<Vec<u8>>>) -> Option<&str> {
    std::str::from_utf8(field?.as_deref()?).ok()
}

fn number(field: Option<&Option<Vec<u8>>>) -> Option<u32> {
    text(field)?.parse().ok()
}

#[async_trait]
impl Source for Apalis {
    fn name(&self) -> &str {
        &self.name
    }

    fn custody(&self) -> &Custody {
        &self.custody
    }

    fn turn(&self, take: usize, look: usize, hold: Duration) -> (&'static Script, Cmd) {
        let config = &self.config;
        let mut call = self.custody.begin(&TURN, &config.active_jobs_list(), take, look, hold);
        // A day less, so that a job taken a moment before its year still fits.
        let horizon_s = MAX_SCHEDULE_AHEAD.as_secs() - 86_400;
        call.arg(config.scheduled_jobs_set()).arg(config.job_data_hash()).arg(config.job_meta_hash());
        call.arg(self.inflight()).arg(horizon_s).arg(windlass_jobs::millis(KEPT));
        call.arg(config.done_jobs_set()).arg(config.dead_jobs_set());
        (&TURN, call)
    }

    fn read(&self, row: &Row) -> Result<Foreign, Refusal> {
        let id = String::from_utf8_lossy(&row.member).into_owned();
        let refuse = |reason: &str| Refusal { id: id.clone(), reason: reason.to_owned() };
        let data = row.more.first().and_then(Option::as_ref).ok_or_else(|| refuse("the job has no data"))?;
        let codec = <Storage as WireFormatBackend>::Codec::default();
        let args: Box<RawValue> = codec.decode(data).map_err(|e| refuse(&format!("its data is not JSON: {e}")))?;
        // Seconds; a job that was not scheduled has none.
        let run_at: Option<i64> = std::str::from_utf8(&row.held).ok().and_then(|text| text.parse().ok());
        let when = run_at.map_or(When::Now, |seconds| When::At(Timestamp(seconds.saturating_mul(1000))));
        let spent = number(row.more.get(1)).unwrap_or(0);
        let left = number(row.more.get(2)).map(|most| most.saturating_sub(spent).clamp(1, MAX_MAX_ATTEMPTS));
        let trace = text(row.more.get(3)).and_then(|trace| trace.parse().ok());
        let options = Options { max_attempts: left, trace, ..Options::default() };
        let ulid = ulid_of(&self.route.namespace, &id);
        let mut job = NewJob { ulid, kind: self.route.kind.clone(), args, when, options };
        label(&mut job, "apalis", &self.route.namespace);
        label(&mut job, "apalis-id", &id);
        Ok(Foreign { id, job, queue: self.route.queue.clone(), group: None, is_quiet: false })
    }

    async fn tell(&self, news: &[News]) -> Result<(), Error> {
        if news.is_empty() {
            return Ok(());
        }
        let mut call = TELL.on(&self.config.done_jobs_set());
        call.arg(self.config.dead_jobs_set()).arg(self.config.job_meta_hash());
        call.arg(self.inflight()).arg(&self.custody.base);
        for News { id, what, attempt, .. } in news {
            let (status, result) = answer(what);
            // As the stock worker keeps it: the JSON of a `Result`.
            let result = serde_json::to_string(&result).unwrap_or_default();
            call.arg(id).arg(status.to_string()).arg(result).arg(attempt);
        }
        TELL.run(&self.custody.link, &call).await.map(drop)
    }
}

fn answer(what: &What) -> (Status, Result<Value, String>) {
    match what {
        What::Waiting | What::Retrying(_) => (Status::Pending, Ok(Value::Null)),
        What::Running { .. } => (Status::Running, Ok(Value::Null)),
        What::Done(value) => (Status::Done, Ok(value.clone())),
        What::Failed(_, error) => (Status::Failed, Err(error.to_string())),
        What::Cancelled(why) => (Status::Killed, Err(format!("cancelled: {why}"))),
        What::Lost => (Status::Killed, Err("it is known no more".to_owned())),
        What::Refused(why) => (Status::Killed, Err(format!("refused: {why}"))),
    }
}

/// Hands jobs to stock apalis workers: pushes them into the storage of a namespace.
#[derive(Debug, Clone)]
pub struct Forward {
    link: Link,
    config: Config,
}

/// A job that was not pushed; a repeat is safe.
#[derive(Debug, thiserror::Error)]
#[error("push into the apalis namespace {namespace}: {detail}")]
pub struct ForwardError {
    /// Where it was to go.
    pub namespace: String,
    /// Why it did not.
    pub detail: String,
}

impl Forward {
    /// The way into a namespace.
    #[must_use]
    pub fn new(link: Link, namespace: &str) -> Self {
        Self { link, config: Config::default().queue(namespace) }
    }

    /// Pushes a job under the id `ulid`, with [`RedisStorage::push_task`](apalis_core::backend::TaskSink).
    /// An id that the storage knows changes nothing.
    ///
    /// # Errors
    /// [`ForwardError`] when the Redis does not answer.
    pub async fn push(&self, ulid: Ulid, args: Box<RawValue>) -> Result<(), ForwardError> {
        let mut storage: Storage = RedisStorage::new(self.link.clone()).with_config(self.config.clone());
        let task = TaskBuilder::new(args).task_id(TaskId::from_ulid(ulid)).build();
        storage
            .push_task(task)
            .await
            .map_err(|e| ForwardError { namespace: self.config.queue.to_string(), detail: e.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use windlass_redis::{FromRedisValue as _, cmd};

    use super::*;

    /// A bridge that was slow tells less than another has told: the end stays.
    #[tokio::test]
    async fn what_is_told_late_covers_no_end() {
        let redis = windlass_testkit::RedisServer::start();
        let link = Link::new(windlass_redis::Options::from_url(&redis.url()).unwrap()).unwrap();
        let route = ApalisRoute { namespace: "old".to_owned(), kind: "a".to_owned(), queue: None };
        let apalis = Apalis::new(link.clone(), route);
        let call = async |words: &[&str]| {
            let mut call = cmd(words[0]);
            call.arg(&words[1..]);
            String::from_redis_value(link.call(&call).await.unwrap()).unwrap()
        };
        call(&["SADD", "old:inflight:windlass", "one"]).await;
        // The stock worker's attempt before.
        call(&["HSET", "old:meta:one", "status", "Failed"]).await;
        let running = || What::Running { percent: 1.0, message: String::new() };
        let expected =
            [(running(), "Running"), (What::Done(json!(1)), "Done"), (running(), "Done"), (What::Lost, "Done")];
        for (what, status) in expected {
            let (group, worker) = (None, None);
            let news =
                News { id: "one".to_owned(), group, is_quiet: false, attempt: 1, worker, is_new_run: true, what };
            apalis.tell(&[news]).await.unwrap();
            assert_eq!(call(&["HGET", "old:meta:one", "status"]).await, status);
        }
        assert_eq!(call(&["SCARD", "old:dead"]).await, "0");
        assert_eq!(call(&["HGET", "old:meta:one", "result"]).await, r#"{"Ok":1}"#);
    }
}
