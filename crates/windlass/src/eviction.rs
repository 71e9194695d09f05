//! What the queue's Redis does when it is full: one that throws keys away throws jobs away.

use std::time::Duration;

use anyhow::bail;
use windlass_redis::Link;

use crate::marker::Marker;
use crate::settings::Settings;

/// How long a start waits for the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is asked again while Redis is away.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What a full Redis does, from the best to the worst.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Eviction {
    /// It refuses what would make it larger: no job is lost.
    Never,
    /// It does not say: `INFO` is not allowed, or does not name a policy.
    Untold,
    /// It throws away keys that have a time to live, by this policy. Jobs have none.
    Expiring(String),
    /// It has no bound on its memory yet; when it gets one, it throws any key away.
    AnyOnceBounded(String),
    /// It throws away any key, by this policy.
    Any(String),
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
        let set = "set maxmemory-policy to noeviction (redis-cli CONFIG SET maxmemory-policy noeviction; where CONFIG \
                   is denied, in the provider's console or parameter group)";
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
    match link.info("memory").await {
        // Of a cluster's servers the one that loses most counts.
        Ok(texts) => Ok(texts.iter().map(|text| Eviction::read(text)).max().unwrap_or(Eviction::Untold)),
        Err(e) if e.class() == windlass_redis::Class::Denied => Ok(Eviction::Untold),
        Err(e) => Err(e),
    }
}

/// Refuses to start on a Redis that throws jobs away or belongs to another environment, unless the
/// settings allow it; a Redis that is away is asked when it is back, and what it says is logged.
pub(crate) async fn guard(settings: &Settings) -> anyhow::Result<()> {
    let Some(options) = &settings.redis else { return Ok(()) };
    let link = Link::new(options.clone())?;
    let (allow_eviction, marker) = (settings.allow_eviction, Marker::new(settings));
    let look = async || Ok::<_, windlass_redis::Error>((ask(&link).await?, marker.foreign(&link).await?));
    if let Ok(Ok((eviction, foreign))) = tokio::time::timeout(PATIENCE, look()).await {
        if let Some(foreign) = foreign {
            bail!("the queue's Redis at {}: {foreign}", link.shown());
        }
        let Some(advice) = eviction.advice() else { return Ok(()) };
        if matches!(eviction, Eviction::Any(_)) && !allow_eviction {
            bail!("the queue's Redis at {}: {advice}, or take the loss with {SWITCH}=true", link.shown());
        }
        warn(&link, &eviction, &advice, allow_eviction);
        return Ok(());
    }
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            let Ok(eviction) = ask(&link).await else { continue };
            let Ok(foreign) = marker.foreign(&link).await else { continue };
            if let Some(foreign) = foreign {
                tracing::error!(redis = link.shown(), "{foreign}");
            }
            match eviction.advice() {
                Some(advice) if matches!(eviction, Eviction::Any(_)) && !allow_eviction => {
                    tracing::error!(redis = link.shown(), "{advice}, or take the loss with {SWITCH}=true");
                }
                Some(advice) => warn(&link, &eviction, &advice, allow_eviction),
                None => {}
            }
            return;
        }
    });
    Ok(())
}

/// The setting that takes the loss.
const SWITCH: &str = "WINDLASS_ALLOW_EVICTION";

/// Managed servers often evict by default and deny `CONFIG`: that is no dead end. What to change is
/// said, and which setting says that it is known.
fn warn(link: &Link, eviction: &Eviction, advice: &str, is_known: bool) {
    match eviction {
        Eviction::Untold => tracing::warn!(redis = link.shown(), "{advice}; the user's right +info would tell"),
        _ if is_known => tracing::info!(redis = link.shown(), "{advice}"),
        _ => tracing::warn!(redis = link.shown(), "{advice}; {SWITCH}=true says that this is known"),
    }
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
