//! Connections to the file: made with the right settings, remade when in doubt.

use std::fs::{DirBuilder, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _, Sqlite, SqliteConnection};

use super::fault::{failed, file_error, is_busy};
use super::{SqliteOptions, Synchronous};
use crate::Result;

/// How long the switch of a fresh file to WAL is tried again: SQLite answers busy at once
/// while another process does the same.
const OPEN_RETRY: Duration = Duration::from_millis(10);
/// Prepared statements kept per connection: all there are.
const STATEMENTS: usize = 128;
/// The WAL is cut to this size after a checkpoint, in bytes.
const WAL_KEPT_BYTES: u32 = 64 * 1024 * 1024;
/// Page cache per connection, in KiB (a negative `cache_size` counts KiB).
const CACHE_KIB: i32 = 16 * 1024;

/// One connection to the file, or to a database in memory.
///
/// After anything but a committed transaction it is remade: SQLite rolls some errors back by
/// itself, after which the driver's count of open transactions would be wrong for good.
#[derive(Debug)]
pub(super) struct Connection {
    options: SqliteConnectOptions,
    in_memory: bool,
    patience: Duration,
    conn: Option<SqliteConnection>,
    in_doubt: bool,
    /// How often it was made.
    generation: u64,
    /// Every commit waits for the disk until this is false again.
    is_synced: bool,
    synchronous: Synchronous,
}

/// A transaction that holds the file's write lock. Dropped without a commit it changes nothing.
pub(super) struct Tx<'a> {
    inner: sqlx::Transaction<'a, Sqlite>,
    in_doubt: &'a mut bool,
}

impl Tx<'_> {
    pub(super) fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.inner
    }

    pub(super) async fn commit(self, operation: &'static str) -> Result<()> {
        self.inner.commit().await.map_err(failed(operation))?;
        *self.in_doubt = false;
        Ok(())
    }
}

impl Connection {
    /// A connection to `path`, or to a private database in memory for `None`; made on first use.
    pub(super) fn new(path: Option<&Path>, options: &SqliteOptions) -> Self {
        let connect = SqliteConnectOptions::new()
            .busy_timeout(options.busy_timeout)
            .statement_cache_capacity(STATEMENTS)
            .row_buffer_size(512)
            .thread_name(|n| format!("windlass-sqlite-{n}"))
            .pragma("cache_size", (-CACHE_KIB).to_string())
            // A batch outgrows what SQLite keeps in memory of its undo journal by default: 64 KiB.
            .pragma("temp_store", "MEMORY")
            .disable_statement_logging();
        let connect = match path {
            None => connect.filename(":memory:").in_memory(true),
            Some(path) => connect
                .filename(path)
                .journal_mode(SqliteJournalMode::Wal)
                .pragma("journal_size_limit", WAL_KEPT_BYTES.to_string())
                .synchronous(match options.synchronous {
                    Synchronous::Normal => SqliteSynchronous::Normal,
                    Synchronous::Full => SqliteSynchronous::Full,
                }),
        };
        let (in_memory, patience) = (path.is_none(), options.busy_timeout);
        let is_synced = options.synchronous == Synchronous::Full;
        let synchronous = options.synchronous;
        Self {
            options: connect,
            in_memory,
            patience,
            conn: None,
            in_doubt: false,
            generation: 0,
            is_synced,
            synchronous,
        }
    }

    /// The connection, outside a transaction.
    pub(super) async fn ready(&mut self, operation: &'static str) -> Result<&mut SqliteConnection> {
        if self.in_doubt && !self.in_memory {
            self.conn = None;
        }
        self.in_doubt = false;
        if self.conn.is_none() {
            self.conn = Some(self.connect().await.map_err(failed(operation))?);
            self.generation += 1;
            self.is_synced = self.synchronous == Synchronous::Full;
        }
        Ok(self.conn.as_mut().expect("it was made above"))
    }

    /// Begins a transaction with the file's write lock, waiting for other processes.
    pub(super) async fn begin(&mut self, operation: &'static str) -> Result<Tx<'_>> {
        self.ready(operation).await?;
        let conn = self.conn.as_mut().expect("`ready` made it");
        self.in_doubt = true;
        let inner = conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed(operation))?;
        Ok(Tx { inner, in_doubt: &mut self.in_doubt })
    }

    /// Has the next commits wait for the disk, or wait no more than the file was opened for. Outside
    /// a transaction. Answers whether they do: never in memory.
    pub(super) async fn sync(&mut self, wish: bool) -> Result<bool> {
        let wish = wish || self.synchronous == Synchronous::Full;
        self.ready("sync").await?;
        if self.in_memory || self.is_synced == wish {
            return Ok(self.is_synced && !self.in_memory);
        }
        let sql = if wish { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
        let conn = self.ready("sync").await?;
        if let Err(e) = sqlx::query(sql).execute(conn).await {
            self.doubt();
            return Err(failed("sync")(e));
        }
        self.is_synced = wish;
        Ok(wish)
    }

    /// Has it remade before it is used again.
    pub(super) const fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// A value that changes when another connection has committed since the last call, or
    /// when that cannot be known.
    pub(super) async fn version(&mut self) -> Result<(u64, i64)> {
        let conn = self.ready("watch").await?;
        let version = sqlx::query_scalar("PRAGMA data_version").fetch_one(conn).await;
        match version {
            Ok(version) => Ok((self.generation, version)),
            Err(e) => {
                self.doubt();
                Err(failed("watch")(e))
            }
        }
    }

    async fn connect(&self) -> sqlx::Result<SqliteConnection> {
        let begun = Instant::now();
        loop {
            match self.options.connect().await {
                Err(e) if is_busy(&e) && begun.elapsed() < self.patience => tokio::time::sleep(OPEN_RETRY).await,
                result => return result,
            }
        }
    }
}

/// Makes the file and its directories, readable by nobody else; answers its absolute path.
pub(super) fn make_file(path: &Path) -> Result<PathBuf> {
    let fail = |e| file_error("open", e);
    let path = std::path::absolute(path).map_err(fail)?;
    let mut dirs = DirBuilder::new();
    let mut file = OpenOptions::new();
    dirs.recursive(true);
    file.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        std::os::unix::fs::DirBuilderExt::mode(&mut dirs, 0o700);
        std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    }
    if let Some(parent) = path.parent() {
        dirs.create(parent).map_err(fail)?;
    }
    // Never opened when it is there: closing it would take this process's locks on it away
    // from every open connection (fcntl(2)).
    if !path.exists() {
        file.open(&path).map_err(fail)?;
    }
    Ok(path)
}
