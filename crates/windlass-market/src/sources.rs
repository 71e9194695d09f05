//! Several sources of one symbol: which of them is believed.
//!
//! One source at a time decides. It is left when it is silent for the hold-down, or when for as long it
//! says what no other source says; the source it is left for is the first in order that speaks and is
//! not contradicted. A better one takes over again once it has been right for the hold-down.
//! A price that jumps counts only when another source says the same, if there is another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::guard::Limits;
use crate::rules::Quote;

/// How the sources of a symbol are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Their names, the best one first.
    pub names: Vec<String>,
    /// How long a source may be silent or wrong, and must be right to be believed again, in ms.
    pub hold_down_ms: i64,
    /// An older quote is no sign of life, in ms.
    pub max_age_ms: i64,
    /// Prices further apart than this contradict each other, in points; none: they never do.
    pub max_jump: Option<i64>,
}

/// What becomes of a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// It is the symbol's price, as far as the guards believe it.
    Take,
    /// Another source is believed.
    Standby,
    /// It jumps, and no other source says so.
    Contradicted,
    /// Its source said something newer before.
    Late,
    /// Its source said it before.
    Duplicate,
    /// The instrument has no such source.
    Unknown,
}

impl Pick {
    /// The code of a reject; none for what is taken.
    #[must_use]
    pub const fn code(self) -> Option<&'static str> {
        match self {
            Self::Take => None,
            Self::Standby => Some("standby"),
            Self::Contradicted => Some("contradicted"),
            Self::Late => Some("late"),
            Self::Duplicate => Some("duplicate"),
            Self::Unknown => Some("unknown_source"),
        }
    }
}

/// What is remembered of the sources of a symbol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Who is believed.
    active: Option<String>,
    /// The last price that was taken: bid, ask.
    believed: Option<(i64, i64)>,
    heard: BTreeMap<String, Heard>,
}

/// What is remembered of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Heard {
    seq: i64,
    /// Its last fresh price and when that came; none before the first.
    last: Option<(i64, i64, i64)>,
    /// Since when it speaks without a pause and without contradiction.
    right_since_ms: Option<i64>,
    /// Since when it is contradicted.
    wrong_since_ms: Option<i64>,
}

impl Heard {
    fn is_live(&self, now_ms: i64, within_ms: i64) -> bool {
        self.last.is_some_and(|(.., at_ms)| now_ms.saturating_sub(at_ms) <= within_ms)
    }
}

impl Sources {
    /// Who is believed.
    #[must_use]
    pub fn active(&self) -> Option<&str> {
        self.active.as_deref()
    }

    /// Judges a sound quote of a source, given now, and remembers it.
    pub fn pick(&mut self, source: &str, quote: &Quote, now_ms: i64, order: &Order) -> Pick {
        let Some(rank) = order.names.iter().position(|name| name == source) else { return Pick::Unknown };
        self.heard.retain(|name, _| order.names.contains(name));
        if let Some(heard) = self.heard.get(source).filter(|heard| quote.seq <= heard.seq) {
            return if quote.seq == heard.seq { Pick::Duplicate } else { Pick::Late };
        }
        let is_fresh = now_ms.saturating_sub(quote.ts_ms) <= order.max_age_ms
            && quote.ts_ms.saturating_sub(now_ms) <= Limits::DEFAULT.max_ahead_ms;
        let contradicted = is_fresh && self.contradicts(source, quote, now_ms, order);
        let heard = self.heard.entry(source.to_owned()).or_default();
        heard.seq = quote.seq;
        if is_fresh {
            let was_live = heard.is_live(now_ms, order.hold_down_ms);
            heard.last = Some((quote.bid, quote.ask, now_ms));
            heard.wrong_since_ms = contradicted.then_some(heard.wrong_since_ms.unwrap_or(now_ms));
            heard.right_since_ms = heard.right_since_ms.filter(|_| was_live).or(Some(now_ms)).filter(|_| !contradicted);
        }
        let is_active = self.active.as_deref() == Some(source);
        if contradicted {
            return Pick::Contradicted;
        }
        if is_active || (is_fresh && self.takes_over(source, rank, now_ms, order)) {
            self.active = Some(source.to_owned());
            if is_fresh {
                self.believed = Some((quote.bid, quote.ask));
            }
            return Pick::Take;
        }
        Pick::Standby
    }

    /// True when a quote jumps away from the price that is believed, others speak, and none of them says
    /// the same.
    fn contradicts(&self, source: &str, quote: &Quote, now_ms: i64, order: &Order) -> bool {
        let Some(max) = order.max_jump else { return false };
        let near = |bid: i64, ask: i64| bid.abs_diff(quote.bid).max(ask.abs_diff(quote.ask)) <= max.unsigned_abs();
        if self.believed.is_none_or(|(bid, ask)| near(bid, ask)) {
            return false;
        }
        let mut others = self
            .heard
            .iter()
            .filter(|(name, heard)| *name != source && heard.is_live(now_ms, order.hold_down_ms))
            .filter_map(|(_, heard)| heard.last)
            .peekable();
        others.peek().is_some() && !others.any(|(bid, ask, _)| near(bid, ask))
    }

