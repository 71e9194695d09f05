//! Studies against TA-Lib in C, and what becomes of them at the edges.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use windlass_chart::args::{Overlay, PanelKind};
use windlass_chart::render::{Values, chart};
use windlass_chart::{ChartArgs, pattern};

use crate::goog;

/// What TA-Lib in C 0.8.1 (PyPI `TA-Lib`) answers for GOOG: the first row with a value, and
/// some rows. Written by `tests/bench/charts/talib_golden.py`.
#[derive(Deserialize)]
struct Column {
    first: usize,
    rows: BTreeMap<String, f64>,
}

fn everything(visible_bars: u32) -> ChartArgs {
    let mut args = goog(visible_bars);
    args.overlays = serde_json::from_value(json!([
        {"kind": "sma", "period": 20}, {"kind": "ema", "period": 50}, {"kind": "wma", "period": 20},
        {"kind": "bbands"}, {"kind": "vwap"}, {"kind": "ichimoku"}, {"kind": "supertrend"},
        {"kind": "donchian"}, {"kind": "keltner"},
    ]))
    .expect("overlays");
    args.panels = serde_json::from_value(json!([
        {"kind": "rsi"}, {"kind": "macd"}, {"kind": "stoch"}, {"kind": "atr"}, {"kind": "obv"}, {"kind": "adx"},
    ]))
    .expect("panels");
    args
}

fn values(args: &ChartArgs) -> Values {
    chart(args).expect("good args").values
}

fn column<'a>(values: &'a Values, name: &str) -> &'a [Option<f64>] {
    let found = values.series.iter().find(|series| series.name == name);
    &found.unwrap_or_else(|| panic!("there is {name}")).values
}

/// §9.6: equal to TA-Lib in C to 1e-9, blank in the same rows.
#[test]
fn studies_equal_talib() {
    let golden: BTreeMap<String, Column> = serde_json::from_str(include_str!("data/talib_goog.json")).expect("golden");
    let mut all = values(&everything(2148));
    let more = ChartArgs {
        panels: vec![PanelKind::Cci { period: 20 }.into(), PanelKind::Mfi { period: 14, bands: [20.0, 80.0] }.into()],
        ..goog(2148)
    };
    all.series.extend(values(&more).series);
    assert!(golden.len() >= 17, "{}", golden.len());
    for (name, expected) in golden {
        let found = column(&all, &name);
        assert_eq!(found.iter().position(Option::is_some), Some(expected.first), "{name}: the first row");
        assert!(found[expected.first..].iter().all(Option::is_some), "{name}: no gaps");
        for (row, value) in expected.rows {
            let row: usize = row.parse().expect("a row");
            let near = found[row].is_some_and(|found| (found - value).abs() <= 1e-9 * value.abs().max(1.0));
            assert!(near, "{name}[{row}] is {:?}, TA-Lib says {value}", found[row]);
        }
    }
}

/// §9.6: what is visible changes no value.
#[test]
fn values_do_not_depend_on_what_is_visible() {
    let (all, few) = (values(&everything(2148)), values(&everything(200)));
    assert_eq!((all.t.len(), few.t.len()), (2148, 200));
    for (whole, part) in all.series.iter().zip(&few.series) {
        assert_eq!(whole.name, part.name);
        assert_eq!(whole.values[1948..], part.values, "{}", whole.name);
    }
}

#[test]
fn too_few_bars_are_noted_not_refused() {
    let mut args = everything(10);
    for bars in [1, 2, 15, 40] {
        let cut = |column: &windlass_chart::args::Column| column[..bars].to_vec().into();
        args.candles = windlass_chart::args::Candles {
            t: cut(&args.candles.t),
            o: cut(&args.candles.o),
            h: cut(&args.candles.h),
            l: cut(&args.candles.l),
            c: cut(&args.candles.c),
            v: args.candles.v.as_ref().map(cut),
        };
        args.visible_bars = None;
        let drawn = chart(&args).expect("few bars are bars");
        assert!(drawn.notes.iter().any(|note| note == &format!("EMA 50 needs more bars than the {bars} there are")));
        args = ChartArgs { candles: everything(10).candles, ..args };
    }
}

#[test]
fn the_average_price_starts_anew_with_every_month() {
    let args = ChartArgs { overlays: vec![Overlay::Vwap { anchor: Default::default() }], ..goog(200) };
    let drawn = values(&args);
    let vwap = column(&drawn, "vwap");
    // 1 March 2013 is the first bar of its month: its own typical price.
    let typical = (807.14 + 796.15 + 806.19) / 3.0;
    assert!((vwap[199].expect("a value") - typical).abs() < 1e-9, "{:?}", vwap[199]);
    let two = vwap[198].expect("a value");
    assert!((two - 801.2).abs() > 1e-6);
}

#[test]
fn patterns_are_found_by_any_of_their_names() {
    for name in ["hammer", "CDLHAMMER", "cdl_hammer", "Hammer"] {
        assert_eq!(pattern::find(name).map(|found| found.label), Some("Hammer"), "{name}");
    }
    assert!(pattern::find("morning star").is_some() && pattern::find("head_and_shoulders").is_none());
    let candles = goog(200).candles;
    let doji = pattern::find("doji").expect("a pattern").bars(&candles);
    assert_eq!(doji.len(), DOJI_IN_GOOG);
}

/// Counted by TA-Lib in C; the golden's program prints it.
const DOJI_IN_GOOG: usize = 312;
