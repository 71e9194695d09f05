//! Quotes in, prices out, positions over HTTP; calm accounts.

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::{Value, json};
use windlass_api::ApiOptions;

use crate::support::{Answer, Bench};

impl Bench {
    async fn market(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// An instrument of 5 digits and two accounts, the second one calm.
    async fn traded(&self) {
        let made = self.market("PUT", "/api/instruments/EURUSD", json!({ "digits": 5 })).await;
        assert_eq!(made.status, StatusCode::OK, "{}", made.json());
        for (id, calm) in [(1, false), (2, true)] {
            let body = json!({ "currency": "USD", "calm": calm });
            assert_eq!(self.market("PUT", &format!("/api/accounts/{id}"), body).await.status, StatusCode::OK);
        }
    }

    /// Quotes from a number on, each of this moment.
    async fn quoted(&self, from: i64, bids: &[&str]) -> Value {
        let quote = |(seq, bid): (i64, &&str)| json!({ "symbol": "EURUSD", "bid": bid, "ask": bid, "ts_ms": now_ms(), "seq": seq, "v": 1 });
        let all: Vec<Value> = (from..).zip(bids).map(quote).collect();
        let answer = self.market("POST", "/api/quotes", json!(all)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json());
        answer.json()
    }

    async fn opened(&self, body: Value) -> i64 {
        let answer = self.market("POST", "/api/positions", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json());
        answer.json()["position_id"].as_i64().unwrap()
    }
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

#[tokio::test]
async fn quotes_go_in_and_prices_ticks_and_candles_come_out() {
    let bench = Bench::new();
    assert_eq!(bench.get("/api/prices/EURUSD").await.code(), "symbol_not_found");
    bench.traded().await;
    assert_eq!(bench.get("/api/prices/EURUSD").await.code(), "price_not_found");
    assert_eq!(bench.quoted(1, &["1.07160", "1.0717", "1.07150"]).await, json!({ "accepted": 3, "rejected": [] }));
    let price = bench.get("/api/prices/EURUSD").await.json();
    assert_eq!((&price["bid"], &price["seq"], &price["stale"]), (&json!("1.07150"), &json!(3), &json!(false)));
    assert_eq!(price["source"], "memory");
    let all = bench.get("/api/prices?symbols=EURUSD,NOPE").await.json();
    assert_eq!((all["prices"].as_array().unwrap().len(), &all["prices"][0]["symbol"]), (1, &json!("EURUSD")));
    let ticks = bench.get("/api/ticks/EURUSD?limit=2").await.json();
    assert_eq!((&ticks["ticks"][0]["bid"], &ticks["ticks"][1]["bid"]), (&json!("1.07170"), &json!("1.07150")));
    bench.api.market.roll_up().await.unwrap();
    let candles = bench.get("/api/candles/EURUSD?timeframe=D1").await.json();
    let day = candles["candles"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&candles["timeframe"], &day["close"], &day["low"]),
        (&json!("1d"), &json!("1.07150"), &json!("1.07150"))
    );
    assert_eq!(bench.get("/api/candles/EURUSD?timeframe=7m").await.code(), "query_invalid");
    assert_eq!(bench.get("/api/candles/EURUSD?timeframe=1s").await.code(), "query_invalid");
    assert_eq!(bench.get("/api/candles/NOPE").await.code(), "symbol_not_found");
    assert_eq!(bench.get("/api/ticks/EURUSD?limit=0").await.code(), "query_invalid");
}

/// B07, §8.16: what cannot be is told by its place and why, and everything else is kept.
#[tokio::test]
async fn quotes_that_cannot_be_are_rejected_one_by_one_8_16() {
    let bench = Bench::new();
    bench.traded().await;
    let quote = |bid: &str, ask: &str, seq: &str| {
        format!(r#"{{"symbol":"EURUSD","bid":{bid},"ask":{ask},"ts_ms":{},"seq":{seq}}}"#, now_ms())
    };
    let all = [
        quote("1.1", "1.2", "1"),
        quote("\"NaN\"", "1.2", "2"),
        quote("-1", "1.2", "3"),
        quote("1.3", "1.2", "4"),
        quote("0.30000000000000004", "1.2", "5"),
        quote("\"1e400\"", "99999999999999999", "6"),
        quote("null", "1.2", "7"),
        quote("1.1", "1.2", "-1"),
        quote("1.1", "1.2", "1"),
        r#"{"symbol":"NOPE","bid":1,"ask":1,"ts_ms":1,"seq":1}"#.to_owned(),
        "[1]".to_owned(),
        quote("1.10000", "1.2", "9"),
    ];
    let body = format!("[{}]", all.join(","));
    let answer = bench.send("POST", "/api/quotes", &[("content-type", "application/json")], body).await.json();
    let told: Vec<(u64, &str)> = answer["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reject| (reject["index"].as_u64().unwrap(), reject["code"].as_str().unwrap()))
        .collect();
    let expected = [
        (1, "not_a_number"),
        (2, "not_positive"),
        (3, "crossed"),
        (4, "surplus_digits"),
        (5, "too_large"),
        (6, "malformed"),
        (7, "negative_seq"),
        (8, "duplicate"),
        (9, "unknown_symbol"),
        (10, "malformed"),
    ];
    assert_eq!((answer["accepted"].as_u64(), told.as_slice()), (Some(2), expected.as_slice()));
    for bad in [json!(1), json!("x"), json!(null)] {
        assert_eq!(bench.market("POST", "/api/quotes", bad).await.code(), "body_invalid");
    }
    let many = format!("[{}]", vec!["1"; 50_001].join(","));
    let answer = bench.send("POST", "/api/quotes", &[("content-type", "application/json")], many).await;
    assert_eq!(answer.code(), "batch_too_large");
    let large = " ".repeat(10 * 1024 * 1024 + 1);
    let answer = bench.send("POST", "/api/quotes", &[("content-type", "application/json")], large).await;
    assert_eq!(answer.code(), "body_too_large");
}

/// A quote without a number counts once, however often it is sent.
#[tokio::test]
async fn quotes_without_a_number_are_numbered_by_their_time() {
    let bench = Bench::new();
    bench.traded().await;
    let (now, at) = (now_ms(), json!("1.1"));
    let batch = json!([
        { "symbol": "EURUSD", "bid": at, "ask": at, "ts_ms": now },
        { "symbol": "EURUSD", "bid": at, "ask": at, "ts_ms": now },
    ]);
    assert_eq!(bench.market("POST", "/api/quotes", batch.clone()).await.json()["accepted"], 2);
    let again = bench.market("POST", "/api/quotes", batch).await.json();
    assert_eq!((&again["accepted"], &again["rejected"][1]["code"]), (&json!(0), &json!("duplicate")));
    assert_eq!(bench.get("/api/prices/EURUSD").await.json()["seq"], now * 1_000 + 1);
}

#[tokio::test]
async fn a_position_is_opened_changed_watched_and_explained_8_12_8_29() {
    let bench = Bench::new();
    bench.traded().await;
    let body =
        json!({ "account_id": 1, "symbol": "EURUSD", "side": "long", "qty": 10, "sl": "1.07100", "tp": "1.07300" });
    assert_eq!(bench.market("POST", "/api/positions", body.clone()).await.code(), "no_fresh_price");
    bench.quoted(1, &["1.07200"]).await;
    let id = bench.opened(body.clone()).await;
    let other = bench.opened(body).await;
    let at = format!("/api/positions/{id}");
    let shown = bench.get(&at).await.json();
    assert_eq!(
        (&shown["entry"], &shown["sl"], &shown["stop"]["by"]),
        (&json!("1.07200"), &json!("1.07100"), &json!("SL"))
    );
    assert_eq!((&shown["price"], &shown["pnl_points"], &shown["version"]), (&json!("1.07200"), &json!("0"), &json!(1)));
    let next = bench.get("/api/positions/next?symbol=EURUSD").await.json();
    assert_eq!((&next["next"][0]["distance_points"], &next["next"][0]["source"]), (&json!(100), &json!("tables")));
    let changed = bench.market("PATCH", &at, json!({ "sl": "1.07150", "tp": null, "version": 1 })).await.json();
    assert_eq!((&changed["sl"], &changed["tp"], &changed["version"]), (&json!("1.07150"), &Value::Null, &json!(2)));
    assert_eq!(bench.market("PATCH", &at, json!({ "sl": "1.07", "version": 1 })).await.code(), "version_changed");
    let wrong = bench.market("PATCH", &at, json!({ "tp": "1.07" })).await;
    assert_eq!((wrong.code().as_str(), wrong.violations()[0].0.as_str()), ("position_invalid", "/tp"));
    assert_eq!(bench.market("PATCH", &at, json!({ "sl": "1.071501" })).await.violations()[0].1, "surplus_digits");

    bench.quoted(2, &["1.07140", "1.07200"]).await;
    let report = bench.api.market.sweep().await.unwrap();
    assert_eq!((report.closed, report.closings[0].position_id), (1, id));
    let next = bench.get("/api/positions/next").await.json();
    assert_eq!((&next["next"][0]["position_id"], &next["next"][0]["source"]), (&json!(other), &json!("index")));
    let closed = bench.get(&at).await.json();
    assert_eq!((&closed["status"], &closed["closings"][0]["fill"]), (&json!("closed"), &json!("1.07140")));
    let why = bench.get(&format!("{at}/explain")).await.json();
    assert_eq!((&why["agrees"], &why["closings"][0]["stop"]["price"]), (&json!(true), &json!("1.07150")));
    let history = bench.get(&format!("{at}/history")).await.json();
    let kinds: Vec<&str> = history["history"].as_array().unwrap().iter().map(|l| l["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["open", "modify", "close"]);
    let late = bench.market("POST", &format!("{at}/close"), json!({})).await;
    assert_eq!(
        (late.code().as_str(), &late.json()["position"]["closings"][0]["reason"]),
        ("already_closed", &json!("SL"))
    );
    let by_hand = bench.market("POST", &format!("/api/positions/{other}/close"), json!({ "version": 1 })).await.json();
    assert_eq!(
        (&by_hand["closings"][0]["reason"], &by_hand["closings"][0]["actor"]),
        (&json!("MANUAL"), &json!("api:loopback"))
    );
    let listed = bench.get("/api/positions?closed=true&limit=1").await.json();
    assert_eq!(listed["positions"][0]["position_id"], id);
    let cursor = listed["next"].as_str().unwrap();
    let rest = bench.get(&format!("/api/positions?closed=true&limit=1&cursor={cursor}")).await.json();
    assert_eq!(rest["positions"][0]["position_id"], other);
    assert_eq!(bench.get("/api/positions").await.json()["positions"], json!([]));
    let latency = bench.get("/api/market/latency").await.json();
    assert_eq!((&latency["closings"], &latency["total_ms"]["count"]), (&json!(1), &json!(1)));
    let stats = bench.get("/api/market/stats").await.json();
    assert_eq!((&stats["open_positions"], &stats["here"]["quotes_accepted"]), (&json!(0), &json!(3)));
}

#[tokio::test]
async fn what_is_wrong_with_a_position_is_named() {
    let bench = Bench::new();
    bench.traded().await;
    bench.market("PUT", "/api/instruments/EURUSD", json!({ "digits": 5, "min_stop_points": 50 })).await;
    bench.quoted(1, &["1.07200"]).await;
    let open = async |more: Value| {
        let mut body = json!({ "account_id": 1, "symbol": "EURUSD", "side": "long", "qty": 10 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        bench.market("POST", "/api/positions", body).await
    };
    for (more, code, violation) in [
        (json!({ "account_id": 9 }), "account_not_found", None),
        (json!({ "symbol": "NOPE" }), "symbol_not_found", None),
        (json!({ "side": "up" }), "body_invalid", None),
        (json!({ "qty": 0 }), "position_invalid", Some("out_of_range")),
        (json!({ "sl": "1.08", "tp": "1.07" }), "position_invalid", Some("stop_too_close")),
        (json!({ "sl": "1.07151" }), "position_invalid", Some("stop_too_close")),
        (json!({ "tp": "1.07249" }), "position_invalid", Some("target_too_close")),
        (json!({ "entry": "NaN" }), "position_invalid", Some("not_a_number")),
        (json!({ "trail": { "points": 1, "bps": 1 } }), "body_invalid", None),
        (json!({ "legs": [{ "leg": 1, "price": "1.08", "qty": 11 }] }), "position_invalid", Some("legs_over_qty")),
        (json!({ "stop": "1.07" }), "unknown_field", None),
    ] {
        let answer = open(more.clone()).await;
        assert_eq!(answer.code(), code, "{more}");
        assert!(violation.is_none_or(|code| answer.violations()[0].1 == code), "{more} {}", answer.json());
    }
    assert_eq!(open(json!({ "sl": "1.07150", "tp": "1.07250" })).await.status, StatusCode::CREATED);
    let digits = bench.market("PUT", "/api/instruments/EURUSD", json!({ "digits": 4 })).await;
    assert_eq!(digits.code(), "position_invalid");
    let calendar = bench.market("PUT", "/api/instruments/A", json!({ "digits": 2, "calendar": "soon" })).await;
    assert_eq!(calendar.violations()[0].1, "calendar_invalid");
    for path in ["/api/positions/x", "/api/positions/99"] {
        assert_eq!(bench.get(path).await.code(), "position_not_found");
    }
    assert_eq!(bench.get("/api/accounts/x").await.code(), "account_not_found");
}

/// §8.28: a caller without `trading:exact` never sees a number that a calm account's profit could be
/// told by, in nothing that is answered.
#[tokio::test]
async fn calm_accounts_show_bands_and_never_numbers_8_28() {
    let bench = Bench::for_keys(ApiOptions::default());
    let all = bench.key(&["*"], None).await;
    let user = bench.key(&["trading:read", "trading:write", "market:read"], None).await;
    let ask =
        async |key: &str, method: &str, path: &str, body: Option<Value>| bench.with_key(key, method, path, body).await;
    ask(&all, "PUT", "/api/instruments/EURUSD", Some(json!({ "digits": 5 }))).await;
    ask(&all, "PUT", "/api/accounts/2", Some(json!({ "currency": "USD", "calm": true }))).await;
    let quote = async |seq: i64, bid: &str| {
        let body = json!({ "symbol": "EURUSD", "bid": bid, "ask": bid, "ts_ms": now_ms(), "seq": seq });
        assert_eq!(ask(&all, "POST", "/api/quotes", Some(body)).await.status, StatusCode::ACCEPTED);
    };
    quote(1, "1.07200").await;
    let body = json!({ "account_id": 2, "symbol": "EURUSD", "side": "long", "qty": 12_347, "entry": "1.07189",
                       "sl": "1.06189", "tp": "1.09000" });
    let opened = ask(&user, "POST", "/api/positions", Some(body)).await;
    assert_eq!((opened.status, &opened.json()["calm"]["band"]), (StatusCode::CREATED, &json!("around_zero")));
    let id = opened.json()["position_id"].as_i64().unwrap();
    quote(2, "1.07700").await;
    bench.api.market.refresh_calm(None).await.unwrap();
    // 511 points of profit on 12,347 units; the first band stands for half an hour.
    let pnl = (107_700_i64 - 107_189) * 12_347;
    let at = format!("/api/positions/{id}");
    assert_eq!(ask(&all, "GET", &at, None).await.json()["pnl_points"], pnl.to_string());
    let seen = async |method: &str, path: &str, body: Option<Value>| {
        let answer = ask(&user, method, path, body).await;
        let text = String::from_utf8(answer.body.clone()).unwrap();
        for secret in [pnl.to_string().as_str(), "107189", "1.07189", "\"entry\"", "\"pnl_points\""] {
            assert!(!text.contains(secret), "{method} {path}: {secret} in {text}");
        }
        answer
    };
    assert_eq!(seen("GET", &at, None).await.json()["calm"]["band"], "above");
    seen("GET", "/api/positions?account_id=2", None).await;
    assert_eq!(seen("GET", "/api/positions/next", None).await.json()["next"], json!([]));
    // Of a short list too the calm one takes no place: the other account's, further away, is on it.
    ask(&all, "PUT", "/api/accounts/1", Some(json!({ "currency": "USD" }))).await;
    let body =
        json!({ "account_id": 1, "symbol": "EURUSD", "side": "long", "qty": 1, "entry": "1.08000", "sl": "1.01000" });
    let other = ask(&all, "POST", "/api/positions", Some(body)).await.json()["position_id"].clone();
    let next = seen("GET", "/api/positions/next?limit=1", None).await.json();
    assert_eq!((next["next"].as_array().unwrap().len(), &next["next"][0]["position_id"]), (1, &other));
    assert_eq!(seen("GET", &format!("{at}/history"), None).await.code(), "scope_missing");
    assert_eq!(seen("GET", &format!("{at}/explain"), None).await.code(), "scope_missing");
    seen("PATCH", &at, Some(json!({ "tp": "1.09100" }))).await;
    seen("GET", "/api/market/latency", None).await;
    let closed = seen("POST", &format!("{at}/close"), Some(json!({}))).await;
    assert_eq!(closed.json()["status"], "closed");
    assert_eq!(seen("POST", &format!("{at}/close"), Some(json!({}))).await.code(), "already_closed");
    assert_eq!(ask(&all, "GET", &at, None).await.json()["closings"][0]["pnl_points"], pnl.to_string());
}

/// compat §5: where nothing is known, prices and candles are made up if the settings say so; flagged, and
/// nothing is opened or closed on them.
#[tokio::test]
async fn made_up_prices_are_flagged_and_decide_nothing() {
    let bench = Bench::new();
    bench.traded().await;
    assert_eq!(bench.get("/api/prices/EURUSD").await.code(), "price_not_found", "not unless it is asked for");
    assert_eq!(bench.get("/api/candles/EURUSD").await.json()["candles"], json!([]));
    let options = windlass_market::prices::PriceOptions { synthetic: true, ..Default::default() };
    let bench = bench.pricing(options);
    let price = bench.get("/api/prices/EURUSD").await.json();
    assert_eq!((&price["source"], &price["stale"]), (&json!("synthetic"), &json!(true)));
    assert_eq!(bench.get("/api/prices").await.json()["prices"][0]["source"], "synthetic");
    let candles = bench.get("/api/candles/EURUSD?timeframe=5m&limit=7").await.json();
    assert_eq!((&candles["source"], candles["candles"].as_array().unwrap().len()), (&json!("synthetic"), 7));
    assert_eq!(bench.get("/api/prices/NOPE").await.code(), "symbol_not_found");
    let body = json!({ "account_id": 1, "symbol": "EURUSD", "side": "long", "qty": 1, "sl": "0.00001" });
    assert_eq!(bench.market("POST", "/api/positions", body).await.code(), "no_fresh_price");
    assert_eq!(bench.get("/api/positions/next").await.json()["next"], json!([]));
    // A true quote is shown at once, and bars are those of quotes as soon as there is one.
    bench.quoted(1, &["1.07160"]).await;
    assert_ne!(bench.get("/api/prices/EURUSD").await.json()["source"], "synthetic");
    bench.api.market.roll_up().await.unwrap();
    assert_ne!(bench.get("/api/candles/EURUSD").await.json()["source"], "synthetic");
}

/// §8.29: the chain over the history.
#[tokio::test]
async fn the_history_is_held_against_its_chain_8_29() {
    let bench = Bench::new();
    bench.traded().await;
    bench.quoted(1, &["1.07160"]).await;
    let id =
        bench.opened(json!({ "account_id": 1, "symbol": "EURUSD", "side": "long", "qty": 1, "sl": "1.06000" })).await;
    let found = bench.get("/api/market/audit").await.json();
    assert_eq!((&found["intact"], &found["unlinked"], &found["head"]), (&json!(true), &json!(1), &Value::Null));
    let store = bench.api.market.store().await.unwrap();
    store.link_history(0).await.unwrap();
    let found = bench.get("/api/market/audit").await.json();
    assert_eq!((&found["links"], &found["unlinked"]), (&json!(1), &json!(0)));
    let head = found["head"].as_str().unwrap();
    bench.market("PATCH", &format!("/api/positions/{id}"), json!({ "sl": "1.05000" })).await;
    store.link_history(0).await.unwrap();
    let later = bench.get(&format!("/api/market/audit?head={head}")).await.json();
    assert_eq!((&later["intact"], &later["links"]), (&json!(true), &json!(2)));
    let other = format!("1:{}", "0".repeat(64));
    let forged = bench.get(&format!("/api/market/audit?head={other}")).await.json();
    assert_eq!((&forged["intact"], &forged["broken"][0]["what"]), (&json!(false), &json!("head_differs")));
    assert_eq!(bench.get("/api/market/audit?head=x").await.code(), "query_invalid");
    assert_eq!(bench.get("/api/market/audit?links=0").await.code(), "query_invalid");
}

/// API1, API5: each verb needs its scope.
#[tokio::test]
async fn the_market_needs_its_scopes() {
    let bench = Bench::for_keys(ApiOptions::default());
    let read = bench.key(&["*:read"], None).await;
    for (method, path) in [
        ("POST", "/api/quotes"),
        ("PUT", "/api/instruments/A"),
        ("PUT", "/api/accounts/1"),
        ("POST", "/api/positions"),
        ("PATCH", "/api/positions/1"),
        ("POST", "/api/positions/1/close"),
        ("GET", "/api/accounts/1"),
        ("GET", "/api/market/audit"),
    ] {
        let body = (method != "GET").then(|| json!({}));
        assert_eq!(bench.with_key(&read, method, path, body).await.code(), "scope_missing", "{method} {path}");
    }
    let tenant = bench.key(&["*"], Some("acme")).await;
    assert_eq!(bench.with_key(&tenant, "GET", "/api/prices", None).await.code(), "tenant_refused");
    assert_eq!(bench.send("GET", "/api/prices", &[], Body::empty()).await.code(), "unauthorized");
}

/// Quotes over a WebSocket: each message is answered in its order, and the server's end closes it.
#[tokio::test]
async fn quotes_come_over_a_websocket() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;

    let bench = Bench::new();
    bench.traded().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
    };
    let served = tokio::spawn(windlass_api::serve(listener, bench.api.clone(), shutdown));
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{at}/api/quotes/socket")).await.unwrap();
    let mut say = async |text: String| -> Value {
        socket.send(Message::Text(text.into())).await.unwrap();
        let answer = tokio::time::timeout(std::time::Duration::from_secs(20), socket.next()).await.unwrap();
        serde_json::from_str(answer.unwrap().unwrap().to_text().unwrap()).unwrap()
    };
    let quote = |seq: i64| format!(r#"{{"symbol":"EURUSD","bid":1.1,"ask":1.2,"ts_ms":{},"seq":{seq}}}"#, now_ms());
    assert_eq!(say(quote(1)).await, json!({ "accepted": 1, "rejected": [] }));
    let both = say(format!("[{},{}]", quote(1), quote(2))).await;
    assert_eq!(both, json!({ "accepted": 1, "rejected": [{ "index": 0, "code": "duplicate" }] }));
    assert_eq!(say("{".to_owned()).await["code"], "json_invalid");
    assert_eq!(say("7".to_owned()).await["code"], "body_invalid");
    assert_eq!(say(quote(3)).await["accepted"], 1, "a bad message ends nothing");
    stop.send(()).unwrap();
    let end = tokio::time::timeout(std::time::Duration::from_secs(20), socket.next()).await.unwrap();
    assert!(matches!(end, Some(Ok(Message::Close(_)))), "{end:?}");
    served.await.unwrap().unwrap();
    assert_eq!(bench.get("/api/quotes/socket").await.code(), "body_invalid");
}
