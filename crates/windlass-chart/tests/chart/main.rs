//! Charts as a job sees them: args in, pictures out.

mod books;
mod files;
mod kept;
mod marks;
mod pictures;
mod publishing;
mod refusals;
mod runs;
mod schemas;
mod second_font;
mod studies;

use serde_json::{Value, json};
use windlass_chart::args::{Candles, ChartArgs, Overlay, PanelKind};
use windlass_chart::{GOOG_DAILY_CSV, csv};

/// GOOG, the last `bars` days, two averages and volume: the reference chart.
fn goog(bars: u32) -> ChartArgs {
    let candles = csv::candles_from_csv(GOOG_DAILY_CSV).expect("the file is in the crate");
    let mut args = ChartArgs::new("GOOG", "1d".parse().expect("1d is an interval"), candles);
    args.visible_bars = Some(bars);
    args.overlays = vec![Overlay::Sma { period: 20 }, Overlay::Sma { period: 50 }];
    args.panels = vec![PanelKind::Volume {}.into()];
    args
}

/// `count` hourly bars from Friday 2017-03-10 12:00 UTC, going on on Sunday at 20:00:
/// New York's clocks change in between.
fn hourly(count: usize) -> ChartArgs {
    const HOUR_MS: f64 = 3_600_000.0;
    let (friday, sunday) = (1_489_147_200_000.0, 1_489_348_800_000.0);
    let times = (0..count).map(|i| match i {
        0..10 => friday + i as f64 * HOUR_MS,
        _ => sunday + (i - 10) as f64 * HOUR_MS,
    });
    let price = |i: usize| 1.06 + (i as f64 * 0.7).sin() * 0.002;
    let candles = Candles {
        t: times.collect(),
        o: (0..count).map(price).collect(),
        h: (0..count).map(|i| price(i).max(price(i + 1)) + 0.0005).collect(),
        l: (0..count).map(|i| price(i).min(price(i + 1)) - 0.0005).collect(),
        c: (0..count).map(|i| price(i + 1)).collect(),
        v: None,
    };
    ChartArgs::new("EURUSD", "1h".parse().expect("1h is an interval"), candles)
}

/// The smallest good args, as JSON: three bars and their volumes.
fn three_bars() -> Value {
    json!({
        "symbol": "GOOG",
        "interval": "1d",
        "candles": {
            "t": [1_092_873_600_000_i64, 1_092_960_000_000_i64, 1_093_219_200_000_i64],
            "o": [100.0, 101.0, 110.5],
            "h": [104.0, 109.0, 113.5],
            "l": [96.0, 100.5, 109.0],
            "c": [100.5, 108.5, 109.5],
            "v": [44_659_000, 22_834_300, 18_256_100],
        },
        "panels": [{"kind": "volume"}],
    })
}
