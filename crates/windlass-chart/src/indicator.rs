//! Technical indicators over whole columns of bars.
//!
//! All but the simple average and the volume-weighted one are TA-Lib's own functions, so
//! seeds, smoothing and first rows are its conventions. A value is `None` before there are
//! bars enough, and where it would not be a finite number. Columns must be of equal length.

use std::sync::LazyLock;

use ta_lib::{Core, MAType, OutRange, RetCode};

use crate::args::Candles;

/// One value for each bar, where there is one.
pub type Series = Vec<Option<f64>>;

static CORE: LazyLock<Core> = LazyLock::new(Core::new);

/// A period as TA-Lib takes it; larger ones are refused with the args.
fn period(bars: u32) -> i32 {
    i32::try_from(bars).unwrap_or(i32::MAX)
}

/// Calls a function of TA-Lib over `bars` bars with `N` columns for its values. A call that
/// fails has no values: the args' check leaves only series that are too short.
fn columns<const N: usize>(
    bars: usize,
    call: impl FnOnce(&Core, usize, [&mut [f64]; N]) -> Result<OutRange, RetCode>,
) -> [Series; N] {
    if bars == 0 {
        return std::array::from_fn(|_| Vec::new());
    }
    let mut out: [Vec<f64>; N] = std::array::from_fn(|_| vec![0.0; bars]);
    let range = call(&CORE, bars - 1, out.each_mut().map(Vec::as_mut_slice)).unwrap_or(OutRange::EMPTY);
    out.map(|values| {
        let mut series = vec![None; bars];
        let written = series.iter_mut().skip(range.beg_idx).take(range.count);
        written.zip(values).for_each(|(place, value)| *place = value.is_finite().then_some(value));
        series
    })
}

fn column(bars: usize, call: impl FnOnce(&Core, usize, &mut [f64]) -> Result<OutRange, RetCode>) -> Series {
    let [series] = columns(bars, |core, end, [out]| call(core, end, out));
    series
}

