//! A row of another application's positions, as it is written in JSON.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

use super::{Sides, Words};
use crate::price;
use crate::rules::{BreakEven, Distance, Rules, Side, Trail};

/// Columns that have to be there.
pub(super) const NEEDED: [&str; 9] = ["id", "account_id", "symbol", "side", "qty", "entry", "sl", "tp", "version"];
/// Columns that may be there.
pub(super) const MORE: [&str; 10] = [
    "armed_at",
    "opened_at",
    "sl_guaranteed",
    "trail_points",
    "trail_bps",
    "trail_activation",
    "trail_step",
    "be_trigger",
    "be_offset",
    "expires_at",
];
/// Columns whose values must be exact.
pub(super) const EXACT: [&str; 5] = ["qty", "entry", "sl", "tp", "trail_activation"];

/// A position of theirs that can be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) account_id: i64,
    pub(super) symbol: String,
    pub(super) rules: Rules,
    pub(super) version: String,
    pub(super) armed_at_ms: Option<i64>,
    pub(super) opened_at_ms: Option<i64>,
}

/// One that cannot: its `id` as text, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) id: String,
    pub(super) why: String,
}

type Columns<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

/// Reads a row. `digits` says how many digits a symbol's prices have, if it is known.
pub(super) fn row(json: &str, words: &Words, digits: impl Fn(&str) -> Option<u8>) -> Result<Row, Unfit> {
    let columns: Columns<'_> = serde_json::from_str(json)
        .map_err(|e| Unfit { id: String::new(), why: format!("the row cannot be read: {e}") })?;
    read(&Reader(&columns), words, digits).map_err(|why| {
        let id = columns.get("id").and_then(|raw| text(raw)).unwrap_or_default();
        Unfit { id, why }
    })
}

fn read(row: &Reader<'_>, words: &Words, digits: impl Fn(&str) -> Option<u8>) -> Result<Row, String> {
    let symbol = row.need("symbol")?;
    let digits = digits(&symbol).ok_or_else(|| format!("symbol: {symbol:?} is no instrument"))?;
    let side = side(&row.need("side")?, &words.side)?;
    let qty = row.exact("qty", words.qty_digits)?.ok_or("qty: it is null")?;
    let entry = row.exact("entry", digits)?.ok_or("entry: it is null")?;
    let distance = match (row.int("trail_points")?, row.int("trail_bps")?) {
        (Some(_), Some(_)) => return Err("trail_bps: points or bps is allowed, not both".to_owned()),
        (Some(points), None) => Some(Distance::Points(points)),
        (None, bps) => bps.map(Distance::Bps),
    };
    let (activation, step) = (row.exact("trail_activation", digits)?, row.int("trail_step")?.unwrap_or(1));
    let offset = row.int("be_offset")?.unwrap_or(0);
    let rules = Rules {
        sl: row.exact("sl", digits)?,
        tp: row.exact("tp", digits)?,
        guaranteed: row.flag("sl_guaranteed")?,
        trail: distance.map(|distance| Trail { distance, activation, step }),
        break_even: row.int("be_trigger")?.map(|trigger| BreakEven { trigger, offset }),
        expires_at: row.instant("expires_at")?,
        ..Rules::new(side, qty, entry)
    };
    rules.check().map_err(|bad| format!("{}: {}", bad.field, bad.why))?;
    Ok(Row {
        id: row.int("id")?.ok_or("id: it is null")?,
        account_id: row.int("account_id")?.ok_or("account_id: it is null")?,
        symbol,
        rules,
        version: row.need("version")?,
        armed_at_ms: row.instant("armed_at")?,
        opened_at_ms: row.instant("opened_at")?,
    })
}

fn side(word: &str, sides: &Sides) -> Result<Side, String> {
    let among = |words: &[String]| words.iter().any(|own| own.eq_ignore_ascii_case(word));
    if among(&sides.long) {
        return Ok(Side::Long);
    }
    if among(&sides.short) { Ok(Side::Short) } else { Err(format!("side: {word:?} is neither long nor short")) }
}

/// A value as text; none for null.
fn text(raw: &RawValue) -> Option<String> {
    match raw.get() {
        "null" => None,
        text if text.starts_with('"') => serde_json::from_str(text).ok(),
        other => Some(other.to_owned()),
    }
}

