//! Positions in another application's tables, with the real binary; and closed by its code.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use windlass_testkit::{PostgresServer, shared_postgres};

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

/// Keys and bodies of calls so far.
type Calls = Arc<Mutex<Vec<(String, Value)>>>;

/// An application that is called over HTTP: what it answers, call by call, each after so many ms; the last
/// answer is repeated. Its address, and what was called.
fn application(answers: &'static [(u64, &'static str, &'static str)]) -> (String, Calls) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/close", listener.local_addr().unwrap());
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let (stream, seen) = (stream.unwrap(), Arc::clone(&seen));
            let (pause_ms, status, body) = answers[n.min(answers.len() - 1)];
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut key, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    let Some((name, value)) = line.split_once(':') else {
                        if line.trim().is_empty() {
                            break;
                        }
                        continue;
                    };
                    match name.to_ascii_lowercase().as_str() {
                        "idempotency-key" => key = value.trim().to_owned(),
                        "content-length" => length = value.trim().parse().unwrap(),
                        "authorization" => assert_eq!(value.trim(), "Bearer geheim"),
                        _ => {}
                    }
                }
                let mut sent = vec![0; length];
                reader.read_exact(&mut sent).unwrap();
                seen.lock().unwrap().push((key, serde_json::from_slice(&sent).unwrap()));
                std::thread::sleep(Duration::from_millis(pause_ms));
                let length = body.len();
                let mut stream = stream;
                // Whoever gave up is gone.
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
            });
        }
    });
    (url, calls)
}

/// A desk whose position 17 is closed by an application at this address.
fn called(url: &str, attempts: u32) -> (Home, Arc<PostgresServer>) {
    let postgres = shared_postgres();
    let database = postgres.database();
    psql(&database, TABLES);
    let home = Home::embedded().with("WINDLASS_MARKET_DATABASE_URL", &database).with("WINDLASS_CALLBACK_KEY", "geheim");
    let close = MAPPING.find("close = ").unwrap()..MAPPING.find("[trading.db.map]").unwrap();
    let mut toml = MAPPING.replace("mode = \"mapped\"", "mode = \"task\"");
    toml = toml.replace(&MAPPING[close], "");
    home.file(
        "windlass.toml",
        format!("{toml}\n[trading.task]\nclose = \"{url}\"\ntimeout_seconds = 1\nattempts = {attempts}\n"),
    );
    (home, postgres)
}

/// Quotes that reach the stop of position 17.
fn reach_the_stop(url: &str) {
    call("PUT", &format!("{url}/api/instruments/EURUSD"), &json!({ "digits": 5 }));
    for (seq, bid) in [(1, "1.07200"), (2, "1.07090")] {
        let body = json!([{ "symbol": "EURUSD", "bid": bid, "ask": bid, "ts_ms": now_ms(), "seq": seq }]);
        assert_eq!(call("POST", &format!("{url}/api/quotes"), &body)["accepted"], 1);
        wait(SOON, "their position is known", || {
            get(&format!("{url}/api/positions?closed=true"))["positions"]
                .as_array()
                .unwrap()
                .iter()
                .any(|p| p["position_id"] == 17)
        });
    }
}

/// The first call gets no answer in time, the second fails, the third closes: under one key.
#[test]
fn an_applications_own_code_closes_under_one_key_8_26() {
    let (application, calls) =
        application(&[(1_500, "200 OK", "{}"), (0, "503 Busy", ""), (0, "200 OK", "{\"outcome\": \"closed\"}")]);
    let (home, _postgres) = called(&application, 5);
    let (mut up, url) = home.serve(&["up"]);
    reach_the_stop(&url);
    wait(SOON, "the position is closed", || get(&format!("{url}/api/positions/17"))["status"] == "closed");
    let shown = get(&format!("{url}/api/positions/17"));
    assert_eq!((&shown["closings"][0]["fill"], &shown["closings"][0]["reason"]), (&json!("1.07090"), &json!("SL")));
    let calls = calls.lock().unwrap().clone();
    assert!(
        calls.len() == 3 && calls.iter().all(|(key, body)| key == "close:17:0" && body["key"] == "close:17:0"),
        "{calls:?}"
    );
    assert_eq!((&calls[2].1["price"], &calls[2].1["reason"]), (&json!("1.07090"), &json!("SL")));
    up.signal(Signal::TERM);
    assert_eq!(up.ended(SOON).code(), Some(0));
}

/// Time-outs alone: the dead set and an alarm; the position stays closing.
#[test]
fn calls_that_time_out_end_in_the_dead_set_and_an_alarm_8_26() {
    let (application, calls) = application(&[(3_000, "200 OK", "{\"outcome\": \"closed\"}")]);
    let (home, _postgres) = called(&application, 2);
    let (mut up, url) = home.serve(&["up"]);
    reach_the_stop(&url);
    wait(SOON, "the alarm", || get(&format!("{url}/api/market/stats"))["callbacks"]["failed"] == 1);
    assert_eq!(get(&format!("{url}/api/positions/17"))["status"], "closing");
    assert_eq!(calls.lock().unwrap().len(), 2);
    let dead = get(&format!("{url}/api/queues/trading/dead"));
    assert_eq!((dead["tasks"].as_array().unwrap().len(), &dead["tasks"][0]["kind"]), (1, &json!("trading.call_close")));
    // Whoever sees jobs and counts sees no number of the account, nor what the application said.
    let id = dead["tasks"][0]["task_id"].as_str().unwrap();
    let task = get(&format!("{url}/api/tasks/{id}?include=args"));
    assert!(!dead.to_string().contains("1.0709") && !task.to_string().contains("1.0709"), "{task}");
    assert_eq!(task["args"], json!({ "key": "close:17:0" }));
    let first = &get(&format!("{url}/api/market/stats"))["callbacks"]["first"][0];
    assert_eq!((&first["key"], &first["error"]), (&json!("close:17:0"), &json!("callback_failed")));
    // A key that nobody asked for calls nobody.
    let forged = json!({ "kind": "trading.call_close", "args": { "key": "close:18:0" } });
    let forged = call("POST", &format!("{url}/api/tasks"), &forged)["task_id"].as_str().unwrap().to_owned();
    wait(SOON, "the forged one fails", || {
        get(&format!("{url}/api/tasks/{forged}"))["error"]["code"] == "closing_unknown"
    });
    assert_eq!(calls.lock().unwrap().len(), 2);
    wait(SOON, "the metric", || {
        let text = ureq::get(format!("{url}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
        text.lines().any(|line| line == "windlass_market_callbacks_failed 1")
    });
    up.signal(Signal::TERM);
    up.ended(SOON);
    assert!(up.log().contains("not closed by"), "{}", up.log());
}
