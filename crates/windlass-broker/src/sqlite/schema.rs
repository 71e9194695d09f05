//! The tables, and the number of their format.

use sqlx::{Row, SqliteConnection};

use super::connection::Tx;
use super::fault::failed;
use crate::{Error, Result};

/// The format this version writes. It reads no other.
pub(super) const FORMAT: i64 = 1;

/// Where a job lies. Together with its position this is the whole of its queue: every list
/// of [`Model`](windlass_jobs::model::Model) is one place in the index `job_place`.
pub(super) mod place {
    /// 0, 1, 2: waiting, by priority; positions rise from next to last.
    pub(in crate::sqlite) const FIRST_NOT_WAITING: i64 = 3;
    /// Scheduled or retrying; the position is the due time in ms.
    pub(in crate::sqlite) const DUE: i64 = 3;
    /// Running; the position is the end of the lease in ms.
    pub(in crate::sqlite) const LEASED: i64 = 4;
    /// Succeeded or cancelled; positions rise from oldest to newest.
    pub(in crate::sqlite) const DONE: i64 = 5;
    /// The dead set; positions rise from oldest to newest.
    pub(in crate::sqlite) const DEAD: i64 = 6;
}

const META: &str =
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID";

/// Args over [`INLINE_ARGS_BYTES`](super::enqueue::INLINE_ARGS_BYTES) lie beside the job, so
/// that a claim or a finish never rewrites them.
const TABLES: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS queue (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        head INTEGER NOT NULL DEFAULT 0,
        tail INTEGER NOT NULL DEFAULT 0,
        ended INTEGER NOT NULL DEFAULT 0,
        done INTEGER NOT NULL DEFAULT 0,
        pending INTEGER NOT NULL DEFAULT 0,
        scheduled INTEGER NOT NULL DEFAULT 0,
        retrying INTEGER NOT NULL DEFAULT 0,
        running INTEGER NOT NULL DEFAULT 0,
        dead INTEGER NOT NULL DEFAULT 0,
        enqueued_total INTEGER NOT NULL DEFAULT 0,
        success_total INTEGER NOT NULL DEFAULT 0,
        failure_total INTEGER NOT NULL DEFAULT 0,
        cancelled_total INTEGER NOT NULL DEFAULT 0,
        retried_total INTEGER NOT NULL DEFAULT 0,
        expired_leases_total INTEGER NOT NULL DEFAULT 0
    ) STRICT",
    "CREATE TABLE IF NOT EXISTS job (
        id INTEGER PRIMARY KEY,
        queue INTEGER NOT NULL,
        ulid BLOB NOT NULL,
        state TEXT NOT NULL,
        priority INTEGER NOT NULL,
        place INTEGER NOT NULL,
        position INTEGER NOT NULL,
        epoch INTEGER NOT NULL DEFAULT 0,
        deliveries INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        started_at INTEGER,
        finished_at INTEGER,
        skipped INTEGER NOT NULL DEFAULT 0,
        max_attempts INTEGER,
        kind TEXT NOT NULL,
        worker TEXT,
        progress TEXT,
        reason TEXT,
        options TEXT NOT NULL DEFAULT '',
        labels TEXT,
        error TEXT,
        args TEXT,
        result TEXT
    ) STRICT",
    "CREATE UNIQUE INDEX IF NOT EXISTS job_ulid ON job (queue, ulid)",
    "CREATE INDEX IF NOT EXISTS job_place ON job (queue, place, position, ulid)",
    "CREATE TABLE IF NOT EXISTS large_args (
        job INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
        args TEXT NOT NULL
    ) STRICT",
];

const WORKERS: &str = "CREATE TABLE IF NOT EXISTS worker (
        name TEXT PRIMARY KEY,
        seen_at INTEGER NOT NULL,
        info TEXT NOT NULL
    ) STRICT, WITHOUT ROWID";

/// Makes what is missing; refuses a file of another format, or one that is no queue.
pub(super) async fn prepare(tx: &mut Tx<'_>, file: &str) -> Result<()> {
    let conn = tx.conn();
    match format(conn).await? {
        Some(FORMAT) => return Ok(()),
        Some(found) => {
            let detail = format!("{file} has format {found}, this version knows {FORMAT}: a newer windlass wrote it");
            return Err(Error::Unexpected { operation: "open", detail });
        }
        None => {}
    }
    for sql in [META].into_iter().chain(TABLES).chain([WORKERS]) {
        sqlx::query(sql).execute(&mut *conn).await.map_err(failed("open"))?;
    }
    let insert = sqlx::query("INSERT INTO meta (key, value) VALUES ('format', ?)").bind(FORMAT);
    insert.execute(&mut *conn).await.map_err(failed("open"))?;
    Ok(())
}

/// The format of the file; `None` when it is empty.
async fn format(conn: &mut SqliteConnection) -> Result<Option<i64>> {
    let tables = sqlx::query("SELECT count(*), count(*) FILTER (WHERE name = 'meta') FROM sqlite_schema");
    let row = tables.fetch_one(&mut *conn).await.map_err(failed("open"))?;
    let (all, meta): (i64, i64) = (row.get(0), row.get(1));
    if all == 0 {
        return Ok(None);
    }
    let foreign =
        || Error::Unexpected { operation: "open", detail: "the file is a database, but not of a queue".into() };
    if meta == 0 {
        return Err(foreign());
    }
    let found = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'format'");
    found.fetch_optional(conn).await.map_err(failed("open"))?.ok_or_else(foreign).map(Some)
}
