//! The sweep: quotes since the cursor led through the index, and what they close written down.
//!
//! A sweep sees every quote, not the last one: an excursion between two sweeps closes. It is run
//! for every batch of quotes while somebody watches, and from time to time in any case. Any number
//! of workers may run it; one holds the lease, the others have nothing to do, and what keeps a
//! position from closing twice is the guarded statement alone.
//!
//! What is decided is written at once. Stops that trailing moved, and how far the quotes are decided
//! on, are written once a second, in this order: whoever takes over after a crash sees some quotes
//! again, which the guards make harmless.

mod report;
mod symbol;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use symbol::Symbol;

pub use report::{Report, Told};

use crate::index::{Held, Near};
use crate::positions::{Arrived, Fence, Hold, Holder, Position, Positions, Reach, Result, Status, Tick};

/// How often moved stops and cursors are written while quotes are watched.
const KEEP: Duration = Duration::from_secs(1);
/// How often quotes that are over are forgotten, and how many at once: those that come wait meanwhile.
const TRIM: Duration = Duration::from_secs(1);
const TRIM_AT_ONCE: u64 = 2_000;
/// How often another application's positions are all read, where they lie in its tables.
const WHOLE: Duration = Duration::from_secs(60);
/// Symbols whose closings are on their way to PostgreSQL at once: each transaction waits for its disk.
const AT_ONCE: usize = 4;
/// Quotes taken in at once.
const RUN: i64 = 5_000;
/// How far back changed positions are read again, in ms: longer than a transaction takes.
const OVERLAP_MS: i64 = 15_000;
/// The same while quotes are watched; the longer one comes once a second.
const SHORT_OVERLAP_MS: i64 = 3_000;

/// The open positions of a process, by symbol.
pub struct Engine {
    store: Positions,
    hold: Hold,
    symbols: HashMap<String, Symbol>,
    /// Up to when changes are read, by the clock of the database; none before the load.
    read_to_ms: Option<i64>,
    refreshed_at: Instant,
    kept_at: Instant,
    /// None when some are left that are over.
    trimmed_at: Option<Instant>,
    /// When another application's positions were all read.
    synced_at: Instant,
    /// The last quote that was read.
    arrival: i64,
    /// A pass has begun and not ended: what is remembered may be half of it.
    underway: bool,
    /// What passes did that ended in an error: told by the next one that does not.
    untold: Report,
}

impl Engine {
    /// One that has read nothing yet. `owner` names this process in the lease.
    #[must_use]
    pub fn new(store: Positions, owner: &str) -> Self {
        let now = Instant::now();
        Self {
            store,
            hold: Hold::new(SHARD, owner),
            symbols: HashMap::new(),
            read_to_ms: None,
            refreshed_at: now,
            kept_at: now,
            trimmed_at: None,
            synced_at: now,
            arrival: 0,
            underway: false,
            untold: Report::default(),
        }
    }

    /// Sweeps once: takes in all quotes since the cursors and closes what they trigger. Nothing is
    /// done while another worker holds the shard.
    ///
    /// # Errors
    /// [`Error`](crate::positions::Error). Then everything is read anew by the next sweep, from the
    /// cursors on.
    pub async fn sweep(&mut self) -> Result<Report> {
        self.pass(false).await
    }

    /// As [`Engine::sweep`], for who calls it for every batch of quotes: lease, cursors and moved
    /// stops are written from time to time only.
    ///
    /// # Errors
    /// As [`Engine::sweep`].
    pub async fn watch(&mut self) -> Result<Report> {
        self.pass(true).await
    }

    async fn pass(&mut self, live: bool) -> Result<Report> {
        let begun = Instant::now();
        let mut report = std::mem::take(&mut self.untold);
        // Whoever called before may have given up in the middle: nothing of that may be counted as done.
        if std::mem::replace(&mut self.underway, true) {
            self.forget();
        }
        let done = self.run(live, &mut report).await;
        self.underway = false;
        if let Err(error) = done {
            self.forget();
            self.untold = Report { checked: 0, skipped: None, ..report };
            return Err(error);
        }
        report.ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    /// Gives the shard back, for whoever sweeps next.
    ///
    /// # Errors
    /// [`Error`](crate::positions::Error).
    pub async fn release(&mut self) -> Result<()> {
        if self.read_to_ms.is_some() && !self.underway {
            self.keep().await?;
        }
        self.forget();
        self.hold.release(&self.store).await
    }

    /// The positions of a symbol nearest to a trigger at these prices, nearest first; none when this
    /// process does not watch them.
    #[must_use]
    pub fn nearest(&self, symbol: &str, bid: i64, ask: i64, limit: usize) -> Option<Vec<Near>> {
        self.read_to_ms?;
        Some(self.symbols.get(symbol)?.nearest(bid, ask, limit))
    }

    /// True when there is nothing to watch.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.symbols.is_empty()
    }

