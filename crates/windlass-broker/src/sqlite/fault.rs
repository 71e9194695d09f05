//! What SQLite says, in the words of [`Error`].

use crate::Error;

// Primary result codes, https://www.sqlite.org/rescode.html.
const PERM: i32 = 3;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const NOMEM: i32 = 7;
const READONLY: i32 = 8;
const IOERR: i32 = 10;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const AUTH: i32 = 23;

/// The error of a verb: `.map_err(failed("exchange"))`.
pub(super) fn failed(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| classify(operation, source)
}

/// True when another process holds a lock that the call would have needed.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(BUSY | LOCKED))
}

fn classify(operation: &'static str, source: sqlx::Error) -> Error {
    match primary_code(&source) {
        Some(FULL) => Error::Full { operation, source: source.into() },
        Some(PERM | READONLY | AUTH) => Error::Denied { operation, source: source.into() },
        Some(BUSY | LOCKED | NOMEM | IOERR | CANTOPEN) => Error::Unavailable { operation, source: source.into() },
        Some(_) => Error::Unexpected { operation, detail: source.to_string() },
        None => match source {
            sqlx::Error::Io(io) => file_error(operation, io),
            sqlx::Error::WorkerCrashed => Error::Unavailable { operation, source: source.into() },
            other => Error::Unexpected { operation, detail: other.to_string() },
        },
    }
}

/// An error of the file system beneath the store.
pub(super) fn file_error(operation: &'static str, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Error::Denied { operation, source: error.into() },
        _ => Error::Unavailable { operation, source: error.into() },
    }
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}
