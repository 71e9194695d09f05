//! Opening positions and moving what may end them.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::audit::{ADD, TELL};
use super::{Account, Error, Instrument, Position, Positions, Result, Status, on};
use crate::index::Decision;
use crate::rules::{Quote, Reason, Rules};

/// A position that is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPosition {
    /// Its number; one is made for none.
    pub id: Option<i64>,
    /// Whose it is.
    pub account_id: i64,
    /// What is traded.
    pub symbol: String,
    /// What may end it; `expires_at` in ms since 1970 UTC.
    pub rules: Rules,
    /// The quote it opens on, which triggers nothing; its closing price is the first extreme.
    pub on: Option<Quote>,
}

/// What becomes of a rule: kept as it is, or set, to none where that is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Set with its value, taken away with null.
    #[serde(default, with = "kept", skip_serializing_if = "Option::is_none")]
    pub sl: Option<Option<i64>>,
    /// Set with its value, taken away with null.
    #[serde(default, with = "kept", skip_serializing_if = "Option::is_none")]
    pub tp: Option<Option<i64>>,
    /// In ms since 1970 UTC; taken away with null.
    #[serde(default, with = "kept", skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<Option<i64>>,
    /// Only a position of this version is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
}

/// Absent is kept, null is none.
mod kept {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<i64>>, D::Error> {
        Option::deserialize(from).map(Some)
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<Option<i64>>, to: S) -> Result<S::Ok, S::Error> {
        value.flatten().serialize(to)
    }
}

/// What trailing and break-even have made of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The position.
    pub id: i64,
    /// The version of its row; another one is left as it is.
    pub version: i64,
    /// The most favourable price.
    pub extreme: Option<i64>,
    /// The effective stop and what moved it.
    pub stop: (i64, Reason),
    /// The number of the quote that did it.
    pub seq: i64,
}

const INSERT: &str =
    "INSERT INTO positions({id_column} account_id, symbol, side, qty, open_qty, entry, first_sl, sl, tp,
    sl_guaranteed, trail_points, trail_bps, trail_activation, trail_step, be_trigger, be_offset, expires_at_ms, extreme,
    armed_at_ms, armed_seq, opened_at_ms, updated_at_ms)
  VALUES ({id_place} $1, $2, $3, $4, $4, $5, $6, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
    COALESCE($17, {now}), $18, {now}, {now}) RETURNING id";

