//! Levels, markers, scales and types: where things stand, and that no word touches another.

use serde_json::{Value, json};
use windlass_chart::args::ChartArgs;
use windlass_chart::render::chart;
use windlass_chart::scene::{Item, Rect, Scene};
use windlass_chart::{csv, render_file};

use crate::goog;
use crate::pictures::{check_texts, check_words};

/// The reference chart with `more` in its args.
fn with(more: Value) -> ChartArgs {
    let mut args = serde_json::to_value(goog(200)).expect("args are JSON");
    let fields = args.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    serde_json::from_value(args).expect("good args")
}

fn scene(args: &ChartArgs) -> Scene {
    chart(args).expect("good args").scene
}

fn rects(scene: &Scene) -> impl Iterator<Item = Rect> + '_ {
    scene.items.iter().filter_map(|item| match item {
        Item::Rect { rect, .. } => Some(*rect),
        _ => None,
    })
}

const TRADE: [(&str, f64); 3] = [("entry", 792.0), ("stop_loss", 770.0), ("take_profit", 840.0)];

/// §9.9: lines at the right row to a pixel, told by the rows of two prices that have labels.
#[test]
fn levels_stand_where_they_should() {
    let levels: Vec<_> = TRADE.iter().map(|(kind, price)| json!({"kind": kind, "price": price})).collect();
    let args = with(json!({"levels": levels, "last_price": false, "width_px": 1000}));
    check_texts(&args);
    let scene = scene(&args);
    let row_of = |words: &str| {
        let texts = scene.texts();
        let text = texts.iter().find(|text| text.text == words).unwrap_or_else(|| panic!("{words} is on the axis"));
        text.baseline_y - 12.0 * 0.7275 / 2.0
    };
    let (low, high) = (row_of("600.00"), row_of("700.00"));
    for (index, (_, price)) in TRADE.iter().enumerate() {
        let expected = low + (high - low) * ((*price as f32 - 600.0) / 100.0);
        let lines: Vec<_> = rects(&scene).filter(|rect| rect.height == 1 && rect.width >= 2).collect();
        let near = lines.iter().any(|rect| (rect.y as f32 + 0.5 - expected).abs() <= 1.5);
        assert!(near, "a line at {expected} for level {index}");
        let shown = format!("{price:.2}");
        assert!(scene.texts().iter().any(|text| text.text == shown), "{shown} has a tag");
    }
    assert!(scene.texts().iter().any(|text| text.text == "Take profit"));
}

/// §9.9: the axis stretches to three times the range of the bars, and no further.
#[test]
fn levels_outside_stretch_the_axis_or_are_noted() {
    let near = chart(&with(json!({"levels": [{"kind": "take_profit", "price": 1000.0}]}))).expect("good args");
    assert!(near.notes.is_empty(), "{:?}", near.notes);
    assert!(near.scene.texts().iter().any(|text| text.text == "1,000.00"));
    let far = chart(&with(json!({"levels": [{"kind": "alert", "price": 5000.0}]}))).expect("good args");
    assert_eq!(far.notes, ["5000 lies too far from the bars to be drawn"]);
    assert!(!far.scene.texts().iter().any(|text| text.text == "Alert"));
}

fn busy(more: Value) -> ChartArgs {
    let mut args = with(more);
    let t = args.candles.t.to_vec();
    let marker = |back: usize, shape: &str, at: &str, text: &str| json!({"t": t[t.len() - back], "shape": shape, "at": at, "text": text});
    args.markers = serde_json::from_value(json!([
        marker(150, "arrow_up", "below", "buy"),
        marker(150, "circle", "below", "again"),
        marker(60, "arrow_down", "above", "sell"),
        marker(58, "square", "above", "sell more"),
        marker(1, "circle", "in_bar", "now"),
        marker(199, "arrow_up", "below", "first"),
    ]))
    .expect("markers");
    args.patterns = ["hammer", "engulfing", "doji"].map(str::to_owned).to_vec();
    args
}

