//! The market: quotes, prices, ticks, instruments.

use serde_json::{Value, json};

use super::schemas::{array, count, flag, object, object_with, or_null, text};
use super::{Op, op, schema_of};
use crate::market::{positions, prices, quotes};
use crate::problem::Code;

/// A decimal as text, or a number whose digits are taken as they stand.
fn decimal() -> Value {
    json!({ "type": ["string", "number"], "examples": ["1.07160"] })
}

fn quote() -> Value {
    let mut quote = object_with(
        json!({ "symbol": text(), "bid": decimal(), "ask": decimal(), "ts_ms": { "type": "integer" } }),
        json!({
            "seq": { "type": ["integer", "null"], "minimum": 0, "description": "Rises with each quote of a symbol; by default the time and the place in the batch" },
            "v": { "type": "integer", "minimum": 0, "description": "Units traded" },
            "src": { "type": ["string", "null"], "description": "Which feed says it; needed where the instrument names its sources" },
        }),
    );
    quote["additionalProperties"] = false.into();
    quote
}

fn source() -> Value {
    json!({ "enum": ["redis", "memory", "database", "synthetic"] })
}

fn price() -> Value {
    object(json!({
        "symbol": text(), "bid": text(), "ask": text(), "digits": count(), "ts_ms": { "type": "integer" },
        "seq": { "type": "integer" }, "volume": count(), "age_ms": count(), "source": source(), "stale": flag(),
        "src": or_null("string"),
    }))
}

fn candle() -> Value {
    object(json!({
        "start_ms": { "type": "integer" }, "open": text(), "high": text(), "low": text(), "close": text(),
        "ask_high": text(), "ask_low": text(), "volume": text(), "count": count(), "rev": count(), "final": flag(),
    }))
}

fn instrument() -> Value {
    object(json!({
        "symbol": text(), "digits": count(), "min_stop_points": count(), "max_quote_age_ms": count(),
        "spread_grace_ms": count(), "confirm_ticks": count(), "target_at_level": flag(), "calendar": text(),
        "sources": array(text()), "hold_down_ms": count(),
    }))
}

pub(super) fn operations() -> Vec<Op> {
    let limit = |most: usize| json!({ "type": "integer", "minimum": 1, "maximum": most });
    let tick = object(json!({
        "ts_ms": { "type": "integer" }, "seq": { "type": "integer" }, "bid": text(), "ask": text(), "volume": count(),
    }));
    let mut all = vec![
        op("POST", "/api/quotes", "Bring quotes: one, or a list")
            .json(json!({ "oneOf": [quote(), { "type": "array", "items": quote(), "maxItems": quotes::MAX_QUOTES }] }))
            .answers(
                202,
                "What was kept, and what was not, by why",
                object(json!({
                    "accepted": count(), "rejected": array(object(json!({ "index": count(), "code": text() }))),
                })),
            )
            .fails(&[Code::BodyInvalid, Code::BatchTooLarge, Code::QuotesFull]),
        op(
            "GET",
            "/api/quotes/socket",
            "Bring quotes over a WebSocket: each message as the body of POST /api/quotes, each answered in its order",
        )
        .nothing(101, "The WebSocket is open")
        .fails(&[Code::BodyInvalid, Code::TooManyStreams]),
        op("GET", "/api/prices", "The last prices")
            .query("symbols", text(), "Of these symbols, separated by commas; default all")
            .answers(200, "Prices; a symbol without one is left out", object(json!({ "prices": array(price()) })))
            .fails(&[Code::QueryInvalid]),
        op("GET", "/api/prices/{symbol}", "The last price of a symbol").answers(200, "The price", price()).fails(&[
            Code::SymbolNotFound,
            Code::PriceNotFound,
            Code::NameInvalid,
        ]),
        op("GET", "/api/ticks/{symbol}", "The newest ticks of a symbol, oldest first")
            .query("limit", limit(5_000), "Ticks; default 100")
            .answers(200, "Ticks", object(json!({ "symbol": text(), "source": source(), "ticks": array(tick) })))
            .fails(&[Code::SymbolNotFound, Code::QueryInvalid, Code::NameInvalid]),
        op("GET", "/api/candles/{symbol}", "Candles of a symbol, oldest first")
            .query("timeframe", text(), "1m (the default), 5m, 15m, 30m, 1h, 4h, 1d, 1w, 1mo, or the old M1 … MN1")
            .query("from_ms", json!({ "type": "integer" }), "The first start, ms since 1970 UTC")
            .query("to_ms", json!({ "type": "integer" }), "The last start, ms since 1970 UTC")
            .query("limit", limit(5_000), "The newest so many; default 100")
            .answers(
                200,
                "Candles",
                object(
                    json!({ "symbol": text(), "timeframe": text(), "source": source(), "candles": array(candle()) }),
                ),
            )
            .fails(&[Code::SymbolNotFound, Code::QueryInvalid, Code::NameInvalid]),
        op("GET", "/api/instruments", "What is traded").answers(
            200,
            "All instruments, by symbol",
            object(json!({ "instruments": array(instrument()) })),
        ),
        op("GET", "/api/instruments/{symbol}", "An instrument")
            .answers(200, "The instrument", instrument())
            .fails(&[Code::SymbolNotFound, Code::NameInvalid]),
        op("PUT", "/api/instruments/{symbol}", "Make or change an instrument")
            .json(schema_of::<prices::PutInstrument>())
            .answers(200, "As it is now", instrument())
            .fails(&[Code::BodyInvalid, Code::PositionInvalid, Code::NameInvalid]),
    ];
    all.extend(positions_ops());
    all.extend(insight_ops());
    for op in &mut all {
        op.errors.push(Code::MarketUnavailable);
    }
    all
}

