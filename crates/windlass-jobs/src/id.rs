//! Names: queues, job ids, leases and workers, each with its grammar.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
pub use ulid::Ulid;

/// A name that does not fit its grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a queue.
    #[error("queue {0:?} is not 1 to 64 of a-z 0-9 _ -, optionally followed by a shard such as .3")]
    Queue(String),
    /// Not a job id.
    #[error("job id {0:?} is not a ULID, a dot and a queue")]
    JobId(String),
    /// Not a kind.
    #[error("kind {0:?} is not 1 to 64 of a-z 0-9 _ - and dots between words")]
    Kind(String),
}

/// Where a job waits: a queue, or one shard of it.
///
/// *Shape*: `[a-z0-9_-]{1,64}`, on a sharded queue followed by `.n` with n in 0–65,535. The
/// text is also the hash tag that every key of the queue carries, so that they share a slot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue(Arc<str>);

impl Queue {
    /// The longest name, in bytes, without its shard.
    pub const MAX_LEN: usize = 64;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError::Queue`] when it does not fit the grammar.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let (name, shard) = match text.split_once('.') {
            Some((name, shard)) => (name, Some(shard)),
            None => (text, None),
        };
        let name_fits = (1..=Self::MAX_LEN).contains(&name.len())
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        let shard_fits = shard.is_none_or(|s| s.parse::<u16>().is_ok_and(|n| n.to_string() == s));
        if name_fits && shard_fits { Ok(Self(text.into())) } else { Err(NameError::Queue(text.to_owned())) }
    }

    /// The name with its shard, such as `"pdf"` or `"pdf.3"`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({})", self.0)
    }
}

impl FromStr for Queue {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl Serialize for Queue {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Queue {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// A job's public id. It names the queue, so that whoever holds it finds the job's slot.
///
/// *Shape*: `{ulid}.{queue}`, as in `01K9ZQ4T8Z6V0YQ0M5R7T2W3XK.pdf`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId {
    /// The unique part; its time is the producer's clock and decides nothing.
    pub ulid: Ulid,
    /// Where the job lives, for its whole life.
    pub queue: Queue,
}

impl JobId {
    /// The id of a job on a queue.
    #[must_use]
    pub const fn new(ulid: Ulid, queue: Queue) -> Self {
        Self { ulid, queue }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ulid, self.queue)
    }
}

impl FromStr for JobId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let fail = || NameError::JobId(s.chars().take(128).collect());
        let (ulid, queue) = s.split_once('.').ok_or_else(fail)?;
        // ULIDs are written in capitals; one spelling per id keeps keys and comparisons simple.
        if ulid.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(fail());
        }
        Ok(Self { ulid: Ulid::from_string(ulid).map_err(|_| fail())?, queue: Queue::new(queue).map_err(|_| fail())? })
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A new ULID, rising within this process so that a batch keeps its order.
#[must_use]
pub fn new_ulid() -> Ulid {
    static GENERATOR: LazyLock<Mutex<ulid::Generator>> = LazyLock::new(|| Mutex::new(ulid::Generator::new()));
    let mut generator = GENERATOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match generator.generate() {
        Ok(ulid) => ulid,
        Err(overflow) => overflow.commit_overflow_increment(),
    }
}

/// Checks a kind's name: 1 to 64 bytes of `a-z 0-9 _ -` in words joined by dots.
///
/// # Errors
/// [`NameError::Kind`] when it does not fit.
pub fn check_kind(kind: &str) -> Result<(), NameError> {
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if kind.len() <= 64 && kind.split('.').all(word) {
        Ok(())
    } else {
        Err(NameError::Kind(kind.chars().take(128).collect()))
    }
}

/// A job in the hands of a worker: the fence of every write that worker makes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease {
    /// The job.
    pub ulid: Ulid,
    /// Which claim of it: rises by one with each, so that an old holder is refused.
    pub epoch: u32,
}

impl fmt::Display for Lease {
    /// `<ulid>:<epoch>`, the member of the `lease` sorted set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.ulid, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_checked() {
        let longest = "q".repeat(64);
        for good in ["a", "pdf", "chart-2", "a_b", "pdf.0", "pdf.65535", longest.as_str()] {
            assert!(Queue::new(good).is_ok(), "{good:?}");
        }
        let too_long = "q".repeat(65);
        for bad in ["", "Pdf", "a b", "a:b", "{a}", "a.", "a.b", "a.01", "a.65536", "a.1.2", "ä", "a\n", &too_long] {
            assert!(Queue::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn job_ids_round_trip_and_have_one_spelling() {
        let id = JobId::new(new_ulid(), Queue::new("pdf.3").unwrap());
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        for bad in
            ["", "x", "01K9ZQ4T8Z6V0YQ0M5R7T2W3XK", "01k9zq4t8z6v0yq0m5r7t2w3xk.pdf", "01K9ZQ4T8Z6V0YQ0M5R7T2W3XK.P"]
        {
            assert!(bad.parse::<JobId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ulids_rise_within_a_process() {
        let ids: Vec<Ulid> = (0..10_000).map(|_| new_ulid()).collect();
        assert!(ids.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn kinds_are_checked() {
        for good in ["noop", "pdf.card_sheet", "market.sl_tp_watcher.check_sl_tp_positions"] {
            assert!(check_kind(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "a.", "A", "a b", &"k".repeat(65)] {
            assert!(check_kind(bad).is_err(), "{bad:?}");
        }
    }
}
