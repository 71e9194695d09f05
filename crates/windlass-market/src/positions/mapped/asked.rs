//! Closings that another application's own code carries out: asked for, answered, failed.
//!
//! A decision marks the position as closing and notes what is asked, in one transaction under the same
//! guards as a closing. From then on nothing here decides about it: it is closed when the answer says
//! so, and stays closing, named and counted, when there is none.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::super::audit::ADD;
use super::super::cells::Cells;
use super::super::close::{Entry, MAX_DECISION_AGE_MS, positions_json, write_entry};
use super::super::{Close, Error, Fence, PG_NOW, Pool, Positions, Result};
use crate::price;
use crate::rules::{Fill, Quote, Reason, Side};

/// What is to be closed, in points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted {
    leg: u8,
    qty: i64,
    reason: Reason,
    level: Option<i64>,
    fill: i64,
    quote: Quote,
    pnl_points: String,
}

/// A closing that was asked for and has no good answer yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The position.
    pub position_id: i64,
    /// 0 for all that was left.
    pub leg: u8,
    /// How it stands.
    pub state: AskState,
    /// When.
    pub asked_at_ms: i64,
    /// Why it failed: a word of the job that asked.
    pub error: Option<String>,
    wanted: Wanted,
    account_id: i64,
    symbol: String,
    side: Side,
    version: Option<String>,
    digits: u8,
    decided_at_ms: i64,
}

impl Asked {
    /// True for what [`Asked::key`] may answer.
    #[must_use]
    pub fn is_key(key: &str) -> bool {
        parse_key(key).is_some()
    }

    /// The same for the same leg, however often it is sent.
    #[must_use]
    pub fn key(&self) -> String {
        format!("close:{}:{}", self.position_id, self.leg)
    }

    /// What anybody may read who sees jobs: no price and no profit. The rest of [`Asked::payload`] stands in the
    /// view `asked_closings`, by the key.
    #[must_use]
    pub fn notice(&self) -> Value {
        let Wanted { leg, qty, reason, .. } = &self.wanted;
        json!({
            "key": self.key(), "position_id": self.position_id, "leg": leg, "account_id": self.account_id,
            "symbol": self.symbol, "side": self.side, "qty": qty, "version": self.version, "reason": reason,
            "decided_at_ms": self.decided_at_ms,
        })
    }

    /// What the other application is told: prices as decimals, `version` as it was read from its row.
    #[must_use]
    pub fn payload(&self) -> Value {
        let text = |points| price::format(points, self.digits);
        let Wanted { leg, qty, reason, level, fill, quote, pnl_points } = &self.wanted;
        json!({
            "key": self.key(), "position_id": self.position_id, "leg": leg, "account_id": self.account_id,
            "symbol": self.symbol, "side": self.side, "qty": qty, "version": self.version, "reason": reason,
            "level": level.map(text), "price": text(*fill), "pnl_points": pnl_points,
            "quote": { "bid": text(quote.bid), "ask": text(quote.ask), "seq": quote.seq, "ts_ms": quote.ts_ms },
            "decided_at_ms": self.decided_at_ms,
        })
    }
}

/// How a closing that was asked for stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskState {
    /// Without an answer yet.
    Asked,
    /// Failed for good: its position stays closing.
    Failed,
    /// Failed, and its application no longer lists the position as open.
    Gone,
    /// Answered: this.
    Ended(Answered),
}

impl AskState {
    fn parse(word: &str) -> Self {
        match word {
            "failed" => Self::Failed,
            "gone" => Self::Gone,
            "closed" => Self::Ended(Answered::Closed),
            "already_closed" => Self::Ended(Answered::AlreadyClosed),
            _ => Self::Asked,
        }
    }
}

/// Found gone within the last day: an answer may still come.
const LATE: &str = "c.state = 'gone' AND c.ended_at_ms > {now} - 86400000";

/// Closings of which state are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Their jobs are not enqueued, as far as is known.
    New,
    /// Their jobs are, and there is no answer.
    Enqueued,
    /// Failed for good.
    Failed,
    /// Failed, and gone, but an answer may still come.
    Gone,
}

