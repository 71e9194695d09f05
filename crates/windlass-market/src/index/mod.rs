//! The open positions of one symbol, sorted by where they would trigger.
//!
//! A quote costs what it moves and closes: positions that it does not reach are not looked at.
//! Nothing here decides; a candidate is handed to [`Track`], so that the index can only ever
//! change how soon an answer is found.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::rules::{Fill, Gate, Levels, Quote, Side, Track};

/// A position in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its number in the tables.
    pub id: i64,
    /// The version of its row that the rules were read from.
    pub version: i64,
    /// R2: the place in its symbol's order from which on it may trigger. Quotes at or before it
    /// trigger and move nothing.
    pub armed: (i64, i64),
    /// Quotes numbered up to this are in its state already.
    pub seen: i64,
    /// Its state.
    pub track: Track,
}

/// A decision about one position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Its number in the tables.
    pub id: i64,
    /// The version of its row that was decided on.
    pub version: i64,
    /// The quote.
    pub quote: Quote,
    /// The moment that the time stop was compared with.
    pub now: i64,
    /// What is closed.
    pub fill: Fill,
    /// The effective stop that the quote was held against.
    pub stop: Option<i64>,
    /// Units left open after it.
    pub left: i64,
    /// What the quote was allowed to do.
    pub gate: Gate,
    /// The position as it was before the quote.
    pub before: Box<Track>,
}

/// A quote with the moment and the gate it is taken in under.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// The quote.
    pub quote: Quote,
    /// Compared with time stops.
    pub now: i64,
    /// What it may close.
    pub gate: Gate,
}

/// Levels of one side as `y`, each with the position's slot.
#[derive(Debug, Default)]
struct Ladder {
    stops: BTreeSet<(i64, u32)>,
    targets: BTreeSet<(i64, u32)>,
    moves: BTreeSet<(i64, u32)>,
}

/// Which way to the next trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Near {
    /// The position.
    pub id: i64,
    /// The level it waits at.
    pub level: i64,
    /// Points from the closing price to the level.
    pub distance: i64,
    /// True for its stop, false for its target.
    pub is_stop: bool,
}

/// The open positions of one symbol.
#[derive(Debug)]
pub struct Book {
    slots: Vec<Option<Held>>,
    free: Vec<u32>,
    by_id: HashMap<i64, u32>,
    ladders: [Ladder; 2],
    expires: BTreeSet<(i64, u32)>,
    /// How many quotes in a row must reach a level, 1–3.
    confirm: u8,
    /// Positions whose stop or extreme moved since that was last asked.
    moved: HashSet<i64>,
    /// Quotes taken in so far.
    taken: u64,
    /// Of positions whose level was reached and not yet confirmed: by the last quote, how often.
    pending: HashMap<u32, (u64, u8)>,
}

impl Default for Book {
    fn default() -> Self {
        Self::new(1)
    }
}

const fn place(side: Side) -> usize {
    match side {
        Side::Long => 0,
        Side::Short => 1,
    }
}

