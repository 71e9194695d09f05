//! Quotes as feeds write them: JSON whose decimals are read from their text.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::positions::{RawQuote, Reject};

/// A quote as a feed writes it: `{"symbol", "bid", "ask", "ts_ms", "seq", "v", "src"}`; the last three may
/// be absent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given<'a> {
    symbol: String,
    #[serde(borrow)]
    bid: &'a RawValue,
    #[serde(borrow)]
    ask: &'a RawValue,
    ts_ms: i64,
    seq: Option<i64>,
    #[serde(default)]
    v: i64,
    src: Option<String>,
}

/// A decimal as it stands there: the text of a string, or the number's own, never through a float.
fn decimal(raw: &RawValue) -> Option<String> {
    let text = raw.get();
    match text.bytes().next()? {
        b'"' => serde_json::from_str(text).ok(),
        b'-' | b'0'..=b'9' => Some(text.to_owned()),
        _ => None,
    }
}

/// Quotes that were read, and the others.
#[derive(Debug, Default)]
pub struct Read {
    /// The quotes, in their order.
    pub quotes: Vec<RawQuote>,
    /// The place of each among what was given.
    pub places: Vec<usize>,
    /// What was no quote: `malformed`.
    pub rejects: Vec<Reject>,
}

/// Reads a quote or a list of them from JSON; `None` when it is neither.
#[must_use]
pub fn parse(json: &[u8]) -> Option<Vec<&RawValue>> {
    match json.iter().find(|byte| !byte.is_ascii_whitespace())? {
        b'[' => serde_json::from_slice(json).ok(),
        b'{' => Some(vec![serde_json::from_slice(json).ok()?]),
        _ => None,
    }
}

/// Reads quotes, each alone. One without `seq` is numbered by its time and its place among those of the
/// same moment.
#[must_use]
pub fn read(items: &[&RawValue]) -> Read {
    let mut read = Read::default();
    let mut moments: Moments = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        match one(item, &mut moments) {
            Some(quote) => {
                read.quotes.push(quote);
                read.places.push(index);
            }
            None => read.rejects.push(Reject { index, code: "malformed" }),
        }
    }
    read
}

/// How many quotes of a symbol and source there were of a moment.
type Moments = HashMap<(String, Option<String>, i64), i64>;

fn one(item: &RawValue, moments: &mut Moments) -> Option<RawQuote> {
    let Given { symbol, bid, ask, ts_ms, seq, v, src } = serde_json::from_str(item.get()).ok()?;
    let (bid, ask) = (decimal(bid)?, decimal(ask)?);
    let seq = match seq {
        Some(seq) => seq,
        None => {
            let place = moments.entry((symbol.clone(), src.clone(), ts_ms)).or_insert(-1);
            *place += 1;
            ts_ms.checked_mul(1_000)?.checked_add(*place)?
        }
    };
    Some(RawQuote { symbol, bid, ask, ts_ms, seq, volume: v, received_at_ms: None, source: src })
}
