//! `/api/prices`, `/api/ticks`, `/api/candles`, `/api/instruments`: what is known of symbols.
//!
//! A price says where it was found and whether it is stale. What is stale is for display; nothing
//! closes on it. Where nothing is known and the settings allow it, prices and candles are made up; their
//! `source` is `synthetic`.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_jobs::Timestamp;
use windlass_market::candle::Timeframe;
use windlass_market::positions::{Error, Instrument};
use windlass_market::price::format;
use windlass_market::prices::{Price, Source};
use windlass_market::rules::Quote;
use windlass_market::synthetic;
use windlass_worker::schemars::JsonSchema;

use super::{symbol_of, unknown_symbol};
use crate::Shared;
use crate::caching::{query, read};
use crate::problem::{Code, Problem};

/// Symbols that one call asks for.
const MAX_SYMBOLS: usize = 1_000;
/// Ticks of one answer.
const MAX_TICKS: usize = 5_000;

/// How old a quote is, by the clock of this host.
pub(crate) fn age_ms(quote: &Quote) -> i64 {
    Timestamp::now().0.saturating_sub(quote.ts_ms)
}

/// A price for display: from the caches, else what the tables last knew.
pub(crate) async fn last(shared: &Shared, symbol: &str, digits: Option<u8>) -> Result<Option<Price>, Problem> {
    let prices = shared.market.prices()?;
    if let Some(price) = prices.price(symbol).await {
        return Ok(Some(price));
    }
    let kept = async { shared.market.store().await?.last_quote(symbol).await };
    match (kept.await, prices.remembered(symbol)) {
        (Ok(quote), old) => Ok(of_tables(quote, digits, old)),
        (Err(_), Some(old)) => Ok(Some(old)),
        (Err(error), None) => Err(error.into()),
    }
}

/// Prices for display of many symbols, as [`last`]; what has none is left out.
pub(crate) async fn lasts(
    shared: &Shared,
    symbols: &[String],
    digits: impl Fn(&str) -> Option<u8>,
) -> Result<HashMap<String, Price>, Problem> {
    let prices = shared.market.prices()?;
    let mut found = prices.prices(symbols).await;
    let missing: Vec<&String> = symbols.iter().filter(|symbol| !found.contains_key(*symbol)).collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let kept = async { shared.market.store().await?.last_quotes().await };
    let kept = kept.await;
    for symbol in missing {
        let quote = kept.as_ref().ok().and_then(|kept| kept.get(symbol)).copied();
        if let Some(price) = of_tables(quote, digits(symbol), prices.remembered(symbol)) {
            found.insert(symbol.clone(), price);
        }
    }
    match kept {
        Err(error) if found.is_empty() => Err(error.into()),
        _ => Ok(found),
    }
}

/// The newer one of what the tables and this process last knew.
fn of_tables(quote: Option<Quote>, digits: Option<u8>, old: Option<Price>) -> Option<Price> {
    let newer = quote.filter(|quote| old.as_ref().is_none_or(|old| old.quote.seq <= quote.seq));
    let digits = digits.or(old.as_ref().map(|old| old.digits));
    match (newer, digits) {
        (Some(quote), Some(digits)) => Some(Price { digits, quote, volume: 0, feed: None, source: Source::Database }),
        _ => old,
    }
}

fn shown(symbol: &str, price: &Price, max_age_ms: i64) -> Value {
    let Price { digits, quote, volume, feed, source } = price;
    let age_ms = age_ms(quote);
    json!({
        "symbol": symbol,
        "bid": format(quote.bid, *digits),
        "ask": format(quote.ask, *digits),
        "digits": digits,
        "ts_ms": quote.ts_ms,
        "seq": quote.seq,
        "volume": volume,
        "src": feed,
        "age_ms": age_ms.max(0),
        "source": source,
        "stale": age_ms > max_age_ms || *source == Source::Synthetic,
    })
}

/// What an instrument has that is not known at the moment.
const MAX_AGE_MS: i64 = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    symbols: Option<String>,
}

