//! What is refused, with which code, where; and what only looks wrong.

use serde_json::{Value, json};
use windlass_chart::ChartArgs;
use windlass_chart::args::Column;
use windlass_worker::decode_args;

use crate::schemas::published;
use crate::three_bars;

/// Sets one field (a JSON pointer; its parent exists) of good args, and compares the
/// violations, each written `path code`.
#[track_caller]
fn check(field: &str, value: Value, expected: &[&str]) {
    let mut args = three_bars();
    let (parent, name) = field.rsplit_once('/').expect("a pointer starts with a slash");
    let parent = args.pointer_mut(parent).expect("the parent exists");
    match (parent, name.parse::<usize>()) {
        (Value::Array(cells), Ok(index)) => cells[index] = value,
        (parent, _) => parent[name] = value,
    }
    check_args(&args, expected);
}

#[track_caller]
fn check_args(args: &Value, expected: &[&str]) {
    let found = match decode_args::<ChartArgs>(args) {
        Ok(args) => args.check(),
        Err(violations) => violations,
    };
    let lines: Vec<_> = found.iter().map(|v| format!("{} {}", v.path, v.code)).collect();
    assert_eq!(lines, expected, "{found:?}");
    if expected.is_empty() {
        assert_eq!(published("chart.render", args), [""; 0], "the schema refuses good args");
    }
}

/// As [`check`], for what serde refuses: the message holds `expected`.
#[track_caller]
fn check_form(field: &str, value: Value, expected: &str) {
    let mut args = three_bars();
    let (parent, name) = field.rsplit_once('/').expect("a pointer starts with a slash");
    args.pointer_mut(parent).expect("the parent exists")[name] = value;
    let found = decode_args::<ChartArgs>(&args).expect_err("the form is wrong");
    assert_eq!(found[0].code, "args_invalid");
    assert!(found[0].message.contains(expected), "{}", found[0].message);
    assert!(!published("chart.render", &args).is_empty(), "the schema takes what no worker does: {args}");
}

#[test]
fn good_args_pass() {
    check_args(&three_bars(), &[]);
    check("/title", json!("Größe → 5 ₿, Ελλάδα, Łódź"), &[]);
    check("/title", json!(null), &[]);
    check("/symbol", json!("BTC-USD^x=/&:_. 1"), &[]);
    check("/candles/v", json!([0, 0, 0]), &[]);
    check("/candles/l/0", json!(-5), &[]);
    check("/time_zone", json!("America/New_York"), &[]);
    check("/visible_bars", json!(5000), &[]);
}

#[test]
fn cells_that_are_no_numbers_are_named() {
    check("/candles/c/1", json!(null), &["/candles/c/1 not_finite"]);
    check("/candles/o/2", json!("1e999"), &["/candles/o/2 not_finite"]);
    check("/candles/v/0", json!([1, {"a": 2}]), &["/candles/v/0 not_finite"]);
    check("/candles/t/0", json!(true), &["/candles/t/0 not_finite"]);
    check("/candles/h/0", json!({"a": [1]}), &["/candles/h/0 not_finite"]);
    check("/candles/c", json!([null, null, null]), &["/candles/c/0 not_finite"]);
    check_form("/candles/c", json!("1,2,3"), "expected an array of numbers");
}

#[test]
fn infinities_and_nan_are_refused() {
    for (value, name) in [(f64::NAN, "NaN"), (f64::INFINITY, "infinity"), (f64::NEG_INFINITY, "-infinity")] {
        let mut args = decode_args::<ChartArgs>(&three_bars()).expect("good args");
        args.candles.h = Column::from(vec![104.0, value, 113.5]);
        let found = args.check();
        assert_eq!((found[0].path.as_str(), found[0].code.as_str()), ("/candles/h/1", "not_finite"));
        assert!(found[0].message.contains(name), "{}", found[0].message);
    }
    // JSON text with 1e999 never becomes args at all.
    let text = three_bars().to_string().replace("113.5", "1e999");
    let error = serde_json::from_str::<ChartArgs>(&text).expect_err("not a 64-bit number");
    assert!(error.to_string().contains("number out of range"), "{error}");
}

#[test]
fn bars_must_make_sense() {
    check("/candles/c", json!([1, 2]), &["/candles/c unequal_lengths"]);
    check("/candles/t", json!([]), &["/candles/t empty"]);
    check("/candles/t/2", json!(1_092_960_000_000_i64), &["/candles/t/2 not_rising"]);
    check("/candles/t/1", json!(5), &["/candles/t/1 not_rising"]);
    check("/candles/t/0", json!(0.5), &["/candles/t/0 time_invalid"]);
    check("/candles/t/2", json!(1e308), &["/candles/t/2 time_invalid"]);
    check("/candles/l/1", json!(101.5), &["/candles/l/1 low_above_body"]);
    check("/candles/h/2", json!(110.0), &["/candles/h/2 high_below_body"]);
    check("/candles/v/1", json!(-1), &["/candles/v/1 negative_volume"]);
    check("/candles/h/0", json!(1e308), &["/candles/h/0 out_of_range"]);
    check("/candles/v/0", json!(1e300), &["/candles/v/0 out_of_range"]);
    let mut many = three_bars();
    for column in ["t", "o", "h", "l", "c", "v"] {
        many["candles"][column] = (0..50_001).collect();
    }
    check_args(&many, &["/candles too_many_bars"]);
    many["candles"]["t"] = (0..500_000).collect();
    check_args(&many, &["/candles too_many_bars"]);
}

