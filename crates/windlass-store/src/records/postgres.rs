//! Records in PostgreSQL, for installations that have one: then a Redis that loses everything loses
//! nothing of them.
//!
//! Time is the database's. A write locks its space's row, so that batches of a space are one after the
//! other; reads wait for nobody.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions as _, PgConnection, PgPool, Row as _};
use tokio::sync::OnceCell;
use windlass_jobs::{Timestamp, millis, new_ulid};

use super::{Batch, Expect, Fence, Lead, Meta, Record, Records, Write, Written, check};
use crate::{Error, Result};

/// Connections of a process.
const CONNECTIONS: u32 = 4;
/// How long a call waits for a connection, a lock, an answer.
const WITHIN: Duration = Duration::from_secs(5);
/// Held while the tables are made, so that processes that start at once do it one after the other.
const MIGRATION_LOCK: i64 = 0x7769_6e64_7265_6373;

const TABLES: [&str; 4] = [
    "CREATE SCHEMA IF NOT EXISTS windlass",
    "CREATE TABLE IF NOT EXISTS windlass.record_space (
        name text PRIMARY KEY, generation text NOT NULL DEFAULT '', version bigint NOT NULL DEFAULT 0,
        holder text NOT NULL DEFAULT '', epoch bigint NOT NULL DEFAULT 0, until bigint NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS windlass.record_doc (
        space text NOT NULL, place text NOT NULL, name text NOT NULL, rev bigint NOT NULL, json text NOT NULL,
        PRIMARY KEY (space, place, name))",
    "CREATE TABLE IF NOT EXISTS windlass.record_entry (
        space text NOT NULL, log text NOT NULL, seq bigint NOT NULL, json text NOT NULL,
        PRIMARY KEY (space, log, seq))",
];
/// The database's clock, in ms.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
const PUT: &str = "INSERT INTO windlass.record_doc (space, place, name, rev, json) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (space, place, name) DO UPDATE SET rev = excluded.rev, json = excluded.json";
const SEED: &str = "INSERT INTO windlass.record_doc (space, place, name, rev, json) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING";
const APPEND: &str = "INSERT INTO windlass.record_entry (space, log, seq, json)
    SELECT $1, $2, coalesce(max(seq), 0) + 1, $3 FROM windlass.record_entry WHERE space = $1 AND log = $2";
const EXTEND: &str = "INSERT INTO windlass.record_entry (space, log, seq, json)
    SELECT $1, $2, coalesce(min(seq), 1) - 1, $3 FROM windlass.record_entry WHERE space = $1 AND log = $2";
const TRIM: &str = "DELETE FROM windlass.record_entry WHERE space = $1 AND log = $2
    AND seq <= (SELECT max(seq) FROM windlass.record_entry WHERE space = $1 AND log = $2) - $3";

/// Records in PostgreSQL. Clones share their connections; the tables are made on first use, in the
/// schema `windlass`.
#[derive(Debug, Clone)]
pub struct PostgresRecords {
    pool: PgPool,
    made: std::sync::Arc<OnceCell<()>>,
}

fn failed(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Sql { operation, source: Box::new(source) }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(row: &PgRow, column: &str) -> u64 {
    u64::try_from(row.get::<i64, _>(column)).unwrap_or(0)
}

impl PostgresRecords {
    /// Records in the database of a `postgres://` URL. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when the URL cannot be read; it is not repeated.
    pub fn new(url: &str) -> Result<Self> {
        let wrong = |_| Error::Unexpected { operation: "read the URL of the records", detail: "it is none".to_owned() };
        let within_ms = WITHIN.as_millis().to_string();
        let options: PgConnectOptions = url.parse().map_err(wrong)?;
        let options = options
            .application_name("windlass-records")
            .options([("jit", "off"), ("statement_timeout", within_ms.as_str()), ("lock_timeout", within_ms.as_str())])
            .disable_statement_logging();
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(WITHIN).connect_lazy_with(options);
        Ok(Self { pool, made: std::sync::Arc::default() })
    }

    async fn pool(&self) -> Result<&PgPool> {
        self.made
            .get_or_try_init(async || {
                let fail = failed("make the tables of records");
                let mut tx = self.pool.begin().await.map_err(&fail)?;
                let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK);
                lock.execute(&mut *tx).await.map_err(&fail)?;
                for table in TABLES {
                    sqlx::query(table).execute(&mut *tx).await.map_err(&fail)?;
                }
                tx.commit().await.map_err(&fail)
            })
            .await?;
        Ok(&self.pool)
    }
}

