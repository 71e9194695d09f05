//! What is due and what was missed: pure decisions over a schedule, where it stands, and now.

use std::time::Duration;

use windlass_jobs::Timestamp;

use crate::schedule::{Missed, Overlap, Schedule};

/// Most ticks answered at once; the rest is due at once again.
const SLICE: usize = 200;
/// Missed ticks of a cron expression are counted up to this; of an interval exactly.
const COUNTED: u64 = 10_000;

/// Ticks nobody makes up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissedRange {
    /// The first of them.
    pub from: Timestamp,
    /// The last of them.
    pub to: Timestamp,
    /// How many: at least this, and exactly where it is under 10,000 or the plan an interval.
    pub count: u64,
}

/// What is to happen now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// Missed, and not made up for.
    pub missed: Option<MissedRange>,
    /// To be fired, in order.
    pub fire: Vec<Timestamp>,
    /// Up to where the schedule is settled then.
    pub cursor: Timestamp,
}

impl Schedule {
    /// Decides about every tick after `cursor` that is due.
    ///
    /// While the oldest is at most the grace late, all are fired. Beyond that the schedule's
    /// [`Missed`] rule decides about all of them.
    #[must_use]
    pub fn settle(&self, cursor: Timestamp, now: Timestamp) -> Due {
        let nothing = Due { cursor, ..Due::default() };
        let Some(first) = self.next_after(cursor).filter(|tick| self.due(*tick) <= now) else { return nothing };
        let grace = Duration::from_millis(self.definition().grace_ms);
        if now.since(self.due(first)) <= grace {
            return self.fire_all(first, now, SLICE);
        }
        let Some(last) = self.last_due(cursor, now) else { return nothing };
        match self.definition().missed {
            Missed::Skip => Due { missed: self.range(cursor, first, last), fire: Vec::new(), cursor: last },
            Missed::Latest => Due { missed: self.range_before(cursor, first, last), fire: vec![last], cursor: last },
            Missed::All { max, window_ms } => {
                let oldest = self.oldest_made_up(cursor, now, last, max, Duration::from_millis(window_ms));
                let Some(oldest) = oldest else {
                    return Due { missed: self.range(cursor, first, last), fire: Vec::new(), cursor: last };
                };
                let missed = self.range_before(cursor, first, oldest);
                // The rule has decided about all of them: none is left to another look.
                Due { missed, ..self.fire_all(oldest, now, usize::MAX) }
            }
        }
    }

    fn fire_all(&self, first: Timestamp, now: Timestamp, most: usize) -> Due {
        let ticks = std::iter::successors(Some(first), |tick| self.next_after(*tick));
        let fire: Vec<Timestamp> = ticks.take_while(|tick| self.due(*tick) <= now).take(most).collect();
        let cursor = fire.last().copied().unwrap_or(first);
        Due { missed: None, fire, cursor }
    }

    /// The last tick after `cursor` that is due; jitter may keep the very last ones back.
    fn last_due(&self, cursor: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let end = self.definition().ends_at.map_or(now, |end| end.min(now));
        let start = self.definition().starts_at.map_or(cursor, |start| cursor.max(Timestamp(start.0 - 1)));
        let mut until = end;
        loop {
            let tick = self.plan().last_within(start, until)?;
            if self.due(tick) <= now {
                return Some(tick);
            }
            until = Timestamp(tick.0 - 1);
        }
    }

    /// The oldest tick that [`Missed::All`] makes up for.
    fn oldest_made_up(
        &self,
        cursor: Timestamp,
        now: Timestamp,
        last: Timestamp,
        max: u32,
        window: Duration,
    ) -> Option<Timestamp> {
        let edge = cursor.max(Timestamp(now.0.saturating_sub(windlass_jobs::millis(window)) - 1));
        let mut newest = std::collections::VecDeque::new();
        let ticks = std::iter::successors(self.next_after(edge), |tick| self.next_after(*tick));
        for tick in ticks.take_while(|tick| *tick <= last) {
            newest.push_back(tick);
            if newest.len() > usize::try_from(max).unwrap_or(usize::MAX) {
                newest.pop_front();
            }
        }
        newest.front().copied()
    }

    fn range(&self, cursor: Timestamp, first: Timestamp, last: Timestamp) -> Option<MissedRange> {
        let start = cursor.max(Timestamp(first.0 - 1));
        let (count, _) = self.plan().count_within(start, last, COUNTED);
        Some(MissedRange { from: first, to: last, count })
    }

    /// Those before `until`, if there are any.
    fn range_before(&self, cursor: Timestamp, first: Timestamp, until: Timestamp) -> Option<MissedRange> {
        if first >= until {
            return None;
        }
        let last = self.plan().last_within(Timestamp(first.0 - 1), Timestamp(until.0 - 1)).unwrap_or(first);
        self.range(cursor, first, last)
    }
}

/// What to do with a tick, given what became of the run before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Enqueue it.
    Fire,
    /// Cancel the run before, then enqueue it.
    Replace,
    /// Skip it: the run before has not ended.
    Skip,
    /// Keep it until the run before has ended.
    Hold,
}

