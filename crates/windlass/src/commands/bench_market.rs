//! `windlass bench market`: a million open positions on this machine. It checks what it did and prints no
//! figure when a closing is missing.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use windlass_jobs::new_ulid;
use windlass_market::engine::Engine;
use windlass_market::kinds::mark;
use windlass_market::positions::{Account, Instrument, Positions, RawQuote, Seed};
use windlass_market::prices::PriceOptions;
use windlass_market::rules::{Rules, Side};
use windlass_market::{Market, Where};

use super::report;
use crate::cli::BenchMarket;
use crate::settings::Settings;

/// Symbols that positions are spread over.
const SYMBOLS: i64 = 50;
/// Positions that one sweep closes.
const HITS: i64 = 3_000;
/// Positions of the first mark.
const MARKED: i64 = 100_000;
/// The price of all symbols, in points.
const PRICE: i64 = 1_000_000;
/// Points between the price and the first stop.
const AWAY: i64 = 1_000;
/// Live quotes a second, and closings among them.
const QUOTES_PER_S: u64 = 1_000;
const CLOSINGS_PER_S: u64 = 20;
/// The symbol of the live quotes.
const LIVE: &str = "LIVE";

pub(crate) async fn run(settings: &Settings, args: &BenchMarket, as_json: bool) -> anyhow::Result<ExitCode> {
    let scratch = settings.data_dir.join(format!("bench-{}", new_ulid().to_string().to_ascii_lowercase()));
    let at = match &args.database_url {
        Some(url) => Where::Postgres(url.clone()),
        None => Where::Sqlite(scratch.join("market.db")),
    };
    let measured = Box::pin(measure(&at, args, as_json)).await;
    if args.database_url.is_none() {
        let _ = tokio::fs::remove_dir_all(&scratch).await;
    }
    let figures = measured?;
    if as_json {
        report::json_line(&figures);
    }
    Ok(ExitCode::SUCCESS)
}

fn market(at: &Where) -> Market {
    Market::new(at.clone(), &new_ulid().to_string(), None, PriceOptions::default())
}

async fn measure(at: &Where, args: &BenchMarket, quiet: bool) -> anyhow::Result<Value> {
    let say = |what: &str, figure: f64, unit: &str| {
        if !quiet {
            report::line(format!("{what:<44} {figure:>10.2} {unit}"));
        }
    };
    let opened = market(at);
    let store = opened.store().await?;
    ensure!(store.count_open().await? == 0, "there are positions in this database: the bench needs an empty one");
    prepare(store).await?;
    seed(store, 1, MARKED).await?;
    quotes(store, 1, PRICE, 1).await?;
    let marked = mark(store).await?;
    ensure!(marked["positions"] == MARKED, "marked {}", marked["positions"]);
    let begun = Instant::now();
    mark(store).await?;
    let mark_ms = ms(begun);
    say("mark of 100,000 positions", mark_ms, "ms");
    seed(store, MARKED + 1, args.positions).await?;

    let mut engine = Engine::new(store.clone(), "bench");
    let begun = Instant::now();
    let loaded = engine.sweep().await?;
    let load_s = ms(begun) / 1_000.0;
    ensure!(loaded.closed == 0, "nothing was to close");
    say("load of all positions", load_s, "s");
    let mut idle = Vec::new();
    for round in 0..5 {
        // Ten quotes of each symbol, none of which reaches a stop.
        quotes(store, 2 + round * 10, PRICE - AWAY + 10, 10).await?;
        let begun = Instant::now();
        let swept = engine.sweep().await?;
        idle.push(ms(begun));
        ensure!(
            swept.closed == 0 && swept.quotes == 500 && swept.checked == args.positions.unsigned_abs(),
            "{swept:?}"
        );
    }
    idle.sort_by(f64::total_cmp);
    say("sweep of all without hits, 500 quotes", idle[2], "ms");
    // Longs have their stops one point apart below the price.
    quotes(store, 60, PRICE - AWAY - HITS / SYMBOLS + 1, 1).await?;
    let begun = Instant::now();
    let swept = engine.sweep().await?;
    let hits_ms = ms(begun);
    ensure!(swept.closed == HITS.unsigned_abs(), "{} closed, not {HITS}", swept.closed);
    say("sweep with 3,000 hits, committed", hits_ms, "ms");
    let rss_mib = rss_mib();
    engine.release().await?;
    drop(engine);
    let live = live(at, args.seconds).await?;
    for (name, of) in [("p50", "p50_ms"), ("p99", "p99_ms"), ("max", "max_ms")] {
        say(&format!("quote to commit, {name}"), live[of].as_f64().unwrap_or(0.0), "ms");
    }
    let engine = if store.is_embedded() { "sqlite" } else { "postgres" };
    Ok(json!({
        "engine": engine,
        "positions": args.positions,
        "mark_100k_ms": mark_ms.round(),
        "load_s": (load_s * 100.0).round() / 100.0,
        "sweep_no_hits_ms": (idle[2] * 100.0).round() / 100.0,
        "sweep_3000_hits_ms": hits_ms.round(),
        "rss_mib": rss_mib,
        "live": live,
        "versions": { "windlass": env!("CARGO_PKG_VERSION"), "build": if cfg!(debug_assertions) { "debug" } else { "release" } },
    }))
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}

