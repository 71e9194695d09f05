//! Rows as values.

use serde::{Deserialize, Serialize};

use super::cells::Cells;
use super::{Error, Result};
use crate::calendar::Calendar;
use crate::guard::Limits;
use crate::index::Held;
use crate::price::MAX_DIGITS;
use crate::rules::{BreakEven, Distance, Gate, Leg, Quote, Reason, Rules, Side, Track, Trail};
use crate::sources::Order;

/// What is traded, and how careful to be with its quotes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instrument {
    /// 1 to 32 letters, digits and `._-/`.
    pub symbol: String,
    /// Digits after the point, 0–18.
    pub digits: u8,
    /// How far stops and targets must lie from the price when they are set, in points. Default 0.
    #[serde(default)]
    pub min_stop_points: i64,
    /// G2. Default: none.
    #[serde(default)]
    pub max_spread_points: Option<i64>,
    /// G3. Default: none.
    #[serde(default)]
    pub max_jump_points: Option<i64>,
    /// G1. Default 10,000.
    #[serde(default = "max_quote_age_ms")]
    pub max_quote_age_ms: i64,
    /// G2. Default 3,000.
    #[serde(default = "spread_grace_ms")]
    pub spread_grace_ms: i64,
    /// Quotes in a row that must reach a level, 1–3. Default 1.
    #[serde(default = "confirm_ticks")]
    pub confirm_ticks: u8,
    /// Targets fill at their level instead of the quote that reached them. Default false.
    #[serde(default)]
    pub target_at_level: bool,
    /// When it trades. Default `24x7`.
    #[serde(default = "always")]
    pub calendar: String,
    /// Where its quotes come from, the best source first; at most 8. Default: any source, told apart by
    /// nothing.
    #[serde(default)]
    pub sources: Vec<String>,
    /// How long the source that is believed may be silent or contradicted before another one is, in ms.
    /// Default 3,000.
    #[serde(default = "hold_down_ms")]
    pub hold_down_ms: i64,
}

fn max_quote_age_ms() -> i64 {
    10_000
}
fn spread_grace_ms() -> i64 {
    Limits::DEFAULT.spread_grace_ms
}
fn confirm_ticks() -> u8 {
    1
}
fn hold_down_ms() -> i64 {
    3_000
}
fn always() -> String {
    "24x7".to_owned()
}

impl Instrument {
    /// One with every default.
    #[must_use]
    pub fn new(symbol: &str, digits: u8) -> Self {
        Self {
            symbol: symbol.to_owned(),
            digits,
            min_stop_points: 0,
            max_spread_points: None,
            max_jump_points: None,
            max_quote_age_ms: max_quote_age_ms(),
            spread_grace_ms: spread_grace_ms(),
            confirm_ticks: 1,
            target_at_level: false,
            calendar: always(),
            sources: Vec::new(),
            hold_down_ms: hold_down_ms(),
        }
    }