#[test]
fn words_keep_apart_on_a_busy_chart() {
    let t = goog(200).candles.t.to_vec();
    let levels: Vec<_> = (0..20).map(|i| json!({"kind": "support", "price": 700.0 + f64::from(i)})).collect();
    for (width, height) in [(1200, 800), (700, 400), (320, 240), (160, 120)] {
        let args = busy(json!({
            "levels": levels, "width_px": width, "height_px": height, "watermark": "windlass",
            "panels": [{"kind": "volume"}, {"kind": "rsi"}, {"kind": "macd"}, {"kind": "stoch"}, {"kind": "obv"}, {"kind": "cci"}],
            "overlays": [{"kind": "ichimoku"}, {"kind": "bbands"}, {"kind": "supertrend"}, {"kind": "keltner"}],
            "positions": [{"side": "long", "entry": 760.0, "stop_loss": 730.0, "take_profit": 830.0, "from": t[t.len() - 30]}],
            "zones": [{"low": 640.0, "high": 660.0, "label": "demand"}],
            "lines": [{"from": {"t": t[t.len() - 150], "price": 560.0}, "to": {"t": t[t.len() - 1], "price": 900.0}, "line": "dashed"}],
        }));
        check_words(&ChartArgs { watermark: None, ..args.clone() });
        assert!(render_file(&args).is_ok());
    }
}

#[test]
fn every_type_scale_and_side_draws_without_overlap() {
    for kind in ["candle", "hollow_candle", "ohlc", "line", "area", "baseline", "heikin_ashi", "renko"] {
        for mode in ["linear", "log", "percent"] {
            for (bars, theme, palette) in
                [(200, "light", "color_blind"), (2000, "dark", "east_asian"), (2, "light", "classic")]
            {
                let args = with(json!({
                    "type": kind, "price_scale": {"mode": mode, "side": if bars == 2 { "left" } else { "right" }},
                    "visible_bars": bars, "theme": theme, "palette": palette, "width_px": 600, "height_px": 400,
                }));
                check_texts(&args);
                let drawn = render_file(&args).expect("it draws");
                assert!(drawn.file.len() > 1500, "{kind} {mode} {bars}: {} bytes", drawn.file.len());
            }
        }
    }
}

/// §9.8: from 3.8 to 108,364 on a logarithmic axis.
#[test]
fn a_logarithmic_axis_has_1_2_and_5() {
    let row = |month: i32| {
        let price = 3.8 * (108_364.0_f64 / 3.8).powf(f64::from(month) / 59.0);
        format!("{}-{:02}-01,{price},{price},{price},{price},1\n", 2015 + month / 12, month % 12 + 1)
    };
    let text: String = (0..60).map(row).collect();
    let candles = csv::candles_from_csv(&format!("time,open,high,low,close,volume\n{text}")).expect("bars");
    let mut args = ChartArgs::new("BTC/USD", "1mo".parse().expect("an interval"), candles);
    args.price_scale.mode = windlass_chart::args::PriceMode::Log;
    args.last_price = false;
    check_texts(&args);
    let scene = scene(&args);
    let words: Vec<_> = scene.texts().iter().map(|text| text.text.clone()).collect();
    for label in ["5", "10", "20", "50", "1,000", "2,000", "5,000", "10K", "50K", "100K"] {
        assert!(words.iter().any(|word| word == label), "{label} in {words:?}");
    }
}

#[test]
fn percent_counts_from_the_first_visible_close() {
    let scene = scene(&with(json!({"price_scale": {"mode": "percent"}})));
    let words: Vec<_> = scene.texts().iter().map(|text| text.text.clone()).collect();
    for label in ["0.00%", "+20.00%"] {
        assert!(words.iter().any(|word| word == label), "{label} in {words:?}");
    }
}

#[test]
fn renko_keeps_to_its_bricks() {
    let args = with(json!({"type": "renko", "renko": {"brick": 10.0}, "overlays": [], "panels": []}));
    let drawn = chart(&args).expect("good args");
    assert!(drawn.scene.texts().iter().any(|text| text.text == "Renko 10.00"));
    let values = drawn.values;
    assert!(values.o.iter().zip(&values.c).all(|(open, close)| ((close - open).abs() - 10.0).abs() < 1e-9));
}

#[test]
fn single_colours_win_over_the_theme() {
    let args = with(json!({"colors": {"up": "#123456", "background": "#fafaf0"}}));
    let scene = scene(&args);
    assert_eq!((scene.background.r, scene.background.b), (0xfa, 0xf0));
    let up = windlass_chart::scene::Color::rgb(0x12_34_56);
    let bars = scene.items.iter().filter(|item| matches!(item, Item::Rect { fill, .. } if *fill == up)).count();
    assert!(bars > 50, "{bars} pieces of rising bars");
}
