//! Closing positions, each of them once.
//!
//! A closing is written by one transaction that holds the position's row, its closing row, its
//! outbox row and its audit row. Four guards stand in the statement itself: the status (once), the
//! version (what was decided on is still so), the fence (a worker that lost its shard writes
//! nothing) and the age of the decision by the clock of the database. Leases and locks elsewhere
//! only save work.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::json;

use super::cells::Cells;
use super::load::CLOSING;
use super::{ClosingRow, Error, Lease, Positions, Result, Status, on};
use crate::rules::{Fill, Quote, RULE_VERSION, Rules};

/// The right under which closings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The shard.
    pub shard: i64,
    /// Its token.
    pub token: i64,
}

impl From<&Lease> for Fence {
    fn from(lease: &Lease) -> Self {
        Self { shard: lease.shard, token: lease.token }
    }
}

/// All that one quote closes of one position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The position.
    pub id: i64,
    /// The version that was decided on.
    pub version: i64,
    /// The quote that decided.
    pub quote: Quote,
    /// What closes, in order: legs, then the rest. At least one.
    pub fills: Vec<Fill>,
    /// Points × units of each fill.
    pub pnl_points: Vec<i128>,
    /// What the decision was made of, as JSON, for the audit: enough to decide again.
    pub detail: String,
}

impl Close {
    /// Of a decision under these rules.
    #[must_use]
    pub fn new(id: i64, version: i64, quote: Quote, fills: Vec<Fill>, rules: &Rules, detail: String) -> Self {
        let pnl_points = fills.iter().map(|fill| rules.pnl_points(fill.price, fill.qty)).collect();
        Self { id, version, quote, fills, pnl_points, detail }
    }

    fn taken(&self) -> i64 {
        self.fills.iter().fold(0, |sum, fill| sum.saturating_add(fill.qty))
    }

    fn legs(&self) -> i64 {
        self.fills.iter().filter(|fill| fill.leg > 0).fold(0, |legs, fill| legs | (1 << fill.leg))
    }
}

/// What became of a closing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It is written.
    Closed {
        /// The version of the position's row now.
        version: i64,
        /// True when nothing of the position is left.
        whole: bool,
    },
    /// The application whose it is was asked to close it, by this call or before.
    Asked {
        /// By this call.
        fresh: bool,
    },
    /// Somebody else closed it.
    AlreadyClosed {
        /// The rows that stand.
        closings: Vec<ClosingRow>,
    },
    /// It was changed after what was decided on: decide again.
    VersionChanged,
    /// The shard belongs to another worker now.
    FenceLost,
    /// The decision is too old.
    TooOld,
    /// Another transaction holds it at this moment: decide again.
    Busy,
    /// The tables of the application whose it is do not let it close.
    Failed {
        /// Why, without any value of a row.
        why: String,
    },
    /// There is no such position.
    Unknown,
}

/// Outcomes by position, with the moment of the database's clock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Closed {
    /// What became of each.
    pub outcomes: HashMap<i64, Outcome>,
}

/// A decision older than this closes nothing, in ms.
pub(super) const MAX_DECISION_AGE_MS: i64 = 2_000;
/// How often a transaction is run again that the database ended to let another go on.
const CONFLICT_TRIES: u32 = 3;

/// Of positions that were closed: the version of the row now, and whether nothing of it is left.
pub(super) type Rows = HashMap<i64, (i64, bool)>;

/// Closings that are to be written together.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) closes: &'a [Close],
    pub(super) fence: Option<Fence>,
    pub(super) decided_at_ms: i64,
    pub(super) actor: &'a str,
    pub(super) cursor: Option<Reached<'a>>,
}

/// What became of closings that were written together.
#[derive(Default)]
pub(super) struct Written {
    pub(super) rows: Rows,
    /// What another application's tables do not let close, and why.
    pub(super) failed: HashMap<i64, String>,
}

/// What one transaction made of closings.
pub(super) enum Tried {
    Written(Rows),
    /// Nothing is written. Of these the other application's statement closed nothing, or failed: why.
    Refused(HashMap<i64, Option<String>>),
}

