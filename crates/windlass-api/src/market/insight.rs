//! `/api/market`: how long closings take, what has been done, and whether the history is as it was
//! written.

use std::collections::HashMap;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_market::positions::{Instrument, Link, Waiting, summary};

use crate::Shared;
use crate::caching::query;
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Last {
    closings: Option<i64>,
}

/// Closings that latencies are told of unless the caller says.
pub(crate) const CLOSINGS: i64 = 1_000;
/// And at most.
const MAX_CLOSINGS: i64 = 100_000;

/// `GET /api/market/latency`: percentiles of quote → decision → closing over the last closings.
pub(crate) async fn latency(
    State(shared): State<Shared>,
    last: Result<Query<Last>, QueryRejection>,
) -> Result<Response, Problem> {
    let closings = query(last, "?closings=")?.closings.unwrap_or(CLOSINGS);
    if !(1..=MAX_CLOSINGS).contains(&closings) {
        return Err(Problem::new(Code::QueryInvalid, format!("closings: {closings}; 1 to {MAX_CLOSINGS} is allowed")));
    }
    Ok(axum::Json(latencies(&shared, closings).await?).into_response())
}

/// How long the last closings took.
pub(crate) async fn latencies(shared: &Shared, closings: i64) -> Result<Value, Problem> {
    Ok(summary(&shared.market.store().await?.latencies(closings).await?))
}

/// Positions of another application that are named when they are not watched, or not closed by it.
const NAMED: i64 = 20;

/// `GET /api/market/stats`: what this process has done; positions that are open, symbols of which no quote
/// comes, the last times that quotes were lost, and which positions of another application are not watched.
pub(crate) async fn stats(State(shared): State<Shared>) -> Result<Response, Problem> {
    let store = shared.market.store().await?;
    let instruments = store.instruments().await?;
    let (mut stats, (unmapped, named)) = (standing(&shared, &instruments).await?, store.unmapped(NAMED).await?);
    let named: Vec<Value> = named.iter().map(|(id, why)| json!({ "id": id, "why": why })).collect();
    stats["unmapped"] = json!({ "count": unmapped, "first": named });
    let believed = store.sources().await?;
    let believed: Value = believed.iter().map(|(symbol, sources)| (symbol.clone(), json!(sources.active()))).collect();
    let asked = store.asked_count().await?;
    let failed = match asked.failed {
        0 => Vec::new(),
        _ => store.asked(Waiting::Failed, None, NAMED).await?,
    };
    let failed = failed.iter().map(|a| json!({ "position_id": a.position_id, "key": a.key(), "error": a.error }));
    stats["callbacks"] = json!({ "asked": asked.asked, "failed": asked.failed, "first": failed.collect::<Vec<_>>() });
    stats["sources"] = believed;
    stats["here"] = json!(shared.market.counters());
    stats["cache"] = json!(shared.market.prices()?.stats());
    Ok(axum::Json(stats).into_response())
}

/// Gaps that are told.
const GAPS: i64 = 10;

/// How the market stands by its tables: `{"open_positions", "frozen_symbols", "gaps"}`.
pub(crate) async fn standing<'a>(
    shared: &Shared,
    instruments: impl IntoIterator<Item = &'a Instrument>,
) -> Result<Value, Problem> {
    let store = shared.market.store().await?;
    let (watched, now_ms) = (store.watched().await?, store.now_ms().await?);
    let instruments: HashMap<&str, &Instrument> = instruments.into_iter().map(|i| (i.symbol.as_str(), i)).collect();
    let frozen = watched.iter().filter(|watched| {
        let of_it = instruments.get(watched.symbol.as_str());
        of_it.is_some_and(|instrument| watched.is_frozen(instrument, now_ms))
    });
    let frozen: Vec<&str> = frozen.map(|watched| watched.symbol.as_str()).collect();
    let gaps = store.gaps(GAPS).await?.into_iter().map(|gap| {
        let detail: Value = serde_json::from_str(&gap.detail).unwrap_or_default();
        json!({ "at_ms": gap.at_ms, "detail": detail })
    });
    let open: i64 = watched.iter().map(|watched| watched.open).sum();
    Ok(json!({ "open_positions": open, "frozen_symbols": frozen, "gaps": gaps.collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chain {
    links: Option<i64>,
    head: Option<String>,
}

/// Links that one call looks at.
const MAX_LINKS: i64 = 100_000;

/// `GET /api/market/audit?links=&head=`: the newest links of the chain over the history held against its
/// lines: `{"intact", "links", "unlinked", "head", "broken": [{"n", "audit_id", "what"}]}`.
pub(crate) async fn audit(
    State(shared): State<Shared>,
    chain: Result<Query<Chain>, QueryRejection>,
) -> Result<Response, Problem> {
    let Chain { links, head } = query(chain, "?links= and ?head=")?;
    let links = links.unwrap_or(10_000);
    if !(1..=MAX_LINKS).contains(&links) {
        return Err(Problem::new(Code::QueryInvalid, format!("links: {links}; 1 to {MAX_LINKS} is allowed")));
    }
    let noted = head.map(|text| {
        let wrong = || Problem::new(Code::QueryInvalid, "head: N:HASH, as an answer before said it, is allowed");
        Link::parse(&text).ok_or_else(wrong)
    });
    let checked = shared.market.store().await?.check_history(Some(links), noted.transpose()?.as_ref()).await?;
    let body = json!({
        "intact": checked.broken.is_empty(), "links": checked.links, "unlinked": checked.unlinked,
        "head": checked.head.map(|head| head.to_string()), "broken": checked.broken,
    });
    Ok(axum::Json(body).into_response())
}
