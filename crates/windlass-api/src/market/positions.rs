//! `/api/positions`: opening, listing, changing and closing; what happened to one and why.
//!
//! Prices are decimals as text, distances points. Of a calm account a caller without `trading:exact`
//! sees no price it was opened or closed at and no profit, only the band.

use std::collections::{HashMap, HashSet};

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_market::Nearest;
use windlass_market::desk::{self, Closing};
use windlass_market::explain::explain;
use windlass_market::index::Near;
use windlass_market::positions::{
    Account, Change, ClosingRow, Error, Instrument, NewPosition, Page, Position, Positions,
};
use windlass_market::price::{format, parse};
use windlass_market::prices::Price;
use windlass_market::rules::{BreakEven, Distance, Leg, Reason, Rules, Side, Trail};
use windlass_worker::schemars::JsonSchema;

use super::prices::{last, lasts};
use crate::auth::Caller;
use crate::caching::{query, read};
use crate::paging::{self, Listing, PAGE, PageQuery};
use crate::problem::{Code, Problem};
use crate::{Scope, Shared};

type Id = Result<Path<i64>, PathRejection>;

fn id_of(id: Id) -> Result<i64, Problem> {
    id.map(|Path(id)| id).map_err(|_| unknown())
}

fn unknown() -> Problem {
    Problem::new(Code::PositionNotFound, "there is no position of this number")
}

/// Accounts and instruments that views need, read once.
pub(crate) struct Views<'a> {
    shared: &'a Shared,
    pub(crate) store: &'a Positions,
    pub(crate) instruments: HashMap<String, Instrument>,
    accounts: HashMap<i64, Option<Account>>,
    prices: HashMap<String, Option<Price>>,
    /// The caller may see everything.
    exact: bool,
    /// What is nearest stands in the tables: the index of this process did not answer in time.
    index_is_busy: bool,
}

impl<'a> Views<'a> {
    pub(crate) async fn new(shared: &'a Shared, caller: &Caller) -> Result<Self, Problem> {
        let store = shared.market.store().await?;
        let instruments = store.instruments().await?.into_iter().map(|i| (i.symbol.clone(), i)).collect();
        let exact = caller.may(Scope::TradingExact, shared.options.auth.anonymous);
        Ok(Self {
            shared,
            store,
            instruments,
            accounts: HashMap::new(),
            prices: HashMap::new(),
            exact,
            index_is_busy: false,
        })
    }

    pub(crate) fn digits(&self, symbol: &str) -> u8 {
        self.instruments.get(symbol).map_or(0, |instrument| instrument.digits)
    }

    /// True when the caller is shown bands instead of numbers of this account.
    pub(crate) async fn is_hidden(&mut self, account: i64) -> Result<bool, Problem> {
        if self.exact {
            return Ok(false);
        }
        if !self.accounts.contains_key(&account) {
            self.accounts.insert(account, self.store.account(account).await?);
        }
        Ok(self.accounts.get(&account).and_then(Option::as_ref).is_some_and(|account| account.calm))
    }

    async fn price(&mut self, symbol: &str) -> Result<Option<Price>, Problem> {
        if !self.prices.contains_key(symbol) {
            let price = last(self.shared, symbol, Some(self.digits(symbol))).await?;
            self.prices.insert(symbol.to_owned(), price);
        }
        Ok(self.prices.get(symbol).cloned().flatten())
    }

