//! Quotes on their way in: judged by G4, kept for the sweep, the last one for display.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cells::Cells;
use super::{Error, Instrument, Positions, Result, on};
use crate::guard::{self, Limits};
use crate::price;
use crate::rules::Quote;

/// A quote as a feed sends it: decimals as text, never through a floating-point number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// Rises with each quote of a symbol; 0 or more.
    pub seq: i64,
    /// Units traded since the last quote; 0 or more. Default 0.
    #[serde(default)]
    pub volume: i64,
    /// When it reached us, in ms since 1970 UTC; default now, by the clock of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_at_ms: Option<i64>,
}

/// A quote of a batch that was not kept, or not for decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reject {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Why: unknown_symbol, not_a_number, surplus_digits, too_large, not_positive, crossed,
    /// negative_volume, negative_seq, future, duplicate, or late (kept for candles alone).
    pub code: &'static str,
}

/// A quote that was kept and may decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    /// What is quoted.
    pub symbol: String,
    /// Digits after the point of its prices.
    pub digits: u8,
    /// The quote.
    pub quote: Quote,
    /// Units traded.
    pub volume: i64,
}

/// What became of a batch of quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Kept, and newer than all before of their symbol.
    pub accepted: u64,
    /// All others, by why.
    pub rejected: BTreeMap<&'static str, u64>,
    /// All others, in their order.
    pub rejects: Vec<Reject>,
    /// Those that were accepted, in their order.
    pub fresh: Vec<Fresh>,
}

impl Taken {
    /// Notes that a quote was not accepted.
    fn reject(&mut self, index: usize, code: &'static str) {
        *self.rejected.entry(code).or_default() += 1;
        self.rejects.push(Reject { index, code });
    }
}

/// A quote that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// The quote.
    pub quote: Quote,
    /// Units traded.
    pub volume: i64,
    /// When it came, by the clock of the database: what its age is told by, also when it is
    /// decided on later.
    pub received_at_ms: i64,
}

/// A quote of any symbol, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Its place in that order.
    pub arrival: i64,
    /// What is quoted.
    pub symbol: String,
    /// The quote.
    pub tick: Tick,
    /// True when a newer one of its symbol had come before: it decides nothing.
    pub late: bool,
}

/// How long quotes are kept for the sweep and for candles, in ms.
pub const KEPT_MS: i64 = 900_000;
/// The channel on which PostgreSQL says that quotes have come.
pub(super) const CHANNEL: &str = "windlass_quotes";

impl Positions {
    /// Takes quotes in, in their order. A quote that cannot be is told by its reason and changes
    /// nothing; one that is not newer than the last of its symbol is late: it counts for candles and
    /// decides nothing.
    ///
    /// # Errors
    /// [`Error`]. Then none of them is kept.
    pub async fn take_quotes(&self, quotes: &[RawQuote]) -> Result<Taken> {
        let now_ms = self.now_ms().await?;
        let instruments: HashMap<String, Instrument> =
            self.instruments().await?.into_iter().map(|instrument| (instrument.symbol.clone(), instrument)).collect();
        let mut taken = Taken::default();
        // Those that can be: place in the batch, digits, quote, and whether a newer one stands before.
        let mut sound: Vec<(usize, u8, Quote, bool)> = Vec::with_capacity(quotes.len());
        let mut newest: HashMap<&str, i64> = HashMap::new();
        let mut numbers: HashSet<(&str, i64)> = HashSet::new();
        for (index, raw) in quotes.iter().enumerate() {
            match judge(raw, &instruments, now_ms) {
                Err(why) => taken.reject(index, why),
                Ok(_) if !numbers.insert((&raw.symbol, raw.seq)) => taken.reject(index, "duplicate"),
                Ok((digits, quote)) => {
                    let last = newest.entry(&raw.symbol).or_insert(i64::MIN);
                    sound.push((index, digits, quote, quote.seq < *last));
                    *last = quote.seq.max(*last);
                }
            }
        }
        let kept = if sound.is_empty() { HashMap::new() } else { self.keep(quotes, &sound).await? };
        for (index, digits, quote, _) in sound {
            let raw = &quotes[index];
            match kept.get(&(raw.symbol.as_str(), quote.seq)) {
                Some(false) => {
                    taken.accepted += 1;
                    taken.fresh.push(Fresh { symbol: raw.symbol.clone(), digits, quote, volume: raw.volume });
                }
                Some(true) => taken.reject(index, guard::Held::Late.as_str()),
                None => taken.reject(index, "duplicate"),
            }
        }
        taken.rejects.sort_by_key(|reject| reject.index);
        Ok(taken)
    }

