//! `windlass market` over files.

use crate::harness::Home;

const POSITIONS: &str = include_str!("../../crates/windlass-market/tests/golden/positions.csv");
const QUOTES: &str = include_str!("../../crates/windlass-market/tests/golden/quotes.csv");
const BARS: &str = include_str!("../../crates/windlass-market/tests/golden/bars.csv");
const BY_QUOTES: &str = include_str!("../../crates/windlass-market/tests/golden/closed_by_quotes.csv");
const BY_BARS: &str = include_str!("../../crates/windlass-market/tests/golden/closed_by_bars.csv");
const TICKS: &str = include_str!("../../crates/windlass-market/tests/golden/ticks.csv");
const CANDLES: &str = include_str!("../../crates/windlass-market/tests/golden/candles_1m.csv");

#[test]
fn replay_and_candles_write_what_was_worked_out_by_hand_8_1_8_2() {
    let home = Home::embedded();
    for (name, text) in [("p.csv", POSITIONS), ("q.csv", QUOTES), ("b.csv", BARS), ("t.csv", TICKS)] {
        home.file(name, text);
    }
    let replay = |prices: &str, more: &[&str]| {
        let args = ["market", "replay", "--positions", "p.csv", "--quotes", prices, "--out", "out.csv"];
        let told = home.json(&[&args[..], more].concat());
        (std::fs::read_to_string(home.path().join("out.csv")).unwrap(), told)
    };
    let (live, told) = replay("q.csv", &[]);
    assert_eq!(live, BY_QUOTES);
    let (swept, swept_told) = replay("q.csv", &["--mode", "quotes", "--sweep-every", "5"]);
    assert_eq!((swept.as_str(), &swept_told["sha256"]), (BY_QUOTES, &told["sha256"]));
    assert_eq!(replay("b.csv", &["--mode", "bars"]).0, BY_BARS);
    home.json(&["market", "candles", "--ticks", "t.csv", "--tf", "1m", "--out", "c.csv"]);
    assert_eq!(std::fs::read_to_string(home.path().join("c.csv")).unwrap(), CANDLES);
}

#[test]
fn a_wrong_file_changes_nothing_and_is_told_by_line() {
    let home = Home::embedded();
    home.file("p.csv", POSITIONS);
    home.file("q.csv", "symbol,index,ts_ms,seq,bid,ask\nA,0,0,1,NaN,5\n");
    home.file("out.csv", "as it was");
    let ran = home.run(&["market", "replay", "--positions", "p.csv", "--quotes", "q.csv", "--out", "out.csv"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stderr.contains("line 2, column bid: \"NaN\" found"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(home.path().join("out.csv")).unwrap(), "as it was");
    let ran = home.run(&["market", "replay", "--positions", "no.csv", "--quotes", "q.csv", "--out", "out.csv"]);
    assert!(ran.stderr.contains("no.csv"), "{}", ran.stderr);
}

/// §8.27: nothing is needed, closings come within seconds, and each is decided again with the same answer.
#[test]
fn the_demo_closes_positions_without_any_server_8_27_8_29() {
    let home = Home::embedded();
    let told = home.json(&["market", "demo", "--seconds", "6"]);
    let closed = told["closed"].as_u64().unwrap();
    assert!(closed > 0, "{told}");
    assert_eq!(told["agree"].as_u64(), Some(closed));
    let latency = home.json(&["market", "latency"]);
    assert_eq!(latency["closings"].as_u64(), Some(closed));
}
