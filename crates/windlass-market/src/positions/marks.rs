//! What positions are worth, in a table of its own: the table of positions is never rewritten.

use super::cells::Cells;
use super::{Error, Positions, Result, on};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde_json::json;

/// What a position is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The position.
    pub position_id: i64,
    /// Whose it is.
    pub account_id: i64,
    /// The price it would close at.
    pub mark: i64,
    /// Points × units.
    pub pnl: i128,
    /// True when the price is too old to decide on.
    pub stale: bool,
}

/// What the open positions of an account are worth together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountSum {
    /// The account.
    pub account_id: i64,
    /// Open positions.
    pub positions: i64,
    /// Points × units, exact, as text.
    pub pnl_points: String,
    /// Positions whose price is stale.
    pub stale: i64,
}

/// Marks written by one statement.
const BATCH: usize = 5_000;
/// Statements of marks on their way to PostgreSQL at once.
const AT_ONCE: usize = 3;

impl Positions {
    /// Writes marks, and forgets those of positions that are closed.
    ///
    /// # Errors
    /// [`Error`]. What was written before then stands.
    pub async fn mark(&self, marks: &[Mark]) -> Result<()> {
        let columns =
            [("id", "bigint"), ("account", "bigint"), ("mark", "bigint"), ("pnl", "numeric"), ("stale", "bigint")];
        let from = self.records("$1", &columns);
        let sql = format!(
            "INSERT INTO marks(position_id, account_id, mark, pnl, stale, as_of_ms)
             SELECT id, account, mark, pnl, stale, {{now}} FROM {from} AS d WHERE true
             ON CONFLICT(position_id) DO UPDATE SET mark = excluded.mark, pnl = excluded.pnl, stale = excluded.stale,
               as_of_ms = excluded.as_of_ms"
        );
        let mut batches: Vec<BoxFuture<'_, sqlx::Result<()>>> = Vec::new();
        for batch in marks.chunks(BATCH) {
            let sql = self.sql(&sql);
            batches.push(Box::pin(async move {
                let rows: Vec<_> = batch
                    .iter()
                    .map(|m| {
                        json!({ "id": m.position_id, "account": m.account_id, "mark": m.mark,
                                "pnl": m.pnl.to_string(), "stale": i64::from(m.stale) })
                    })
                    .collect();
                let rows = json!(rows).to_string();
                on!(self, pool => sqlx::query(sql).bind(rows).execute(pool).await.map(|_| ()))
            }));
        }
        let mut batches = stream::iter(batches).buffer_unordered(if self.is_embedded() { 1 } else { AT_ONCE });
        while batches.try_next().await.map_err(Error::sql("mark"))?.is_some() {}
        drop(batches);
        let sql = "DELETE FROM marks WHERE position_id IN
                     (SELECT m.position_id FROM marks m JOIN positions p ON p.id = m.position_id WHERE p.status = 2)";
        let done = on!(self, pool => sqlx::query(sql).execute(pool).await.map(|_| ()));
        done.map_err(Error::sql("mark"))
    }

    /// The sums of accounts, from the marks.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn account_sums(&self) -> Result<Vec<AccountSum>> {
        // SQLite adds integers of 64 bits only; marks that do not fit are added in Rust.
        let sql = "SELECT account_id, CAST(pnl AS text) AS pnl, stale FROM marks ORDER BY account_id";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(summand).collect::<sqlx::Result<Vec<_>>>())
        });
        let mut sums: Vec<(i64, i64, i128, i64)> = Vec::new();
        for (account, pnl, stale) in rows.map_err(Error::sql("sums"))? {
            match sums.last_mut().filter(|sum| sum.0 == account) {
                Some(sum) => {
                    sum.1 += 1;
                    sum.2 += pnl;
                    sum.3 += stale;
                }
                None => sums.push((account, 1, pnl, stale)),
            }
        }
        let sum = |(account_id, positions, pnl, stale): (i64, i64, i128, i64)| AccountSum {
            account_id,
            positions,
            pnl_points: pnl.to_string(),
            stale,
        };
        Ok(sums.into_iter().map(sum).collect())
    }
}

fn summand(row: &impl Cells) -> sqlx::Result<(i64, i128, i64)> {
    let pnl = row.text("pnl")?.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    Ok((row.int("account_id")?, pnl, row.int("stale")?))
}
