//! Positions in another application's tables, with the real binary.

use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use windlass_testkit::shared_postgres;

use crate::harness::{Home, SOON, wait};
use crate::trading::{call, get, now_ms};

const TABLES: &str = "
CREATE TABLE trading_position(id bigint PRIMARY KEY, account_id bigint, symbol varchar(16), direction varchar(4),
  volume numeric(12,2), open_price numeric(20,8), stop_loss numeric(20,8), take_profit numeric(20,8),
  status varchar(8) DEFAULT 'open', close_price numeric(20,8), close_reason varchar(16), updated_at timestamptz DEFAULT now());
INSERT INTO trading_position VALUES (17, 1, 'EURUSD', 'BUY', 0.10, 1.072, 1.071, NULL);
";
const MAPPING: &str = r#"
[trading.db]
mode = "mapped"
open_positions = """SELECT id, account_id, symbol, direction AS side, volume AS qty, open_price AS entry, stop_loss AS sl,
  take_profit AS tp, updated_at AS version FROM trading_position WHERE status = 'open'"""
changed_since = """SELECT id, account_id, symbol, direction AS side, volume AS qty, open_price AS entry, stop_loss AS sl,
  take_profit AS tp, updated_at AS version FROM trading_position WHERE status = 'open' AND updated_at >= $1"""
close = """UPDATE trading_position SET status = 'closed', close_price = $2, close_reason = $3, updated_at = now()
  WHERE id = $1 AND status = 'open' AND updated_at = $4 RETURNING id"""
[trading.db.map]
qty_digits = 2
"#;

/// Runs a statement of the application; what it answers, without decoration.
fn psql(url: &str, sql: &str) -> String {
    let ran = Command::new("psql").args([url, "-qtA", "-v", "ON_ERROR_STOP=1", "-c", sql]).output();
    let ran = ran.expect("psql is there: Debian package postgresql-client");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_quote_closes_another_applications_row_8_25() {
    let postgres = shared_postgres();
    let database = postgres.database();
    psql(&database, TABLES);
    let home = Home::embedded().with("WINDLASS_MARKET_DATABASE_URL", &database);
    home.file("windlass.toml", MAPPING);
    let (mut up, url) = home.serve(&["up"]);
    call("PUT", &format!("{url}/api/instruments/EURUSD"), &json!({ "digits": 5 }));
    let quote = |seq: i64, bid: &str| {
        let body = json!([{ "symbol": "EURUSD", "bid": bid, "ask": bid, "ts_ms": now_ms(), "seq": seq }]);
        assert_eq!(call("POST", &format!("{url}/api/quotes"), &body)["accepted"], 1);
    };
    quote(1, "1.07200");
    wait(SOON, "their position is watched", || {
        get(&format!("{url}/api/positions"))["positions"].as_array().unwrap().iter().any(|p| p["position_id"] == 17)
    });
    assert_eq!(get(&format!("{url}/api/market/stats"))["unmapped"]["count"], 0);
    quote(2, "1.07090");
    wait(SOON, "their row is closed", || psql(&database, "SELECT status FROM trading_position") == "closed");
    assert_eq!(psql(&database, "SELECT close_price, close_reason FROM trading_position"), "1.07090000|SL");
    assert_eq!(get(&format!("{url}/api/positions/17/explain"))["agrees"], true);
    up.signal(Signal::TERM);
    assert_eq!(up.ended(SOON).code(), Some(0));
    // Without the guard nothing starts.
    psql(&database, "UPDATE trading_position SET status = 'open'");
    home.file("windlass.toml", MAPPING.replace("AND updated_at = $4", "AND $4::timestamptz IS NOT NULL"));
    for command in ["up", "api", "worker"] {
        let ran = home.run(&[command]);
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        assert!(ran.stderr.contains("[trading.db]") && ran.stderr.contains("compare the two"), "{ran:?}");
    }
}
