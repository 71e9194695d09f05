//! The catalogue of kinds: what workers publish.

use sqlx::{Row, SqliteConnection};
use windlass_jobs::catalogue::{KEEP_KIND_FOR, KindInfo, MAX_KINDS};
use windlass_jobs::{Timestamp, millis};

use super::fault::failed;
use crate::Result;

/// Made by the first worker that publishes: a file without it has heard of no kind.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS kind (
        name TEXT PRIMARY KEY,
        version INTEGER NOT NULL,
        seen_at INTEGER NOT NULL,
        info TEXT NOT NULL
    ) STRICT, WITHOUT ROWID";

/// Writes kinds; forgets those not heard of for long, and those beyond the bound.
pub(super) async fn publish(conn: &mut SqliteConnection, kinds: &[KindInfo], now: Timestamp) -> Result<()> {
    let fail = failed("publish");
    sqlx::query(TABLE).execute(&mut *conn).await.map_err(&fail)?;
    for kind in kinds {
        let kept = sqlx::query("SELECT version, seen_at FROM kind WHERE name = ?").bind(&kind.name);
        let kept = kept.fetch_optional(&mut *conn).await.map_err(&fail)?;
        let older = kept.is_some_and(|row| {
            let (version, seen_at): (u32, i64) = (row.get(0), row.get(1));
            !kind.replaces(version, now.since(Timestamp(seen_at)))
        });
        if older {
            continue;
        }
        let info = serde_json::to_string(kind).expect("a kind's fields can be written as JSON");
        let write = sqlx::query("INSERT OR REPLACE INTO kind (name, version, seen_at, info) VALUES (?, ?, ?, ?)");
        let write = write.bind(&kind.name).bind(kind.version).bind(now.0).bind(info);
        write.execute(&mut *conn).await.map_err(&fail)?;
    }
    let old = sqlx::query("DELETE FROM kind WHERE seen_at < ?").bind(now.0.saturating_sub(millis(KEEP_KIND_FOR)));
    old.execute(&mut *conn).await.map_err(&fail)?;
    let over =
        sqlx::query("DELETE FROM kind WHERE name NOT IN (SELECT name FROM kind ORDER BY seen_at DESC, name LIMIT ?)");
    over.bind(i64::try_from(MAX_KINDS).unwrap_or(i64::MAX)).execute(conn).await.map_err(&fail)?;
    Ok(())
}

/// Every kind, by name.
pub(super) async fn kinds(conn: &mut SqliteConnection) -> Result<Vec<KindInfo>> {
    let fail = failed("kinds");
    let made = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'kind'");
    if made.fetch_optional(&mut *conn).await.map_err(&fail)?.is_none() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query("SELECT info, seen_at FROM kind ORDER BY name").fetch_all(conn).await.map_err(&fail)?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let info: KindInfo = serde_json::from_str(row.get::<&str, _>(0)).ok()?;
        Some(KindInfo { seen_at: Timestamp(row.get(1)), ..info })
    };
    Ok(rows.iter().filter_map(read).collect())
}
