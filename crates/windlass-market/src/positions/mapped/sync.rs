//! Copying what another application says is open.

use std::collections::{HashMap, HashSet};

use futures_util::TryStreamExt as _;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};

use super::super::cells::Cells as _;
use super::super::change::trail_columns;
use super::super::{Error, PG_NOW, Pool, Positions, Result};
use super::read::{Row, Unfit, row};
use super::{Mapped, our_path, their_path};

/// What is read anew.
#[derive(Debug, Clone, Copy)]
pub enum Reach<'a> {
    /// All that is open; what is no longer counts as closed elsewhere.
    Whole,
    /// What changed at or after this moment, in ms.
    Since(i64),
    /// These; those that are not open count as closed elsewhere.
    These(&'a [i64]),
}

/// Rows written by one statement.
const BATCH: usize = 5_000;
/// Positions named by one warning.
const NAMED: usize = 20;
/// How long a position stays named that could not be closed, in ms: longer than the pause between two tries.
const FAILED_MS: i64 = 120_000;
/// One at a time reads and writes, so that what was read later is written later.
const LOCK: &str =
    "SELECT pg_advisory_xact_lock(7310036), set_config('idle_in_transaction_session_timeout', '5000', true)";
/// As long as it takes: a million rows on a busy machine.
const LONGER: &str = "SELECT set_config('statement_timeout', '600000', true)";

/// What is known of their rows before reading: version by number.
type Known = HashMap<i64, Option<String>>;

