//! Candles: exact whatever the order in which ticks come and however often.
//!
//! High and low are a maximum and a minimum, open and close the first and last by
//! (time, number); none of them minds a repetition. Volume and count do, so each tick's number
//! is remembered while its minute lives. A period in which nothing came has no candle.

mod seen;
mod timeframe;

use std::collections::{BTreeMap, BTreeSet};

use seen::Seen;
pub use timeframe::{BadTimeframe, Timeframe};

use crate::calendar::DayStart;

/// One quote as candles see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Milliseconds since 1970 UTC.
    pub ts_ms: i64,
    /// Its number at the source; without one it counts every time it comes.
    pub seq: Option<i64>,
    /// In points.
    pub bid: i64,
    /// In points.
    pub ask: i64,
    /// Units traded; 0 where the feed does not say.
    pub volume: i64,
}

/// What happened in one period, in points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candle {
    /// First moment, milliseconds since 1970 UTC.
    pub start_ms: i64,
    /// First bid.
    pub o: i64,
    /// Highest bid.
    pub h: i64,
    /// Lowest bid.
    pub l: i64,
    /// Last bid.
    pub c: i64,
    /// Highest ask: what a short's stop is tested against.
    pub ah: i64,
    /// Lowest ask.
    pub al: i64,
    /// Units traded.
    pub v: i128,
    /// Ticks.
    pub n: u64,
    /// When the open came, and its number.
    pub open_at: (i64, i64),
    /// When the close came, and its number.
    pub close_at: (i64, i64),
    /// Raised by each tick that came after the candle was final.
    pub rev: u32,
    /// True once its period and the grace are over.
    pub is_final: bool,
}

impl Candle {
    fn of(start_ms: i64, tick: &Tick, at: (i64, i64)) -> Self {
        Self {
            start_ms,
            o: tick.bid,
            h: tick.bid,
            l: tick.bid,
            c: tick.bid,
            ah: tick.ask,
            al: tick.ask,
            v: i128::from(tick.volume),
            n: 1,
            open_at: at,
            close_at: at,
            rev: 0,
            is_final: false,
        }
    }

    fn merge(&mut self, tick: &Tick, at: (i64, i64)) {
        self.h = self.h.max(tick.bid);
        self.l = self.l.min(tick.bid);
        self.ah = self.ah.max(tick.ask);
        self.al = self.al.min(tick.ask);
        if at < self.open_at {
            (self.o, self.open_at) = (tick.bid, at);
        }
        if at > self.close_at {
            (self.c, self.close_at) = (tick.bid, at);
        }
        self.v += i128::from(tick.volume);
        self.n += 1;
        self.rev += u32::from(self.is_final);
    }
}

/// What became of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It counts.
    Counted,
    /// It counts in a period older than the newest one.
    Late,
    /// Its number came before.
    Duplicate,
    /// Its minute is forgotten.
    Dropped,
    /// Its time lies outside of what a calendar can name.
    OutOfRange,
}

/// How long things are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// How long after its end a minute takes late ticks, in ms. Default 600,000; `None`: for
    /// ever, for files.
    pub minute_ms: Option<i64>,
    /// How long after its end a candle becomes final, in ms. Default 2,000.
    pub grace_ms: i64,
}

impl Default for Life {
    fn default() -> Self {
        Self { minute_ms: Some(600_000), grace_ms: 2_000 }
    }
}

const MINUTE_MS: i64 = 60_000;

/// The candles of one symbol in some timeframes. Memory is bounded by the life of a minute.
#[derive(Debug)]
pub struct Candles {
    frames: Vec<(Timeframe, BTreeMap<i64, Candle>)>,
    day_start: Option<DayStart>,
    life: Life,
    seen: BTreeMap<i64, Seen>,
    newest_ms: i64,
    /// The latest of the ticks' stamps and the clock: what lives is told by it.
    clock_ms: i64,
    arrived: i64,
    changed: BTreeSet<(usize, i64)>,
}

impl Candles {
    /// None yet.
    #[must_use]
    pub fn new(frames: &[Timeframe], day_start: Option<DayStart>, life: Life) -> Self {
        Self {
            frames: frames.iter().map(|frame| (*frame, BTreeMap::new())).collect(),
            day_start,
            life,
            seen: BTreeMap::new(),
            newest_ms: i64::MIN,
            clock_ms: i64::MIN,
            arrived: 0,
            changed: BTreeSet::new(),
        }
    }

    /// Takes up a candle as it was kept, after a restart.
    pub fn restore(&mut self, frame: Timeframe, candle: Candle) {
        if let Some((_, candles)) = self.frames.iter_mut().find(|(known, _)| *known == frame) {
            candles.insert(candle.start_ms, candle);
        }
    }

