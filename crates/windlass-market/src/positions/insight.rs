//! What a board shows of positions: what is next, and how long closings take.

use serde::Serialize;
use serde_json::{Value, json};

use super::cells::Cells;
use super::load::CLOSING;
use super::{ClosingRow, Error, Instrument, Positions, Result, on};
use crate::calendar::Calendar;
use crate::index::Near;
use crate::rules::{Quote, Side};

/// How long one closing took, in ms by the clock of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// The position.
    pub position_id: i64,
    /// 0 for all that was left.
    pub leg: i64,
    /// From the feed's stamp of the quote to its coming in; none when the quote is no longer kept.
    pub feed_ms: Option<i64>,
    /// From the coming in of the quote to the decision.
    pub decide_ms: Option<i64>,
    /// From the decision to the closing.
    pub commit_ms: i64,
    /// From the coming in of the quote to the closing.
    pub total_ms: Option<i64>,
}

/// A symbol with positions that are not closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Watched {
    /// Which.
    pub symbol: String,
    /// How many are not closed.
    pub open: i64,
    /// The feed's stamp of its last quote, in ms since 1970 UTC.
    pub quoted_at_ms: Option<i64>,
}

impl Watched {
    /// Whether it should be quoted and is not: it trades, and its last quote is too old to decide.
    #[must_use]
    pub fn is_frozen(&self, instrument: &Instrument, now_ms: i64) -> bool {
        let is_old = self.quoted_at_ms.is_none_or(|at| now_ms.saturating_sub(at) > instrument.max_quote_age_ms);
        // A calendar that cannot be read closes nothing out.
        is_old && Calendar::parse(&instrument.calendar).map_or(true, |calendar| calendar.is_open(now_ms))
    }
}

/// Percentiles of one stage.
fn percentiles(values: impl Iterator<Item = i64>) -> Value {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    let at = |per_mille: usize| {
        // The smallest value that so many are at or below.
        let rank = (values.len() * per_mille).div_ceil(1_000).max(1);
        values.get(rank - 1).copied()
    };
    json!({ "count": values.len(), "p50": at(500), "p99": at(990), "p99_9": at(999), "max": values.last() })
}

/// Percentiles of all stages, and the ten slowest.
#[must_use]
pub fn summary(latencies: &[Latency]) -> Value {
    let mut worst: Vec<&Latency> = latencies.iter().filter(|latency| latency.total_ms.is_some()).collect();
    worst.sort_by_key(|latency| std::cmp::Reverse(latency.total_ms));
    worst.truncate(10);
    json!({
        "closings": latencies.len(),
        "feed_ms": percentiles(latencies.iter().filter_map(|latency| latency.feed_ms)),
        "decide_ms": percentiles(latencies.iter().filter_map(|latency| latency.decide_ms)),
        "commit_ms": percentiles(latencies.iter().map(|latency| latency.commit_ms)),
        "total_ms": percentiles(latencies.iter().filter_map(|latency| latency.total_ms)),
        "worst": worst,
    })
}

impl Positions {
    /// How long the last closings that a rule decided took, newest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn latencies(&self, limit: i64) -> Result<Vec<Latency>> {
        let sql = "SELECT c.position_id, c.leg, c.quote_ts_ms, c.decided_at_ms, c.closed_at_ms, t.received_at_ms
                   FROM closings c JOIN positions p ON p.id = c.position_id
                   LEFT JOIN ticks t ON t.symbol = p.symbol AND t.seq = c.quote_seq
                   WHERE c.reason NOT IN ('MANUAL', 'STOP_OUT') ORDER BY c.closed_at_ms DESC LIMIT $1";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(limit).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(latency).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("latencies"))
    }

    /// The symbols with positions that are not closed, by name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn watched(&self) -> Result<Vec<Watched>> {
        let sql = "SELECT p.symbol AS symbol, p.open AS open, q.ts_ms AS quoted FROM
                   (SELECT symbol, count(*) AS open FROM positions WHERE status < 2 GROUP BY symbol) p
                   LEFT JOIN last_quotes q ON q.symbol = p.symbol ORDER BY p.symbol";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(watched).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("watched"))
    }

    /// The last closings, newest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn last_closings(&self, limit: i64) -> Result<Vec<ClosingRow>> {
        let sql = self
            .sql(&format!("SELECT {CLOSING} FROM closings ORDER BY closed_at_ms DESC, position_id DESC, leg LIMIT $1"));
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(limit).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(ClosingRow::read).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("closings"))
    }

    /// The open positions of a symbol that are nearest to their stop or target at a quote, nearest
    /// first; legs are not looked at. Reads all open positions of the symbol.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn nearest(&self, symbol: &str, quote: &Quote, limit: i64) -> Result<Vec<Near>> {
        let mut near = Vec::new();
        for side in [Side::Long, Side::Short] {
            // Distance to the stop is `price - level` for a long, to the target `level - price`.
            for (is_stop, level) in [(true, "COALESCE(stop_eff, sl)"), (false, "tp")] {
                let sql = self.sql(&format!(
                    "SELECT id, {level} AS level, ($2 - {level}) * $3 AS distance FROM positions
                     WHERE symbol = $1 AND status = 0 AND side = $4 AND {level} IS NOT NULL ORDER BY distance, id LIMIT $5"
                ));
                let towards = if is_stop { side.sign() } else { -side.sign() };
                let price = quote.closing_price(side);
                let rows = on!(self, pool => {
                    let query = sqlx::query(sql).bind(symbol.to_owned()).bind(price).bind(towards);
                    let rows = query.bind(side.sign()).bind(limit).fetch_all(pool).await;
                    rows.and_then(|rows| rows.iter().map(|row| near_of(row, is_stop)).collect::<sqlx::Result<Vec<_>>>())
                });
                near.extend(rows.map_err(Error::sql("nearest"))?);
            }
        }
        near.sort_by_key(|near| (near.distance, near.id));
        near.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(near)
    }

    /// Forgets what others were told more than a day ago, and what nobody asked for in a week; answers
    /// how many.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn prune_outbox(&self) -> Result<u64> {
        let sql = self.sql(&format!(
            "DELETE FROM outbox WHERE sent_at_ms < {{now}} - {DAY_MS} OR created_at_ms < {{now}} - 7 * {DAY_MS}"
        ));
        let done = on!(self, pool => sqlx::query(sql).execute(pool).await.map(|done| done.rows_affected()));
        done.map_err(Error::sql("prune"))
    }
}

const DAY_MS: i64 = 86_400_000;

fn latency(row: &impl Cells) -> sqlx::Result<Latency> {
    let (decided, closed) = (row.int("decided_at_ms")?, row.int("closed_at_ms")?);
    let received = row.opt("received_at_ms")?;
    let since = |from: Option<i64>, to: i64| from.map(|from| to.saturating_sub(from));
    let stamp = row.int("quote_ts_ms")?;
    Ok(Latency {
        position_id: row.int("position_id")?,
        leg: row.int("leg")?,
        feed_ms: received.map(|received| received.saturating_sub(stamp)),
        decide_ms: since(received, decided),
        commit_ms: closed.saturating_sub(decided),
        total_ms: since(received, closed),
    })
}

fn watched(row: &impl Cells) -> sqlx::Result<Watched> {
    Ok(Watched { symbol: row.text("symbol")?, open: row.int("open")?, quoted_at_ms: row.opt("quoted")? })
}

fn near_of(row: &impl Cells, is_stop: bool) -> sqlx::Result<Near> {
    Ok(Near { id: row.int("id")?, level: row.int("level")?, distance: row.int("distance")?, is_stop })
}
