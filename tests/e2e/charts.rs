//! Charts with the real binary.

use serde_json::{Value, json};

use crate::harness::{Home, SOON, wait};

/// The font that the settings name reaches the confined child that draws; without it the door refuses
/// what it cannot write, and a file that is no font stops the start.
#[test]
fn a_second_font_reaches_the_child_that_draws() {
    let font = concat!(env!("CARGO_MANIFEST_DIR"), "/../windlass-chart/tests/chart/data/hangul.ttf");
    let candles = json!({"t": [86_400_000, 172_800_000], "o": [1, 2], "h": [3, 3], "l": [1, 1], "c": [2, 1]});
    let args = json!({"symbol": "005930", "interval": "1d", "candles": candles, "title": "삼성전자"}).to_string();
    let home = Home::embedded().with("WINDLASS_CHART_FONT", font);
    let (_up, _) = home.serve(&["up", "--queues", "chart"]);
    let task = home.wait_for(&home.enqueue("chart.render", &args, &[]), "success");
    assert_eq!(task["result"]["value"]["notes"], json!([]), "{task:#}");

    let plain = Home::embedded();
    let file = plain.file("args.json", &args);
    let refused = plain.run(&["enqueue", "chart.render", "--args", file.to_str().unwrap()]);
    assert!(!refused.status.success() && refused.stderr.contains("no glyph"), "{refused:?}");
    let wrong = Home::embedded().with("WINDLASS_CHART_FONT", "/dev/null").run(&["queues"]);
    assert!(!wrong.status.success() && wrong.stderr.contains("WINDLASS_CHART_FONT"), "{wrong:?}");
}

/// charts.md §5: `candles_key` draws what the market has of a symbol, rolled up from quotes that came over HTTP.
#[test]
fn a_chart_is_drawn_of_the_candles_that_the_market_keeps() {
    let home = Home::embedded();
    let (_up, url) = home.serve(&["up", "--queues", "chart,trading"]);
    let agent = crate::http::agent();
    let send = |verb: &str, path: &str, body: Value| {
        let request = ureq::http::Request::builder().method(verb).uri(format!("{url}{path}"));
        let request = request.header("content-type", "application/json").body(body.to_string()).unwrap();
        let mut answer = agent.run(request).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(answer.status().is_success(), "{path}: {text}");
    };
    send("PUT", "/api/instruments/EURUSD", json!({ "digits": 5 }));
    let now = windlass_jobs::Timestamp::now().0;
    // Three minutes, the last of them the running one.
    let quotes: Vec<Value> = (0..30)
        .map(|n| {
            let bid = 107_000 + (n * 37) % 90;
            let text = |points: i64| format!("{}.{:05}", points / 100_000, points % 100_000);
            json!({"symbol": "EURUSD", "bid": text(bid), "ask": text(bid + 12), "ts_ms": now - (29 - n) * 5_000, "seq": n})
        })
        .collect();
    send("POST", "/api/quotes", quotes.into());
    let kept = || -> Vec<Value> {
        let mut answer = agent.get(format!("{url}/api/candles/EURUSD?timeframe=1m")).call().unwrap();
        answer.body_mut().read_json::<Value>().unwrap()["candles"].as_array().cloned().unwrap_or_default()
    };
    wait(SOON, "candles are rolled up", || {
        kept().iter().filter_map(|candle| candle["count"].as_i64()).sum::<i64>() == 30
    });
    let chart = |key: &str| json!({"symbol": "EURUSD", "interval": "1m", "source": {"candles_key": key}}).to_string();
    let task = home.wait_for(&home.enqueue("chart.render", &chart("EURUSD:1m"), &[]), "success");
    assert_eq!(task["result"]["value"]["bars"].as_u64(), Some(kept().len() as u64), "{task:#}");
    let last = kept().last().unwrap()["close"].as_str().unwrap().to_owned();
    assert!(task["result"]["value"]["about"].to_string().contains("EURUSD"), "{last} {task:#}");
    let task = home.wait_for(&home.enqueue("chart.render", &chart("GBPUSD:1m"), &["--max-attempts", "1"]), "failure");
    assert_eq!(task["error"]["code"], "candles_unknown");
}