impl Waiting {
    const fn condition(self) -> &'static str {
        match self {
            Self::New => "c.state = 'asked' AND c.enqueued_at_ms IS NULL",
            Self::Enqueued => "c.state = 'asked' AND c.enqueued_at_ms IS NOT NULL",
            Self::Failed => "c.state = 'failed'",
            Self::Gone => LATE,
        }
    }
}

/// The closing after which a reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    asked_at_ms: i64,
    position_id: i64,
    leg: u8,
}

impl From<&Asked> for After {
    fn from(asked: &Asked) -> Self {
        Self { asked_at_ms: asked.asked_at_ms, position_id: asked.position_id, leg: asked.leg }
    }
}

/// How many closings are asked for, and how many have failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AskedCount {
    /// Without an answer yet.
    pub asked: i64,
    /// Failed for good: their positions stay closing.
    pub failed: i64,
}

/// What the other application answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// It closed the position for this key.
    Closed,
    /// The position was closed before.
    AlreadyClosed,
}

impl Answered {
    /// As it is answered and written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::AlreadyClosed => "already_closed",
        }
    }
}

/// What [`asked`] reads.
const READ: &str =
    "SELECT c.position_id, c.leg, c.state, c.asked_at_ms, c.decided_at_ms, c.answer, c.fill::text AS fill,
    p.account_id, p.symbol, p.side, p.mapped_version, i.digits
  FROM callbacks c JOIN positions p ON p.id = c.position_id JOIN instruments i ON i.symbol = p.symbol";

const ASK: &str = "
WITH d AS (SELECT * FROM json_to_recordset($1::json) AS t(id bigint, ver bigint, take bigint, legs bigint, detail text)),
f AS (SELECT * FROM json_to_recordset($2::json) AS t(id bigint, leg bigint, reason text, fill text)),
fence AS (SELECT token FROM shard_lease WHERE shard = $3 AND token = $4 FOR SHARE),
l AS (SELECT p.id FROM positions p JOIN d USING(id) WHERE p.status < 2 AND p.asked_at_ms IS NULL AND p.version = d.ver
      ORDER BY p.id FOR UPDATE OF p SKIP LOCKED),
u AS (UPDATE positions p SET status = 1, closing_reason = f.reason, asked_at_ms = {now}, updated_at_ms = {now}, version = p.version + 1
      FROM d JOIN l USING(id) JOIN f USING(id)
      WHERE p.id = d.id AND p.status < 2 AND p.asked_at_ms IS NULL AND p.version = d.ver AND p.open_qty = d.take
        AND ($4::bigint IS NULL OR EXISTS (SELECT FROM fence)) AND {now} < $5 + $6
      RETURNING p.id, p.version, d.detail, f.leg, f.fill),
c AS (INSERT INTO callbacks(position_id, leg, fill, detail, actor, shard, fence, decided_at_ms, asked_at_ms)
      SELECT u.id, u.leg, u.fill::jsonb, u.detail::jsonb, $7, $3, $4, $5, {now} FROM u),
a AS (INSERT INTO audit(at_ms, position_id, kind, actor, detail) SELECT {now}, u.id, 'trigger', $7, u.detail::jsonb FROM u)
SELECT u.id AS id, u.version AS version FROM u";

impl Positions {
    /// Notes what is to be closed; answers the versions of the positions that are closing now.
    pub(in super::super) async fn ask(
        &self,
        pool: &PgPool,
        closes: &[Close],
        fence: Option<Fence>,
        decided_at_ms: i64,
        actor: &str,
    ) -> Result<HashMap<i64, i64>> {
        // One whole closing each: another application's positions have no legs.
        let wanted: Vec<Value> = closes.iter().filter_map(wanted).collect();
        let sql = ASK.replace("{now}", PG_NOW);
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(positions_json(closes))
            .bind(json!(wanted).to_string())
            .bind(fence.map(|fence| fence.shard))
            .bind(fence.map(|fence| fence.token))
            .bind(decided_at_ms)
            .bind(MAX_DECISION_AGE_MS)
            .bind(actor)
            .fetch_all(pool)
            .await;
        let rows = rows.and_then(|rows| rows.iter().map(|row| Ok((row.int("id")?, row.int("version")?))).collect());
        rows.map_err(Error::sql("ask"))
    }