impl Positions {
    /// Copies what the other application says is open; does nothing where there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn sync(&self, reach: Reach<'_>) -> Result<()> {
        let (Some(mapped), Pool::Postgres(pool)) = (&self.mapped, &self.pool) else { return Ok(()) };
        let digits = self.digits().await?;
        let run = async {
            let mut tx = pool.begin().await?;
            sqlx::query(LOCK).execute(&mut *tx).await?;
            let mut known = self.known(&mut tx, reach).await?;
            their_path(&mut tx).await?;
            let mut read = read(mapped, &mut tx, reach, &digits, &mut known).await?;
            our_path(&mut tx, &mapped.mapping.schema).await?;
            if let Reach::Since(_) = reach {
                // Most of an overlap was copied the last time.
                let known = self.known(&mut tx, Reach::These(&read.fit)).await?;
                read.changed.retain(|row| known.get(&row.id).and_then(Option::as_ref) != Some(&row.version));
            }
            for batch in read.changed.chunks(BATCH) {
                self.copy(&mut tx, batch).await?;
            }
            if !matches!(reach, Reach::Since(_)) {
                let gone: Vec<i64> = known.into_keys().collect();
                self.let_go(&mut tx, &gone, "closed_elsewhere").await?;
            }
            let unfit: Vec<i64> = read.unfit.iter().filter_map(|unfit| unfit.id.parse().ok()).collect();
            let unfit = self.not_asked(&mut tx, unfit).await?;
            self.let_go(&mut tx, &unfit, "not_watchable").await?;
            let whole = matches!(reach, Reach::Whole);
            self.tell_unfit(&mut tx, read, whole).await?;
            tx.commit().await
        };
        run.await.map_err(Error::sql("sync"))
    }

    /// Positions that cannot be watched: number, and why. Counted in full, named up to `limit`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn unmapped(&self, limit: i64) -> Result<(i64, Vec<(String, String)>)> {
        if !self.is_mapped() {
            return Ok((0, Vec::new()));
        }
        let Pool::Postgres(pool) = &self.pool else { return Ok((0, Vec::new())) };
        let run = async {
            let count = sqlx::query_scalar("SELECT count(*) FROM unmapped").fetch_one(pool).await?;
            let sql = "SELECT id, why FROM unmapped ORDER BY since_ms, id LIMIT $1";
            let rows = sqlx::query(sql).bind(limit).fetch_all(pool).await?;
            let named = rows.iter().map(|row| Ok((row.text("id")?, row.text("why")?)));
            Ok((count, named.collect::<sqlx::Result<_>>()?))
        };
        run.await.map_err(Error::sql("unmapped"))
    }

    /// The digits of every instrument's prices.
    pub(super) async fn digits(&self) -> Result<HashMap<String, u8>> {
        Ok(self.instruments().await?.into_iter().map(|instrument| (instrument.symbol, instrument.digits)).collect())
    }

    async fn known(&self, tx: &mut PgConnection, reach: Reach<'_>) -> sqlx::Result<Known> {
        // What its application was asked to close ends with its answer; or, when it failed, when it is gone.
        let sql = "SELECT id, mapped_version FROM positions WHERE status < 2 AND (asked_at_ms IS NULL
                   OR EXISTS (SELECT 1 FROM callbacks c WHERE c.position_id = positions.id AND c.state = 'failed'))";
        let rows = match reach {
            Reach::Since(_) => return Ok(Known::new()),
            Reach::Whole => {
                sqlx::query(LONGER).execute(&mut *tx).await?;
                sqlx::query(sql).fetch_all(tx).await?
            }
            Reach::These(ids) => {
                let sql = self.sql(&format!("{sql} AND id IN (SELECT {})", self.each_int("$1")));
                sqlx::query(sql).bind(json!(ids).to_string()).fetch_all(tx).await?
            }
        };
        rows.iter().map(|row| Ok((row.int("id")?, row.opt_text("mapped_version")?))).collect()
    }

    /// Writes rows: those whose version alone differs keep their place in everything; those whose rules
    /// differ are armed anew.
    async fn copy(&self, tx: &mut PgConnection, rows: &[Row]) -> sqlx::Result<()> {
        let rows: Vec<_> = rows.iter().map(record).collect();
        let rows = json!(rows).to_string();
        for sql in [TOUCHED, COPIED] {
            let sql =
                sql.replace("{rows}", ROWS).replace("{same}", SAME).replace("{waits}", WAITS).replace("{now}", PG_NOW);
            sqlx::query(AssertSqlSafe(sql)).bind(rows.clone()).execute(&mut *tx).await?;
        }
        Ok(())
    }

    /// Those that their application was not asked to close.
    async fn not_asked(&self, tx: &mut PgConnection, ids: Vec<i64>) -> sqlx::Result<Vec<i64>> {
        if ids.is_empty() {
            return Ok(ids);
        }
        let sql = self.sql(&format!(
            "SELECT id FROM positions WHERE asked_at_ms IS NULL AND id IN (SELECT {})",
            self.each_int("$1")
        ));
        sqlx::query_scalar(sql).bind(json!(ids).to_string()).fetch_all(tx).await
    }

    /// Watches positions no more, as if they had never been: they may come again.
    async fn let_go(&self, tx: &mut PgConnection, gone: &[i64], why: &str) -> sqlx::Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        let sql = self.sql(&format!(
            "WITH g AS (UPDATE positions SET status = 2, open_qty = 0, closed_at_ms = {{now}}, updated_at_ms = {{now}},
               version = version + 1, mapped_version = NULL WHERE status < 2 AND id IN (SELECT {}) RETURNING id)
             INSERT INTO audit(at_ms, position_id, kind, actor, detail)
             SELECT {{now}}, id, 'gone', 'mapped', $2::jsonb FROM g",
            self.each_int("$1")
        ));
        let detail = json!({ "why": why }).to_string();
        sqlx::query(sql).bind(json!(gone).to_string()).bind(detail).execute(&mut *tx).await?;
        let sql = self.sql(&format!(
            "UPDATE callbacks SET state = 'gone', ended_at_ms = {{now}} WHERE state = 'failed' AND position_id IN (SELECT {})",
            self.each_int("$1")
        ));
        sqlx::query(sql).bind(json!(gone).to_string()).execute(tx).await.map(|_| ())
    }

    /// Notes what cannot be watched, and says what is new among it.
    async fn tell_unfit(&self, tx: &mut PgConnection, read: Read, whole: bool) -> sqlx::Result<()> {
        let Read { changed, fit, mut unfit } = read;
        if !whole && changed.is_empty() && fit.is_empty() && unfit.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = changed.iter().map(|row| row.id).collect();
        // Closed here a while ago, and open there: nobody watches it.
        let sql = self.sql(&format!(
            "SELECT id FROM positions WHERE status = 2 AND closed_at_ms < {{now}} - 15000 AND id IN (SELECT {})",
            self.each_int("$1")
        ));
        let closed: Vec<i64> = sqlx::query_scalar(sql).bind(json!(ids).to_string()).fetch_all(&mut *tx).await?;
        let closed: HashSet<i64> = closed.into_iter().collect();
        unfit.extend(closed.iter().map(|id| Unfit { id: id.to_string(), why: "it was closed here before".to_owned() }));
        let named: Vec<&str> = unfit.iter().map(|unfit| unfit.id.as_str()).collect();
        let gone: Vec<String> = fit.iter().filter(|id| !closed.contains(id)).map(i64::to_string).collect();
        // What could not be closed stays named until it was not tried for a while.
        let forget = self.sql(&format!(
            "DELETE FROM unmapped WHERE id {} (SELECT value FROM json_array_elements_text($1::json))
             AND (failed_at_ms IS NULL OR failed_at_ms < {{now}} - {FAILED_MS})",
            if whole { "NOT IN" } else { "IN" }
        ));
        let of = if whole { json!(named) } else { json!(gone) };
        sqlx::query(forget).bind(of.to_string()).execute(&mut *tx).await?;
        if unfit.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = unfit.iter().map(|unfit| json!({ "id": unfit.id, "why": unfit.why })).collect();
        let sql = self.sql(
            "INSERT INTO unmapped(id, why, since_ms)
             SELECT DISTINCT ON (d.id) d.id, d.why, {now} FROM json_to_recordset($1::json) AS d(id text, why text)
             ON CONFLICT(id) DO UPDATE SET why = excluded.why, since_ms = excluded.since_ms
             WHERE unmapped.why <> excluded.why RETURNING id, why",
        );
        let fresh = sqlx::query(sql).bind(json!(rows).to_string()).fetch_all(tx).await?;
        for row in fresh.iter().take(NAMED) {
            let (id, why) = (row.text("id")?, row.text("why")?);
            tracing::warn!(id, why, "a position of the mapped tables is not watched");
        }
        if fresh.len() > NAMED {
            tracing::warn!(more = fresh.len() - NAMED, "positions of the mapped tables are not watched");
        }
        Ok(())
    }
}