    /// A position as its caller may see it.
    pub(crate) async fn position(&mut self, position: &Position) -> Result<Value, Problem> {
        let p = position;
        let mut shown = json!({
            "position_id": p.id, "account_id": p.account_id, "symbol": p.symbol, "side": p.rules.side,
            "qty": p.rules.qty, "open_qty": p.open_qty, "status": p.status, "version": p.version,
            "opened_at_ms": p.opened_at_ms, "closed_at_ms": p.closed_at_ms, "closing_reason": p.closing_reason,
        });
        if self.is_hidden(p.account_id).await? {
            shown["calm"] = json!({ "band": self.shared.market.band(p.id).await });
            return Ok(shown);
        }
        let digits = self.digits(&p.symbol);
        let text = |points: Option<i64>| points.map(|points| format(points, digits));
        let price = if p.open_qty > 0 { self.price(&p.symbol).await? } else { None };
        let stale_after = self.instruments.get(&p.symbol).map_or(0, |i| i.max_quote_age_ms);
        let mark = price.as_ref().map(|price| price.quote.closing_price(p.rules.side));
        let stop = p.track().stop();
        // Of what is open, so far away: 0 and below has been reached.
        let towards = |level: Option<i64>, sign: i64| mark.zip(level).map(|(mark, level)| (level - mark) * sign);
        let sign = p.rules.side.sign();
        let more = json!({
            "entry": format(p.rules.entry, digits),
            "sl": text(p.rules.sl),
            "tp": text(p.rules.tp),
            "sl_guaranteed": p.rules.guaranteed,
            "trail": p.rules.trail.map(|trail| trail_json(&trail, digits)),
            "break_even": p.rules.break_even,
            "expires_at_ms": p.rules.expires_at,
            "legs": p.rules.legs.iter().map(|leg| json!({
                "leg": leg.leg, "price": format(leg.price, digits), "qty": leg.qty, "closed": p.legs_done & (1 << leg.leg) != 0,
            })).collect::<Vec<_>>(),
            "stop_points": towards(stop.map(|(stop, _)| stop), -sign),
            "target_points": towards(p.rules.tp, sign),
            "stop": stop.map(|(stop, by)| json!({ "price": format(stop, digits), "by": by })),
            "price": text(mark),
            "price_stale": price.as_ref().map(|price| super::prices::age_ms(&price.quote) > stale_after),
            "pnl_points": mark.map(|mark| p.rules.pnl_points(mark, p.open_qty).to_string()),
        });
        if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
            shown.extend(more);
        }
        Ok(shown)
    }

    /// A position with its closings.
    async fn whole(&mut self, position: &Position) -> Result<Value, Problem> {
        let mut shown = self.position(position).await?;
        if !self.is_hidden(position.account_id).await? {
            let digits = self.digits(&position.symbol);
            let closings = self.store.closings(&[position.id]).await?;
            shown["closings"] = closings.iter().map(|closing| closing_json(closing, digits)).collect();
        }
        Ok(shown)
    }

    /// The positions of a symbol nearest to a trigger that the caller may see numbers of, nearest first; and
    /// where they were found.
    async fn nearest(
        &mut self,
        symbol: &str,
        price: &Price,
        limit: usize,
    ) -> Result<(&'static str, Vec<Near>), Problem> {
        let quote = &price.quote;
        let mut asked = limit;
        loop {
            let known = match self.index_is_busy {
                true => Nearest::Busy,
                false => self.shared.market.nearest(symbol, quote.bid, quote.ask, asked).await,
            };
            // Once is waited for it, not once for each symbol.
            self.index_is_busy = known == Nearest::Busy;
            let (source, mut found) = match known {
                Nearest::Found(found) => ("index", found),
                Nearest::Unwatched | Nearest::Busy => {
                    let most = i64::try_from(asked).unwrap_or(i64::MAX);
                    ("tables", self.store.nearest(symbol, quote, most).await?)
                }
            };
            let is_all = found.len() < asked;
            let hidden = self.hidden(&found).await?;
            found.retain(|near| !hidden.contains(&near.id));
            if is_all || found.len() >= limit {
                found.truncate(limit);
                return Ok((source, found));
            }
            // Calm ones stand before the others: look further.
            asked = asked.saturating_mul(4);
        }
    }

    /// Those of which the caller is shown bands only.
    async fn hidden(&mut self, near: &[Near]) -> Result<HashSet<i64>, Problem> {
        let mut hidden = HashSet::new();
        if self.exact || near.is_empty() {
            return Ok(hidden);
        }
        let ids: Vec<i64> = near.iter().map(|near| near.id).collect();
        for position in self.store.get_many(&ids).await? {
            if self.is_hidden(position.account_id).await? {
                hidden.insert(position.id);
            }
        }
        Ok(hidden)
    }

    /// Refuses a caller who is shown bands only.
    async fn check_exact(&mut self, account: i64) -> Result<(), Problem> {
        if self.is_hidden(account).await? {
            let scope = Scope::TradingExact.as_str();
            let detail = format!("the account is calm: its numbers need {scope}");
            return Err(Problem::new(Code::ScopeMissing, detail).with("scope", scope));
        }
        Ok(())
    }
}

fn trail_json(trail: &Trail, digits: u8) -> Value {
    let (points, bps) = match trail.distance {
        Distance::Points(points) => (Some(points), None),
        Distance::Bps(bps) => (None, Some(bps)),
    };
    let activation = trail.activation.map(|price| format(price, digits));
    json!({ "points": points, "bps": bps, "activation": activation, "step": trail.step })
}