impl Positions {
    /// Adds an instrument, or changes one.
    ///
    /// # Errors
    /// [`Error`]; refused when something is out of range.
    pub async fn put_instrument(&self, instrument: &Instrument) -> Result<()> {
        instrument.check()?;
        let sql = "INSERT INTO instruments(symbol, digits, min_stop_points, max_spread_points, max_jump_points,
                     max_quote_age_ms, spread_grace_ms, confirm_ticks, fill_policy, calendar, sources, hold_down_ms)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
                   ON CONFLICT(symbol) DO UPDATE SET digits = $2, min_stop_points = $3, max_spread_points = $4,
                     max_jump_points = $5, max_quote_age_ms = $6, spread_grace_ms = $7, confirm_ticks = $8,
                     fill_policy = $9, calendar = $10, sources = $11, hold_down_ms = $12, enabled = 1";
        let i = instrument.clone();
        let sources = (!i.sources.is_empty()).then(|| i.sources.join(","));
        let policy = if i.target_at_level { "level" } else { "trigger_quote" };
        let done = on!(self, pool => {
            sqlx::query(sql)
                .bind(i.symbol).bind(i64::from(i.digits)).bind(i.min_stop_points).bind(i.max_spread_points)
                .bind(i.max_jump_points).bind(i.max_quote_age_ms).bind(i.spread_grace_ms)
                .bind(i64::from(i.confirm_ticks)).bind(policy).bind(i.calendar).bind(sources).bind(i.hold_down_ms)
                .execute(pool).await.map(|_| ())
        });
        done.map_err(Error::sql("instrument"))
    }

    /// Adds an account, or changes one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put_account(&self, account: &Account) -> Result<()> {
        let sql = "INSERT INTO accounts(id, currency, balance, calm) VALUES ($1, $2, $3, $4)
                   ON CONFLICT(id) DO UPDATE SET currency = $2, balance = $3, calm = $4";
        let done = on!(self, pool => {
            sqlx::query(sql)
                .bind(account.id).bind(account.currency.clone()).bind(account.balance).bind(i64::from(account.calm))
                .execute(pool).await.map(|_| ())
        });
        done.map_err(Error::sql("account"))
    }

    /// Opens a position, with its audit and outbox rows; answers its number. `actor` is who asks.
    ///
    /// # Errors
    /// [`Error`]; refused when the rules cannot be, or the number is taken.
    pub async fn open(&self, new: &NewPosition, actor: &str) -> Result<i64> {
        self.check_own()?;
        new.rules.check().map_err(|bad| Error::refused(bad.field, bad.code, bad.why))?;
        match self.insert(new, actor).await {
            Err(error) if error.is_duplicate() => Err(Error::refused("id", "exists", "a position has this number")),
            other => other,
        }
    }

    async fn insert(&self, new: &NewPosition, actor: &str) -> Result<i64> {
        let rules = &new.rules;
        let (points, bps, activation, step) = trail_columns(rules);
        let insert = match new.id {
            Some(id) => INSERT.replace("{id_column}", "id,").replace("{id_place}", &format!("{id},")),
            None => INSERT.replace("{id_column}", "").replace("{id_place}", ""),
        };
        let insert = self.sql(&insert);
        let extreme = new.on.map(|quote| quote.closing_price(rules.side));
        let detail = json!({ "account_id": new.account_id, "symbol": new.symbol, "rules": rules, "quote": new.on });
        on!(self, pool => {
            let mut tx = pool.begin_with(self.begin()).await.map_err(Error::sql("open"))?;
            let id: i64 = sqlx::query_scalar(insert)
                .bind(new.account_id).bind(new.symbol.clone()).bind(rules.side.sign()).bind(rules.qty)
                .bind(rules.entry).bind(rules.sl).bind(rules.tp).bind(i64::from(rules.guaranteed))
                .bind(points).bind(bps).bind(activation).bind(step)
                .bind(rules.break_even.map(|even| even.trigger)).bind(rules.break_even.map(|even| even.offset))
                .bind(rules.expires_at).bind(extreme)
                .bind(new.on.map(|quote| quote.ts_ms)).bind(new.on.map_or(0, |quote| quote.seq))
                .fetch_one(&mut *tx).await.map_err(Error::sql("open"))?;
            for leg in &rules.legs {
                let sql = "INSERT INTO tp_legs(position_id, leg, price, qty) VALUES ($1, $2, $3, $4)";
                sqlx::query(sql)
                    .bind(id).bind(i64::from(leg.leg)).bind(leg.price).bind(leg.qty)
                    .execute(&mut *tx).await.map_err(Error::sql("open"))?;
            }
            sqlx::query(self.typed(ADD)).bind(id).bind("open").bind(actor.to_owned()).bind(detail.to_string())
                .execute(&mut *tx).await.map_err(Error::sql("open"))?;
            sqlx::query(self.typed(TELL)).bind("position.opened").bind(format!("open:{id}")).bind(json!({ "position_id": id }).to_string())
                .execute(&mut *tx).await.map_err(Error::sql("open"))?;
            tx.commit().await.map_err(Error::sql("open"))?;
            Ok(id)
        })
    }

    /// Moves what may end a position, and arms it anew: quotes up to now trigger nothing (R2).
    /// The trailing stop is worked out anew from the extreme. `on` is the last quote known.
    /// Answers the position as it is then, `None` when there is none of this number.
    ///
    /// # Errors
    /// [`Error`]; refused when it is closed, of another version, or the rules could not be.
    pub async fn change(&self, id: i64, change: &Change, on: Option<Quote>, actor: &str) -> Result<Option<Position>> {
        self.check_own()?;
        // Another change in between is met by the version, and this one is tried again.
        for _ in 0..CHANGE_TRIES {
            let Some(before) = self.get(id).await? else { return Ok(None) };
            let after = changed(&before, change)?;
            if self.write_change(&before, &after, on, actor).await? {
                return self.get(id).await;
            }
        }
        Err(Error::refused("version", "version_changed", "the position changed meanwhile; read it again"))
    }

    async fn write_change(&self, before: &Position, after: &Rules, on: Option<Quote>, actor: &str) -> Result<bool> {
        let sql = self.sql(
            "UPDATE positions SET sl = $3, tp = $4, expires_at_ms = $5, first_sl = COALESCE(first_sl, $3),
               stop_eff = NULL, stop_src = NULL, version = version + 1, updated_at_ms = {now},
               armed_at_ms = CASE WHEN COALESCE($6, {now}) > armed_at_ms THEN COALESCE($6, {now}) ELSE armed_at_ms END,
               armed_seq = CASE WHEN COALESCE($6, {now}) > armed_at_ms
                                  OR (COALESCE($6, {now}) = armed_at_ms AND COALESCE($7, 0) > armed_seq)
                                THEN COALESCE($7, 0) ELSE armed_seq END
             WHERE id = $1 AND version = $2 AND status = 0",
        );
        let detail = json!({ "before": before.rules, "after": after, "version": before.version, "quote": on });
        on!(self, pool => {
            let mut tx = pool.begin_with(self.begin()).await.map_err(Error::sql("change"))?;
            let done = sqlx::query(sql)
                .bind(before.id).bind(before.version).bind(after.sl).bind(after.tp).bind(after.expires_at)
                .bind(on.map(|quote| quote.ts_ms)).bind(on.map(|quote| quote.seq))
                .execute(&mut *tx).await.map_err(Error::sql("change"))?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            sqlx::query(self.typed(ADD)).bind(before.id).bind("modify").bind(actor.to_owned()).bind(detail.to_string())
                .execute(&mut *tx).await.map_err(Error::sql("change"))?;
            let key = format!("change:{}:{}", before.id, before.version + 1);
            let payload = json!({ "position_id": before.id, "version": before.version + 1 });
            sqlx::query(self.typed(TELL)).bind("position.changed").bind(key).bind(payload.to_string())
                .execute(&mut *tx).await.map_err(Error::sql("change"))?;
            tx.commit().await.map_err(Error::sql("change"))?;
            Ok(true)
        })
    }

    /// Writes down what trailing and break-even have made of positions. Never raises a version.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn checkpoint(&self, moved: &[Moved]) -> Result<()> {
        if moved.is_empty() {
            return Ok(());
        }
        let from = self.records(
            "$1",
            &[
                ("id", "bigint"),
                ("version", "bigint"),
                ("extreme", "bigint"),
                ("stop", "bigint"),
                ("source", "text"),
                ("seq", "bigint"),
            ],
        );
        // In the order of the numbers, as closings lock them: two of these never wait for each other.
        let lock = if self.is_embedded() { "" } else { "ORDER BY id FOR UPDATE SKIP LOCKED" };
        let sql = self.sql(&format!(
            "UPDATE positions SET extreme = d.extreme, stop_eff = d.stop, stop_src = d.source, mark_seq = d.seq
             FROM {from} AS d
             WHERE positions.id = d.id AND positions.version = d.version AND positions.mark_seq <= d.seq AND positions.status = 0
               AND positions.id IN (SELECT id FROM positions WHERE id IN (SELECT r.id FROM {from} AS r) {lock})"
        ));
        let records: Vec<_> = moved
            .iter()
            .map(|m| {
                json!({ "id": m.id, "version": m.version, "extreme": m.extreme, "stop": m.stop.0,
                        "source": m.stop.1.as_str(), "seq": m.seq })
            })
            .collect();
        let records = serde_json::to_string(&records).unwrap_or_default();
        let done = on!(self, pool => sqlx::query(sql).bind(records).execute(pool).await.map(|_| ()));
        done.map_err(Error::sql("checkpoint"))
    }

    /// The objects of a JSON array that is bound as text, as a table with these columns.
    pub(super) fn records(&self, place: &str, columns: &[(&str, &str)]) -> String {
        let listed: Vec<String> = columns
            .iter()
            .map(
                |(name, kind)| {
                    if self.is_embedded() { format!("value->>'{name}' AS {name}") } else { format!("{name} {kind}") }
                },
            )
            .collect();
        let listed = listed.join(", ");
        if self.is_embedded() {
            format!("(SELECT {listed} FROM json_each({place}))")
        } else {
            format!("(SELECT * FROM json_to_recordset({place}::json) AS t({listed}))")
        }
    }

    /// As [`Positions::sql`], for statements that write JSON or wide numbers.
    pub(super) fn typed(&self, text: &str) -> sqlx::AssertSqlSafe<String> {
        let (json, wide) = if self.is_embedded() { ("text", "text") } else { ("jsonb", "numeric") };
        self.sql(&text.replace("{json}", json).replace("{wide}", wide))
    }

    /// Marks a position that triggered while its market was closed: it closes on the first quote of
    /// the session. False when it was not open in this version any more.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn wait_for_session(&self, decision: &Decision, actor: &str) -> Result<bool> {
        let sql = self.sql(
            "UPDATE positions SET status = 1, closing_reason = $3, version = version + 1, updated_at_ms = {now}
             WHERE id = $1 AND version = $2 AND status = 0",
        );
        let reason = decision.fill.reason.as_str();
        let detail =
            json!({ "reason": reason, "level": decision.fill.level, "quote": decision.quote, "why": "market_closed" });
        on!(self, pool => {
            let mut tx = pool.begin_with(self.begin()).await.map_err(Error::sql("trigger"))?;
            let done = sqlx::query(sql).bind(decision.id).bind(decision.version).bind(reason)
                .execute(&mut *tx).await.map_err(Error::sql("trigger"))?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            sqlx::query(self.typed(ADD)).bind(decision.id).bind("trigger").bind(actor.to_owned()).bind(detail.to_string())
                .execute(&mut *tx).await.map_err(Error::sql("trigger"))?;
            tx.commit().await.map_err(Error::sql("trigger"))?;
            Ok(true)
        })
    }
}

