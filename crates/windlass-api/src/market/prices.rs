//! `/api/prices`, `/api/ticks`, `/api/candles`, `/api/instruments`: what is known of symbols.
//!
//! A price says where it was found and whether it is stale. What is stale is for display; nothing
//! closes on it.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_market::candle::Timeframe;
use windlass_market::positions::Instrument;
use windlass_market::price::format;
use windlass_market::prices::{Price, Source};
use windlass_market::rules::Quote;
use windlass_worker::schemars::JsonSchema;

use super::{symbol_of, unknown_symbol};
use crate::Shared;
use crate::caching::{query, read};
use crate::problem::{Code, Problem};

/// Symbols that one call asks for.
const MAX_SYMBOLS: usize = 1_000;
/// Ticks of one answer.
const MAX_TICKS: usize = 5_000;

fn now_ms() -> i64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    windlass_jobs::millis(since_1970)
}

/// How old a quote is, by the clock of this host.
pub(crate) fn age_ms(quote: &Quote) -> i64 {
    now_ms().saturating_sub(quote.ts_ms)
}

/// A price for display: from the caches, else what the tables last knew.
pub(crate) async fn last(shared: &Shared, symbol: &str, digits: Option<u8>) -> Result<Option<Price>, Problem> {
    let prices = shared.market.prices()?;
    if let Some(price) = prices.price(symbol).await {
        return Ok(Some(price));
    }
    let kept = async { shared.market.store().await?.last_quote(symbol).await };
    match (kept.await, prices.remembered(symbol)) {
        (Ok(Some(quote)), old) if old.as_ref().is_none_or(|old| old.quote.seq <= quote.seq) => {
            let digits = digits.or(old.map(|old| old.digits));
            Ok(digits.map(|digits| Price { digits, quote, volume: 0, source: Source::Database }))
        }
        (_, Some(old)) => Ok(Some(old)),
        (Ok(_), None) => Ok(None),
        (Err(error), None) => Err(error.into()),
    }
}

fn shown(symbol: &str, price: &Price, max_age_ms: i64) -> Value {
    let Price { digits, quote, volume, source } = price;
    let age_ms = age_ms(quote);
    json!({
        "symbol": symbol,
        "bid": format(quote.bid, *digits),
        "ask": format(quote.ask, *digits),
        "digits": digits,
        "ts_ms": quote.ts_ms,
        "seq": quote.seq,
        "volume": volume,
        "age_ms": age_ms.max(0),
        "source": source,
        "stale": age_ms > max_age_ms,
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
    let mut prices = Vec::with_capacity(symbols.len());
    for symbol in symbols {
        let instrument = instruments.iter().find(|instrument| instrument.symbol == symbol);
        if let Some(price) = last(&shared, &symbol, instrument.map(|i| i.digits)).await? {
            prices.push(shown(&symbol, &price, instrument.map_or(MAX_AGE_MS, |i| i.max_quote_age_ms)));
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
    let instrument = match shared.market.store().await {
        Ok(store) => store.instruments().await.map(|all| all.into_iter().find(|i| i.symbol == symbol)),
        Err(error) => Err(error),
    };
    // Without the tables what the caches know is shown all the same.
    let (digits, max_age_ms) = match &instrument {
        Ok(None) => return Err(unknown_symbol()),
        Ok(Some(instrument)) => (Some(instrument.digits), instrument.max_quote_age_ms),
        Err(_) => (None, MAX_AGE_MS),
    };
    match last(&shared, &symbol, digits).await? {
        Some(price) => Ok(axum::Json(shown(&symbol, &price, max_age_ms)).into_response()),
        None => Err(Problem::new(Code::PriceNotFound, "no quote of this symbol has come yet")),
    }
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
        let instrument = store.instruments().await?.into_iter().find(|i| i.symbol == symbol);
        let ticks = store.last_ticks(&symbol, i64::try_from(limit).unwrap_or(i64::MAX)).await?;
        Ok::<_, windlass_market::positions::Error>((instrument, ticks))
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
        ..new
    };
    let store = shared.market.store().await?;
    let before = store.instruments().await?.into_iter().find(|known| known.symbol == symbol);
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
    let instrument = match shared.market.store().await {
        Ok(store) => store.instruments().await.map(|all| all.into_iter().find(|i| i.symbol == symbol)),
        Err(error) => Err(error),
    };
    let digits = match instrument {
        Ok(None) => return Err(unknown_symbol()),
        Ok(Some(instrument)) => instrument.digits,
        Err(error) => match last(&shared, &symbol, None).await? {
            Some(price) => price.digits,
            None => return Err(error.into()),
        },
    };
    let span = (from_ms.unwrap_or(i64::MIN), to_ms.unwrap_or(i64::MAX));
    let (candles, source) = shared.market.candles(&symbol, frame, span, limit).await?;
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