/// One closing, as it is written by itself.
pub(super) struct Entry<'a> {
    pub(super) id: i64,
    pub(super) fill: &'a Fill,
    pub(super) quote: &'a Quote,
    pub(super) pnl_points: String,
    pub(super) actor: &'a str,
    pub(super) fence: Option<Fence>,
    pub(super) decided_at_ms: i64,
}

impl Entry<'_> {
    pub(super) fn key(&self) -> String {
        format!("close:{}:{}", self.id, self.fill.leg)
    }

    pub(super) fn payload(&self) -> String {
        payload(self.id, self.fill, self.quote, &self.pnl_points)
    }
}

/// Writes one closing and its event in a transaction of either database.
macro_rules! write_entry {
    ($store:expr, $tx:expr, $entry:expr) => {{
        let entry: $crate::positions::close::Entry<'_> = $entry;
        let written = sqlx::query($store.typed($crate::positions::close::ENTRY))
            .bind(entry.id)
            .bind(i64::from(entry.fill.leg))
            .bind(entry.fill.qty)
            .bind(entry.fill.reason.as_str())
            .bind(entry.fill.level)
            .bind(entry.fill.price)
            .bind(entry.quote.bid)
            .bind(entry.quote.ask)
            .bind(entry.quote.seq)
            .bind(entry.quote.ts_ms)
            .bind(entry.pnl_points.clone())
            .bind($crate::rules::RULE_VERSION)
            .bind(entry.actor.to_owned())
            .bind(entry.fence.map(|fence| fence.shard))
            .bind(entry.fence.map(|fence| fence.token))
            .bind(entry.decided_at_ms)
            .execute(&mut **$tx)
            .await;
        match written {
            Ok(_) => sqlx::query($store.typed($crate::positions::audit::TELL))
                .bind("position.closed")
                .bind(entry.key())
                .bind(entry.payload())
                .execute(&mut **$tx)
                .await
                .map(|_| ()),
            Err(error) => Err(error),
        }
    }};
}
pub(super) use write_entry;

/// Moves a cursor on a connection of either database.
macro_rules! cursor {
    ($store:expr, $conn:expr, $reached:expr, $fence:expr) => {
        sqlx::query($store.sql(CURSOR))
            .bind($reached.symbol.to_owned())
            .bind($reached.seq)
            .bind($reached.stream_id.map(str::to_owned))
            .bind($fence.map(|fence: Fence| fence.shard))
            .bind($fence.map(|fence: Fence| fence.token))
            .execute($conn)
            .await
            .map(|_| ())
    };
}

impl Positions {
    /// Closes what was decided, each position once, all in one transaction. `decided_at_ms` is by
    /// the clock of the database; `fence` is none for what a person asked for. With `cursor`, the
    /// symbol's quotes up to this number count as decided on, in the same transaction.
    ///
    /// # Errors
    /// [`Error`]. Then it is not known what was written: asking again is safe, and answers it.
    pub async fn close(
        &self,
        closes: &[Close],
        fence: Option<Fence>,
        decided_at_ms: i64,
        actor: &str,
        cursor: Option<Reached<'_>>,
    ) -> Result<Closed> {
        if let (super::Pool::Postgres(pool), Some(_)) = (&self.pool, self.callback()) {
            let asked = self.ask(pool, closes, fence, decided_at_ms, actor).await?;
            if let Some(reached) = cursor {
                self.advance(reached, fence).await?;
            }
            let outcomes = asked.into_keys().map(|id| (id, Outcome::Asked { fresh: true })).collect();
            return self.outcomes(closes, outcomes, fence, decided_at_ms, actor).await;
        }
        let order = Order { closes, fence, decided_at_ms, actor, cursor };
        let mut tries = 0;
        let written = loop {
            match self.write_closings(order).await {
                Err(error) if error.is_conflict() && tries < CONFLICT_TRIES => tries += 1,
                other => break other?,
            }
        };
        let closed = |(id, (version, whole))| (id, Outcome::Closed { version, whole });
        let mut outcomes: HashMap<i64, Outcome> = written.rows.into_iter().map(closed).collect();
        outcomes.extend(written.failed.into_iter().map(|(id, why)| (id, Outcome::Failed { why })));
        self.outcomes(closes, outcomes, fence, decided_at_ms, actor).await
    }