fn position() -> Value {
    let any = || json!({});
    object_with(
        json!({
            "position_id": { "type": "integer" }, "account_id": { "type": "integer" }, "symbol": text(),
            "side": { "enum": ["long", "short"] }, "qty": count(), "open_qty": count(),
            "status": { "enum": ["open", "closing", "closed"] }, "version": count(),
            "opened_at_ms": { "type": "integer" }, "closed_at_ms": or_null("integer"), "closing_reason": or_null("string"),
        }),
        json!({
            "calm": object(json!({ "band": { "enum": ["far_below", "below", "around_zero", "above", "far_above"] } })),
            "entry": text(), "sl": or_null("string"), "tp": or_null("string"), "sl_guaranteed": flag(), "trail": any(),
            "break_even": any(), "expires_at_ms": or_null("integer"), "legs": array(any()), "stop": any(),
            "stop_points": or_null("integer"), "target_points": or_null("integer"),
            "price": or_null("string"), "price_stale": or_null("boolean"), "pnl_points": or_null("string"),
            "closings": array(any()),
        }),
    )
}

fn positions_ops() -> Vec<Op> {
    let account = || {
        let id = json!({ "type": "integer" });
        object(json!({ "id": id, "currency": text(), "balance": id, "calm": flag() }))
    };
    let number = || json!({ "type": "integer" });
    let near = object(json!({
        "position_id": number(), "symbol": text(), "level": text(), "distance_points": number(),
        "waits_for": { "enum": ["stop", "target"] }, "bid": text(), "ask": text(), "source": { "enum": ["index", "tables"] },
    }));
    vec![
        op("GET", "/api/accounts/{id}", "An account")
            .answers(200, "The account", account())
            .fails(&[Code::AccountNotFound]),
        op("PUT", "/api/accounts/{id}", "Make or change an account")
            .json(schema_of::<positions::PutAccount>())
            .answers(200, "As it is now", account())
            .fails(&[Code::BodyInvalid, Code::AccountNotFound]),
        op("GET", "/api/positions", "Positions, by number")
            .query("symbol", text(), "Only of this symbol")
            .query("account_id", number(), "Only of this account")
            .query("closed", flag(), "Closed ones too")
            .paged()
            .answers(200, "A page", object(json!({ "positions": array(position()), "next": or_null("string") }))),
        op("POST", "/api/positions", "Open a position")
            .json(schema_of::<positions::Open>())
            .answers(201, "Open", position())
            .fails(&[
                Code::BodyInvalid,
                Code::PositionInvalid,
                Code::SymbolNotFound,
                Code::AccountNotFound,
                Code::NoFreshPrice,
            ]),
        op("GET", "/api/positions/next", "The positions nearest to a trigger, nearest first")
            .query("symbol", text(), "Only of this symbol")
            .query(
                "limit",
                json!({ "type": "integer", "minimum": 1, "maximum": crate::paging::MAX_PAGE }),
                "Default 20",
            )
            .answers(200, "What is next", object(json!({ "next": array(near) })))
            .fails(&[Code::QueryInvalid, Code::SymbolNotFound]),
        op("GET", "/api/positions/{id}", "A position with its closings")
            .answers(200, "The position", position())
            .fails(&[Code::PositionNotFound]),
        op("PATCH", "/api/positions/{id}", "Move what may end a position; what is absent stays, null takes it away")
            .json(schema_of::<positions::Patch>())
            .answers(200, "As it is now", position())
            .fails(&[
                Code::PositionNotFound,
                Code::BodyInvalid,
                Code::PositionInvalid,
                Code::VersionChanged,
                Code::AlreadyClosed,
            ]),
        op("POST", "/api/positions/{id}/close", "Close a position at the last price")
            .json(schema_of::<positions::Close>())
            .answers(200, "Closed", position())
            .answers(202, "The application whose position it is was asked to close it", position())
            .fails(&[
                Code::PositionNotFound,
                Code::BodyInvalid,
                Code::VersionChanged,
                Code::AlreadyClosed,
                Code::CloseRefused,
                Code::NoFreshPrice,
            ]),
    ]
}