    /// Closings that were asked for and stand so, oldest first, after one of them.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn asked(&self, waiting: Waiting, after: Option<After>, limit: i64) -> Result<Vec<Asked>> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(Vec::new()) };
        let sql = self.sql(&format!(
            "{READ} WHERE {} AND (c.asked_at_ms, c.position_id, c.leg) > ($1, $2, $3)
             ORDER BY c.asked_at_ms, c.position_id, c.leg LIMIT $4",
            waiting.condition()
        ));
        let After { asked_at_ms, position_id, leg } =
            after.unwrap_or(After { asked_at_ms: i64::MIN, position_id: i64::MIN, leg: 0 });
        let query = sqlx::query(sql).bind(asked_at_ms).bind(position_id).bind(i64::from(leg)).bind(limit);
        let rows = query.fetch_all(pool).await;
        rows.and_then(|rows| rows.iter().map(asked).collect()).map_err(Error::sql("asked"))
    }

    /// The closing of a key, as in `close:17:0`; none that was never asked for.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn asked_by_key(&self, key: &str) -> Result<Option<Asked>> {
        let (Pool::Postgres(pool), Some((position, leg))) = (&self.pool, parse_key(key)) else { return Ok(None) };
        let sql = self.sql(&format!("{READ} WHERE c.position_id = $1 AND c.leg = $2"));
        let row = sqlx::query(sql).bind(position).bind(i64::from(leg)).fetch_optional(pool).await;
        row.and_then(|row| row.map(|row| asked(&row)).transpose()).map_err(Error::sql("asked"))
    }

    /// Notes that the jobs of these are enqueued.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn enqueued(&self, asked: &[After]) -> Result<()> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(()) };
        let rows: Vec<_> = asked.iter().map(|one| json!({ "id": one.position_id, "leg": one.leg })).collect();
        let sql = self.sql(
            "UPDATE callbacks c SET enqueued_at_ms = {now} FROM json_to_recordset($1::json) AS d(id bigint, leg bigint)
             WHERE c.position_id = d.id AND c.leg = d.leg",
        );
        let done = sqlx::query(sql).bind(json!(rows).to_string()).execute(pool).await;
        done.map(|_| ()).map_err(Error::sql("enqueued"))
    }

    /// How many closings wait for an answer, and how many have failed.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn asked_count(&self) -> Result<AskedCount> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(AskedCount::default()) };
        let sql = "SELECT count(*) FILTER (WHERE state = 'asked') AS asked, count(*) FILTER (WHERE state = 'failed') AS failed
                   FROM callbacks WHERE state IN ('asked', 'failed')";
        let row = sqlx::query(sql).fetch_one(pool).await;
        row.and_then(|row| Ok(AskedCount { asked: row.int("asked")?, failed: row.int("failed")? }))
            .map_err(Error::sql("asked"))
    }

    /// Writes down what was answered: the closing, or that there is none of ours; also of one that failed, and
    /// whose position was found gone within the last day. False when that is known already.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn answered(&self, asked: &Asked, answered: Answered, answer: &Value) -> Result<bool> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(false) };
        let run = async {
            let mut tx = pool.begin().await?;
            let sql = self.sql(&format!(
                "UPDATE callbacks c SET state = $3, ended_at_ms = {{now}}, answer = $4
                 WHERE position_id = $1 AND leg = $2
                   AND (c.state IN ('asked', 'failed') OR {LATE})
                 RETURNING detail::text AS detail, actor, shard, fence, decided_at_ms"
            ));
            let row = sqlx::query(sql)
                .bind(asked.position_id)
                .bind(i64::from(asked.leg))
                .bind(answered.as_str())
                .bind(answer.to_string())
                .fetch_optional(&mut *tx)
                .await?;
            let Some(row) = row else { return Ok(false) };
            let sql = self.sql(
                "UPDATE positions SET status = 2, open_qty = 0, closed_at_ms = {now}, updated_at_ms = {now}, version = version + 1
                 WHERE id = $1 AND status < 2",
            );
            sqlx::query(sql).bind(asked.position_id).execute(&mut *tx).await?;
            let mut detail: Value = serde_json::from_str(&row.text("detail")?).unwrap_or_default();
            detail["answer"] = answer.clone();
            let actor = row.text("actor")?;
            let kind = match answered {
                Answered::Closed => {
                    self.write_closing(&mut tx, asked, &row, &actor).await?;
                    "close"
                }
                Answered::AlreadyClosed => "gone",
            };
            sqlx::query(self.typed(ADD))
                .bind(asked.position_id)
                .bind(kind)
                .bind(actor)
                .bind(detail.to_string())
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(true)
        };
        run.await.map_err(Error::sql("answered"))
    }

    async fn write_closing(
        &self,
        tx: &mut sqlx::PgTransaction<'_>,
        asked: &Asked,
        row: &impl Cells,
        actor: &str,
    ) -> sqlx::Result<()> {
        let Wanted { leg, qty, reason, level, fill, quote, pnl_points } = &asked.wanted;
        let fill = Fill { leg: *leg, qty: *qty, reason: *reason, level: *level, price: *fill, ambiguous: false };
        let fence = row.opt("shard")?.zip(row.opt("fence")?).map(|(shard, token)| Fence { shard, token });
        let (id, pnl_points, decided_at_ms) = (asked.position_id, pnl_points.clone(), row.int("decided_at_ms")?);
        write_entry!(self, tx, Entry { id, fill: &fill, quote, pnl_points, actor, fence, decided_at_ms })
    }

    /// Writes down that a closing was not carried out, whatever was tried: its position stays closing.
    /// False when that is known already.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn ask_failed(&self, asked: &Asked, error: &str) -> Result<bool> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(false) };
        let run = async {
            let mut tx = pool.begin().await?;
            let sql = "UPDATE callbacks SET state = 'failed', answer = $3 WHERE position_id = $1 AND leg = $2 AND state = 'asked'";
            let done = sqlx::query(sql)
                .bind(asked.position_id)
                .bind(i64::from(asked.leg))
                .bind(error.to_owned())
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            let detail = json!({ "key": asked.key(), "error": error }).to_string();
            sqlx::query(self.typed(ADD))
                .bind(asked.position_id)
                .bind("callback_failed")
                .bind("callback")
                .bind(detail)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(true)
        };
        run.await.map_err(Error::sql("ask failed"))
    }
}

