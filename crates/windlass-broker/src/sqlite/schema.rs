//! The tables, and the number of their format.

use sqlx::{Row, SqliteConnection};

use super::connection::Tx;
use super::fault::failed;
use crate::{Error, Result};

/// The format this version reads and writes. An older file is upgraded when it is opened.
pub(super) const FORMAT: i64 = 5;

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
    /// The dead set; the position is the time of failure in ms.
    pub(in crate::sqlite) const DEAD: i64 = 6;
    /// Of a kind that no worker knows; the position is 0, so that the order is that of ulids.
    pub(in crate::sqlite) const PARKED: i64 = 7;
    /// Waiting in a lane; positions as of those waiting.
    pub(in crate::sqlite) const LANED: i64 = 8;
    /// Waiting for other jobs; the position is the time before which it may not run, in ms, or 0.
    pub(in crate::sqlite) const BLOCKED: i64 = 9;
    /// Where a job waits for a worker.
    pub(in crate::sqlite) const WAITING: &str = "iif(lane IS NULL, priority, 8)";
}

const META: &str =
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID";

/// Args over [`INLINE_ARGS_BYTES`](super::enqueue::INLINE_ARGS_BYTES) lie beside the job, so
/// that a claim or a finish never rewrites them.
const TABLES: [&str; 13] = [
    "CREATE TABLE IF NOT EXISTS queue (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        head INTEGER NOT NULL DEFAULT 0,
        tail INTEGER NOT NULL DEFAULT 0,
        done_tail INTEGER NOT NULL DEFAULT 0,
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
        expired_leases_total INTEGER NOT NULL DEFAULT 0,
        parked INTEGER NOT NULL DEFAULT 0,
        paused INTEGER NOT NULL DEFAULT 0,
        max_waiting INTEGER,
        since INTEGER,
        reap_after INTEGER,
        graced_at INTEGER,
        special INTEGER NOT NULL DEFAULT 0,
        blocked INTEGER NOT NULL DEFAULT 0,
        flows INTEGER NOT NULL DEFAULT 0
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
        result TEXT,
        expires_at INTEGER,
        cancel_requested INTEGER NOT NULL DEFAULT 0,
        unknown_since INTEGER,
        lost TEXT,
        unique_key TEXT,
        lane TEXT
    ) STRICT",
    "CREATE UNIQUE INDEX IF NOT EXISTS job_ulid ON job (queue, ulid)",
    "CREATE INDEX IF NOT EXISTS job_place ON job (queue, place, position, ulid)",
    "CREATE TABLE IF NOT EXISTS large_args (
        job INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
        args TEXT NOT NULL
    ) STRICT",
    CANCEL_REQUESTS,
    UNIQUE_KEYS,
    UNIQUE_HOLDERS,
    LANES,
    JOBS_IN_LANES,
    PARENTS,
    CHILDREN,
    OUTBOX,
];

/// Running jobs whose cancel was asked for, so that other processes find them without an index
/// on `job`. A row whose job ended means nothing and is removed with the next request.
const CANCEL_REQUESTS: &str = "CREATE TABLE IF NOT EXISTS cancel_request (job INTEGER PRIMARY KEY) STRICT";

/// From format 1 to 2. The column `ended` gets another name because it lost a meaning: a
/// process of format 1 that still runs would put failures in a wrong order, and is refused by
/// SQLite (`no such column: ended`) instead.
const FROM_1_TO_2: [&str; 15] = [
    "ALTER TABLE queue RENAME COLUMN ended TO done_tail",
    "ALTER TABLE queue ADD COLUMN parked INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE queue ADD COLUMN paused INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE queue ADD COLUMN max_waiting INTEGER",
    "ALTER TABLE queue ADD COLUMN since INTEGER",
    "ALTER TABLE queue ADD COLUMN reap_after INTEGER",
    "ALTER TABLE queue ADD COLUMN graced_at INTEGER",
    "ALTER TABLE job ADD COLUMN expires_at INTEGER",
    "ALTER TABLE job ADD COLUMN cancel_requested INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE job ADD COLUMN unknown_since INTEGER",
    "ALTER TABLE job ADD COLUMN lost TEXT",
    CANCEL_REQUESTS,
    "UPDATE job SET position = coalesce(finished_at, 0) WHERE place = 6",
    // The first job may be gone: the oldest that is there, or else the epoch, is as good.
    "UPDATE queue SET since = coalesce((SELECT min(created_at) FROM job WHERE job.queue = queue.id), 0)
     WHERE enqueued_total > 0",
    "UPDATE meta SET value = 2 WHERE key = 'format'",
];

