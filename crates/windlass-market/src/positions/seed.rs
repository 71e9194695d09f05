//! Many positions at once, for benches: without history and without events.

use serde_json::json;

use super::{Error, Positions, Result, on};
use crate::rules::Rules;

/// A position of a bench.
#[derive(Debug, Clone)]
pub struct Seed<'a> {
    /// Its number.
    pub id: i64,
    /// What is traded.
    pub symbol: &'a str,
    /// Side, units, entry, stop and target; the rest is left out.
    pub rules: Rules,
}

impl Positions {
    /// Puts positions of account 1 there, as if opened a minute ago.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn seed(&self, seeds: &[Seed<'_>]) -> Result<()> {
        let columns = [
            ("id", "bigint"),
            ("symbol", "text"),
            ("side", "bigint"),
            ("qty", "bigint"),
            ("entry", "bigint"),
            ("sl", "bigint"),
            ("tp", "bigint"),
        ];
        let from = self.records("$1", &columns);
        let sql = format!(
            "INSERT INTO positions(id, account_id, symbol, side, qty, open_qty, entry, first_sl, sl, tp, armed_at_ms,
               opened_at_ms, updated_at_ms)
             SELECT d.id, 1, d.symbol, d.side, d.qty, d.qty, d.entry, d.sl, d.sl, d.tp, {{now}} - 60000, {{now}} - 60000,
               {{now}} - 60000 FROM {from} AS d"
        );
        for batch in seeds.chunks(20_000) {
            let rows: Vec<_> = batch
                .iter()
                .map(|Seed { id, symbol, rules }| {
                    json!({ "id": id, "symbol": symbol, "side": rules.side.sign(), "qty": rules.qty, "entry": rules.entry,
                            "sl": rules.sl, "tp": rules.tp })
                })
                .collect();
            let (sql, rows) = (self.sql(&sql), json!(rows).to_string());
            let done = on!(self, pool => sqlx::query(sql).bind(rows).execute(pool).await.map(|_| ()));
            done.map_err(Error::sql("seed"))?;
        }
        // Plans are made of what is known of the table.
        let done = on!(self, pool => sqlx::query("ANALYZE positions").execute(pool).await.map(|_| ()));
        done.map_err(Error::sql("seed"))
    }
}
