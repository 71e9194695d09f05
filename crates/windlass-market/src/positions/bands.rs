//! The bands of calm accounts' positions.

use std::collections::HashMap;

use serde_json::json;

use super::cells::Cells;
use super::load::POSITION;
use super::{Error, Position, Positions, Result, on};
use crate::calm::{Band, Standing};

impl Positions {
    /// The open positions of accounts that are calm, or this one of them.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn calm_positions(&self, only: Option<i64>) -> Result<Vec<Position>> {
        let one = if only.is_some() { "AND id = $1" } else { "" };
        let sql = self.sql(&format!(
            "SELECT {POSITION} FROM positions WHERE status < 2 {one} AND account_id IN (SELECT id FROM accounts WHERE calm = 1)"
        ));
        let rows = on!(self, pool => {
            let query = sqlx::query(sql);
            let query = match only { Some(id) => query.bind(id), None => query };
            let rows = query.fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(Position::read).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("calm positions"))
    }

    /// The bands that stand, by position.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn bands(&self) -> Result<HashMap<i64, Standing>> {
        let sql = "SELECT position_id, band, since_ms FROM bands";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(standing).collect::<sqlx::Result<HashMap<_, _>>>())
        });
        rows.map_err(Error::sql("bands"))
    }

    /// The band of a position, if one stands.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn band(&self, position: i64) -> Result<Option<Standing>> {
        let sql = "SELECT position_id, band, since_ms FROM bands WHERE position_id = $1";
        let row = on!(self, pool => {
            let row = sqlx::query(sql).bind(position).fetch_optional(pool).await;
            row.and_then(|row| row.map(|row| standing(&row)).transpose())
        });
        Ok(row.map_err(Error::sql("band"))?.map(|(_, standing)| standing))
    }

    /// Writes bands. With `others_go`, those of other positions that are open, and calm no more, are
    /// forgotten; a closed position keeps its last one. Answers what went.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put_bands(&self, bands: &HashMap<i64, Standing>, others_go: bool) -> Result<Vec<i64>> {
        let from = self.records("$1", &[("id", "bigint"), ("band", "text"), ("since", "bigint")]);
        let put = self.sql(&format!(
            "INSERT INTO bands(position_id, band, since_ms, as_of_ms) SELECT d.id, d.band, d.since, {{now}} FROM {from} AS d
             WHERE true ON CONFLICT(position_id) DO UPDATE SET band = excluded.band, since_ms = excluded.since_ms,
             as_of_ms = excluded.as_of_ms"
        ));
        let go = self.sql(
            "DELETE FROM bands WHERE position_id IN (SELECT b.position_id FROM bands b JOIN positions p ON p.id = b.position_id
             JOIN accounts a ON a.id = p.account_id WHERE a.calm = 0) RETURNING position_id",
        );
        let rows: Vec<_> = bands
            .iter()
            .map(|(id, standing)| json!({ "id": id, "band": standing.band.as_str(), "since": standing.since_ms }))
            .collect();
        let gone = on!(self, pool => {
            let run = async {
                sqlx::query(put).bind(json!(rows).to_string()).execute(pool).await?;
                if !others_go {
                    return Ok(Vec::new());
                }
                let rows = sqlx::query(go).fetch_all(pool).await?;
                rows.iter().map(|row| row.int("position_id")).collect::<sqlx::Result<Vec<_>>>()
            };
            run.await
        });
        gone.map_err(Error::sql("bands"))
    }
}

fn standing(row: &impl Cells) -> sqlx::Result<(i64, Standing)> {
    let word = row.text("band")?;
    let band = Band::parse(&word).ok_or_else(|| sqlx::Error::Decode(word.into()))?;
    Ok((row.int("position_id")?, Standing { band, since_ms: row.int("since_ms")? }))
}
