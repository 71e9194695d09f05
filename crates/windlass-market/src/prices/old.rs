//! The values of the replaced system, as its readers expect them.
//!
//! Prices are texts. `price` is the middle of bid and ask, exact: it may have one digit more. Ours
//! beside theirs: `seq`.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::candle::Candle;
use crate::price::{format, parse};
use crate::rules::Quote;

/// The middle of bid and ask as a decimal, exact.
pub(crate) fn mid(quote: &Quote, digits: u8) -> String {
    let sum = i128::from(quote.bid) + i128::from(quote.ask);
    match i64::try_from(sum / 2) {
        Ok(half) if sum % 2 == 0 => format(half, digits),
        // Half a point: the digit after the last is a 5.
        Ok(half) if digits == 0 => format!("{half}.5"),
        Ok(half) => format!("{}5", format(half, digits)),
        Err(_) => format(quote.bid, digits),
    }
}

/// An instant as Python's `isoformat` writes it in UTC.
pub(crate) fn instant(ts_ms: i64) -> String {
    let Ok(at) = Timestamp::from_millisecond(ts_ms) else { return String::new() };
    jiff::tz::TimeZone::UTC.to_datetime(at).strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

/// `price:SYM`.
pub(crate) fn price(quote: &Quote, volume: i64, digits: u8) -> Value {
    json!({
        "price": mid(quote, digits),
        "timestamp": instant(quote.ts_ms),
        "volume": volume.to_string(),
        "bid": format(quote.bid, digits),
        "ask": format(quote.ask, digits),
        "seq": quote.seq,
    })
}

/// A member of `tick:SYM`.
pub(crate) fn tick(quote: &Quote, volume: i64, digits: u8) -> Value {
    json!({
        "price": mid(quote, digits),
        "volume": volume.to_string(),
        "timestamp": instant(quote.ts_ms),
        "bid": format(quote.bid, digits),
        "ask": format(quote.ask, digits),
        "seq": quote.seq,
    })
}

/// The score of a tick: epoch seconds.
pub(crate) fn score(ts_ms: i64) -> String {
    format(ts_ms, 3)
}

/// `candle:SYM:TF:PERIOD`.
pub(crate) fn candle(candle: &Candle, digits: u8) -> Value {
    let price = |points| format(points, digits);
    json!({
        "time": instant(candle.start_ms),
        "open": price(candle.o),
        "high": price(candle.h),
        "low": price(candle.l),
        "close": price(candle.c),
        "volume": candle.v.to_string(),
        "ask_high": price(candle.ah),
        "ask_low": price(candle.al),
        "count": candle.n,
        "at": [candle.open_at.0, candle.open_at.1, candle.close_at.0, candle.close_at.1],
        "rev": candle.rev,
        "final": candle.is_final,
    })
}

/// Reads a price or tick back: the quote, its digits and its volume.
pub(crate) fn read_quote(text: &str) -> Option<(Quote, u8, i64)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let (bid, ask) = (value["bid"].as_str()?, value["ask"].as_str()?);
    let digits = u8::try_from(bid.split_once('.').map_or(0, |(_, fraction)| fraction.len())).ok()?;
    let ts_ms = value["timestamp"].as_str()?.parse::<Timestamp>().ok()?.as_millisecond();
    let (bid, ask) = (parse(bid, digits).ok()?, parse(ask, digits).ok()?);
    let volume = value["volume"].as_str()?.parse().ok()?;
    Some((Quote { ts_ms, seq: value["seq"].as_i64()?, bid, ask }, digits, volume))
}

/// Reads a candle back.
pub(crate) fn read_candle(text: &str, start_ms: i64, digits: u8) -> Option<Candle> {
    let value: Value = serde_json::from_str(text).ok()?;
    let price = |name: &str| parse(value[name].as_str()?, digits).ok();
    let at = |index: usize| value["at"][index].as_i64();
    Some(Candle {
        start_ms,
        o: price("open")?,
        h: price("high")?,
        l: price("low")?,
        c: price("close")?,
        ah: price("ask_high")?,
        al: price("ask_low")?,
        v: value["volume"].as_str()?.parse().ok()?,
        n: value["count"].as_u64()?,
        open_at: (at(0)?, at(1)?),
        close_at: (at(2)?, at(3)?),
        rev: u32::try_from(value["rev"].as_u64()?).ok()?,
        is_final: value["final"].as_bool()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_replaced_system_8_32() {
        let quote = Quote { ts_ms: 1_705_746_600_250, seq: 9, bid: 107_160, ask: 107_173 };
        let told = price(&quote, 3, 5);
        assert_eq!(
            (&told["price"], &told["bid"], &told["ask"]),
            (&json!("1.071665"), &json!("1.07160"), &json!("1.07173"))
        );
        assert_eq!(told["timestamp"], "2024-01-20T10:30:00.250000+00:00");
        assert_eq!(score(quote.ts_ms), "1705746600.250");
        assert_eq!(read_quote(&told.to_string()), Some((quote, 5, 3)));
        assert_eq!(mid(&Quote { bid: 1, ask: 2, ..quote }, 0), "1.5");
        assert_eq!(mid(&Quote { bid: 4, ask: 6, ..quote }, 2), "0.05");
        assert_eq!(mid(&Quote { bid: i64::MAX, ask: i64::MAX, ..quote }, 0), i64::MAX.to_string());
    }
}
