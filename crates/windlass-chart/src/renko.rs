//! Renko bricks: the price without time.
//!
//! A brick is made whenever the close has moved one brick's height beyond the last one in its
//! direction, or two against it. Bricks of one bar share its time; the volume since the last
//! brick goes to the next.

use crate::args::{Brick, Candles, ChartArgs};
use crate::indicator;

/// The most bricks of a chart.
pub const MAX_BRICKS: usize = 50_000;

/// Bricks, as bars whose bodies are whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Bricks {
    /// How high a brick is.
    pub height: f64,
    /// The bricks. The close of a rising one lies above its open.
    pub candles: Candles,
}

/// The bricks of args whose bars are right; `None` when they are more than [`MAX_BRICKS`].
#[must_use]
pub fn bricks(args: &ChartArgs) -> Option<Bricks> {
    let candles = &args.candles;
    let height = height(candles, args.renko.unwrap_or_default().brick);
    let volume = |bar: usize| candles.v.as_ref().map_or(0.0, |volumes| volumes[bar]);
    let first = candles.c.first().copied().unwrap_or_default();
    let (mut low, mut high) = (first, first);
    let mut made = Made::default();
    let mut traded = 0.0;
    for (bar, &close) in candles.c.iter().enumerate() {
        traded += volume(bar);
        while close >= high + height || close <= low - height {
            let rising = close >= high + height;
            let (open, end) = if rising { (high, high + height) } else { (low, low - height) };
            if made.t.len() >= MAX_BRICKS || open == end {
                return None;
            }
            made.push(candles.t[bar], open, end, std::mem::take(&mut traded));
            (low, high) = (open.min(end), open.max(end));
        }
    }
    if made.t.is_empty() {
        // No move of a whole brick: the price as it stands, flat.
        made.push(candles.t[candles.t.len().checked_sub(1)?], first, first, traded);
    }
    Some(Bricks { height, candles: made.candles(candles.v.is_some()) })
}

#[derive(Default)]
struct Made {
    t: Vec<f64>,
    o: Vec<f64>,
    c: Vec<f64>,
    v: Vec<f64>,
}

impl Made {
    fn push(&mut self, t: f64, open: f64, close: f64, volume: f64) {
        self.t.push(t);
        self.o.push(open);
        self.c.push(close);
        self.v.push(volume);
    }

    fn candles(self, with_volume: bool) -> Candles {
        let pairs = || self.o.iter().zip(&self.c);
        Candles {
            h: pairs().map(|(o, c)| o.max(*c)).collect(),
            l: pairs().map(|(o, c)| o.min(*c)).collect(),
            t: self.t.into(),
            o: self.o.into(),
            c: self.c.into(),
            v: with_volume.then(|| self.v.into()),
        }
    }
}

/// The height asked for. An average range of nothing gives way to 1 % of the price, and that
/// of a price of nothing to 1.
fn height(candles: &Candles, brick: Brick) -> f64 {
    let ranges = match brick {
        Brick::Fixed(height) => return height,
        Brick::Atr(bars) => indicator::atr(candles, bars),
    };
    let last = candles.c.last().copied().unwrap_or_default();
    let bars = candles.h.len().max(1) as f64;
    let mean = candles.h.iter().zip(candles.l.iter()).map(|(high, low)| high - low).sum::<f64>() / bars;
    let choices = [ranges.last().copied().flatten().unwrap_or(0.0), mean, last.abs() / 100.0, 1.0];
    // Below the precision of the price a brick would never end.
    choices.into_iter().find(|height| *height > last.abs() * 1e-12).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Renko;

    /// Opens and closes of the bricks of these closes.
    #[track_caller]
    fn check(closes: &[f64], expected: &[(f64, f64)]) {
        let column = |shift: f64| closes.iter().map(|c| c + shift).collect();
        let candles = Candles {
            t: (0..closes.len()).map(|bar| bar as f64).collect(),
            o: column(0.0),
            h: column(1.0),
            l: column(-1.0),
            c: column(0.0),
            v: Some(column(0.0)),
        };
        let mut args = ChartArgs::new("X", "1d".parse().expect("an interval"), candles);
        args.renko = Some(Renko { brick: Brick::Fixed(10.0) });
        let bricks = bricks(&args).expect("few bricks").candles;
        let found: Vec<_> = bricks.o.iter().copied().zip(bricks.c.iter().copied()).collect();
        assert_eq!(found, expected);
        let volume: f64 = bricks.v.iter().flat_map(|v| v.iter()).sum();
        assert!(volume <= closes.iter().sum::<f64>());
    }

    #[test]
    fn a_reversal_takes_two_bricks() {
        check(&[100.0, 109.0, 110.0, 119.0], &[(100.0, 110.0)]);
        check(&[100.0, 121.0, 105.0, 101.0, 100.0], &[(100.0, 110.0), (110.0, 120.0), (110.0, 100.0)]);
        check(&[100.0, 75.0, 89.0, 100.0], &[(100.0, 90.0), (90.0, 80.0), (90.0, 100.0)]);
        check(&[100.0, 105.0], &[(100.0, 100.0)]);
    }
}