    /// Symbols with open positions, in session, of which no quote comes.
    #[must_use]
    pub fn frozen(&self) -> Vec<&str> {
        let now_ms = self.hold.now_ms();
        let mut frozen: Vec<&str> =
            self.symbols.iter().filter(|(_, s)| s.is_frozen(now_ms)).map(|(name, _)| name.as_str()).collect();
        frozen.sort_unstable();
        frozen
    }

    fn forget_positions(&mut self) {
        self.symbols.clear();
        self.read_to_ms = None;
    }

    fn forget(&mut self) {
        self.forget_positions();
        self.hold.doubt();
    }

    async fn run(&mut self, live: bool, report: &mut Report) -> Result<()> {
        match self.hold.keep(&self.store, !live).await? {
            Holder::Still => {}
            Holder::Anew => self.forget_positions(),
            Holder::Other => {
                self.forget_positions();
                report.skipped = Some(Report::HELD);
                return Ok(());
            }
        }
        if self.read_to_ms.is_none() && !self.load().await? {
            report.skipped = Some(Report::HELD);
            return Ok(());
        }
        report.checked += self.symbols.values().map(Symbol::watched).sum::<u64>();
        loop {
            if self.hold.keep(&self.store, false).await? != Holder::Still {
                // Many quotes, and another worker came between.
                self.forget();
                return Ok(());
            }
            let ticks = self.store.arrived_after(self.arrival, RUN).await?;
            // Read after the quotes: a position that was there before one of them is known when it decides.
            self.refresh(live, !ticks.is_empty()).await?;
            if self.read_to_ms.is_none() {
                // An instrument is new, or changed in a way that only a load can follow; or the lease was lost.
                if self.load().await? {
                    continue;
                }
                return Ok(());
            }
            let count = ticks.len();
            if self.take_in(ticks, self.hold.fence(), report).await? {
                // What was refused is read and decided anew, from the cursor on.
                self.forget();
                return Ok(());
            }
            if count < usize::try_from(RUN).unwrap_or(usize::MAX) {
                break;
            }
        }
        if !live || self.kept_at.elapsed() >= KEEP {
            self.keep().await?;
        }
        if self.trimmed_at.is_none_or(|at| at.elapsed() >= TRIM) {
            let begun = Instant::now();
            // More than have come, so that what is over never grows.
            let most = TRIM_AT_ONCE.max(report.quotes.saturating_mul(2));
            let gone = self.store.trim_ticks(self.hold.now_ms(), most).await?;
            self.trimmed_at = (gone < most).then_some(begun);
        }
        Ok(())
    }

    /// Hands quotes to their symbols, and writes what was decided without one.
    async fn take_in(&mut self, ticks: Vec<Arrived>, fence: Option<Fence>, report: &mut Report) -> Result<bool> {
        let last = ticks.last().map(|arrived| arrived.arrival);
        let mut by_symbol: HashMap<String, Vec<Tick>> = HashMap::new();
        for Arrived { symbol, tick, late, .. } in ticks {
            let reached = self.symbols.get(&symbol).map_or(i64::MAX, |symbol| symbol.reached);
            if !late && tick.quote.seq > reached {
                by_symbol.entry(symbol).or_default().push(tick);
            }
        }
        let store = &self.store;
        let mut symbols: Vec<BoxFuture<'_, (Result<bool>, Report)>> = Vec::new();
        for (name, symbol) in &mut self.symbols {
            let ticks = by_symbol.remove(name).unwrap_or_default();
            if ticks.is_empty() && !symbol.has_decided() {
                continue;
            }
            symbols.push(Box::pin(async move {
                let mut report = Report { quotes: ticks.len() as u64, ..Report::default() };
                let again = if ticks.is_empty() {
                    symbol.write_decided(store, fence, &mut report).await
                } else {
                    symbol.take_in(store, &ticks, fence, &mut report).await
                };
                (again, report)
            }));
        }
        // All of them end, also when one fails or has to be decided anew: what they closed is told.
        let mut done = stream::iter(symbols).buffer_unordered(if store.is_embedded() { 1 } else { AT_ONCE });
        let mut again = Ok(false);
        while let Some((one_again, part)) = done.next().await {
            report.add(part);
            again = match (again, one_again) {
                (Ok(before), Ok(one)) => Ok(before | one),
                (Err(first), _) => Err(first),
                (_, Err(error)) => Err(error),
            };
        }
        drop(done);
        let again = again?;
        if !again {
            self.arrival = last.unwrap_or(self.arrival);
        }
        Ok(again)
    }

    /// Writes moved stops, then how far the quotes are decided on.
    async fn keep(&mut self) -> Result<()> {
        let mut moved = Vec::new();
        let mut reached: Vec<(&str, i64)> = Vec::new();
        for (name, symbol) in &mut self.symbols {
            moved.extend(symbol.moved());
            if symbol.reached > symbol.kept {
                reached.push((name, symbol.reached));
            }
        }
        self.store.checkpoint(&moved).await?;
        if !reached.is_empty() {
            self.store.advance_all(&reached, self.hold.fence()).await?;
        }
        for symbol in self.symbols.values_mut() {
            let reached = symbol.reached;
            symbol.is_kept(reached);
        }
        self.kept_at = Instant::now();
        Ok(())
    }

