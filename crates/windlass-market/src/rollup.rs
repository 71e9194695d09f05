//! Candles as quotes come: rolled up in memory, kept in the tables, shown on Redis.
//!
//! One process at a time does it, under a lease of its own. What changed goes to Redis with every
//! pass, and to the tables every few seconds together with the place in the quotes that it was made
//! of, in one transaction: after a crash the quotes since then are counted again, each once.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::candle::{Added, Candle, Candles, Life, Tick, Timeframe};
use crate::engine::Report;
use crate::positions::{Arrived, Hold, Holder, Positions, Result};
use crate::prices::Prices;

/// The shard whose lease says who rolls up.
const SHARD: i64 = 1;
/// How often candles are written to the tables.
const KEEP: Duration = Duration::from_secs(5);
/// Quotes read at once.
const RUN: i64 = 5_000;
/// How long a candle is remembered after its period, with a minute to spare, in ms.
const REMEMBERED_MS: i64 = 660_000;

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rolled {
    /// Quotes taken in.
    pub quotes: u64,
    /// Quotes older than the newest minute of their symbol.
    pub late: u64,
    /// Quotes too late for any candle.
    pub dropped: u64,
    /// Candles that changed.
    pub candles: u64,
    /// Why nothing was done, if nothing was.
    pub skipped: Option<&'static str>,
    /// Something is traded.
    #[serde(skip)]
    pub is_busy: bool,
}

struct Symbol {
    digits: u8,
    candles: Candles,
    /// What the tables do not know yet.
    changed: BTreeMap<(Timeframe, i64), Candle>,
}

/// The candles of a process.
pub struct Rollup {
    store: Positions,
    prices: Prices,
    hold: Hold,
    kept_at: Instant,
    symbols: HashMap<String, Symbol>,
    /// The last quote taken in; none before the load.
    arrival: Option<i64>,
    /// The same, as the tables know it.
    kept: i64,
    /// A pass has begun and not ended: what is remembered may be half of it.
    underway: bool,
}

impl Rollup {
    /// One that has read nothing yet. `owner` names this process in the lease.
    #[must_use]
    pub fn new(store: Positions, prices: Prices, owner: &str) -> Self {
        Self {
            store,
            prices,
            hold: Hold::new(SHARD, owner),
            kept_at: Instant::now(),
            symbols: HashMap::new(),
            arrival: None,
            kept: 0,
            underway: false,
        }
    }

    /// Takes in the quotes that have come, and writes the candles that changed; to the tables every few
    /// seconds, or at once with `keep`.
    ///
    /// # Errors
    /// [`Error`](crate::positions::Error). Then everything is read anew by the next pass.
    pub async fn pass(&mut self, keep: bool) -> Result<Rolled> {
        if std::mem::replace(&mut self.underway, true) {
            self.forget();
        }
        let done = self.run(keep).await;
        if done.is_err() {
            self.forget();
        }
        self.underway = false;
        done
    }

    /// Writes what the tables do not know, and lets another process go on.
    ///
    /// # Errors
    /// [`Error`](crate::positions::Error).
    pub async fn release(&mut self) -> Result<()> {
        if self.arrival.is_some() && !self.underway {
            self.keep().await?;
        }
        self.forget();
        self.hold.release(&self.store).await
    }

    /// The candles of a symbol that still change, oldest first; `None` when this process does not roll
    /// up.
    #[must_use]
    pub fn live(&self, symbol: &str, frame: Timeframe) -> Option<Vec<Candle>> {
        self.arrival?;
        let candles = self.symbols.get(symbol).map(|symbol| &symbol.candles);
        let of_frame = candles.into_iter().flat_map(Candles::iter).filter(|(own, _)| *own == frame);
        Some(of_frame.map(|(_, candle)| candle.clone()).collect())
    }

    fn forget_candles(&mut self) {
        self.symbols.clear();
        self.arrival = None;
    }

    fn forget(&mut self) {
        self.forget_candles();
        self.hold.doubt();
    }