    async fn write_closings(&self, order: Order<'_>) -> Result<Written> {
        let rows = match &self.pool {
            super::Pool::Sqlite(pool) => self.close_embedded(pool, order).await?,
            super::Pool::Postgres(pool) if self.is_mapped() => return self.close_mapped(pool, order).await,
            super::Pool::Postgres(pool) => match self.try_postgres(pool, order, false).await? {
                Tried::Written(rows) => rows,
                Tried::Refused(_) => HashMap::new(),
            },
        };
        Ok(Written { rows, failed: HashMap::new() })
    }

    /// Answers what was written, or what the other application's tables refused: then nothing is. With `each`
    /// its statements run one by one, so that all it refuses is found out.
    pub(super) async fn try_postgres(&self, pool: &sqlx::PgPool, order: Order<'_>, each: bool) -> Result<Tried> {
        let run = async {
            let mut tx = pool.begin().await?;
            match self.write_in(&mut tx, order, each).await {
                Ok(Tried::Written(rows)) => tx.commit().await.map(|()| Tried::Written(rows)),
                refused => {
                    // An error is said before its transaction has ended: the rows are free once this is answered.
                    let ended = tx.rollback().await;
                    refused.and_then(|refused| ended.map(|()| refused))
                }
            }
        };
        run.await.map_err(Error::sql("close"))
    }

    async fn write_in(&self, tx: &mut sqlx::PgConnection, order: Order<'_>, each: bool) -> sqlx::Result<Tried> {
        let Order { closes, fence, decided_at_ms, actor, cursor } = order;
        let rows = sqlx::query(CLOSE_POSTGRES)
            .bind(positions_json(closes))
            .bind(fills_json(closes))
            .bind(fence.map(|fence| fence.shard))
            .bind(fence.map(|fence| fence.token))
            .bind(decided_at_ms)
            .bind(MAX_DECISION_AGE_MS)
            .bind(RULE_VERSION)
            .bind(actor)
            .fetch_all(&mut *tx)
            .await?;
        let rows = rows.iter().map(written).collect::<sqlx::Result<HashMap<_, _>>>()?;
        if let Some(mapped) = &self.mapped {
            let refused = self.close_theirs(mapped, &mut *tx, closes, &rows, each).await?;
            if !refused.is_empty() {
                return Ok(Tried::Refused(refused));
            }
        }
        if let Some(reached) = cursor {
            cursor!(self, &mut *tx, reached, fence)?;
        }
        Ok(Tried::Written(rows))
    }

    /// One position after the other, under the lock of the file.
    async fn close_embedded(&self, pool: &sqlx::SqlitePool, order: Order<'_>) -> Result<Rows> {
        let Order { closes, fence, decided_at_ms, actor, cursor } = order;
        let mut written = HashMap::new();
        let run = async {
            let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
            if let Some(fence) = fence {
                let holds = "SELECT count(*) FROM shard_lease WHERE shard = $1 AND token = $2";
                let holds: i64 =
                    sqlx::query_scalar(holds).bind(fence.shard).bind(fence.token).fetch_one(&mut *tx).await?;
                if holds == 0 {
                    return Ok(());
                }
            }
            for close in closes {
                let row = sqlx::query(self.sql(CLOSE_EMBEDDED))
                    .bind(close.id)
                    .bind(close.version)
                    .bind(close.taken())
                    .bind(close.legs())
                    .bind(decided_at_ms)
                    .bind(MAX_DECISION_AGE_MS)
                    .fetch_optional(&mut *tx)
                    .await?;
                let Some(row) = row else { continue };
                for (fill, pnl) in close.fills.iter().zip(&close.pnl_points) {
                    let (quote, pnl_points) = (&close.quote, pnl.to_string());
                    let entry = Entry { id: close.id, fill, quote, pnl_points, actor, fence, decided_at_ms };
                    write_entry!(self, &mut tx, entry)?;
                }
                sqlx::query(self.typed(super::audit::ADD))
                    .bind(close.id)
                    .bind("close")
                    .bind(actor.to_owned())
                    .bind(close.detail.clone())
                    .execute(&mut *tx)
                    .await?;
                written.insert(close.id, (row.int("version")?, row.int("left")? == 0));
            }
            if let Some(reached) = cursor {
                cursor!(self, &mut *tx, reached, fence)?;
            }
            tx.commit().await
        };
        run.await.map_err(Error::sql("close"))?;
        Ok(written)
    }