    /// Reads everything. False when the lease was lost meanwhile: then nothing is remembered.
    async fn load(&mut self) -> Result<bool> {
        let store = self.store.clone();
        let (loaded, holder) = self.hold.beside(&store, read_all(&store)).await?;
        // Since the last renewal it may have been lost as well.
        let holds = holder == Holder::Still && self.hold.keep(&store, true).await? == Holder::Still;
        if !holds {
            self.forget();
            return Ok(false);
        }
        self.synced_at = loaded.synced_at;
        self.arrival = loaded.arrival;
        self.symbols = loaded.symbols;
        self.read_to_ms = Some(loaded.now_ms);
        self.refreshed_at = Instant::now();
        self.kept_at = Instant::now();
        Ok(true)
    }

    /// Reads the positions and instruments that changed since the last time.
    async fn refresh(&mut self, live: bool, quotes_came: bool) -> Result<()> {
        let Some(read_to_ms) = self.read_to_ms else { return Ok(()) };
        let whole = !live || self.refreshed_at.elapsed() >= KEEP;
        if !whole && !quotes_came {
            return Ok(());
        }
        let begun = Instant::now();
        let overlap = if whole { OVERLAP_MS } else { SHORT_OVERLAP_MS };
        let now_ms = self.hold.now_ms();
        if whole {
            for instrument in self.store.instruments().await? {
                let known = match self.symbols.get_mut(&instrument.symbol) {
                    Some(symbol) => symbol.set_instrument(instrument)?,
                    None => false,
                };
                if !known {
                    self.read_to_ms = None;
                    return Ok(());
                }
            }
        }
        if whole && self.synced_at.elapsed() >= WHOLE {
            let store = self.store.clone();
            let ((), holder) = self.hold.beside(&store, store.sync(Reach::Whole)).await?;
            if holder != Holder::Still {
                self.forget_positions();
                return Ok(());
            }
            self.synced_at = Instant::now();
        } else {
            self.store.sync(Reach::Since(read_to_ms - overlap)).await?;
        }
        for position in self.store.changed_since(read_to_ms - overlap, whole).await? {
            match self.symbols.get_mut(&position.symbol) {
                Some(symbol) => symbol.take(position),
                None => {
                    // A new instrument: everything is read again.
                    self.read_to_ms = None;
                    return Ok(());
                }
            }
        }
        self.read_to_ms = Some(now_ms);
        if whole {
            self.refreshed_at = begun;
        }
        Ok(())
    }
}

/// All positions are one shard as yet.
const SHARD: i64 = 0;

async fn symbols(store: &Positions, now_ms: i64) -> Result<HashMap<String, Symbol>> {
    let cursors = store.cursors().await?;
    let mut symbols = HashMap::new();
    for instrument in store.instruments().await? {
        let reached = cursors.get(&instrument.symbol).map_or(i64::MIN, |cursor| cursor.seq);
        symbols.insert(instrument.symbol.clone(), Symbol::new(instrument, reached, now_ms)?);
    }
    Ok(symbols)
}

/// All that a pass starts from.
struct Loaded {
    synced_at: Instant,
    now_ms: i64,
    arrival: i64,
    symbols: HashMap<String, Symbol>,
}

async fn read_all(store: &Positions) -> Result<Loaded> {
    store.sync(Reach::Whole).await?;
    let synced_at = Instant::now();
    let now_ms = store.now_ms().await?;
    let arrival = store.decided_to().await?;
    let mut symbols = symbols(store, now_ms).await?;
    let mut loaded: HashMap<String, Vec<Held>> = HashMap::new();
    let each = |position: Position| {
        if position.status == Status::Closing {
            if let Some(symbol) = symbols.get_mut(&position.symbol) {
                symbol.wait(position);
            }
            return;
        }
        let held = position.held();
        match loaded.get_mut(&position.symbol) {
            Some(all) => all.push(held),
            None => drop(loaded.insert(position.symbol, vec![held])),
        }
    };
    store.load_open(None, each).await?;
    for (name, all) in loaded {
        if let Some(symbol) = symbols.get_mut(&name) {
            symbol.load(all);
        }
    }
    Ok(Loaded { synced_at, now_ms, arrival, symbols })
}

/// Checks some positions now, without the lease: the guards of the closing statement are enough.
/// The cursor stays where it is.
///
/// # Errors
/// [`Error`](crate::positions::Error).
pub async fn check(store: &Positions, positions: Vec<Position>) -> Result<Report> {
    let begun = Instant::now();
    let mut report = Report::default();
    let mut all = symbols(store, store.now_ms().await?).await?;
    for position in positions {
        report.checked += 1;
        if let Some(symbol) = all.get_mut(&position.symbol) {
            symbol.take(position);
        }
    }
    for (name, symbol) in &mut all {
        while symbol.watched() > 0 {
            let ticks = store.ticks_after(name, symbol.reached, RUN).await?;
            report.quotes += ticks.len() as u64;
            if symbol.take_in(store, &ticks, None, &mut report).await? || ticks.is_empty() {
                break;
            }
        }
    }
    report.ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}
