//! The pages of the market: what is open and next to its trigger, what closed and why.
//!
//! They are made of what the API answers to the same caller: its numbers, and of calm accounts its bands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maud::{Markup, html};
use serde_json::Value;
use tokio::sync::Mutex;
use windlass_jobs::Timestamp;
use windlass_market::positions::{Page as Positions, Position};

use super::Body;
use super::view::{moment, number, span};
use crate::Shared;
use crate::auth::Caller;
use crate::market::insight::{CLOSINGS, latencies, standing};
use crate::market::positions::{Views, explained, nearest};
use crate::problem::{Code, Problem};

/// Open positions on a page.
const PAGE: i64 = 50;
/// Positions that are shown as next to their trigger.
const NEAR: usize = 10;
/// Positions whose last closings are shown.
const CLOSED: i64 = 10;
/// Lines of history on a position's page.
const LINES: i64 = 100;

/// Which positions are wanted.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Wish {
    symbol: Option<String>,
    account: Option<i64>,
    after: Option<i64>,
}

impl Wish {
    pub(super) fn read(pairs: &[(String, String)]) -> Result<Self, Problem> {
        let mut wish = Self::default();
        for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            let wrong =
                || Problem::new(Code::QueryInvalid, format!("{name:?} is not known here, or not with this value"));
            let whole = || value.trim().parse::<i64>().map_err(|_| wrong());
            match name.as_str() {
                "symbol" => wish.symbol = Some(value.trim().to_owned()),
                "account" => wish.account = Some(whole()?),
                "after" => wish.after = Some(whole()?),
                _ => return Err(wrong()),
            }
        }
        Ok(wish)
    }
}

/// What the tables say to everybody alike, read once for all who look.
#[derive(Debug, Default)]
pub(super) struct Tables(Mutex<Option<(Instant, Arc<Read>)>>);

#[derive(Debug)]
struct Read {
    standing: Value,
    latencies: Value,
}

/// How long that stands: a page is made anew as often.
const STANDS: Duration = Duration::from_secs(2);

impl Tables {
    async fn of(&self, shared: &Shared, views: &Views<'_>) -> Result<Arc<Read>, Problem> {
        let mut read = self.0.lock().await;
        if let Some((_, read)) = read.as_ref().filter(|(at, _)| at.elapsed() < STANDS) {
            return Ok(Arc::clone(read));
        }
        let standing = standing(shared, views.instruments.values()).await?;
        let fresh = Arc::new(Read { standing, latencies: latencies(shared, CLOSINGS).await? });
        *read = Some((Instant::now(), Arc::clone(&fresh)));
        Ok(fresh)
    }
}

/// What is open, what is next, what closed.
pub(super) async fn list(shared: &Shared, caller: &Caller, wish: &Wish) -> Result<Body, Problem> {
    let base = shared.options.base_path.as_str();
    if !shared.market.is_in_use().await {
        let content = html! {
            h1 { "Positions" }
            p class="empty" { "Nothing is traded here. An instrument is made by " code { "PUT /api/instruments/{symbol}" } "." }
        };
        return Ok(Body::new("Positions", content));
    }
    let mut views = Views::new(shared, caller).await?;
    let symbols: Vec<String> = match &wish.symbol {
        Some(symbol) => vec![symbol.clone()],
        None => views.instruments.keys().cloned().collect(),
    };
    let next = nearest(&mut views, symbols, NEAR).await?;
    let page = Positions {
        symbol: wish.symbol.clone(),
        account_id: wish.account,
        with_closed: false,
        after: wish.after.unwrap_or(i64::MIN),
        limit: PAGE,
    };
    let open = views.store.list(&page).await?;
    let mut shown = Vec::with_capacity(open.len());
    for position in &open {
        shown.push(views.position(position).await?);
    }
    let more = open.last().filter(|_| open.len() as i64 == PAGE).map(|last| last.id);
    let closed = closed(&mut views).await?;
    let tables = shared.dashboard.tables.of(shared, &views).await?;
    let content = html! {
        h1 { "Positions" }
        (tiles(&tables.standing, &tables.latencies))
        section { h2 { "Next to their trigger" } (near_table(base, &next)) }
        section {
            h2 { "Open" }
            form class="filter" action={ (base) "/positions" } {
                label { "Symbol " input name="symbol" value=(wish.symbol.as_deref().unwrap_or_default()) placeholder="any"; }
                label { "Account " input name="account" inputmode="numeric" value=[wish.account] placeholder="any"; }
                button { "Filter" }
            }
            (open_table(base, &shown))
            @if let Some(after) = more { nav class="pages" { a href={ (base) "/positions?" (wish.query(after)) } { "More" } } }
        }
        section { h2 { "Last closings" } (closed_table(base, &closed)) }
    };
    Ok(Body::new("Positions", content))
}

