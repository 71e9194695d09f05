//! Quotes on their way in: judged by G4, kept for the sweep, the last one for display.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cells::Cells;
use super::{Error, Instrument, Positions, Result, on};
use crate::guard::{self, Limits};
use crate::price;
use crate::rules::Quote;
use crate::sources::{Order, Pick, Sources};

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
    /// Which feed said it. Needed where the instrument names its sources: its number then counts among
    /// those of its source alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A quote of a batch that was not kept, or not for decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reject {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Why: unknown_symbol, not_a_number, surplus_digits, too_large, not_positive, crossed,
    /// negative_volume, negative_seq, future, duplicate, or late (kept for candles alone); of an instrument
    /// that names its sources also unknown_source, standby (another source is believed) and contradicted.
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
    /// Which feed said it, if it said so.
    pub source: Option<String>,
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
    /// Symbols of which another source is believed from now on.
    pub switched: Vec<Switched>,
}

/// Another source of a symbol is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Switched {
    /// The symbol.
    pub symbol: String,
    /// Who was.
    pub from: String,
    /// Who is.
    pub to: String,
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

/// A quote that can be, on its way into the tables.
struct Sound<'a> {
    /// Its place in the batch.
    index: usize,
    raw: &'a RawQuote,
    digits: u8,
    quote: Quote,
    /// A newer one of its symbol stands before it.
    late: bool,
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
        let mut sound: Vec<Sound<'_>> = Vec::with_capacity(quotes.len());
        let mut newest: HashMap<&str, i64> = HashMap::new();
        let mut numbers: HashSet<(&str, Option<&str>, i64)> = HashSet::new();
        let mut orders: HashMap<&str, Order> = HashMap::new();
        for (index, raw) in quotes.iter().enumerate() {
            let (digits, quote) = match judge(raw, &instruments, now_ms) {
                Ok(read) => read,
                Err(why) => {
                    taken.reject(index, why);
                    continue;
                }
            };
            let order = instruments.get(&raw.symbol).and_then(Instrument::order);
            let source = raw.source.as_deref().filter(|_| order.is_some());
            if !numbers.insert((&raw.symbol, source, raw.seq)) {
                taken.reject(index, "duplicate");
                continue;
            }
            let last = newest.entry(&raw.symbol).or_insert(i64::MIN);
            let late = order.is_none() && quote.seq < *last;
            *last = quote.seq.max(*last);
            sound.push(Sound { index, raw, digits, quote, late });
            if let Some(order) = order {
                orders.insert(&raw.symbol, order);
            }
        }
        if !sound.is_empty() {
            let kept = self.keep(&mut sound, &orders, now_ms, &mut taken).await.map_err(Error::sql("quotes"))?;
            for switched in &taken.switched {
                self.note(None, "source", "feed", &json!(switched).to_string()).await?;
            }
            for Sound { index, raw, digits, quote, .. } in sound {
                match kept.get(&(raw.symbol.clone(), quote.seq)) {
                    Some(false) => {
                        taken.accepted += 1;
                        let (symbol, source) = (raw.symbol.clone(), raw.source.clone());
                        taken.fresh.push(Fresh { symbol, digits, quote, volume: raw.volume, source });
                    }
                    Some(true) => taken.reject(index, guard::Held::Late.as_str()),
                    None => taken.reject(index, "duplicate"),
                }
            }
        }
        taken.rejects.sort_by_key(|reject| reject.index);
        Ok(taken)
    }

    /// Keeps quotes; answers those that were not there, and whether they are late. Those of instruments
    /// that name their sources are numbered anew in the order in which they are believed; the others among
    /// them are taken out of `sound` and rejected.
    async fn keep(
        &self,
        sound: &mut Vec<Sound<'_>>,
        orders: &HashMap<&str, Order>,
        now_ms: i64,
        taken: &mut Taken,
    ) -> sqlx::Result<HashMap<(String, i64), bool>> {
        let (insert, last) = self.keep_sql();
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
            if !orders.is_empty() {
                let symbols = json!(orders.keys().collect::<Vec<_>>()).to_string();
                let rows = sqlx::query(self.sources_sql()).bind(symbols).fetch_all(&mut *tx).await?;
                let mut known = rows.iter().map(known_sources).collect::<sqlx::Result<HashMap<_, _>>>()?;
                choose(sound, orders, now_ms, &mut known, taken);
                let states: Vec<_> = known
                    .iter()
                    .map(|(symbol, (state, _))| json!({ "symbol": symbol, "state": json!(state).to_string() }))
                    .collect();
                sqlx::query(self.put_sources_sql()).bind(json!(states).to_string()).execute(&mut *tx).await?;
            }
            let (all, newest) = rows_of(sound);
            let rows = sqlx::query(insert).bind(all).fetch_all(&mut *tx).await?;
            sqlx::query(last).bind(newest).execute(&mut *tx).await?;
            tx.commit().await?;
            rows.iter().map(|row| Ok(((row.text("symbol")?, row.int("seq")?), row.int("late")? != 0))).collect()
        })
    }

    /// Inserts quotes; and the newest of each symbol.
    fn keep_sql(&self) -> (sqlx::AssertSqlSafe<String>, sqlx::AssertSqlSafe<String>) {
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
            ("source", "text"),
        ];
        let from = self.records("$1", &columns);
        let least = if self.is_embedded() { "min" } else { "least" };
        let insert = self.sql(&format!(
            "INSERT INTO ticks(symbol, seq, ts_ms, bid, ask, volume, late, received_at_ms, source)
             SELECT d.symbol, d.seq, d.ts, d.bid, d.ask, d.volume,
               CASE WHEN d.late = 1 OR EXISTS (SELECT 1 FROM last_quotes q WHERE q.symbol = d.symbol AND q.seq >= d.seq)
                    THEN 1 ELSE 0 END, {least}(COALESCE(d.received, {{now}}), {{now}}), d.source
             FROM {from} AS d WHERE true ORDER BY d.place
             ON CONFLICT(symbol, seq) DO NOTHING RETURNING symbol, seq, late"
        ));
        let last = self.sql(&format!(
            "INSERT INTO last_quotes(symbol, seq, ts_ms, bid, ask, source)
             SELECT d.symbol, d.seq, d.ts, d.bid, d.ask, d.source FROM {from} AS d
             WHERE d.seq = (SELECT max(r.seq) FROM {from} AS r WHERE r.symbol = d.symbol)
             ON CONFLICT(symbol) DO UPDATE SET seq = excluded.seq, ts_ms = excluded.ts_ms, bid = excluded.bid,
               ask = excluded.ask, source = excluded.source
             WHERE last_quotes.seq < excluded.seq"
        ));
        (insert, last)
    }

    /// What is known of the sources of symbols, and the last number of each.
    fn sources_sql(&self) -> sqlx::AssertSqlSafe<String> {
        let each = if self.is_embedded() { "json_each($1)" } else { "json_array_elements_text($1::json)" };
        self.sql(&format!(
            "SELECT i.symbol AS symbol, s.state AS state, q.seq AS seq FROM instruments i
             LEFT JOIN source_state s ON s.symbol = i.symbol LEFT JOIN last_quotes q ON q.symbol = i.symbol
             WHERE i.symbol IN (SELECT value FROM {each})"
        ))
    }

    fn put_sources_sql(&self) -> sqlx::AssertSqlSafe<String> {
        let from = self.records("$1", &[("symbol", "text"), ("state", "text")]);
        self.sql(&format!(
            "INSERT INTO source_state(symbol, state) SELECT d.symbol, d.state FROM {from} AS d WHERE true
             ON CONFLICT(symbol) DO UPDATE SET state = excluded.state"
        ))
    }

    /// The source that is believed of each symbol that names its sources, and what is remembered of it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn sources(&self) -> Result<HashMap<String, Sources>> {
        let sql = "SELECT s.symbol AS symbol, s.state AS state, NULL AS seq FROM source_state s
                   JOIN instruments i ON i.symbol = s.symbol WHERE i.sources IS NOT NULL";
        let sql = sql.replace("NULL AS seq", if self.is_embedded() { "NULL AS seq" } else { "NULL::bigint AS seq" });
        let rows = on!(self, pool => {
            let rows = sqlx::query(self.sql(&sql)).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(known_sources).collect::<sqlx::Result<HashMap<_, _>>>())
        });
        let rows = rows.map_err(Error::sql("sources"))?;
        Ok(rows.into_iter().map(|(symbol, (sources, _))| (symbol, sources)).collect())
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

    /// Forgets the oldest quotes that are decided on and were there [`KEPT_MS`] before a moment of the database's clock,
    /// at most `limit`; answers how many. What no sweep has seen yet stays.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn trim_ticks(&self, now_ms: i64, limit: u64) -> Result<u64> {
        // The moment is bound: a function of the clock is asked of each row, and no index leads to it.
        let sql = "DELETE FROM ticks WHERE arrival IN (
                     SELECT t.arrival FROM ticks t JOIN feed_cursor c ON c.symbol = t.symbol AND c.seq >= t.seq
                     WHERE t.received_at_ms < $1 ORDER BY t.received_at_ms LIMIT $2)";
        let (before_ms, limit) = (now_ms.saturating_sub(KEPT_MS), i64::try_from(limit).unwrap_or(i64::MAX));
        let done = on!(self, pool => {
            let query = sqlx::query(sql).bind(before_ms).bind(limit);
            query.execute(pool).await.map(|done| done.rows_affected())
        });
        done.map_err(Error::sql("trim"))
    }
}

