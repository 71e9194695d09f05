//! Candles from a CSV file of ticks.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use sha2::{Digest as _, Sha256};

use super::{Error, Hashed, Report};
use crate::candle::{Added, Candle, Candles, Life, Tick, Timeframe};
use crate::csv;
use crate::guard;
use crate::rules::Quote;

const COLUMNS: [&str; 6] = ["symbol", "ts_ms", "seq", "bid", "ask", "volume"];

/// Reads ticks in the order of their delivery – duplicates, late ones and all – and writes the
/// candles by symbol and start: `symbol,start_ms,o,h,l,c,v,n`, bid prices. Memory grows with the
/// candles, not with the ticks. A tick without `seq` counts every time it is there.
///
/// # Errors
/// [`Error`]. Then nothing is written.
pub fn candles(ticks: impl BufRead, frame: Timeframe, out: impl Write) -> Result<Report, Error> {
    let mut report = Report::default();
    let symbols = read(ticks, frame, &mut report).map_err(Error::Prices)?;
    write(&symbols, &mut report, out).map_err(Error::Write)?;
    Ok(report)
}

fn read(ticks: impl BufRead, frame: Timeframe, report: &mut Report) -> Result<BTreeMap<String, Candles>, csv::Error> {
    let for_ever = Life { minute_ms: None, ..Life::default() };
    let mut symbols: BTreeMap<String, Candles> = BTreeMap::new();
    let mut table = csv::Table::open(ticks, &COLUMNS)?;
    while let Some(row) = table.next()? {
        report.rows += 1;
        let symbol = row.symbol(0)?;
        let (ts_ms, seq, volume) = (row.integer(1)?, row.optional(2)?, row.optional(5)?.unwrap_or(0));
        let (bid, ask) = (row.integer(3)?, row.integer(4)?);
        if let Err(unsound) = guard::sound(&Quote { ts_ms, seq: 0, bid, ask }) {
            report.pass_over(unsound.as_str());
            continue;
        }
        if volume < 0 {
            report.pass_over("negative_volume");
            continue;
        }
        if !symbols.contains_key(symbol) {
            symbols.insert(symbol.to_owned(), Candles::new(&[frame], None, for_ever));
        }
        let Some(candles) = symbols.get_mut(symbol) else { continue };
        match candles.add(&Tick { ts_ms, seq, bid, ask, volume }) {
            Added::Counted | Added::Late => {}
            Added::Duplicate => report.pass_over("duplicate"),
            Added::Dropped => report.pass_over("late"),
            Added::OutOfRange => report.pass_over("time_out_of_range"),
        }
    }
    Ok(symbols)
}

fn write(symbols: &BTreeMap<String, Candles>, report: &mut Report, out: impl Write) -> io::Result<()> {
    let mut out = Hashed { out: io::BufWriter::new(out), hash: Sha256::new() };
    writeln!(out, "symbol,start_ms,o,h,l,c,v,n")?;
    for (symbol, candles) in symbols {
        for (_, Candle { start_ms, o, h, l, c, v, n, .. }) in candles.iter() {
            writeln!(out, "{symbol},{start_ms},{o},{h},{l},{c},{v},{n}")?;
            report.candles += 1;
        }
    }
    report.hash = out.finish()?;
    Ok(())
}
