//! What the queue's Redis does when it is full: one that throws keys away throws jobs away.

use std::time::Duration;

use anyhow::bail;
use windlass_redis::{FromRedisValue as _, Link, cmd};

use crate::settings::Settings;

/// How long a start waits for the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is asked again while Redis is away.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What a full Redis does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// It refuses what would make it larger: no job is lost.
    Never,
    /// It throws away keys that have a time to live, by this policy. Jobs have none.
    Expiring(String),
    /// It throws away any key, by this policy.
    Any(String),
    /// It has no bound on its memory yet; when it gets one, it throws any key away.
    AnyOnceBounded(String),
    /// It does not say: `INFO` is not allowed, or does not name a policy.
    Untold,
}

impl Eviction {
    /// Reads it from the answer to `INFO memory`, which needs fewer rights than `CONFIG`.
    pub(crate) fn read(info: &str) -> Self {
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        match (field("maxmemory_policy"), field("maxmemory")) {
            (Some("noeviction"), _) => Self::Never,
            (Some(policy), _) if policy.starts_with("volatile-") => Self::Expiring(policy.to_owned()),
            (Some(policy), Some("0")) => Self::AnyOnceBounded(policy.to_owned()),
            (Some(policy), _) => Self::Any(policy.to_owned()),
            (None, _) => Self::Untold,
        }
    }

    /// What to do about it; `None` when all is well.
    pub(crate) fn advice(&self) -> Option<String> {
        let set = "set maxmemory-policy to noeviction (redis-cli CONFIG SET maxmemory-policy noeviction, or the \
                   provider's console)";
        match self {
            Self::Never => None,
            Self::Expiring(policy) => {
                Some(format!("{policy}: a full Redis may free unique keys before their time; {set}"))
            }
            Self::Any(policy) => Some(format!("{policy}: a full Redis throws jobs away; {set}")),
            Self::AnyOnceBounded(policy) => {
                Some(format!("{policy}, with no maxmemory yet: once it has one, a full Redis throws jobs away; {set}"))
            }
            Self::Untold => Some("Redis does not tell its maxmemory-policy; it has to be noeviction".to_owned()),
        }
    }
}

async fn ask(link: &Link) -> Result<Eviction, windlass_redis::Error> {
    let mut info = cmd("INFO");
    info.arg("memory");
    match link.call(&info).await {
        Ok(answer) => Ok(Eviction::read(&String::from_redis_value(answer).unwrap_or_default())),
        Err(e) if e.class() == windlass_redis::Class::Denied => Ok(Eviction::Untold),
        Err(e) => Err(e),
    }
}

/// Refuses to start on a Redis that throws jobs away, unless the settings allow it; a Redis that is
/// away is asked when it is back, and what it says is logged.
pub(crate) async fn guard(settings: &Settings) -> anyhow::Result<()> {
    let Some(options) = &settings.redis else { return Ok(()) };
    let link = Link::new(options.clone())?;
    if let Ok(Ok(eviction)) = tokio::time::timeout(PATIENCE, ask(&link)).await {
        let Some(advice) = eviction.advice() else { return Ok(()) };
        if matches!(eviction, Eviction::Any(_)) && !settings.allow_eviction {
            bail!(
                "the queue's Redis at {}: {advice}, or take the loss with WINDLASS_ALLOW_EVICTION=true",
                options.shown()
            );
        }
        tracing::warn!(redis = options.shown(), "{advice}");
        return Ok(());
    }
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            if let Ok(eviction) = ask(&link).await {
                match eviction.advice() {
                    Some(advice) if matches!(eviction, Eviction::Any(_)) => {
                        tracing::error!(redis = link.options().shown(), "{advice}");
                    }
                    Some(advice) => tracing::warn!(redis = link.options().shown(), "{advice}"),
                    None => {}
                }
                return;
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f21_only_a_bounded_server_that_evicts_any_key_loses_jobs() {
        let read = |policy: &str, max: &str| {
            Eviction::read(&format!("# Memory\r\nmaxmemory:{max}\r\nmaxmemory_policy:{policy}\r\n"))
        };
        assert_eq!(read("noeviction", "1000"), Eviction::Never);
        for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
            assert_eq!(read(policy, "1000"), Eviction::Any(policy.to_owned()));
            assert_eq!(read(policy, "0"), Eviction::AnyOnceBounded(policy.to_owned()));
        }
        for policy in ["volatile-lru", "volatile-ttl"] {
            assert_eq!(read(policy, "1000"), Eviction::Expiring(policy.to_owned()));
        }
        assert_eq!(Eviction::read("# Memory\r\n"), Eviction::Untold);
    }
}
