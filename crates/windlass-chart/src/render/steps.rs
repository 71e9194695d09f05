//! Where the labels of a value axis stand: whole multiples of 1, 2, 2.5 or 5 × 10^k.

/// The mantissas, in tenths, and the next decade's first.
const TENTHS: [i32; 5] = [10, 20, 25, 50, 100];
/// Beyond this an axis is not drawn more densely, whatever it is asked for.
const MAX_TICKS: usize = 200;
/// Decimals of any printed number.
pub(super) const MAX_DECIMALS: usize = 12;

/// The distance between two labels, exact in decimal: `tenths` × 10^(`exponent` − 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    tenths: i32,
    exponent: i32,
}

impl Step {
    /// The smallest step not below `raw`, which must be finite and positive.
    #[must_use]
    pub(super) fn at_least(raw: f64) -> Self {
        let mut exponent = raw.log10().floor() as i32;
        // log10 may err by one unit in the last place on either side of a power of ten.
        while (Self { tenths: 10, exponent }).value() > raw {
            exponent -= 1;
        }
        loop {
            let steps = TENTHS[..4].iter().map(|&tenths| Self { tenths, exponent });
            if let Some(step) = steps.into_iter().find(|step| step.value() >= raw) {
                return step;
            }
            exponent += 1;
        }
    }

    fn next(self) -> Self {
        match self.tenths {
            10 => Self { tenths: 20, ..self },
            20 => Self { tenths: 25, ..self },
            25 => Self { tenths: 50, ..self },
            _ => Self { tenths: 10, exponent: self.exponent + 1 },
        }
    }

    /// The step itself.
    #[must_use]
    pub(super) fn value(self) -> f64 {
        self.times(1.0)
    }

    /// `count` steps, rounded once only: 3 × 0.1 is the double nearest to 0.3.
    #[must_use]
    pub(super) fn times(self, count: f64) -> f64 {
        let (whole, power) = (count * f64::from(self.tenths), self.exponent - 1);
        if power >= 0 { whole * 10_f64.powi(power) } else { whole / 10_f64.powi(-power) }
    }

    /// Decimals needed to print every multiple.
    #[must_use]
    pub(super) fn decimals(self) -> usize {
        let trailing_zero = if self.tenths % 10 == 0 { 1 } else { 0 };
        usize::try_from(1 - self.exponent - trailing_zero).unwrap_or(0).min(MAX_DECIMALS)
    }
}

/// Labels at equal distances.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ticks {
    /// The values, rising.
    pub(super) values: Vec<f64>,
    /// Decimals needed to print each of them.
    pub(super) decimals: usize,
}

/// About `wanted` labels between `low` and `high`; with a `tick` they stand on whole ticks.
#[must_use]
pub(super) fn ticks(low: f64, high: f64, wanted: usize, tick: Option<f64>) -> Ticks {
    let raw = (high - low) / wanted.max(1) as f64;
    if !raw.is_finite() || raw <= 0.0 {
        return Ticks { values: Vec::new(), decimals: 0 };
    }
    let Some(tick) = tick else {
        let step = Step::at_least(raw);
        return between(low, high, |count| step.times(count), step.value(), step.decimals());
    };
    let whole = |step: &Step| {
        let ratio = step.value() / tick;
        ratio > 0.5 && (ratio - ratio.round()).abs() < 1e-9 * ratio
    };
    let steps = std::iter::successors(Some(Step::at_least(raw)), |step| Some(step.next()));
    let decimals = decimals_of(tick);
    // Twelve steps are three decades: a tick of 0.01 or 0.25 is met long before that.
    match steps.take(12).find(whole) {
        Some(step) if step.value() <= 8.0 * raw.max(tick) => {
            between(low, high, |count| step.times(count), step.value(), decimals)
        }
        _ => {
            let step = (raw / tick).ceil().max(1.0) * tick;
            between(low, high, |count| count * step, step, decimals)
        }
    }
}

fn between(low: f64, high: f64, value: impl Fn(f64) -> f64, step: f64, decimals: usize) -> Ticks {
    let first = (low / step).ceil();
    let counts = (0..MAX_TICKS).map(|index| first + index as f64);
    let values = counts.map(value).take_while(|value| *value <= high);
    Ticks { values: values.filter(|value| *value >= low).collect(), decimals }
}

