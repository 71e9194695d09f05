//! What a sweep did, and the decisions of one on their way to the tables.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::json;

use crate::index::Decision;
use crate::positions::Close;
use crate::rules::{Fill, Quote, RULE_VERSION, Reason, Rules};

/// What a sweep or check did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Open positions that were watched.
    pub checked: u64,
    /// Quotes taken in.
    pub quotes: u64,
    /// Positions of which something triggered.
    pub triggered: u64,
    /// Closings written.
    pub closed: u64,
    /// Stops among them, break-even and trailing included.
    pub sl_closed: u64,
    /// Targets among them.
    pub tp_closed: u64,
    /// Decisions that another write had made needless.
    pub lost_race: u64,
    /// Positions that their own application was asked to close.
    pub asked: u64,
    /// Closings that another application's tables refused: they are tried again.
    pub refused: u64,
    /// Positions that wait for their market to open.
    pub waiting: u64,
    /// Quotes that decided nothing, by guard.
    pub held: BTreeMap<&'static str, u64>,
    /// What closed: position, reason and price, at most 1,000.
    pub closings: Vec<Told>,
    /// How long it took.
    pub ms: u64,
    /// Why nothing was done, if nothing was.
    pub skipped: Option<&'static str>,
}

/// One closing of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The position.
    pub position_id: i64,
    /// 0 for all that was left.
    pub leg: u8,
    /// Why.
    pub reason: Reason,
    /// At this price, in points.
    pub fill: i64,
}

/// Most closings that a report lists.
const LISTED: usize = 1_000;

impl Report {
    /// Nothing was done because another worker has the shard.
    pub const HELD: &str = "held_by_another_worker";

    /// Adds what another one did.
    pub(crate) fn add(&mut self, other: Self) {
        self.checked += other.checked;
        self.quotes += other.quotes;
        self.triggered += other.triggered;
        self.closed += other.closed;
        self.sl_closed += other.sl_closed;
        self.tp_closed += other.tp_closed;
        self.lost_race += other.lost_race;
        self.asked += other.asked;
        self.refused += other.refused;
        self.waiting += other.waiting;
        self.ms += other.ms;
        for (why, count) in other.held {
            *self.held.entry(why).or_default() += count;
        }
        self.closings.extend(other.closings);
        self.closings.truncate(LISTED);
    }

    pub(super) fn tell(&mut self, close: &Close) {
        for fill in &close.fills {
            self.closed += 1;
            match fill.reason {
                Reason::Sl | Reason::Be | Reason::Trail => self.sl_closed += 1,
                Reason::Tp => self.tp_closed += 1,
                _ => {}
            }
            if self.closings.len() < LISTED {
                let (leg, reason, fill) = (fill.leg, fill.reason, fill.price);
                self.closings.push(Told { position_id: close.id, leg, reason, fill });
            }
        }
    }
}

/// A decision on its way to the tables.
pub(super) struct Decided {
    pub(super) id: i64,
    pub(super) version: i64,
    pub(super) quote: Quote,
    pub(super) fill: Fill,
    pub(super) rules: Rules,
    pub(super) detail: serde_json::Value,
}

impl From<Decision> for Decided {
    fn from(decision: Decision) -> Self {
        let before = &decision.before;
        let detail = json!({
            "rules": before.rules(), "open_qty": before.open_qty(), "legs_done": before.legs_done(),
            "extreme": before.extreme(), "stop": before.stop(), "quote": decision.quote, "now": decision.now,
            "target_at_level": decision.gate.target_at_level, "stops": decision.gate.stops, "rule_version": RULE_VERSION,
        });
        let rules = before.rules().clone();
        Self { id: decision.id, version: decision.version, quote: decision.quote, fill: decision.fill, rules, detail }
    }
}

/// Fills of one position and quote together; of one position at several quotes, one round each,
/// each on the version that the one before leaves.
pub(super) fn rounds(decided: Vec<Decided>) -> Vec<Vec<Close>> {
    let mut rounds: Vec<Vec<Close>> = Vec::new();
    // Of a position: its last round, its place there, and the quote.
    let mut last: HashMap<i64, (usize, usize, i64)> = HashMap::new();
    for Decided { id, version, quote, fill, rules, detail } in decided {
        let pnl = rules.pnl_points(fill.price, fill.qty);
        match last.get(&id) {
            Some(&(round, place, seq)) if seq == quote.seq => {
                let close = &mut rounds[round][place];
                close.fills.push(fill);
                close.pnl_points.push(pnl);
            }
            other => {
                let round = other.map_or(0, |(round, ..)| round + 1);
                if rounds.len() == round {
                    rounds.push(Vec::new());
                }
                let version = version + i64::try_from(round).unwrap_or(0);
                last.insert(id, (round, rounds[round].len(), quote.seq));
                rounds[round].push(Close {
                    id,
                    version,
                    quote,
                    fills: vec![fill],
                    pnl_points: vec![pnl],
                    detail: detail.to_string(),
                });
            }
        }
    }
    rounds
}
