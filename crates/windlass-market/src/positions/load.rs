//! Reading: instruments, accounts, positions, closings, cursors.

use std::collections::HashMap;

use super::cells::Cells;
use super::{Account, ClosingRow, Error, Instrument, Position, Positions, Result, on};
use crate::rules::{Leg, Quote};

/// All columns that [`Position::read`] reads.
pub(super) const POSITION: &str =
    "id, account_id, symbol, side, qty, open_qty, entry, first_sl, sl, tp, sl_guaranteed, trail_points,
  trail_bps, trail_activation, trail_step, be_trigger, be_offset, expires_at_ms, legs_done, extreme, stop_eff, stop_src,
  mark_seq, status, closing_reason, version, armed_at_ms, armed_seq, opened_at_ms, closed_at_ms, asked_at_ms";
/// All columns that [`ClosingRow::read`] reads.
pub(super) const CLOSING: &str = "position_id, leg, qty, reason, level, fill, bid, ask, quote_seq, quote_ts_ms,
  CAST(pnl_points AS text) AS pnl, rule_version, actor, fence, decided_at_ms, closed_at_ms";

/// Which positions are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Only of this symbol.
    pub symbol: Option<String>,
    /// Only of this account.
    pub account_id: Option<i64>,
    /// Closed ones too.
    pub with_closed: bool,
    /// Only above this number.
    pub after: i64,
    /// At most this many.
    pub limit: i64,
}

/// How far the quotes of a symbol have been decided on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The number of the last one.
    pub seq: i64,
    /// Its place in the stream.
    pub stream_id: Option<String>,
    /// True when quotes were lost between.
    pub gap: bool,
}

