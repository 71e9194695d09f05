//! R8: the rules on bars instead of quotes, for back-tests.

use super::{Fill, Reason, Side, Track};

/// A bar of bid prices, in points; the ask lies `spread` above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Start, milliseconds since 1970 UTC.
    pub ts_ms: i64,
    /// First bid.
    pub o: i64,
    /// Highest bid.
    pub h: i64,
    /// Lowest bid.
    pub l: i64,
    /// Last bid.
    pub c: i64,
    /// Ask minus bid, 0 or more.
    pub spread: i64,
}

impl Bar {
    /// True when it can be: prices above 0, low ≤ open, close ≤ high, the ask within i64.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.l > 0
            && self.l <= self.o.min(self.c)
            && self.h >= self.o.max(self.c)
            && self.spread >= 0
            && self.h.checked_add(self.spread).is_some()
    }

    /// Open, worst and best price at which a side could have closed, as `y`.
    fn seen_from(&self, side: Side) -> (i64, i64, i64) {
        let ask = |bid: i64| bid.saturating_add(self.spread);
        match side {
            Side::Long => (self.o, self.l, self.h),
            Side::Short => (side.y(ask(self.o)), side.y(ask(self.h)), side.y(ask(self.l))),
        }
    }
}

impl Track {
    /// Takes a bar in. `opens_here` is true for the bar on whose open the position opened: its
    /// open then closes nothing, the rest of it may. `now` is compared with the time stop.
    pub fn on_bar(&mut self, bar: &Bar, now: i64, opens_here: bool) -> Vec<Fill> {
        let side = self.side();
        let (open, worst, best) = bar.seen_from(side);
        let mut fills = Vec::new();
        if self.open_qty() == 0 {
            return fills;
        }
        if !opens_here {
            let at_open = side.y(open);
            if let Some(stop) = self.stop_y().filter(|stop| open <= *stop) {
                let level = side.y(stop);
                let at = if self.rules().guaranteed { level } else { at_open };
                fills.push(self.close_rest(self.source(), Some(level), at));
                return fills;
            }
            self.close_targets(open, |_| at_open, &mut fills);
            if self.open_qty() > 0 && self.rules().expires_at.is_some_and(|at| now >= at) {
                fills.push(self.close_rest(Reason::Time, None, at_open));
            }
            if self.open_qty() == 0 {
                return fills;
            }
        }
        if let Some(stop) = self.stop_y().filter(|stop| worst <= *stop) {
            let level = side.y(stop);
            let both = self.target_y().is_some_and(|target| best >= target);
            let fill = self.close_rest(self.source(), Some(level), level);
            fills.push(Fill { ambiguous: both, ..fill });
            return fills;
        }
        self.close_targets(best, |level| level, &mut fills);
        if self.open_qty() > 0 {
            self.observe(best);
        }
        fills
    }
}