    /// Says why the closings that were not written were not, and notes it in their history.
    async fn outcomes(
        &self,
        closes: &[Close],
        mut outcomes: HashMap<i64, Outcome>,
        fence: Option<Fence>,
        decided_at_ms: i64,
        actor: &str,
    ) -> Result<Closed> {
        let lost: Vec<&Close> = closes.iter().filter(|close| !outcomes.contains_key(&close.id)).collect();
        if lost.is_empty() {
            return Ok(Closed { outcomes });
        }
        let ids: Vec<i64> = lost.iter().map(|close| close.id).collect();
        let rows: HashMap<i64, _> = self.get_many(&ids).await?.into_iter().map(|row| (row.id, row)).collect();
        let mut closings: HashMap<i64, Vec<ClosingRow>> = HashMap::new();
        for closing in self.closings(&ids).await? {
            closings.entry(closing.position_id).or_default().push(closing);
        }
        let fence_holds = match fence {
            Some(fence) => self.holds(fence).await?,
            None => true,
        };
        let is_old = self.now_ms().await? >= decided_at_ms.saturating_add(MAX_DECISION_AGE_MS);
        for close in lost {
            let outcome = match rows.get(&close.id) {
                None => Outcome::Unknown,
                Some(row) if row.status == Status::Closed => {
                    Outcome::AlreadyClosed { closings: closings.remove(&close.id).unwrap_or_default() }
                }
                Some(row) if row.asked => Outcome::Asked { fresh: false },
                Some(_) if !fence_holds => Outcome::FenceLost,
                Some(row) if row.version != close.version => Outcome::VersionChanged,
                Some(_) if is_old => Outcome::TooOld,
                Some(_) => Outcome::Busy,
            };
            let detail = json!({ "why": outcome, "version": close.version, "quote": close.quote, "fence": fence.map(|f| f.token) });
            if outcome != Outcome::Unknown {
                self.note(Some(close.id), "lost_race", actor, &detail.to_string()).await?;
            }
            outcomes.insert(close.id, outcome);
        }
        Ok(Closed { outcomes })
    }

    async fn holds(&self, fence: Fence) -> Result<bool> {
        let sql = "SELECT count(*) FROM shard_lease WHERE shard = $1 AND token = $2";
        let holds: sqlx::Result<i64> = on!(self, pool => {
            sqlx::query_scalar(sql).bind(fence.shard).bind(fence.token).fetch_one(pool).await
        });
        Ok(holds.map_err(Error::sql("fence"))? > 0)
    }
}

/// What a closing answers of a position: its number, its version, and whether all of it is closed.
fn written(row: &impl Cells) -> sqlx::Result<(i64, (i64, bool))> {
    Ok((row.int("id")?, (row.int("version")?, row.int("left")? == 0)))
}

pub(super) fn positions_json(closes: &[Close]) -> String {
    let rows: Vec<_> = closes
        .iter()
        .map(|close| {
            json!({ "id": close.id, "ver": close.version, "take": close.taken(), "legs": close.legs(), "detail": close.detail })
        })
        .collect();
    json!(rows).to_string()
}

