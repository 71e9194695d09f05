//! Positions closing on live quotes: everything in one process, and API and worker apart.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use windlass_testkit::{RedisServer, shared_postgres};

use crate::harness::{Home, SOON, wait};

pub(crate) fn call(method: &str, url: &str, body: &Value) -> Value {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = ureq::http::Request::builder().method(method).uri(url).header("content-type", "application/json");
    let mut answer = agent.run(request.body(body.to_string()).unwrap()).unwrap();
    let status = answer.status();
    let body = answer.body_mut().read_json().unwrap_or(Value::Null);
    assert!(status.is_success(), "{method} {url}: {status} {body}");
    body
}

pub(crate) fn get(url: &str) -> Value {
    ureq::get(url).call().unwrap().body_mut().read_json().unwrap()
}

pub(crate) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

pub(crate) struct Desk {
    url: String,
    seq: i64,
}

impl Desk {
    pub(crate) fn new(url: &str) -> Self {
        call("PUT", &format!("{url}/api/instruments/EURUSD"), &json!({ "digits": 5 }));
        call("PUT", &format!("{url}/api/accounts/1"), &json!({ "currency": "USD" }));
        Self { url: url.to_owned(), seq: 0 }
    }

    pub(crate) fn quote(&mut self, bid: &str) {
        self.seq += 1;
        let body = json!([{ "symbol": "EURUSD", "bid": bid, "ask": bid, "ts_ms": now_ms(), "seq": self.seq }]);
        assert_eq!(call("POST", &format!("{}/api/quotes", self.url), &body)["accepted"], 1);
    }

    fn open(&self, sl: &str) -> i64 {
        let body = json!({ "account_id": 1, "symbol": "EURUSD", "side": "long", "qty": 10, "sl": sl });
        call("POST", &format!("{}/api/positions", self.url), &body)["position_id"].as_i64().unwrap()
    }

    pub(crate) fn closed(&self, id: i64) -> Value {
        let mut shown = Value::Null;
        wait(SOON, "the position closes", || {
            shown = get(&format!("{}/api/positions/{id}", self.url));
            shown["status"] == "closed"
        });
        shown
    }
}

/// §8.27: no server but this one; a stop closes on the quote that reaches it.
#[test]
fn up_closes_positions_on_live_quotes_without_any_server_8_27() {
    let home = Home::embedded();
    let (mut up, url) = home.serve(&["up"]);
    let mut desk = Desk::new(&url);
    desk.quote("1.07200");
    let id = desk.open("1.07100");
    let begun = Instant::now();
    desk.quote("1.07090");
    let closed = desk.closed(id);
    assert_eq!((&closed["closings"][0]["reason"], &closed["closings"][0]["fill"]), (&json!("SL"), &json!("1.07090")));
    assert!(begun.elapsed() < Duration::from_secs(4), "not by the sweep of every 5 s: {:?}", begun.elapsed());
    assert_eq!(get(&format!("{url}/api/positions/{id}/explain"))["agrees"], true);
    wait(SOON, "candles are rolled up", || {
        get(&format!("{url}/api/candles/EURUSD"))["candles"].as_array().unwrap().iter().any(|c| c["low"] == "1.07090")
    });
    assert_eq!(get(&format!("{url}/api/prices/EURUSD"))["bid"], "1.07090");
    let latency = home.json(&["market", "latency"]);
    assert_eq!(latency["closings"], 1);
    // The command line speaks to the same tables.
    let other = desk.open("1.07000");
    let changed = home.json(&["market", "change", &other.to_string(), "--sl", "1.07050"]);
    assert_eq!(changed["version"], 2);
    assert_eq!(home.json(&["market", "next"])[0]["position_id"], other);
    desk.quote("1.07080");
    let outcome = home.json(&["market", "close", &other.to_string()]);
    assert_eq!((&outcome["outcome"], &outcome["closings"][0]["reason"]), (&json!("closed"), &json!("MANUAL")));
    assert_eq!(home.json(&["market", "close", &other.to_string()])["outcome"], "already_closed");
    up.signal(Signal::TERM);
    assert_eq!(up.ended(SOON).code(), Some(0));
}

