//! The drawn bars and the computed series as numbers.

use serde::Serialize;

use super::view::View;

/// Columns of one length, one entry for each visible bar.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Values {
    /// When each bar opened, in ms UTC.
    pub t: Vec<f64>,
    /// Opens, as drawn.
    pub o: Vec<f64>,
    /// Highs, as drawn.
    pub h: Vec<f64>,
    /// Lows, as drawn.
    pub l: Vec<f64>,
    /// Closes, as drawn.
    pub c: Vec<f64>,
    /// Each computed column under its name, such as `rsi_14`, in order of the args; null where
    /// there is no value. A cloud of Ichimoku is given unshifted.
    pub series: Vec<NamedSeries>,
}

/// A computed column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NamedSeries {
    /// Such as `rsi_14` or `bb_20_upper`.
    pub name: String,
    /// One entry for each visible bar.
    pub values: Vec<Option<f64>>,
}

pub(super) fn of(view: &View<'_>) -> Values {
    let studies = view.overlays.iter().chain(view.panels.iter().map(|panel| &panel.study));
    let named = |(name, values): &(String, Vec<Option<f64>>)| {
        let values = values.iter().take(view.bars()).copied().collect();
        NamedSeries { name: name.clone(), values }
    };
    Values {
        t: view.stamps.clone(),
        o: view.open.clone(),
        h: view.high.clone(),
        l: view.low.clone(),
        c: view.close.clone(),
        series: studies.flat_map(|study| study.series.iter().map(named)).collect(),
    }
}
