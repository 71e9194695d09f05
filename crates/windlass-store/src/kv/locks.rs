//! Who may do something alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::Instant;
use windlass_jobs::{millis, new_ulid};
use windlass_redis::{Script, Value};

use super::MAX_TTL;
use super::names::{BadName, Names};
use super::side::{self, Side};

/// How often somebody who waits looks, at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a lock is worth while Redis is away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenAway {
    /// Nothing: it is refused, for it would exclude nobody in other processes. The default.
    #[default]
    Refuse,
    /// It excludes others in this process, and says so.
    Local,
}

/// A lock that could not be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Its name cannot be one.
    #[error(transparent)]
    Name(#[from] BadName),
    /// Redis is away.
    #[error("redis does not answer: nothing can be locked")]
    Away,
}

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// Which.
    pub name: String,
    /// What proves it: needed to renew and to release.
    pub token: String,
    /// Rises with every holder. Whatever the lock guards refuses a number below the highest it
    /// has seen, so that a holder that was paused past its time does no harm.
    pub fence: u64,
    /// How long it lasts unless it is renewed, in ms.
    pub ttl_ms: u64,
    /// True when it excludes others in this process only.
    pub degraded: bool,
}

/// Locks with a token, a fencing number and an end.
#[derive(Debug, Clone)]
pub struct Locks {
    side: Side,
    names: Names,
    script: Arc<Script>,
    /// The last fencing number of this process.
    fence: Arc<AtomicU64>,
}

impl Locks {
    /// How long a lock lasts unless its caller says otherwise (`compat.md` §3).
    pub const TTL: Duration = Duration::from_secs(30);

    pub(super) fn new(side: Side, names: Names) -> Self {
        let script = Arc::new(Script::new(include_str!("lua/lock.lua")));
        Self { side, names, script, fence: Arc::default() }
    }

    /// Takes a lock, waiting up to `wait` for it; `None` when somebody else has it.
    ///
    /// # Errors
    /// [`LockError`]. After [`LockError::Away`] it may be held by nobody for its time: Redis may have
    /// taken it and its answer be lost.
    pub async fn acquire(
        &self,
        name: &str,
        ttl: Duration,
        wait: Duration,
        when_away: WhenAway,
    ) -> Result<Option<Grant>, LockError> {
        let key = self.names.lock(name)?;
        let ttl = ttl.clamp(Duration::from_millis(1), MAX_TTL);
        let deadline = Instant::now() + wait.min(MAX_TTL);
        let token = new_token();
        loop {
            let (fence, left, degraded) = match self.call(&key, "acquire", &token, Some(ttl)).await {
                Some(reply) => match side::integers(&reply) {
                    [1, fence] => (u64::try_from(fence).ok(), Duration::ZERO, false),
                    [_, left] => (None, Duration::from_millis(u64::try_from(left).unwrap_or(0)), false),
                },
                None if self.side.is_on_redis() && when_away == WhenAway::Refuse => return Err(LockError::Away),
                None => {
                    let (fence, left) = self.acquire_here(&key, &token, ttl);
                    (fence, left, self.side.is_on_redis())
                }
            };
            if let Some(fence) = fence {
                let ttl_ms = u64::try_from(millis(ttl)).unwrap_or(0);
                return Ok(Some(Grant { name: name.to_owned(), token, fence, ttl_ms, degraded }));
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(None);
            }
            let pause = left.clamp(Duration::from_millis(1), LOOK_EVERY).min(deadline - now);
            // Those who wait do not all come at once.
            tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * spread(&token))).await;
        }
    }

    /// Makes a lock last for `ttl` from now; false when the token no longer holds it.
    ///
    /// # Errors
    /// [`LockError`].
    pub async fn renew(&self, name: &str, token: &str, ttl: Duration) -> Result<bool, LockError> {
        let key = self.names.lock(name)?;
        let ttl = ttl.clamp(Duration::from_millis(1), MAX_TTL);
        match self.call(&key, "renew", token, Some(ttl)).await {
            Some(reply) => Ok(reply == Value::Int(1)),
            None => self.change_here(&key, token, Some(ttl)),
        }
    }

    /// Lets go of a lock; false when the token no longer held it: then somebody else may.
    ///
    /// # Errors
    /// [`LockError`]; it ends by itself.
    pub async fn release(&self, name: &str, token: &str) -> Result<bool, LockError> {
        let key = self.names.lock(name)?;
        match self.call(&key, "release", token, None).await {
            // One that was taken here while Redis was away.
            Some(reply) => Ok(reply == Value::Int(1) || self.change_here(&key, token, None).unwrap_or(false)),
            None => self.change_here(&key, token, None),
        }
    }

    /// Does something while holding a lock, which is renewed until it is done; `None` when it
    /// could not be had in time. `work` is given the fencing number.
    ///
    /// # Errors
    /// [`LockError`].
    pub async fn with<T>(
        &self,
        name: &str,
        ttl: Duration,
        wait: Duration,
        work: impl AsyncFnOnce(u64) -> T,
    ) -> Result<Option<T>, LockError> {
        let Some(grant) = self.acquire(name, ttl, wait, WhenAway::Refuse).await? else { return Ok(None) };
        let renew = async {
            loop {
                tokio::time::sleep(ttl / 3).await;
                if !matches!(self.renew(name, &grant.token, ttl).await, Ok(true)) {
                    tracing::warn!(name, fence = grant.fence, "lock not renewed: its fencing number tells");
                }
            }
        };
        let done: T = tokio::select! {
            biased;
            done = work(grant.fence) => done,
            never = renew => never,
        };
        let _ = self.release(name, &grant.token).await;
        Ok(Some(done))
    }

    async fn call(&self, key: &str, verb: &str, token: &str, ttl: Option<Duration>) -> Option<Value> {
        let work = async |link: &windlass_redis::Link| {
            side::run(link, &self.script, key, |call| {
                call.arg(verb).arg(token).arg(ttl.map_or(0, millis));
            })
            .await
        };
        self.side.ask(work).await
    }

    fn acquire_here(&self, key: &str, token: &str, ttl: Duration) -> (Option<u64>, Duration) {
        self.side.memory().update(key, |before| match before {
            Some((holder, left)) => (Some((holder, left)), (None, left)),
            None => (Some((token.to_owned(), ttl)), (Some(self.next_fence()), Duration::ZERO)),
        })
    }

    /// Renews or, without a time, releases what this process holds itself.
    fn change_here(&self, key: &str, token: &str, ttl: Option<Duration>) -> Result<bool, LockError> {
        let held = self.side.memory().update(key, |before| match before {
            Some((holder, _)) if holder == token => (ttl.map(|ttl| (holder, ttl)), true),
            other => (other, false),
        });
        if held || !self.side.is_on_redis() { Ok(held) } else { Err(LockError::Away) }
    }

    fn next_fence(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_us = u64::try_from(now.as_micros()).unwrap_or(0);
        let before = self.fence.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(now_us.max(last + 1)));
        now_us.max(before.unwrap_or(0) + 1)
    }
}

/// Nobody guesses it: 160 random bits from two ids of 80 each.
fn new_token() -> String {
    format!("{}{}", new_ulid(), new_ulid())
}

/// 0.0–1.0, by the last characters of a token, which are random.
fn spread(token: &str) -> f64 {
    let sum: u32 = token.bytes().rev().take(4).fold(0, |sum, b| (sum * 31 + u32::from(b)) % 1000);
    f64::from(sum) / 1000.0
}