fn fills_json(closes: &[Close]) -> String {
    let mut rows = Vec::new();
    for close in closes {
        for (fill, pnl) in close.fills.iter().zip(&close.pnl_points) {
            rows.push(json!({
                "id": close.id, "leg": fill.leg, "qty": fill.qty, "reason": fill.reason.as_str(), "level": fill.level,
                "fill": fill.price, "bid": close.quote.bid, "ask": close.quote.ask, "seq": close.quote.seq,
                "ts": close.quote.ts_ms, "pnl": pnl.to_string(), "payload": payload(close.id, fill, &close.quote, &pnl.to_string()),
            }));
        }
    }
    json!(rows).to_string()
}

/// What others are told of a closing.
fn payload(id: i64, fill: &Fill, quote: &Quote, pnl_points: &str) -> String {
    json!({
        "position_id": id, "leg": fill.leg, "qty": fill.qty, "reason": fill.reason, "level": fill.level,
        "fill": fill.price, "pnl_points": pnl_points, "quote": quote,
    })
    .to_string()
}

/// `$1` positions, `$2` fills, `$3` shard, `$4` token, `$5` decided at, `$6` age at most, `$7` rules,
/// `$8` actor. Answers what was written: id, version, left.
const CLOSE_POSTGRES: &str = "
WITH d AS (SELECT * FROM json_to_recordset($1::json) AS t(id bigint, ver bigint, take bigint, legs bigint, detail text)),
f AS (SELECT * FROM json_to_recordset($2::json) AS t(id bigint, leg bigint, qty bigint, reason text, level bigint, fill bigint,
      bid bigint, ask bigint, seq bigint, ts bigint, pnl numeric, payload text)),
fence AS (SELECT token FROM shard_lease WHERE shard = $3 AND token = $4 FOR SHARE),
l AS (SELECT p.id FROM positions p JOIN d USING(id) WHERE p.status < 2 AND p.version = d.ver ORDER BY p.id
      FOR UPDATE OF p SKIP LOCKED),
u AS (UPDATE positions p SET open_qty = p.open_qty - d.take,
        legs_done = p.legs_done | d.legs,
        status = CASE WHEN p.open_qty = d.take THEN 2 ELSE p.status END,
        closed_at_ms = CASE WHEN p.open_qty = d.take THEN (extract(epoch FROM clock_timestamp()) * 1000)::bigint END,
        updated_at_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
        version = p.version + 1
      FROM d JOIN l USING(id)
      WHERE p.id = d.id AND p.status < 2 AND p.version = d.ver AND p.open_qty >= d.take AND (p.legs_done & d.legs) = 0
        AND ($4::bigint IS NULL OR EXISTS (SELECT FROM fence))
        AND (extract(epoch FROM clock_timestamp()) * 1000)::bigint < $5 + $6
      RETURNING p.id, p.version, p.open_qty AS left_qty, d.detail),
c AS (INSERT INTO closings(position_id, leg, qty, reason, level, fill, bid, ask, quote_seq, quote_ts_ms, pnl_points,
        rule_version, actor, shard, fence, decided_at_ms, closed_at_ms)
      SELECT f.id, f.leg, f.qty, f.reason, f.level, f.fill, f.bid, f.ask, f.seq, f.ts, f.pnl, $7, $8, $3, $4, $5,
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint
      FROM f JOIN u USING(id) RETURNING position_id),
o AS (INSERT INTO outbox(topic, key, payload, created_at_ms)
      SELECT 'position.closed', 'close:' || f.id || ':' || f.leg, f.payload::jsonb,
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint
      FROM f JOIN u USING(id) ON CONFLICT(key) DO NOTHING),
a AS (INSERT INTO audit(at_ms, position_id, kind, actor, detail)
      SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, u.id, 'close', $8, u.detail::jsonb FROM u)
SELECT u.id AS id, u.version AS version, u.left_qty AS left FROM u";