fn wanted(close: &Close) -> Option<Value> {
    let ([fill], [pnl]) = (close.fills.as_slice(), close.pnl_points.as_slice()) else { return None };
    let wanted = Wanted {
        leg: fill.leg,
        qty: fill.qty,
        reason: fill.reason,
        level: fill.level,
        fill: fill.price,
        quote: close.quote,
        pnl_points: pnl.to_string(),
    };
    let text = json!(wanted).to_string();
    Some(json!({ "id": close.id, "leg": fill.leg, "reason": fill.reason.as_str(), "fill": text }))
}

/// Position and leg of a key.
fn parse_key(key: &str) -> Option<(i64, u8)> {
    let (position, leg) = key.strip_prefix("close:")?.split_once(':')?;
    Some((position.parse().ok()?, leg.parse().ok()?))
}

fn asked(row: &impl Cells) -> sqlx::Result<Asked> {
    let wanted = serde_json::from_str(&row.text("fill")?).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    let state = AskState::parse(&row.text("state")?);
    Ok(Asked {
        position_id: row.int("position_id")?,
        leg: u8::try_from(row.int("leg")?).unwrap_or(0),
        state,
        asked_at_ms: row.int("asked_at_ms")?,
        error: row.opt_text("answer")?.filter(|_| state == AskState::Failed),
        wanted,
        account_id: row.int("account_id")?,
        symbol: row.text("symbol")?,
        side: Side::of_sign(row.int("side")?).unwrap_or(Side::Long),
        version: row.opt_text("mapped_version")?,
        digits: u8::try_from(row.int("digits")?).unwrap_or(price::MAX_DIGITS),
        decided_at_ms: row.int("decided_at_ms")?,
    })
}
