//! The demo's stock report: a chart, price levels and an indicator table, as the args of
//! `pdf.report`. Every figure is computed from the candles here.

use serde_json::{Value, json};
use windlass_chart::args::Candles;

/// Bars of the chart.
const SHOWN: usize = 120;
/// Bars of the table.
const TABLED: usize = 25;

/// The report on `candles` (daily, GOOG), with its chart as `chart` is drawn elsewhere in the demo.
pub(super) fn report(candles: &Candles, stamp: &str) -> Value {
    let (high, low, close): (&[f64], &[f64], &[f64]) = (&candles.h, &candles.l, &candles.c);
    let last = close.len() - 1;
    let mut chart = json!({
        "symbol": "GOOG", "interval": "1d", "candles": candles, "visible_bars": SHOWN,
        "overlays": [{ "kind": "sma", "period": 20 }, { "kind": "sma", "period": 50 }],
        "panels": [{ "kind": "volume" }], "theme": "light", "width_px": 900, "height_px": 480,
    });
    chart["title"] = "GOOG, daily".into();
    json!({
        "title": "GOOG: daily analysis",
        "author": "Windlass",
        "lang": "en",
        "page": { "size": "a4" },
        "header": { "left": "{title}", "right": stamp },
        "footer": { "left": "Made by pdf.report", "right": "page {page} of {pages}" },
        "data": { "close": money(close[last]), "change": percent(close[last] / close[last - 1] - 1.0) },
        "blocks": [
            { "type": "heading", "text": "GOOG at {{close}}" },
            { "type": "paragraph", "runs": [
                { "text": "The last bar closed at " }, { "text": "{{close}}", "bold": true },
                { "text": ", {{change}} from the bar before. The averages below are simple ones of closing prices. " },
                { "text": "How this page is made", "link": "https://github.com/windlass/windlass" }, { "text": "." },
            ] },
            { "type": "chart", "chart": chart, "caption": "120 daily bars with the averages of 20 and 50 bars, and volume" },
            { "type": "heading", "level": 2, "text": "Levels" },
            { "type": "table", "size_pt": 9, "rows": levels(high, low, close), "columns": [
                { "header": "Level" },
                { "header": "Price", "align": "right", "width_mm": 28 },
                { "header": "From close", "align": "right", "width_mm": 28 },
            ] },
            { "type": "heading", "level": 2, "text": "The last {{count}} bars".replace("{{count}}", &TABLED.to_string()) },
            { "type": "table", "size_pt": 8.5, "rows": bars(candles), "columns": [
                { "header": "Day" },
                { "header": "Close", "align": "right" },
                { "header": "Change", "align": "right" },
                { "header": "SMA 20", "align": "right" },
                { "header": "SMA 50", "align": "right" },
                { "header": "RSI 14", "align": "right" },
                { "header": "High of 20", "align": "right" },
                { "header": "Low of 20", "align": "right" },
            ] },
        ],
    })
}

fn money(value: f64) -> String {
    format!("{value:.2}")
}

fn percent(part: f64) -> String {
    format!("{:+.2} %", part * 100.0).replace('-', "\u{2212}")
}

/// The mean of the last `period` values up to `at`.
fn mean(values: &[f64], at: usize, period: usize) -> Option<f64> {
    let part = values.get((at + 1).checked_sub(period)?..=at)?;
    #[expect(clippy::cast_precision_loss, reason = "a few bars")]
    let count = period as f64;
    Some(part.iter().sum::<f64>() / count)
}

fn extreme(values: &[f64], at: usize, period: usize, pick: fn(f64, f64) -> f64) -> Option<f64> {
    values.get((at + 1).checked_sub(period)?..=at)?.iter().copied().reduce(pick)
}

/// Wilder's relative strength of `period` bars, smoothed from the first bar on.
fn strength(close: &[f64], at: usize, period: u32) -> Option<f64> {
    let steps: Vec<f64> = close.get(..=at)?.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let first = period as usize;
    if steps.len() < first {
        return None;
    }
    let n = f64::from(period);
    let start = |up: f64| steps[..first].iter().map(|step| (step * up).max(0.0)).sum::<f64>() / n;
    let smooth =
        |up: f64| steps[first..].iter().fold(start(up), |mean, step| (mean * (n - 1.0) + (step * up).max(0.0)) / n);
    let (gain, loss) = (smooth(1.0), smooth(-1.0));
    Some(if loss == 0.0 { 100.0 } else { 100.0 - 100.0 / (1.0 + gain / loss) })
}