struct Reader<'a>(&'a Columns<'a>);

impl Reader<'_> {
    fn get(&self, column: &str) -> Option<String> {
        self.0.get(column).and_then(|raw| text(raw))
    }

    fn need(&self, column: &str) -> Result<String, String> {
        self.get(column).ok_or_else(|| format!("{column}: it is null"))
    }

    fn int(&self, column: &str) -> Result<Option<i64>, String> {
        let read = |text: String| text.parse().map_err(|_| format!("{column}: {text:?} is no integer"));
        self.get(column).map(read).transpose()
    }

    /// A decimal of so many digits; never rounded.
    fn exact(&self, column: &str, digits: u8) -> Result<Option<i64>, String> {
        let read = |text: String| {
            price::parse(&text, digits).map_err(|bad| format!("{column}: {text}: {bad}; {digits} digits are kept"))
        };
        self.get(column).map(read).transpose()
    }

    fn flag(&self, column: &str) -> Result<bool, String> {
        match self.get(column).as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(format!("{column}: {other:?} is neither true nor false")),
        }
    }

    /// An instant in ms since 1970 UTC: a timestamp, one without a zone as UTC, or a number of ms.
    fn instant(&self, column: &str) -> Result<Option<i64>, String> {
        let read = |text: String| {
            let stamp = text.parse::<jiff::Timestamp>().ok();
            let civil = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
            let at = stamp.or_else(|| civil().map(|zoned| zoned.timestamp())).map(jiff::Timestamp::as_millisecond);
            at.or_else(|| text.parse().ok()).ok_or_else(|| format!("{column}: {text:?} is no instant"))
        };
        self.get(column).map(read).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"id": 7, "account_id": 1, "symbol": "EURUSD", "side": "BUY", "qty": 0.10, "entry": 1.07160000,
        "sl": 1.07, "tp": null, "version": "2026-01-02T03:04:05.678901+00:00", "armed_at": "2026-01-02T03:04:05.678901+01:00",
        "opened_at": "2026-01-02T03:04:05", "trail_points": 30, "expires_at": 5}"#;

    fn words() -> Words {
        Words { qty_digits: 2, ..Words::default() }
    }

    fn digits(symbol: &str) -> Option<u8> {
        (symbol == "EURUSD").then_some(5)
    }

    #[test]
    fn a_row_is_read_exactly_8_25() {
        let row = row(WHOLE, &words(), digits).unwrap();
        assert_eq!((row.id, row.rules.side, row.rules.qty, row.rules.entry), (7, Side::Long, 10, 107_160));
        assert_eq!((row.rules.sl, row.rules.tp, row.rules.expires_at), (Some(107_000), None, Some(5)));
        assert_eq!(row.version, "2026-01-02T03:04:05.678901+00:00", "not cut to milliseconds");
        assert_eq!(row.opened_at_ms.unwrap() - row.armed_at_ms.unwrap(), 3_600_000 - 678);
    }

    #[test]
    fn what_does_not_fit_is_named_and_never_rounded_8_25() {
        let check = |from: &str, to: &str, expected: &str| {
            let unfit = row(&WHOLE.replace(from, to), &words(), digits).unwrap_err();
            assert!(unfit.why.starts_with(expected), "{}", unfit.why);
            unfit.id
        };
        assert_eq!(check("1.07160000", "1.071600001", "entry: 1.071600001"), "7");
        check("0.10", "0.105", "qty: 0.105");
        check("0.10", "0", "qty");
        check("BUY", "HOLD", "side: \"HOLD\"");
        check("EURUSD", "XXX", "symbol: \"XXX\"");
        check("1.07,", "\"NaN\",", "sl: NaN");
        check("\"id\": 7", "\"id\": \"a-1\"", "id: \"a-1\"");
        check("\"expires_at\": 5", "\"expires_at\": \"infinity\"", "expires_at");
        check("\"tp\": null", "\"tp\": 1.06", "tp: the target lies on the winning side");
        check("\"account_id\": 1", "\"account_id\": null", "account_id: it is null");
    }
}
