//! One round of one schedule: from what is due and what became of the run before to what is
//! enqueued, skipped and kept waiting. Pure.

use windlass_jobs::Timestamp;

use crate::due::{Decision, Due, MissedRange};
use crate::schedule::{MAX_HELD, Overlap, Schedule};
use crate::state::State;

/// What is to be done for a schedule now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// Ticks nobody makes up for.
    pub(crate) missed: Option<MissedRange>,
    /// Ticks to enqueue, in order; with true, the run before is cancelled first.
    pub(crate) fire: Vec<(Timestamp, bool)>,
    /// Ticks skipped because of the run before.
    pub(crate) skipped: Vec<Timestamp>,
    /// Ticks that were added to those that wait.
    pub(crate) held: Vec<Timestamp>,
    /// Where the schedule stands then, but for its last run and totals.
    pub(crate) cursor: Timestamp,
    /// Every tick that waits then.
    pub(crate) waiting: Vec<Timestamp>,
}

impl Round {
    /// True when nothing changes.
    pub(crate) fn is_empty(&self, state: &State) -> bool {
        self.missed.is_none()
            && self.fire.is_empty()
            && self.skipped.is_empty()
            && self.waiting == state.held
            && self.cursor <= state.cursor
    }
}

/// Decides. `busy`: the last run has not ended.
pub(crate) fn decide(schedule: &Schedule, state: &State, due: Due, mut busy: bool) -> Round {
    let rule = schedule.definition().overlap;
    let mut round = Round { missed: due.missed, cursor: due.cursor, waiting: state.held.clone(), ..Round::default() };
    if !busy && !round.waiting.is_empty() {
        round.fire.push((round.waiting.remove(0), false));
        busy = true;
    }
    let last = due.fire.last().copied();
    for tick in due.fire {
        match rule.decide(busy, !round.waiting.is_empty()) {
            // Of several at once only the last would live.
            _ if rule == Overlap::Replace && Some(tick) != last => round.skipped.push(tick),
            Decision::Fire => {
                round.fire.push((tick, false));
                busy = true;
            }
            Decision::Replace => round.fire.push((tick, true)),
            Decision::Skip => round.skipped.push(tick),
            Decision::Hold if round.waiting.len() < MAX_HELD => {
                round.waiting.push(tick);
                round.held.push(tick);
            }
            Decision::Hold => round.skipped.push(tick),
        }
    }
    round
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Definition;

    fn round(overlap: Overlap, held: &[i64], ticks: &[i64], busy: bool) -> (Vec<(i64, bool)>, Vec<i64>, Vec<i64>) {
        let mut definition = Definition::new("s", "@every 1s", "k");
        definition.overlap = overlap;
        let stamps = |ms: &[i64]| ms.iter().map(|ms| Timestamp(*ms)).collect::<Vec<_>>();
        let numbers = |stamps: &[Timestamp]| stamps.iter().map(|at| at.0).collect::<Vec<_>>();
        let state = State { held: stamps(held), ..State::default() };
        let due = Due { fire: stamps(ticks), ..Due::default() };
        let round = decide(&Schedule::new(definition).unwrap(), &state, due, busy);
        let fire = round.fire.iter().map(|(tick, replace)| (tick.0, *replace)).collect();
        (fire, numbers(&round.skipped), numbers(&round.waiting))
    }

    #[test]
    fn overlapping_ticks_are_skipped_held_replaced_or_let_run() {
        let none: &[i64] = &[];
        let check = |found, fire: &[(i64, bool)], skipped: &[i64], waiting: &[i64]| {
            assert_eq!(found, (fire.to_vec(), skipped.to_vec(), waiting.to_vec()));
        };
        check(round(Overlap::Skip, none, &[1, 2], false), &[(1, false)], &[2], none);
        check(round(Overlap::Skip, none, &[1, 2], true), &[], &[1, 2], none);
        check(round(Overlap::Allow, none, &[1, 2], true), &[(1, false), (2, false)], none, none);
        check(round(Overlap::Replace, none, &[1, 2], true), &[(2, true)], &[1], none);
        check(round(Overlap::Replace, none, &[1], false), &[(1, false)], none, none);
        check(round(Overlap::Queue, none, &[1, 2], false), &[(1, false)], none, &[2]);
        check(round(Overlap::Queue, &[1, 2], &[3], true), &[], none, &[1, 2, 3]);
        check(round(Overlap::Queue, &[1, 2], &[3], false), &[(1, false)], none, &[2, 3]);
        check(round(Overlap::Queue, &[1], none, false), &[(1, false)], none, none);
        let full: Vec<i64> = (0..100).collect();
        check(round(Overlap::Queue, &full, &[100], true), &[], &[100], &full);
    }
}
