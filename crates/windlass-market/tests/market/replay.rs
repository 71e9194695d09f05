//! The replay over files: by hand, and against an oracle in another language.

use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_market::candle::Timeframe;
use windlass_market::replay::{Mode, Report, candles, replay};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn open(path: &Path) -> std::io::BufReader<std::fs::File> {
    std::io::BufReader::new(std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

fn run(positions: &Path, prices: &Path, mode: Mode) -> (String, Report) {
    let mut out = Vec::new();
    let report = replay(open(positions), open(prices), mode, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), report)
}

#[track_caller]
fn check(positions: &Path, prices: &Path, mode: Mode, expected: &Path) -> Report {
    let (found, report) = run(positions, prices, mode);
    assert_eq!(found, std::fs::read_to_string(expected).unwrap(), "{mode:?}");
    report
}

/// Worked out with pencil and paper from R1–R8; each row's reason stands in README.md there.
#[test]
fn quotes_and_bars_close_as_worked_out_by_hand_8_1_8_6() {
    let positions = golden("positions.csv");
    let live = check(&positions, &golden("quotes.csv"), Mode::Quotes, &golden("closed_by_quotes.csv"));
    for every in [1, 2, 5, 60] {
        let swept = check(&positions, &golden("quotes.csv"), Mode::Sweep(every), &golden("closed_by_quotes.csv"));
        assert_eq!(swept.hash, live.hash, "8.2");
    }
    assert_eq!((live.passed_over["crossed"], live.passed_over["late"]), (1, 1));
    let bars = check(&positions, &golden("bars.csv"), Mode::Bars, &golden("closed_by_bars.csv"));
    assert_eq!(bars.ambiguous, 1);
}

#[test]
fn candles_come_out_as_worked_out_by_hand() {
    let mut out = Vec::new();
    let report = candles(open(&golden("ticks.csv")), Timeframe::MINUTE, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), std::fs::read_to_string(golden("candles_1m.csv")).unwrap());
    assert_eq!(report.passed_over["duplicate"], 2);
}

/// The oracle draws random files and says what must come out of them.
#[test]
fn thousands_of_random_positions_close_as_the_python_oracle_says_8_1_8_2() {
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle.py");
    for seed in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("python3").arg(&oracle).arg(dir.path()).arg(seed.to_string()).status();
        assert!(status.expect("python3 is installed: Debian package `python3`").success());
        let file = |name: &str| dir.path().join(name);
        let (positions, quotes) = (file("positions.csv"), file("quotes.csv"));
        let live = check(&positions, &quotes, Mode::Quotes, &file("closed_by_quotes.csv"));
        assert!(live.closed > live.positions / 2, "the files close something");
        for every in [5, 60, 100_000] {
            check(&positions, &quotes, Mode::Sweep(every), &file("closed_by_quotes.csv"));
        }
        check(&positions, &file("bars.csv"), Mode::Bars, &file("closed_by_bars.csv"));
        for (name, expected) in [("1m", "candles_1m.csv"), ("5m", "candles_5m.csv"), ("1d", "candles_1d.csv")] {
            let mut out = Vec::new();
            candles(open(&file("ticks.csv")), Timeframe::parse(name).unwrap(), &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), std::fs::read_to_string(file(expected)).unwrap(), "{name}");
        }
    }
}

#[test]
fn wrong_files_are_refused_with_line_and_column_8_16() {
    let header = "id,symbol,side,qty,entry,open_index,sl,tp,trail_points,trail_bps,trail_activation,trail_step,be_trigger,be_offset,expires_index";
    let quotes = "symbol,index,ts_ms,seq,bid,ask\n";
    let check = |positions: &str, quotes: &str, expected: &str| {
        let mut out = Vec::new();
        let error = replay(positions.as_bytes(), quotes.as_bytes(), Mode::Quotes, &mut out).unwrap_err();
        let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(text.contains(expected), "{text}");
        assert!(out.is_empty(), "nothing is written");
    };
    let position = |row: &str| format!("{header}\n{row}\n");
    check("", quotes, "the file is empty");
    check("id,symbol\n", quotes, "column \"side\" is missing");
    check(&format!("{header},color\n"), quotes, "column \"color\" is unknown");
    check(&position("1,EURUSD,1"), quotes, "line 2 has 3 values, not 15");
    check(&position("1,EURUSD,2,1,100,0,,,,,,,,,"), quotes, "line 2, column side: \"2\" found; 1 or -1 is allowed");
    check(&position("1,EURUSD,1,0,100,0,,,,,,,,,"), quotes, "column qty");
    check(&position("1,EURUSD,1,1,1.5,0,,,,,,,,,"), quotes, "column entry: \"1.5\"");
    check(&position("1,EURUSD,1,1,100,0,,,5,5,,,,,"), quotes, "column trail_bps");
    check(&position("1,EUR:USD,1,1,100,0,,,,,,,,,"), quotes, "column symbol");
    check(&(position("1,EURUSD,1,1,100,0,,,,,,,,,") + "1,EURUSD,1,1,100,0,,,,,,,,,\n"), quotes, "each id once");
    check(
        &position("1,EURUSD,1,1,100,0,,,,,,,,,"),
        "symbol,index,ts_ms,seq,bid,ask\nEURUSD,0,0,1,NaN,5\n",
        "column bid: \"NaN\"",
    );
    check(
        &position("1,EURUSD,1,1,100,0,,,,,,,,,"),
        "symbol,index,ts_ms,seq,bid,ask\nEURUSD,0,0,1,99999999999999999999,5\n",
        "column bid",
    );
}

#[test]
fn columns_may_stand_in_any_order() {
    let positions = "symbol,id,qty,side,open_index,entry,tp,sl,trail_points,trail_bps,trail_activation,trail_step,be_trigger,be_offset,expires_index\nA,7,2,1,0,100,,90,,,,,,,\n";
    let quotes = "ask,bid,seq,ts_ms,index,symbol\r\n101,100,1,5,0,A\r\n\r\n90,89,2,6,1,A\r\n";
    let mut out = Vec::new();
    replay(positions.as_bytes(), quotes.as_bytes(), Mode::Quotes, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "id,index,ts_ms,reason,fill,final_stop,pnl_points\n7,1,6,SL,89,90,-22\n"
    );
}