/// Numbers the quotes that are believed, and takes the others of instruments that name their sources out.
fn choose(
    sound: &mut Vec<Sound<'_>>,
    orders: &HashMap<&str, Order>,
    now_ms: i64,
    known: &mut HashMap<String, (Sources, i64)>,
    taken: &mut Taken,
) {
    sound.retain_mut(|sound| {
        let symbol = sound.raw.symbol.as_str();
        let (Some(order), Some((sources, seq))) = (orders.get(symbol), known.get_mut(symbol)) else { return true };
        let received_ms = sound.raw.received_at_ms.map_or(now_ms, |at| at.min(now_ms));
        let before = sources.active().map(str::to_owned);
        let pick = match &sound.raw.source {
            Some(source) => sources.pick(source, &sound.quote, received_ms, order),
            None => Pick::Unknown,
        };
        if let Some(code) = pick.code() {
            taken.reject(sound.index, code);
            return false;
        }
        if let (Some(before), Some(now)) = (before, sources.active())
            && before != now
        {
            taken.switched.push(Switched { symbol: symbol.to_owned(), from: before, to: now.to_owned() });
        }
        *seq += 1;
        sound.quote.seq = *seq;
        true
    });
}

/// Rows of quotes, and those of the newest of each symbol alone, as JSON.
fn rows_of(sound: &[Sound<'_>]) -> (String, String) {
    let row = |s: &Sound<'_>| {
        json!({ "symbol": s.raw.symbol, "seq": s.quote.seq, "ts": s.quote.ts_ms, "bid": s.quote.bid, "ask": s.quote.ask,
                "volume": s.raw.volume, "late": i64::from(s.late), "received": s.raw.received_at_ms, "place": s.index,
                "source": s.raw.source })
    };
    let rows: Vec<_> = sound.iter().map(row).collect();
    let mut newest: HashMap<&str, (i64, &serde_json::Value)> = HashMap::new();
    for (sound, row) in sound.iter().zip(&rows) {
        let seq = sound.quote.seq;
        if newest.get(sound.raw.symbol.as_str()).is_none_or(|(newest, _)| *newest < seq) {
            newest.insert(&sound.raw.symbol, (seq, row));
        }
    }
    let newest: Vec<_> = newest.values().map(|(_, row)| row).collect();
    (json!(rows).to_string(), json!(newest).to_string())
}

/// What is known of a symbol's sources, and its last number, 0 or more.
fn known_sources(row: &impl Cells) -> sqlx::Result<(String, (Sources, i64))> {
    let sources = row.opt_text("state")?.and_then(|state| serde_json::from_str(&state).ok()).unwrap_or_default();
    Ok((row.text("symbol")?, (sources, row.opt("seq")?.unwrap_or(0).max(0))))
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