/// Classic pivot levels of the last bar, and the extremes of a year.
fn levels(high: &[f64], low: &[f64], close: &[f64]) -> Value {
    let last = close.len() - 1;
    let (h, l, c) = (high[last], low[last], close[last]);
    let pivot = (h + l + c) / 3.0;
    let year = 252.min(close.len());
    let mut rows = vec![
        ("Resistance 2 (pivot)", Some(pivot + (h - l))),
        ("Resistance 1 (pivot)", Some(2.0 * pivot - l)),
        ("Pivot of the last bar", Some(pivot)),
        ("Support 1 (pivot)", Some(2.0 * pivot - h)),
        ("Support 2 (pivot)", Some(pivot - (h - l))),
        ("High of 252 bars", extreme(high, last, year, f64::max)),
        ("Low of 252 bars", extreme(low, last, year, f64::min)),
        ("SMA 50", mean(close, last, 50)),
        ("SMA 200", mean(close, last, 200)),
    ];
    rows.sort_by(|a, b| b.1.unwrap_or(0.0).total_cmp(&a.1.unwrap_or(0.0)));
    let row = |(name, value): &(&str, Option<f64>)| {
        let value = (*value)?;
        let color = if value >= c { "#0a7a45" } else { "#b3261e" };
        Some(json!([name, money(value), { "text": percent(value / c - 1.0), "color": color }]))
    };
    rows.iter().filter_map(row).collect()
}

/// The last bars, newest first.
fn bars(candles: &Candles) -> Value {
    let close: &[f64] = &candles.c;
    let shown = |value: Option<f64>| value.map_or(Value::Null, |value| money(value).into());
    let row = |at: usize| {
        let change = close[at] / close[at - 1] - 1.0;
        let color = if change >= 0.0 { "#0a7a45" } else { "#b3261e" };
        json!([
            day(candles.t[at]),
            { "text": money(close[at]), "bold": true },
            { "text": percent(change), "color": color },
            shown(mean(close, at, 20)),
            shown(mean(close, at, 50)),
            strength(close, at, 14).map_or(Value::Null, |value| format!("{value:.1}").into()),
            shown(extreme(&candles.h, at, 20, f64::max)),
            shown(extreme(&candles.l, at, 20, f64::min)),
        ])
    };
    (close.len().saturating_sub(TABLED).max(1)..close.len()).rev().map(row).collect()
}

/// `2013-03-01` from milliseconds since 1970, by the days of the Gregorian calendar.
///
/// *Source*: H. Hinnant, chrono-compatible low-level date algorithms, `civil_from_days`.
fn day(at_ms: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "an instant of a bar")]
    let days = (at_ms / 86_400_000.0).floor() as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (ms, expected) in
            [(0.0, "1970-01-01"), (951_782_400_000.0, "2000-02-29"), (1_362_096_000_000.0, "2013-03-01")]
        {
            assert_eq!(day(ms), expected);
        }
    }

    #[test]
    fn indicators_are_what_their_definitions_say() {
        let rising: Vec<f64> = (1..=30).map(f64::from).collect();
        assert_eq!(mean(&rising, 29, 20), Some(20.5));
        assert_eq!(mean(&rising, 10, 20), None);
        assert_eq!(strength(&rising, 29, 14), Some(100.0));
        let swing: Vec<f64> = (0..60).map(|i| f64::from(i % 2)).collect();
        assert!((strength(&swing, 59, 14).unwrap() - 50.0).abs() < 4.0);
        assert_eq!(extreme(&rising, 29, 5, f64::max), Some(30.0));
    }

    #[test]
    fn the_report_is_one_that_the_kind_takes() {
        let candles = windlass_chart::csv::candles_from_csv(windlass_chart::GOOG_DAILY_CSV).unwrap();
        let args = report(&candles, "now");
        assert_eq!(crate::kinds::registry().check("pdf.report", &args), Some(Vec::new()));
    }
}
