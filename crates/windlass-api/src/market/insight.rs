//! `/api/market`: how long closings take, what has been done, and whether the history is as it was
//! written.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_market::positions::{Link, summary};

use crate::Shared;
use crate::caching::query;
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Last {
    closings: Option<i64>,
}

/// Closings that latencies are told of.
const MAX_CLOSINGS: i64 = 100_000;

/// `GET /api/market/latency`: percentiles of quote → decision → closing over the last closings.
pub(crate) async fn latency(
    State(shared): State<Shared>,
    last: Result<Query<Last>, QueryRejection>,
) -> Result<Response, Problem> {
    let closings = query(last, "?closings=")?.closings.unwrap_or(1_000);
    if !(1..=MAX_CLOSINGS).contains(&closings) {
        return Err(Problem::new(Code::QueryInvalid, format!("closings: {closings}; 1 to {MAX_CLOSINGS} is allowed")));
    }
    let latencies = shared.market.store().await?.latencies(closings).await?;
    Ok(axum::Json(summary(&latencies)).into_response())
}

/// Positions of another application that are named when they are not watched.
const UNMAPPED: i64 = 20;

/// `GET /api/market/stats`: what this process has done, how many positions are open, and which of another
/// application's are not watched.
pub(crate) async fn stats(State(shared): State<Shared>) -> Result<Response, Problem> {
    let store = shared.market.store().await?;
    let (open, (unmapped, named)) = (store.count_open().await?, store.unmapped(UNMAPPED).await?);
    let named: Vec<Value> = named.iter().map(|(id, why)| json!({ "id": id, "why": why })).collect();
    let unmapped = json!({ "count": unmapped, "first": named });
    let believed = store.sources().await?;
    let believed: Value = believed.iter().map(|(symbol, sources)| (symbol.clone(), json!(sources.active()))).collect();
    let asked = store.asked_count().await?;
    let failed = match asked.failed {
        0 => Vec::new(),
        _ => store.asked(true, 1_000).await?.into_iter().filter(|asked| asked.failed).collect::<Vec<_>>(),
    };
    let failed =
        failed.iter().take(20).map(|a| json!({ "position_id": a.position_id, "key": a.key(), "error": a.error }));
    let callbacks = json!({ "asked": asked.asked, "failed": asked.failed, "first": failed.collect::<Vec<_>>() });
    let (counters, cache) = (shared.market.counters(), shared.market.prices()?.stats());
    Ok(axum::Json(
        json!({ "open_positions": open, "unmapped": unmapped, "sources": believed, "callbacks": callbacks, "here": counters, "cache": cache }),
    )
    .into_response())
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