impl Positions {
    /// Every instrument that is traded, by symbol.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn instruments(&self) -> Result<Vec<Instrument>> {
        let sql = "SELECT * FROM instruments WHERE enabled = 1 ORDER BY symbol";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(Instrument::read).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("instruments"))
    }

    /// An instrument that is traded.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn instrument(&self, symbol: &str) -> Result<Option<Instrument>> {
        let sql = "SELECT * FROM instruments WHERE enabled = 1 AND symbol = $1";
        let row = on!(self, pool => {
            let row = sqlx::query(sql).bind(symbol.to_owned()).fetch_optional(pool).await;
            row.and_then(|row| row.map(|row| Instrument::read(&row)).transpose())
        });
        row.map_err(Error::sql("instrument"))
    }

    /// An account.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn account(&self, id: i64) -> Result<Option<Account>> {
        let sql = "SELECT id, currency, balance, calm FROM accounts WHERE id = $1";
        let row = on!(self, pool => {
            let row = sqlx::query(sql).bind(id).fetch_optional(pool).await;
            row.and_then(|row| row.map(|row| account(&row)).transpose())
        });
        row.map_err(Error::sql("account"))
    }

    /// A position with its legs.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get(&self, id: i64) -> Result<Option<Position>> {
        Ok(self.get_many(&[id]).await?.pop())
    }

    /// Positions with their legs, by number; those that are not there are left out.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_many(&self, ids: &[i64]) -> Result<Vec<Position>> {
        let wanted = serde_json::to_string(ids).unwrap_or_default();
        let sql = format!("SELECT {POSITION} FROM positions WHERE id IN (SELECT {}) ORDER BY id", self.each_int("$1"));
        let sql = self.sql(&sql);
        let positions = on!(self, pool => {
            let rows = sqlx::query(sql).bind(wanted).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(Position::read).collect::<sqlx::Result<Vec<_>>>())
        });
        self.with_legs(positions.map_err(Error::sql("get"))?).await
    }

    /// Positions by number.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(&self, page: &Page) -> Result<Vec<Position>> {
        // The order of the index: a symbol's open positions are found without the others.
        let mut sql = format!("SELECT {POSITION} FROM positions WHERE id > $1");
        if page.symbol.is_some() {
            sql.push_str(" AND symbol = $3");
        }
        if page.account_id.is_some() {
            sql.push_str(if page.symbol.is_some() { " AND account_id = $4" } else { " AND account_id = $3" });
        }
        if !page.with_closed {
            sql.push_str(" AND status < 2");
        }
        sql.push_str(" ORDER BY id LIMIT $2");
        let sql = self.sql(&sql);
        let positions = on!(self, pool => {
            let mut query = sqlx::query(sql).bind(page.after).bind(page.limit);
            if let Some(symbol) = &page.symbol {
                query = query.bind(symbol.clone());
            }
            if let Some(account) = page.account_id {
                query = query.bind(account);
            }
            let rows = query.fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(Position::read).collect::<sqlx::Result<Vec<_>>>())
        });
        self.with_legs(positions.map_err(Error::sql("list"))?).await
    }

    /// All positions that are not closed, of all symbols or one, handed over in turn: the load of
    /// the index.
    ///
    /// # Errors
    /// [`Error`]. What was handed over before then stands.
    pub async fn load_open(&self, symbol: Option<&str>, mut each: impl FnMut(Position)) -> Result<usize> {
        use futures_util::TryStreamExt as _;
        let mut legs = self.open_legs().await?;
        let of = if symbol.is_some() { "AND symbol = $1" } else { "" };
        let sql = self.sql(&format!("SELECT {POSITION} FROM positions WHERE status < 2 {of}"));
        let mut loaded = 0;
        let done: sqlx::Result<()> = on!(self, pool => {
            let mut tx = pool.begin().await.map_err(Error::sql("load"))?;
            if !self.is_embedded() {
                // As long as it takes: a million rows on a busy machine take longer than any other statement.
                let longer = "SELECT set_config('statement_timeout', '600000', true)";
                sqlx::query(longer).execute(&mut *tx).await.map_err(Error::sql("load"))?;
            }
            let mut query = sqlx::query(sql);
            if let Some(symbol) = symbol {
                query = query.bind(symbol.to_owned());
            }
            let mut rows = query.fetch(&mut *tx);
            loop {
                match rows.try_next().await {
                    Ok(Some(row)) => match Position::read(&row) {
                        Ok(position) => {
                            let legs = legs.remove(&position.id).unwrap_or_default();
                            each(position.with_legs(legs));
                            loaded += 1;
                        }
                        Err(e) => break Err(e),
                    },
                    Ok(None) => break Ok(()),
                    Err(e) => break Err(e),
                }
            }
        });
        done.map_err(Error::sql("load"))?;
        Ok(loaded)
    }

    /// Positions changed at or after a moment of the database's clock; closed ones too if asked for.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn changed_since(&self, at_ms: i64, with_closed: bool) -> Result<Vec<Position>> {
        let open = if with_closed { "" } else { "AND status < 2" };
        let sql = self.sql(&format!("SELECT {POSITION} FROM positions WHERE updated_at_ms >= $1 {open} ORDER BY id"));
        let positions = on!(self, pool => {
            let rows = sqlx::query(sql).bind(at_ms).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(Position::read).collect::<sqlx::Result<Vec<_>>>())
        });
        self.with_legs(positions.map_err(Error::sql("changed"))?).await
    }

    /// How many positions are not closed.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn count_open(&self) -> Result<i64> {
        let sql = "SELECT count(*) FROM positions WHERE status < 2";
        on!(self, pool => sqlx::query_scalar(sql).fetch_one(pool).await).map_err(Error::sql("count"))
    }

    /// The closings of positions, by position and leg.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn closings(&self, positions: &[i64]) -> Result<Vec<ClosingRow>> {
        let wanted = serde_json::to_string(positions).unwrap_or_default();
        let each = self.each_int("$1");
        let sql = self.sql(&format!(
            "SELECT {CLOSING} FROM closings WHERE position_id IN (SELECT {each}) ORDER BY position_id, leg"
        ));
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(wanted).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(ClosingRow::read).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("closings"))
    }

    /// The cursors of all symbols.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn cursors(&self) -> Result<HashMap<String, Cursor>> {
        let sql = "SELECT symbol, seq, stream_id, gap FROM feed_cursor";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(cursor).collect::<sqlx::Result<HashMap<_, _>>>())
        });
        rows.map_err(Error::sql("cursors"))
    }

    /// The last quote of a symbol, late ones aside.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn last_quote(&self, symbol: &str) -> Result<Option<Quote>> {
        let sql = "SELECT seq, ts_ms, bid, ask FROM last_quotes WHERE symbol = $1";
        let row = on!(self, pool => {
            let row = sqlx::query(sql).bind(symbol).fetch_optional(pool).await;
            row.and_then(|row| row.map(|row| quote(&row)).transpose())
        });
        row.map_err(Error::sql("last quote"))
    }

    /// The last quotes of all symbols.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn last_quotes(&self) -> Result<HashMap<String, Quote>> {
        let sql = "SELECT symbol, seq, ts_ms, bid, ask FROM last_quotes";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(|row| Ok((row.text("symbol")?, quote(row)?))).collect::<sqlx::Result<_>>())
        });
        rows.map_err(Error::sql("last quotes"))
    }

    async fn open_legs(&self) -> Result<HashMap<i64, Vec<Leg>>> {
        let sql = "SELECT l.position_id, l.leg, l.price, l.qty FROM tp_legs l JOIN positions p ON p.id = l.position_id
                   WHERE p.status < 2 ORDER BY l.position_id, l.leg";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(leg).collect::<sqlx::Result<Vec<_>>>())
        });
        Ok(grouped(rows.map_err(Error::sql("legs"))?))
    }

    async fn with_legs(&self, positions: Vec<Position>) -> Result<Vec<Position>> {
        if positions.is_empty() {
            return Ok(positions);
        }
        let ids: Vec<i64> = positions.iter().map(|position| position.id).collect();
        let ids = serde_json::to_string(&ids).unwrap_or_default();
        let each = self.each_int("$1");
        let sql = self.sql(&format!(
            "SELECT position_id, leg, price, qty FROM tp_legs WHERE position_id IN (SELECT {each}) ORDER BY position_id, leg"
        ));
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(ids).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(leg).collect::<sqlx::Result<Vec<_>>>())
        });
        let mut legs = grouped(rows.map_err(Error::sql("legs"))?);
        let with = |position: Position| {
            let legs = legs.remove(&position.id).unwrap_or_default();
            position.with_legs(legs)
        };
        Ok(positions.into_iter().map(with).collect())
    }
}