/// `GET /api/prices?symbols=A,B`: `{"prices": […]}`, of all instruments without `symbols`. What has no
/// price is left out.
pub(crate) async fn all(
    State(shared): State<Shared>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Wanted { symbols } = query(wanted, "?symbols=")?;
    let instruments = async { shared.market.store().await?.instruments().await };
    let (instruments, symbols): (Vec<Instrument>, Vec<String>) = match (instruments.await, symbols) {
        (Ok(instruments), None) => {
            let symbols = instruments.iter().map(|instrument| instrument.symbol.clone()).take(MAX_SYMBOLS).collect();
            (instruments, symbols)
        }
        (Err(error), None) => return Err(error.into()),
        (instruments, Some(symbols)) => {
            (instruments.unwrap_or_default(), symbols.split(',').map(|symbol| symbol.trim().to_owned()).collect())
        }
    };
    if symbols.len() > MAX_SYMBOLS {
        let detail = format!("{} symbols; at most {MAX_SYMBOLS} are allowed", symbols.len());
        return Err(Problem::new(Code::QueryInvalid, detail));
    }
    let of: HashMap<&str, &Instrument> = instruments.iter().map(|i| (i.symbol.as_str(), i)).collect();
    let found = lasts(&shared, &symbols, |symbol| of.get(symbol).map(|i| i.digits)).await?;
    let mut prices = Vec::with_capacity(symbols.len());
    for symbol in &symbols {
        let instrument = of.get(symbol.as_str());
        let price = found.get(symbol).cloned().or_else(|| made_up(&shared, symbol, instrument?.digits));
        if let Some(price) = price {
            prices.push(shown(symbol, &price, instrument.map_or(MAX_AGE_MS, |i| i.max_quote_age_ms)));
        }
    }
    Ok(axum::Json(json!({ "prices": prices })).into_response())
}

/// `GET /api/prices/{symbol}`.
pub(crate) async fn one(
    State(shared): State<Shared>,
    symbol: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let symbol = symbol_of(symbol)?;
    let instrument = instrument_of(&shared, &symbol).await;
    // Without the tables what the caches know is shown all the same.
    let (digits, max_age_ms) = match &instrument {
        Ok(None) => return Err(unknown_symbol()),
        Ok(Some(instrument)) => (Some(instrument.digits), instrument.max_quote_age_ms),
        Err(_) => (None, MAX_AGE_MS),
    };
    let price = last(&shared, &symbol, digits).await;
    match (price, made_up(&shared, &symbol, digits.unwrap_or(MADE_UP_DIGITS))) {
        (Ok(Some(price)), _) | (Ok(None) | Err(_), Some(price)) => {
            Ok(axum::Json(shown(&symbol, &price, max_age_ms)).into_response())
        }
        (Ok(None), None) => Err(Problem::new(Code::PriceNotFound, "no quote of this symbol has come yet")),
        (Err(problem), None) => Err(problem),
    }
}

/// The instrument of a symbol; an error while the tables are away.
async fn instrument_of(shared: &Shared, symbol: &str) -> Result<Option<Instrument>, Error> {
    shared.market.store().await?.instrument(symbol).await
}

/// Digits of what is made up for a symbol while its instrument is not known.
const MADE_UP_DIGITS: u8 = 5;

