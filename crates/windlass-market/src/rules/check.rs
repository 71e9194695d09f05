//! What makes a set of rules refused when it is given.

use super::{Distance, Rules};

/// Why rules are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct BadRules {
    /// The field, such as `"sl"`.
    pub field: &'static str,
    /// A stable word a program can branch on.
    pub code: &'static str,
    /// What is allowed, for a person.
    pub why: &'static str,
}

/// The distance of bps at which nothing would be left of the price.
const WHOLE_BPS: i64 = 10_000;
/// Legs of one position at most.
pub(crate) const MAX_LEGS: u8 = 5;

fn refuse(field: &'static str, code: &'static str, why: &'static str) -> Result<(), BadRules> {
    Err(BadRules { field, code, why })
}

fn require(holds: bool, field: &'static str, code: &'static str, why: &'static str) -> Result<(), BadRules> {
    if holds { Ok(()) } else { refuse(field, code, why) }
}

impl Rules {
    /// Says what is wrong with the rules by themselves; distances of an instrument and the
    /// market's price are checked where they are known.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn check(&self) -> Result<(), BadRules> {
        self.check_ranges()?;
        if let (Some(sl), Some(tp)) = (self.sl, self.tp) {
            let ordered = self.side.y(tp) > self.side.y(sl);
            require(ordered, "tp", "target_behind_stop", "the target lies on the winning side of the stop")?;
        }
        let backed = !self.guaranteed || self.sl.is_some();
        require(backed, "sl_guaranteed", "stop_missing", "only a stop that is set is guaranteed")?;
        if let Some(even) = self.break_even {
            let below = even.offset <= even.trigger;
            require(below, "be_offset", "out_of_range", "at most be_trigger is allowed")?;
            let stop = i128::from(self.entry) + i128::from(self.side.sign()) * i128::from(even.offset);
            let fits = i64::try_from(stop).is_ok_and(|stop| stop > 0);
            require(fits, "be_offset", "out_of_range", "the entry moved by it must be a price")?;
        }
        self.check_legs()
    }

    /// Says which value by itself is out of its range; how they lie to each other is not asked.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn check_ranges(&self) -> Result<(), BadRules> {
        let positive = |value: Option<i64>| value.is_none_or(|value| value > 0);
        require(self.qty > 0, "qty", "out_of_range", "1 or more is allowed")?;
        require(self.entry > 0, "entry", "out_of_range", "a price above 0 is allowed")?;
        require(positive(self.sl), "sl", "out_of_range", "a price above 0 is allowed")?;
        require(positive(self.tp), "tp", "out_of_range", "a price above 0 is allowed")?;
        if let Some(even) = self.break_even {
            require(even.trigger > 0, "be_trigger", "out_of_range", "1 or more points are allowed")?;
        }
        self.check_trail()
    }

    fn check_trail(&self) -> Result<(), BadRules> {
        let Some(trail) = self.trail else { return Ok(()) };
        match trail.distance {
            Distance::Points(points) => {
                require(points > 0, "trail_points", "out_of_range", "1 or more points are allowed")?;
            }
            Distance::Bps(bps) => {
                let fits = (1..WHOLE_BPS).contains(&bps);
                require(fits, "trail_bps", "out_of_range", "1 to 9999 is allowed")?;
            }
        }
        let activation = trail.activation.is_none_or(|price| price > 0);
        require(activation, "trail_activation", "out_of_range", "a price above 0 is allowed")?;
        require(trail.step > 0, "trail_step", "out_of_range", "1 or more points are allowed")
    }

    fn check_legs(&self) -> Result<(), BadRules> {
        let mut seen = 0_u8;
        let mut sum = 0_i128;
        for leg in &self.legs {
            require((1..=MAX_LEGS).contains(&leg.leg), "tp_legs", "out_of_range", "legs 1 to 5 are allowed")?;
            let bit = 1 << leg.leg;
            require(seen & bit == 0, "tp_legs", "duplicate", "each leg is allowed once")?;
            seen |= bit;
            require(leg.price > 0 && leg.qty > 0, "tp_legs", "out_of_range", "a price and units above 0 are allowed")?;
            if let Some(sl) = self.sl {
                let ordered = self.side.y(leg.price) > self.side.y(sl);
                require(ordered, "tp_legs", "target_behind_stop", "a leg lies on the winning side of the stop")?;
            }
            sum += i128::from(leg.qty);
        }
        require(sum <= i128::from(self.qty), "tp_legs", "legs_over_qty", "all legs together are at most qty")
    }
}