fn grouped(rows: Vec<(i64, Leg)>) -> HashMap<i64, Vec<Leg>> {
    let mut legs: HashMap<i64, Vec<Leg>> = HashMap::new();
    for (position, leg) in rows {
        legs.entry(position).or_default().push(leg);
    }
    legs
}

fn leg(row: &impl Cells) -> sqlx::Result<(i64, Leg)> {
    let leg = Leg { leg: u8::try_from(row.int("leg")?).unwrap_or(1), price: row.int("price")?, qty: row.int("qty")? };
    Ok((row.int("position_id")?, leg))
}

fn account(row: &impl Cells) -> sqlx::Result<Account> {
    Ok(Account {
        id: row.int("id")?,
        currency: row.text("currency")?,
        balance: row.int("balance")?,
        calm: row.int("calm")? != 0,
    })
}

fn cursor(row: &impl Cells) -> sqlx::Result<(String, Cursor)> {
    let cursor = Cursor { seq: row.int("seq")?, stream_id: row.opt_text("stream_id")?, gap: row.int("gap")? != 0 };
    Ok((row.text("symbol")?, cursor))
}

fn quote(row: &impl Cells) -> sqlx::Result<Quote> {
    Ok(Quote { ts_ms: row.int("ts_ms")?, seq: row.int("seq")?, bid: row.int("bid")?, ask: row.int("ask")? })
}
