//! One symbol of the engine: its guard, its session, its index.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::report::{Decided, Report, rounds};
use crate::calendar::Calendar;
use crate::guard::{Guard, Verdict};
use crate::index::{Book, Held, Near, Step};
use crate::positions::{Close, Error, Fence, Instrument, Moved, Outcome, Position, Positions, Result, Status, Tick};
use crate::rules::{Fill, Quote, RULE_VERSION, Reason};

/// Positions closed by one transaction.
const BATCH: usize = 1_000;
/// How often a decision is made anew that another write has overtaken, before all is read anew.
const AGAIN: usize = 5;

/// The pause before a closing is tried again that another application's tables refused; doubled with each
/// try, up to a minute.
const PUT_OFF: Duration = Duration::from_secs(1);
const PUT_OFF_MOST: Duration = Duration::from_secs(60);

/// A closing that another application's tables refused.
struct PutOff {
    close: Close,
    pause: Duration,
    refused_at: Instant,
}

/// What is remembered of one symbol between two sweeps.
pub(super) struct Symbol {
    instrument: Instrument,
    calendar: Calendar,
    guard: Guard,
    book: Book,
    /// Positions that triggered while the market was closed.
    waiting: HashMap<i64, Position>,
    /// The last quote decided on.
    pub(super) reached: i64,
    /// Up to which quote the cursor in the tables stands.
    pub(super) kept: i64,
    /// The quotes after that one which may decide: whoever is read anew is led over them.
    recent: Vec<Step>,
    /// Decisions about positions that were read anew, not yet written.
    decided: Vec<Decided>,
    /// By position: neither in the index nor waiting for the session.
    put_off: HashMap<i64, PutOff>,
    /// When the last quote came, or this was read, by the clock of the database.
    received_at_ms: i64,
}

fn calendar_of(instrument: &Instrument) -> Result<Calendar> {
    Calendar::parse(&instrument.calendar).map_err(|e| Error::refused("calendar", "calendar_invalid", e.to_string()))
}

impl PutOff {
    fn is_due(&self) -> bool {
        self.refused_at.elapsed() >= self.pause
    }
}

impl Symbol {
    pub(super) fn new(instrument: Instrument, reached: i64, now_ms: i64) -> Result<Self> {
        let calendar = calendar_of(&instrument)?;
        let mut guard = Guard::default();
        guard.resume_after(reached);
        let book = Book::new(instrument.confirm_ticks);
        Ok(Self {
            instrument,
            calendar,
            guard,
            book,
            waiting: HashMap::new(),
            reached,
            kept: reached,
            recent: Vec::new(),
            decided: Vec::new(),
            put_off: HashMap::new(),
            received_at_ms: now_ms,
        })
    }

    /// Takes up what was changed about the instrument. False when only reading all anew will do.
    pub(super) fn set_instrument(&mut self, instrument: Instrument) -> Result<bool> {
        if instrument == self.instrument {
            return Ok(true);
        }
        let fits =
            instrument.digits == self.instrument.digits && instrument.confirm_ticks == self.instrument.confirm_ticks;
        self.calendar = calendar_of(&instrument)?;
        self.instrument = instrument;
        Ok(fits)
    }

    /// Takes the positions of the first load.
    pub(super) fn load(&mut self, open: Vec<Held>) {
        self.book.load(open);
    }

    /// Takes a position of the first load that triggered before.
    pub(super) fn wait(&mut self, position: Position) {
        if !position.asked {
            self.waiting.insert(position.id, position);
        }
    }

    /// Open positions.
    pub(super) fn watched(&self) -> u64 {
        self.book.len() as u64 + self.waiting.len() as u64 + self.put_off.len() as u64
    }

    /// What is nearest to a trigger at the last believed prices.
    pub(super) fn nearest(&self, bid: i64, ask: i64, limit: usize) -> Vec<Near> {
        self.book.nearest(bid, ask, limit)
    }