/// What was read.
#[derive(Default)]
struct Read {
    /// Rows that the copy does not have in this version.
    changed: Vec<Row>,
    /// Numbers of the rows that can be watched, where not all were asked for.
    fit: Vec<i64>,
    /// The others.
    unfit: Vec<Unfit>,
}

/// Reads their rows; takes what is there from `known`.
async fn read(
    mapped: &Mapped,
    tx: &mut PgConnection,
    reach: Reach<'_>,
    digits: &HashMap<String, u8>,
    known: &mut Known,
) -> sqlx::Result<Read> {
    let (sql, place) = match reach {
        Reach::Whole => (&mapped.statements.open, None),
        Reach::Since(ms) => {
            let at = jiff::Timestamp::from_millisecond(ms.max(0)).unwrap_or_default();
            (&mapped.statements.changed, Some(at.to_string()))
        }
        Reach::These(ids) => (&mapped.statements.these, Some(json!(ids).to_string())),
    };
    let mut query = sqlx::query_scalar(AssertSqlSafe(sql.clone()));
    if let Some(place) = place {
        query = query.bind(place);
    }
    let mut rows = query.fetch(tx);
    let mut read = Read::default();
    while let Some(json) = rows.try_next().await? {
        let json: String = json;
        match row(&json, &mapped.mapping.map, |symbol| digits.get(symbol).copied()) {
            Ok(row) => {
                if !matches!(reach, Reach::Whole) {
                    read.fit.push(row.id);
                }
                if known.remove(&row.id).flatten().as_ref() != Some(&row.version) {
                    read.changed.push(row);
                }
            }
            Err(unfit) => {
                // What was known of it last may no longer be so: it is not watched, and that is said.
                unfit.id.parse().ok().and_then(|id: i64| known.remove(&id));
                read.unfit.push(unfit);
            }
        }
    }
    Ok(read)
}

fn record(row: &Row) -> serde_json::Value {
    let Row { rules, .. } = row;
    let (points, bps, activation, step) = trail_columns(rules);
    let detail =
        json!({ "account_id": row.account_id, "symbol": row.symbol, "rules": rules, "mapped_version": row.version });
    json!({
        "id": row.id, "account_id": row.account_id, "symbol": row.symbol, "side": rules.side.sign(), "qty": rules.qty,
        "entry": rules.entry, "sl": rules.sl, "tp": rules.tp, "sl_guaranteed": i64::from(rules.guaranteed),
        "trail_points": points, "trail_bps": bps, "trail_activation": activation, "trail_step": step,
        "be_trigger": rules.break_even.map(|even| even.trigger), "be_offset": rules.break_even.map(|even| even.offset),
        "expires_at_ms": rules.expires_at, "armed": row.armed_at_ms, "opened": row.opened_at_ms, "version": row.version,
        "detail": detail.to_string(),
    })
}

