//! A panel's rows, and the values they stand for.

use super::format;
use super::steps::{self, Ticks};

/// How values are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spacing {
    Linear,
    Log,
}

/// Rows of the image and the values they stand for.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    pub(super) top: i32,
    pub(super) height: i32,
    /// The values at the middle of the lowest and the highest row, as they are spaced: their
    /// logarithms on a logarithmic scale.
    low: f64,
    high: f64,
    spacing: Spacing,
}

impl Scale {
    /// A scale on which `low` and `high` stand `below` and `above` rows inside the panel.
    pub(super) fn new(rows: (i32, i32), values: (f64, f64), blank: (i32, i32), spacing: Spacing) -> Self {
        let (top, height) = rows;
        let (below, above) = blank;
        let (low, high) = match spacing {
            Spacing::Linear => values,
            Spacing::Log => (values.0.ln(), values.1.ln()),
        };
        let inner = f64::from((height - 1 - below - above).max(1));
        // Halves first: the span of the widest prices would not fit a double.
        let per_row = high / inner - low / inner;
        let low = low - per_row * f64::from(below);
        let high = high + per_row * f64::from(above);
        Self { top, height, low, high, spacing }
    }

    pub(super) const fn bottom(&self) -> i32 {
        self.top + self.height
    }

    /// The values at the lowest and highest row.
    pub(super) fn values(&self) -> (f64, f64) {
        match self.spacing {
            Spacing::Linear => (self.low, self.high),
            Spacing::Log => (self.low.exp(), self.high.exp()),
        }
    }

    /// The place of `value`, the middle of its row being .0; beyond the panel for values
    /// beyond it.
    pub(super) fn y(&self, value: f64) -> f64 {
        let value = match self.spacing {
            Spacing::Linear => value,
            // What has no logarithm lies below everything.
            Spacing::Log => value.max(f64::MIN_POSITIVE).ln(),
        };
        let part = (self.high - value) / (self.high - self.low);
        f64::from(self.top) + part * f64::from(self.height - 1)
    }

    /// The row of `value`, inside the panel.
    pub(super) fn row(&self, value: f64) -> i32 {
        (self.y(value).round() as i32).clamp(self.top, self.bottom() - 1)
    }

    /// Whether `value` has a row of its own.
    pub(super) fn holds(&self, value: f64) -> bool {
        let y = self.y(value);
        y > f64::from(self.top) - 0.5 && y < f64::from(self.bottom()) - 0.5
    }
}

/// What an axis says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Labels {
    /// Values and their texts, rising.
    pub(super) ticks: Vec<(f64, String)>,
    /// Decimals needed to tell the ticks apart.
    pub(super) decimals: usize,
}

/// From 5 to 7, the least gap between the finer steps of a decade: log10(7 / 5).
const FINEST: f64 = 0.146;

/// The labels of a logarithmic axis: 1, 2 and 5 of every decade, or as many of them as stand
/// `least` rows apart; `None` within less than a decade, where even steps serve better.
pub(super) fn decades(scale: &Scale, least: f64) -> Option<Labels> {
    let (low, high) = scale.values();
    if high / low < 10.0 {
        return None;
    }
    let per_decade = (scale.y(low) - scale.y(high)) / (high / low).log10();
    // Within two decades 1, 2 and 5 are too few. Of those the gaps from 1 to 2 and from 5 to 10
    // are the least.
    let mantissas: &[f64] = match () {
        () if high / low < 100.0 && per_decade * FINEST >= least => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
        () if per_decade * std::f64::consts::LOG10_2 >= least => &[1.0, 2.0, 5.0],
        () if per_decade * 3.0_f64.log10() >= least => &[1.0, 3.0],
        () => &[1.0],
    };
    let every = if mantissas.len() > 1 { 1 } else { (least / per_decade).ceil().max(1.0) as i32 };
    let (from, to) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let mut ticks = Vec::new();
    for exponent in (from..=to).filter(|exponent| exponent.rem_euclid(every) == 0) {
        for mantissa in mantissas {
            // Divided rather than multiplied: 5 / 10 is the double nearest to 0.5.
            let value = if exponent < 0 { mantissa / 10_f64.powi(-exponent) } else { mantissa * 10_f64.powi(exponent) };
            if (low..=high).contains(&value) {
                ticks.push((value, short(value)));
            }
        }
    }
    Some(Labels { ticks, decimals: 0 })
}

/// `0.05`, `20`, `5,000`, `50K`, `1M`: a round number in as few signs as it needs.
fn short(value: f64) -> String {
    if value >= 9_999.0 { format::volume_tick(value) } else { format::number(value, steps::decimals_of(value)) }
}

/// Even labels between two values, written by `text`.
pub(super) fn even(
    values: (f64, f64),
    wanted: usize,
    tick: Option<f64>,
    text: impl Fn(f64, usize) -> String,
) -> Labels {
    let Ticks { values, decimals } = steps::ticks(values.0, values.1, wanted, tick);
    Labels { ticks: values.into_iter().map(|value| (value, text(value, decimals))).collect(), decimals }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(low: f64, high: f64, height: i32) -> Option<String> {
        let scale = Scale::new((0, height), (low, high), (0, 0), Spacing::Log);
        let labels = decades(&scale, 18.0)?;
        let rows: Vec<i32> = labels.ticks.iter().map(|(value, _)| scale.row(*value)).collect();
        assert!(rows.windows(2).all(|pair| pair[0] - pair[1] >= 17), "{rows:?}");
        Some(labels.ticks.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" "))
    }

    /// §9.8: a series from 3.8 to 108,364.
    #[test]
    fn decades_are_labelled_with_1_2_and_5() {
        let expected = "5 10 20 50 100 200 500 1,000 2,000 5,000 10K 20K 50K 100K";
        assert_eq!(texts(3.8, 108_364.0, 600).as_deref(), Some(expected));
        assert_eq!(texts(3.8, 108_364.0, 160).as_deref(), Some("10 100 1,000 10K 100K"));
        assert_eq!(texts(0.02, 3.0, 300).as_deref(), Some("0.02 0.05 0.1 0.2 0.5 1 2"));
        assert_eq!(texts(40.0, 399.0, 300), None);
    }

    #[test]
    fn values_stand_where_they_should() {
        let scale = Scale::new((10, 101), (0.0, 100.0), (0, 0), Spacing::Linear);
        assert_eq!((scale.row(100.0), scale.row(50.0), scale.row(0.0)), (10, 60, 110));
        let blank = Scale::new((0, 121), (0.0, 100.0), (0, 20), Spacing::Linear);
        assert_eq!((blank.row(100.0), blank.row(0.0)), (20, 120));
        assert!(blank.holds(119.0) && !blank.holds(121.0));
    }
}
