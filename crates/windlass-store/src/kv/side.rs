//! Redis beside this process' own memory: which of them answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use windlass_jobs::millis;
use windlass_redis::{Cmd, Error, Link, Script, Value, cmd};

use super::breaker::{Breaker, BreakerStats, May};
use super::memory::Memory;

/// How long one call may take before it counts as failed: a cache that is slower spares nothing.
const CALL_WITHIN: Duration = Duration::from_secs(1);
/// Most changes remembered while Redis is away; past it, everything that was there is forgotten
/// when it is back.
const MAX_CHANGES: usize = 10_000;

/// An answer, and whether it is this process' own for want of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// True when Redis is set and could not be asked.
    pub degraded: bool,
}

impl<T> Answer<T> {
    /// The same about something else.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { value: change(self.value), degraded: self.degraded }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Side(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Option<Link>,
    memory: Memory,
    breaker: Breaker,
    changes: Mutex<Changes>,
}

/// What Redis does not know yet.
#[derive(Debug, Default)]
struct Changes {
    /// By key: what is to be there, until when; `None`: nothing.
    keys: BTreeMap<String, Option<(String, Instant)>>,
    /// Too many to remember.
    lost: bool,
}

impl Side {
    pub(super) fn new(link: Option<Link>, memory_bytes: usize) -> Self {
        let (memory, breaker) = (Memory::new(memory_bytes), Breaker::default());
        Self(Arc::new(Inner { link, memory, breaker, changes: Mutex::default() }))
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.0.memory
    }

    pub(super) fn breaker(&self) -> BreakerStats {
        self.0.breaker.stats()
    }

    pub(super) fn is_on_redis(&self) -> bool {
        self.0.link.is_some()
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.0.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a key is to be put right on Redis: to this value until then, or to none.
    pub(super) fn remember(&self, key: &str, value: Option<(String, Duration)>) {
        if self.0.link.is_none() {
            return;
        }
        let mut changes = self.changes();
        if changes.keys.len() >= MAX_CHANGES && !changes.keys.contains_key(key) {
            changes.lost = true;
            return;
        }
        let until = value.map(|(value, ttl)| (value, Instant::now() + ttl));
        changes.keys.insert(key.to_owned(), until);
    }

    /// More was changed than is known here key by key.
    pub(super) fn remember_all(&self) {
        if self.0.link.is_some() {
            self.changes().lost = true;
        }
    }

    /// True once when more was changed than could be remembered.
    pub(super) fn lost_changes(&self) -> bool {
        std::mem::take(&mut self.changes().lost)
    }

    /// Asks Redis; `None` when it is to be done without it.
    pub(super) async fn ask<T>(&self, work: impl AsyncFnOnce(&Link) -> Result<T, Error>) -> Option<T> {
        let link = self.0.link.as_ref()?;
        if self.is_reachable(link).await {
            // Boxed: what a caller does on the way is some KiB, carried through every frame of it.
            match within(Box::pin(work(link))).await {
                Some(Ok(value)) => return Some(value),
                Some(Err(error)) => self.0.breaker.failed(&error),
                None => self.0.breaker.failed(&slow(link)),
            }
        }
        self.0.breaker.fell_back();
        None
    }

    /// Whether Redis may be asked: it answers, and knows what was changed without it.
    async fn is_reachable(&self, link: &Link) -> bool {
        let probe = match self.0.breaker.may() {
            May::No => return false,
            May::Probe => true,
            May::Call if self.changes().keys.is_empty() => return true,
            May::Call => false,
        };
        let ready = within(async {
            if probe {
                link.ping().await?;
            }
            self.put_right(link).await
        });
        match ready.await {
            Some(Ok(())) => {
                self.0.breaker.succeeded();
                true
            }
            Some(Err(error)) => {
                self.0.breaker.failed(&error);
                false
            }
            None => {
                self.0.breaker.failed(&slow(link));
                false
            }
        }
    }

    /// Tells Redis what was changed without it. What it was told is also gone from here, so that
    /// no value of then is answered later.
    async fn put_right(&self, link: &Link) -> Result<(), Error> {
        loop {
            // Left in its place until Redis has answered: this may be given up at any await.
            let first = self.changes().keys.first_key_value().map(|(key, value)| (key.clone(), value.clone()));
            let Some((key, value)) = first else { return Ok(()) };
            let ttl = value.as_ref().map(|(_, until)| until.saturating_duration_since(Instant::now()));
            let call = match (&value, ttl) {
                (Some((value, _)), Some(ttl)) if ttl.as_millis() > 0 => {
                    let mut call = cmd("SET");
                    call.arg(&key).arg(value).arg("PX").arg(millis(ttl));
                    call
                }
                _ => {
                    let mut call = cmd("UNLINK");
                    call.arg(&key);
                    call
                }
            };
            link.call(&call).await?;
            let mut changes = self.changes();
            // Unless it was changed once more meanwhile.
            if changes.keys.get(&key) == Some(&value) {
                changes.keys.remove(&key);
                self.0.memory.remove(&key);
            }
        }
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(CALL_WITHIN, work).await.ok()
}

fn slow(link: &Link) -> Error {
    Error::timeout(link.shown(), "no answer in time")
}

/// Runs a script on one key.
pub(super) async fn run(link: &Link, script: &Script, key: &str, args: impl FnOnce(&mut Cmd)) -> Result<Value, Error> {
    let mut call = script.on(key);
    args(&mut call);
    Box::pin(script.run(link, &call)).await
}

pub(super) fn integers<const N: usize>(value: &Value) -> [i64; N] {
    let mut out = [0; N];
    if let Value::Array(items) = value {
        for (out, item) in out.iter_mut().zip(items) {
            if let Value::Int(n) = item {
                *out = *n;
            }
        }
    }
    out
}

pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
