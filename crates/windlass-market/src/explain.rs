//! Why a position closed: its decisions made again from what was written down.

use serde::{Deserialize, Serialize};

use crate::positions::{ClosingRow, Positions, Result};
use crate::rules::{Gate, Quote, Reason, Rules, Track};

/// One closing with what deciding again says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The closing as it stands.
    pub closing: ClosingRow,
    /// True when the rules, given the same state and quote, close the same units at the same
    /// price for the same reason. `None` for what a person asked for: no rule decided.
    pub agrees: Option<bool>,
    /// The effective stop before the quote, and what had moved it.
    pub stop: Option<(i64, Reason)>,
    /// The most favourable price before the quote.
    pub extreme: Option<i64>,
}

/// What a closing's line of history holds of the decision.
#[derive(Deserialize)]
struct Decided {
    rules: Rules,
    open_qty: i64,
    legs_done: u8,
    extreme: Option<i64>,
    stop: Option<(i64, Reason)>,
    quote: Quote,
    now: i64,
    target_at_level: bool,
    stops: bool,
}

/// Decides all closings of a position again.
///
/// # Errors
/// [`crate::positions::Error`].
pub async fn explain(store: &Positions, id: i64) -> Result<Vec<Explained>> {
    let history = store.history(id, 0, 10_000).await?;
    let decided: Vec<Decided> = history
        .iter()
        .filter(|row| row.kind == "close")
        .filter_map(|row| serde_json::from_str(&row.detail).ok())
        .collect();
    let explained = |closing: ClosingRow| {
        let Some(decided) = decided.iter().find(|decided| decided.quote == closing.quote) else {
            return Explained { closing, agrees: None, stop: None, extreme: None };
        };
        let Decided { rules, open_qty, legs_done, extreme, stop, quote, now, target_at_level, stops } = decided;
        let mut track = Track::resume(rules.clone(), *open_qty, *legs_done, *extreme, *stop);
        let gate = Gate { stops: *stops, targets: true, target_at_level: *target_at_level };
        let agrees = track.on_quote(quote, *now, gate).iter().any(|fill| {
            (fill.leg, fill.qty, fill.reason, fill.price, fill.level)
                == (closing.leg, closing.qty, closing.reason, closing.fill, closing.level)
                && rules.pnl_points(fill.price, fill.qty).to_string() == closing.pnl_points
        });
        Explained { closing, agrees: Some(agrees), stop: *stop, extreme: *extreme }
    };
    Ok(store.closings(&[id]).await?.into_iter().map(explained).collect())
}