#[async_trait]
impl Records for PostgresRecords {
    async fn meta(&self, space: &'static str) -> Result<Meta> {
        Ok(self.lead(space, "", Duration::ZERO).await?.meta)
    }

    async fn all(&self, space: &'static str, set: &str) -> Result<Vec<Record>> {
        let sql = "SELECT name, rev, json FROM windlass.record_doc WHERE space = $1 AND place = $2
            ORDER BY name COLLATE \"C\"";
        let rows = sqlx::query(sql).bind(space).bind(set).fetch_all(self.pool().await?).await;
        let read = |row: &PgRow| Record { name: row.get("name"), rev: unsigned(row, "rev"), json: row.get("json") };
        Ok(rows.map_err(failed("read records"))?.iter().map(read).collect())
    }

    async fn get(&self, space: &'static str, set: &str, name: &str) -> Result<Option<Record>> {
        let sql = "SELECT rev, json FROM windlass.record_doc WHERE space = $1 AND place = $2 AND name = $3";
        let query = sqlx::query(sql).bind(space).bind(set).bind(name);
        let row = query.fetch_optional(self.pool().await?).await.map_err(failed("read record"))?;
        Ok(row.map(|row| Record { name: name.to_owned(), rev: unsigned(&row, "rev"), json: row.get("json") }))
    }

    async fn write(&self, space: &'static str, batch: &Batch) -> Result<Written> {
        check(batch)?;
        let fail = failed("write records");
        let mut tx = self.pool().await?.begin().await.map_err(&fail)?;
        let written = write_all(&mut tx, space, batch).await.map_err(&fail)?;
        match written {
            Written::Done(_) => tx.commit().await.map_err(&fail)?,
            Written::Fenced | Written::Conflict(_) => tx.rollback().await.map_err(&fail)?,
        }
        Ok(written)
    }

    async fn log(&self, space: &'static str, log: &str, from: usize, limit: usize) -> Result<Vec<String>> {
        let sql = "SELECT json FROM windlass.record_entry WHERE space = $1 AND log = $2
            ORDER BY seq DESC LIMIT $3 OFFSET $4";
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let query = sqlx::query_scalar(sql).bind(space).bind(log).bind(number(limit)).bind(number(from));
        query.fetch_all(self.pool().await?).await.map_err(failed("read log"))
    }

