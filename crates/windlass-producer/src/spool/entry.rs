//! One spooled job as a line: a checksum in hex, a space, JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use windlass_jobs::{Backoff, Durability, NewJob, Options, Priority, Queue, Timestamp, Ulid, Unique, When};

/// A job with its queue. What is at its default is left out.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry {
    queue: String,
    ulid: String,
    kind: String,
    args: Box<RawValue>,
    /// When it was accepted, by this machine's clock: a delay counts from here.
    accepted_at: Timestamp,
    #[serde(default)]
    when: Instant,
    #[serde(default)]
    expires: Instant,
    #[serde(default)]
    priority: Priority,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backoff: Option<Backoff>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unique: Option<Unique>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ordering_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    concurrency_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_key: Option<String>,
    #[serde(default, skip_serializing_if = "is_fast")]
    durability: Durability,
    /// As the header `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
}

fn is_fast(durability: &Durability) -> bool {
    *durability == Durability::Fast
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Instant {
    #[default]
    Now,
    At(Timestamp),
    /// In ms from the acceptance.
    After(u64),
}

impl Instant {
    fn of(when: When) -> Self {
        match when {
            When::Now => Self::Now,
            When::At(at) => Self::At(at),
            When::After(delay) => Self::After(ms(delay)),
        }
    }

    /// Of a delay what is left of it.
    fn when(self, accepted_at: Timestamp) -> When {
        match self {
            Self::Now => When::Now,
            Self::At(at) => When::At(at),
            Self::After(ms) => {
                When::After(Duration::from_millis(ms).saturating_sub(Timestamp::now().since(accepted_at)))
            }
        }
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Entry {
    pub(super) fn new(queue: &Queue, job: &NewJob) -> Self {
        // Named one by one, so that a new option is not forgotten here.
        let NewJob { ulid, kind, args, when, options } = job.clone();
        let Options {
            priority,
            max_attempts,
            backoff,
            timeout,
            expires,
            labels,
            unique,
            tenant,
            ordering_key,
            concurrency_key,
            rate_key,
            // Ties between jobs are never spooled: see `Producer::kept`.
            depends_on: _,
            durability,
            trace,
        } = options;
        Self {
            queue: queue.to_string(),
            ulid: ulid.to_string(),
            kind,
            args,
            accepted_at: Timestamp::now(),
            when: Instant::of(when),
            expires: Instant::of(expires),
            priority,
            max_attempts,
            backoff,
            timeout_ms: timeout.map(ms),
            labels,
            unique,
            tenant,
            ordering_key,
            concurrency_key,
            rate_key,
            durability,
            trace: trace.map(|trace| trace.to_string()),
        }
    }

    /// Its id, and whose it is.
    pub(super) fn held(self) -> Option<(Ulid, Option<String>)> {
        Some((self.ulid.parse().ok()?, self.tenant))
    }

    /// The job as it is to be enqueued now; `None` when it was not written by [`Entry::new`].
    pub(super) fn job(self) -> Option<(Queue, NewJob)> {
        let options = Options {
            priority: self.priority,
            max_attempts: self.max_attempts,
            backoff: self.backoff,
            timeout: self.timeout_ms.map(Duration::from_millis),
            expires: self.expires.when(self.accepted_at),
            labels: self.labels,
            unique: self.unique,
            tenant: self.tenant,
            ordering_key: self.ordering_key,
            concurrency_key: self.concurrency_key,
            rate_key: self.rate_key,
            depends_on: None,
            durability: self.durability,
            trace: self.trace.and_then(|trace| trace.parse().ok()),
        };
        let when = self.when.when(self.accepted_at);
        let (queue, ulid) = (Queue::new(&self.queue).ok()?, self.ulid.parse().ok()?);
        Some((queue, NewJob { ulid, kind: self.kind, args: self.args, when, options }))
    }

    /// With its line break.
    pub(super) fn to_line(&self) -> String {
        // Args are JSON text as it came, in which line breaks may stand between values.
        let json = serde_json::to_string(self).unwrap_or_default().replace(['\n', '\r'], " ");
        format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
    }

    /// `None` for a line that is torn or was changed.
    pub(super) fn of_line(line: &str) -> Option<Self> {
        let (sum, json) = line.trim_end_matches('\n').split_once(' ')?;
        let intact = u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(json.as_bytes());
        if intact { serde_json::from_str(json).ok() } else { None }
    }
}
