//! The simple moving average.

/// The mean of the last `period` values at each place; `None` for the first `period` − 1.
///
/// The running sum is compensated (Neumaier), so that after a million steps it still equals
/// the plain formula to the last digits, even when prices change by orders of magnitude.
#[must_use]
pub fn sma(values: &[f64], period: usize) -> Vec<Option<f64>> {
    let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
    let mut add = |value: f64| {
        let next = sum + value;
        lost += if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
        sum + lost
    };
    let mut means = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let mut total = add(*value);
        if index >= period {
            total = add(-values[index - period]);
        }
        means.push((period > 0 && index + 1 >= period).then(|| total / period as f64));
    }
    means
}

#[cfg(test)]
mod tests {
    use super::sma;

    #[track_caller]
    fn check(values: &[f64], period: usize) {
        for (index, found) in sma(values, period).into_iter().enumerate() {
            let expected =
                (index + 1 >= period).then(|| values[index + 1 - period..=index].iter().sum::<f64>() / period as f64);
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-12 * a.abs().max(1.0);
            let equal = found.is_some() == expected.is_some() && found.zip(expected).is_none_or(|(a, b)| near(a, b));
            assert!(equal, "period {period}, bar {index}: {found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn equals_the_plain_formula() {
        let candles = crate::csv::candles_from_csv(crate::GOOG_DAILY_CSV).expect("is in the crate");
        for period in [1, 2, 20, 50, 200, 1000] {
            check(&candles.c, period);
        }
        check(&[1.0, 2.0], 3);
        check(&[], 3);
    }

    #[test]
    fn a_spike_leaves_no_trace() {
        let mut values = vec![0.1; 100];
        values[10] = 1e15;
        let means = sma(&values, 5);
        let last = means.last().copied().flatten().expect("100 bars are enough");
        assert!((last - 0.1).abs() < 1e-12, "{last}");
    }
}
