//! One position as quotes go by: what it has reached, and what that means.

use super::{Distance, Leg, Quote, Reason, Rules, Side};

/// What a quote may do. A guard may let stops wait while targets go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// Stops may close.
    pub stops: bool,
    /// Targets and the time stop may close.
    pub targets: bool,
    /// Targets fill at their level instead of the quote's price.
    pub target_at_level: bool,
}

impl Gate {
    /// Everything may close, at the quote's price.
    pub const OPEN: Self = Self { stops: true, targets: true, target_at_level: false };
}

/// A decision: this much of the position is closed at this price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// 0 for all that is left, 1–5 for a leg.
    pub leg: u8,
    /// Units closed.
    pub qty: i64,
    /// Why.
    pub reason: Reason,
    /// The level that was reached; `None` for the time stop.
    pub level: Option<i64>,
    /// The price it closes at.
    pub price: i64,
    /// A bar reached the stop and the target, and which came first is not known.
    pub ambiguous: bool,
}

/// Where a position waits, seen from its side (`y`): what an index sorts it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels {
    /// Reached when `y` is at or below it.
    pub stop: Option<i64>,
    /// The nearest target, reached when `y` is at or above it.
    pub target: Option<i64>,
    /// The next `y` at or above which break-even or trailing changes something.
    pub moves: Option<i64>,
    /// The first moment of the time stop.
    pub expires_at: Option<i64>,
}

/// One position under its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    rules: Rules,
    open_qty: i64,
    /// Most favourable price that moved something, as `y`. What lies between it and the true
    /// extreme has no effect, by the meaning of [`Levels::moves`].
    extreme: Option<i64>,
    /// The effective stop, as `y`.
    stop: Option<i64>,
    source: Reason,
    trail_armed: bool,
    even_done: bool,
    /// Bit n: leg n is closed.
    legs_done: u8,
}

