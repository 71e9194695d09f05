//! `windlass market quotes | open | positions | explain | demo`: positions from the command line.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use windlass_market::Market;
use windlass_market::explain::explain;
use windlass_market::positions::{Account, Instrument, NewPosition, Page, Position, Positions, RawQuote};
use windlass_market::price;
use windlass_market::rules::{Distance, Rules, Side, Trail};

use super::super::report;
use crate::cli::{MarketDemo, MarketOpen};

/// Quotes taken in by one transaction.
const BATCH: usize = 1_000;

pub(super) async fn quotes(
    market: &Market,
    file: &std::path::Path,
    pace: Option<u32>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let store = market.store().await?;
    let reader = super::open(file)?;
    let mut total = json!({ "accepted": 0, "rejected": {} });
    let mut batch = Vec::new();
    for (line, text) in (1..).zip(reader.lines()) {
        let text = text.with_context(|| format!("file {}", file.display()))?;
        if line == 1 {
            ensure!(
                text.trim() == "symbol,ts_ms,seq,bid,ask",
                "the first line is {text:?}, not symbol,ts_ms,seq,bid,ask"
            );
            continue;
        }
        batch.push(quote(line, &text)?);
        if pace.is_none() && batch.len() == BATCH {
            add(&mut total, store, &mut batch).await?;
        }
    }
    match pace {
        Some(pace) => play(&mut total, store, batch, pace).await?,
        None => add(&mut total, store, &mut batch).await?,
    }
    if as_json {
        report::json_line(&total);
    } else {
        report::line(format!("{} quotes taken in, rejected: {}", total["accepted"], total["rejected"]));
    }
    Ok(ExitCode::SUCCESS)
}

/// One row of the file.
fn quote(line: i32, text: &str) -> anyhow::Result<RawQuote> {
    let values: Vec<&str> = text.trim().split(',').collect();
    let [symbol, ts_ms, seq, bid, ask] = values[..] else { bail!("line {line} has {} values, not 5", values.len()) };
    let number = |text: &str| text.parse().with_context(|| format!("line {line}: {text:?} is no integer"));
    let (symbol, bid, ask) = (symbol.to_owned(), bid.to_owned(), ask.to_owned());
    Ok(RawQuote { symbol, bid, ask, ts_ms: number(ts_ms)?, seq: number(seq)?, ..RawQuote::default() })
}

/// Takes recorded quotes in as if they came now: as far apart as they were, so many times as fast, stamped
/// anew and numbered above what is there.
async fn play(total: &mut Value, store: &Positions, quotes: Vec<RawQuote>, pace: u32) -> anyhow::Result<()> {
    let last = store.last_quotes().await?;
    let mut least: HashMap<String, i64> = HashMap::new();
    for quote in &quotes {
        let least = least.entry(quote.symbol.clone()).or_insert(quote.seq);
        *least = quote.seq.min(*least);
    }
    // How far the numbers of a symbol are moved up.
    let above = |symbol: &str| match (last.get(symbol), least.get(symbol)) {
        (Some(last), Some(least)) => (last.seq + 1 - least).max(0),
        _ => 0,
    };
    let (begun, first_ms) = (Instant::now(), quotes.first().map_or(0, |quote| quote.ts_ms));
    let mut waiting = quotes.into_iter().peekable();
    while waiting.peek().is_some() {
        let mut batch = Vec::new();
        let reached_ms = begun.elapsed().as_secs_f64() * 1_000.0 * f64::from(pace);
        while batch.len() < BATCH
            && let Some(next) = waiting.next_if(|quote| (quote.ts_ms - first_ms) as f64 <= reached_ms)
        {
            batch.push(next);
        }
        if batch.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let now_ms = store.now_ms().await?;
        for quote in &mut batch {
            quote.ts_ms = now_ms;
            quote.seq += above(&quote.symbol);
        }
        add(total, store, &mut batch).await?;
    }
    Ok(())
}

async fn add(total: &mut Value, store: &Positions, batch: &mut Vec<RawQuote>) -> anyhow::Result<()> {
    let taken = store.take_quotes(&std::mem::take(batch)).await?;
    total["accepted"] = (total["accepted"].as_u64().unwrap_or(0) + taken.accepted).into();
    for (why, count) in taken.rejected {
        let so_far = total["rejected"][why].as_u64().unwrap_or(0);
        total["rejected"][why] = (so_far + count).into();
    }
    Ok(())
}

