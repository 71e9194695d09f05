//! Draws the pictures of `docs/gallery`: `cargo run -p windlass-chart --example gallery -- DIR`.
//!
//! Each is written for one thing that charts can do, light and dark in turn. EURUSD bars are
//! read from `EURUSD_CSV` when that names a file; without it GOOG stands in.

use std::path::Path;

use serde_json::{Value, json};
use windlass_chart::{ChartArgs, GOOG_DAILY_CSV, csv, render_file};

fn base(symbol: &str, interval: &str, text: &str) -> Result<Value, Box<dyn std::error::Error>> {
    let candles = csv::candles_from_csv(text)?;
    Ok(serde_json::to_value(ChartArgs::new(symbol, interval.parse()?, candles))?)
}

/// The GOOG bar that many days before the last, in ms UTC.
fn ago(args: &Value, days: usize) -> Value {
    let t = args["candles"]["t"].as_array().map_or(&[] as &[_], Vec::as_slice);
    t[t.len() - days].clone()
}

fn pictures(goog: &Value) -> Vec<(&'static str, Value)> {
    let rsi_macd = json!([{"kind": "volume"}, {"kind": "rsi"}, {"kind": "macd"}]);
    let averages = json!([{"kind": "sma", "period": 20}, {"kind": "sma", "period": 50}]);
    vec![
        ("01-reference", json!({"overlays": averages, "panels": [{"kind": "volume"}, {"kind": "rsi"}]})),
        (
            "02-dark-macd",
            json!({"theme": "dark", "overlays": [{"kind": "ema", "period": 20}, {"kind": "ema", "period": 50}],
            "panels": rsi_macd, "title": "Google", "subtitle": "daily, with momentum"}),
        ),
        (
            "03-bollinger-stoch",
            json!({"overlays": [{"kind": "bbands"}], "panels": [{"kind": "volume"}, {"kind": "stoch"}],
            "visible_bars": 120}),
        ),
        ("04-ichimoku-dark", json!({"theme": "dark", "overlays": [{"kind": "ichimoku"}], "visible_bars": 150})),
        (
            "05-trade",
            json!({"visible_bars": 90, "panels": [{"kind": "volume"}],
            "levels": [{"kind": "entry", "price": 792.0}, {"kind": "stop_loss", "price": 770.0}, {"kind": "take_profit", "price": 840.0}],
            "markers": [{"t": ago(goog, 21), "shape": "arrow_up", "at": "below", "text": "buy"}],
            "positions": [{"side": "long", "entry": 792.0, "stop_loss": 770.0, "take_profit": 840.0, "from": ago(goog, 10)}]}),
        ),
        (
            "06-patterns-dark",
            json!({"theme": "dark", "visible_bars": 80, "patterns": ["hammer", "engulfing", "morning_star", "shooting_star"],
            "zones": [{"low": 645.0, "high": 660.0, "label": "demand"}],
            "lines": [{"from": {"t": ago(goog, 75), "price": 648.0}, "to": {"t": ago(goog, 1), "price": 806.0}, "line": "dashed"}]}),
        ),
        ("07-heikin-ashi", json!({"type": "heikin_ashi", "overlays": [{"kind": "supertrend"}], "visible_bars": 120})),
        ("08-renko-dark", json!({"theme": "dark", "type": "renko", "visible_bars": 120})),
        (
            "09-hollow-keltner",
            json!({"type": "hollow_candle", "visible_bars": 80, "overlays": [{"kind": "keltner"}], "panels": [{"kind": "atr"}]}),
        ),
        (
            "10-area-log-dark",
            json!({"theme": "dark", "type": "area", "visible_bars": 2148, "price_scale": {"mode": "log"},
            "watermark": "windlass"}),
        ),
        (
            "11-baseline-percent",
            json!({"type": "baseline", "price_scale": {"mode": "percent"}, "panels": [{"kind": "obv"}]}),
        ),
        (
            "12-ohlc-east-asian-dark",
            json!({"theme": "dark", "palette": "east_asian", "type": "ohlc", "visible_bars": 70,
            "overlays": [{"kind": "donchian"}], "panels": [{"kind": "adx"}, {"kind": "cci"}]}),
        ),
        (
            "13-color-blind",
            json!({"palette": "color_blind", "visible_bars": 100, "overlays": [{"kind": "vwap"}],
            "panels": [{"kind": "volume"}, {"kind": "mfi"}], "price_scale": {"side": "left"}}),
        ),
        ("14-small", json!({"width_px": 320, "height_px": 200, "visible_bars": 60, "overlays": averages})),
        (
            "15-merged-dark",
            json!({"theme": "dark", "visible_bars": 2100, "width_px": 900, "height_px": 500, "overlays": averages,
            "panels": [{"kind": "volume"}]}),
        ),
    ]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "gallery".to_owned());
    std::fs::create_dir_all(&dir)?;
    let goog = base("GOOG", "1d", GOOG_DAILY_CSV)?;
    let mut all: Vec<(String, Value)> = Vec::new();
    for (name, more) in pictures(&goog) {
        all.push((
            name.to_owned(),
            merged(&goog, &json!({"visible_bars": 200, "width_px": 1200, "height_px": 800}), &more),
        ));
    }
    if let Ok(file) = std::env::var("EURUSD_CSV") {
        let hourly = base("EURUSD", "1h", &std::fs::read_to_string(file)?)?;
        let more = json!({"visible_bars": 200, "time_zone": "America/New_York", "overlays": [{"kind": "vwap"}, {"kind": "ema", "period": 21}],
            "panels": [{"kind": "rsi"}]});
        all.push(("16-eurusd-hourly".to_owned(), merged(&hourly, &more, &json!({}))));
    }
    for (name, args) in all {
        let args: ChartArgs = serde_json::from_value(args)?;
        let drawn = render_file(&args)?;
        let path = Path::new(&dir).join(format!("{name}.png"));
        std::fs::write(&path, &drawn.file)?;
        let line = format!("{} {} bytes {:?}\n", path.display(), drawn.file.len(), drawn.notes);
        std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?;
    }
    Ok(())
}

/// `base` with the members of the other two over it.
fn merged(base: &Value, first: &Value, second: &Value) -> Value {
    let mut all = base.clone();
    for more in [first, second] {
        if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) {
            all.extend(more.clone());
        }
    }
    all
}
