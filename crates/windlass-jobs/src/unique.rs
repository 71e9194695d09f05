//! Jobs of which there is only one: the key, how long it is held, and what a clash does.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::job::MAX_SCHEDULE_AHEAD;
use crate::outcome::Violation;
use crate::time::millis;

/// The longest key a job may name: unique, tenant and the like.
pub const MAX_KEY_BYTES: usize = 64;

/// Makes a job the only one with its key on its queue.
///
/// *Shape as JSON*: `{"key": "user-7", "ttl_ms": 86400000, "until": "started" | "finished" |
/// "ttl", "on_clash": "keep" | "replace", "debounce_ms": 60000}`; only `key` is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unique {
    /// 1 to [`MAX_KEY_BYTES`] bytes without control characters.
    pub key: String,
    /// How long the key is held at most, from the enqueue: 1 ms to a year; default
    /// [`Unique::DEFAULT_TTL`].
    #[serde(rename = "ttl_ms", default = "default_ttl", with = "as_millis")]
    pub ttl: Duration,
    /// What ends the hold before the time is over; default [`Until::Finished`].
    #[serde(default)]
    pub until: Until,
    /// What a second job with the key does to the first; default [`OnClash::Keep`].
    #[serde(default)]
    pub on_clash: OnClash,
    /// A second job with the key moves the first, while that is scheduled, to its own time, but
    /// not further than this after the first was accepted.
    #[serde(rename = "debounce_ms", default, skip_serializing_if = "Option::is_none", with = "as_optional_millis")]
    pub debounce: Option<Duration>,
}

/// What ends the hold on a unique key before its time is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The first start of the job, or its end if it never starts.
    Started,
    /// The end of the job: success, failure or cancelled.
    #[default]
    Finished,
    /// Nothing.
    Ttl,
}

/// What a second job with a held unique key does. It is not accepted itself in either case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnClash {
    /// Nothing.
    #[default]
    Keep,
    /// Its kind, args and options (those apart that say where it waits: priority, time, lane)
    /// become those of the first, if that waits. A running job is left alone, and so is one where
    /// either depends on others.
    Replace,
}

impl Unique {
    /// How long a key is held when nothing is said.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 60 * 60);

    /// A key with everything else at its default.
    #[must_use]
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            ttl: Self::DEFAULT_TTL,
            until: Until::default(),
            on_clash: OnClash::default(),
            debounce: None,
        }
    }

    /// Everything wrong with it.
    pub(crate) fn check(&self, wrong: &mut Vec<Violation>) {
        if let Err(message) = check_key(&self.key) {
            wrong.push(Violation::new("/unique/key", "key_invalid", message));
        }
        let allowed = Duration::from_millis(1)..=MAX_SCHEDULE_AHEAD;
        for (path, span) in [("/unique/ttl_ms", Some(self.ttl)), ("/unique/debounce_ms", self.debounce)] {
            if span.is_some_and(|span| !allowed.contains(&span)) {
                wrong.push(Violation::new(path, "out_of_range", "1 to 31622400000 is allowed"));
            }
        }
    }

    /// Reads it back from the value of the short form's word `unique` and its key.
    #[must_use]
    pub fn from_short(word: &str, key: &str) -> Option<Self> {
        let mut parts = word.split(':');
        let until = match parts.next()? {
            "s" => Until::Started,
            "f" => Until::Finished,
            "t" => Until::Ttl,
            _ => return None,
        };
        let ttl = Duration::from_millis(parts.next()?.parse().ok()?);
        let on_clash = if parts.next()? == "r" { OnClash::Replace } else { OnClash::Keep };
        let debounce = parts.next().and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        Some(Self { key: key.to_owned(), ttl, until, on_clash, debounce })
    }
}

impl Until {
    /// Its letter in the short form: `s`, `f`, `t`.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Started => 's',
            Self::Finished => 'f',
            Self::Ttl => 't',
        }
    }
}

impl fmt::Display for Unique {
    /// The value of the short form's word, without the key: `f:86400000:k`, `s:1000:r:60000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clash = if self.on_clash == OnClash::Replace { 'r' } else { 'k' };
        write!(f, "{}:{}:{clash}", self.until.letter(), millis(self.ttl))?;
        self.debounce.map_or(Ok(()), |most| write!(f, ":{}", millis(most)))
    }
}

/// Checks a key that a job names.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn check_key(key: &str) -> Result<(), String> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) && !key.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(format!("1 to {MAX_KEY_BYTES} bytes without control characters are allowed"))
    }
}

const fn default_ttl() -> Duration {
    Unique::DEFAULT_TTL
}

mod as_millis {
    use super::{Deserialize, Deserializer, Duration, Serializer, millis};

    pub(super) fn serialize<S: Serializer>(span: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(millis(*span))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_millis)
    }
}

mod as_optional_millis {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer, millis};

    #[allow(clippy::ref_option, reason = "serde's shape")]
    pub(super) fn serialize<S: Serializer>(span: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        span.map(millis).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(d)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_and_json_round_trip() {
        let full = Unique {
            key: "user 7: Ä".into(),
            ttl: Duration::from_millis(1_500),
            until: Until::Started,
            on_clash: OnClash::Replace,
            debounce: Some(Duration::from_secs(60)),
        };
        for unique in [Unique::new("k"), full, Unique { until: Until::Ttl, ..Unique::new("k") }] {
            assert_eq!(Unique::from_short(&unique.to_string(), &unique.key), Some(unique.clone()));
            let json = serde_json::to_string(&unique).unwrap();
            assert_eq!(serde_json::from_str::<Unique>(&json).unwrap(), unique);
        }
        assert_eq!(serde_json::from_str::<Unique>(r#"{"key":"k"}"#).unwrap(), Unique::new("k"));
        assert!(serde_json::from_str::<Unique>(r#"{"key":"k","ttl":1}"#).is_err());
    }

    #[test]
    fn wrong_keys_and_times_are_named() {
        let check = |unique: Unique, path: &str| {
            let mut wrong = Vec::new();
            unique.check(&mut wrong);
            assert_eq!(wrong.first().map(|v| v.path.as_str()), Some(path));
        };
        check(Unique::new(""), "/unique/key");
        check(Unique::new("k".repeat(65)), "/unique/key");
        check(Unique::new("a\nb"), "/unique/key");
        check(Unique { ttl: Duration::ZERO, ..Unique::new("k") }, "/unique/ttl_ms");
        check(Unique { debounce: Some(Duration::MAX), ..Unique::new("k") }, "/unique/debounce_ms");
    }
}