#[test]
fn labels_are_limited() {
    for symbol in ["", "   ", "G\u{0}", "{x}", "a\u{202e}b", "ÄÖ", &"A".repeat(33)] {
        check("/symbol", json!(symbol), &["/symbol symbol_invalid"]);
    }
    // A path is a fine symbol: it is drawn, and never opened.
    check("/symbol", json!("../../etc/passwd"), &[]);
    check("/title", json!("x".repeat(10_000)), &["/title too_long"]);
    check("/title", json!("a\u{202e}b"), &["/title control_character"]);
    check("/subtitle", json!("a\nb"), &["/subtitle control_character"]);
    check("/subtitle", json!("a\0b"), &["/subtitle control_character"]);
    check("/title", json!("삼성전자"), &["/title glyph_missing"]);
    check("/subtitle", json!("up 🚀"), &["/subtitle glyph_missing"]);
    check("/time_zone", json!("Mars/Olympus"), &["/time_zone unknown_time_zone"]);
    check("/time_zone", json!("../../etc/passwd"), &["/time_zone unknown_time_zone"]);
    check("/time_zone", json!(""), &["/time_zone unknown_time_zone"]);
}

#[test]
fn numbers_are_limited() {
    check("/visible_bars", json!(1), &["/visible_bars out_of_range"]);
    check("/visible_bars", json!(5001), &["/visible_bars out_of_range"]);
    check("/width_px", json!(159), &["/width_px out_of_range"]);
    check("/height_px", json!(4097), &["/height_px out_of_range"]);
    check("/scale", json!(0), &["/scale out_of_range"]);
    check("/width_px", json!(20_000), &["/width_px out_of_range"]);
    let sma = |period: u32| json!({"kind": "sma", "period": period});
    check("/overlays", json!([sma(20), sma(0)]), &["/overlays/1/period out_of_range"]);
    check("/overlays", json!([sma(1001)]), &["/overlays/0/period out_of_range"]);
    check("/overlays", json!(vec![sma(5); 11]), &["/overlays too_many"]);
    check("/price_scale", json!({"tick_size": 0}), &["/price_scale/tick_size out_of_range"]);
    check("/price_scale", json!({"tick_size": -0.01}), &["/price_scale/tick_size out_of_range"]);
    let volume = json!({"kind": "volume"});
    check("/panels", json!([volume, volume]), &["/panels/1 duplicate_panel"]);
    let mut large = three_bars();
    (large["width_px"], large["height_px"], large["scale"]) = (json!(4096), json!(4096), json!(2));
    check_args(&large, &["/scale too_many_pixels"]);
    let mut no_volume = three_bars();
    no_volume["candles"].as_object_mut().expect("an object").remove("v");
    check_args(&no_volume, &["/panels/0 volume_missing"]);
}

#[test]
fn every_fault_is_reported_at_once() {
    let mut args = three_bars();
    args["symbol"] = json!("{}");
    args["candles"]["o"][1] = json!(null);
    args["height_px"] = json!(9);
    let expected = ["/symbol symbol_invalid", "/candles/o/1 not_finite", "/height_px out_of_range"];
    check_args(&args, &expected);
}

#[test]
fn nothing_is_parsed_and_ignored() {
    check_form("/dpi", json!(85), "unknown field `dpi`");
    check_form("/candles/x", json!([]), "unknown field `x`");
    check_form("/type", json!("pnf"), "unknown variant `pnf`");
    check_form("/format", json!("gif"), "unknown variant `gif`");
    check_form("/locale", json!("de"), "unknown variant `de`");
    check_form("/interval", json!("7m"), "unknown variant `7m`");
    check_form("/price_scale", json!({"mode": "square"}), "unknown variant `square`");
    check_form("/price_scale", json!({"invert": true}), "unknown field `invert`");
    check_form("/overlays", json!([{"kind": "zigzag", "period": 9}]), "unknown variant `zigzag`");
    check_form("/overlays", json!([{"kind": "sma", "period": 9, "k": 2}]), "unknown field `k`");
    check_form("/panels", json!([{"kind": "volume", "ma": 20}]), "unknown field `ma`");
    check_form("/width_px", json!(-1), "invalid value: integer `-1`");
    check_form("/renko", json!({"brick": "atr"}), "atr:14");
    check_form("/colors", json!({"up": "red"}), "#089981");
    check_form("/return", json!("everything"), "unknown variant `everything`");
    // What belongs to another format or type is refused as well.
    check("/quality", json!(85), &["/quality quality_unused"]);
    check("/lossy", json!(true), &["/lossy lossy_unused"]);
    check("/renko", json!({"brick": 5}), &["/renko renko_unused"]);
    let mut args = three_bars();
    args["format"] = json!("jpeg");
    args["effort"] = json!("fast");
    check_args(&args, &["/effort effort_unused"]);
    args["format"] = json!("webp");
    args["effort"] = json!(null);
    args["quality"] = json!(101);
    check_args(&args, &["/quality out_of_range", "/quality quality_unused"]);
    check("/markers", json!([{"t": 1_092_873_600_000_i64, "price": 3}]), &["/markers/0/price price_unused"]);
}

