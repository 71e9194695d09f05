//! Queues that are spread over shards, each with keys in a slot of its own.

use crate::id::{NameError, Queue};
use crate::job::NewJob;
use crate::outcome::Violation;

/// The most shards of a queue.
pub const MAX_SHARDS: u16 = 256;

impl Queue {
    /// One shard of this queue, from 0.
    ///
    /// # Errors
    /// [`NameError::Queue`] for a shard: it has none.
    pub fn shard(&self, n: u16) -> Result<Self, NameError> {
        Self::new(&format!("{self}.{n}"))
    }

    /// The name without its shard.
    #[must_use]
    pub fn name(&self) -> &str {
        self.as_str().split_once('.').map_or(self.as_str(), |(name, _)| name)
    }

    /// True for a shard of a queue.
    #[must_use]
    pub fn is_shard(&self) -> bool {
        self.as_str().contains('.')
    }

    /// All shards of this queue when it has so many, else itself.
    #[must_use]
    pub fn spread(&self, shards: u16) -> Vec<Self> {
        if shards <= 1 { vec![self.clone()] } else { (0..shards).filter_map(|n| self.shard(n).ok()).collect() }
    }
}

/// Where a job of a queue with so many shards goes: a job with a unique, ordering, concurrency or rate
/// key to the shard of that key, so that all of a key's jobs meet; others by their ids, one after the
/// other, so that a repeat meets its first. A tenant's jobs are spread: each shard is fair to it.
///
/// # Errors
/// A job whose keys belong on different shards.
pub fn place(queue: &Queue, shards: u16, job: &NewJob) -> Result<Queue, Violation> {
    if shards <= 1 || queue.is_shard() {
        return Ok(queue.clone());
    }
    let count = u64::from(shards);
    let options = &job.options;
    let unique = options.unique.as_ref().map(|unique| &unique.key);
    let keys = [unique, options.ordering_key.as_ref(), options.concurrency_key.as_ref(), options.rate_key.as_ref()];
    let mut all = keys.into_iter().flatten().map(|key| hash(key) % count);
    let first = all.next();
    if all.any(|shard| Some(shard) != first) {
        let message =
            format!("queue {queue} has {shards} shards, and this job's keys belong on different ones: use one key");
        return Err(Violation::new("/queue", "conflict", message));
    }
    #[expect(clippy::cast_possible_truncation, reason = "ids of one millisecond rise by one in their last bits")]
    let shard = first.unwrap_or(job.ulid.0 as u64 % count);
    let shard = u16::try_from(shard).unwrap_or(0);
    queue.shard(shard).map_err(|e| Violation::new("/queue", "queue_invalid", e.to_string()))
}

/// FNV-1a: the same for every version and machine.
fn hash(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Options, Unique};

    fn job(options: Options) -> NewJob {
        NewJob { options, ..NewJob::new("noop", &()).unwrap() }
    }

    fn queue(name: &str) -> Queue {
        Queue::new(name).unwrap()
    }

    #[test]
    fn jobs_without_keys_are_spread_evenly_and_repeats_meet_their_first() {
        let jobs: Vec<NewJob> = (0..3_000).map(|_| job(Options::default())).collect();
        let mut found: BTreeMap<Queue, usize> = BTreeMap::new();
        for job in &jobs {
            let at = place(&queue("q"), 3, job).unwrap();
            assert_eq!(place(&queue("q"), 3, job).unwrap(), at);
            *found.entry(at).or_default() += 1;
        }
        assert_eq!(found.keys().map(Queue::as_str).collect::<Vec<_>>(), ["q.0", "q.1", "q.2"]);
        assert!(found.values().all(|n| (800..1_200).contains(n)), "{found:?}");
    }

    #[test]
    fn jobs_of_a_key_meet_whatever_the_key_is_for() {
        let of = |options: Options| place(&queue("q"), 7, &job(options)).unwrap();
        let key = || Some("k".to_owned());
        let expected = of(Options { unique: Some(Unique::new("k")), ..Options::default() });
        assert_eq!(of(Options { ordering_key: key(), ..Options::default() }), expected);
        assert_eq!(of(Options { concurrency_key: key(), rate_key: key(), ..Options::default() }), expected);
        let tenants: std::collections::BTreeSet<Queue> =
            (0..50).map(|_| of(Options { tenant: key(), ..Options::default() })).collect();
        assert_eq!(tenants.len(), 7, "a tenant is everywhere");
        // The formula is kept: jobs that wait were placed by it.
        assert_eq!(hash("k"), 0xaf63_e64c_8601_fd8a, "FNV-1a of one byte");
    }

    #[test]
    fn keys_of_different_shards_are_refused() {
        let both =
            job(Options { unique: Some(Unique::new("a")), ordering_key: Some("b".into()), ..Options::default() });
        let refused = place(&queue("q"), 2, &both).unwrap_err();
        assert_eq!((refused.path.as_str(), refused.code.as_str()), ("/queue", "conflict"));
        assert_eq!(place(&queue("q"), 1, &both).unwrap(), queue("q"));
        assert_eq!(place(&queue("q.5"), 2, &both).unwrap(), queue("q.5"), "a shard has been chosen");
    }

    #[test]
    fn shards_have_names() {
        let shard = queue("q").shard(3).unwrap();
        assert_eq!((shard.as_str(), shard.name(), shard.is_shard()), ("q.3", "q", true));
        assert!(shard.shard(1).is_err());
        assert_eq!(queue("q").spread(1), [queue("q")]);
        assert_eq!(queue("q").spread(2), [queue("q.0"), queue("q.1")]);
    }
}