pub(crate) fn closing_json(closing: &ClosingRow, digits: u8) -> Value {
    let c = closing;
    json!({
        "leg": c.leg, "qty": c.qty, "reason": c.reason, "level": c.level.map(|level| format(level, digits)),
        "fill": format(c.fill, digits), "bid": format(c.quote.bid, digits), "ask": format(c.quote.ask, digits),
        "quote_seq": c.quote.seq, "quote_ts_ms": c.quote.ts_ms, "pnl_points": c.pnl_points, "rule_version": c.rule_version,
        "actor": c.actor, "decided_at_ms": c.decided_at_ms, "closed_at_ms": c.closed_at_ms,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    symbol: Option<String>,
    account_id: Option<i64>,
    #[serde(default)]
    closed: bool,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/positions`: `{"positions", "next"}`, by number.
pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Problem> {
    let Which { symbol, account_id, closed, cursor, limit } =
        query(which, "?symbol=, ?account_id=, ?closed=, ?cursor= and ?limit=")?;
    let filter = format!("{symbol:?} {account_id:?} {closed}");
    let listing = Listing { path: "/api/positions", filter: &filter, caller: &caller };
    let signer = shared.ring.signer();
    let (after, limit) = PageQuery { cursor, limit }.read(signer, &listing, PAGE)?;
    let after = after.and_then(|after| after.parse().ok()).unwrap_or(i64::MIN);
    let page = Page { symbol, account_id, with_closed: closed, after, limit: i64::try_from(limit).unwrap_or(i64::MAX) };
    let mut views = Views::new(&shared, &caller).await?;
    let positions = views.store.list(&page).await?;
    let next =
        positions.last().filter(|_| positions.len() == limit).map(|last| listing.seal(signer, &last.id.to_string()));
    let mut shown = Vec::with_capacity(positions.len());
    for position in &positions {
        shown.push(views.position(position).await?);
    }
    Ok(axum::Json(json!({ "positions": shown, "next": next })).into_response())
}

/// `GET /api/positions/{id}`.
pub(crate) async fn show(State(shared): State<Shared>, caller: Caller, id: Id) -> Result<Response, Problem> {
    let mut views = Views::new(&shared, &caller).await?;
    let position = views.store.get(id_of(id)?).await?.ok_or_else(unknown)?;
    Ok(axum::Json(views.whole(&position).await?).into_response())
}

/// A position that is to be opened.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Open {
    account_id: i64,
    symbol: String,
    /// `long` or `short`.
    #[schemars(with = "String")]
    side: Side,
    /// Units.
    #[schemars(range(min = 1))]
    qty: i64,
    /// What it was opened at, as a decimal; default the last price: the ask for a long, the bid for a
    /// short.
    entry: Option<String>,
    /// The stop.
    sl: Option<String>,
    /// The target.
    tp: Option<String>,
    /// The stop fills at its level, gap or not; it is only moved towards profit.
    #[serde(default)]
    sl_guaranteed: bool,
    /// The stop follows gains.
    trail: Option<OpenTrail>,
    /// Once so far in profit, the stop moves to the entry.
    break_even: Option<OpenEven>,
    /// When it is closed in any case, in ms since 1970 UTC.
    expires_at_ms: Option<i64>,
    /// At most five parts with targets of their own.
    #[serde(default)]
    legs: Vec<OpenLeg>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
struct OpenTrail {
    /// How far behind, in points; or `bps`.
    points: Option<i64>,
    /// How far behind, in hundredths of a percent.
    bps: Option<i64>,
    /// The price that must be reached first.
    activation: Option<String>,
    /// The least improvement, in points; default 1.
    step: Option<i64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
struct OpenEven {
    /// Points of profit that must be reached.
    trigger: i64,
    /// Points beyond the entry at which the stop then lies; default 0.
    #[serde(default)]
    offset: i64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
struct OpenLeg {
    /// 1 to 5.
    leg: u8,
    /// Its target.
    price: String,
    /// How much it closes.
    qty: i64,
}

/// Reads a level of an instrument.
fn points(field: &'static str, text: &str, digits: u8) -> Result<i64, Problem> {
    parse(text, digits).map_err(|bad| {
        let (code, why) = (bad.as_str(), format!("{bad}; {digits} digits after the point are allowed"));
        Error::Refused { field, code, why }.into()
    })
}

fn level(field: &'static str, text: Option<&str>, digits: u8) -> Result<Option<i64>, Problem> {
    text.map(|text| points(field, text, digits)).transpose()
}

impl Open {
    fn rules(&self, digits: u8, entry: i64) -> Result<Rules, Problem> {
        let trail = match &self.trail {
            None => None,
            Some(OpenTrail { points: distance, bps, activation, step }) => {
                let distance = match (distance, bps) {
                    (Some(points), None) => Distance::Points(*points),
                    (None, Some(bps)) => Distance::Bps(*bps),
                    _ => return Err(Problem::new(Code::BodyInvalid, "trail: points or bps is needed, one of them")),
                };
                let activation = level("trail_activation", activation.as_deref(), digits)?;
                Some(Trail { distance, activation, step: step.unwrap_or(1) })
            }
        };
        let leg = |leg: &OpenLeg| Ok(Leg { leg: leg.leg, price: points("legs", &leg.price, digits)?, qty: leg.qty });
        Ok(Rules {
            sl: level("sl", self.sl.as_deref(), digits)?,
            tp: level("tp", self.tp.as_deref(), digits)?,
            guaranteed: self.sl_guaranteed,
            trail,
            break_even: self.break_even.as_ref().map(|e| BreakEven { trigger: e.trigger, offset: e.offset }),
            expires_at: self.expires_at_ms,
            legs: self.legs.iter().map(leg).collect::<Result<_, Problem>>()?,
            ..Rules::new(self.side, self.qty, entry)
        })
    }
}

/// `POST /api/positions`: opens one; 201 with it.
pub(crate) async fn open(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let new: Open = read(&shared, &headers, body).await?;
    let mut views = Views::new(&shared, &caller).await?;
    let store = views.store;
    let instrument = views.instruments.get(&new.symbol).cloned().ok_or_else(super::unknown_symbol)?;
    if store.account(new.account_id).await?.is_none() {
        return Err(no_account());
    }
    let on = desk::fresh_quote(store, &instrument).await?;
    let entry = match (&new.entry, on) {
        (Some(entry), _) => points("entry", entry, instrument.digits)?,
        (None, Some(quote)) => desk::opening_price(&quote, new.side),
        (None, None) => return Err(no_fresh_price(&new.symbol)),
    };
    let rules = new.rules(instrument.digits, entry)?;
    let opening = NewPosition { id: None, account_id: new.account_id, symbol: new.symbol.clone(), rules, on };
    let id = desk::open(store, &instrument, opening, &actor(&caller)).await?;
    let position = store.get(id).await?.ok_or_else(unknown)?;
    Ok((StatusCode::CREATED, axum::Json(views.whole(&position).await?)).into_response())
}

/// Who did it, for the history of the position.
fn actor(caller: &Caller) -> String {
    format!("api:{}", caller.who().0)
}

fn no_fresh_price(symbol: &str) -> Problem {
    Problem::new(Code::NoFreshPrice, format!("{symbol} has no quote that is fresh enough")).retry_after(1)
}

/// What of a position is to be changed: what is absent stays, null takes it away.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Patch {
    #[serde(default, deserialize_with = "kept")]
    #[schemars(with = "Option<String>")]
    sl: Option<Option<String>>,
    #[serde(default, deserialize_with = "kept")]
    #[schemars(with = "Option<String>")]
    tp: Option<Option<String>>,
    #[serde(default, deserialize_with = "kept")]
    #[schemars(with = "Option<i64>")]
    expires_at_ms: Option<Option<i64>>,
    /// Only in this version.
    version: Option<i64>,
}

/// Absent is kept, null is none.
fn kept<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// `PATCH /api/positions/{id}`: moves stop, target or end, and answers the position.
pub(crate) async fn change(
    State(shared): State<Shared>,
    caller: Caller,
    id: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (id, patch) = (id_of(id)?, read::<Patch>(&shared, &headers, body).await?);
    let mut views = Views::new(&shared, &caller).await?;
    let position = views.store.get(id).await?.ok_or_else(unknown)?;
    let digits = views.digits(&position.symbol);
    let moved = |field, value: Option<Option<String>>| match value {
        None => Ok(None),
        Some(text) => level(field, text.as_deref(), digits).map(Some),
    };
    let change = Change {
        sl: moved("sl", patch.sl)?,
        tp: moved("tp", patch.tp)?,
        expires_at_ms: patch.expires_at_ms,
        version: patch.version,
    };
    let changed = desk::change(views.store, id, &change, &actor(&caller)).await?.ok_or_else(unknown)?;
    Ok(axum::Json(views.whole(&changed).await?).into_response())
}

/// How a position is to be closed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Close {
    /// Only in this version.
    version: Option<i64>,
    /// `MANUAL` (the default) or `STOP_OUT`.
    #[schemars(with = "Option<String>")]
    reason: Option<Reason>,
}

/// `POST /api/positions/{id}/close` with `{}`: closes it at the last quote, once; 200 with it, 202 where the
/// application whose it is was asked, 409 `already_closed` for who comes second.
pub(crate) async fn close(
    State(shared): State<Shared>,
    caller: Caller,
    id: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (id, Close { version, reason }) = (id_of(id)?, read(&shared, &headers, body).await?);
    let reason = reason.unwrap_or(Reason::Manual);
    if !matches!(reason, Reason::Manual | Reason::StopOut) {
        return Err(Problem::new(Code::BodyInvalid, "reason: MANUAL or STOP_OUT is allowed"));
    }
    let mut views = Views::new(&shared, &caller).await?;
    let closing = desk::close(views.store, id, version, reason, &actor(&caller)).await?;
    let position = views.store.get(id).await?.ok_or_else(unknown)?;
    match closing {
        Closing::Closed(_) => Ok(axum::Json(views.whole(&position).await?).into_response()),
        Closing::Asked => Ok((StatusCode::ACCEPTED, axum::Json(views.whole(&position).await?)).into_response()),
        Closing::AlreadyClosed(_) => {
            let shown = views.whole(&position).await?;
            let problem = Problem::new(Code::AlreadyClosed, "somebody else closed the position first");
            Err(problem.with("position", shown))
        }
        Closing::Unknown => Err(unknown()),
        Closing::VersionChanged(now) => {
            Err(Problem::new(Code::VersionChanged, format!("the position has version {now}")).with("version", now))
        }
        Closing::NoFreshPrice(symbol) => Err(no_fresh_price(&symbol)),
        Closing::Busy => {
            Err(Problem::new(Code::VersionChanged, "others write the position over and over").retry_after(1))
        }
        Closing::Refused(why) => Err(Problem::new(Code::CloseRefused, why)),
    }
}

/// `GET /api/positions/{id}/history`: `{"position_id", "history", "next"}`, oldest first.
pub(crate) async fn history(
    State(shared): State<Shared>,
    caller: Caller,
    id: Id,
    lines: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let (id, lines) = (id_of(id)?, paging::asked(lines)?);
    let mut views = Views::new(&shared, &caller).await?;
    let position = views.store.get(id).await?.ok_or_else(unknown)?;
    views.check_exact(position.account_id).await?;
    let filter = id.to_string();
    let listing = Listing { path: "/api/positions/{id}/history", filter: &filter, caller: &caller };
    let signer = shared.ring.signer();
    let (after, limit) = lines.read(signer, &listing, PAGE)?;
    let after = after.and_then(|after| after.parse().ok()).unwrap_or(0);
    let rows = views.store.history(id, after, i64::try_from(limit).unwrap_or(i64::MAX)).await?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|last| listing.seal(signer, &last.id.to_string()));
    let shown: Vec<Value> = rows
        .iter()
        .map(|row| {
            let detail: Value = serde_json::from_str(&row.detail).unwrap_or_default();
            json!({ "at_ms": row.at_ms, "kind": row.kind, "actor": row.actor, "detail": detail })
        })
        .collect();
    Ok(axum::Json(json!({ "position_id": id, "history": shown, "next": next })).into_response())
}

/// `GET /api/positions/{id}/explain`: `{"position_id", "agrees", "closings": […]}`: each closing decided
/// again from what was written down.
pub(crate) async fn why(State(shared): State<Shared>, caller: Caller, id: Id) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let mut views = Views::new(&shared, &caller).await?;
    let position = views.store.get(id).await?.ok_or_else(unknown)?;
    views.check_exact(position.account_id).await?;
    Ok(axum::Json(explained(&views, &position).await?).into_response())
}

/// Each closing of a position, decided again.
pub(crate) async fn explained(views: &Views<'_>, position: &Position) -> Result<Value, Problem> {
    let digits = views.digits(&position.symbol);
    let explained = explain(views.store, position.id).await?;
    let agrees = explained.iter().all(|explained| explained.agrees != Some(false));
    let shown: Vec<Value> = explained
        .iter()
        .map(|e| {
            let stop = e.stop.map(|(stop, by)| json!({ "price": format(stop, digits), "by": by }));
            let extreme = e.extreme.map(|extreme| format(extreme, digits));
            json!({ "closing": closing_json(&e.closing, digits), "agrees": e.agrees, "stop": stop, "extreme": extreme })
        })
        .collect();
    Ok(json!({ "position_id": position.id, "agrees": agrees, "closings": shown }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NearTo {
    symbol: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/positions/next`: `{"next": [{"position_id", "symbol", "level", "distance_points", "waits_for",
/// "price", "source"}]}`, the nearest to a trigger first. Of calm accounts only for who may see numbers.
pub(crate) async fn next(
    State(shared): State<Shared>,
    caller: Caller,
    near: Result<Query<NearTo>, QueryRejection>,
) -> Result<Response, Problem> {
    let NearTo { symbol, limit } = query(near, "?symbol= and ?limit=")?;
    let limit = paging::limit(limit, 20)?;
    let mut views = Views::new(&shared, &caller).await?;
    let symbols: Vec<String> = match symbol {
        Some(symbol) if !views.instruments.contains_key(&symbol) => return Err(super::unknown_symbol()),
        Some(symbol) => vec![symbol],
        None => views.instruments.keys().cloned().collect(),
    };
    Ok(axum::Json(json!({ "next": nearest(&mut views, symbols, limit).await? })).into_response())
}

/// What of these symbols is nearest to a trigger, nearest first; of calm accounts only for who may see numbers.
pub(crate) async fn nearest(views: &mut Views<'_>, symbols: Vec<String>, limit: usize) -> Result<Vec<Value>, Problem> {
    let digits = |symbol: &str| views.instruments.get(symbol).map(|instrument| instrument.digits);
    let mut prices = lasts(views.shared, &symbols, digits).await?;
    let mut all = Vec::new();
    for symbol in symbols {
        let Some(price) = prices.remove(&symbol) else { continue };
        let (source, found) = views.nearest(&symbol, &price, limit).await?;
        all.extend(found.into_iter().map(|near| (near, symbol.clone(), price.clone(), source)));
    }
    all.sort_by_key(|(near, ..)| (near.distance, near.id));
    all.truncate(limit);
    let shown = all
        .iter()
        .map(|(near, symbol, price, source)| {
            json!({
                "position_id": near.id, "symbol": symbol, "level": format(near.level, price.digits),
                "distance_points": near.distance, "waits_for": if near.is_stop { "stop" } else { "target" },
                "bid": format(price.quote.bid, price.digits), "ask": format(price.quote.ask, price.digits), "source": source,
            })
        });
    Ok(shown.collect())
}

/// What an account is made of.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct PutAccount {
    /// Of its money, such as `USD`.
    currency: String,
    /// In the smallest unit; default 0.
    #[serde(default)]
    balance: i64,
    /// Its user is shown bands instead of numbers.
    #[serde(default)]
    calm: bool,
}

/// `PUT /api/accounts/{id}`: makes or changes an account, and answers it.
pub(crate) async fn put_account(
    State(shared): State<Shared>,
    id: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = account_id(id)?;
    let PutAccount { currency, balance, calm } = read(&shared, &headers, body).await?;
    if !(1..=16).contains(&currency.len()) || !currency.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Problem::new(Code::BodyInvalid, "currency: 1 to 16 letters and digits are allowed"));
    }
    let account = Account { id, currency, balance, calm };
    shared.market.store().await?.put_account(&account).await?;
    Ok(axum::Json(account).into_response())
}

fn account_id(id: Id) -> Result<i64, Problem> {
    id.map(|Path(id)| id).map_err(|_| no_account())
}

fn no_account() -> Problem {
    Problem::new(Code::AccountNotFound, "there is no account of this number")
}

/// `GET /api/accounts/{id}`: the account.
pub(crate) async fn account(State(shared): State<Shared>, id: Id) -> Result<Response, Problem> {
    let account = shared.market.store().await?.account(account_id(id)?).await?;
    Ok(axum::Json(account.ok_or_else(no_account)?).into_response())
}