    /// Says what is out of range.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn check(&self) -> Result<()> {
        let require = |holds: bool, field, why: &str| {
            if holds { Ok(()) } else { Err(Error::refused(field, "out_of_range", why)) }
        };
        let positive = |value: Option<i64>| value.is_none_or(|value| value > 0);
        require(crate::csv::is_symbol(&self.symbol), "symbol", "1 to 32 letters, digits and . _ - / are allowed")?;
        require(self.digits <= MAX_DIGITS, "digits", "0 to 18 is allowed")?;
        require(self.min_stop_points >= 0, "min_stop_points", "0 or more is allowed")?;
        require(positive(self.max_spread_points), "max_spread_points", "1 or more is allowed")?;
        require(positive(self.max_jump_points), "max_jump_points", "1 or more is allowed")?;
        require(self.max_quote_age_ms > 0, "max_quote_age_ms", "1 or more is allowed")?;
        require(self.spread_grace_ms >= 0, "spread_grace_ms", "0 or more is allowed")?;
        require((1..=3).contains(&self.confirm_ticks), "confirm_ticks", "1 to 3 is allowed")?;
        require((1..=3_600_000).contains(&self.hold_down_ms), "hold_down_ms", "1 to 3600000 is allowed")?;
        let named = self
            .sources
            .iter()
            .enumerate()
            .all(|(at, name)| crate::csv::is_symbol(name) && !self.sources[..at].contains(name));
        require(
            named && self.sources.len() <= 8,
            "sources",
            "up to 8 different names of letters, digits and . _ - / are allowed",
        )?;
        Calendar::parse(&self.calendar)
            .map(|_| ())
            .map_err(|e| Error::refused("calendar", "calendar_invalid", e.to_string()))
    }

    /// Its guards.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits {
            max_age_ms: Some(self.max_quote_age_ms),
            max_spread: self.max_spread_points,
            spread_grace_ms: self.spread_grace_ms,
            max_jump: self.max_jump_points,
            ..Limits::DEFAULT
        }
    }

    /// How its sources are told apart; none when they are not.
    #[must_use]
    pub fn order(&self) -> Option<Order> {
        (!self.sources.is_empty()).then(|| Order {
            names: self.sources.clone(),
            hold_down_ms: self.hold_down_ms,
            max_age_ms: self.max_quote_age_ms,
            max_jump: self.max_jump_points,
        })
    }

    /// The gate of a believed quote.
    #[must_use]
    pub const fn gate(&self) -> Gate {
        Gate { target_at_level: self.target_at_level, ..Gate::OPEN }
    }

    pub(super) fn read(row: &impl Cells) -> sqlx::Result<Self> {
        Ok(Self {
            symbol: row.text("symbol")?,
            digits: u8::try_from(row.int("digits")?).unwrap_or(MAX_DIGITS),
            min_stop_points: row.int("min_stop_points")?,
            max_spread_points: row.opt("max_spread_points")?,
            max_jump_points: row.opt("max_jump_points")?,
            max_quote_age_ms: row.int("max_quote_age_ms")?,
            spread_grace_ms: row.int("spread_grace_ms")?,
            confirm_ticks: u8::try_from(row.int("confirm_ticks")?).unwrap_or(1),
            target_at_level: row.text("fill_policy")? == "level",
            calendar: row.text("calendar")?,
            sources: row
                .opt_text("sources")?
                .map_or_else(Vec::new, |names| names.split(',').map(str::to_owned).collect()),
            hold_down_ms: row.int("hold_down_ms")?,
        })
    }
}

/// Whose positions they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its number.
    pub id: i64,
    /// Of its money, such as `USD`.
    pub currency: String,
    /// In the smallest unit. Default 0.
    #[serde(default)]
    pub balance: i64,
    /// True while its user is shown bands instead of numbers. Default false.
    #[serde(default)]
    pub calm: bool,
}

/// Where a position is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is.
    Open,
    /// It triggered while its market was closed, and closes on the first quote of the session; or the
    /// application whose it is was asked to close it.
    Closing,
    /// It was.
    Closed,
}

impl Status {
    pub(super) const fn of(number: i64) -> Self {
        match number {
            0 => Self::Open,
            1 => Self::Closing,
            _ => Self::Closed,
        }
    }
}

/// A position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub account_id: i64,
    /// What is traded.
    pub symbol: String,
    /// What may end it; `expires_at` in ms since 1970 UTC.
    pub rules: Rules,
    /// The stop it was opened with: the unit of its risk.
    pub first_sl: Option<i64>,
    /// Units not yet closed.
    pub open_qty: i64,
    /// Bit n: leg n is closed.
    pub legs_done: u8,
    /// The most favourable price, as checkpointed.
    pub extreme: Option<i64>,
    /// The effective stop and what moved it, as checkpointed.
    pub stop: Option<(i64, Reason)>,
    /// Where it is in its life.
    pub status: Status,
    /// Why it is closing, while it is.
    pub closing_reason: Option<Reason>,
    /// True once the application whose it is was asked to close it: nothing is decided about it any more.
    pub asked: bool,
    /// Raised by each change but those of derived state.
    pub version: i64,
    /// R2: quotes at or before this (stamp, number) trigger nothing.
    pub armed: (i64, i64),
    /// The number of the last quote that the checkpoint has seen.
    pub mark_seq: i64,
    /// When.
    pub opened_at_ms: i64,
    /// When.
    pub closed_at_ms: Option<i64>,
}

