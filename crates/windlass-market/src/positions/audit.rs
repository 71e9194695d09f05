//! What happened, for ever; and what others are yet to be told.

use serde::Serialize;

use super::cells::Cells;
use super::{Error, Positions, Result, on};

/// One line of a position's history. It can be added, never changed or taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditRow {
    /// Rises.
    pub id: i64,
    /// When, by the clock of the database.
    pub at_ms: i64,
    /// The position; none for what concerns a symbol.
    pub position_id: Option<i64>,
    /// open, modify, trigger, close, lost_race, gap, source (another one is believed), or gone: another
    /// application's position that is no longer watched.
    pub kind: String,
    /// Who.
    pub actor: String,
    /// What, as JSON.
    pub detail: String,
}

/// Something that others are to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    /// Its number.
    pub id: i64,
    /// Such as `position.closed`.
    pub topic: String,
    /// The same for the same event: whoever gets it twice drops one.
    pub key: String,
    /// What, as JSON.
    pub payload: String,
}

/// Adds an audit row; `$1` position, `$2` kind, `$3` actor, `$4` detail.
pub(super) const ADD: &str =
    "INSERT INTO audit(at_ms, position_id, kind, actor, detail) VALUES ({now}, $1, $2, $3, CAST($4 AS {json}))";
/// Adds an outbox row; `$1` topic, `$2` key, `$3` payload. One that is there stands.
pub(super) const TELL: &str = "INSERT INTO outbox(topic, key, payload, created_at_ms) VALUES ($1, $2, CAST($3 AS {json}), {now}) ON CONFLICT(key) DO NOTHING";

impl Positions {
    /// Adds a line of history.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn note(&self, position: Option<i64>, kind: &str, actor: &str, detail: &str) -> Result<()> {
        let sql = self.typed(ADD);
        let done = on!(self, pool => {
            sqlx::query(sql).bind(position).bind(kind).bind(actor).bind(detail).execute(pool).await.map(|_| ())
        });
        done.map_err(Error::sql("note"))
    }

    /// A position's history, oldest first, after a line; at most `limit` lines.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn history(&self, position: i64, after: i64, limit: i64) -> Result<Vec<AuditRow>> {
        let sql = "SELECT id, at_ms, position_id, kind, actor, CAST(detail AS text) AS detail FROM audit
                   WHERE position_id = $1 AND id > $2 ORDER BY id LIMIT $3";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(position).bind(after).bind(limit).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(audit_row).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("history"))
    }

    /// The last times that quotes were lost before they were read, newest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn gaps(&self, limit: i64) -> Result<Vec<AuditRow>> {
        let sql = "SELECT id, at_ms, position_id, kind, actor, CAST(detail AS text) AS detail FROM audit
                   WHERE position_id IS NULL AND kind = 'gap' ORDER BY id DESC LIMIT $1";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(limit).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(audit_row).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("gaps"))
    }

    /// What is yet to be told, oldest first. Several relays may ask at once: a row may then be
    /// told twice, under the same key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn untold(&self, limit: i64) -> Result<Vec<Outbox>> {
        let sql = "SELECT id, topic, key, CAST(payload AS text) AS payload FROM outbox
                   WHERE sent_at_ms IS NULL ORDER BY id LIMIT $1";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(limit).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(outbox_row).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("untold"))
    }

    /// Marks rows as told.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn told(&self, ids: &[i64]) -> Result<()> {
        let sql = self.sql(&format!(
            "UPDATE outbox SET sent_at_ms = {{now}} WHERE sent_at_ms IS NULL AND id IN (SELECT {} )",
            self.each_int("$1")
        ));
        let ids = serde_json::to_string(ids).unwrap_or_default();
        let done = on!(self, pool => sqlx::query(sql).bind(ids).execute(pool).await.map(|_| ()));
        done.map_err(Error::sql("told"))
    }

    /// The integers of a JSON array that is bound as text, as the rest of a SELECT.
    pub(super) fn each_int(&self, place: &str) -> String {
        if self.is_embedded() {
            format!("value FROM json_each({place})")
        } else {
            format!("value::bigint FROM json_array_elements_text({place}::json)")
        }
    }
}

pub(super) fn audit_row(row: &impl Cells) -> sqlx::Result<AuditRow> {
    Ok(AuditRow {
        id: row.int("id")?,
        at_ms: row.int("at_ms")?,
        position_id: row.opt("position_id")?,
        kind: row.text("kind")?,
        actor: row.text("actor")?,
        detail: row.text("detail")?,
    })
}

fn outbox_row(row: &impl Cells) -> sqlx::Result<Outbox> {
    Ok(Outbox { id: row.int("id")?, topic: row.text("topic")?, key: row.text("key")?, payload: row.text("payload")? })
}
