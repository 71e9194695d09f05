//! Errors of the tables, sorted by what to do about them.

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again later: the server is away, slow, locked, or ended the transaction.
    Retryable,
    /// The caller asked for something that cannot be.
    Refused,
    /// Neither: a fault of ours, or a table that is not ours.
    Bug,
}

/// A call that did not work out. Never holds a password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL names no database.
    #[error("the database's url cannot be read; postgres://user:password@host:port/database is allowed")]
    Url,
    /// A statement failed. After a [`Class::Retryable`] it is not known whether it took effect.
    #[error("positions: {operation}")]
    Sql {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// A row holds what cannot be.
    #[error("positions: {operation}: row {id} holds {what}")]
    Row {
        /// What was being done.
        operation: &'static str,
        /// Its number.
        id: i64,
        /// What is wrong.
        what: &'static str,
    },
    /// The tables were made by a newer version of this program.
    #[error("the tables have version {found}; this program knows up to {known}")]
    Newer {
        /// Theirs.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Something asked for cannot be.
    #[error("{field}: {why}")]
    Refused {
        /// The field.
        field: &'static str,
        /// A stable word a program can branch on.
        code: &'static str,
        /// What is allowed, for a person.
        why: String,
    },
}

impl Error {
    pub(crate) fn sql(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Sql { operation, source }
    }

    pub(crate) fn refused(field: &'static str, code: &'static str, why: impl Into<String>) -> Self {
        Self::Refused { field, code, why: why.into() }
    }

    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Refused { .. } | Self::Url => Class::Refused,
            Self::Row { .. } | Self::Newer { .. } => Class::Bug,
            Self::Sql { source, .. } => class_of(source),
        }
    }

    /// True for a transaction that the database ended to let another one go on: it may be run
    /// again at once (40001, 40P01; a busy file).
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let Self::Sql { source: sqlx::Error::Database(error), .. } = self else { return false };
        error.code().is_some_and(|code| matches!(&*code, "40001" | "40P01" | "5" | "517" | "261"))
    }

    /// True when a statement was refused for what is in its row – a trigger, a constraint, a lock – and not for
    /// the state of the server.
    pub(crate) fn is_of_row(&self) -> bool {
        matches!(self, Self::Sql { source, .. } if is_of_row(source))
    }

    /// True when a row of this number is there already.
    pub(crate) fn is_duplicate(&self) -> bool {
        matches!(self, Self::Sql { source: sqlx::Error::Database(error), .. } if error.is_unique_violation())
    }
}

/// As [`Error::is_of_row`].
pub(super) fn is_of_row(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    let code = error.code().unwrap_or_default();
    // Connection, conflict, no room, shutting down, I/O: nothing of one row.
    !["08", "40", "53", "57P", "58"].iter().any(|class| code.starts_with(class))
}

fn class_of(error: &sqlx::Error) -> Class {
    use sqlx::Error as E;
    match error {
        E::Io(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Tls(_) | E::Protocol(_) => Class::Retryable,
        E::Database(error) => {
            let code = error.code().unwrap_or_default();
            // PostgreSQL: connection, transaction ended, no room, shutting down, cancelled, lock.
            // SQLite: busy, locked, full, I/O.
            let retryable = ["08", "40", "53", "57", "58", "55P03"].iter().any(|class| code.starts_with(class))
                || matches!(&*code, "5" | "6" | "10" | "13" | "261" | "517");
            if retryable { Class::Retryable } else { Class::Bug }
        }
        _ => Class::Bug,
    }
}
