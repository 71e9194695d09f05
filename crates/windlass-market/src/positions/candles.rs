//! Candles in the tables: what is left of them when every cache is gone.

use serde_json::json;

use super::cells::Cells;
use super::{Error, Fence, Positions, Result, on};
use crate::candle::{Candle, Timeframe};

const COLUMNS: &str =
    "symbol, start_ms, o, h, l, c, ah, al, CAST(v AS text) AS v, n, open_ts, open_seq, close_ts, close_seq, rev, final";

/// How long candles up to half an hour are kept, in ms: a week.
const SHORT_KEPT_MS: i64 = 7 * 86_400_000;
/// How long those of hours are kept, in ms: 90 days. Longer ones stay.
const HOURS_KEPT_MS: i64 = 90 * 86_400_000;

impl Positions {
    /// Writes candles, each whole, and which quotes they are made of, in one step. False when the fence
    /// was lost: then nothing is written.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn keep_candles(
        &self,
        candles: &[(&str, Timeframe, &Candle)],
        arrival: i64,
        fence: Fence,
    ) -> Result<bool> {
        let int = |name| (name, "bigint");
        let columns = [
            ("symbol", "text"),
            ("timeframe", "text"),
            int("start_ms"),
            int("o"),
            int("h"),
            int("l"),
            int("c"),
            int("ah"),
            int("al"),
            ("v", "numeric"),
            int("n"),
            int("open_ts"),
            int("open_seq"),
            int("close_ts"),
            int("close_seq"),
            int("rev"),
            int("final"),
        ];
        let names = columns.map(|(name, _)| name).join(", ");
        let set =
            columns[3..].iter().map(|(name, _)| format!("{name} = excluded.{name}")).collect::<Vec<_>>().join(", ");
        let from = self.records("$1", &columns);
        let put = self.sql(&format!(
            "INSERT INTO candles({names}) SELECT {names} FROM {from} AS d WHERE true
             ON CONFLICT(symbol, timeframe, start_ms) DO UPDATE SET {set}"
        ));
        let cursor = self.sql(
            "INSERT INTO candle_cursor(shard, arrival)
             SELECT $1, $2 WHERE EXISTS (SELECT 1 FROM shard_lease WHERE shard = $1 AND token = $3)
             ON CONFLICT(shard) DO UPDATE SET arrival = excluded.arrival",
        );
        let rows: Vec<_> = candles
            .iter()
            .map(|(symbol, frame, c)| {
                json!({ "symbol": symbol, "timeframe": frame.to_string(), "start_ms": c.start_ms, "o": c.o, "h": c.h, "l": c.l,
                        "c": c.c, "ah": c.ah, "al": c.al, "v": c.v.to_string(), "n": c.n, "open_ts": c.open_at.0,
                        "open_seq": c.open_at.1, "close_ts": c.close_at.0, "close_seq": c.close_at.1, "rev": c.rev,
                        "final": i64::from(c.is_final) })
            })
            .collect();
        let body = json!(rows).to_string();
        let kept: sqlx::Result<bool> = on!(self, pool => {
            let run = async {
                let mut tx = pool.begin_with(self.begin()).await?;
                let query = sqlx::query(cursor).bind(fence.shard).bind(arrival).bind(fence.token);
                if query.execute(&mut *tx).await?.rows_affected() == 0 {
                    return Ok(false);
                }
                sqlx::query(put).bind(body).execute(&mut *tx).await?;
                tx.commit().await?;
                Ok(true)
            };
            run.await
        });
        kept.map_err(Error::sql("candles"))
    }

    /// Up to which quote candles are made.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn candle_cursor(&self, shard: i64) -> Result<i64> {
        let sql = "SELECT COALESCE((SELECT arrival FROM candle_cursor WHERE shard = $1), 0)";
        on!(self, pool => sqlx::query_scalar(sql).bind(shard).fetch_one(pool).await)
            .map_err(Error::sql("candle cursor"))
    }

    /// All candles of a timeframe from a start on, with their symbols.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn candles_since(&self, frame: Timeframe, start_ms: i64) -> Result<Vec<(String, Candle)>> {
        let sql = self.sql(&format!("SELECT {COLUMNS} FROM candles WHERE timeframe = $1 AND start_ms >= $2"));
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(frame.to_string()).bind(start_ms).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(candle).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("candles"))
    }

    /// A symbol's newest candles that begin within a span (both ends in), oldest first; at most `limit`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn candles(
        &self,
        symbol: &str,
        frame: Timeframe,
        (from_ms, to_ms): (i64, i64),
        limit: i64,
    ) -> Result<Vec<Candle>> {
        let sql = self.sql(&format!(
            "SELECT {COLUMNS} FROM candles WHERE symbol = $1 AND timeframe = $2 AND start_ms BETWEEN $3 AND $4
             ORDER BY start_ms DESC LIMIT $5"
        ));
        let rows = on!(self, pool => {
            let query = sqlx::query(sql).bind(symbol.to_owned()).bind(frame.to_string()).bind(from_ms).bind(to_ms);
            let rows = query.bind(limit).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().rev().map(candle).collect::<sqlx::Result<Vec<_>>>())
        });
        Ok(rows.map_err(Error::sql("candles"))?.into_iter().map(|(_, candle)| candle).collect())
    }

    /// Forgets short candles after a week and those of hours after 90 days; answers how many.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn prune_candles(&self) -> Result<u64> {
        let mut gone = 0;
        for frame in Timeframe::ALL {
            let Timeframe::Within(ms) = frame else { continue };
            let kept_ms = if ms < 3_600_000 { SHORT_KEPT_MS } else { HOURS_KEPT_MS };
            let sql = self.sql(&format!("DELETE FROM candles WHERE timeframe = $1 AND start_ms < {{now}} - {kept_ms}"));
            let done = on!(self, pool => {
                let query = sqlx::query(sql).bind(frame.to_string());
                query.execute(pool).await.map(|done| done.rows_affected())
            });
            gone += done.map_err(Error::sql("prune"))?;
        }
        Ok(gone)
    }
}

fn candle(row: &impl Cells) -> sqlx::Result<(String, Candle)> {
    let v = row.text("v")?;
    let candle = Candle {
        start_ms: row.int("start_ms")?,
        o: row.int("o")?,
        h: row.int("h")?,
        l: row.int("l")?,
        c: row.int("c")?,
        ah: row.int("ah")?,
        al: row.int("al")?,
        v: v.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
        n: u64::try_from(row.int("n")?).unwrap_or(0),
        open_at: (row.int("open_ts")?, row.int("open_seq")?),
        close_at: (row.int("close_ts")?, row.int("close_seq")?),
        rev: u32::try_from(row.int("rev")?).unwrap_or(u32::MAX),
        is_final: row.int("final")? != 0,
    };
    Ok((row.text("symbol")?, candle))
}