#[test]
fn marks_must_make_sense() {
    let level = |price: Value| json!([{"kind": "entry", "price": price}]);
    check("/levels", level(json!(1e300)), &["/levels/0/price out_of_range"]);
    check("/levels", json!(vec![level(json!(1))[0].clone(); 21]), &["/levels too_many"]);
    check(
        "/levels",
        json!([{"kind": "alert", "price": 1, "label": "a\u{202e}b"}]),
        &["/levels/0/label control_character"],
    );
    let position = json!([{"side": "short", "entry": 5, "stop_loss": 4, "take_profit": 6}]);
    check("/positions", position, &["/positions/0 position_invalid"]);
    check("/zones", json!([{"low": 5, "high": 5}]), &["/zones/0/high out_of_range"]);
    check("/markers", json!([{"t": 0.5e300}]), &["/markers/0/t time_invalid"]);
    check("/markers", json!([{"t": 1_092_873_600_000_i64, "at": "price"}]), &["/markers/0/price price_missing"]);
    check("/patterns", json!(["../../etc/passwd"]), &["/patterns/0 unknown_pattern"]);
    check("/watermark", json!("삼성전자"), &["/watermark glyph_missing"]);
    check("/watermark", json!("x".repeat(65)), &["/watermark too_long"]);
    let line = json!([{"from": {"t": 5, "price": 1}, "to": {"t": 4, "price": 1}}]);
    check("/lines", line, &["/lines/0/to/t not_rising"]);
}

#[test]
fn studies_are_limited() {
    let macd = json!([{"kind": "macd", "fast": 26, "slow": 12}]);
    check("/panels", macd, &["/panels/0/fast out_of_range"]);
    check("/panels", json!([{"kind": "rsi", "bands": [70, 30]}]), &["/panels/0/bands out_of_range"]);
    check("/panels", json!([{"kind": "rsi", "weight": 9}]), &["/panels/0/weight out_of_range"]);
    check("/overlays", json!([{"kind": "bbands", "k": 0}]), &["/overlays/0/k out_of_range"]);
    let mut no_volume = three_bars();
    no_volume["candles"].as_object_mut().expect("an object").remove("v");
    no_volume["panels"] = json!([{"kind": "obv"}, {"kind": "mfi"}]);
    no_volume["overlays"] = json!([{"kind": "vwap"}]);
    let expected = ["/overlays/0 volume_missing", "/panels/0 volume_missing", "/panels/1 volume_missing"];
    check_args(&no_volume, &expected);
    let mut log = three_bars();
    log["price_scale"] = json!({"mode": "log"});
    log["candles"]["l"][1] = json!(0);
    check_args(&log, &["/candles/l/1 not_positive"]);
    let mut renko = three_bars();
    renko["type"] = json!("renko");
    renko["renko"] = json!({"brick": 1e-9});
    check_args(&renko, &["/renko/brick brick_too_small"]);
}

#[test]
fn bars_come_once() {
    let blob = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    check("/source", json!({"candles_blob": blob}), &["/source candles_twice"]);
    let without = |source: Value| json!({"symbol": "GOOG", "interval": "1d", "source": source});
    check_args(&without(json!({"candles_blob": blob})), &[]);
    check_args(&without(json!({"candles_blob": "../x"})), &["/source/candles_blob blob_invalid"]);
    check_args(&without(json!({"candles_key": "BTC:USD:1h"})), &[]);
    for key in ["GOOG", "GOOG:", ":1d", &format!("{}:1d", "G".repeat(64))] {
        check_args(&without(json!({"candles_key": key})), &["/source/candles_key key_invalid"]);
    }
    check_args(&without(json!(null)), &["/candles candles_missing"]);
}

#[test]
fn args_survive_a_round_trip() {
    let args = decode_args::<ChartArgs>(&three_bars()).expect("good args");
    let written = serde_json::to_value(&args).expect("args are JSON");
    assert_eq!(decode_args::<ChartArgs>(&written), Ok(args));
    assert_eq!(written["candles"]["t"][0], json!(1_092_873_600_000_i64));
}
