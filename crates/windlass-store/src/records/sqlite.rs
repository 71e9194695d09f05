//! Records in a SQLite file of their own, shared by the processes of one machine.
//!
//! Time is the host's. Every write is a transaction that holds the file's write lock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use tokio::sync::Mutex;
use windlass_jobs::{Clock, SystemClock, Timestamp, millis, new_ulid};

use super::{Batch, Expect, Fence, Lead, Meta, Record, Records, Write, Written, check};
use crate::{Error, Result};

/// How long a call waits for other processes.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS space (
        name TEXT PRIMARY KEY, generation TEXT NOT NULL DEFAULT '', version INTEGER NOT NULL DEFAULT 0,
        holder TEXT NOT NULL DEFAULT '', epoch INTEGER NOT NULL DEFAULT 0, until INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS doc (
        space TEXT NOT NULL, place TEXT NOT NULL, name TEXT NOT NULL, rev INTEGER NOT NULL, json TEXT NOT NULL,
        PRIMARY KEY (space, place, name)
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS entry (
        space TEXT NOT NULL, log TEXT NOT NULL, seq INTEGER NOT NULL, json TEXT NOT NULL,
        PRIMARY KEY (space, log, seq)
    ) STRICT, WITHOUT ROWID",
    "PRAGMA user_version = 1",
];

/// Records in a SQLite file. Clones share one connection.
#[derive(Clone)]
pub struct SqliteRecords(Arc<Inner>);

struct Inner {
    path: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    conn: Mutex<Option<SqliteConnection>>,
}

impl std::fmt::Debug for SqliteRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SqliteRecords({:?})", self.0.path)
    }
}

impl SqliteRecords {
    /// Records in a file, which is made with its directories on first use, for this user only.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(Arc::new(Inner { path: Some(path.to_owned()), clock: Arc::new(SystemClock), conn: Mutex::new(None) }))
    }

    /// Records in memory, under a clock of the caller's: for tests. A call that is cut short loses
    /// them.
    #[must_use]
    pub fn in_memory(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { path: None, clock, conn: Mutex::new(None) }))
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    async fn connect(&self) -> Result<SqliteConnection> {
        let fail = failed("open records");
        let options = SqliteConnectOptions::new().busy_timeout(BUSY).disable_statement_logging();
        let options = match &self.0.path {
            None => options.filename(":memory:").in_memory(true),
            Some(path) => {
                make_file(path)?;
                options.filename(path).journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Normal)
            }
        };
        let begun = std::time::Instant::now();
        let mut conn = loop {
            match options.connect().await {
                Ok(conn) => break conn,
                // Busy at once while another process switches a fresh file to WAL.
                Err(e) if is_busy(&e) && begun.elapsed() < BUSY => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(e) => return Err(fail(e)),
            }
        };
        let format: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut conn).await.map_err(&fail)?;
        if format > 1 {
            let detail = format!("the file is of format {format}, made by a newer version; this one knows 1");
            return Err(Error::Unexpected { operation: "open records", detail });
        }
        if format == 0 {
            let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(&fail)?;
            for table in TABLES {
                sqlx::query(table).execute(&mut *tx).await.map_err(&fail)?;
            }
            tx.commit().await.map_err(&fail)?;
        }
        Ok(conn)
    }

    /// Runs a piece of work on the connection; after an error a file's is made anew.
    async fn with<T>(&self, work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T>) -> Result<T> {
        let mut slot = self.0.conn.lock().await;
        let mut conn = match slot.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        let result = work(&mut conn).await;
        // A connection that failed may be inside a transaction; in memory it is all there is.
        if result.is_ok() || self.0.path.is_none() {
            *slot = Some(conn);
        }
        result
    }
}

fn failed(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Sqlite { operation, source: Box::new(source) }
}

