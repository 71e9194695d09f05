//! Closing rows of another application by its own statement.
//!
//! A closing here and the statement there are one transaction for many positions. What the statement
//! refuses – it closes no row, a trigger or a constraint raises, another transaction holds the row – is found
//! out and left out, so that the others close; it is named in `unmapped`, and tried again later.

use std::collections::HashMap;

use serde_json::json;
use sqlx::{Connection as _, PgConnection, PgPool};

use super::super::cells::Cells as _;
use super::super::close::{Order, Rows, Tried, Written};
use super::super::error::is_of_row;
use super::super::{Close, Error, Pool, Positions, Reach, Result};
use super::{Mapped, our_path};
use crate::price;
use crate::rules::Reason;

/// How often closings are written anew without those that are refused.
const TRIES: usize = 5;
/// Positions named by one batch of warnings.
const NAMED: usize = 20;
/// Names mean what they mean to the application; a row that it holds is not waited for long.
const THEIRS: &str = "SET LOCAL search_path TO DEFAULT; SET LOCAL lock_timeout = '1s'";
/// The same when each row is tried by itself: what would be said at the commit is said there.
pub(super) const THEIRS_EACH: &str =
    "SET LOCAL search_path TO DEFAULT; SET LOCAL lock_timeout = '100ms'; SET CONSTRAINTS ALL IMMEDIATE";

impl Positions {
    /// Writes closings, without those that the application's tables refuse.
    pub(in super::super) async fn close_mapped(&self, pool: &PgPool, order: Order<'_>) -> Result<Written> {
        self.check_guards().await?;
        let mut left = order.closes.to_vec();
        let mut refused: HashMap<i64, Option<String>> = HashMap::new();
        let (mut rows, mut each) = (Rows::new(), false);
        for _ in 0..TRIES {
            match self.try_postgres(pool, Order { closes: &left, ..order }, each).await {
                Ok(Tried::Written(written)) => {
                    rows = written;
                    break;
                }
                Ok(Tried::Refused(not)) => {
                    left.retain(|close| !not.contains_key(&close.id));
                    refused.extend(not);
                    each = false;
                }
                // One of their rows: which one shows when each is tried by itself.
                Err(error) if !each && error.is_of_row() => each = true,
                Err(error) => return Err(error),
            }
        }
        let failed = if refused.is_empty() { HashMap::new() } else { self.failed(order.actor, refused).await? };
        Ok(Written { rows, failed })
    }

    /// Reads what was refused anew: what stands there as it was decided on has failed, and that is told.
    async fn failed(&self, actor: &str, refused: HashMap<i64, Option<String>>) -> Result<HashMap<i64, String>> {
        let ids: Vec<i64> = refused.keys().copied().collect();
        let before = self.versions(&ids).await?;
        self.sync(Reach::These(&ids)).await?;
        let mut failed = HashMap::new();
        for (id, versions) in self.versions(&ids).await? {
            if before.get(&id) == Some(&versions) {
                let why = refused.get(&id).cloned().flatten();
                failed.insert(id, why.unwrap_or_else(|| "its close statement closes no row of it".to_owned()));
            }
        }
        self.tell_failed(actor, &failed).await?;
        Ok(failed)
    }

