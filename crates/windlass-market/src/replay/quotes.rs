//! The replay over quotes: through the same index as live, one by one or in runs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::BufRead;

use super::{Closing, Outcomes, Report, close};
use crate::csv::{Error, Table};
use crate::guard;
use crate::index::{Book, Held, Step};
use crate::replay::positions::Position;
use crate::rules::{Gate, Quote, Track};

const COLUMNS: [&str; 6] = ["symbol", "index", "ts_ms", "seq", "bid", "ask"];

/// One symbol on its way through the file.
#[derive(Default)]
struct Symbol {
    book: Book,
    /// Positions not yet opened, by the index at which they are.
    waiting: VecDeque<(i64, i64, Track)>,
    last_seq: Option<i64>,
    /// Quotes not yet swept; `now` is their index.
    run: Vec<Step>,
}

/// Decides over runs of `every` quotes of the whole file.
pub(super) fn run(
    positions: Vec<Position>,
    prices: impl BufRead,
    every: usize,
    report: &mut Report,
) -> Result<Outcomes, Error> {
    let mut symbols = symbols(&positions);
    let mut closings = BTreeMap::new();
    let mut table = Table::open(prices, &COLUMNS)?;
    let mut unswept = 0;
    while let Some(row) = table.next()? {
        report.rows += 1;
        let (index, seq) = (row.integer(1)?, row.optional(3)?);
        let quote = Quote { ts_ms: row.integer(2)?, seq: seq.unwrap_or(0), bid: row.integer(4)?, ask: row.integer(5)? };
        let Some(symbol) = symbols.get_mut(row.symbol(0)?) else { continue };
        if let Err(unsound) = guard::sound(&quote) {
            report.pass_over(unsound.as_str());
            continue;
        }
        if seq.is_some() && symbol.last_seq >= seq {
            report.pass_over(guard::Held::Late.as_str());
            continue;
        }
        symbol.last_seq = seq.or(symbol.last_seq);
        symbol.run.push(Step { quote, now: index, gate: Gate::OPEN });
        unswept += 1;
        if unswept >= every {
            symbols.values_mut().for_each(|symbol| symbol.sweep(&mut closings));
            unswept = 0;
        }
    }
    symbols.values_mut().for_each(|symbol| symbol.sweep(&mut closings));
    let open = symbols.values().flat_map(|symbol| symbol.book.iter());
    let stops = open.map(|held| (held.id, held.track.stop().map(|(stop, _)| stop))).collect();
    Ok(Outcomes { positions, closings, stops })
}

fn symbols(positions: &[Position]) -> HashMap<String, Symbol> {
    let mut symbols: HashMap<String, Symbol> = HashMap::new();
    for Position { id, symbol, open_index, rules } in positions {
        let waiting = &mut symbols.entry(symbol.clone()).or_default().waiting;
        waiting.push_back((*open_index, *id, Track::new(rules.clone())));
    }
    for symbol in symbols.values_mut() {
        symbol.waiting.make_contiguous().sort_by_key(|(open_index, id, _)| (*open_index, *id));
    }
    symbols
}

impl Symbol {
    /// Takes in the quotes since the last sweep: the open positions through the index, then
    /// those that opened meanwhile one by one.
    fn sweep(&mut self, closings: &mut BTreeMap<i64, Closing>) {
        let run = std::mem::take(&mut self.run);
        for decision in self.book.sweep(&run) {
            let closing =
                Closing { index: decision.now, ts_ms: decision.quote.ts_ms, fill: decision.fill, stop: decision.stop };
            closings.insert(decision.id, closing);
        }
        let Some(newest) = run.iter().map(|step| step.now).max() else { return };
        while self.waiting.front().is_some_and(|(open_index, ..)| *open_index <= newest) {
            let Some((open_index, id, mut track)) = self.waiting.pop_front() else { break };
            let mut closed = false;
            for step in run.iter().filter(|step| step.now >= open_index) {
                if step.now == open_index {
                    track.open_on(&step.quote);
                    continue;
                }
                let fills = track.on_quote(&step.quote, step.now, step.gate);
                closed = track.open_qty() == 0;
                if closed {
                    close(closings, id, (step.now, step.quote.ts_ms), &fills, &track);
                    break;
                }
            }
            if !closed {
                self.book.put(Held { id, version: 1, armed: (i64::MIN, i64::MIN), seen: i64::MIN, track });
            }
        }
    }
}