/// Who holds a unique key until when; `ends`: what ends the hold before, `s`, `f` or `t`
/// ([`Until::letter`](windlass_jobs::Until::letter)).
const UNIQUE_KEYS: &str = "CREATE TABLE IF NOT EXISTS unique_key (
        queue INTEGER NOT NULL,
        key TEXT NOT NULL,
        ulid BLOB NOT NULL,
        until INTEGER NOT NULL,
        ends TEXT NOT NULL,
        PRIMARY KEY (queue, key)
    ) STRICT, WITHOUT ROWID";
const UNIQUE_HOLDERS: &str = "CREATE INDEX IF NOT EXISTS unique_key_ulid ON unique_key (queue, ulid)";

/// From format 2 to 3: unique keys.
const FROM_2_TO_3: [&str; 5] = [
    "ALTER TABLE queue ADD COLUMN special INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE job ADD COLUMN unique_key TEXT",
    UNIQUE_KEYS,
    UNIQUE_HOLDERS,
    "UPDATE meta SET value = 3 WHERE key = 'format'",
];

/// Whose turn it is: [`Lanes`](windlass_jobs::lanes::Lanes) as JSON.
const LANES: &str = "CREATE TABLE IF NOT EXISTS lanes (queue INTEGER PRIMARY KEY, state TEXT NOT NULL) STRICT";
const JOBS_IN_LANES: &str =
    "CREATE INDEX IF NOT EXISTS job_lane ON job (queue, lane, position) WHERE place = 8 AND lane IS NOT NULL";

/// From format 3 to 4: lanes.
const FROM_3_TO_4: [&str; 4] =
    ["ALTER TABLE job ADD COLUMN lane TEXT", LANES, JOBS_IN_LANES, "UPDATE meta SET value = 4 WHERE key = 'format'"];

/// The jobs that a job depends on, in order; `open`: those that have not ended.
const PARENTS: &str = "CREATE TABLE IF NOT EXISTS parent (
        job INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
        nth INTEGER NOT NULL,
        parent TEXT NOT NULL,
        open INTEGER NOT NULL,
        PRIMARY KEY (job, parent)
    ) STRICT, WITHOUT ROWID";
/// The jobs that depend on a job.
const CHILDREN: &str = "CREATE TABLE IF NOT EXISTS child (
        job INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
        child TEXT NOT NULL,
        PRIMARY KEY (job, child)
    ) STRICT, WITHOUT ROWID";
/// What is to be said to other jobs, and when: [`Message`](windlass_jobs::flow::Message) as text.
const OUTBOX: &str = "CREATE TABLE IF NOT EXISTS outbox (
        queue INTEGER NOT NULL,
        message TEXT NOT NULL,
        due INTEGER NOT NULL,
        PRIMARY KEY (queue, message)
    ) STRICT, WITHOUT ROWID";

/// From format 4 to 5: jobs that depend on others.
const FROM_4_TO_5: [&str; 6] = [
    "ALTER TABLE queue ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE queue ADD COLUMN flows INTEGER NOT NULL DEFAULT 0",
    PARENTS,
    CHILDREN,
    OUTBOX,
    "UPDATE meta SET value = 5 WHERE key = 'format'",
];

const WORKERS: &str = "CREATE TABLE IF NOT EXISTS worker (
        name TEXT PRIMARY KEY,
        seen_at INTEGER NOT NULL,
        info TEXT NOT NULL
    ) STRICT, WITHOUT ROWID";

/// Makes what is missing, upgrades an older file; refuses a newer one, or one that is no queue.
pub(super) async fn prepare(tx: &mut Tx<'_>, file: &str) -> Result<()> {
    let conn = tx.conn();
    match format(conn).await? {
        Some(FORMAT) => return Ok(()),
        Some(from @ 1..FORMAT) => {
            tracing::info!(file, from, to = FORMAT, "upgrading the queue's file");
            if from == 1 {
                run(conn, &FROM_1_TO_2).await?;
            }
            if from <= 2 {
                run(conn, &FROM_2_TO_3).await?;
            }
            if from <= 3 {
                run(conn, &FROM_3_TO_4).await?;
            }
            return run(conn, &FROM_4_TO_5).await;
        }
        Some(found) => {
            let detail = format!("{file} has format {found}, this version knows {FORMAT}: a newer windlass wrote it");
            return Err(Error::Unexpected { operation: "open", detail });
        }
        None => {}
    }
    run(conn, &[META]).await?;
    run(conn, &TABLES).await?;
    run(conn, &[WORKERS]).await?;
    let insert = sqlx::query("INSERT INTO meta (key, value) VALUES ('format', ?)").bind(FORMAT);
    insert.execute(&mut *conn).await.map_err(failed("open"))?;
    Ok(())
}

async fn run(conn: &mut SqliteConnection, statements: &[&'static str]) -> Result<()> {
    for sql in statements {
        sqlx::query(*sql).execute(&mut *conn).await.map_err(failed("open"))?;
    }
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
