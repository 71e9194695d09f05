//! The decision rules R1–R10 as values and pure functions.
//!
//! Inside, a price is looked at from the position's side: `y` is the price for a long and
//! its negation for a short. A stop is reached when `y` falls to it, a target when `y` rises to
//! it, and rounding away from the market is rounding down, whatever the side.

mod bar;
mod check;
mod track;

pub use bar::Bar;
pub use check::BadRules;
pub use track::{Fill, Gate, Levels, Track};

use serde::{Deserialize, Serialize};

/// The version of these rules, written into every closing. Raised whenever equal quotes may
/// give another decision.
pub const RULE_VERSION: &str = "1";

/// Which way a position earns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Bought: closes at the bid.
    Long,
    /// Sold: closes at the ask.
    Short,
}

impl Side {
    /// `1` for a long, `-1` for a short.
    #[must_use]
    pub const fn sign(self) -> i64 {
        match self {
            Self::Long => 1,
            Self::Short => -1,
        }
    }

    /// Of `1` or `-1`.
    #[must_use]
    pub const fn of_sign(sign: i64) -> Option<Self> {
        match sign {
            1 => Some(Self::Long),
            -1 => Some(Self::Short),
            _ => None,
        }
    }

    /// A price as seen from this side, and back.
    pub(crate) const fn y(self, price: i64) -> i64 {
        // Prices lie above i64::MIN, so the negation exists.
        match self {
            Self::Long => price,
            Self::Short => price.saturating_neg(),
        }
    }
}

/// A bid and an ask of one moment, in points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// When its source made it, milliseconds since 1970 UTC.
    pub ts_ms: i64,
    /// Its number at the source; rises with each quote of a symbol.
    pub seq: i64,
    /// What a long is closed at.
    pub bid: i64,
    /// What a short is closed at.
    pub ask: i64,
}

impl Quote {
    /// R1: the price at which a position of this side would be closed now.
    #[must_use]
    pub const fn closing_price(&self, side: Side) -> i64 {
        match side {
            Side::Long => self.bid,
            Side::Short => self.ask,
        }
    }

    /// Where it stands in the order of its symbol.
    #[must_use]
    pub const fn place(&self) -> (i64, i64) {
        (self.ts_ms, self.seq)
    }
}

/// Why a position was closed, or where its stop comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Reason {
    /// The stop as it was set.
    Sl,
    /// The stop as break-even moved it.
    Be,
    /// The stop as trailing moved it.
    Trail,
    /// The target, or one of its legs.
    Tp,
    /// The time stop.
    Time,
    /// Somebody asked for it.
    Manual,
    /// The account ran out of margin.
    #[serde(rename = "STOP_OUT")]
    StopOut,
}

impl Reason {
    /// The word on the wire and in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sl => "SL",
            Self::Be => "BE",
            Self::Trail => "TRAIL",
            Self::Tp => "TP",
            Self::Time => "TIME",
            Self::Manual => "MANUAL",
            Self::StopOut => "STOP_OUT",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Sl, Self::Be, Self::Trail, Self::Tp, Self::Time, Self::Manual, Self::StopOut]
            .into_iter()
            .find(|reason| reason.as_str() == word)
    }
}

/// How far a trailing stop stays behind the extreme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// Points, 1 or more.
    Points(i64),
    /// Hundredths of a percent of the extreme, 1–9,999; rounded away from the market.
    Bps(i64),
}

/// R4: a stop that follows gains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    /// How far behind.
    pub distance: Distance,
    /// The price which the extreme must reach first; `None`: it follows at once.
    pub activation: Option<i64>,
    /// The least improvement that moves the stop, in points, 1 or more. Default 1.
    pub step: i64,
}

/// R5: once this far in profit, the stop moves to the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakEven {
    /// Points of profit that the extreme must reach.
    pub trigger: i64,
    /// Points beyond the entry, towards profit, at which the stop then lies. Default 0.
    pub offset: i64,
}

/// R9: a part of the position with a target of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// 1–5.
    pub leg: u8,
    /// Its target.
    pub price: i64,
    /// How much it closes.
    pub qty: i64,
}

/// What may end a position, all of it in points.
///
/// Built by hand and then checked with [`Rules::check`]; [`Track`] takes any value without
/// panicking, but only promises the rules for a checked one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Which way it earns.
    pub side: Side,
    /// Units, 1 or more.
    pub qty: i64,
    /// What it was opened at.
    pub entry: i64,
    /// The stop.
    pub sl: Option<i64>,
    /// The target of what the legs leave.
    pub tp: Option<i64>,
    /// R7: the stop fills at its level, gap or not.
    pub guaranteed: bool,
    /// R4.
    pub trail: Option<Trail>,
    /// R5.
    pub break_even: Option<BreakEven>,
    /// R7: the first moment (of the clock that the engine is driven with) at which it is closed.
    pub expires_at: Option<i64>,
    /// R9: at most five.
    pub legs: Box<[Leg]>,
}

impl Rules {
    /// A position that nothing ends.
    #[must_use]
    pub fn new(side: Side, qty: i64, entry: i64) -> Self {
        Self {
            side,
            qty,
            entry,
            sl: None,
            tp: None,
            guaranteed: false,
            trail: None,
            break_even: None,
            expires_at: None,
            legs: Box::default(),
        }
    }

    /// Profit of closing some units at a price, in points × units; exact.
    #[must_use]
    pub fn pnl_points(&self, fill: i64, qty: i64) -> i128 {
        (i128::from(fill) - i128::from(self.entry)) * i128::from(self.side.sign()) * i128::from(qty)
    }
}