/// The fewest decimals that print `value` exactly, at most [`MAX_DECIMALS`].
#[must_use]
pub(super) fn decimals_of(value: f64) -> usize {
    let exact = |decimals: &usize| {
        let scaled = value.abs() * 10_f64.powi(*decimals as i32);
        // One part in 10^11: looser than the error of a parsed decimal, finer than a price.
        (scaled - scaled.round()).abs() <= scaled.max(1e-3) * 1e-11
    };
    (0..MAX_DECIMALS).find(exact).unwrap_or(MAX_DECIMALS)
}

/// Decimals in which prices are printed when nobody says: as many as three of four of
/// `values` need, or, when those are not round at all, about four figures of their spread.
#[must_use]
pub(super) fn usual_decimals(values: &[f64], spread: f64) -> usize {
    const ROUND: usize = 8;
    let mut needed: Vec<usize> = values.iter().map(|value| decimals_of(*value)).collect();
    needed.sort_unstable();
    let usual = needed.get((needed.len() * 3 / 4).min(needed.len().saturating_sub(1))).copied().unwrap_or(0);
    if usual <= ROUND || spread <= 0.0 {
        return usual;
    }
    usize::try_from(3 - spread.log10().floor() as i32).unwrap_or(0).min(MAX_DECIMALS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(low: f64, high: f64, wanted: usize, tick: Option<f64>, expected: &[f64], decimals: usize) {
        let found = ticks(low, high, wanted, tick);
        assert_eq!(found, Ticks { values: expected.to_vec(), decimals });
    }

    #[test]
    fn steps_are_1_2_2_5_and_5() {
        check(0.0, 10.0, 10, None, &[0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10.], 0);
        check(0.0, 10.0, 6, None, &[0., 2., 4., 6., 8., 10.], 0);
        check(0.0, 10.0, 4, None, &[0., 2.5, 5., 7.5, 10.], 1);
        check(0.0, 10.0, 3, None, &[0., 5., 10.], 0);
        check(671.0, 838.0, 7, None, &[675., 700., 725., 750., 775., 800., 825.], 0);
        check(1.0487, 1.0512, 5, None, &[1.049, 1.0495, 1.05, 1.0505, 1.051], 4);
        check(0.1, 0.35, 5, None, &[0.1, 0.15, 0.2, 0.25, 0.3, 0.35], 2);
        check(-3.0, 3.0, 3, None, &[-2., 0., 2.], 0);
    }

    #[test]
    fn steps_reach_from_the_smallest_to_the_largest_price() {
        check(1e-8, 2e-8, 2, None, &[1e-8, 1.5e-8, 2e-8], 9);
        check(1e12, 1.002e12, 2, None, &[1e12, 1.001e12, 1.002e12], 0);
        check(5.0, 5.0, 4, None, &[], 0);
        check(0.0, f64::INFINITY, 4, None, &[], 0);
    }

    #[test]
    fn a_tick_size_sets_steps_and_decimals() {
        check(0.0, 1.0, 4, Some(0.01), &[0., 0.25, 0.5, 0.75, 1.], 2);
        check(0.0, 10.0, 4, Some(1.0), &[0., 5., 10.], 0);
        check(0.0, 1.0, 10, Some(0.25), &[0., 0.25, 0.5, 0.75, 1.], 2);
        check(0.0, 30.0, 4, Some(3.0), &[0., 9., 18., 27.], 0);
        check(0.0, 2.0, 10, Some(5.0), &[0.], 0);
    }

    #[test]
    fn decimals_follow_the_prices() {
        #[track_caller]
        fn check(values: &[f64], spread: f64, expected: usize) {
            assert_eq!(usual_decimals(values, spread), expected, "{values:?}");
        }
        check(&[797.8, 806.19, 801.5], 9.0, 2);
        check(&[1.05236, 1.05426], 0.002, 5);
        check(&[100.0, 101.0], 1.0, 0);
        check(&[1.0 / 3.0, 2.0 / 3.0], 0.3, 4);
        check(&[1e12 / 3.0, 2e12 / 3.0], 3e11, 0);
        check(&[1e-8, 3e-8], 2e-8, 8);
    }
}