fn is_busy(e: &sqlx::Error) -> bool {
    // The primary code of SQLITE_BUSY, https://www.sqlite.org/rescode.html
    let code = e.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

fn make_file(path: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let fail = |source| Error::File { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
    }
    // Never opened when it is there: closing it would drop this process's locks (fcntl(2)).
    if !path.exists() {
        std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(fail)?;
    }
    Ok(())
}

/// Numbers in the file are never negative.
fn unsigned(row: &SqliteRow, column: usize) -> u64 {
    u64::try_from(row.get::<i64, _>(column)).unwrap_or(0)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

const READ_SPACE: &str = "SELECT generation, version, holder, epoch, until FROM space WHERE name = ?";
const READ_REV: &str = "SELECT rev FROM doc WHERE space = ? AND place = ? AND name = ?";
const PUT: &str = "INSERT INTO doc (space, place, name, rev, json) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET rev = excluded.rev, json = excluded.json";
const SEED: &str = "INSERT INTO doc (space, place, name, rev, json) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
const APPEND: &str = "INSERT INTO entry (space, log, seq, json)
    SELECT ?1, ?2, coalesce(max(seq), 0) + 1, ?3 FROM entry WHERE space = ?1 AND log = ?2";
const EXTEND: &str = "INSERT INTO entry (space, log, seq, json)
    SELECT ?1, ?2, coalesce(min(seq), 1) - 1, ?3 FROM entry WHERE space = ?1 AND log = ?2";
const TRIM: &str = "DELETE FROM entry WHERE space = ?1 AND log = ?2
    AND seq <= (SELECT max(seq) FROM entry WHERE space = ?1 AND log = ?2) - ?3";

#[async_trait]
impl Records for SqliteRecords {
    async fn meta(&self, space: &'static str) -> Result<Meta> {
        Ok(self.lead(space, "", Duration::ZERO).await?.meta)
    }

    async fn all(&self, space: &'static str, set: &str) -> Result<Vec<Record>> {
        let sql = "SELECT name, rev, json FROM doc WHERE space = ? AND place = ? ORDER BY name";
        let read = |row: &SqliteRow| Record { name: row.get(0), rev: unsigned(row, 1), json: row.get(2) };
        self.with(async |conn| {
            let rows = sqlx::query(sql).bind(space).bind(set).fetch_all(conn).await.map_err(failed("read records"))?;
            Ok(rows.iter().map(read).collect())
        })
        .await
    }

    async fn get(&self, space: &'static str, set: &str, name: &str) -> Result<Option<Record>> {
        let sql = "SELECT rev, json FROM doc WHERE space = ? AND place = ? AND name = ?";
        self.with(async |conn| {
            let query = sqlx::query(sql).bind(space).bind(set).bind(name);
            let row = query.fetch_optional(conn).await.map_err(failed("read record"))?;
            Ok(row.map(|row| Record { name: name.to_owned(), rev: unsigned(&row, 0), json: row.get(1) }))
        })
        .await
    }

    async fn write(&self, space: &'static str, batch: &Batch) -> Result<Written> {
        check(batch)?;
        self.with(async |conn| {
            let fail = failed("write records");
            let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(&fail)?;
            let written = write_all(&mut tx, space, batch).await.map_err(&fail)?;
            match written {
                Written::Done(_) => tx.commit().await.map_err(&fail)?,
                Written::Fenced | Written::Conflict(_) => tx.rollback().await.map_err(&fail)?,
            }
            Ok(written)
        })
        .await
    }

    async fn log(&self, space: &'static str, log: &str, from: usize, limit: usize) -> Result<Vec<String>> {
        let sql = "SELECT json FROM entry WHERE space = ? AND log = ? ORDER BY seq DESC LIMIT ? OFFSET ?";
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.with(async |conn| {
            let query = sqlx::query_scalar(sql).bind(space).bind(log).bind(number(limit)).bind(number(from));
            query.fetch_all(conn).await.map_err(failed("read log"))
        })
        .await
    }

    async fn lead(&self, space: &'static str, who: &str, ttl: Duration) -> Result<Lead> {
        self.with(async |conn| {
            let fail = failed("lead");
            let now = self.now();
            if ttl.is_zero() {
                let row = sqlx::query(READ_SPACE).bind(space).fetch_optional(conn).await.map_err(&fail)?;
                return Ok(row.map_or_else(|| nobody(now), |row| read_lead(&row, who, now)));
            }
            let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(&fail)?;
            let sql = "INSERT INTO space (name, holder, epoch, until) VALUES (?1, ?2, 1, ?3 + ?4)
                ON CONFLICT DO UPDATE SET
                    epoch = epoch + (until < ?3),
                    holder = iif(until < ?3, ?2, holder),
                    until = iif(until < ?3 OR holder = ?2 OR until > ?3 + ?4, ?3 + ?4, until)";
            let query = sqlx::query(sql).bind(space).bind(who).bind(now.0).bind(millis(ttl));
            query.execute(&mut *tx).await.map_err(&fail)?;
            let row = sqlx::query(READ_SPACE).bind(space).fetch_one(&mut *tx).await.map_err(&fail)?;
            tx.commit().await.map_err(&fail)?;
            Ok(read_lead(&row, who, now))
        })
        .await
    }

    async fn resign(&self, space: &'static str, fence: &Fence) -> Result<()> {
        let sql = "UPDATE space SET until = 0 WHERE name = ? AND holder = ? AND epoch = ?";
        self.with(async |conn| {
            let query = sqlx::query(sql).bind(space).bind(&fence.holder).bind(signed(fence.epoch));
            query.execute(conn).await.map(|_| ()).map_err(failed("resign"))
        })
        .await
    }
}

fn nobody(now: Timestamp) -> Lead {
    let meta = Meta { now, ..Meta::default() };
    Lead { fence: None, holder: String::new(), until: Timestamp::default(), meta }
}

fn read_lead(row: &SqliteRow, who: &str, now: Timestamp) -> Lead {
    let generation = Some(row.get::<String, _>(0)).filter(|text| !text.is_empty());
    let (holder, epoch, until) = (row.get::<String, _>(2), unsigned(row, 3), Timestamp(row.get(4)));
    let held = until >= now;
    Lead {
        fence: (held && holder == who && !who.is_empty()).then(|| Fence { holder: holder.clone(), epoch }),
        holder: if held { holder } else { String::new() },
        until,
        meta: Meta { now, generation, version: unsigned(row, 1) },
    }
}

async fn write_all(tx: &mut SqliteConnection, space: &str, batch: &Batch) -> sqlx::Result<Written> {
    sqlx::query("INSERT INTO space (name) VALUES (?) ON CONFLICT DO NOTHING").bind(space).execute(&mut *tx).await?;
    let row = sqlx::query(READ_SPACE).bind(space).fetch_one(&mut *tx).await?;
    if let Some(fence) = &batch.fence
        && (row.get::<String, _>(2) != fence.holder || unsigned(&row, 3) != fence.epoch)
    {
        return Ok(Written::Fenced);
    }
    let old: String = row.get(0);
    if batch.generation.as_ref() == Some(&old) {
        return Ok(Written::Conflict(0));
    }
    for (index, write) in batch.writes.iter().enumerate() {
        let (Write::Put { set, name, expect, .. } | Write::Remove { set, name, expect }) = write else { continue };
        let query = sqlx::query_scalar::<_, i64>(READ_REV).bind(space).bind(*set).bind(name);
        let rev = query.fetch_optional(&mut *tx).await?;
        let fits = match expect {
            Expect::Any => true,
            Expect::Absent => rev.is_none(),
            Expect::Rev(expected) => rev == Some(signed(*expected)),
        };
        if !fits {
            return Ok(Written::Conflict(index));
        }
    }
    let generation = match &batch.generation {
        Some(generation) => generation.clone(),
        None if old.is_empty() => new_ulid().to_string(),
        None => old,
    };
    let version = unsigned(&row, 1) + u64::from(batch.notify);
    let sql = "UPDATE space SET generation = ?, version = ? WHERE name = ?";
    sqlx::query(sql).bind(generation).bind(signed(version)).bind(space).execute(&mut *tx).await?;
    for write in &batch.writes {
        write_one(tx, space, signed(version), write).await?;
    }
    Ok(Written::Done(version))
}

async fn write_one(tx: &mut SqliteConnection, space: &str, rev: i64, write: &Write) -> sqlx::Result<()> {
    match write {
        Write::Put { set, name, json, .. } => {
            sqlx::query(PUT).bind(space).bind(*set).bind(name).bind(rev).bind(json).execute(tx).await?;
        }
        Write::Seed { set, name, json } => {
            sqlx::query(SEED).bind(space).bind(set).bind(name).bind(rev).bind(json).execute(tx).await?;
        }
        Write::Remove { set, name, .. } => {
            let sql = "DELETE FROM doc WHERE space = ? AND place = ? AND name = ?";
            sqlx::query(sql).bind(space).bind(*set).bind(name).execute(tx).await?;
        }
        Write::Append { log, json, keep } => {
            sqlx::query(APPEND).bind(space).bind(log).bind(json).execute(&mut *tx).await?;
            sqlx::query(TRIM).bind(space).bind(log).bind(i64::from((*keep).max(1))).execute(tx).await?;
        }
        Write::Extend { log, entries } => {
            for entry in entries {
                sqlx::query(EXTEND).bind(space).bind(log).bind(entry).execute(&mut *tx).await?;
            }
        }
        Write::DropLog { log } => {
            let sql = "DELETE FROM entry WHERE space = ? AND log = ?";
            sqlx::query(sql).bind(space).bind(log).execute(tx).await?;
        }
    }
    Ok(())
}