impl Book {
    /// An empty one. A level must be reached by `confirm` quotes in a row (1–3).
    #[must_use]
    pub fn new(confirm: u8) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            ladders: Default::default(),
            expires: BTreeSet::new(),
            confirm: confirm.clamp(1, 3),
            moved: HashSet::new(),
            taken: 0,
            pending: HashMap::new(),
        }
    }

    /// Takes many positions at once: quicker than one by one, and without spare room. One that
    /// is there already is replaced.
    pub fn load(&mut self, all: Vec<Held>) {
        if !self.by_id.is_empty() {
            for held in all {
                self.put(held);
            }
            return;
        }
        let mut ladders: [[Vec<(i64, u32)>; 3]; 2] = Default::default();
        let mut expires = Vec::new();
        self.by_id.reserve(all.len());
        self.slots.reserve_exact(all.len());
        for held in all {
            let slot = slot_number(self.slots.len());
            if self.by_id.insert(held.id, slot).is_some() {
                continue; // the first of equal ids stands
            }
            let levels = held.track.levels();
            let [stops, targets, moves] = &mut ladders[place(held.track.side())];
            stops.extend(levels.stop.map(|level| (level, slot)));
            targets.extend(levels.target.map(|level| (level, slot)));
            moves.extend(levels.moves.map(|level| (level, slot)));
            expires.extend(levels.expires_at.map(|at| (at, slot)));
            self.slots.push(Some(held));
        }
        for (ladder, [stops, targets, moves]) in self.ladders.iter_mut().zip(ladders) {
            ladder.stops = stops.into_iter().collect();
            ladder.targets = targets.into_iter().collect();
            ladder.moves = moves.into_iter().collect();
        }
        self.expires = expires.into_iter().collect();
    }

    /// Takes a position, in place of what was known of it.
    pub fn put(&mut self, held: Held) {
        self.remove(held.id);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            slot_number(self.slots.len() - 1)
        });
        self.by_id.insert(held.id, slot);
        self.enter(slot, held.track.side(), held.track.levels());
        self.slots[slot as usize] = Some(held);
    }

    /// Forgets a position.
    pub fn remove(&mut self, id: i64) -> Option<Held> {
        let slot = self.by_id.remove(&id)?;
        let held = self.slots[slot as usize].take()?;
        self.leave(slot, held.track.side(), held.track.levels());
        self.pending.remove(&slot);
        self.free.push(slot);
        Some(held)
    }

    /// The positions whose stop or extreme moved since the last call.
    pub fn take_moved(&mut self) -> Vec<i64> {
        self.moved.drain().collect()
    }

    /// Counts a position's stop as moved.
    pub fn mark_moved(&mut self, id: i64) {
        self.moved.insert(id);
    }

    /// Notes the version that a position's row has now.
    pub fn set_version(&mut self, id: i64, version: i64) {
        let slot = self.by_id.get(&id);
        if let Some(held) = slot.and_then(|slot| self.slots[*slot as usize].as_mut()) {
            held.version = version;
        }
    }

    /// What is known of a position.
    #[must_use]
    pub fn get(&self, id: i64) -> Option<&Held> {
        self.slots[*self.by_id.get(&id)? as usize].as_ref()
    }

    /// Every position, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Held> {
        self.slots.iter().flatten()
    }

    /// How many positions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn enter(&mut self, slot: u32, side: Side, levels: Levels) {
        let ladder = &mut self.ladders[place(side)];
        ladder.stops.extend(levels.stop.map(|level| (level, slot)));
        ladder.targets.extend(levels.target.map(|level| (level, slot)));
        ladder.moves.extend(levels.moves.map(|level| (level, slot)));
        self.expires.extend(levels.expires_at.map(|at| (at, slot)));
    }

    fn leave(&mut self, slot: u32, side: Side, levels: Levels) {
        let ladder = &mut self.ladders[place(side)];
        levels.stop.map(|level| ladder.stops.remove(&(level, slot)));
        levels.target.map(|level| ladder.targets.remove(&(level, slot)));
        levels.moves.map(|level| ladder.moves.remove(&(level, slot)));
        levels.expires_at.map(|at| self.expires.remove(&(at, slot)));
    }

    /// Takes one quote in. Decisions come by position's number; a position that is closed whole
    /// leaves the index, one of which a leg is closed stays.
    pub fn on_quote(&mut self, step: &Step) -> Vec<Decision> {
        self.sweep(std::slice::from_ref(step))
    }

    /// Takes a run of quotes in, in their order: the same decisions as one by one, ordered by
    /// quote and position. Looks only at positions which the run's extremes reach.
    pub fn sweep(&mut self, steps: &[Step]) -> Vec<Decision> {
        let mut decisions: Vec<(usize, Decision)> = Vec::new();
        for slot in self.candidates(steps) {
            let Some(held) = &mut self.slots[slot as usize] else { continue };
            let (side, before) = (held.track.side(), held.track.levels());
            let rested = (held.track.stop(), held.track.extreme());
            let mut run = Run { confirm: self.confirm, taken: self.taken, pending: self.pending.remove(&slot) };
            run.over(held, steps, &mut decisions);
            if let Some(pending) = run.pending {
                self.pending.insert(slot, pending);
            }
            let (id, closed, after) = (held.id, held.track.open_qty() == 0, held.track.levels());
            if !closed && rested != (held.track.stop(), held.track.extreme()) {
                self.moved.insert(id);
            }
            if closed || before != after {
                self.leave(slot, side, before);
                if closed {
                    self.by_id.remove(&id);
                    self.slots[slot as usize] = None;
                    self.free.push(slot);
                    self.pending.remove(&slot);
                } else {
                    self.enter(slot, side, after);
                }
            }
        }
        self.taken += steps.len() as u64;
        decisions.sort_by_key(|(at, decision)| (*at, decision.id));
        decisions.into_iter().map(|(_, decision)| decision).collect()
    }

    /// The positions that some quote of the run reaches.
    fn candidates(&self, steps: &[Step]) -> Vec<u32> {
        let mut slots: Vec<u32> = Vec::new();
        for side in [Side::Long, Side::Short] {
            let ladder = &self.ladders[place(side)];
            let ys = |wanted: fn(&Gate) -> bool| {
                steps
                    .iter()
                    .filter(move |step| wanted(&step.gate))
                    .map(move |step| side.y(step.quote.closing_price(side)))
            };
            if let Some(lowest) = ys(|gate| gate.stops).min() {
                slots.extend(ladder.stops.range((lowest, 0)..).map(|(_, slot)| slot));
            }
            if let Some(highest) = ys(|gate| gate.targets).max() {
                slots.extend(ladder.targets.range(..=(highest, u32::MAX)).map(|(_, slot)| slot));
            }
            if let Some(highest) = ys(|_| true).max() {
                slots.extend(ladder.moves.range(..=(highest, u32::MAX)).map(|(_, slot)| slot));
            }
        }
        if let Some(now) = steps.iter().filter(|step| step.gate.targets).map(|step| step.now).max() {
            slots.extend(self.expires.range(..=(now, u32::MAX)).map(|(_, slot)| slot));
        }
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// The positions nearest to a trigger at these prices, nearest first.
    #[must_use]
    pub fn nearest(&self, bid: i64, ask: i64, limit: usize) -> Vec<Near> {
        let mut near = Vec::new();
        for side in [Side::Long, Side::Short] {
            let y = side.y(if side == Side::Long { bid } else { ask });
            let ladder = &self.ladders[place(side)];
            let mut take = |&(level, slot): &(i64, u32), is_stop| {
                if let Some(held) = &self.slots[slot as usize] {
                    let distance = if is_stop { y.saturating_sub(level) } else { level.saturating_sub(y) };
                    near.push(Near { id: held.id, level: side.y(level), distance, is_stop });
                }
            };
            ladder.stops.iter().rev().take(limit).for_each(|entry| take(entry, true));
            ladder.targets.iter().take(limit).for_each(|entry| take(entry, false));
        }
        near.sort_by_key(|near| (near.distance, near.id));
        near.truncate(limit);
        near
    }
}

