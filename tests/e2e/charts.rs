//! Charts with the real binary.

use serde_json::json;

use crate::harness::Home;

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
