//! Scopes: what a route asks for, and what a key grants.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Lists every scope with its word and what it allows.
macro_rules! scopes {
    ($($variant:ident $word:literal $about:literal)*) => {
        /// What a caller needs for a route.
        ///
        /// *Shape as text*: `area:verb`, such as `jobs:write`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Scope {
            /// Nothing: health checks and the pages of errors.
            Public,
            $(#[doc = $about] $variant,)*
        }

        impl Scope {
            /// All scopes that a key can have.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its word; `public` for the one that asks for nothing.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    Self::Public => "public",
                    $(Self::$variant => $word,)*
                }
            }

            /// What it allows, for people.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self {
                    Self::Public => "nothing is needed",
                    $(Self::$variant => $about,)*
                }
            }
        }
    };
}

scopes! {
    JobsRead "jobs:read" "See jobs, their results and files, queues, workers and kinds"
    JobsWrite "jobs:write" "Enqueue, cancel and retry jobs; upload blobs"
    SchedulesRead "schedules:read" "See schedules and their history"
    SchedulesWrite "schedules:write" "Make, change, pause, run and remove schedules"
    CacheRead "cache:read" "Read values of the cache service"
    CacheWrite "cache:write" "Write, count up and clear values of the cache service"
    LocksWrite "locks:write" "Take, renew and release locks"
    SessionsRead "sessions:read" "Read sessions"
    SessionsWrite "sessions:write" "Begin, change and end sessions"
    RateLimitsWrite "ratelimits:write" "Use rate limits"
    ImagesRead "images:read" "See stored charts"
    ImagesWrite "images:write" "Delete and clean up stored charts"
    MarketRead "market:read" "See prices, ticks, candles and instruments"
    MarketWrite "market:write" "Bring quotes"
    TradingRead "trading:read" "See positions; of calm accounts only their bands"
    TradingWrite "trading:write" "Open, change and close positions"
    TradingExact "trading:exact" "See the numbers of calm accounts too"
    AdminMarket "admin:market" "Make and change instruments and accounts"
    AdminQueues "admin:queues" "Pause, resume and bound queues"
    AdminCache "admin:cache" "See and clear the result cache, see what Redis says of itself"
    AdminKeys "admin:keys" "Make, list, rotate and revoke API keys"
    AdminAudit "admin:audit" "Read the audit log"
    AdminLog "admin:log" "See and change what a process logs"
    AdminSettings "admin:settings" "See the settings in force, with secrets hidden"
}

impl Scope {
    fn words(self) -> (&'static str, &'static str) {
        self.as_str().split_once(':').unwrap_or((self.as_str(), ""))
    }

    /// True for scopes that only look; none of the administration is one.
    #[must_use]
    pub fn is_reading(self) -> bool {
        self.words().1 == "read"
    }

    /// True for scopes whose use is written to the audit log.
    #[must_use]
    pub fn is_audited(self) -> bool {
        self.words().0 == "admin" || self == Self::SchedulesWrite
    }
}

/// What a key grants: one scope, or several by `*` in place of either word.
///
/// *Shape as text*: `jobs:write`, `jobs:*`, `*:read`, `*`; each stands for at least one scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Grant(String);

/// A text that grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no scope; there are {}, and * in place of a word", Scope::ALL.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", "))]
pub struct BadGrant {
    /// What was found, cut.
    pub found: String,
}

impl Grant {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self("*".to_owned())
    }

    /// True when it stands for the scope.
    #[must_use]
    pub fn allows(&self, scope: Scope) -> bool {
        let (area, verb) = self.0.split_once(':').unwrap_or(("*", "*"));
        let (wanted_area, wanted_verb) = scope.words();
        (area == "*" || area == wanted_area) && (verb == "*" || verb == wanted_verb)
    }

    /// The scopes it stands for.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> + '_ {
        Scope::ALL.iter().copied().filter(|scope| self.allows(*scope))
    }
}

impl FromStr for Grant {
    type Err = BadGrant;
    fn from_str(text: &str) -> Result<Self, BadGrant> {
        let grant = Self(text.trim().to_owned());
        let well_formed = grant.0 == "*" || grant.0.matches(':').count() == 1;
        if well_formed && grant.scopes().next().is_some() {
            return Ok(grant);
        }
        Err(BadGrant { found: text.chars().take(80).collect() })
    }
}

impl TryFrom<String> for Grant {
    type Error = BadGrant;
    fn try_from(text: String) -> Result<Self, BadGrant> {
        text.parse()
    }
}

impl From<Grant> for String {
    fn from(grant: Grant) -> Self {
        grant.0
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_stands_for_what_it_says() {
        let check = |grant: &str, scope: Scope, expected: bool| {
            assert_eq!(grant.parse::<Grant>().unwrap().allows(scope), expected, "{grant} {scope:?}");
        };
        check("jobs:read", Scope::JobsRead, true);
        check("jobs:read", Scope::JobsWrite, false);
        check("jobs:*", Scope::JobsWrite, true);
        check("jobs:*", Scope::CacheWrite, false);
        check("*:read", Scope::CacheRead, true);
        check("*:read", Scope::AdminAudit, false);
        check("admin:*", Scope::AdminKeys, true);
        check("*", Scope::AdminKeys, true);
        for bad in ["", "jobs", "jobs:", ":read", "jobs:delete", "JOBS:READ", "jobs:read:x", "**", "*:*:*", "public"] {
            assert!(bad.parse::<Grant>().is_err(), "{bad:?}");
        }
    }
}