    /// Our version and theirs of those that are not closed.
    async fn versions(&self, ids: &[i64]) -> Result<HashMap<i64, (i64, Option<String>)>> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(HashMap::new()) };
        let sql = self.sql(&format!(
            "SELECT id, version, mapped_version FROM positions WHERE status < 2 AND id IN (SELECT {})",
            self.each_int("$1")
        ));
        let rows = sqlx::query(sql).bind(json!(ids).to_string()).fetch_all(pool).await;
        let read =
            |row: &sqlx::postgres::PgRow| Ok((row.int("id")?, (row.int("version")?, row.opt_text("mapped_version")?)));
        rows.and_then(|rows| rows.iter().map(read).collect()).map_err(Error::sql("close failed"))
    }

    /// Notes what could not be closed; what is new among it is said, and stands in its history.
    async fn tell_failed(&self, actor: &str, failed: &HashMap<i64, String>) -> Result<()> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(()) };
        if failed.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = failed.iter().map(|(id, why)| json!({ "id": id, "why": why })).collect();
        let sql = self.sql(
            "WITH n AS (
               INSERT INTO unmapped(id, why, since_ms, failed_at_ms)
               SELECT d.id::text, d.why, {now}, {now} FROM json_to_recordset($1::json) AS d(id bigint, why text) ORDER BY d.id
               ON CONFLICT(id) DO UPDATE SET why = excluded.why, failed_at_ms = excluded.failed_at_ms
               RETURNING id, why, xmax::text = '0' AS fresh),
             a AS (INSERT INTO audit(at_ms, position_id, kind, actor, detail)
               SELECT {now}, id::bigint, 'close_failed', $2, jsonb_build_object('why', why) FROM n WHERE fresh)
             SELECT id, why FROM n WHERE fresh",
        );
        let fresh = sqlx::query(sql).bind(json!(rows).to_string()).bind(actor.to_owned()).fetch_all(pool).await;
        let fresh = fresh.map_err(Error::sql("close failed"))?;
        for row in fresh.iter().take(NAMED) {
            let (id, why) = (row.text("id").unwrap_or_default(), row.text("why").unwrap_or_default());
            tracing::error!(id, why, "a position of the mapped tables cannot be closed; it is tried again");
        }
        if fresh.len() > NAMED {
            tracing::error!(more = fresh.len() - NAMED, "positions of the mapped tables cannot be closed");
        }
        Ok(())
    }

    /// Marks positions that triggered and could not be closed, if they are as they were decided on: whoever
    /// reads them next closes them with the next quote.
    pub(crate) async fn mark_closing(&self, failed: &[(i64, i64, Reason)]) -> Result<()> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(()) };
        if failed.is_empty() {
            return Ok(());
        }
        let row =
            |(id, version, reason): &(i64, i64, Reason)| json!({ "id": id, "ver": version, "reason": reason.as_str() });
        let rows: Vec<_> = failed.iter().map(row).collect();
        let sql = "UPDATE positions p SET status = 1, closing_reason = d.reason
                   FROM json_to_recordset($1::json) AS d(id bigint, ver bigint, reason text)
                   WHERE p.id = d.id AND p.version = d.ver AND p.status = 0";
        let done = sqlx::query(sql).bind(json!(rows).to_string()).execute(pool).await;
        done.map(|_| ()).map_err(Error::sql("close failed"))
    }

    /// Runs the application's close statement for what was just written here; answers what it did not
    /// close. With `each`, a statement that fails undoes itself alone.
    pub(in super::super) async fn close_theirs(
        &self,
        mapped: &Mapped,
        tx: &mut PgConnection,
        closes: &[Close],
        written: &Rows,
        each: bool,
    ) -> sqlx::Result<HashMap<i64, Option<String>>> {
        let ids: Vec<&i64> = written.keys().collect();
        let sql = format!(
            "SELECT p.id, p.mapped_version, i.digits FROM positions p JOIN instruments i ON i.symbol = p.symbol
             WHERE p.id IN (SELECT {})",
            self.each_int("$1")
        );
        let ids = serde_json::to_string(&ids).unwrap_or_default();
        let rows = sqlx::query(self.sql(&sql)).bind(ids).fetch_all(&mut *tx).await?;
        let mut of: HashMap<i64, (Option<String>, u8)> = HashMap::with_capacity(rows.len());
        for row in &rows {
            let digits = u8::try_from(row.int("digits")?).unwrap_or(price::MAX_DIGITS);
            of.insert(row.int("id")?, (row.opt_text("mapped_version")?, digits));
        }
        // In the order of the numbers: two workers never wait for each other.
        let mut own: Vec<&Close> = closes.iter().filter(|close| written.contains_key(&close.id)).collect();
        own.sort_by_key(|close| close.id);
        let mut refused = HashMap::new();
        sqlx::raw_sql(if each { THEIRS_EACH } else { THEIRS }).execute(&mut *tx).await?;
        for close in own {
            let (Some((version, digits)), [fill]) = (of.get(&close.id), close.fills.as_slice()) else {
                refused.insert(close.id, None);
                continue;
            };
            let fill_price = price::format(fill.price, *digits);
            let (reason, version) = (fill.reason, version.as_deref());
            if !each {
                if mapped.close(tx, close.id, &fill_price, reason, version).await? != 1 {
                    refused.insert(close.id, None);
                }
                continue;
            }
            let mut point = tx.begin().await?;
            match mapped.close(&mut point, close.id, &fill_price, reason, version).await {
                Ok(1) => point.commit().await?,
                Ok(_) => {
                    point.rollback().await?;
                    refused.insert(close.id, None);
                }
                Err(error) if is_of_row(&error) => {
                    point.rollback().await?;
                    tracing::debug!(id = close.id, error = %error, "a close statement failed");
                    refused.insert(close.id, Some(why(&error)));
                }
                Err(error) => return Err(error),
            }
        }
        // What would be said at the commit is said here, while the transaction can be ended in order.
        sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *tx).await?;
        our_path(tx, &mapped.mapping.schema).await?;
        Ok(refused)
    }
}

/// Which rule of their database stands against it; its words may hold numbers of an account.
fn why(error: &sqlx::Error) -> String {
    let Some(error) = error.as_database_error() else { return "its close statement fails".to_owned() };
    let code = error.code().unwrap_or_default();
    match error.constraint() {
        Some(constraint) => format!("its close statement fails: SQLSTATE {code}, constraint {constraint}"),
        None => format!("its close statement fails: SQLSTATE {code}"),
    }
}