    async fn run(&mut self, keep: bool) -> Result<Rolled> {
        let mut rolled = Rolled::default();
        match self.hold.keep(&self.store, keep).await? {
            Holder::Still => {}
            Holder::Anew => self.forget_candles(),
            Holder::Other => {
                self.forget_candles();
                rolled.skipped = Some(Report::HELD);
                return Ok(rolled);
            }
        }
        let mut arrival = match self.arrival {
            Some(arrival) => arrival,
            None => self.load().await?,
        };
        loop {
            let ticks = self.store.arrived_after(arrival, RUN).await?;
            let count = ticks.len();
            if ticks.iter().any(|arrived| !self.symbols.contains_key(&arrived.symbol)) {
                self.add_symbols().await?;
            }
            for arrived in ticks {
                arrival = arrived.arrival;
                self.add(&arrived, &mut rolled);
            }
            self.arrival = Some(arrival);
            if count < usize::try_from(RUN).unwrap_or(usize::MAX) {
                break;
            }
        }
        rolled.is_busy = !self.symbols.is_empty();
        self.show(&mut rolled).await;
        if (keep || self.kept_at.elapsed() >= KEEP) && !self.keep().await? {
            self.forget();
            rolled.skipped = Some(Report::HELD);
        }
        Ok(rolled)
    }

    fn add(&mut self, arrived: &Arrived, rolled: &mut Rolled) {
        let Some(symbol) = self.symbols.get_mut(&arrived.symbol) else { return };
        rolled.quotes += 1;
        match symbol.candles.add(&tick(arrived)) {
            Added::Late => rolled.late += 1,
            Added::Dropped | Added::OutOfRange => rolled.dropped += 1,
            Added::Counted | Added::Duplicate => {}
        }
    }

    /// Lets time pass, and shows what changed.
    async fn show(&mut self, rolled: &mut Rolled) {
        let now_ms = self.hold.now_ms();
        for (name, symbol) in &mut self.symbols {
            let changed = symbol.candles.tick_over(now_ms);
            if changed.is_empty() {
                continue;
            }
            rolled.candles += changed.len() as u64;
            // What is not taken is written whole with its next change; the tables have it in any case.
            self.prices.put_candles(name, symbol.digits, &changed).await;
            for (frame, candle) in changed {
                symbol.changed.insert((frame, candle.start_ms), candle);
            }
        }
    }

    /// Writes to the tables what they do not know. False when the lease is somebody else's now.
    async fn keep(&mut self) -> Result<bool> {
        self.kept_at = Instant::now();
        let (Some(arrival), Some(fence)) = (self.arrival, self.hold.fence()) else { return Ok(true) };
        let mut rows = Vec::new();
        for (name, symbol) in &self.symbols {
            rows.extend(symbol.changed.iter().map(|((frame, _), candle)| (name.as_str(), *frame, candle)));
        }
        if rows.is_empty() && arrival == self.kept {
            return Ok(true);
        }
        if !self.store.keep_candles(&rows, arrival, fence).await? {
            return Ok(false);
        }
        self.kept = arrival;
        self.symbols.values_mut().for_each(|symbol| symbol.changed.clear());
        Ok(true)
    }

    /// Reads the candles that still change, and which quotes are in them.
    async fn load(&mut self) -> Result<i64> {
        self.symbols.clear();
        self.kept = self.store.candle_cursor(SHARD).await?;
        self.add_symbols().await?;
        let from_ms = self.hold.now_ms().saturating_sub(REMEMBERED_MS);
        for frame in Timeframe::ALL {
            let start_ms = frame.period(from_ms, None).map_or(from_ms, |(start, _)| start);
            for (symbol, candle) in self.store.candles_since(frame, start_ms).await? {
                if let Some(symbol) = self.symbols.get_mut(&symbol) {
                    symbol.candles.restore(frame, candle);
                }
            }
        }
        let mut arrival = i64::MIN;
        loop {
            let ticks = self.store.arrived_after(arrival, RUN).await?;
            let Some(last) = ticks.last().map(|arrived| arrived.arrival) else { break };
            for arrived in ticks.iter().filter(|arrived| arrived.arrival <= self.kept) {
                if let Some(symbol) = self.symbols.get_mut(&arrived.symbol) {
                    symbol.candles.mark_seen(&tick(arrived));
                }
            }
            if last >= self.kept {
                break;
            }
            arrival = last;
        }
        self.arrival = Some(self.kept);
        self.kept_at = Instant::now();
        Ok(self.kept)
    }

    /// Takes up instruments that are not known yet.
    async fn add_symbols(&mut self) -> Result<()> {
        for instrument in self.store.instruments().await? {
            let new = || Symbol {
                digits: instrument.digits,
                candles: Candles::new(&Timeframe::ALL, None, Life::default()),
                changed: BTreeMap::new(),
            };
            self.symbols.entry(instrument.symbol.clone()).or_insert_with(new);
        }
        Ok(())
    }
}

fn tick(arrived: &Arrived) -> Tick {
    let (quote, volume) = (arrived.tick.quote, arrived.tick.volume);
    Tick { ts_ms: quote.ts_ms, seq: Some(quote.seq), bid: quote.bid, ask: quote.ask, volume }
}
