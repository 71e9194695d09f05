//! What other services keep here for a while: cached values, locks, sessions, rate limits.
//!
//! Each lies on Redis, or in this process where there is none. A Redis that fails three times in
//! 10 s is left alone and probed every 5 s; meanwhile this process answers from its own memory, and
//! says so. What was changed in that time is put right on Redis before it is asked again.

mod breaker;
mod cache;
mod compute;
mod locks;
mod memory;
mod names;
mod rates;
mod sessions;
mod side;

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_redis::Link;

pub use breaker::BreakerStats;
pub use cache::{BadValue, Cache, CacheCounts, Found};
pub use compute::{CachedResult, CachedUser};
pub use locks::{Grant, LockError, Locks, WhenAway};
pub use names::{BadName, Key, Namespace};
pub use rates::{Decision, Quota, RateLimits};
pub use sessions::{Session, SessionError, Sessions};
pub use side::Answer;

/// How names are built, and how much this process keeps itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachingOptions {
    /// First words of every key, `[A-Za-z0-9_-]{1,32}` joined by `:`, such as `app:production`.
    /// Default [`CachingOptions::PREFIX`].
    pub prefix: String,
    /// Locks, sessions, rate limits, stocks and portfolios go by the names of the replaced
    /// application (`lock:…`, `session:…`, `rate_limit:…`) without the prefix, so that it and this
    /// one exclude each other. Default false.
    pub old_names: bool,
    /// How long a value is kept when neither the caller nor its namespace says. Default 1 h.
    pub default_ttl: Duration,
    /// Values this process keeps while there is no Redis, in bytes; past it what was used longest
    /// ago goes. Default 64 MiB.
    pub memory_bytes: usize,
}

impl CachingOptions {
    /// Default of [`CachingOptions::prefix`].
    pub const PREFIX: &'static str = "windlass";
}

impl Default for CachingOptions {
    fn default() -> Self {
        Self {
            prefix: Self::PREFIX.to_owned(),
            old_names: false,
            default_ttl: Duration::from_secs(3600),
            memory_bytes: 64 * 1024 * 1024,
        }
    }
}

/// The largest value, in bytes of JSON.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// The longest a value, lock, session or window lasts.
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long a look at Redis may take.
const INFO_WITHIN: Duration = Duration::from_secs(2);

/// All four services over one store.
#[derive(Debug, Clone)]
pub struct Caching {
    /// Values by namespace and user.
    pub cache: Cache,
    /// Who may do something alone.
    pub locks: Locks,
    /// Who is logged in.
    pub sessions: Sessions,
    /// How often something may be done.
    pub rate_limits: RateLimits,
    link: Option<Link>,
    memory_bytes: usize,
}

impl Caching {
    /// On the Redis of `link`, which need not be there yet; without one, in this process.
    #[must_use]
    pub fn new(link: Option<Link>, options: &CachingOptions) -> Self {
        let names = names::Names::new(options);
        let side = || side::Side::new(link.clone(), options.memory_bytes);
        Self {
            cache: Cache::new(side(), names.clone(), options.default_ttl),
            locks: Locks::new(side(), names.clone()),
            sessions: Sessions::new(side(), names.clone()),
            rate_limits: RateLimits::new(side(), names),
            link: link.clone(),
            memory_bytes: options.memory_bytes,
        }
    }

    /// How its Redis is reached, if there is one.
    #[must_use]
    pub const fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// What each of the four may keep in this process, in bytes.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// `INFO` of the Redis, by name; `None` where there is none. An error says what is wrong in a
    /// few words without any address or secret.
    pub async fn info(&self) -> Option<Result<BTreeMap<String, String>, &'static str>> {
        let link = self.link.as_ref()?;
        let texts = match tokio::time::timeout(INFO_WITHIN, link.info("default")).await {
            Ok(Ok(texts)) => texts,
            Ok(Err(error)) => return Some(Err(about(&error))),
            Err(_) => return Some(Err("Redis does not answer in time")),
        };
        // Of a cluster the first server speaks.
        let pairs = texts.into_iter().next().unwrap_or_default();
        let pairs = pairs.lines().filter_map(|line| line.split_once(':'));
        Some(Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }
}

fn about(error: &windlass_redis::Error) -> &'static str {
    match error.class() {
        windlass_redis::Class::Retryable => "Redis does not answer",
        windlass_redis::Class::Full => "Redis is out of memory",
        windlass_redis::Class::Denied => "Redis refuses this client",
        windlass_redis::Class::Bug => "Redis answers something unexpected",
    }
}
