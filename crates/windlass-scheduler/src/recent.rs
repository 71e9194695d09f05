//! What was enqueued lately, for a store that loses it.
//!
//! A Redis that fails over loses the last writes that had not reached the replica, and those that
//! the old primary still took while the new one stood already. The leader goes on with what it knows
//! in memory, so that these ticks would be lost: whenever another server may answer than before, the
//! last ones are enqueued once more under their ids, which does nothing where they are known.

use std::collections::VecDeque;
use std::time::Duration;

use windlass_jobs::Timestamp;

/// How far back a tick is offered again: longer than a fail-over takes.
const WINDOW: Duration = Duration::from_secs(30);

/// The ticks of the last half minute.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// When each was enqueued, its schedule, its tick; oldest first.
    ticks: VecDeque<(Timestamp, String, Timestamp)>,
    /// The broker's generation in which all of them are known to be there.
    generation: u64,
    seeded: u64,
}

impl Recent {
    /// A tick was enqueued.
    pub(crate) fn fired(&mut self, at: Timestamp, name: &str, tick: Timestamp) {
        self.forget_before(at);
        self.ticks.push_back((at, name.to_owned(), tick));
    }

    /// How often a store that had lost everything was seeded: nobody can tell what of it had been
    /// done, so that nothing of before is offered again.
    pub(crate) fn heed(&mut self, seeded: u64) {
        if seeded > self.seeded {
            self.seeded = seeded;
            self.ticks.clear();
        }
    }

    /// What is to be offered again in this generation of the broker; nothing in the one it was
    /// [`settled`](Self::settled) in.
    pub(crate) fn in_doubt(&mut self, generation: u64, now: Timestamp) -> impl Iterator<Item = (&str, Timestamp)> {
        self.forget_before(now);
        let take = if generation == self.generation { 0 } else { self.ticks.len() };
        self.ticks.iter().take(take).map(|(_, name, tick)| (name.as_str(), *tick))
    }

    /// Everything is there in this generation of the broker.
    pub(crate) fn settled(&mut self, generation: u64) {
        self.generation = generation;
    }

    fn forget_before(&mut self, now: Timestamp) {
        while self.ticks.front().is_some_and(|(at, ..)| now.since(*at) > WINDOW) {
            self.ticks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(recent: &mut Recent, generation: u64, now: i64) -> Vec<i64> {
        recent.in_doubt(generation, Timestamp(now)).map(|(_, tick)| tick.0).collect()
    }

    #[test]
    fn only_the_last_half_minute_is_offered_and_once_a_generation() {
        let mut recent = Recent::default();
        for second in 0..40 {
            recent.fired(Timestamp(second * 1_000), "a", Timestamp(second));
        }
        assert_eq!(offered(&mut recent, 0, 40_000), Vec::<i64>::new());
        assert_eq!(offered(&mut recent, 1, 40_000), (10..40).collect::<Vec<_>>());
        assert_eq!(offered(&mut recent, 1, 40_000).len(), 30, "until they are there");
        recent.settled(1);
        assert_eq!(offered(&mut recent, 1, 40_000), Vec::<i64>::new());
        assert_eq!(offered(&mut recent, 2, 60_000).len(), 10);
        recent.heed(1);
        assert_eq!(offered(&mut recent, 2, 60_000), Vec::<i64>::new(), "a store that lost all is not filled again");
    }
}