    /// Remembers that a tick is in the candles that were restored.
    pub fn mark_seen(&mut self, tick: &Tick) {
        let minute = tick.ts_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
        if let (Some(seq), false) = (tick.seq, self.is_forgotten(minute)) {
            let key = if self.life.minute_ms.is_some() { minute } else { 0 };
            self.seen.entry(key).or_default().insert(seq);
        }
        self.newest_ms = self.newest_ms.max(tick.ts_ms);
        self.clock_ms = self.clock_ms.max(tick.ts_ms);
    }

    /// Takes a tick in. Its bid and ask must be sound ([`crate::guard::sound`]).
    pub fn add(&mut self, tick: &Tick) -> Added {
        let starts: Option<Vec<i64>> =
            self.frames.iter().map(|(frame, _)| Some(frame.period(tick.ts_ms, self.day_start.as_ref())?.0)).collect();
        let Some(starts) = starts else { return Added::OutOfRange };
        let minute = tick.ts_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
        if self.is_forgotten(minute) {
            return Added::Dropped;
        }
        self.arrived += 1;
        if let Some(seq) = tick.seq {
            let key = if self.life.minute_ms.is_some() { minute } else { 0 };
            if !self.seen.entry(key).or_default().insert(seq) {
                return Added::Duplicate;
            }
        }
        let at = (tick.ts_ms, tick.seq.unwrap_or(self.arrived));
        for (index, ((_, candles), start)) in self.frames.iter_mut().zip(starts).enumerate() {
            candles
                .entry(start)
                .and_modify(|candle| candle.merge(tick, at))
                .or_insert_with(|| Candle::of(start, tick, at));
            self.changed.insert((index, start));
        }
        let late = minute < self.newest_ms.div_euclid(MINUTE_MS).saturating_mul(MINUTE_MS);
        self.newest_ms = self.newest_ms.max(tick.ts_ms);
        self.clock_ms = self.clock_ms.max(tick.ts_ms);
        if late { Added::Late } else { Added::Counted }
    }

    fn is_forgotten(&self, minute: i64) -> bool {
        let Some(life) = self.life.minute_ms else { return false };
        minute.saturating_add(MINUTE_MS).saturating_add(life) <= self.clock_ms
    }

    /// Lets time pass: marks candles final and forgets what is over. The candles that changed
    /// since the last call are answered, each whole, oldest first within its timeframe. With
    /// no life (files) nothing becomes final or is forgotten.
    pub fn tick_over(&mut self, now_ms: i64) -> Vec<(Timeframe, Candle)> {
        if let Some(life) = self.life.minute_ms {
            self.clock_ms = self.clock_ms.max(now_ms);
            let now_ms = self.clock_ms;
            let grace = self.life.grace_ms;
            for (index, (frame, candles)) in self.frames.iter_mut().enumerate() {
                for candle in candles.values_mut().filter(|candle| !candle.is_final) {
                    let end =
                        frame.period(candle.start_ms, self.day_start.as_ref()).map_or(i64::MAX, |period| period.1);
                    if end.saturating_add(grace) <= now_ms {
                        candle.is_final = true;
                        self.changed.insert((index, candle.start_ms));
                    }
                }
            }
            let minute = now_ms.div_euclid(MINUTE_MS).saturating_mul(MINUTE_MS);
            let horizon = minute.saturating_sub(life).saturating_sub(MINUTE_MS);
            self.seen.retain(|minute, _| *minute >= horizon);
        }
        let changed: Vec<_> = std::mem::take(&mut self.changed)
            .into_iter()
            .filter_map(|(index, start)| {
                let (frame, candles) = &self.frames[index];
                Some((*frame, candles.get(&start)?.clone()))
            })
            .collect();
        self.forget();
        changed
    }

    fn forget(&mut self) {
        let Some(life) = self.life.minute_ms else { return };
        let now_ms = self.clock_ms;
        for (frame, candles) in &mut self.frames {
            let day_start = self.day_start.as_ref();
            candles.retain(|start, _| {
                let end = frame.period(*start, day_start).map_or(i64::MAX, |period| period.1);
                end.saturating_add(life).saturating_add(MINUTE_MS) > now_ms
            });
        }
    }

    /// The candles that are remembered, by timeframe and start.
    pub fn iter(&self) -> impl Iterator<Item = (Timeframe, &Candle)> {
        self.frames.iter().flat_map(|(frame, candles)| candles.values().map(|candle| (*frame, candle)))
    }

    /// How many numbers' ranges and candles are remembered: what memory is spent on.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let seen: usize = self.seen.values().map(Seen::ranges).sum();
        seen + self.frames.iter().map(|(_, candles)| candles.len()).sum::<usize>()
    }
}
