//! `windlass market change | close | next | latency | audit`.

use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use windlass_market::Market;
use windlass_market::desk::{self, Closing};
use windlass_market::positions::{Change, Link, summary};
use windlass_market::price;
use windlass_market::rules::Reason;

use super::super::report;
use crate::cli::MarketChange;

/// Who does it, in the history of a position.
const ACTOR: &str = "cli";

/// What stands on the command line: nothing, `none`, or a value.
fn moved<T>(text: Option<&str>, read: impl Fn(&str) -> anyhow::Result<T>) -> anyhow::Result<Option<Option<T>>> {
    match text {
        None => Ok(None),
        Some("none") => Ok(Some(None)),
        Some(text) => Ok(Some(Some(read(text)?))),
    }
}

pub(super) async fn change(market: &Market, args: &MarketChange, as_json: bool) -> anyhow::Result<ExitCode> {
    let store = market.store().await?;
    let id = args.id;
    let position = store.get(id).await?.with_context(|| format!("there is no position {id}"))?;
    let digits = store.instrument(&position.symbol).await?.map_or(0, |instrument| instrument.digits);
    let level = |text: &str| price::parse(text, digits).with_context(|| format!("{text:?}, {digits} digits"));
    let number = |text: &str| text.parse().with_context(|| format!("{text:?} is no integer"));
    let change = Change {
        sl: moved(args.sl.as_deref(), level)?,
        tp: moved(args.tp.as_deref(), level)?,
        expires_at_ms: moved(args.expires_at_ms.as_deref(), number)?,
        version: args.version,
    };
    ensure!(
        change.sl.is_some() || change.tp.is_some() || change.expires_at_ms.is_some(),
        "nothing is to be changed: say --sl, --tp or --expires-at-ms"
    );
    let changed =
        desk::change(store, id, &change, ACTOR).await?.with_context(|| format!("there is no position {id}"))?;
    if as_json {
        report::json_line(&json!({ "position_id": id, "rules": changed.rules, "version": changed.version }));
    } else {
        report::line(format!("position {id} is changed: version {}", changed.version));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn close(market: &Market, id: i64, version: Option<i64>, as_json: bool) -> anyhow::Result<ExitCode> {
    let store = market.store().await?;
    let (word, closings) = match desk::close(store, id, version, Reason::Manual, ACTOR).await? {
        Closing::Closed(closings) => ("closed", closings),
        Closing::Asked => ("asked", Vec::new()),
        Closing::AlreadyClosed(closings) => ("already_closed", closings),
        Closing::Unknown => bail!("there is no position {id}"),
        Closing::VersionChanged(now) => bail!("position {id} has version {now}"),
        Closing::NoFreshPrice(symbol) => {
            bail!("{symbol} has no quote that is fresh enough; nothing closes on an old one")
        }
        Closing::Busy => bail!("others write position {id} over and over"),
        Closing::Refused(why) => bail!("position {id} is not closed: {why}"),
    };
    if as_json {
        report::json_line(&json!({ "outcome": word, "closings": closings }));
    } else {
        report::line(format!("position {id} is {}", word.replace('_', " ")));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn next(market: &Market, symbol: Option<&str>, limit: i64, as_json: bool) -> anyhow::Result<ExitCode> {
    let store = market.store().await?;
    let mut all = Vec::new();
    let instruments = match symbol {
        Some(symbol) => store.instrument(symbol).await?.into_iter().collect(),
        None => store.instruments().await?,
    };
    let quotes = store.last_quotes().await?;
    for instrument in instruments {
        let Some(quote) = quotes.get(&instrument.symbol) else { continue };
        let near = store.nearest(&instrument.symbol, quote, limit).await?;
        all.extend(near.into_iter().map(|near| (near, instrument.clone())));
    }
    all.sort_by_key(|(near, _)| (near.distance, near.id));
    all.truncate(usize::try_from(limit)?);
    let word = |is_stop: bool| if is_stop { "stop" } else { "target" };
    if as_json {
        let shown: Vec<Value> = all
            .iter()
            .map(|(near, i)| {
                json!({ "position_id": near.id, "symbol": i.symbol, "level": price::format(near.level, i.digits),
                        "distance_points": near.distance, "waits_for": word(near.is_stop) })
            })
            .collect();
        report::json_line(&json!(shown));
        return Ok(ExitCode::SUCCESS);
    }
    report::line(format!("{:>8} {:<12} {:>7} {:>14} {:>10}", "id", "symbol", "at its", "level", "points"));
    for (near, i) in &all {
        let level = price::format(near.level, i.digits);
        let waits_for = word(near.is_stop);
        report::line(format!("{:>8} {:<12} {waits_for:>7} {level:>14} {:>10}", near.id, i.symbol, near.distance));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn latency(market: &Market, closings: i64, as_json: bool) -> anyhow::Result<ExitCode> {
    let summary = summary(&market.store().await?.latencies(closings).await?);
    if as_json {
        report::json_line(&summary);
        return Ok(ExitCode::SUCCESS);
    }
    report::line(format!(
        "{} closings, in ms: {:>8} {:>8} {:>8} {:>8}",
        summary["closings"], "p50", "p99", "p99.9", "max"
    ));
    for (name, stage) in [
        ("feed → here", "feed_ms"),
        ("quote → decision", "decide_ms"),
        ("decision → closing", "commit_ms"),
        ("quote → closing", "total_ms"),
    ] {
        let of = &summary[stage];
        let (p50, p99, p99_9, max) = (&of["p50"], &of["p99"], &of["p99_9"], &of["max"]);
        report::line(format!("{name:<20} {p50:>8} {p99:>8} {p99_9:>8} {max:>8}"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn audit(
    market: &Market,
    links: Option<i64>,
    noted: Option<&Link>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let checked = market.store().await?.check_history(links, noted).await?;
    let intact = checked.broken.is_empty();
    let head = checked.head.as_ref().map(ToString::to_string);
    if as_json {
        report::json_line(&json!({
            "intact": intact, "links": checked.links, "unlinked": checked.unlinked, "head": head, "broken": checked.broken,
        }));
    } else {
        for broken in &checked.broken {
            let line = broken.audit_id.map_or(String::new(), |id| format!(", line {id} of the history"));
            report::line(format!("link {}{line}: {}", broken.n, broken.what.replace('_', " ")));
        }
        report::line(format!("{} links checked, {} lines not linked yet", checked.links, checked.unlinked));
        report::line(format!("head {}", head.as_deref().unwrap_or("none")));
    }
    Ok(if intact { ExitCode::SUCCESS } else { ExitCode::from(crate::telemetry::EXIT_ERROR) })
}
