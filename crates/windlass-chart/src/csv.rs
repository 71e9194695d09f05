//! Bars from CSV text, for demos and tests.
//!
//! Reads one layout only: the header `time,open,high,low,close,volume`, no quotes.

use jiff::Timestamp;
use jiff::civil::Date;

use crate::args::{Candles, Column};

const HEADER: &str = "time,open,high,low,close,volume";

/// Why a CSV text is not bars. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The first line is not the header.
    #[error("the header is {found:?}, expected \"{HEADER}\"")]
    Header {
        /// What was found.
        found: String,
    },
    /// A line has more or fewer than six fields.
    #[error("line {line} has {fields} fields, expected 6")]
    Fields {
        /// Where.
        line: usize,
        /// How many were found.
        fields: usize,
    },
    /// A time is neither a date (`2004-08-19`) nor RFC 3339 (`2017-01-01T22:00:00Z`).
    #[error("line {line} has the time {found:?}, expected a date or RFC 3339")]
    Time {
        /// Where.
        line: usize,
        /// What was found.
        found: String,
    },
    /// A price or volume is not a number.
    #[error("line {line} has {found:?}, expected a number")]
    Number {
        /// Where.
        line: usize,
        /// What was found.
        found: String,
    },
}

/// The bars of `text`: a date becomes midnight UTC. Blank lines are skipped; whether the
/// bars make sense is left to [`crate::ChartArgs::check`].
///
/// # Errors
/// The first line that is not as described.
pub fn candles_from_csv(text: &str) -> Result<Candles, Error> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let header = lines.next().map_or("", |(_, line)| line);
    if header.trim_start_matches('\u{feff}') != HEADER {
        return Err(Error::Header { found: header.to_owned() });
    }
    let mut columns: [Vec<f64>; 6] = Default::default();
    for (line, row) in lines.filter(|(_, row)| !row.is_empty()) {
        let fields: Vec<&str> = row.split(',').collect();
        if fields.len() != columns.len() {
            return Err(Error::Fields { line, fields: fields.len() });
        }
        columns[0].push(time_ms(fields[0], line)?);
        for (column, field) in columns[1..].iter_mut().zip(&fields[1..]) {
            let number = field.parse();
            column.push(number.map_err(|_| Error::Number { line, found: (*field).to_owned() })?);
        }
    }
    let [t, o, h, l, c, v] = columns.map(Column::from);
    Ok(Candles { t, o, h, l, c, v: Some(v) })
}

fn time_ms(field: &str, line: usize) -> Result<f64, Error> {
    let midnight = |date: Date| date.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let date = field.parse::<Date>().ok().filter(|_| field.len() <= 10).and_then(midnight);
    let instant = date.map(|zoned| zoned.timestamp()).or_else(|| field.parse::<Timestamp>().ok());
    let instant = instant.ok_or_else(|| Error::Time { line, found: field.to_owned() })?;
    Ok(instant.as_millisecond() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rows: &str, expected: Result<&[f64], Error>) {
        let found = candles_from_csv(&format!("{HEADER}\n{rows}"));
        assert_eq!(found.map(|candles| candles.t.to_vec()), expected.map(<[f64]>::to_vec));
    }

    #[test]
    fn dates_and_instants_are_read() {
        check("2004-08-19,1,2,0.5,1,9\n\n", Ok(&[1_092_873_600_000.0]));
        check("2017-01-01T22:00:00Z,1,2,0.5,1,9.5", Ok(&[1_483_308_000_000.0]));
        check("2017-01-01T22:00:00+01:00,1,2,0.5,1,9.5\r\n", Ok(&[1_483_304_400_000.0]));
        check("", Ok(&[]));
    }

    #[test]
    fn other_texts_are_refused_with_their_line() {
        check("2004-08-19,1,2", Err(Error::Fields { line: 2, fields: 3 }));
        let time = |found: &str| Err(Error::Time { line: 2, found: found.to_owned() });
        check("yesterday,1,2,0.5,1,9", time("yesterday"));
        check("2004-02-30,1,2,0.5,1,9", time("2004-02-30"));
        check("2004-08-19,x,2,0.5,1,9", Err(Error::Number { line: 2, found: "x".to_owned() }));
        let error = candles_from_csv("Date,Open").expect_err("not the header");
        assert_eq!(error, Error::Header { found: "Date,Open".to_owned() });
    }

    #[test]
    fn the_embedded_series_is_whole() {
        let candles = candles_from_csv(crate::GOOG_DAILY_CSV).expect("the file is in the crate");
        assert_eq!((candles.t.len(), candles.c.last()), (2148, Some(&806.19)));
    }
}
