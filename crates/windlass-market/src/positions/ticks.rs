//! Quotes on their way in: judged by G4, kept for the sweep, the last one for display.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cells::Cells;
use super::{Error, Instrument, Positions, Result, on};
use crate::guard::{self, Limits};
use crate::price;
use crate::rules::Quote;

/// A quote as a feed sends it: decimals as text, never through a floating-point number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawQuote {
    /// What is quoted.
    pub symbol: String,
    /// Such as `"1.07160"`.
    pub bid: String,
    /// Such as `"1.07172"`.
    pub ask: String,
    /// Milliseconds since 1970 UTC.
    pub ts_ms: i64,
    /// Rises with each quote of a symbol.
    pub seq: i64,
}

/// What became of a batch of quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Kept.
    pub accepted: u64,
    /// Not kept, by why: unknown_symbol, not_a_number, surplus_digits, too_large, not_positive,
    /// crossed, future, late.
    pub rejected: BTreeMap<&'static str, u64>,
}

/// A quote that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// The quote.
    pub quote: Quote,
    /// When it came, by the clock of the database: what its age is told by, also when it is
    /// decided on later.
    pub received_at_ms: i64,
}

/// How long quotes are kept for the sweep, in ms.
pub const KEPT_MS: i64 = 300_000;

impl Positions {
    /// Takes quotes in, in their order. A quote that cannot be is told by its reason and changes
    /// nothing; one that is not newer than the last of its symbol is late.
    ///
    /// # Errors
    /// [`Error`]. Then none of them is kept.
    pub async fn take_quotes(&self, quotes: &[RawQuote]) -> Result<Taken> {
        let now_ms = self.now_ms().await?;
        let instruments: HashMap<String, Instrument> =
            self.instruments().await?.into_iter().map(|instrument| (instrument.symbol.clone(), instrument)).collect();
        let mut taken = Taken::default();
        let mut rows = Vec::new();
        for raw in quotes {
            match judge(raw, &instruments, now_ms) {
                Ok(quote) => rows.push((raw.symbol.as_str(), quote)),
                Err(why) => *taken.rejected.entry(why).or_default() += 1,
            }
        }
        let kept = self.keep(&rows).await?;
        taken.accepted = kept;
        let late = (rows.len() as u64).saturating_sub(kept);
        if late > 0 {
            *taken.rejected.entry("late").or_default() += late;
        }
        Ok(taken)
    }

    /// Keeps quotes that are newer than the last of their symbol; answers how many.
    async fn keep(&self, rows: &[(&str, Quote)]) -> Result<u64> {
        // One row a symbol and number, in order: the newest of each symbol is the last.
        let mut newest: HashMap<&str, i64> = HashMap::new();
        let mut fresh = Vec::new();
        for (symbol, quote) in rows {
            let last = newest.entry(symbol).or_insert(i64::MIN);
            if quote.seq > *last {
                *last = quote.seq;
                fresh.push(json!({ "symbol": symbol, "seq": quote.seq, "ts": quote.ts_ms, "bid": quote.bid, "ask": quote.ask }));
            }
        }
        let columns = [("symbol", "text"), ("seq", "bigint"), ("ts", "bigint"), ("bid", "bigint"), ("ask", "bigint")];
        let from = self.records("$1", &columns);
        let insert = self.sql(&format!(
            "INSERT INTO ticks(symbol, seq, ts_ms, bid, ask, received_at_ms)
             SELECT d.symbol, d.seq, d.ts, d.bid, d.ask, {{now}} FROM {from} AS d
             WHERE NOT EXISTS (SELECT 1 FROM last_quotes q WHERE q.symbol = d.symbol AND q.seq >= d.seq)
             ON CONFLICT(symbol, seq) DO NOTHING"
        ));
        let last = self.sql(&format!(
            "INSERT INTO last_quotes(symbol, seq, ts_ms, bid, ask)
             SELECT d.symbol, d.seq, d.ts, d.bid, d.ask FROM {from} AS d
             WHERE d.seq = (SELECT max(r.seq) FROM {from} AS r WHERE r.symbol = d.symbol)
             ON CONFLICT(symbol) DO UPDATE SET seq = excluded.seq, ts_ms = excluded.ts_ms, bid = excluded.bid, ask = excluded.ask
             WHERE last_quotes.seq < excluded.seq"
        ));
        let body = json!(fresh).to_string();
        let kept: sqlx::Result<u64> = on!(self, pool => {
            let run = async {
                let mut tx = pool.begin_with(self.begin()).await?;
                if !self.is_embedded() {
                    // A quote that is seen has all older ones before it: no cursor passes one by.
                    sqlx::query("SELECT pg_advisory_xact_lock(7310035)").execute(&mut *tx).await?;
                }
                let kept = sqlx::query(insert).bind(body.clone()).execute(&mut *tx).await?.rows_affected();
                sqlx::query(last).bind(body).execute(&mut *tx).await?;
                tx.commit().await?;
                Ok(kept)
            };
            run.await
        });
        kept.map_err(Error::sql("quotes"))
    }

    /// A symbol's quotes after a number, by number; at most `limit`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn ticks_after(&self, symbol: &str, seq: i64, limit: i64) -> Result<Vec<Tick>> {
        let sql = "SELECT seq, ts_ms, bid, ask, received_at_ms FROM ticks WHERE symbol = $1 AND seq > $2 ORDER BY seq LIMIT $3";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(symbol.to_owned()).bind(seq).bind(limit).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(tick).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("ticks"))
    }

    /// Forgets quotes that are decided on and older than [`KEPT_MS`]; answers how many. What no
    /// sweep has seen yet stays.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn trim_ticks(&self) -> Result<u64> {
        let sql = self.sql(&format!(
            "DELETE FROM ticks WHERE received_at_ms < {{now}} - {KEPT_MS}
             AND EXISTS (SELECT 1 FROM feed_cursor c WHERE c.symbol = ticks.symbol AND c.seq >= ticks.seq)"
        ));
        let done = on!(self, pool => sqlx::query(sql).execute(pool).await.map(|done| done.rows_affected()));
        done.map_err(Error::sql("trim"))
    }
}

/// G4, and a stamp in the future; everything else is asked where it is decided.
fn judge(
    raw: &RawQuote,
    instruments: &HashMap<String, Instrument>,
    now_ms: i64,
) -> std::result::Result<Quote, &'static str> {
    let instrument = instruments.get(&raw.symbol).ok_or("unknown_symbol")?;
    let read = |text: &str| price::parse(text, instrument.digits).map_err(price::BadPrice::as_str);
    let quote = Quote { ts_ms: raw.ts_ms, seq: raw.seq, bid: read(&raw.bid)?, ask: read(&raw.ask)? };
    guard::sound(&quote).map_err(guard::Unsound::as_str)?;
    if quote.ts_ms.saturating_sub(now_ms) > Limits::DEFAULT.max_ahead_ms {
        return Err(guard::Held::Future.as_str());
    }
    Ok(quote)
}

fn tick(row: &impl Cells) -> sqlx::Result<Tick> {
    let quote = Quote { ts_ms: row.int("ts_ms")?, seq: row.int("seq")?, bid: row.int("bid")?, ask: row.int("ask")? };
    Ok(Tick { quote, received_at_ms: row.int("received_at_ms")? })
}