/// §8.9, §8.13: API and two workers on Redis and PostgreSQL. The one that watches is killed, and the other takes
/// over; Redis goes away, and stops close all the same.
#[test]
fn api_and_workers_apart_close_over_kills_and_without_redis_8_9_8_13() {
    let (redis, postgres) = (RedisServer::start(), shared_postgres());
    let home = Home::on(&redis).with("WINDLASS_MARKET_DATABASE_URL", &postgres.database());
    let (_api, url) = home.serve(&["api"]);
    let first = home.worker("trading", &[]);
    let mut desk = Desk::new(&url);
    desk.quote("1.07200");
    let (a, b, c) = (desk.open("1.07100"), desk.open("1.07000"), desk.open("1.06900"));
    desk.quote("1.07090");
    desk.closed(a);
    wait(SOON, "prices are shared", || get(&format!("{url}/api/prices/EURUSD"))["source"] == "redis");
    let _second = home.worker("trading", &[]);
    first.kill();
    desk.quote("1.06990");
    desk.closed(b);
    redis.kill();
    desk.quote("1.06890");
    let closed = desk.closed(c);
    assert_eq!(closed["closings"][0]["fill"], "1.06890");
    let price = get(&format!("{url}/api/prices/EURUSD"));
    assert_eq!((&price["bid"], &price["source"]), (&json!("1.06890"), &json!("memory")));
    let stats = get(&format!("{url}/api/market/stats"));
    assert_eq!(
        (&stats["open_positions"], &stats["frozen_symbols"], &stats["gaps"]),
        (&json!(0), &json!([]), &json!([]))
    );
    let page = ureq::get(format!("{url}/positions")).call().unwrap().body_mut().read_to_string().unwrap();
    for id in [a, b, c] {
        assert!(page.contains(&format!("id=\"closing-{id}-0\"")), "{page}");
    }
    assert_eq!(page.matches("agrees").count(), 3, "{page}");
}

/// §8.10: the worker that watches stands still (SIGSTOP) while a stop is moved away and the old level is reached;
/// another one takes over, and the first one, woken, closes nothing at the old level.
#[test]
fn a_worker_that_stood_still_closes_nothing_at_the_old_level_8_10() {
    let (redis, postgres) = (RedisServer::start(), shared_postgres());
    let home = Home::on(&redis).with("WINDLASS_MARKET_DATABASE_URL", &postgres.database());
    let (_api, url) = home.serve(&["api"]);
    let first = home.worker("trading", &[]);
    let mut desk = Desk::new(&url);
    desk.quote("1.07200");
    let (watched, moved, other) = (desk.open("1.07150"), desk.open("1.07100"), desk.open("1.07060"));
    desk.quote("1.07140");
    desk.closed(watched);
    first.signal(Signal::STOP);
    let change = json!({ "sl": "1.06000" });
    assert_eq!(call("PATCH", &format!("{url}/api/positions/{moved}"), &change)["sl"], "1.06000");
    desk.quote("1.07090");
    let _second = home.worker("trading", &[]);
    desk.quote("1.07050");
    desk.closed(other);
    first.signal(Signal::CONT);
    // The first one has decided again once it has seen a quote that came after it woke.
    desk.quote("1.07080");
    let last = desk.open("1.07075");
    desk.quote("1.07070");
    desk.closed(last);
    let shown = get(&format!("{url}/api/positions/{moved}"));
    assert_eq!(
        (&shown["status"], &shown["sl"], shown["closings"].as_array().unwrap().len()),
        (&json!("open"), &json!("1.06000"), 0)
    );
}

/// §8.30: the same recorded quotes at two paces close the same positions at the same prices, live.
#[test]
fn recorded_quotes_close_the_same_at_every_pace_8_30() {
    let mut feed = windlass_market::synthetic::Feed::new(7, 107_160, 12);
    let mut file = "symbol,ts_ms,seq,bid,ask\n".to_owned();
    let text = |points| windlass_market::price::format(points, 5);
    for n in 0..400_i64 {
        let (bid, ask) = feed.next_quote();
        file.push_str(&format!("EURUSD,{},{},{},{}\n", 1_700_000_000_000 + n * 50, n + 1, text(bid), text(ask)));
    }
    let closed = |pace: &str| {
        let home = Home::embedded();
        let quotes = home.file("quotes.csv", &file);
        let (_up, url) = home.serve(&["up"]);
        let mut desk = Desk::new(&url);
        desk.quote("1.07160");
        let ids: Vec<i64> = (1..=8).map(|n| desk.open(&text(107_155 - n * 4))).collect();
        let begun = Instant::now();
        let taken = home.json(&["market", "quotes", quotes.to_str().unwrap(), "--pace", pace]);
        assert_eq!((&taken["accepted"], &taken["rejected"]), (&json!(400), &json!({})));
        let took = begun.elapsed();
        wait(SOON, "all quotes are decided on", || {
            let stats = get(&format!("{url}/api/market/stats"));
            let before = stats["here"]["passes"].as_u64().unwrap();
            wait(SOON, "two passes more", || {
                get(&format!("{url}/api/market/stats"))["here"]["passes"].as_u64().unwrap() > before + 1
            });
            true
        });
        let all: Vec<Value> = ids
            .iter()
            .map(|id| {
                get(&format!("{url}/api/positions/{id}"))["closings"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|c| json!([c["reason"], c["fill"], c["quote_seq"], c["pnl_points"]]))
                    .collect()
            })
            .collect();
        (all, took)
    };
    let ((slow, took), (fast, _)) = (closed("10"), closed("1000"));
    assert_eq!(slow, fast);
    assert!(took >= Duration::from_millis(1_900), "twenty seconds at ten times the pace: {took:?}");
    assert!(slow.iter().any(|closings| closings != &json!([])), "some closed");
}