const ROWS: &str = "json_to_recordset($1::json) AS d(id bigint, account_id bigint, symbol text, side bigint, qty bigint,
    entry bigint, sl bigint, tp bigint, sl_guaranteed bigint, trail_points bigint, trail_bps bigint, trail_activation bigint,
    trail_step bigint, be_trigger bigint, be_offset bigint, expires_at_ms bigint, armed bigint, opened bigint, version text,
    detail text)";
const SAME: &str =
    "(p.account_id, p.symbol, p.side, p.qty, p.entry, p.sl, p.tp, p.sl_guaranteed, p.trail_points, p.trail_bps,
    p.trail_activation, p.trail_step, p.be_trigger, p.be_offset, p.expires_at_ms) IS NOT DISTINCT FROM
    (d.account_id, d.symbol, d.side, d.qty, d.entry, d.sl, d.tp, d.sl_guaranteed, d.trail_points, d.trail_bps,
    d.trail_activation, d.trail_step, d.be_trigger, d.be_offset, d.expires_at_ms)";
/// The version is another one and nothing else that matters: what was decided on still stands.
const TOUCHED: &str = "UPDATE positions p SET mapped_version = d.version FROM {rows}
    WHERE p.id = d.id AND p.status < 2 AND p.asked_at_ms IS NULL AND p.mapped_version IS DISTINCT FROM d.version AND {same}";
/// A position that triggered, and is not closed yet, goes on closing: nothing that triggers was changed.
const WAITS: &str =
    "p.status = 1 AND (p.side, p.sl, p.tp, p.trail_points, p.trail_bps, p.trail_activation, p.trail_step,
      p.be_trigger, p.be_offset, p.expires_at_ms) IS NOT DISTINCT FROM (excluded.side, excluded.sl, excluded.tp,
      excluded.trail_points, excluded.trail_bps, excluded.trail_activation, excluded.trail_step, excluded.be_trigger,
      excluded.be_offset, excluded.expires_at_ms)";
/// New rows, those whose rules are other ones, and those that come again: armed after the millisecond
/// that they name, else from now.
const COPIED: &str = "WITH u AS (
    INSERT INTO positions AS p(id, account_id, symbol, side, qty, open_qty, entry, first_sl, sl, tp, sl_guaranteed,
      trail_points, trail_bps, trail_activation, trail_step, be_trigger, be_offset, expires_at_ms, armed_at_ms, armed_seq,
      opened_at_ms, updated_at_ms, mapped_version)
    SELECT d.id, d.account_id, d.symbol, d.side, d.qty, d.qty, d.entry, d.sl, d.sl, d.tp, d.sl_guaranteed,
      d.trail_points, d.trail_bps, d.trail_activation, d.trail_step, d.be_trigger, d.be_offset, d.expires_at_ms,
      COALESCE(d.armed, {now}), 9223372036854775807, COALESCE(d.opened, d.armed, {now}), {now}, d.version FROM {rows}
    ON CONFLICT(id) DO UPDATE SET account_id = excluded.account_id, symbol = excluded.symbol, side = excluded.side,
      qty = excluded.qty, open_qty = excluded.open_qty, entry = excluded.entry,
      first_sl = COALESCE(p.first_sl, excluded.first_sl), sl = excluded.sl, tp = excluded.tp,
      sl_guaranteed = excluded.sl_guaranteed, trail_points = excluded.trail_points, trail_bps = excluded.trail_bps,
      trail_activation = excluded.trail_activation, trail_step = excluded.trail_step, be_trigger = excluded.be_trigger,
      be_offset = excluded.be_offset, expires_at_ms = excluded.expires_at_ms, stop_eff = NULL, stop_src = NULL,
      armed_at_ms = GREATEST(p.armed_at_ms, excluded.armed_at_ms), updated_at_ms = excluded.updated_at_ms,
      mapped_version = excluded.mapped_version, version = p.version + 1,
      extreme = CASE WHEN p.status < 2 THEN p.extreme END, closed_at_ms = NULL,
      status = CASE WHEN {waits} THEN 1 ELSE 0 END, closing_reason = CASE WHEN {waits} THEN p.closing_reason END
    WHERE (p.status < 2 OR NOT EXISTS (SELECT FROM closings c WHERE c.position_id = p.id)) AND p.asked_at_ms IS NULL AND p.mapped_version IS DISTINCT FROM excluded.mapped_version
    RETURNING p.id, p.version)
  INSERT INTO audit(at_ms, position_id, kind, actor, detail)
  SELECT {now}, u.id, CASE WHEN u.version = 1 THEN 'open' ELSE 'modify' END, 'mapped', d.detail::jsonb
  FROM u JOIN {rows} ON d.id = u.id";