/// What happened, why, and how quickly.
fn insight_ops() -> Vec<Op> {
    let number = || json!({ "type": "integer" });
    let line = object(json!({ "at_ms": number(), "kind": text(), "actor": text(), "detail": {} }));
    let stage = || {
        object(json!({
            "count": count(), "p50": or_null("integer"), "p99": or_null("integer"), "p99_9": or_null("integer"),
            "max": or_null("integer"),
        }))
    };
    vec![
        op("GET", "/api/positions/{id}/history", "What happened to a position, oldest first")
            .paged()
            .answers(
                200,
                "A page",
                object(json!({ "position_id": number(), "history": array(line), "next": or_null("string") })),
            )
            .fails(&[Code::PositionNotFound]),
        op("GET", "/api/positions/{id}/explain", "Why a position closed: decided again from what was written down")
            .answers(
                200,
                "Its closings",
                object(json!({ "position_id": number(), "agrees": flag(), "closings": array(json!({})) })),
            )
            .fails(&[Code::PositionNotFound]),
        op("GET", "/api/market/latency", "How long closings take, from quote to decision to closing")
            .query("closings", json!({ "type": "integer", "minimum": 1, "maximum": 100_000 }), "Over so many; default 1000")
            .answers(
                200,
                "Percentiles in ms",
                object(json!({
                    "closings": count(), "feed_ms": stage(), "decide_ms": stage(), "commit_ms": stage(), "total_ms": stage(),
                    "worst": array(json!({})),
                })),
            )
            .fails(&[Code::QueryInvalid]),
        op("GET", "/api/market/stats", "What this process has done with quotes, and how many positions are open").answers(
            200,
            "Counts",
            object(json!({
                "open_positions": count(), "frozen_symbols": array(text()), "gaps": array(json!({})), "here": {}, "cache": {},
                "sources": object(json!({})),
                "callbacks": object(json!({ "asked": count(), "failed": count(), "first": array(json!({})) })),
                "unmapped": object(json!({ "count": count(), "first": array(json!({})) })),
            })),
        ),
        op("GET", "/api/market/audit", "Whether the history of positions is as it was written")
            .query("links", json!({ "type": "integer", "minimum": 1, "maximum": 100_000 }), "The newest so many; default 10000")
            .query("head", text(), "What an earlier answer named as head: the chain must still go through it")
            .answers(
                200,
                "What was found",
                object(json!({
                    "intact": flag(), "links": count(), "unlinked": count(), "head": or_null("string"),
                    "broken": array(json!({})),
                })),
            )
            .fails(&[Code::QueryInvalid]),
    ]
}
