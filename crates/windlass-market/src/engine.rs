//! The sweep: quotes since the cursor led through the index, and what they close written down.
//!
//! A sweep sees every quote, not the last one: an excursion between two sweeps closes. It may be
//! run by any number of workers; one holds the lease, the others have nothing to do, and what
//! keeps a position from closing twice is the guarded statement alone.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use crate::calendar::Calendar;
use crate::guard::{Guard, Verdict};
use crate::index::{Book, Decision, Held, Step};
use crate::positions::{
    Close, Error, Fence, Instrument, Moved, Outcome, Position, Positions, Reached, Result, Status, Tick,
};
use crate::rules::{Fill, Quote, RULE_VERSION, Reason};

/// How long a shard is held without a sign of life; a sweep comes every 5 s.
const LEASE: Duration = Duration::from_secs(15);
/// Quotes of one symbol taken in at once.
const RUN: i64 = 5_000;
/// How far back changed positions are read again, in ms: longer than any transaction takes.
const OVERLAP_MS: i64 = 15_000;

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

/// What is remembered of one symbol between two sweeps.
struct Symbol {
    instrument: Instrument,
    calendar: Calendar,
    guard: Guard,
    book: Book,
    /// Positions that triggered while the market was closed.
    waiting: HashMap<i64, Position>,
    /// The last quote decided on.
    reached: i64,
}

/// The open positions of a process, by symbol.
pub struct Engine {
    store: Positions,
    owner: String,
    symbols: HashMap<String, Symbol>,
    fence: Option<Fence>,
    /// Up to when changes are read, by the clock of the database; none before the load.
    read_to_ms: Option<i64>,
}

impl Engine {
    /// One that has read nothing yet. `owner` names this process in the lease.
    #[must_use]
    pub fn new(store: Positions, owner: &str) -> Self {
        Self { store, owner: owner.to_owned(), symbols: HashMap::new(), fence: None, read_to_ms: None }
    }

    /// Sweeps once: takes in all quotes since the cursors and closes what they trigger. Nothing is
    /// done while another worker holds the shard.
    ///
    /// # Errors
    /// [`Error`]. Then everything is read anew by the next sweep, from the cursors on.
    pub async fn sweep(&mut self) -> Result<Report> {
        let begun = Instant::now();
        let mut report = Report::default();
        let done = self.run(&mut report).await;
        if done.is_err() {
            self.forget();
        }
        done?;
        report.ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    /// Gives the shard back, for whoever sweeps next.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn release(&mut self) -> Result<()> {
        let lease = self.store.lease(SHARD, &self.owner, LEASE).await?;
        self.forget();
        match lease {
            Some(lease) => self.store.release(&lease).await,
            None => Ok(()),
        }
    }

    fn forget(&mut self) {
        self.symbols.clear();
        self.read_to_ms = None;
    }

    async fn run(&mut self, report: &mut Report) -> Result<()> {
        let Some(lease) = self.store.lease(SHARD, &self.owner, LEASE).await? else {
            self.forget();
            report.skipped = Some("held_by_another_worker");
            return Ok(());
        };
        let fence = Fence::from(&lease);
        if self.fence != Some(fence) {
            self.forget();
            self.fence = Some(fence);
        }
        self.refresh(lease.now_ms).await?;
        let mut again = false;
        for (name, symbol) in &mut self.symbols {
            report.checked += symbol.book.len() as u64 + symbol.waiting.len() as u64;
            again |= symbol.catch_up(name, &self.store, Some(fence), report).await?;
        }
        if again {
            // What was refused is read and decided anew, from the cursor on.
            self.forget();
        }
        self.store.trim_ticks().await?;
        Ok(())
    }

    /// Reads all open positions, or those changed since the last time.
    async fn refresh(&mut self, now_ms: i64) -> Result<()> {
        match self.read_to_ms {
            None => {
                self.symbols = symbols(&self.store).await?;
                let mut loaded: HashMap<String, Vec<Held>> = HashMap::new();
                let symbols = &mut self.symbols;
                self.store
                    .load_open(None, |position| {
                        if position.status == Status::Closing {
                            if let Some(symbol) = symbols.get_mut(&position.symbol) {
                                symbol.waiting.insert(position.id, position);
                            }
                        } else {
                            let held = position.held();
                            match loaded.get_mut(&position.symbol) {
                                Some(all) => all.push(held),
                                None => drop(loaded.insert(position.symbol, vec![held])),
                            }
                        }
                    })
                    .await?;
                for (name, all) in loaded {
                    if let Some(symbol) = self.symbols.get_mut(&name) {
                        symbol.book.load(all);
                    }
                }
            }
            Some(read_to_ms) => {
                for position in self.store.changed_since(read_to_ms - OVERLAP_MS).await? {
                    if !self.symbols.contains_key(&position.symbol) {
                        // A new instrument: everything is read again by the next sweep.
                        self.read_to_ms = None;
                        continue;
                    }
                    if let Some(symbol) = self.symbols.get_mut(&position.symbol) {
                        symbol.take(position);
                    }
                }
                if self.read_to_ms.is_none() {
                    return Ok(());
                }
            }
        }
        self.read_to_ms = Some(now_ms);
        Ok(())
    }
}