    /// True when a source that is not believed, and is not contradicted, is believed from now on.
    fn takes_over(&self, source: &str, rank: usize, now_ms: i64, order: &Order) -> bool {
        let lasts = |since: Option<i64>| since.is_some_and(|at| now_ms.saturating_sub(at) >= order.hold_down_ms);
        let place = |name: &str| order.names.iter().position(|own| own == name);
        let active = self.active.as_deref().and_then(|name| Some((place(name)?, self.heard.get(name)?)));
        let Some((active_rank, active)) = active else { return true };
        if rank < active_rank && lasts(self.heard.get(source).and_then(|heard| heard.right_since_ms)) {
            return true;
        }
        let is_gone = !active.is_live(now_ms, order.hold_down_ms) || lasts(active.wrong_since_ms);
        // A better one that speaks too takes over with its own next quote.
        let better = |(name, heard): (&String, &Heard)| {
            let is_before = place(name).is_some_and(|other| other < rank && other != active_rank);
            is_before && heard.right_since_ms.is_some() && heard.is_live(now_ms, order.hold_down_ms)
        };
        is_gone && !self.heard.iter().any(better)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quotes `(ms, source, bid)` and what becomes of each: `+` taken, `.` standby, `!` contradicted.
    fn check(max_jump: Option<i64>, quotes: &[(i64, &str, i64)], expected: &str) {
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let order = Order { names, hold_down_ms: 1_000, max_age_ms: 10_000, max_jump };
        let mut sources = Sources::default();
        let told: String = (1..)
            .zip(quotes)
            .map(|(seq, (ms, source, bid))| {
                let quote = Quote { ts_ms: *ms, seq, bid: *bid, ask: bid + 2 };
                // What is remembered goes through the tables with each batch.
                sources = serde_json::from_str(&serde_json::to_string(&sources).unwrap()).unwrap();
                match sources.pick(source, &quote, *ms, &order) {
                    Pick::Take => '+',
                    Pick::Standby => '.',
                    Pick::Contradicted => '!',
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        assert_eq!(told, expected, "{quotes:?}");
    }

    #[test]
    fn the_first_in_order_is_believed_while_it_speaks_8_31() {
        check(None, &[(0, "a", 100), (10, "b", 101), (900, "a", 100), (1_800, "b", 105), (1_950, "b", 105)], "+.+.+");
        // c leaves the place to b, which speaks too.
        let gone = [(0, "a", 1), (500, "b", 1), (600, "c", 1), (1_100, "c", 1), (1_200, "b", 1), (1_300, "c", 1)];
        check(None, &gone, "+...+.");
        // Back after the hold-down, and not at its first word.
        let back = [
            (0, "a", 1),
            (1_001, "b", 1),
            (1_100, "a", 1),
            (1_600, "a", 1),
            (2_050, "b", 1),
            (2_100, "a", 1),
            (2_200, "b", 1),
        ];
        check(None, &back, "++..++.");
    }

    #[test]
    fn a_worse_source_that_spoke_first_is_left_for_a_better_one() {
        check(
            None,
            &[(0, "b", 1), (10, "a", 1), (500, "b", 1), (900, "a", 1), (1_010, "a", 1), (1_020, "b", 1)],
            "+.+.+.",
        );
    }

    #[test]
    fn a_source_that_is_wrong_by_a_tenth_is_held_and_left_8_31() {
        let wrong = [
            (0, "a", 1_000),
            (10, "b", 1_001),
            (100, "a", 900),
            (200, "b", 1_002),
            (300, "a", 900),
            (900, "b", 1_003),
            (1_100, "a", 900),
            (1_110, "b", 1_004),
            (1_200, "a", 900),
            (1_300, "b", 1_005),
        ];
        check(Some(20), &wrong, "+.!.!.!+!+");
        // Right again for the hold-down, it is believed again.
        let right = [
            (0, "a", 100),
            (10, "b", 100),
            (20, "a", 50),
            (900, "b", 100),
            (1_020, "b", 100),
            (1_030, "a", 100),
            (1_900, "b", 100),
            (1_990, "a", 100),
            (2_030, "a", 100),
        ];
        check(Some(20), &right, "+.!.+.+.+");
    }

    #[test]
    fn a_jump_that_another_source_confirms_is_believed() {
        check(
            Some(20),
            &[(0, "a", 100), (10, "b", 100), (20, "a", 150), (30, "b", 149), (40, "a", 151), (50, "b", 150)],
            "+.!.+.",
        );
        // Alone it is taken: the guard of the engine asks for a second one.
        check(Some(20), &[(0, "a", 100), (2_000, "a", 150)], "++");
    }

    #[test]
    fn numbers_are_of_each_source() {
        let order =
            Order { names: vec!["a".into(), "b".into()], hold_down_ms: 1_000, max_age_ms: 10_000, max_jump: None };
        let mut sources = Sources::default();
        let mut pick = |source: &str, seq, ts_ms, now_ms| {
            sources.pick(source, &Quote { ts_ms, seq, bid: 1, ask: 1 }, now_ms, &order)
        };
        assert_eq!(pick("a", 5, 0, 0), Pick::Take);
        assert_eq!(
            (pick("a", 5, 1, 1), pick("a", 4, 1, 1), pick("x", 9, 1, 1)),
            (Pick::Duplicate, Pick::Late, Pick::Unknown)
        );
        assert_eq!(pick("b", 5, 1, 1), Pick::Standby);
        // What is old is no sign of life, and is not turned to.
        assert_eq!(
            (pick("a", 6, 0, 20_000), pick("b", 6, 0, 20_000), pick("b", 7, 20_000, 20_000)),
            (Pick::Take, Pick::Standby, Pick::Take)
        );
    }
}