/// `$1` id, `$2` version, `$3` units, `$4` legs, `$5` decided at, `$6` age at most.
const CLOSE_EMBEDDED: &str = "UPDATE positions SET open_qty = open_qty - $3, legs_done = legs_done | $4,
    status = CASE WHEN open_qty = $3 THEN 2 ELSE status END,
    closed_at_ms = CASE WHEN open_qty = $3 THEN {now} END, updated_at_ms = {now}, version = version + 1
  WHERE id = $1 AND status < 2 AND version = $2 AND open_qty >= $3 AND (legs_done & $4) = 0 AND {now} < $5 + $6
  RETURNING version, open_qty AS left";

/// Adds one closing. `$1` position, `$2` leg, `$3` units, `$4` reason, `$5` level, `$6` price, `$7` bid, `$8` ask, `$9`
/// number and `$10` stamp of the quote, `$11` profit, `$12` rules, `$13` actor, `$14` shard, `$15` token, `$16` decided at.
pub(super) const ENTRY: &str = "INSERT INTO closings(position_id, leg, qty, reason, level, fill, bid, ask, quote_seq,
    quote_ts_ms, pnl_points, rule_version, actor, shard, fence, decided_at_ms, closed_at_ms)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, CAST($11 AS {wide}), $12, $13, $14, $15, $16, {now})";

/// `$1` symbol, `$2` number, `$3` place in the stream, `$4` shard, `$5` token: never goes back, and
/// only for who holds the shard.
const CURSOR: &str = "INSERT INTO feed_cursor(symbol, seq, stream_id, at_ms)
  SELECT $1, $2, $3, {now} WHERE $5 IS NULL OR EXISTS (SELECT 1 FROM shard_lease WHERE shard = $4 AND token = $5)
  ON CONFLICT(symbol) DO UPDATE SET seq = $2, stream_id = $3, at_ms = {now} WHERE feed_cursor.seq < $2";

/// How far a symbol's quotes are decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached<'a> {
    /// The symbol.
    pub symbol: &'a str,
    /// The number of the last quote.
    pub seq: i64,
    /// Its place in the stream.
    pub stream_id: Option<&'a str>,
}

impl Positions {
    /// Counts a symbol's quotes up to this number as decided on. Never goes back, and does nothing
    /// for a fence that was lost.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn advance(&self, reached: Reached<'_>, fence: Option<Fence>) -> Result<()> {
        let done = on!(self, pool => {
            let run = async {
                let mut conn = pool.acquire().await?;
                cursor!(self, &mut *conn, reached, fence)
            };
            run.await
        });
        done.map_err(Error::sql("advance"))
    }

    /// As [`Positions::advance`], of many symbols at once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn advance_all(&self, reached: &[(&str, i64)], fence: Option<Fence>) -> Result<()> {
        let from = self.records("$1", &[("symbol", "text"), ("seq", "bigint")]);
        let sql = self.sql(&format!(
            "INSERT INTO feed_cursor(symbol, seq, at_ms) SELECT d.symbol, d.seq, {{now}} FROM {from} AS d
             WHERE $3 IS NULL OR EXISTS (SELECT 1 FROM shard_lease WHERE shard = $2 AND token = $3)
             ON CONFLICT(symbol) DO UPDATE SET seq = excluded.seq, at_ms = excluded.at_ms WHERE feed_cursor.seq < excluded.seq"
        ));
        let rows: Vec<_> = reached.iter().map(|(symbol, seq)| json!({ "symbol": symbol, "seq": seq })).collect();
        let done = on!(self, pool => {
            let query = sqlx::query(sql).bind(json!(rows).to_string());
            query.bind(fence.map(|f| f.shard)).bind(fence.map(|f| f.token)).execute(pool).await.map(|_| ())
        });
        done.map_err(Error::sql("advance"))
    }

    /// The closings written since a moment of the database's clock, oldest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn closed_since(&self, at_ms: i64, limit: i64) -> Result<Vec<ClosingRow>> {
        let sql = self.sql(&format!(
            "SELECT {CLOSING} FROM closings WHERE closed_at_ms >= $1 ORDER BY closed_at_ms, position_id, leg LIMIT $2"
        ));
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(at_ms).bind(limit).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(ClosingRow::read).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("closings"))
    }
}
