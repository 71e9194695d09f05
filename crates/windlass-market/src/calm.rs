//! Calm mode: a band in place of a number.
//!
//! A band says how a position stands in units of its first risk R, the distance from entry to first
//! stop times units; without a stop R is a hundredth of what the position is worth. It changes at most
//! once in half an hour, and only when the border is passed by a tenth.

use serde::{Deserialize, Serialize};

use crate::positions::Position;

/// How a position stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Band {
    /// Below −0.75 R.
    FarBelow,
    /// To −0.1 R.
    Below,
    /// To 0.1 R; also what is shown while nothing is known.
    AroundZero,
    /// To 1 R.
    Above,
    /// Above 1 R.
    FarAbove,
}

/// The borders between bands, in thousandths of R.
const BORDERS: [i128; 4] = [-750, -100, 100, 1_000];
const BANDS: [Band; 5] = [Band::FarBelow, Band::Below, Band::AroundZero, Band::Above, Band::FarAbove];
/// What a band is shown as where a number is needed, in thousandths of R.
const SHOWN: [i128; 5] = [-1_000, -400, 0, 500, 1_500];

/// The least time between two changes, in ms.
pub const CHANGE_EVERY_MS: i64 = 1_800_000;

impl Band {
    /// The word on the wire and in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FarBelow => "far_below",
            Self::Below => "below",
            Self::AroundZero => "around_zero",
            Self::Above => "above",
            Self::FarAbove => "far_above",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        BANDS.into_iter().find(|band| band.as_str() == word)
    }

    const fn place(self) -> usize {
        self as usize
    }

    /// The band of a profit, both in the same unit; `risk` is above 0.
    #[must_use]
    pub fn of(pnl: i128, risk: i128) -> Self {
        let passed = BORDERS.iter().filter(|border| pnl.saturating_mul(1_000) >= border.saturating_mul(risk)).count();
        BANDS[passed]
    }

    /// A number that stands for the band: the same for every profit in it.
    #[must_use]
    pub fn shown(self, risk: i128) -> i128 {
        SHOWN[self.place()].saturating_mul(risk) / 1_000
    }

    /// The band after this one, when a border is passed by a tenth of it.
    fn after(self, pnl: i128, risk: i128) -> Self {
        let next = Self::of(pnl, risk);
        let scaled = pnl.saturating_mul(10_000);
        let passed = match next.place().cmp(&self.place()) {
            std::cmp::Ordering::Equal => false,
            // The border nearest to where it was.
            std::cmp::Ordering::Greater => {
                let border = BORDERS[self.place()];
                scaled >= (border * 10 + border.abs()).saturating_mul(risk)
            }
            std::cmp::Ordering::Less => {
                let border = BORDERS[self.place() - 1];
                scaled <= (border * 10 - border.abs()).saturating_mul(risk)
            }
        };
        if passed { next } else { self }
    }
}

/// A band and since when it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The band.
    pub band: Band,
    /// Since when, in ms since 1970 UTC.
    pub since_ms: i64,
}

/// The band of a position now, after what stood before.
#[must_use]
pub fn next(before: Option<Standing>, pnl: i128, risk: i128, now_ms: i64) -> Standing {
    let Some(before) = before else { return Standing { band: Band::of(pnl, risk), since_ms: now_ms } };
    let band = before.band.after(pnl, risk);
    if band == before.band || now_ms.saturating_sub(before.since_ms) < CHANGE_EVERY_MS {
        return before;
    }
    Standing { band, since_ms: now_ms }
}

/// R of what is open of a position, in points × units; 1 or more.
#[must_use]
pub fn risk(position: &Position) -> i128 {
    let units = i128::from(position.open_qty);
    let entry = i128::from(position.rules.entry);
    let per_unit = match position.first_sl {
        Some(sl) if i128::from(sl) != entry => (entry - i128::from(sl)).abs(),
        _ => return (entry.saturating_mul(units) / 100).max(1),
    };
    per_unit.saturating_mul(units).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_cut_at_their_borders_8_28() {
        let check = |pnl, expected| assert_eq!(Band::of(pnl, 1_000), expected, "{pnl}");
        check(-751, Band::FarBelow);
        check(-750, Band::Below);
        check(-101, Band::Below);
        check(-100, Band::AroundZero);
        check(0, Band::AroundZero);
        check(99, Band::AroundZero);
        check(100, Band::Above);
        check(999, Band::Above);
        check(1_000, Band::FarAbove);
        for band in BANDS {
            assert_eq!(Band::parse(band.as_str()), Some(band));
            assert_eq!(Band::of(band.shown(1_000), 1_000), band, "what is shown lies in the band");
        }
    }

    #[test]
    fn a_band_does_not_flicker_8_28() {
        let at = |band| Some(Standing { band, since_ms: 0 });
        let check = |before, pnl, now_ms, expected| {
            assert_eq!(next(at(before), pnl, 1_000, now_ms).band, expected, "{before:?} {pnl} {now_ms}");
        };
        check(Band::AroundZero, 105, CHANGE_EVERY_MS, Band::AroundZero);
        check(Band::AroundZero, 110, CHANGE_EVERY_MS, Band::Above);
        check(Band::AroundZero, 110, CHANGE_EVERY_MS - 1, Band::AroundZero);
        check(Band::Above, 95, CHANGE_EVERY_MS, Band::Above);
        check(Band::Above, 90, CHANGE_EVERY_MS, Band::AroundZero);
        check(Band::Below, -800, CHANGE_EVERY_MS, Band::Below);
        check(Band::Below, -825, CHANGE_EVERY_MS, Band::FarBelow);
        check(Band::FarBelow, -700, CHANGE_EVERY_MS, Band::FarBelow);
        check(Band::FarBelow, -675, CHANGE_EVERY_MS, Band::Below);
        check(Band::FarBelow, 5_000, CHANGE_EVERY_MS, Band::FarAbove);
        assert_eq!(next(None, 5_000, 1_000, 7), Standing { band: Band::FarAbove, since_ms: 7 });
        assert_eq!(Band::of(i128::MAX, 1), Band::FarAbove);
    }
}
