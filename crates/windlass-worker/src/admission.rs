//! What may run at once beside the slots: so many jobs of a kind, and so much declared memory.
//!
//! A job that finds no room is given back unstarted, to the front of its queue, and its queue is
//! left alone until there is room: nothing waits hidden in the worker.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long room is kept for the first job that found none, before others may take it again.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// The bounds of a worker, and what is taken of them.
#[derive(Debug)]
pub(crate) struct Admission {
    kind_slots: BTreeMap<String, usize>,
    memory_bytes: Option<u64>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    kinds: HashMap<String, usize>,
    memory_bytes: u64,
    /// Room kept for a large job, so that small ones do not keep it waiting for ever.
    kept: Option<(u64, Instant)>,
}

/// What a job wants of the bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    /// Its kind's name.
    pub(crate) kind: String,
    /// The memory it declares, in bytes.
    pub(crate) memory_bytes: u64,
}

/// Why a job may not run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There will be room when others have ended.
    Later,
    /// It declares more memory than this worker has in all, in bytes.
    Never(u64),
}

/// A job's part of the bounds, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    of: Arc<Admission>,
    need: Need,
}

impl Admission {
    pub(crate) fn new(kind_slots: BTreeMap<String, usize>, memory_bytes: Option<u64>) -> Arc<Self> {
        Arc::new(Self { kind_slots, memory_bytes, taken: Mutex::default() })
    }

    /// True when there is nothing to ask for: the usual case.
    pub(crate) fn is_free(&self) -> bool {
        self.kind_slots.is_empty() && self.memory_bytes.is_none()
    }

    /// Takes what a job needs.
    pub(crate) fn admit(self: &Arc<Self>, need: &Need, now: Instant) -> Result<Permit, Refusal> {
        if let Some(budget) = self.memory_bytes.filter(|budget| need.memory_bytes > *budget) {
            return Err(Refusal::Never(budget));
        }
        let mut taken = self.lock();
        if !self.fits(&taken, need, now) {
            let short_of_memory = self.kind_fits(&taken, need);
            if short_of_memory && taken.kept.is_none_or(|(_, until)| until <= now) {
                taken.kept = Some((need.memory_bytes, now + KEPT_FOR));
            }
            return Err(Refusal::Later);
        }
        if taken.kept.is_some_and(|(bytes, _)| bytes == need.memory_bytes) {
            taken.kept = None;
        }
        *taken.kinds.entry(need.kind.clone()).or_default() += 1;
        taken.memory_bytes += need.memory_bytes;
        Ok(Permit { of: Arc::clone(self), need: need.clone() })
    }

    /// Whether such a job would find room now.
    pub(crate) fn has_room(&self, need: &Need, now: Instant) -> bool {
        self.fits(&self.lock(), need, now)
    }

    fn fits(&self, taken: &Taken, need: &Need, now: Instant) -> bool {
        self.kind_fits(taken, need) && self.memory_fits(taken, need.memory_bytes, now)
    }

    fn kind_fits(&self, taken: &Taken, need: &Need) -> bool {
        let running = taken.kinds.get(&need.kind).copied().unwrap_or(0);
        self.kind_slots.get(&need.kind).is_none_or(|slots| running < *slots)
    }

    fn memory_fits(&self, taken: &Taken, bytes: u64, now: Instant) -> bool {
        let Some(budget) = self.memory_bytes.filter(|_| bytes > 0) else { return true };
        let kept = match taken.kept {
            Some((kept, until)) if until > now && kept != bytes => kept,
            _ => 0,
        };
        taken.memory_bytes.saturating_add(bytes).saturating_add(kept) <= budget
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        taken.memory_bytes = taken.memory_bytes.saturating_sub(self.need.memory_bytes);
        if let Some(running) = taken.kinds.get_mut(&self.need.kind) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                taken.kinds.remove(&self.need.kind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(kind: &str, memory_bytes: u64) -> Need {
        Need { kind: kind.to_owned(), memory_bytes }
    }

    #[test]
    fn a_kind_has_its_slots_and_others_theirs() {
        let bounds = Admission::new([("a".to_owned(), 2)].into(), None);
        let now = Instant::now();
        let first = bounds.admit(&need("a", 0), now).unwrap();
        let _second = bounds.admit(&need("a", 9), now).unwrap();
        assert_eq!(bounds.admit(&need("a", 0), now).unwrap_err(), Refusal::Later);
        assert!(!bounds.has_room(&need("a", 0), now) && bounds.has_room(&need("b", 0), now));
        drop(first);
        assert!(bounds.has_room(&need("a", 0), now));
    }

    #[test]
    fn declared_memory_stays_within_the_budget() {
        let bounds = Admission::new(BTreeMap::new(), Some(100));
        let now = Instant::now();
        let sixty = bounds.admit(&need("a", 60), now).unwrap();
        let _forty = bounds.admit(&need("b", 40), now).unwrap();
        assert_eq!(bounds.admit(&need("a", 1), now).unwrap_err(), Refusal::Later);
        assert!(bounds.admit(&need("a", 0), now).is_ok(), "who declares nothing is not held back");
        assert_eq!(bounds.admit(&need("a", 101), now).unwrap_err(), Refusal::Never(100));
        drop(sixty);
        assert!(bounds.admit(&need("a", 1), now).is_ok());
    }

    #[test]
    fn a_large_job_is_not_kept_waiting_by_small_ones() {
        let bounds = Admission::new(BTreeMap::new(), Some(100));
        let now = Instant::now();
        let first = bounds.admit(&need("small", 30), now).unwrap();
        assert_eq!(bounds.admit(&need("large", 90), now).unwrap_err(), Refusal::Later);
        assert_eq!(bounds.admit(&need("small", 30), now).unwrap_err(), Refusal::Later, "room is kept");
        let later = now + KEPT_FOR;
        assert!(bounds.has_room(&need("small", 30), later), "but not for ever");
        drop(first);
        let large = bounds.admit(&need("large", 90), now).unwrap();
        drop(large);
        assert!(bounds.admit(&need("small", 30), now).is_ok(), "what was kept is free again");
    }
}