/// A price made up for display, where that is allowed.
fn made_up(shared: &Shared, symbol: &str, digits: u8) -> Option<Price> {
    let is_allowed = shared.market.prices().is_ok_and(|prices| prices.options().synthetic);
    is_allowed.then(|| {
        let quote = synthetic::quote(symbol, digits, Timestamp::now().0);
        Price { digits, quote, volume: 0, feed: None, source: Source::Synthetic }
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {
    limit: Option<usize>,
}

/// `GET /api/ticks/{symbol}?limit=`: `{"symbol", "source", "ticks": [{"ts_ms", "seq", "bid", "ask",
/// "volume"}]}`, the newest of the last minutes, oldest first.
pub(crate) async fn ticks(
    State(shared): State<Shared>,
    symbol: Result<Path<String>, PathRejection>,
    count: Result<Query<Count>, QueryRejection>,
) -> Result<Response, Problem> {
    let (symbol, limit) = (symbol_of(symbol)?, query(count, "?limit=")?.limit.unwrap_or(100));
    if !(1..=MAX_TICKS).contains(&limit) {
        return Err(Problem::new(Code::QueryInvalid, format!("limit: {limit}; 1 to {MAX_TICKS} is allowed")));
    }
    let kept = async {
        let store = shared.market.store().await?;
        let instrument = store.instrument(&symbol).await?;
        let ticks = store.last_ticks(&symbol, i64::try_from(limit).unwrap_or(i64::MAX)).await?;
        Ok::<_, Error>((instrument, ticks))
    };
    let (digits, source, ticks) = match kept.await {
        Ok((None, _)) => return Err(unknown_symbol()),
        Ok((Some(instrument), ticks)) => {
            let ticks: Vec<(Quote, i64)> = ticks.iter().map(|tick| (tick.quote, tick.volume)).collect();
            (instrument.digits, Source::Database, ticks)
        }
        Err(error) => {
            let prices = shared.market.prices()?;
            let Some(price) = prices.price(&symbol).await.or_else(|| prices.remembered(&symbol)) else {
                return Err(error.into());
            };
            let Some(ticks) = prices.ticks(&symbol, price.digits, limit).await else { return Err(error.into()) };
            (price.digits, Source::Redis, ticks)
        }
    };
    let ticks: Vec<Value> = ticks
        .iter()
        .map(|(quote, volume)| {
            json!({ "ts_ms": quote.ts_ms, "seq": quote.seq, "bid": format(quote.bid, digits),
                    "ask": format(quote.ask, digits), "volume": volume })
        })
        .collect();
    Ok(axum::Json(json!({ "symbol": symbol, "source": source, "ticks": ticks })).into_response())
}

/// `GET /api/instruments`: `{"instruments": […]}`.
pub(crate) async fn instruments(State(shared): State<Shared>) -> Result<Response, Problem> {
    let all = shared.market.store().await?.instruments().await?;
    Ok(axum::Json(json!({ "instruments": all })).into_response())
}

/// `GET /api/instruments/{symbol}`.
pub(crate) async fn instrument(
    State(shared): State<Shared>,
    symbol: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let instrument = super::known(shared.market.store().await?, &symbol_of(symbol)?).await?;
    Ok(axum::Json(instrument).into_response())
}

/// What an instrument is made of.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct PutInstrument {
    /// Digits after the point.
    #[schemars(range(max = 18))]
    digits: u8,
    /// How far stops and targets must lie from the price when they are set, in points; default 0.
    #[serde(default)]
    min_stop_points: i64,
    /// A wider spread lets stops wait, in points; default none.
    #[serde(default)]
    max_spread_points: Option<i64>,
    /// A quote further than this from the last one needs a second one, in points; default none.
    #[serde(default)]
    max_jump_points: Option<i64>,
    /// An older quote decides nothing, in ms; default 10,000.
    max_quote_age_ms: Option<i64>,
    /// How long stops wait while the spread is wide, in ms; default 3,000.
    spread_grace_ms: Option<i64>,
    /// Quotes in a row that must reach a level; default 1.
    #[schemars(range(min = 1, max = 3))]
    confirm_ticks: Option<u8>,
    /// Targets fill at their level instead of the quote that reached them.
    #[serde(default)]
    target_at_level: bool,
    /// Where its quotes come from (`src`), the best source first; default any.
    #[serde(default)]
    #[schemars(length(max = 8))]
    sources: Vec<String>,
    /// How long the source that is believed may be silent or contradicted, in ms; default 3,000.
    hold_down_ms: Option<i64>,
    /// `24x7` (the default), `fx`, or `Europe/Berlin;Mon 09:00-Mon 17:30,…`.
    calendar: Option<String>,
}

/// `PUT /api/instruments/{symbol}`: makes or changes one, and answers it.
pub(crate) async fn put_instrument(
    State(shared): State<Shared>,
    symbol: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let symbol = symbol_of(symbol)?;
    let put: PutInstrument = read(&shared, &headers, body).await?;
    let new = Instrument::new(&symbol, put.digits);
    let instrument = Instrument {
        min_stop_points: put.min_stop_points,
        max_spread_points: put.max_spread_points,
        max_jump_points: put.max_jump_points,
        max_quote_age_ms: put.max_quote_age_ms.unwrap_or(new.max_quote_age_ms),
        spread_grace_ms: put.spread_grace_ms.unwrap_or(new.spread_grace_ms),
        confirm_ticks: put.confirm_ticks.unwrap_or(new.confirm_ticks),
        target_at_level: put.target_at_level,
        calendar: put.calendar.unwrap_or_else(|| new.calendar.clone()),
        sources: put.sources,
        hold_down_ms: put.hold_down_ms.unwrap_or(new.hold_down_ms),
        ..new
    };
    let store = shared.market.store().await?;
    let before = store.instrument(&symbol).await?;
    if before.is_some_and(|before| before.digits != instrument.digits) {
        let detail = "the digits of an instrument stay as they are: prices are kept in them";
        return Err(Problem::new(Code::PositionInvalid, detail));
    }
    store.put_instrument(&instrument).await?;
    Ok(axum::Json(instrument).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Candles {
    timeframe: Option<String>,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    limit: Option<usize>,
}

/// Candles of one answer.
const MAX_CANDLES: usize = 5_000;

/// `GET /api/candles/{symbol}?timeframe=&from_ms=&to_ms=&limit=`: `{"symbol", "timeframe", "source",
/// "candles": [{"start_ms", "open", "high", "low", "close", "ask_high", "ask_low", "volume", "count", "rev",
/// "final"}]}`, the newest that begin within the span, oldest first. Prices are bids. A period in which no
/// quote came has none.
pub(crate) async fn candles(
    State(shared): State<Shared>,
    symbol: Result<Path<String>, PathRejection>,
    wanted: Result<Query<Candles>, QueryRejection>,
) -> Result<Response, Problem> {
    let symbol = symbol_of(symbol)?;
    let Candles { timeframe, from_ms, to_ms, limit } = query(wanted, "?timeframe=, ?from_ms=, ?to_ms= and ?limit=")?;
    let invalid = |detail: String| Problem::new(Code::QueryInvalid, detail);
    let frame = Timeframe::parse(timeframe.as_deref().unwrap_or("1m")).map_err(|bad| invalid(bad.to_string()))?;
    if !Timeframe::ALL.contains(&frame) {
        let names: Vec<String> = Timeframe::ALL.iter().map(ToString::to_string).collect();
        return Err(invalid(format!("timeframe: {frame}; {} are kept", names.join(", "))));
    }
    let limit = limit.unwrap_or(100);
    if !(1..=MAX_CANDLES).contains(&limit) {
        return Err(invalid(format!("limit: {limit}; 1 to {MAX_CANDLES} is allowed")));
    }
    let digits = match instrument_of(&shared, &symbol).await {
        Ok(None) => return Err(unknown_symbol()),
        Ok(Some(instrument)) => Ok(instrument.digits),
        Err(error) => match last(&shared, &symbol, None).await {
            Ok(Some(price)) => Ok(price.digits),
            _ => Err(error),
        },
    };
    let span = (from_ms.unwrap_or(i64::MIN), to_ms.unwrap_or(i64::MAX));
    let is_made_up = shared.market.prices()?.options().synthetic;
    let made_up =
        |digits| (digits, synthetic::bars(&symbol, digits, frame, span, limit, Timestamp::now().0), Source::Synthetic);
    let (digits, candles, source) = match digits {
        Ok(digits) => match shared.market.candles(&symbol, frame, span, limit).await {
            Ok((candles, source)) if !(candles.is_empty() && is_made_up) => (digits, candles, source),
            Err(error) if !is_made_up => return Err(error.into()),
            _ => made_up(digits),
        },
        Err(_) if is_made_up => made_up(MADE_UP_DIGITS),
        Err(error) => return Err(error.into()),
    };
    let price = |points| format(points, digits);
    let candles: Vec<Value> = candles
        .iter()
        .map(|c| {
            json!({
                "start_ms": c.start_ms, "open": price(c.o), "high": price(c.h), "low": price(c.l), "close": price(c.c),
                "ask_high": price(c.ah), "ask_low": price(c.al), "volume": c.v.to_string(), "count": c.n, "rev": c.rev,
                "final": c.is_final,
            })
        })
        .collect();
    let body = json!({ "symbol": symbol, "timeframe": frame.to_string(), "source": source, "candles": candles });
    Ok(axum::Json(body).into_response())
}