/// How often a change is tried when others change the same position.
const CHANGE_TRIES: u32 = 5;

/// The rules as the change leaves them.
fn changed(before: &Position, change: &Change) -> Result<Rules> {
    if before.status != Status::Open {
        return Err(Error::refused("id", "already_closed", "the position is closed, or closes with the next session"));
    }
    if change.version.is_some_and(|version| version != before.version) {
        let why = format!("the position has version {}", before.version);
        return Err(Error::refused("version", "version_changed", why));
    }
    let mut rules = before.rules.clone();
    if let Some(sl) = change.sl {
        let y = |sl: i64| rules.side.y(sl);
        if rules.guaranteed && before.rules.sl.is_some_and(|old| sl.is_none_or(|new| y(new) < y(old))) {
            return Err(Error::refused(
                "sl",
                "guaranteed_stop_loosened",
                "a guaranteed stop is only moved towards profit",
            ));
        }
        rules.sl = sl;
    }
    if let Some(tp) = change.tp {
        rules.tp = tp;
    }
    if let Some(expires_at) = change.expires_at_ms {
        rules.expires_at = expires_at;
    }
    rules.check().map_err(|bad| Error::refused(bad.field, bad.code, bad.why))?;
    Ok(rules)
}

pub(super) fn trail_columns(rules: &Rules) -> (Option<i64>, Option<i64>, Option<i64>, Option<i64>) {
    use crate::rules::Distance;
    let Some(trail) = rules.trail else { return (None, None, None, None) };
    let (points, bps) = match trail.distance {
        Distance::Points(points) => (Some(points), None),
        Distance::Bps(bps) => (None, Some(bps)),
    };
    (points, bps, trail.activation, Some(trail.step))
}