    /// True when positions are open, the market trades, and no quote has come for too long.
    pub(super) fn is_frozen(&self, now_ms: i64) -> bool {
        let silent_ms = now_ms.saturating_sub(self.received_at_ms);
        silent_ms > self.instrument.max_quote_age_ms && !self.book.is_empty() && self.calendar.is_open(now_ms)
    }

    /// Takes up a position as it was read; one that is known in this version stays as it is.
    pub(super) fn take(&mut self, position: Position) {
        if let Some(off) = self.put_off.get(&position.id) {
            if position.status != Status::Closed && position.version == off.close.version {
                return;
            }
            self.put_off.remove(&position.id);
        }
        match position.status {
            Status::Open if self.book.get(position.id).is_some_and(|held| held.version >= position.version) => {}
            Status::Open => {
                self.waiting.remove(&position.id);
                self.follow(&position);
            }
            Status::Closing if position.asked => {
                self.book.remove(position.id);
                self.waiting.remove(&position.id);
            }
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

    /// Leads a position that was read from the tables over the quotes that they have not seen, and
    /// takes it into the index.
    fn follow(&mut self, position: &Position) {
        self.book.remove(position.id);
        let mut alone = Book::new(self.instrument.confirm_ticks);
        alone.put(position.held());
        self.decided.extend(alone.sweep(&self.recent).into_iter().map(Decided::from));
        let moved = !alone.take_moved().is_empty();
        if let Some(held) = alone.remove(position.id) {
            self.book.put(held);
            if moved {
                self.book.mark_moved(position.id);
            }
        }
    }

    /// Takes quotes in that come after all before, and closes what they trigger.
    pub(super) async fn take_in(
        &mut self,
        store: &Positions,
        ticks: &[Tick],
        fence: Option<Fence>,
        report: &mut Report,
    ) -> Result<bool> {
        let mut steps: Vec<Step> = Vec::with_capacity(ticks.len());
        for Tick { quote, received_at_ms, .. } in ticks {
            self.received_at_ms = self.received_at_ms.max(*received_at_ms);
            match self.guard.judge(quote, *received_at_ms, &self.instrument.limits(), self.instrument.gate()) {
                Verdict::Decide(gate) => steps.push(Step { quote: *quote, now: quote.ts_ms, gate }),
                Verdict::Hold(why) => *report.held.entry(why.as_str()).or_default() += 1,
            }
            self.reached = self.reached.max(quote.seq);
        }
        // Runs of quotes inside and outside of sessions.
        let sessions: Vec<bool> = steps.iter().map(|step| self.calendar.is_open(step.quote.ts_ms)).collect();
        let mut closes = std::mem::take(&mut self.decided);
        let mut at = 0;
        for run in sessions.chunk_by(|a, b| a == b) {
            let run_steps = &steps[at..at + run.len()];
            at += run.len();
            if run[0] {
                closes.extend(self.session_opens(&run_steps[0].quote));
                closes.extend(self.book.sweep(run_steps).into_iter().map(Decided::from));
                self.recent.extend_from_slice(run_steps);
            } else if self.market_is_closed(store, run_steps, report).await? {
                return Ok(true);
            }
        }
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

    /// The stops that moved since the last call.
    pub(super) fn moved(&mut self) -> Vec<Moved> {
        let mut moved = Vec::new();
        for id in self.book.take_moved() {
            let Some(held) = self.book.get(id) else { continue };
            if let Some(stop) = held.track.stop() {
                let (version, extreme) = (held.version, held.track.extreme());
                moved.push(Moved { id, version, extreme, stop, seq: self.reached });
            }
        }
        moved
    }

    /// The cursor stands where the decisions do.
    pub(super) fn is_kept(&mut self, seq: i64) {
        self.kept = seq;
        self.recent.retain(|step| step.quote.seq > seq);
    }

    /// Writes closings, quote by quote of each position. What another write has overtaken is read
    /// and decided anew; true when that did not help.
    pub(super) async fn write(
        &mut self,
        store: &Positions,
        decided: Vec<Decided>,
        fence: Option<Fence>,
        report: &mut Report,
    ) -> Result<bool> {
        let mut rounds_of = rounds(decided);
        rounds_of.extend(self.due());
        for _ in 0..AGAIN {
            let (mut refused, mut failed): (Vec<i64>, Vec<Close>) = (Vec::new(), Vec::new());
            for round in rounds_of {
                report.triggered += round.len() as u64;
                for batch in round.chunks(BATCH) {
                    let now_ms = store.now_ms().await?;
                    let outcomes = store.close(batch, fence, now_ms, "sweep", None).await?.outcomes;
                    for close in batch {
                        match outcomes.get(&close.id) {
                            Some(Outcome::Failed { .. }) => failed.push(close.clone()),
                            Some(Outcome::Closed { version, whole }) => {
                                if !whole {
                                    self.book.set_version(close.id, *version);
                                }
                                report.tell(close);
                                self.put_off.remove(&close.id);
                            }
                            Some(Outcome::Asked { fresh }) => {
                                report.asked += u64::from(*fresh);
                                report.lost_race += u64::from(!fresh);
                                self.book.remove(close.id);
                                self.put_off.remove(&close.id);
                            }
                            Some(Outcome::AlreadyClosed { .. } | Outcome::Unknown) => {
                                report.lost_race += 1;
                                self.book.remove(close.id);
                                self.put_off.remove(&close.id);
                            }
                            Some(Outcome::FenceLost) | None => {
                                report.lost_race += 1;
                                return Ok(true);
                            }
                            _ => {
                                report.lost_race += 1;
                                refused.push(close.id);
                            }
                        }
                    }
                }
            }
            report.refused += failed.len() as u64;
            self.put_off(store, failed).await?;
            if refused.is_empty() {
                return Ok(false);
            }
            refused.sort_unstable();
            refused.dedup();
            for position in store.get_many(&refused).await? {
                // In whatever version: what is known of it is what was refused.
                self.book.remove(position.id);
                self.take(position);
            }
            let decided = std::mem::take(&mut self.decided);
            if decided.is_empty() {
                return Ok(false);
            }
            rounds_of = rounds(decided);
        }
        Ok(true)
    }

    /// Closings that were put off long enough: they are tried again by themselves.
    fn due(&self) -> Option<Vec<Close>> {
        let due = self.put_off.values().filter(|off| off.is_due()).map(|off| off.close.clone());
        Some(due.collect::<Vec<_>>()).filter(|due| !due.is_empty())
    }

    /// Puts closings off; whoever reads the positions meanwhile closes them too.
    async fn put_off(&mut self, store: &Positions, failed: Vec<Close>) -> Result<()> {
        let reason = |close: &Close| close.fills.first().map(|fill| (close.id, close.version, fill.reason));
        store.mark_closing(&failed.iter().filter_map(reason).collect::<Vec<_>>()).await?;
        for close in failed {
            self.book.remove(close.id);
            let pause = self.put_off.get(&close.id).map_or(PUT_OFF, |off| (off.pause * 2).min(PUT_OFF_MOST));
            self.put_off.insert(close.id, PutOff { close, pause, refused_at: Instant::now() });
        }
        Ok(())
    }

    /// True when something was decided that is not written: about positions that were read anew, or put off.
    pub(super) fn has_decided(&self) -> bool {
        !self.decided.is_empty() || self.put_off.values().any(PutOff::is_due)
    }

    /// Writes what was decided about positions that were read anew.
    pub(super) async fn write_decided(
        &mut self,
        store: &Positions,
        fence: Option<Fence>,
        report: &mut Report,
    ) -> Result<bool> {
        let decided = std::mem::take(&mut self.decided);
        self.write(store, decided, fence, report).await
    }
}