impl Track {
    /// A position that no quote has been seen for.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let stop = rules.sl.map(|sl| rules.side.y(sl));
        let trail_armed = rules.trail.is_some_and(|trail| trail.activation.is_none());
        let open_qty = rules.qty;
        Self { rules, open_qty, extreme: None, stop, source: Reason::Sl, trail_armed, even_done: false, legs_done: 0 }
    }

    /// Takes up what is remembered of a position: the most favourable price it had, the stop
    /// and what moved it, what is open and which legs are closed. A remembered stop never
    /// loosens the one of the rules.
    #[must_use]
    pub fn resume(
        rules: Rules,
        open_qty: i64,
        legs_done: u8,
        extreme: Option<i64>,
        stop: Option<(i64, Reason)>,
    ) -> Self {
        let mut track = Self::new(rules);
        track.open_qty = open_qty;
        track.legs_done = legs_done;
        let side = track.side();
        let Some(extreme) = extreme.map(|price| side.y(price)) else { return track };
        let Some((price, source)) = stop else {
            // The rules were changed since: what follows from the extreme is worked out anew.
            track.observe(extreme);
            return track;
        };
        // With a step the stop depends on the way prices took, so it is taken as it was.
        track.extreme = Some(extreme);
        track.even_done = track.even_reached(extreme);
        track.trail_armed |= track.trail_reached(extreme);
        if track.stop.is_none_or(|stop| side.y(price) > stop) {
            track.stop = Some(side.y(price));
            track.source = source;
        }
        track
    }

    /// Its rules.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Which way it earns.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.rules.side
    }

    /// Units not yet closed; 0 once it is closed.
    #[must_use]
    pub const fn open_qty(&self) -> i64 {
        self.open_qty
    }

    /// The effective stop (R3) and what moved it last.
    #[must_use]
    pub fn stop(&self) -> Option<(i64, Reason)> {
        self.stop.map(|stop| (self.side().y(stop), self.source))
    }

    /// The most favourable price that moved something.
    #[must_use]
    pub fn extreme(&self) -> Option<i64> {
        self.extreme.map(|y| self.side().y(y))
    }

    /// Bit n is set when leg n is closed.
    #[must_use]
    pub const fn legs_done(&self) -> u8 {
        self.legs_done
    }

    /// R2: the quote it opened on closes nothing, but its price counts as the first extreme.
    pub fn open_on(&mut self, quote: &Quote) {
        self.observe(self.side().y(quote.closing_price(self.side())));
    }

    /// True when a stop or target that the gate lets through is reached, or the time is over.
    #[must_use]
    pub fn reached(&self, quote: &Quote, now: i64, gate: Gate) -> bool {
        let y = self.side().y(quote.closing_price(self.side()));
        let levels = self.levels();
        (gate.stops && levels.stop.is_some_and(|stop| y <= stop))
            || (gate.targets
                && (levels.target.is_some_and(|target| y >= target) || levels.expires_at.is_some_and(|at| now >= at)))
    }

    /// R6: takes a quote in. `now` is the moment the time stop is compared with. Answers what
    /// is closed, in the order in which it is; nothing for most quotes and once it is closed.
    pub fn on_quote(&mut self, quote: &Quote, now: i64, gate: Gate) -> Vec<Fill> {
        let price = quote.closing_price(self.side());
        let y = self.side().y(price);
        let mut fills = Vec::new();
        if self.open_qty == 0 {
            return fills;
        }
        if gate.stops
            && let Some(stop) = self.stop.filter(|stop| y <= *stop)
        {
            let level = self.side().y(stop);
            let at = if self.rules.guaranteed { level } else { price };
            fills.push(self.close_rest(self.source, Some(level), at));
            return fills;
        }
        if gate.targets {
            let price_of = |level| if gate.target_at_level { level } else { price };
            self.close_targets(y, price_of, &mut fills);
            if self.open_qty > 0 && self.rules.expires_at.is_some_and(|at| now >= at) {
                fills.push(self.close_rest(Reason::Time, None, price));
            }
        }
        if self.open_qty > 0 {
            self.observe(y);
        }
        fills
    }

    /// Closes all that is left.
    pub(super) fn close_rest(&mut self, reason: Reason, level: Option<i64>, price: i64) -> Fill {
        let qty = std::mem::take(&mut self.open_qty);
        Fill { leg: 0, qty, reason, level, price, ambiguous: false }
    }

    /// Closes the legs, then the rest, whose targets `y` has reached.
    pub(super) fn close_targets(&mut self, y: i64, price_of: impl Fn(i64) -> i64, fills: &mut Vec<Fill>) {
        while let Some(leg) = self.next_leg().filter(|leg| y >= self.side().y(leg.price)) {
            self.legs_done |= 1 << leg.leg;
            let qty = leg.qty.min(self.open_qty);
            self.open_qty -= qty;
            let price = price_of(leg.price);
            fills.push(Fill { leg: leg.leg, qty, reason: Reason::Tp, level: Some(leg.price), price, ambiguous: false });
        }
        if self.open_qty > 0
            && let Some(tp) = self.rules.tp.filter(|tp| y >= self.side().y(*tp))
        {
            fills.push(self.close_rest(Reason::Tp, Some(tp), price_of(tp)));
        }
    }

    /// The open leg whose target is nearest; of equal ones the lower number.
    fn next_leg(&self) -> Option<Leg> {
        if self.open_qty == 0 {
            return None;
        }
        let open = self.rules.legs.iter().filter(|leg| self.legs_done & (1 << leg.leg) == 0);
        open.min_by_key(|leg| (self.side().y(leg.price), leg.leg)).copied()
    }

    pub(super) fn stop_y(&self) -> Option<i64> {
        self.stop
    }

    pub(super) fn source(&self) -> Reason {
        self.source
    }

    /// The nearest target as `y`.
    pub(super) fn target_y(&self) -> Option<i64> {
        let leg = self.next_leg().map(|leg| self.side().y(leg.price));
        let rest = self.rules.tp.map(|tp| self.side().y(tp));
        [leg, rest].into_iter().flatten().min()
    }

    /// Break-even, then trailing, after a price that closed nothing.
    pub(super) fn observe(&mut self, y: i64) {
        if self.extreme.is_some_and(|extreme| y <= extreme) {
            return;
        }
        self.extreme = Some(y);
        if !self.even_done
            && self.even_reached(y)
            && let Some(even) = self.rules.break_even
        {
            self.even_done = true;
            let stop = i128::from(self.side().y(self.rules.entry)) + i128::from(even.offset);
            self.tighten(stop, 1, Reason::Be);
        }
        let Some(trail) = self.rules.trail else { return };
        self.trail_armed |= self.trail_reached(y);
        if self.trail_armed {
            let stop = match trail.distance {
                Distance::Points(points) => i128::from(y) - i128::from(points),
                Distance::Bps(bps) => (i128::from(y) * self.kept_of_10_000(bps)).div_euclid(10_000),
            };
            self.tighten(stop, trail.step, Reason::Trail);
        }
    }

    /// True when an extreme lies as far in profit as break-even asks for.
    fn even_reached(&self, y: i64) -> bool {
        let profit = i128::from(y) - i128::from(self.side().y(self.rules.entry));
        self.rules.break_even.is_some_and(|even| profit >= i128::from(even.trigger))
    }

    /// True when an extreme lies at or beyond the price that arms trailing.
    fn trail_reached(&self, y: i64) -> bool {
        let activation = self.rules.trail.and_then(|trail| trail.activation);
        activation.is_some_and(|price| y >= self.side().y(price))
    }

    /// What of the extreme is left behind by a distance in bps, in ten-thousandths.
    fn kept_of_10_000(&self, bps: i64) -> i128 {
        10_000 - i128::from(self.side().sign()) * i128::from(bps)
    }

    /// Moves the stop when it gets better by at least `step`. A stop outside of i64 is none: no
    /// price reaches it.
    fn tighten(&mut self, stop: i128, step: i64, source: Reason) {
        let better = self.stop.is_none_or(|old| stop - i128::from(old) >= i128::from(step));
        if let Some(stop) = i64::try_from(stop).ok().filter(|_| better) {
            self.stop = Some(stop);
            self.source = source;
        }
    }

    /// Where it waits.
    #[must_use]
    pub fn levels(&self) -> Levels {
        Levels { stop: self.stop, target: self.target_y(), moves: self.next_move(), expires_at: self.rules.expires_at }
    }

    /// The least `y` above the extreme at which [`Track::observe`] would change more than the
    /// extreme.
    fn next_move(&self) -> Option<i64> {
        let even = self
            .rules
            .break_even
            .filter(|_| !self.even_done)
            .map(|even| i128::from(self.side().y(self.rules.entry)) + i128::from(even.trigger));
        let trail = self.rules.trail.and_then(|trail| {
            let improves = self.trail_moves_at(trail.distance, trail.step);
            match trail.activation.filter(|_| !self.trail_armed) {
                // Arming must be seen even when it does not move the stop: it stays armed.
                Some(price) => Some(i128::from(self.side().y(price))),
                None => improves,
            }
        });
        let next = [even, trail].into_iter().flatten().min()?;
        let next = match self.extreme {
            // Nothing that the extreme has passed already is waited for.
            Some(extreme) => next.max(i128::from(extreme) + 1),
            None => next,
        };
        // Below i64 any price does; above it none does.
        if next < i128::from(i64::MIN) { Some(i64::MIN) } else { i64::try_from(next).ok() }
    }

    /// The least `y` from which trailing tightens the stop; `None` inside for "any".
    fn trail_moves_at(&self, distance: Distance, step: i64) -> Option<i128> {
        let Some(stop) = self.stop else { return Some(i128::from(i64::MIN)) };
        let wanted = i128::from(stop) + i128::from(step);
        Some(match distance {
            Distance::Points(points) => wanted + i128::from(points),
            Distance::Bps(bps) => {
                let kept = self.kept_of_10_000(bps);
                if kept <= 0 {
                    return None;
                }
                // Rounded up: floor(y × kept / 10,000) ≥ wanted exactly from here on.
                -((-wanted * 10_000).div_euclid(kept))
            }
        })
    }
}