impl Overlap {
    /// Decides about one tick. `busy`: the run before has not ended; `waiting`: ticks wait already.
    #[must_use]
    pub const fn decide(self, busy: bool, waiting: bool) -> Decision {
        match self {
            Self::Allow => Decision::Fire,
            Self::Skip if busy => Decision::Skip,
            Self::Replace if busy => Decision::Replace,
            Self::Queue if busy || waiting => Decision::Hold,
            Self::Skip | Self::Replace | Self::Queue => Decision::Fire,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Definition;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(&format!("2026-01-01T{text}Z")).unwrap()
    }

    fn schedule(plan: &str, change: impl FnOnce(&mut Definition)) -> Schedule {
        let mut definition = Definition::new("s", plan, "probe.noop");
        change(&mut definition);
        Schedule::new(definition).unwrap()
    }

    #[track_caller]
    fn check(schedule: &Schedule, cursor: &str, now: &str, missed: Option<(&str, &str, u64)>, fire: &[&str]) {
        let due = schedule.settle(at(cursor), at(now));
        let missed = missed.map(|(from, to, count)| MissedRange { from: at(from), to: at(to), count });
        assert_eq!(due.missed, missed);
        assert_eq!(due.fire, fire.iter().map(|text| at(text)).collect::<Vec<_>>());
        // Nothing is decided twice.
        let again = schedule.settle(due.cursor, at(now));
        assert_eq!((again.missed, again.fire.len()), (None, 0));
    }

    #[test]
    fn f35_within_the_grace_every_tick_is_fired() {
        for missed in [Missed::Skip, Missed::Latest, Missed::All { max: 1, window_ms: 1_000 }] {
            let schedule = schedule("@every 5s", |d| d.missed = missed);
            check(&schedule, "10:00:00", "10:00:04.999", None, &[]);
            check(&schedule, "10:00:00", "10:00:05", None, &["10:00:05"]);
            check(&schedule, "10:00:00", "10:00:15", None, &["10:00:05", "10:00:10", "10:00:15"]);
        }
    }

    #[test]
    fn f35_after_an_outage_the_rule_for_missed_runs_decides() {
        let hour = |missed| schedule("*/10 * * * *", |d| d.missed = missed);
        check(&hour(Missed::Skip), "10:00:00", "11:05:00", Some(("10:10:00", "11:00:00", 6)), &[]);
        check(&hour(Missed::Latest), "10:00:00", "11:05:00", Some(("10:10:00", "10:50:00", 5)), &["11:00:00"]);
        check(&hour(Missed::Latest), "10:00:00", "10:15:00", None, &["10:10:00"]);
        let all = |max, window_ms| hour(Missed::All { max, window_ms });
        let fire = ["10:40:00", "10:50:00", "11:00:00"];
        check(&all(3, 7_200_000), "10:00:00", "11:05:00", Some(("10:10:00", "10:30:00", 3)), &fire);
        check(&all(100, 1_500_000), "10:00:00", "11:05:00", Some(("10:10:00", "10:30:00", 3)), &fire);
        check(&all(3, 1_000), "10:00:00", "11:05:00", Some(("10:10:00", "11:00:00", 6)), &[]);
        let day = schedule("@every 1s", |_| ());
        check(&day, "00:00:00", "23:59:59.500", Some(("00:00:01", "23:59:58", 86_398)), &["23:59:59"]);
    }

    #[test]
    fn nothing_is_due_before_the_start_or_after_the_end() {
        let bounded = schedule("@hourly", |d| {
            d.starts_at = Some(at("09:30:00"));
            d.ends_at = Some(at("11:00:00"));
            d.missed = Missed::All { max: 10, window_ms: 86_400_000 };
        });
        check(&bounded, "00:00:00", "09:45:00", None, &[]);
        check(&bounded, "00:00:00", "23:00:00", None, &["10:00:00", "11:00:00"]);
        assert_eq!(bounded.firings(at("00:00:00"), 10).len(), 2);
    }

    #[test]
    fn jitter_is_the_same_for_everyone_and_stays_within_its_bound() {
        let spread = schedule("@every 1m", |d| d.jitter_ms = 30_000);
        let late: Vec<i64> =
            spread.firings(at("00:00:00"), 200).into_iter().map(|(tick, due)| due.0 - tick.0).collect();
        assert!(late.iter().all(|ms| (0..=30_000).contains(ms)));
        assert!(late.iter().max() > Some(&25_000) && late.iter().min() < Some(&5_000), "it is spread");
        let (tick, due) = spread.firings(at("00:00:00"), 1)[0];
        assert_eq!(spread.settle(at("00:00:00"), Timestamp(due.0 - 1)).fire, []);
        assert_eq!(spread.settle(at("00:00:00"), due).fire, [tick]);
    }

    #[test]
    fn overlap_is_decided_by_the_run_before() {
        use Decision::{Fire, Hold, Replace, Skip};
        for (rule, idle, busy, waiting) in [
            (Overlap::Allow, Fire, Fire, Fire),
            (Overlap::Skip, Fire, Skip, Fire),
            (Overlap::Replace, Fire, Replace, Fire),
            (Overlap::Queue, Fire, Hold, Hold),
        ] {
            assert_eq!(
                (rule.decide(false, false), rule.decide(true, false), rule.decide(false, true)),
                (idle, busy, waiting)
            );
        }
    }

    /// F36: whoever enqueues a tick enqueues the same job.
    #[test]
    fn f36_the_id_of_a_tick_is_that_of_schedule_and_tick() {
        let queue = || windlass_jobs::Queue::new("q").unwrap();
        let (one, other) = (schedule("@hourly", |_| ()), schedule("@hourly", |d| d.name = "t".into()));
        let id = |s: &Schedule, text| s.job(at(text), queue()).unwrap().0;
        assert_eq!(id(&one, "10:00:00"), id(&schedule("@daily", |_| ()), "10:00:00"));
        assert_ne!(id(&one, "10:00:00"), id(&one, "11:00:00"));
        assert_ne!(id(&one, "10:00:00"), id(&other, "10:00:00"));
        assert_eq!(id(&one, "10:00:00").ulid.timestamp_ms(), u64::try_from(at("10:00:00").0).unwrap());
    }
}