/// All positions are one shard as yet.
const SHARD: i64 = 0;

async fn symbols(store: &Positions) -> Result<HashMap<String, Symbol>> {
    let cursors = store.cursors().await?;
    let mut symbols = HashMap::new();
    for instrument in store.instruments().await? {
        let calendar = Calendar::parse(&instrument.calendar).map_err(|e| Error::Refused {
            field: "calendar",
            code: "calendar_invalid",
            why: e.to_string(),
        })?;
        let reached = cursors.get(&instrument.symbol).map_or(i64::MIN, |cursor| cursor.seq);
        let mut guard = Guard::default();
        guard.resume_after(reached);
        let book = Book::new(instrument.confirm_ticks);
        let name = instrument.symbol.clone();
        symbols.insert(name, Symbol { instrument, calendar, guard, book, waiting: HashMap::new(), reached });
    }
    Ok(symbols)
}

impl Symbol {
    /// Takes up a position as it was read; one that is known in this version stays as it is.
    fn take(&mut self, position: Position) {
        match position.status {
            Status::Open if self.book.get(position.id).is_some_and(|held| held.version >= position.version) => {}
            Status::Open => self.book.put(position.held()),
            Status::Closing => {
                self.book.remove(position.id);
                self.waiting.insert(position.id, position);
            }
            Status::Closed => {
                self.book.remove(position.id);
                self.waiting.remove(&position.id);
            }
        }
    }

    /// Takes in all quotes since the cursor. True when something was refused that must be decided
    /// anew: the cursor then stays.
    async fn catch_up(
        &mut self,
        name: &str,
        store: &Positions,
        fence: Option<Fence>,
        report: &mut Report,
    ) -> Result<bool> {
        loop {
            let ticks = store.ticks_after(name, self.reached, RUN).await?;
            let Some(last) = ticks.last().map(|tick| tick.quote.seq) else { return Ok(false) };
            report.quotes += ticks.len() as u64;
            if self.take_in(store, &ticks, fence, report).await? {
                return Ok(true);
            }
            if fence.is_some() {
                store.advance(Reached { symbol: name, seq: last, stream_id: None }, fence).await?;
            }
            self.reached = last;
            if ticks.len() < usize::try_from(RUN).unwrap_or(usize::MAX) {
                return Ok(false);
            }
        }
    }

    async fn take_in(
        &mut self,
        store: &Positions,
        ticks: &[Tick],
        fence: Option<Fence>,
        report: &mut Report,
    ) -> Result<bool> {
        let mut steps: Vec<Step> = Vec::with_capacity(ticks.len());
        for Tick { quote, received_at_ms } in ticks {
            match self.guard.judge(quote, *received_at_ms, &self.instrument.limits(), self.instrument.gate()) {
                Verdict::Decide(gate) => steps.push(Step { quote: *quote, now: quote.ts_ms, gate }),
                Verdict::Hold(why) => *report.held.entry(why.as_str()).or_default() += 1,
            }
        }
        let Some(last) = steps.last().map(|step| step.quote.seq) else { return Ok(false) };
        // Runs of quotes inside and outside of sessions.
        let sessions: Vec<bool> = steps.iter().map(|step| self.calendar.is_open(step.quote.ts_ms)).collect();
        let mut closes = Vec::new();
        let mut at = 0;
        for run in sessions.chunk_by(|a, b| a == b) {
            let run_steps = &steps[at..at + run.len()];
            at += run.len();
            if run[0] {
                closes.extend(self.session_opens(&run_steps[0].quote));
                closes.extend(self.book.sweep(run_steps).into_iter().map(Decided::from));
            } else {
                if self.market_is_closed(store, run_steps, report).await? {
                    return Ok(true);
                }
            }
        }
        self.checkpoint(store, last).await?;
        self.write(store, closes, fence, report).await
    }

