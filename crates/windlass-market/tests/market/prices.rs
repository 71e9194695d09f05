//! The price cache on a real Redis: keys, forms, lives and sizes; and without it.

use std::time::Duration;

use windlass_market::candle::{Candle, Timeframe};
use windlass_market::positions::Fresh;
use windlass_market::prices::{Format, PriceOptions, Prices, Source};
use windlass_market::rules::Quote;
use windlass_redis::{Link, Options, Value, cmd};
use windlass_testkit::RedisServer;

use crate::until;

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

fn link(server: &RedisServer) -> Link {
    Link::new(Options::from_url(&server.url()).unwrap()).unwrap()
}

fn cache(server: &RedisServer, format: Format) -> Prices {
    Prices::new(Some(link(server)), PriceOptions { format, ..PriceOptions::default() })
}

fn fresh(symbol: &str, seq: i64, bid: i64) -> Fresh {
    let quote = Quote { ts_ms: now_ms(), seq, bid, ask: bid + 13 };
    Fresh { symbol: symbol.to_owned(), digits: 5, quote, volume: 3, source: None }
}

/// One whose numbers have many digits.
fn long(seq: i64, bid: i64) -> Fresh {
    Fresh { volume: 123_456_789, ..fresh("EURUSD", 1_795_325_942_000 + seq, bid) }
}

async fn ask<T: windlass_redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let mut call = cmd(words[0]);
    call.arg(&words[1..]);
    T::from_redis_value(link(server).call(&call).await.unwrap()).unwrap()
}

#[tokio::test]
async fn prices_and_ticks_lie_under_the_old_names_with_their_lives() {
    let server = RedisServer::start();
    for format in [Format::Hash, Format::Json] {
        let _: Value = ask(&server, &["FLUSHALL"]).await;
        let writer = cache(&server, format);
        writer.put(&[fresh("EURUSD", 1, 107_160), fresh("EURUSD", 2, 107_161), fresh("GBPUSD", 1, 127_000)]);
        until("the quotes are written", async || writer.stats().written == 3).await;
        // Another process, with nothing in its memory.
        let reader = cache(&server, format);
        let price = reader.price("EURUSD").await.unwrap();
        assert_eq!((price.quote.bid, price.quote.seq, price.digits, price.volume), (107_161, 2, 5, 3));
        assert_eq!(price.source, Source::Redis);
        let ticks = reader.ticks("EURUSD", 5, 10).await.unwrap();
        assert_eq!(ticks.iter().map(|(quote, _)| quote.bid).collect::<Vec<_>>(), [107_160, 107_161]);
        let lives = async |key: &str| ask::<i64>(&server, &["PTTL", key]).await;
        assert!((8_000..=10_000).contains(&lives("price:EURUSD").await));
        assert!((290_000..=300_000).contains(&lives("tick:GBPUSD").await));
        // An older quote that comes late to Redis does not put the price back.
        cache(&server, format).put(&[fresh("EURUSD", 1, 1)]);
        let old = cache(&server, format);
        old.put(&[fresh("EURUSD", 1, 1)]);
        until("it is written", async || old.stats().written == 1).await;
        assert_eq!(reader.price("EURUSD").await.unwrap().quote.bid, 107_161);
        assert!(reader.price("NOPE").await.is_none());
    }
}

/// §8.32: a reader written for the replaced system finds what it wrote itself.
#[tokio::test]
async fn old_readers_find_the_old_values_8_32() {
    let server = RedisServer::start();
    let writer = cache(&server, Format::Json);
    let quote = Quote { ts_ms: 1_705_746_600_250, seq: 9, bid: 107_160, ask: 107_173 };
    writer.put(&[Fresh { symbol: "eurusd".to_owned(), digits: 5, quote, volume: 3, source: None }]);
    until("the quote is written", async || writer.stats().written == 1).await;
    let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/old_values.json")).unwrap();
    let text: String = ask(&server, &["GET", "price:EURUSD"]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), golden["price"]);
    // A stamp of 2024 is over: the set is empty at once. One of now stays.
    let quote = Quote { ts_ms: now_ms(), ..quote };
    writer.put(&[Fresh {
        symbol: "EURUSD".to_owned(),
        digits: 5,
        quote: Quote { seq: 10, ..quote },
        volume: 3,
        source: None,
    }]);
    until("the next one too", async || writer.stats().written == 2).await;
    let ticks: Vec<String> = ask(&server, &["ZRANGEBYSCORE", "tick:EURUSD", "0", "+inf"]).await;
    let tick: serde_json::Value = serde_json::from_str(&ticks[0]).unwrap();
    assert_eq!(
        (ticks.len(), &tick["price"], &tick["volume"]),
        (1, &golden["tick"]["price"], &golden["tick"]["volume"])
    );
    let candle = candle(1_705_746_600_000);
    assert!(writer.put_candles("eurusd", 5, &[(Timeframe::MINUTE, candle.clone())]).await);
    let text: String = ask(&server, &["GET", "candle:EURUSD:M1:20240120103000"]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), golden["candle"]);
    assert_eq!(writer.candle("EURUSD", 5, Timeframe::MINUTE, candle.start_ms).await, Some(candle));
}

