//! Tables of integers as CSV: a header that names the columns, in any order.

use std::io::{self, BufRead};

/// What is wrong with a CSV file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    /// It has no header.
    #[error("the file is empty; its first line names the columns {allowed}")]
    Empty {
        /// The columns.
        allowed: String,
    },
    /// A column is missing, unknown or there twice.
    #[error("column {column:?} is {what}; the columns are {allowed}")]
    Column {
        /// Its name.
        column: String,
        /// missing, unknown or there twice.
        what: &'static str,
        /// The columns.
        allowed: String,
    },
    /// A line has too many or too few values.
    #[error("line {line} has {found} values, not {expected}")]
    Width {
        /// Counted from 1, the header.
        line: u64,
        /// Values found.
        found: usize,
        /// Values that the header promises.
        expected: usize,
    },
    /// A value is not what its column holds.
    #[error("line {line}, column {column}: {value:?} found; {allowed} is allowed")]
    Value {
        /// Counted from 1, the header.
        line: u64,
        /// The column.
        column: &'static str,
        /// What was found, cut to 60 characters.
        value: String,
        /// What may stand there.
        allowed: String,
    },
}

/// The longest value that is repeated in a message.
const SHOWN_CHARS: usize = 60;

/// Rows of a file, read one after the other.
pub(crate) struct Table<R> {
    lines: io::Lines<R>,
    columns: &'static [&'static str],
    /// Where each column stands in the file.
    places: Vec<usize>,
    line: u64,
}

impl<R: BufRead> Table<R> {
    /// Reads the header. Every column must be there once, and no other.
    pub(crate) fn open(reader: R, columns: &'static [&'static str]) -> Result<Self, Error> {
        let allowed = || columns.join(",");
        let mut lines = reader.lines();
        let header =
            lines.next().transpose().map_err(Error::Read)?.ok_or_else(|| Error::Empty { allowed: allowed() })?;
        let header = header.trim_start_matches('\u{feff}').trim();
        let names: Vec<&str> = header.split(',').map(str::trim).collect();
        let fault = |column: &str, what| Error::Column { column: column.to_owned(), what, allowed: allowed() };
        if let Some(unknown) = names.iter().find(|name| !columns.contains(name)) {
            return Err(fault(unknown, "unknown"));
        }
        let mut places = Vec::with_capacity(columns.len());
        for column in columns {
            let mut found = names.iter().enumerate().filter(|(_, name)| *name == column);
            let (place, _) = found.next().ok_or_else(|| fault(column, "missing"))?;
            if found.next().is_some() {
                return Err(fault(column, "there twice"));
            }
            places.push(place);
        }
        Ok(Self { lines, columns, places, line: 1 })
    }

    /// The next row; empty lines are passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Row>, Error> {
        loop {
            let Some(text) = self.lines.next().transpose().map_err(Error::Read)? else { return Ok(None) };
            self.line += 1;
            if text.trim().is_empty() {
                continue;
            }
            let ends: Vec<(usize, usize)> = text
                .split(',')
                .map(|value| {
                    let start = value.as_ptr() as usize - text.as_ptr() as usize;
                    (start, start + value.len())
                })
                .collect();
            if ends.len() != self.places.len() {
                return Err(Error::Width { line: self.line, found: ends.len(), expected: self.places.len() });
            }
            let values = self.places.iter().map(|place| ends[*place]).collect();
            return Ok(Some(Row { text, values, columns: self.columns, line: self.line }));
        }
    }
}

/// One row.
pub(crate) struct Row {
    text: String,
    values: Vec<(usize, usize)>,
    columns: &'static [&'static str],
    line: u64,
}

impl Row {
    /// A value by the place of its column in the list that the table was opened with.
    pub(crate) fn text(&self, column: usize) -> &str {
        let (start, end) = self.values[column];
        self.text[start..end].trim()
    }

    /// An integer, or none where nothing stands.
    pub(crate) fn optional(&self, column: usize) -> Result<Option<i64>, Error> {
        let text = self.text(column);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| self.fault(column, "an integer of 64 bits, or nothing,"))
    }

    /// An integer.
    pub(crate) fn integer(&self, column: usize) -> Result<i64, Error> {
        self.text(column).parse().map_err(|_| self.fault(column, "an integer of 64 bits"))
    }

    /// A symbol: 1 to 32 letters, digits and `._-/`.
    pub(crate) fn symbol(&self, column: usize) -> Result<&str, Error> {
        let text = self.text(column);
        if is_symbol(text) { Ok(text) } else { Err(self.fault(column, "1 to 32 letters, digits and . _ - /")) }
    }

    /// What is wrong with a value.
    pub(crate) fn fault(&self, column: usize, allowed: impl Into<String>) -> Error {
        let value = self.text(column).chars().take(SHOWN_CHARS).collect();
        Error::Value { line: self.line, column: self.columns[column], value, allowed: allowed.into() }
    }
}

/// 1 to 32 letters, digits and `._-/`: safe in a key, a path and a log line.
pub(crate) fn is_symbol(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
}