impl Position {
    pub(super) fn read(row: &impl Cells) -> sqlx::Result<Self> {
        let side = Side::of_sign(row.int("side")?).unwrap_or(Side::Long);
        let distance = match (row.opt("trail_points")?, row.opt("trail_bps")?) {
            (Some(points), _) => Some(Distance::Points(points)),
            (None, bps) => bps.map(Distance::Bps),
        };
        let (activation, step) = (row.opt("trail_activation")?, row.opt("trail_step")?.unwrap_or(1));
        let offset = row.opt("be_offset")?.unwrap_or(0);
        let rules = Rules {
            side,
            qty: row.int("qty")?,
            entry: row.int("entry")?,
            sl: row.opt("sl")?,
            tp: row.opt("tp")?,
            guaranteed: row.int("sl_guaranteed")? != 0,
            trail: distance.map(|distance| Trail { distance, activation, step }),
            break_even: row.opt("be_trigger")?.map(|trigger| BreakEven { trigger, offset }),
            expires_at: row.opt("expires_at_ms")?,
            legs: Box::default(),
        };
        let source = row.opt_text("stop_src")?.and_then(|word| Reason::parse(&word));
        Ok(Self {
            id: row.int("id")?,
            account_id: row.int("account_id")?,
            symbol: row.text("symbol")?,
            rules,
            first_sl: row.opt("first_sl")?,
            open_qty: row.int("open_qty")?,
            legs_done: u8::try_from(row.int("legs_done")?).unwrap_or(u8::MAX),
            extreme: row.opt("extreme")?,
            stop: row.opt("stop_eff")?.zip(source),
            status: Status::of(row.int("status")?),
            closing_reason: row.opt_text("closing_reason")?.and_then(|word| Reason::parse(&word)),
            asked: row.opt("asked_at_ms")?.is_some(),
            version: row.int("version")?,
            armed: (row.int("armed_at_ms")?, row.int("armed_seq")?),
            mark_seq: row.int("mark_seq")?,
            opened_at_ms: row.int("opened_at_ms")?,
            closed_at_ms: row.opt("closed_at_ms")?,
        })
    }

    /// With its legs, each of this position.
    pub(super) fn with_legs(mut self, legs: Vec<Leg>) -> Self {
        self.rules.legs = legs.into();
        self
    }

    /// As the rules follow it from here on.
    #[must_use]
    pub fn track(&self) -> Track {
        Track::resume(self.rules.clone(), self.open_qty, self.legs_done, self.extreme, self.stop)
    }

    /// As the index holds it.
    #[must_use]
    pub fn held(&self) -> Held {
        let seen = if self.mark_seq > 0 { self.mark_seq } else { i64::MIN };
        Held { id: self.id, version: self.version, armed: self.armed, seen, track: self.track() }
    }
}

/// One closing: of a leg, or of all that was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClosingRow {
    /// The position.
    pub position_id: i64,
    /// 0 for all that was left.
    pub leg: u8,
    /// Units.
    pub qty: i64,
    /// Why.
    pub reason: Reason,
    /// The level that was reached.
    pub level: Option<i64>,
    /// The price it closed at.
    pub fill: i64,
    /// The quote that decided.
    pub quote: Quote,
    /// Points × units, exact, as text.
    pub pnl_points: String,
    /// The rules that decided.
    pub rule_version: String,
    /// Who closed it: `watch`, `sweep`, or whoever asked.
    pub actor: String,
    /// The fence it was written under.
    pub fence: Option<i64>,
    /// When it was decided.
    pub decided_at_ms: i64,
    /// When it was written.
    pub closed_at_ms: i64,
}

impl ClosingRow {
    pub(super) fn read(row: &impl Cells) -> sqlx::Result<Self> {
        let reason = row.text("reason")?;
        Ok(Self {
            position_id: row.int("position_id")?,
            leg: u8::try_from(row.int("leg")?).unwrap_or(u8::MAX),
            qty: row.int("qty")?,
            reason: Reason::parse(&reason).ok_or_else(|| sqlx::Error::Decode(reason.into()))?,
            level: row.opt("level")?,
            fill: row.int("fill")?,
            quote: Quote {
                ts_ms: row.int("quote_ts_ms")?,
                seq: row.int("quote_seq")?,
                bid: row.int("bid")?,
                ask: row.int("ask")?,
            },
            pnl_points: row.text("pnl")?,
            rule_version: row.text("rule_version")?,
            actor: row.text("actor")?,
            fence: row.opt("fence")?,
            decided_at_ms: row.int("decided_at_ms")?,
            closed_at_ms: row.int("closed_at_ms")?,
        })
    }
}
