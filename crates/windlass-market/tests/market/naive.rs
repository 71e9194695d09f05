//! A naive oracle of R1–R9 per quote: no index, no shared arithmetic, both sides spelt out.

use windlass_market::rules::{Distance, Quote, Reason, Rules, Side};

/// One closing: index of the quote, leg, units, reason, fill, effective stop.
pub(crate) type Closed = (usize, u8, i64, Reason, i64, Option<i64>);

/// Leads a position, opened on quote `open`, over all quotes.
pub(crate) fn closings(
    rules: &Rules,
    open: usize,
    quotes: &[Quote],
    expires: Option<i64>,
) -> (Vec<Closed>, Option<i64>) {
    let is_long = rules.side == Side::Long;
    let mut closed = Vec::new();
    let mut stop: Option<i64> = rules.sl;
    let mut reason = Reason::Sl;
    let mut armed = false;
    let mut even = false;
    let mut best: Option<i64> = None;
    let mut left = rules.qty;
    let mut legs: Vec<_> = rules.legs.to_vec();
    // The order in which a rising (falling) price meets them.
    legs.sort_by_key(|leg| (if is_long { leg.price } else { -leg.price }, leg.leg));
    for (at, quote) in quotes.iter().enumerate().skip(open) {
        let px = if is_long { quote.bid } else { quote.ask };
        if at > open {
            let stopped = stop.is_some_and(|stop| if is_long { px <= stop } else { px >= stop });
            if stopped {
                let fill = if rules.guaranteed { stop.unwrap() } else { px };
                closed.push((at, 0, left, reason, fill, stop));
                return (closed, stop);
            }
            let hit = |level: i64| if is_long { px >= level } else { px <= level };
            while left > 0 && legs.first().is_some_and(|leg| hit(leg.price)) {
                let leg = legs.remove(0);
                left -= leg.qty;
                closed.push((at, leg.leg, leg.qty, Reason::Tp, px, stop));
            }
            if left > 0 && rules.tp.is_some_and(hit) {
                closed.push((at, 0, left, Reason::Tp, px, stop));
                left = 0;
            }
            if left > 0 && expires.is_some_and(|expires| at as i64 >= expires) {
                closed.push((at, 0, left, Reason::Time, px, stop));
                left = 0;
            }
            if left == 0 {
                return (closed, stop);
            }
        }
        best = Some(match best {
            None => px,
            Some(best) if is_long => best.max(px),
            Some(best) => best.min(px),
        });
        let extreme = best.unwrap();
        if let Some(rule) = rules.break_even
            && !even
        {
            let profit = if is_long { extreme - rules.entry } else { rules.entry - extreme };
            if profit >= rule.trigger {
                even = true;
                let level = if is_long { rules.entry + rule.offset } else { rules.entry - rule.offset };
                if stop.is_none_or(|stop| if is_long { level > stop } else { level < stop }) {
                    stop = Some(level);
                    reason = Reason::Be;
                }
            }
        }
        if let Some(trail) = rules.trail {
            armed |= trail.activation.is_none_or(|price| if is_long { extreme >= price } else { extreme <= price });
            if armed {
                let level = trailing(trail.distance, extreme, is_long);
                let better = |stop: i64| if is_long { level - stop } else { stop - level };
                if stop.is_none_or(|stop| better(stop) >= trail.step) {
                    stop = Some(level);
                    reason = Reason::Trail;
                }
            }
        }
    }
    (closed, stop)
}

/// R4: a long's stop is rounded down, a short's up.
fn trailing(distance: Distance, extreme: i64, is_long: bool) -> i64 {
    match (distance, is_long) {
        (Distance::Points(points), true) => extreme - points,
        (Distance::Points(points), false) => extreme + points,
        (Distance::Bps(bps), true) => extreme * (10_000 - bps) / 10_000,
        (Distance::Bps(bps), false) => (extreme * (10_000 + bps) + 9_999) / 10_000,
    }
}