    async fn lead(&self, space: &'static str, who: &str, ttl: Duration) -> Result<Lead> {
        let (fail, pool) = (failed("lead"), self.pool().await?);
        if !ttl.is_zero() {
            let sql = format!(
                "WITH clock AS (SELECT {NOW} AS now)
                INSERT INTO windlass.record_space AS s (name, holder, epoch, until)
                    SELECT $1, $2, 1, now + $3 FROM clock
                ON CONFLICT (name) DO UPDATE SET
                    epoch = s.epoch + (s.until < excluded.until - $3)::int,
                    holder = CASE WHEN s.until < excluded.until - $3 THEN $2 ELSE s.holder END,
                    until = CASE WHEN s.until < excluded.until - $3 OR s.holder = $2 OR s.until > excluded.until
                        THEN excluded.until ELSE s.until END"
            );
            let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(space).bind(who).bind(millis(ttl));
            query.execute(pool).await.map_err(&fail)?;
        }
        let sql = format!(
            "SELECT {NOW} AS now, s.* FROM (SELECT 1) AS one
            LEFT JOIN windlass.record_space AS s ON s.name = $1"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(space).fetch_one(pool).await.map_err(&fail)?;
        Ok(read_lead(&row, who))
    }

    async fn resign(&self, space: &'static str, fence: &Fence) -> Result<()> {
        let sql = "UPDATE windlass.record_space SET until = 0 WHERE name = $1 AND holder = $2 AND epoch = $3";
        let query = sqlx::query(sql).bind(space).bind(&fence.holder).bind(signed(fence.epoch));
        query.execute(self.pool().await?).await.map(|_| ()).map_err(failed("resign"))
    }
}

/// Reads a space's row; all but the clock is null when there is none.
fn read_lead(row: &PgRow, who: &str) -> Lead {
    let now = Timestamp(row.get("now"));
    let Some(holder) = row.get::<Option<String>, _>("holder") else {
        let meta = Meta { now, ..Meta::default() };
        return Lead { fence: None, holder: String::new(), until: Timestamp::default(), meta };
    };
    let generation = Some(row.get::<String, _>("generation")).filter(|text| !text.is_empty());
    let (epoch, until) = (unsigned(row, "epoch"), Timestamp(row.get("until")));
    let held = until >= now;
    Lead {
        fence: (held && holder == who && !who.is_empty()).then(|| Fence { holder: holder.clone(), epoch }),
        holder: if held { holder } else { String::new() },
        until,
        meta: Meta { now, generation, version: unsigned(row, "version") },
    }
}

async fn write_all(tx: &mut PgConnection, space: &str, batch: &Batch) -> sqlx::Result<Written> {
    let sql = "INSERT INTO windlass.record_space (name) VALUES ($1) ON CONFLICT DO NOTHING";
    sqlx::query(sql).bind(space).execute(&mut *tx).await?;
    // Locks the space: batches of it are one after the other.
    let sql = "SELECT generation, version, holder, epoch FROM windlass.record_space WHERE name = $1 FOR UPDATE";
    let row = sqlx::query(sql).bind(space).fetch_one(&mut *tx).await?;
    if let Some(fence) = &batch.fence
        && (row.get::<String, _>("holder") != fence.holder || unsigned(&row, "epoch") != fence.epoch)
    {
        return Ok(Written::Fenced);
    }
    let old: String = row.get("generation");
    if batch.generation.as_ref() == Some(&old) {
        return Ok(Written::Conflict(0));
    }
    for (index, write) in batch.writes.iter().enumerate() {
        let (Write::Put { set, name, expect, .. } | Write::Remove { set, name, expect }) = write else { continue };
        let sql = "SELECT rev FROM windlass.record_doc WHERE space = $1 AND place = $2 AND name = $3";
        let query = sqlx::query_scalar::<_, i64>(sql).bind(space).bind(*set).bind(name);
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
    let version = unsigned(&row, "version") + u64::from(batch.notify);
    let sql = "UPDATE windlass.record_space SET generation = $1, version = $2 WHERE name = $3";
    sqlx::query(sql).bind(generation).bind(signed(version)).bind(space).execute(&mut *tx).await?;
    for write in &batch.writes {
        write_one(tx, space, signed(version), write).await?;
    }
    Ok(Written::Done(version))
}

async fn write_one(tx: &mut PgConnection, space: &str, rev: i64, write: &Write) -> sqlx::Result<()> {
    match write {
        Write::Put { set, name, json, .. } => {
            sqlx::query(PUT).bind(space).bind(*set).bind(name).bind(rev).bind(json).execute(tx).await?;
        }
        Write::Seed { set, name, json } => {
            sqlx::query(SEED).bind(space).bind(set).bind(name).bind(rev).bind(json).execute(tx).await?;
        }
        Write::Remove { set, name, .. } => {
            let sql = "DELETE FROM windlass.record_doc WHERE space = $1 AND place = $2 AND name = $3";
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
            let sql = "DELETE FROM windlass.record_entry WHERE space = $1 AND log = $2";
            sqlx::query(sql).bind(space).bind(log).execute(tx).await?;
        }
    }
    Ok(())
}
