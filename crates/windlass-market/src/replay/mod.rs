//! The rules and the candles over CSV files, so that anyone can hold them against an oracle.
//!
//! All prices are integer points, an empty value is none. The guards are off, but for G4
//! (impossible quotes are passed over) and G5 (a quote whose number is not above the last one of
//! its symbol triggers nothing); both are counted in the [`Report`].

mod bars;
mod candles;
mod positions;
mod quotes;

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use sha2::{Digest as _, Sha256};

pub use candles::candles;

use crate::csv;
use crate::rules::{Fill, Track};
use positions::Position;

/// What a file of prices holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `symbol,index,ts_ms,seq,bid,ask`, decided one by one as they would be live.
    Quotes,
    /// The same file, taken in runs of this many quotes: the sweep. The closings are the same.
    Sweep(usize),
    /// `symbol,index,ts_ms,o,h,l,c,spread`: bid prices, R8.
    Bars,
}

/// What a replay saw and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows of prices or ticks read.
    pub rows: u64,
    /// Rows that decide nothing, by why.
    pub passed_over: BTreeMap<&'static str, u64>,
    /// Positions read.
    pub positions: u64,
    /// Positions closed; the others are `OPEN`.
    pub closed: u64,
    /// Bars that reached a stop and a target: the stop was taken.
    pub ambiguous: u64,
    /// Candles written.
    pub candles: u64,
    /// SHA-256 of what was written, as hex: equal decisions have equal hashes.
    pub hash: String,
}

impl Report {
    fn pass_over(&mut self, why: &'static str) {
        *self.passed_over.entry(why).or_default() += 1;
    }
}

/// Why a replay came to no end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of positions.
    #[error("positions")]
    Positions(#[source] csv::Error),
    /// The file of quotes, bars or ticks.
    #[error("prices")]
    Prices(#[source] csv::Error),
    /// The output cannot be written.
    #[error("the output cannot be written")]
    Write(#[source] io::Error),
}

/// The end of a position.
struct Closing {
    index: i64,
    ts_ms: i64,
    fill: Fill,
    stop: Option<i64>,
}

/// Every position with how it ended, in the file's order.
struct Outcomes {
    positions: Vec<Position>,
    closings: BTreeMap<i64, Closing>,
    /// Effective stops of positions that are still open.
    stops: BTreeMap<i64, Option<i64>>,
}

/// Runs positions against prices and writes one row a position, in the order of the file:
/// `id,index,ts_ms,reason,fill,final_stop,pnl_points`. A position that nothing closes has the
/// reason `OPEN` and no index, time, fill and profit. `pnl_points` is points × units.
///
/// # Errors
/// [`Error`]. Then nothing is written.
pub fn replay(positions: impl BufRead, prices: impl BufRead, mode: Mode, out: impl Write) -> Result<Report, Error> {
    let mut report = Report::default();
    let positions = positions::read(positions).map_err(Error::Positions)?;
    report.positions = positions.len() as u64;
    let outcomes = match mode {
        Mode::Quotes => quotes::run(positions, prices, 1, &mut report),
        Mode::Sweep(every) => quotes::run(positions, prices, every.max(1), &mut report),
        Mode::Bars => bars::run(positions, prices, &mut report),
    }
    .map_err(Error::Prices)?;
    write(&outcomes, &mut report, out).map_err(Error::Write)?;
    Ok(report)
}

fn write(outcomes: &Outcomes, report: &mut Report, out: impl Write) -> io::Result<()> {
    let mut out = Hashed { out: io::BufWriter::new(out), hash: Sha256::new() };
    writeln!(out, "id,index,ts_ms,reason,fill,final_stop,pnl_points")?;
    let text = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
    for Position { id, rules, .. } in &outcomes.positions {
        match outcomes.closings.get(id) {
            Some(Closing { index, ts_ms, fill, stop }) => {
                let (reason, price, stop) = (fill.reason.as_str(), fill.price, text(*stop));
                let pnl = rules.pnl_points(price, fill.qty);
                writeln!(out, "{id},{index},{ts_ms},{reason},{price},{stop},{pnl}")?;
                report.closed += 1;
                report.ambiguous += u64::from(fill.ambiguous);
            }
            None => {
                let stop = outcomes.stops.get(id).copied().flatten().or(rules.sl);
                writeln!(out, "{id},,,OPEN,,{},", text(stop))?;
            }
        }
    }
    report.hash = out.finish()?;
    Ok(())
}

/// Notes what closes a position. In a replay no position has legs, so one fill is all of it.
fn close(outcomes: &mut BTreeMap<i64, Closing>, id: i64, at: (i64, i64), fills: &[Fill], track: &Track) {
    if let Some(fill) = fills.last().filter(|_| track.open_qty() == 0) {
        let stop = track.stop().map(|(stop, _)| stop);
        outcomes.insert(id, Closing { index: at.0, ts_ms: at.1, fill: *fill, stop });
    }
}

/// A writer that hashes what goes through it.
struct Hashed<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Hashed<W> {
    fn finish(mut self) -> io::Result<String> {
        self.out.flush()?;
        Ok(hex::encode(self.hash.finalize()))
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