impl Wish {
    fn query(&self, after: i64) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(symbol) = &self.symbol {
            query.append_pair("symbol", symbol);
        }
        if let Some(account) = self.account {
            query.append_pair("account", &account.to_string());
        }
        query.append_pair("after", &after.to_string()).finish()
    }
}

fn tiles(standing: &Value, latencies: &Value) -> Markup {
    let frozen = standing["frozen_symbols"].as_array().map(Vec::as_slice).unwrap_or_default();
    let gaps = standing["gaps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = frozen.iter().take(20).map(text).collect();
    let ms =
        |stage: &str, part: &str| latencies[stage][part].as_i64().map_or("–".to_owned(), |ms| format!("{ms} ms"));
    html! {
        div class="tiles" {
            div class="tile" { span { "Open" } strong { (whole(&standing["open_positions"])) } }
            div class="tile" title="From the coming in of the quote to the closing, of the last 1,000" { span { "Closed within, p50" } strong { (ms("total_ms", "p50")) } }
            div class="tile" title="From the coming in of the quote to the closing, of the last 1,000" { span { "Closed within, p99" } strong { (ms("total_ms", "p99")) } }
            div class={ "tile " @if !frozen.is_empty() { "bad" } } { span { "Symbols without quotes" } strong { (frozen.len()) } }
            div class={ "tile " @if !gaps.is_empty() { "warn" } } { span { "Gaps in the feed" } strong { (gaps.len()) @if gaps.len() == 10 { "+" } } }
        }
        @if !names.is_empty() {
            p class="alarm" role="alert" { "No quotes come of " (names.join(", ")) @if frozen.len() > names.len() { " and others" } ": nothing closes on old prices." }
        }
        @if let Some(gap) = gaps.first() {
            p class="quiet" { "Quotes were last lost before they were read " (moment(at(&gap["at_ms"]))) ", of " code { (text(&gap["detail"]["stream"])) } "." }
        }
    }
}

fn near_table(base: &str, next: &[Value]) -> Markup {
    html! {
        @if next.is_empty() { p class="empty" { "No open position has a stop or target, or none has a price." } }
        @else { div class="scroll" { table {
            thead { tr { th { "Position" } th { "Symbol" } th { "Waits for" } th class="num" { "Level" } th class="num" { "Points away" } th class="num" { "Bid" } th class="num" { "Ask" } } }
            tbody { @for near in next { tr {
                td { (link(base, &near["position_id"])) }
                td { (text(&near["symbol"])) }
                td { (text(&near["waits_for"])) }
                td class="num" { (text(&near["level"])) }
                td class={ "num " @if near["distance_points"].as_i64() <= Some(0) { "warn" } } { (near["distance_points"]) }
                td class="num" { (text(&near["bid"])) }
                td class="num" { (text(&near["ask"])) }
            } } }
        } } }
    }
}

fn open_table(base: &str, open: &[Value]) -> Markup {
    let distance = |points: &Value| html! { @if let Some(points) = points.as_i64() { br; span class="quiet" { (points) " away" } } };
    html! {
        @if open.is_empty() { p class="empty" { "No position is open." } }
        @else { div class="scroll" { table {
            thead { tr {
                th { "Position" } th { "Symbol" } th class="num" { "Units" } th class="num" { "Entry" } th class="num" { "Price" }
                th class="num" { "Stop" } th class="num" { "Target" } th class="num" { "Points × units" } th { "Opened" }
            } }
            tbody { @for p in open { tr id={ "position-" (p["position_id"]) } {
                td { (link(base, &p["position_id"])) br; span class="quiet" { "account " (p["account_id"]) } }
                td { (text(&p["symbol"])) br; span class="quiet" { (text(&p["side"])) @if p["status"] == "closing" { ", closing" } } }
                td class="num" { (whole(&p["open_qty"])) @if p["open_qty"] != p["qty"] { br; span class="quiet" { "of " (whole(&p["qty"])) } } }
                @if p["calm"].is_object() { td colspan="5" { (band(&p["calm"]["band"])) } }
                @else {
                    td class="num" { (text(&p["entry"])) }
                    td class="num" { (text(&p["price"])) @if p["price_stale"] == true { br; span class="state failure" { "stale" } } }
                    td class="num" { (text(&p["stop"]["price"])) @if p["stop"]["by"].as_str().is_some_and(|by| by != "SL") { " " span class="tag" { (text(&p["stop"]["by"])) } } (distance(&p["stop_points"])) }
                    td class="num" { (text(&p["tp"])) (distance(&p["target_points"])) }
                    td class={ "num " (gain(&p["pnl_points"])) } { (text(&p["pnl_points"])) }
                }
                td { (moment(at(&p["opened_at_ms"]))) }
            } } }
        } } }
    }
}

/// A position and its closings, each decided again; none for who may not see numbers.
struct Closed {
    position: Value,
    why: Option<Value>,
}

/// The positions that closed last.
async fn closed(views: &mut Views<'_>) -> Result<Vec<Closed>, Problem> {
    let rows = views.store.last_closings(CLOSED).await?;
    let mut ids: Vec<i64> = Vec::new();
    rows.iter().for_each(|row| {
        if !ids.contains(&row.position_id) {
            ids.push(row.position_id);
        }
    });
    let mut positions = views.store.get_many(&ids).await?;
    positions.sort_by_key(|position| ids.iter().position(|id| *id == position.id));
    let mut all = Vec::with_capacity(positions.len());
    for position in &positions {
        all.push(closed_one(views, position).await?);
    }
    Ok(all)
}

async fn closed_one(views: &mut Views<'_>, position: &Position) -> Result<Closed, Problem> {
    let shown = views.position(position).await?;
    let why = if views.is_hidden(position.account_id).await? { None } else { Some(explained(views, position).await?) };
    Ok(Closed { position: shown, why })
}

fn closed_table(base: &str, closed: &[Closed]) -> Markup {
    html! {
        @if closed.is_empty() { p class="empty" { "Nothing has closed yet." } }
        @else { div class="scroll" { table {
            thead { tr { th { "Position" } th { "Closed" } th class="num" { "Units" } th class="num" { "At" } th class="num" { "Points × units" } th { "Why" } th { "Decided again" } } }
            tbody { @for one in closed {
                @let position = &one.position;
                @match &one.why {
                    None => { tr {
                        td { (link(base, &position["position_id"])) " " (text(&position["symbol"])) }
                        td { @if position["closed_at_ms"].is_i64() { (moment(at(&position["closed_at_ms"]))) } }
                        td class="num" { (whole(&position["qty"])) }
                        td colspan="4" { (band(&position["calm"]["band"])) }
                    } }
                    Some(why) => { @for one in items(&why["closings"]) {
                        @let c = &one["closing"];
                        tr id={ "closing-" (position["position_id"]) "-" (c["leg"]) } {
                            td { (link(base, &position["position_id"])) " " (text(&position["symbol"])) br; span class="quiet" { (text(&position["side"])) } }
                            td { (moment(at(&c["closed_at_ms"]))) }
                            td class="num" { (whole(&c["qty"])) }
                            td class="num" { (text(&c["fill"])) }
                            td class={ "num " (gain(&c["pnl_points"])) } { (text(&c["pnl_points"])) }
                            td { (reason(one, position)) }
                            td { (agrees(&one["agrees"])) }
                        }
                    } }
                }
            } }
        } } }
    }
}

/// One position: its levels, its closings and why, what happened to it.
pub(super) async fn one(shared: &Shared, caller: &Caller, id: i64) -> Result<Body, Problem> {
    let gone = || Problem::new(Code::PositionNotFound, "there is no position of this number");
    let base = shared.options.base_path.as_str();
    let mut views = Views::new(shared, caller).await?;
    let position = views.store.get(id).await?.ok_or_else(gone)?;
    let Closed { position: shown, why } = closed_one(&mut views, &position).await?;
    let history = match &why {
        Some(_) => views.store.history(id, 0, LINES).await?,
        None => Vec::new(),
    };
    let content = html! {
        h1 { (text(&shown["symbol"])) " " (text(&shown["side"])) " " (whole(&shown["qty"])) " " span class={ "state " (status_class(&shown["status"])) } { (text(&shown["status"])) } }
        p class="quiet" { "Position " (shown["position_id"]) " of account " (shown["account_id"]) ", version " (shown["version"]) }
        (levels(&shown))
        @match &why {
            None => p class="empty" { "The account is calm: its numbers need " code { (crate::Scope::TradingExact.as_str()) } "." },
            Some(why) => {
                @if !items(&why["closings"]).is_empty() {
                    section { h2 { "Closings" } (closed_table(base, &[Closed { position: shown.clone(), why: Some(why.clone()) }])) }
                }
                section {
                    h2 { "History" }
                    div class="scroll" { table {
                        thead { tr { th { "When" } th { "What" } th { "Who" } th { "More" } } }
                        tbody { @for line in &history { tr {
                            td { (moment(Timestamp(line.at_ms))) } td { (line.kind) } td { (line.actor) } td { code class="detail" { (line.detail) } }
                        } } }
                    } }
                }
            }
        }
    };
    let done = shown["status"] == "closed";
    Ok(Body { title: format!("Position {id}"), content, done })
}

fn levels(p: &Value) -> Markup {
    let row = |name: &str, value: Markup| html! { tr { th scope="row" { (name) } td { (value) } } };
    let away = |points: &Value| html! { @if let Some(points) = points.as_i64() { span class="quiet" { ", " (points) " points away" } } };
    html! {
        div class="scroll" { table class="facts" { tbody {
            (row("Opened", moment(at(&p["opened_at_ms"]))))
            @if let Some(closed) = p["closed_at_ms"].as_i64() { (row("Closed", html! { (moment(Timestamp(closed))) ", after " (span(u64::try_from(closed - p["opened_at_ms"].as_i64().unwrap_or(closed)).unwrap_or(0))) })) }
            (row("Units open", html! { (whole(&p["open_qty"])) " of " (whole(&p["qty"])) }))
            @if p["calm"].is_object() { (row("Stands", band(&p["calm"]["band"]))) }
            @else {
                (row("Entry", html! { (text(&p["entry"])) }))
                @if p["price"].is_string() { (row("Price", html! { (text(&p["price"])) @if p["price_stale"] == true { " " span class="state failure" { "stale" } } })) }
                @if p["stop"].is_object() { (row("Stop", html! { (text(&p["stop"]["price"])) " " span class="tag" { (rule(&p["stop"]["by"])) } (away(&p["stop_points"])) })) }
                @if p["tp"].is_string() { (row("Target", html! { (text(&p["tp"])) (away(&p["target_points"])) })) }
                @for leg in items(&p["legs"]) { (row(&format!("Leg {}", leg["leg"]), html! { (whole(&leg["qty"])) " at " (text(&leg["price"])) @if leg["closed"] == true { ", closed" } })) }
                @if p["pnl_points"].is_string() { (row("Points × units", html! { span class=(gain(&p["pnl_points"])) { (text(&p["pnl_points"])) } })) }
            }
        } } }
    }
}

/// Which quote reached what.
fn reason(one: &Value, position: &Value) -> Markup {
    let c = &one["closing"];
    // A long is closed at the bid, a short at the ask.
    let side = if position["side"] == "long" { "bid" } else { "ask" };
    html! {
        (rule(&c["reason"]))
        @match c["reason"].as_str() {
            Some("MANUAL" | "STOP_OUT") => { " by " (text(&c["actor"])) ", at the " (side) " " (text(&c[side])) },
            Some("TIME") => { ": its time was over at the " (side) " " (text(&c[side])) },
            _ => { ": the " (side) " " (text(&c[side])) " reached " (text(&c["level"])) },
        }
        br; span class="quiet" { "quote " (c["quote_seq"]) " of " (Timestamp(c["quote_ts_ms"].as_i64().unwrap_or(0))) @if one["extreme"].is_string() { ", best price before " (text(&one["extreme"])) } }
    }
}

/// A rule in a word.
fn rule(word: &Value) -> &str {
    match text(word) {
        "SL" => "stop",
        "BE" => "break-even",
        "TRAIL" => "trailing stop",
        "TP" => "target",
        "TIME" => "time stop",
        "MANUAL" => "closed by hand",
        "STOP_OUT" => "margin",
        other => other,
    }
}

fn agrees(agrees: &Value) -> Markup {
    match agrees.as_bool() {
        Some(true) => html! { span class="state success" { "agrees" } },
        Some(false) => html! { span class="state failure" { "differs" } },
        None => html! { span class="quiet" title="No rule decided, or what decided is no longer kept" { "–" } },
    }
}

fn band(band: &Value) -> Markup {
    html! { span class="tag" { "calm" } " " (text(band).replace('_', " ")) }
}

fn status_class(status: &Value) -> &'static str {
    match status.as_str() {
        Some("open") => "running",
        Some("closing") => "retrying",
        _ => "success",
    }
}

fn gain(points: &Value) -> &'static str {
    match points.as_str() {
        Some(text) if text.starts_with('-') => "bad",
        Some("0") | None => "",
        Some(_) => "ok",
    }
}

fn link(base: &str, id: &Value) -> Markup {
    html! { a href={ (base) "/positions/" (id) } { (id) } }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("–")
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn whole(value: &Value) -> String {
    value.as_u64().map_or("–".to_owned(), number)
}

fn at(value: &Value) -> Timestamp {
    Timestamp(value.as_i64().unwrap_or(0))
}