/// The mean of the last `period` values at each place; `None` for the first `period` − 1.
///
/// The running sum is compensated (Neumaier), so that after a million steps it still equals
/// the plain formula to the last digits, even when prices change by orders of magnitude.
#[must_use]
pub fn sma(values: &[f64], period: usize) -> Series {
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

/// The exponential average, seeded with the mean of the first `bars`.
#[must_use]
pub fn ema(values: &[f64], bars: u32) -> Series {
    column(values.len(), |core, end, out| core.ema(0, end, values, period(bars), out))
}

/// The average with weights 1 to `bars`.
#[must_use]
pub fn wma(values: &[f64], bars: u32) -> Series {
    column(values.len(), |core, end, out| core.wma(0, end, values, period(bars), out))
}

/// Upper band, middle and lower band; population deviation.
#[must_use]
pub fn bbands(values: &[f64], bars: u32, k: f64) -> [Series; 3] {
    columns(values.len(), |core, end, [upper, middle, lower]| {
        core.bbands(0, end, values, period(bars), k, k, MAType::SMA, upper, middle, lower)
    })
}

/// The mean of typical prices weighted by volume since the last bar for which `starts` holds.
/// A stretch without any volume has the plain mean of its typical prices.
#[must_use]
pub fn vwap(candles: &Candles, starts: impl Fn(usize) -> bool) -> Series {
    let Some(volumes) = &candles.v else { return vec![None; candles.c.len()] };
    let (mut traded, mut weight, mut plain, mut bars) = (0.0, 0.0, 0.0, 0.0);
    let value = |bar: usize| {
        let typical = (candles.h[bar] + candles.l[bar] + candles.c[bar]) / 3.0;
        if bar == 0 || starts(bar) {
            (traded, weight, plain, bars) = (0.0, 0.0, 0.0, 0.0);
        }
        traded += typical * volumes[bar];
        weight += volumes[bar];
        plain += typical;
        bars += 1.0;
        Some(if weight > 0.0 { traded / weight } else { plain / bars }).filter(|value| value.is_finite())
    };
    (0..candles.c.len()).map(value).collect()
}

/// Conversion line, base line and the cloud's two edges, none of them shifted yet.
#[must_use]
pub fn ichimoku(candles: &Candles, tenkan: u32, kijun: u32, senkou: u32) -> [Series; 4] {
    let (high, low) = (&candles.h, &candles.l);
    columns(high.len(), |core, end, [a, b, c, d]| {
        core.ichimoku(0, end, high, low, period(tenkan), period(kijun), period(senkou), a, b, c, d)
    })
}

/// The stop, and at each bar whether the price rises.
#[must_use]
pub fn supertrend(candles: &Candles, bars: u32, multiplier: f64) -> (Series, Vec<bool>) {
    let Candles { h, l, c, .. } = candles;
    let mut trend = vec![0; c.len().max(1)];
    let mut first = 0;
    let line = column(c.len(), |core, end, out| {
        let range = core.supertrend(0, end, h, l, c, period(bars), multiplier, out, &mut trend)?;
        first = range.beg_idx;
        Ok(range)
    });
    let rising = (0..c.len()).map(|bar| bar.checked_sub(first).is_some_and(|index| trend[index] > 0));
    (line, rising.collect())
}

/// The highest high, the middle and the lowest low.
#[must_use]
pub fn donchian(candles: &Candles, bars: u32) -> [Series; 3] {
    let (high, low) = (&candles.h, &candles.l);
    columns(high.len(), |core, end, [upper, middle, lower]| {
        core.donchian(0, end, high, low, period(bars), upper, middle, lower)
    })
}

/// The exponential average and `k` average true ranges around it: upper, middle, lower.
#[must_use]
pub fn keltner(candles: &Candles, bars: u32, atr_bars: u32, k: f64) -> [Series; 3] {
    let Candles { h, l, c, .. } = candles;
    columns(c.len(), |core, end, [upper, middle, lower]| {
        core.kc(0, end, h, l, c, period(bars), period(atr_bars), k, upper, middle, lower)
    })
}

/// Wilder's relative strength index, 0–100.
#[must_use]
pub fn rsi(values: &[f64], bars: u32) -> Series {
    column(values.len(), |core, end, out| core.rsi(0, end, values, period(bars), out))
}

/// The difference of the averages, its signal line, and the difference of those.
#[must_use]
pub fn macd(values: &[f64], fast: u32, slow: u32, signal: u32) -> [Series; 3] {
    columns(values.len(), |core, end, [line, average, histogram]| {
        core.macd(0, end, values, period(fast), period(slow), period(signal), line, average, histogram)
    })
}

/// Slow %K and %D, 0–100.
#[must_use]
pub fn stoch(candles: &Candles, k: u32, smooth: u32, d: u32) -> [Series; 2] {
    let Candles { h, l, c, .. } = candles;
    let sma = MAType::SMA;
    columns(c.len(), |core, end, [slow_k, slow_d]| {
        core.stoch(0, end, h, l, c, period(k), period(smooth), sma, period(d), sma, slow_k, slow_d)
    })
}

/// Wilder's average true range.
#[must_use]
pub fn atr(candles: &Candles, bars: u32) -> Series {
    let Candles { h, l, c, .. } = candles;
    column(c.len(), |core, end, out| core.atr(0, end, h, l, c, period(bars), out))
}

/// On-balance volume; it starts with the first volume.
#[must_use]
pub fn obv(candles: &Candles) -> Series {
    let Some(volumes) = &candles.v else { return vec![None; candles.c.len()] };
    column(candles.c.len(), |core, end, out| core.obv(0, end, &candles.c, volumes, out))
}

/// Wilder's average directional index, 0–100.
#[must_use]
pub fn adx(candles: &Candles, bars: u32) -> Series {
    let Candles { h, l, c, .. } = candles;
    column(c.len(), |core, end, out| core.adx(0, end, h, l, c, period(bars), out))
}

/// The commodity channel index.
#[must_use]
pub fn cci(candles: &Candles, bars: u32) -> Series {
    let Candles { h, l, c, .. } = candles;
    column(c.len(), |core, end, out| core.cci(0, end, h, l, c, period(bars), out))
}

/// The money flow index, 0–100.
#[must_use]
pub fn mfi(candles: &Candles, bars: u32) -> Series {
    let Candles { h, l, c, .. } = candles;
    let Some(volumes) = &candles.v else { return vec![None; c.len()] };
    column(c.len(), |core, end, out| core.mfi(0, end, h, l, c, volumes, period(bars), out))
}

/// Opens, highs, lows and closes of Heikin-Ashi bars; the real ones if there is nothing to
/// average.
#[must_use]
pub fn heikin_ashi(candles: &Candles) -> [Vec<f64>; 4] {
    let Candles { o, h, l, c, .. } = candles;
    let averaged: [Series; 4] = columns(c.len(), |core, end, [a, b, d, e]| core.ha(0, end, o, h, l, c, a, b, d, e));
    let real = [o, h, l, c];
    let mut index = 0;
    averaged.map(|series| {
        let fallback = real[index];
        index += 1;
        series.iter().zip(fallback.iter()).map(|(value, real)| value.unwrap_or(*real)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