/// One position led over a run of quotes.
struct Run {
    confirm: u8,
    taken: u64,
    pending: Option<(u64, u8)>,
}

impl Run {
    fn over(&mut self, held: &mut Held, steps: &[Step], decisions: &mut Vec<(usize, Decision)>) {
        for (at, step) in steps.iter().enumerate() {
            if step.quote.place() <= held.armed || step.quote.seq <= held.seen {
                continue;
            }
            let gate = self.confirmed(held, step, self.taken + at as u64);
            if !held.track.reached(&step.quote, step.now, gate) {
                held.track.on_quote(&step.quote, step.now, gate);
                continue;
            }
            let before = Box::new(held.track.clone());
            let stop = held.track.stop().map(|(stop, _)| stop);
            for fill in held.track.on_quote(&step.quote, step.now, gate) {
                let decision = Decision {
                    id: held.id,
                    version: held.version,
                    quote: step.quote,
                    now: step.now,
                    fill,
                    stop,
                    left: held.track.open_qty(),
                    gate,
                    before: before.clone(),
                };
                decisions.push((at, decision));
            }
            if held.track.open_qty() == 0 {
                self.pending = None;
                return;
            }
        }
    }

    /// The gate of this quote, closed while the level it reaches waits to be confirmed.
    fn confirmed(&mut self, held: &Held, step: &Step, number: u64) -> Gate {
        if self.confirm == 1 || !held.track.reached(&step.quote, step.now, step.gate) {
            return step.gate;
        }
        let count = match self.pending {
            Some((last, count)) if last + 1 == number => count + 1,
            _ => 1,
        };
        self.pending = Some((number, count));
        if count >= self.confirm { step.gate } else { Gate { stops: false, targets: false, ..step.gate } }
    }
}

fn slot_number(index: usize) -> u32 {
    u32::try_from(index).expect("a book holds fewer than 2^32 positions: their ids alone would fill 32 GiB")
}