pub(super) async fn open(market: &Market, args: &MarketOpen, as_json: bool) -> anyhow::Result<ExitCode> {
    let store = market.store().await?;
    let known = store.instrument(&args.symbol).await?;
    let instrument = match (known, args.digits) {
        (Some(known), _) => known,
        (None, Some(digits)) => {
            let new = Instrument::new(&args.symbol, digits);
            store.put_instrument(&new).await?;
            new
        }
        (None, None) => bail!("{} is not known yet: say its digits after the point with --digits", args.symbol),
    };
    let digits = instrument.digits;
    let read = |name: &str, text: &str| {
        price::parse(text, digits).with_context(|| format!("{name} {text:?}, {digits} digits"))
    };
    let level = |name: &str, text: &Option<String>| text.as_deref().map(|text| read(name, text)).transpose();
    let side = if args.short { Side::Short } else { Side::Long };
    let trail = args.trail_points.map(|points| Trail { distance: Distance::Points(points), activation: None, step: 1 });
    let rules = Rules {
        sl: level("--sl", &args.sl)?,
        tp: level("--tp", &args.tp)?,
        trail,
        ..Rules::new(side, args.qty, read("--entry", &args.entry)?)
    };
    if store.account(args.account).await?.is_none() {
        let account = Account { id: args.account, currency: "USD".to_owned(), balance: 0, calm: false };
        store.put_account(&account).await?;
    }
    let on = store.last_quote(&args.symbol).await?;
    let new = NewPosition { id: None, account_id: args.account, symbol: args.symbol.clone(), rules, on };
    let id = windlass_market::desk::open(store, &instrument, new, "cli").await?;
    if as_json {
        report::json_line(&json!({ "position_id": id }));
    } else {
        report::line(format!("position {id} is open"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn positions(market: &Market, with_closed: bool, as_json: bool) -> anyhow::Result<ExitCode> {
    let store = market.store().await?;
    let page = Page { with_closed, limit: 1_000, ..Page::default() };
    let all = store.list(&page).await?;
    if as_json {
        report::json_line(&json!(all.iter().map(position_json).collect::<Vec<_>>()));
        return Ok(ExitCode::SUCCESS);
    }
    report::line(format!(
        "{:>8} {:<12} {:<5} {:>10} {:>10} {:>10} {:>10} {:>10} {}",
        "id", "symbol", "side", "open", "entry", "stop", "by", "target", "status"
    ));
    for p in &all {
        let text = |value: Option<i64>| value.map_or("–".to_owned(), |value| value.to_string());
        let (stop, by) = p.track().stop().map_or((None, ""), |(stop, by)| (Some(stop), by.as_str()));
        let side = if p.rules.side == Side::Long { "long" } else { "short" };
        let status = json!(p.status);
        report::line(format!(
            "{:>8} {:<12} {side:<5} {:>10} {:>10} {:>10} {by:>10} {:>10} {}",
            p.id,
            p.symbol,
            p.open_qty,
            p.rules.entry,
            text(stop),
            text(p.rules.tp),
            status.as_str().unwrap_or_default()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn position_json(p: &Position) -> Value {
    json!({
        "position_id": p.id, "account_id": p.account_id, "symbol": p.symbol, "rules": p.rules, "open_qty": p.open_qty,
        "stop": p.track().stop(), "extreme": p.extreme, "status": p.status, "version": p.version,
    })
}

pub(super) async fn why(market: &Market, id: i64, as_json: bool) -> anyhow::Result<ExitCode> {
    let store = market.store().await?;
    let explained = explain(store, id).await?;
    let history = store.history(id, 0, 1_000).await?;
    ensure!(!history.is_empty(), "there is no position {id}");
    if as_json {
        report::json_line(&json!({ "closings": explained, "history": history }));
    } else {
        for line in &history {
            report::line(format!("{}  {:<10} {:<12} {}", line.at_ms, line.kind, line.actor, line.detail));
        }
        for e in &explained {
            let c = &e.closing;
            let level = c.level.map_or(String::new(), |level| format!(" at its level {level}"));
            let agrees = match e.agrees {
                Some(true) => "decided again: the same",
                Some(false) => "DECIDED AGAIN: NOT THE SAME",
                None => "asked for, not decided by a rule",
            };
            report::line(format!(
                "closed {} by {}{level}: quote {} bid {} ask {}, filled at {}; {agrees}",
                c.qty,
                c.reason.as_str(),
                c.quote.seq,
                c.quote.bid,
                c.quote.ask,
                c.fill
            ));
        }
    }
    let wrong = explained.iter().any(|e| e.agrees == Some(false));
    Ok(if wrong { ExitCode::from(crate::telemetry::EXIT_ERROR) } else { ExitCode::SUCCESS })
}

pub(super) async fn sweep(market: &Market, as_json: bool) -> anyhow::Result<ExitCode> {
    let report = market.sweep().await?;
    market.release().await?;
    if as_json {
        report::json_line(&serde_json::to_value(&report)?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(why) = report.skipped {
        report::line(format!("not swept: {}", why.replace('_', " ")));
        return Ok(ExitCode::SUCCESS);
    }
    report::line(format!(
        "{} positions watched, {} quotes taken in, {} closed",
        report.checked, report.quotes, report.closed
    ));
    for told in &report.closings {
        report::line(format!("  position {} closed by {} at {}", told.position_id, told.reason.as_str(), told.fill));
    }
    Ok(ExitCode::SUCCESS)
}

/// A hundred positions around the price, every third one trailing.
async fn demo_positions(store: &Positions, symbol: &str) -> anyhow::Result<Vec<i64>> {
    let mut ids = Vec::new();
    for n in 0..100_i64 {
        let side = if n % 2 == 0 { Side::Long } else { Side::Short };
        let at = |points: i64| 107_160 + side.sign() * points;
        let trail = (n % 3 == 0).then_some(Trail { distance: Distance::Points(30 + n), activation: None, step: 1 });
        let rules = Rules { sl: Some(at(-20 - n)), tp: Some(at(25 + n)), trail, ..Rules::new(side, 1_000, 107_160) };
        let new = NewPosition { id: None, account_id: 1, symbol: symbol.to_owned(), rules, on: None };
        ids.push(store.open(&new, "demo").await?);
    }
    Ok(ids)
}

/// A market of its own: quotes drawn from a seed, a hundred positions, and a sweep ten times a second.
pub(super) async fn demo(market: &Market, args: &MarketDemo, as_json: bool) -> anyhow::Result<ExitCode> {
    let store = market.store().await?;
    let say = |text: String| {
        if !as_json {
            report::line(text);
        }
    };
    let symbol = "DEMO.EURUSD";
    store.put_instrument(&Instrument::new(symbol, 5)).await?;
    store.put_account(&Account { id: 1, currency: "USD".to_owned(), balance: 0, calm: false }).await?;
    let mut feed = windlass_market::synthetic::Feed::new(args.seed, 107_160, 12);
    // Above what an earlier demo has left in the same tables.
    let first = store.last_quote(symbol).await?.map_or(1, |quote| quote.seq + 1);
    say(format!("positions lie in {}; quotes of {symbol} from seed {}\n", store.place(), args.seed));
    let ids = demo_positions(store, symbol).await?;
    say(format!("opened 100 positions, {} to {}", ids[0], ids[99]));
    let begun = Instant::now();
    let (mut closed, mut quotes, mut seq) = (0, 0, first);
    let mut every = tokio::time::interval(Duration::from_millis(100));
    while begun.elapsed() < Duration::from_secs(args.seconds) {
        every.tick().await;
        let now_ms = store.now_ms().await?;
        let batch: Vec<RawQuote> = (0..10)
            .map(|_| {
                let (bid, ask) = feed.next_quote();
                seq += 1;
                let text = |points| price::format(points, 5);
                RawQuote {
                    symbol: symbol.to_owned(),
                    bid: text(bid),
                    ask: text(ask),
                    ts_ms: now_ms,
                    seq,
                    ..RawQuote::default()
                }
            })
            .collect();
        quotes += store.take_quotes(&batch).await?.accepted;
        let done = market.sweep().await?;
        if let Some(why) = done.skipped {
            say(format!("  not swept: {why}"));
        }
        closed += done.closed;
        for told in &done.closings {
            say(format!(
                "  {:>6.1} s  position {:>4} closed by {:<5} at {}",
                begun.elapsed().as_secs_f64(),
                told.position_id,
                told.reason.as_str(),
                price::format(told.fill, 5)
            ));
        }
    }
    market.release().await?;
    let mut agree = 0;
    for id in &ids {
        agree += explain(store, *id).await?.iter().filter(|e| e.agrees == Some(true)).count();
    }
    say(format!("\n{quotes} quotes, {closed} positions closed; {agree} of them decided again with the same answer"));
    if as_json {
        report::json_line(&json!({ "quotes": quotes, "closed": closed, "agree": agree, "positions": ids.len() }));
    } else {
        say(format!("\n  windlass market positions\n  windlass market explain {}", ids[0]));
    }
    Ok(ExitCode::SUCCESS)
}