    /// Quotes outside of a session: what they close waits for the next one. A leg alone is put back,
    /// and asked again then. True when a position changed meanwhile.
    async fn market_is_closed(&mut self, store: &Positions, steps: &[Step], report: &mut Report) -> Result<bool> {
        for decision in self.book.sweep(steps) {
            let whole = decision.fill.leg == 0;
            if whole && !store.wait_for_session(&decision, "sweep").await? {
                return Ok(true);
            }
            report.triggered += u64::from(whole);
            report.waiting += u64::from(whole);
            if let Some(position) = store.get(decision.id).await? {
                self.take(position);
            }
        }
        Ok(false)
    }

    /// What waited for the session closes on its first quote.
    fn session_opens(&mut self, quote: &Quote) -> Vec<Decided> {
        let mut decided: Vec<Decided> = self
            .waiting
            .drain()
            .map(|(id, position)| {
                let reason = position.closing_reason.unwrap_or(Reason::Sl);
                let price = quote.closing_price(position.rules.side);
                let fill = Fill { leg: 0, qty: position.open_qty, reason, level: None, price, ambiguous: false };
                let detail = json!({ "why": "session_opened", "quote": quote, "rule_version": RULE_VERSION });
                Decided { id, version: position.version, quote: *quote, fill, rules: position.rules, detail }
            })
            .collect();
        decided.sort_by_key(|decided| decided.id);
        decided
    }

    /// Writes down which stops moved, before anything that counts the quotes as decided on.
    async fn checkpoint(&mut self, store: &Positions, seq: i64) -> Result<()> {
        let mut moved = Vec::new();
        for id in self.book.take_moved() {
            let Some(held) = self.book.get(id) else { continue };
            if let Some(stop) = held.track.stop() {
                moved.push(Moved { id, version: held.version, extreme: held.track.extreme(), stop, seq });
            }
        }
        store.checkpoint(&moved).await
    }

    /// Writes closings, quote by quote of each position. True when one must be decided anew.
    async fn write(
        &mut self,
        store: &Positions,
        decided: Vec<Decided>,
        fence: Option<Fence>,
        report: &mut Report,
    ) -> Result<bool> {
        let mut again = false;
        for round in rounds(decided) {
            report.triggered += round.len() as u64;
            for batch in round.chunks(BATCH) {
                let now_ms = store.now_ms().await?;
                let outcomes = store.close(batch, fence, now_ms, "sweep", None).await?.outcomes;
                for close in batch {
                    match outcomes.get(&close.id) {
                        Some(Outcome::Closed { version, whole }) => {
                            if !whole {
                                self.book.set_version(close.id, *version);
                            }
                            report.tell(close);
                        }
                        Some(Outcome::AlreadyClosed { .. } | Outcome::Unknown) => {
                            report.lost_race += 1;
                            self.book.remove(close.id);
                        }
                        _ => {
                            report.lost_race += 1;
                            again = true;
                        }
                    }
                }
            }
        }
        Ok(again)
    }
}

/// Positions closed by one transaction.
const BATCH: usize = 1_000;

/// A decision on its way to the tables.
struct Decided {
    id: i64,
    version: i64,
    quote: Quote,
    fill: Fill,
    rules: crate::rules::Rules,
    detail: serde_json::Value,
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
fn rounds(decided: Vec<Decided>) -> Vec<Vec<Close>> {
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

impl Report {
    /// Adds what another one did.
    pub(crate) fn add(&mut self, other: Self) {
        self.checked += other.checked;
        self.quotes += other.quotes;
        self.triggered += other.triggered;
        self.closed += other.closed;
        self.sl_closed += other.sl_closed;
        self.tp_closed += other.tp_closed;
        self.lost_race += other.lost_race;
        self.waiting += other.waiting;
        self.ms += other.ms;
        for (why, count) in other.held {
            *self.held.entry(why).or_default() += count;
        }
        self.closings.extend(other.closings);
        self.closings.truncate(LISTED);
    }

    fn tell(&mut self, close: &Close) {
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

/// Checks some positions now, without the lease: the guards of the closing statement are enough.
/// The cursor stays where it is.
///
/// # Errors
/// [`Error`].
pub async fn check(store: &Positions, positions: Vec<Position>) -> Result<Report> {
    let begun = Instant::now();
    let mut report = Report::default();
    let mut all = symbols(store).await?;
    for position in positions {
        report.checked += 1;
        if let Some(symbol) = all.get_mut(&position.symbol) {
            symbol.take(position);
        }
    }
    for (name, symbol) in &mut all {
        if !symbol.book.is_empty() || !symbol.waiting.is_empty() {
            symbol.catch_up(name, store, None, &mut report).await?;
        }
    }
    report.ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}
