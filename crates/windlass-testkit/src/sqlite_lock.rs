//! A lock on a SQLite file, held by a test so that nobody else can write.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

/// A connection that can hold a file's write lock.
#[derive(Debug)]
pub struct SqliteLock(SqliteConnection);

impl SqliteLock {
    /// A connection to a file that is there.
    ///
    /// # Panics
    /// When it is not.
    pub async fn open(path: &Path) -> Self {
        Self(SqliteConnectOptions::new().filename(path).connect().await.expect("the file is a database"))
    }

    /// Takes the lock: from now on every other write waits.
    ///
    /// # Panics
    /// When another writer does not let go for 5 s.
    pub async fn hold(&mut self) {
        self.0.execute("BEGIN IMMEDIATE").await.expect("other writers let go");
    }

    /// Lets others write again.
    ///
    /// # Panics
    /// When the connection is lost.
    pub async fn release(mut self) {
        self.0.execute("ROLLBACK").await.expect("a held lock can be given up");
        self.0.close().await.expect("a connection can be closed");
    }
}
