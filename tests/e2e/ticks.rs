//! Many symbols for a long time: what API, worker and Redis hold of quotes stays. `tests/soak ticks` is the
//! long form.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass_testkit::{RedisServer, shared_postgres};

use crate::faults::Direct;
use crate::harness::{Home, SOON, wait};
use crate::isolation::status;
use crate::trading::{call, get, now_ms};

/// Quotes a second of each symbol.
const PER_S: u64 = 10;

/// What is held at one moment.
#[derive(Debug, Clone, Copy)]
struct Held {
    api_kib: u64,
    worker_kib: u64,
    redis_bytes: u64,
    streams: usize,
}

/// Numbers start above this, so that they do not grow by a digit while it is measured.
const FIRST: u64 = 10_000_000;

/// How many times it is looked while it is measured.
const PARTS: u64 = 5;

/// Feeds side by side, each with its own symbols.
const FEEDS: u64 = 4;

struct Feed<'a> {
    url: &'a str,
    symbols: u64,
    /// How many quotes of each symbol were sent.
    seq: u64,
    late: Duration,
}

impl Feed<'_> {
    /// A quote of each symbol, and another after a tenth of a second.
    fn run(&mut self, span: Duration) {
        let (before, this) = (self.seq, &*self);
        let lates: Vec<Duration> = std::thread::scope(|scope| {
            let feeds: Vec<_> = (0..FEEDS).map(|part| scope.spawn(move || this.part(part, span))).collect();
            feeds.into_iter().map(|feed| feed.join().unwrap()).collect()
        });
        self.seq = before + rounds(span);
        self.late = self.late.max(lates.into_iter().max().unwrap());
    }

    /// The quotes of one feed; answers how late it was at most.
    fn part(&self, part: u64, span: Duration) -> Duration {
        let (begun, mut late) = (Instant::now(), Duration::ZERO);
        let symbols: Vec<u64> = (0..self.symbols).filter(|n| n % FEEDS == part).collect();
        for round in 1..=rounds(span) {
            let (seq, ts_ms) = (FIRST + self.seq + round, now_ms());
            let quote = |n: &u64| {
                let bid = 107_000 + (seq * 7 + n) % 100;
                let (bid, ask) = (format!("1.{bid:06}"), format!("1.{:06}", bid + 2));
                json!({ "symbol": format!("S{n}"), "bid": bid, "ask": ask, "ts_ms": ts_ms, "seq": seq, "v": 1 })
            };
            let batch: Vec<Value> = symbols.iter().map(quote).collect();
            let answer = call("POST", &format!("{}/api/quotes", self.url), &json!(batch));
            assert_eq!(answer["accepted"], symbols.len(), "{answer}");
            let due = Duration::from_millis(round * 1_000 / PER_S);
            match due.checked_sub(begun.elapsed()) {
                Some(left) => std::thread::sleep(left),
                None => late = late.max(begun.elapsed().saturating_sub(due)),
            }
        }
        late
    }
}

/// Quotes of each symbol in so long.
fn rounds(span: Duration) -> u64 {
    span.as_secs() * PER_S
}

/// §8.20: 1,000 symbols at 10 quotes a second (100 symbols in short): after a warm-up in which all that is
/// remembered for minutes has filled up, nothing holds a tenth more at the end, streams are trimmed by age and size,
/// and candles keep up. The long form lets candles go after five minutes instead of an hour, which would be its
/// warm-up.
#[test]
fn many_symbols_hold_no_more_at_the_end_8_20() {
    let seconds: u64 = std::env::var("WINDLASS_SOAK_SECONDS").map_or(10, |s| s.parse().unwrap());
    let is_long = seconds >= 600;
    let (symbols, tick_s, candle_s) = if is_long { (1_000, 300, 300) } else { (100, 3, 3_600) };
    let (redis, postgres) = (RedisServer::start(), shared_postgres());
    let home = Home::on(&redis)
        .with("WINDLASS_MARKET_DATABASE_URL", &postgres.database())
        .with("WINDLASS_TICK_TTL_SECONDS", &tick_s.to_string())
        .with("WINDLASS_CANDLE_TTL_SECONDS", &candle_s.to_string());
    let (api, url) = home.serve(&["api"]);
    let worker = home.worker("trading", &[]);
    for n in 0..symbols {
        call("PUT", &format!("{url}/api/instruments/S{n}"), &json!({ "digits": 6 }));
    }
    let direct = Direct::to(&home, "trading");
    let held = || Held {
        api_kib: status(u64::from(api.pid()), "VmRSS:").unwrap(),
        worker_kib: status(u64::from(worker.pid()), "VmRSS:").unwrap(),
        redis_bytes: direct.info("memory", "used_memory").parse().unwrap(),
        streams: (0..symbols).map(|n| direct.text(&["XLEN", &format!("tick:S{n}")]).parse::<usize>().unwrap()).sum(),
    };
    let mut feed = Feed { url: &url, symbols, seq: 0, late: Duration::ZERO };
    // Ticks and candles stand for five minutes, and the worker remembers a candle of a quarter of an hour for eleven
    // minutes more.
    feed.run(Duration::from_secs(if is_long { 1_560 } else { tick_s * 3 / 2 }));
    let before = held();
    eprintln!("before {before:?}");
    for _ in 0..PARTS {
        feed.run(Duration::from_secs(seconds / PARTS));
        eprintln!("{:6} {:?}", feed.seq / PER_S, held());
    }
    let after = held();
    eprintln!("{} quotes, {:?} late at most", feed.seq * symbols, feed.late);
    for n in 0..symbols {
        let key = format!("tick:S{n}");
        let bytes: u64 = direct.text(&["MEMORY", "USAGE", &key, "SAMPLES", "0"]).parse().unwrap();
        assert!(bytes <= 100 * 1024, "{key} {bytes}");
    }
    wait(SOON, "the last quotes are in candles", || {
        let shown = get(&format!("{url}/api/candles/S{}?limit=500", symbols - 1));
        let minutes = shown["candles"].as_array().unwrap();
        minutes.iter().filter_map(|one| one["count"].as_u64()).sum::<u64>() == feed.seq
    });
    let stats = get(&format!("{url}/api/market/stats"));
    assert_eq!((&stats["gaps"], &stats["frozen_symbols"]), (&json!([]), &json!([])), "{stats}");
    let within = |what: &str, before: u64, after: u64, slack: u64| {
        assert!(after <= before + before / 10 + slack, "{what}: {before} before, {after} after");
    };
    // In its first minute an allocator still takes what it keeps.
    let settling = if is_long { 0 } else { 16 * 1024 };
    // A candle of every timeframe may begin in it.
    let begun = if is_long { 0 } else { symbols * 9 * 400 };
    within("API, KiB", before.api_kib, after.api_kib, settling);
    within("worker, KiB", before.worker_kib, after.worker_kib, settling);
    within("Redis, bytes", before.redis_bytes, after.redis_bytes, begun);
    within("entries of ticks", before.streams as u64, after.streams as u64, 0);
}