    /// Keeps quotes; answers those that were not there, and whether they are late.
    async fn keep<'a>(
        &self,
        quotes: &'a [RawQuote],
        sound: &[(usize, u8, Quote, bool)],
    ) -> Result<HashMap<(&'a str, i64), bool>> {
        let rows: Vec<_> = sound
            .iter()
            .map(|(index, _, quote, late)| {
                let raw = &quotes[*index];
                json!({ "symbol": raw.symbol, "seq": quote.seq, "ts": quote.ts_ms, "bid": quote.bid, "ask": quote.ask,
                        "volume": raw.volume, "late": i64::from(*late), "received": raw.received_at_ms, "place": index })
            })
            .collect();
        let columns = [
            ("symbol", "text"),
            ("seq", "bigint"),
            ("ts", "bigint"),
            ("bid", "bigint"),
            ("ask", "bigint"),
            ("volume", "bigint"),
            ("late", "bigint"),
            ("received", "bigint"),
            ("place", "bigint"),
        ];
        let from = self.records("$1", &columns);
        let least = if self.is_embedded() { "min" } else { "least" };
        let insert = self.sql(&format!(
            "INSERT INTO ticks(symbol, seq, ts_ms, bid, ask, volume, late, received_at_ms)
             SELECT d.symbol, d.seq, d.ts, d.bid, d.ask, d.volume,
               CASE WHEN d.late = 1 OR EXISTS (SELECT 1 FROM last_quotes q WHERE q.symbol = d.symbol AND q.seq >= d.seq)
                    THEN 1 ELSE 0 END, {least}(COALESCE(d.received, {{now}}), {{now}})
             FROM {from} AS d WHERE true ORDER BY d.place
             ON CONFLICT(symbol, seq) DO NOTHING RETURNING symbol, seq, late"
        ));
        let last = self.sql(&format!(
            "INSERT INTO last_quotes(symbol, seq, ts_ms, bid, ask)
             SELECT d.symbol, d.seq, d.ts, d.bid, d.ask FROM {from} AS d
             WHERE d.seq = (SELECT max(r.seq) FROM {from} AS r WHERE r.symbol = d.symbol)
             ON CONFLICT(symbol) DO UPDATE SET seq = excluded.seq, ts_ms = excluded.ts_ms, bid = excluded.bid, ask = excluded.ask
             WHERE last_quotes.seq < excluded.seq"
        ));
        // The second statement needs the newest of each symbol alone.
        let mut newest: HashMap<&str, &serde_json::Value> = HashMap::new();
        for ((index, _, quote, _), row) in sound.iter().zip(&rows) {
            let newer =
                newest.get(quotes[*index].symbol.as_str()).is_none_or(|row| row["seq"].as_i64() < Some(quote.seq));
            if newer {
                newest.insert(&quotes[*index].symbol, row);
            }
        }
        let (body, newest) = (json!(rows).to_string(), json!(newest.values().collect::<Vec<_>>()).to_string());
        let run = self.keep_rows(insert, last, body, newest);
        let kept: HashMap<(String, i64), bool> = run.await.map_err(Error::sql("quotes"))?;
        let place = |(index, _, quote, _): &(usize, u8, Quote, bool)| {
            let symbol = quotes[*index].symbol.as_str();
            let late = kept.get(&(symbol.to_owned(), quote.seq))?;
            Some(((symbol, quote.seq), *late))
        };
        Ok(sound.iter().filter_map(place).collect())
    }

    async fn keep_rows(
        &self,
        insert: sqlx::AssertSqlSafe<String>,
        last: sqlx::AssertSqlSafe<String>,
        body: String,
        newest: String,
    ) -> sqlx::Result<HashMap<(String, i64), bool>> {
        on!(self, pool => {
            let mut tx = pool.begin_with(self.begin()).await?;
            if !self.is_embedded() {
                // A quote that is seen has all older ones before it: no cursor passes one by. What is
                // lost of the last moments when the server dies is what no closing was made of: a
                // closing's own commit waits for the disk, and for all that was written before it.
                sqlx::query(sqlx::AssertSqlSafe(format!(
                    "SELECT pg_advisory_xact_lock(7310035), set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', '')"
                )))
                .execute(&mut *tx)
                .await?;
            }
            let rows = sqlx::query(insert).bind(body).fetch_all(&mut *tx).await?;
            sqlx::query(last).bind(newest).execute(&mut *tx).await?;
            tx.commit().await?;
            let kept = rows.iter().map(|row| Ok(((row.text("symbol")?, row.int("seq")?), row.int("late")? != 0)));
            kept.collect()
        })
    }

    /// A symbol's quotes after a number, by number; at most `limit`. Late ones are left out.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn ticks_after(&self, symbol: &str, seq: i64, limit: i64) -> Result<Vec<Tick>> {
        let sql = "SELECT seq, ts_ms, bid, ask, volume, received_at_ms FROM ticks
                   WHERE symbol = $1 AND seq > $2 AND late = 0 ORDER BY seq LIMIT $3";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(symbol.to_owned()).bind(seq).bind(limit).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(tick).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("ticks"))
    }

    /// A symbol's newest quotes, the oldest of them first; at most `limit`, late ones too.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn last_ticks(&self, symbol: &str, limit: i64) -> Result<Vec<Tick>> {
        let sql = "SELECT seq, ts_ms, bid, ask, volume, received_at_ms FROM ticks
                   WHERE symbol = $1 ORDER BY seq DESC LIMIT $2";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(symbol.to_owned()).bind(limit).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().rev().map(tick).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("ticks"))
    }

    /// Quotes of all symbols after an arrival, in the order in which they came; at most `limit`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn arrived_after(&self, arrival: i64, limit: i64) -> Result<Vec<Arrived>> {
        let sql = "SELECT arrival, symbol, late, seq, ts_ms, bid, ask, volume, received_at_ms FROM ticks
                   WHERE arrival > $1 ORDER BY arrival LIMIT $2";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(arrival).bind(limit).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(arrived).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("ticks"))
    }

    /// The arrival after which some quote is not decided on yet.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn decided_to(&self) -> Result<i64> {
        let sql = "SELECT COALESCE(
                     (SELECT min(t.arrival) - 1 FROM ticks t LEFT JOIN feed_cursor c ON c.symbol = t.symbol
                      WHERE t.late = 0 AND t.seq > COALESCE(c.seq, -9223372036854775807)),
                     (SELECT max(arrival) FROM ticks), 0)";
        on!(self, pool => sqlx::query_scalar(sql).fetch_one(pool).await).map_err(Error::sql("decided to"))
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
) -> std::result::Result<(u8, Quote), &'static str> {
    let instrument = instruments.get(&raw.symbol).ok_or("unknown_symbol")?;
    let read = |text: &str| price::parse(text, instrument.digits).map_err(price::BadPrice::as_str);
    let quote = Quote { ts_ms: raw.ts_ms, seq: raw.seq, bid: read(&raw.bid)?, ask: read(&raw.ask)? };
    guard::sound(&quote).map_err(guard::Unsound::as_str)?;
    if raw.volume < 0 {
        return Err("negative_volume");
    }
    if raw.seq < 0 {
        return Err("negative_seq");
    }
    if quote.ts_ms.saturating_sub(now_ms) > Limits::DEFAULT.max_ahead_ms {
        return Err(guard::Held::Future.as_str());
    }
    Ok((instrument.digits, quote))
}

fn tick(row: &impl Cells) -> sqlx::Result<Tick> {
    let quote = Quote { ts_ms: row.int("ts_ms")?, seq: row.int("seq")?, bid: row.int("bid")?, ask: row.int("ask")? };
    Ok(Tick { quote, volume: row.int("volume")?, received_at_ms: row.int("received_at_ms")? })
}

fn arrived(row: &impl Cells) -> sqlx::Result<Arrived> {
    Ok(Arrived {
        arrival: row.int("arrival")?,
        symbol: row.text("symbol")?,
        tick: tick(row)?,
        late: row.int("late")? != 0,
    })
}
