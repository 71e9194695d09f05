//! The replay over bars (R8).

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;

use super::{Outcomes, Report, close};
use crate::csv::{Error, Table};
use crate::replay::positions::Position;
use crate::rules::{Bar, Track};

const COLUMNS: [&str; 8] = ["symbol", "index", "ts_ms", "o", "h", "l", "c", "spread"];

/// Leads every position over its symbol's bars.
pub(super) fn run(positions: Vec<Position>, prices: impl BufRead, report: &mut Report) -> Result<Outcomes, Error> {
    let mut symbols: HashMap<String, Vec<(i64, i64, Track)>> = HashMap::new();
    for Position { id, symbol, open_index, rules } in &positions {
        symbols.entry(symbol.clone()).or_default().push((*open_index, *id, Track::new(rules.clone())));
    }
    let mut closings = BTreeMap::new();
    let mut table = Table::open(prices, &COLUMNS)?;
    while let Some(row) = table.next()? {
        report.rows += 1;
        let (index, ts_ms) = (row.integer(1)?, row.integer(2)?);
        let spread = row.optional(7)?.unwrap_or(0);
        let [o, h, l, c] = [row.integer(3)?, row.integer(4)?, row.integer(5)?, row.integer(6)?];
        let bar = Bar { ts_ms, o, h, l, c, spread };
        let Some(open) = symbols.get_mut(row.symbol(0)?) else { continue };
        if !bar.is_sound() {
            report.pass_over("not_a_bar");
            continue;
        }
        open.retain_mut(|(open_index, id, track)| {
            if index < *open_index {
                return true;
            }
            let fills = track.on_bar(&bar, index, index == *open_index);
            close(&mut closings, *id, (index, ts_ms), &fills, track);
            track.open_qty() > 0
        });
    }
    let open = symbols.values().flatten();
    let stops = open.map(|(_, id, track)| (*id, track.stop().map(|(stop, _)| stop))).collect();
    Ok(Outcomes { positions, closings, stops })
}
