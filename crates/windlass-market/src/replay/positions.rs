//! Positions from CSV.

use std::collections::HashSet;
use std::io::BufRead;

use crate::csv::{Error, Row, Table};
use crate::rules::{BadRules, BreakEven, Distance, Rules, Side, Trail};

const COLUMNS: [&str; 15] = [
    "id",
    "symbol",
    "side",
    "qty",
    "entry",
    "open_index",
    "sl",
    "tp",
    "trail_points",
    "trail_bps",
    "trail_activation",
    "trail_step",
    "be_trigger",
    "be_offset",
    "expires_index",
];

/// One row.
pub(super) struct Position {
    pub(super) id: i64,
    pub(super) symbol: String,
    /// The price on which it opens.
    pub(super) open_index: i64,
    /// Its time stop is an index.
    pub(super) rules: Rules,
}

/// Reads all rows.
pub(super) fn read(reader: impl BufRead) -> Result<Vec<Position>, Error> {
    let mut table = Table::open(reader, &COLUMNS)?;
    let mut ids = HashSet::new();
    let mut positions = Vec::new();
    while let Some(row) = table.next()? {
        let position = position(&row)?;
        if !ids.insert(position.id) {
            return Err(row.fault(0, "each id once"));
        }
        positions.push(position);
    }
    Ok(positions)
}

fn position(row: &Row) -> Result<Position, Error> {
    let side = row.text(2).parse().ok().and_then(Side::of_sign).ok_or_else(|| row.fault(2, "1 or -1"))?;
    let distance = match (row.optional(8)?, row.optional(9)?) {
        (Some(_), Some(_)) => return Err(row.fault(9, "nothing beside trail_points")),
        (Some(points), None) => Some(Distance::Points(points)),
        (None, Some(bps)) => Some(Distance::Bps(bps)),
        (None, None) => None,
    };
    // Values that belong to a rule which is not there have no effect.
    let (activation, step) = (row.optional(10)?, row.optional(11)?.unwrap_or(1));
    let (trigger, offset) = (row.optional(12)?, row.optional(13)?.unwrap_or(0));
    let rules = Rules {
        sl: row.optional(6)?,
        tp: row.optional(7)?,
        trail: distance.map(|distance| Trail { distance, activation, step }),
        break_even: trigger.map(|trigger| BreakEven { trigger, offset }),
        expires_at: row.optional(14)?,
        ..Rules::new(side, row.integer(3)?, row.integer(4)?)
    };
    // How the values lie to each other is the caller's affair: the rules say what happens.
    rules.check_ranges().map_err(|BadRules { field, why, .. }| {
        let column = COLUMNS.iter().position(|column| *column == field).unwrap_or(0);
        row.fault(column, why.trim_end_matches(" is allowed").trim_end_matches(" are allowed"))
    })?;
    Ok(Position { id: row.integer(0)?, symbol: row.symbol(1)?.to_owned(), open_index: row.integer(5)?, rules })
}