/// What this process holds, in MiB.
fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1_024
}

fn symbol(n: i64) -> String {
    format!("S{:02}", n % SYMBOLS)
}

async fn prepare(store: &Positions) -> anyhow::Result<()> {
    for n in 0..SYMBOLS {
        store.put_instrument(&Instrument::new(&symbol(n), 5)).await?;
    }
    store.put_instrument(&Instrument::new(LIVE, 5)).await?;
    let account = Account { id: 1, currency: "USD".to_owned(), balance: 0, calm: false };
    Ok(store.put_account(&account).await?)
}

/// Positions `from` to `to`: of each symbol longs with stops one point apart below the price.
async fn seed(store: &Positions, from: i64, to: i64) -> anyhow::Result<()> {
    let symbols: Vec<String> = (0..SYMBOLS).map(symbol).collect();
    for start in (from..=to).step_by(100_000) {
        let end = to.min(start + 99_999);
        let one = |id: i64| {
            let depth = AWAY + (id - 1) / SYMBOLS;
            let rules =
                Rules { sl: Some(PRICE - depth), tp: Some(PRICE + depth), ..Rules::new(Side::Long, 1_000, PRICE) };
            Seed { id, symbol: &symbols[usize::try_from((id - 1) % SYMBOLS).unwrap_or(0)], rules }
        };
        store.seed(&(start..=end).map(one).collect::<Vec<_>>()).await?;
    }
    Ok(())
}

fn raw(symbol: &str, seq: i64, bid: i64, ts_ms: i64) -> RawQuote {
    let text = |points| windlass_market::price::format(points, 5);
    let (bid, ask) = (text(bid), text(bid + 2));
    RawQuote { symbol: symbol.to_owned(), bid, ask, ts_ms, seq, ..RawQuote::default() }
}

/// `each` quotes of every symbol at one price, numbered from `seq` on.
async fn quotes(store: &Positions, seq: i64, bid: i64, each: i64) -> anyhow::Result<()> {
    let now_ms = store.now_ms().await?;
    let of = |n: i64| (0..each).map(move |place| (n, seq + place));
    let batch: Vec<RawQuote> = (0..SYMBOLS).flat_map(of).map(|(n, seq)| raw(&symbol(n), seq, bid, now_ms)).collect();
    let taken = store.take_quotes(&batch).await?;
    ensure!(taken.rejected.is_empty(), "rejected: {:?}", taken.rejected);
    Ok(())
}

/// Quotes one by one, some of which close one position each: from the moment a quote is handed over to the
/// one at which the commit of its closing is known.
async fn live(at: &Where, seconds: u64) -> anyhow::Result<Value> {
    let market = market(at);
    let store = market.store().await?;
    let count = i64::try_from(seconds * CLOSINGS_PER_S)?;
    // Far above all other numbers.
    let first = 100_000_000;
    let rules = |n: i64| Rules { sl: Some(PRICE - n), ..Rules::new(Side::Long, 1_000, PRICE) };
    let seeds: Vec<Seed<'_>> = (1..=count).map(|n| Seed { id: first + n, symbol: LIVE, rules: rules(n) }).collect();
    store.seed(&seeds).await?;
    store.take_quotes(&[raw(LIVE, 1, PRICE, store.now_ms().await?)]).await?;
    let watcher = market.watch();
    let mut closings = market.closings();
    // The load is over when the first quote is decided on.
    let begun = Instant::now();
    while market.counters().passes == 0 {
        ensure!(begun.elapsed() < Duration::from_secs(60), "positions are not watched");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut sent: HashMap<i64, Instant> = HashMap::new();
    let (mut seq, mut closing) = (1_i64, 0_i64);
    let mut every = tokio::time::interval(Duration::from_micros(1_000_000 / QUOTES_PER_S));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let begun = Instant::now();
    for n in 0..seconds * QUOTES_PER_S {
        every.tick().await;
        seq += 1;
        if n % (QUOTES_PER_S / CLOSINGS_PER_S) == 0 {
            closing += 1;
            sent.insert(first + closing, Instant::now());
        }
        let now_ms = windlass_jobs::millis(
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("the clock")?,
        );
        let (market, quote) = (market.clone(), raw(LIVE, seq, PRICE - closing, now_ms));
        // A feed does not wait for the one before.
        tokio::spawn(async move { market.take_quotes(vec![quote]).await });
    }
    let took = begun.elapsed();
    let mut latency = Histogram::<u64>::new(3)?;
    for _ in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(10), closings.recv()).await;
        let (at, told) = next.context("a closing is missing")?.context("the market is gone")?;
        let sent = sent.remove(&told.position_id).context("a position closed twice, or another one")?;
        latency.record(u64::try_from(at.duration_since(sent).as_micros())?)?;
    }
    watcher.stop().await;
    let at = |quantile: f64| {
        let us = u32::try_from(latency.value_at_quantile(quantile)).unwrap_or(u32::MAX);
        f64::from(us) / 1_000.0
    };
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown in whole quotes")]
    let per_s = ((seconds * QUOTES_PER_S) as f64 / took.as_secs_f64()).round();
    Ok(
        json!({ "seconds": seconds, "quotes_per_s": per_s, "closings": count, "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0) }),
    )
}