fn candle(start_ms: i64) -> Candle {
    Candle {
        start_ms,
        o: 107_160,
        h: 107_190,
        l: 107_150,
        c: 107_170,
        ah: 107_203,
        al: 107_163,
        v: 12,
        n: 4,
        open_at: (start_ms, 1),
        close_at: (start_ms + 59_000, 4),
        rev: 0,
        is_final: true,
    }
}

/// §8.19: a candle stands an hour after its period, so a quiet day's is there in the evening.
#[tokio::test]
async fn candles_stand_until_an_hour_after_their_period_8_19() {
    let server = RedisServer::start();
    let cache = cache(&server, Format::Hash);
    let (start_ms, end_ms) = Timeframe::Day.period(now_ms(), None).unwrap();
    let day = candle(start_ms);
    assert!(cache.put_candles("EURUSD", 5, &[(Timeframe::Day, day.clone())]).await);
    let key = format!("candle:EURUSD:1d:{}", start_ms / 1_000);
    let left: i64 = ask(&server, &["PTTL", &key]).await;
    let expected = end_ms - now_ms() + 3_600_000;
    assert!((expected - 10_000..=expected + 10_000).contains(&left), "{left} {expected}");
    assert_eq!(cache.candle("EURUSD", 5, Timeframe::Day, start_ms).await, Some(day));
}

/// §8.20 and compat.md §5: at most 1 KB a price, 100 KB the ticks of a symbol, 50 KB the candles of a symbol
/// and timeframe, in both forms.
#[tokio::test]
async fn sizes_stay_within_what_was_promised_8_20() {
    let server = RedisServer::start();
    for format in [Format::Hash, Format::Json] {
        let _: Value = ask(&server, &["FLUSHALL"]).await;
        let cache = cache(&server, format);
        let size = async |key: &str| ask::<i64>(&server, &["MEMORY", "USAGE", key, "SAMPLES", "0"]).await;
        let put = async |from: i64, to: i64| {
            let batch: Vec<Fresh> = (from..to).map(|seq| long(seq, 123_107_160 + seq % 50)).collect();
            cache.put(&batch);
            until("a batch is written", async || cache.stats().written as i64 == to).await;
        };
        for from in (0..6_000).step_by(500) {
            put(from, from + 500).await;
        }
        for from in (6_000..6_132).step_by(11) {
            put(from, from + 11).await;
            // At any moment, not only after a batch that fills what lies together.
            let ticks = size("tick:EURUSD").await;
            assert!((40_000..=102_400).contains(&ticks), "{format:?} ticks {ticks}");
        }
        assert_eq!(cache.stats().dropped, 0);
        let price = size("price:EURUSD").await;
        assert!(price <= 1_024, "{format:?} price {price}");
        // What stands of minutes: an hour of them, and the one that goes on.
        let start_ms = now_ms() / 60_000 * 60_000;
        let minutes: Vec<_> = (0..61).map(|n| (Timeframe::MINUTE, candle(start_ms - n * 60_000))).collect();
        assert!(cache.put_candles("EURUSD", 5, &minutes).await);
        let keys: Vec<String> = ask(&server, &["KEYS", "candle:*"]).await;
        let mut sum = 0;
        for key in &keys {
            sum += size(key).await;
        }
        assert!(sum <= 50 * 1_024, "{format:?} {} candles {sum}", keys.len());
    }
}

/// §7, §8.13: without Redis prices come from memory, quotes do not wait for it, and nothing fails.
#[tokio::test]
async fn while_redis_is_away_this_process_answers_for_itself_8_13() {
    let server = RedisServer::start();
    let cache = cache(&server, Format::Hash);
    cache.put(&[fresh("EURUSD", 1, 107_160)]);
    until("the quote is written", async || cache.stats().written == 1).await;
    server.kill();
    cache.put(&[fresh("EURUSD", 2, 107_170)]);
    let price = cache.price("EURUSD").await.unwrap();
    assert_eq!((price.quote.bid, price.source), (107_170, Source::Memory));
    until("what Redis missed is counted", async || cache.stats().dropped == 1).await;
    assert!(!cache.put_candles("EURUSD", 5, &[(Timeframe::MINUTE, candle(0))]).await);
    assert!(cache.ticks("EURUSD", 5, 1).await.is_none());
    server.restart();
    until("the next quote is written", async || {
        let seq = i64::try_from(cache.stats().written + cache.stats().dropped).unwrap() + 10;
        cache.put(&[fresh("EURUSD", seq, 107_180)]);
        tokio::time::sleep(Duration::from_millis(50)).await;
        cache.price("EURUSD").await.is_some_and(|price| price.source == Source::Redis && price.quote.bid == 107_180)
    })
    .await;
}
