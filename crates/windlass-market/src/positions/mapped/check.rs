//! Whether a mapping will do: its statements, their columns and types, and the guards of the closing.

use std::sync::atomic::Ordering;

use sqlx::postgres::PgTypeInfo;
use sqlx::{
    AssertSqlSafe, Column as _, Either, Executor as _, PgConnection, SqlSafeStr as _, Statement as _, TypeInfo as _,
};

use super::super::{Class, Error, Pool, Positions, Result};
use super::closing::THEIRS_EACH;
use super::{CloseStatement, Mapped, Mapping, Statements, places, read, their_path};
use crate::rules::Reason;

/// Positions that the close statement is tried on before it counts as one that closes nothing.
const TRIED: usize = 3;

impl Positions {
    /// Has the database read the statements, and holds their columns and places against what is
    /// needed.
    pub(super) async fn understand(&self, mapping: &Mapping) -> Result<Statements> {
        let Pool::Postgres(pool) = &self.pool else {
            return Err(Error::refused("mode", "mapped", "mapped tables lie in PostgreSQL"));
        };
        let mut tx = pool.begin().await.map_err(Error::sql("mapping"))?;
        their_path(&mut tx).await.map_err(Error::sql("mapping"))?;
        let open = bare(&mapping.open_positions);
        let (_, columns) = prepared(&mut tx, "open_positions", open).await?;
        check_columns("open_positions", &columns)?;
        let changed = bare(&mapping.changed_since);
        let (places, columns) = prepared(&mut tx, "changed_since", changed).await?;
        check_columns("changed_since", &columns)?;
        let [since] = places.as_slice() else {
            return Err(Error::refused(
                "changed_since",
                "places",
                "it takes $1, the moment since when, and no other place",
            ));
        };
        let changed = places::typed(changed, std::slice::from_ref(since));
        let close = match &mapping.close {
            Some(close) => Some(understand_close(&mut tx, bare(close)).await?),
            None => None,
        };
        // A comment at the end of a statement must not swallow what follows it.
        let wrapped = |sql: &str| format!("SELECT to_jsonb(q)::text FROM ({sql}\n) AS q");
        Ok(Statements {
            these: format!(
                "{} WHERE q.id IN (SELECT value::bigint FROM json_array_elements_text($1::json))",
                wrapped(open)
            ),
            open: wrapped(open),
            changed: wrapped(&changed),
            close,
        })
    }

    /// Tries the close statement on a position that is open, in a transaction that is undone: in
    /// another version it must close nothing, in its own one row, and then no more. Waits for the first
    /// position when there is none.
    pub(crate) async fn check_guards(&self) -> Result<()> {
        let (Some(mapped), Pool::Postgres(pool)) = (&self.mapped, &self.pool) else { return Ok(()) };
        let Some(close) = mapped.statements.close.as_ref().filter(|_| !mapped.guarded.load(Ordering::Acquire)) else {
            return Ok(());
        };
        let instruments = self.digits().await?;
        let words = &mapped.mapping.map;
        let mut tx = pool.begin().await.map_err(Error::sql("mapping"))?;
        their_path(&mut tx).await.map_err(Error::sql("mapping"))?;
        let some = format!("{} LIMIT 100", mapped.statements.open);
        let some: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(some)).fetch_all(&mut *tx).await.map_err(wrong("open_positions"))?;
        tx.rollback().await.map_err(Error::sql("mapping"))?;
        let digits = |symbol: &str| instruments.get(symbol).copied();
        let fit: Vec<_> = some.iter().filter_map(|json| read::row(json, words, digits).ok()).collect();
        let (mut tries, mut raised) = (0, None);
        for row in &fit {
            let mut tx = pool.begin().await.map_err(Error::sql("mapping"))?;
            sqlx::raw_sql(THEIRS_EACH).execute(&mut *tx).await.map_err(Error::sql("mapping"))?;
            let other = other_version(&row.version, &close.version_type);
            let tried = try_close(mapped, &mut tx, row, other, digits(&row.symbol).unwrap_or(0)).await;
            tx.rollback().await.map_err(Error::sql("mapping"))?;
            match tried {
                Ok(true) => {
                    mapped.guarded.store(true, Ordering::Release);
                    return Ok(());
                }
                Ok(false) => tries += 1,
                // It fails on this row: another one may show what it does.
                Err(error) if error.is_of_row() || matches!(error, Error::Refused { code: "sql_invalid", .. }) => {
                    raised = Some(error);
                }
                Err(error) => return Err(error),
            }
            if tries == TRIED {
                break;
            }
        }
        if fit.is_empty() {
            return Ok(());
        }
        if let (0, Some(error)) = (tries, raised) {
            return Err(error);
        }
        let why = "it closes nothing, or more than one row, when it is given a position that open_positions names and its version";
        Err(Error::refused("close", "closes_nothing", why))
    }
}

async fn understand_close(tx: &mut PgConnection, sql: &str) -> Result<CloseStatement> {
    let (places, answered) = prepared(tx, "close", sql).await?;
    let [_, _, _, version_type] = places.as_slice() else {
        let why =
            "it is not guarded: it takes $1 (id), $2 (price), $3 (reason) and $4 (the version that must still stand)";
        return Err(Error::refused("close", "unguarded", why));
    };
    if answered.is_empty() {
        return Err(Error::refused("close", "unguarded", "it answers nothing: end it with RETURNING id"));
    }
    Ok(CloseStatement { sql: places::typed(sql, &places), version_type: version_type.clone() })
}

/// True when the statement closed this position once; false when it would not close it at all.
async fn try_close(
    mapped: &Mapped,
    tx: &mut PgConnection,
    row: &read::Row,
    other: Option<String>,
    digits: u8,
) -> Result<bool> {
    let price = crate::price::format(row.rules.entry, digits);
    let mut close = async |version: Option<&str>| {
        mapped.close(tx, row.id, &price, Reason::Sl, version).await.map_err(wrong("close"))
    };
    if close(other.as_deref()).await? != 0 {
        let why = "it closes a position whose version is not $4: compare the two, as in AND version = $4";
        return Err(Error::refused("close", "unguarded", why));
    }
    if close(Some(&row.version)).await? != 1 {
        return Ok(false);
    }
    if close(Some(&row.version)).await? != 0 {
        let why = "it closes a position that is closed: ask for its state, as in AND status = 'open'";
        return Err(Error::refused("close", "unguarded", why));
    }
    Ok(true)
}

/// A version of this type that is not the one that stands.
fn other_version(version: &str, kind: &str) -> Option<String> {
    match kind {
        "smallint" | "integer" | "bigint" | "numeric" => Some(if version == "-1" { "-2" } else { "-1" }.to_owned()),
        "text" | "character varying" | "character" | "name" => Some(format!("{version}~")),
        kind if kind.starts_with("timestamp") => Some("1970-01-01 00:00:00+00".to_owned()),
        "uuid" => Some("00000000-0000-0000-0000-000000000000".to_owned()),
        _ => None,
    }
}

fn bare(sql: &str) -> &str {
    sql.trim().trim_end_matches(';').trim_end()
}

/// A statement of the mapping that the database refuses is the mapping's fault; one that it could not
/// run is nobody's.
fn wrong(field: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| {
        let error = Error::sql("mapping")(source);
        match (&error, error.class()) {
            (Error::Sql { source, .. }, Class::Bug) => Error::refused(field, "sql_invalid", source.to_string()),
            _ => error,
        }
    }
}

/// The types of a statement's places, as PostgreSQL names them, and its columns.
async fn prepared(
    tx: &mut PgConnection,
    field: &'static str,
    sql: &str,
) -> Result<(Vec<String>, Vec<(String, PgTypeInfo)>)> {
    if sql.is_empty() {
        return Err(Error::refused(field, "sql_invalid", "a statement is needed"));
    }
    let statement = (&mut *tx).prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await.map_err(wrong(field))?;
    let columns = statement.columns().iter().map(|c| (c.name().to_owned(), c.type_info().clone())).collect();
    let types: Vec<PgTypeInfo> = match statement.parameters() {
        Some(Either::Left(types)) => types.to_vec(),
        _ => Vec::new(),
    };
    let mut names = Vec::with_capacity(types.len());
    for kind in &types {
        let name = match kind.oid() {
            Some(oid) => {
                let sql = "SELECT $1::oid::regtype::text";
                sqlx::query_scalar(sql).bind(oid).fetch_one(&mut *tx).await.map_err(Error::sql("mapping"))?
            }
            None => kind.name().to_owned(),
        };
        names.push(name);
    }
    Ok((names, columns))
}

fn check_columns(field: &'static str, columns: &[(String, PgTypeInfo)]) -> Result<()> {
    let refused = |why: String| Err(Error::refused(field, "columns", why));
    for needed in read::NEEDED {
        if !columns.iter().any(|(name, _)| name == needed) {
            return refused(format!("there is no column {needed}"));
        }
    }
    for (at, (name, kind)) in columns.iter().enumerate() {
        if !read::NEEDED.contains(&name.as_str()) && !read::MORE.contains(&name.as_str()) {
            let known = read::NEEDED.iter().chain(&read::MORE).copied().collect::<Vec<_>>().join(", ");
            return refused(format!("{name} is no column that is read; there are {known}"));
        }
        if columns[..at].iter().any(|(other, _)| other == name) {
            return refused(format!("{name} is there twice"));
        }
        let kind = kind.name();
        if read::EXACT.contains(&name.as_str()) && matches!(kind, "FLOAT4" | "FLOAT8") {
            return refused(format!("{name} is {kind}: prices and quantities are numeric or integers, never rounded"));
        }
        if matches!(name.as_str(), "id" | "account_id") && !matches!(kind, "INT2" | "INT4" | "INT8") {
            return refused(format!("{name} is {kind}: an integer is needed"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_of_the_same_type() {
        assert_eq!(other_version("7", "bigint").as_deref(), Some("-1"));
        assert_eq!(other_version("-1", "integer").as_deref(), Some("-2"));
        assert_eq!(other_version("a", "text").as_deref(), Some("a~"));
        assert!(other_version("x", "timestamp with time zone").is_some_and(|at| at.starts_with("1970")));
        assert_eq!(other_version("x", "xid"), None);
        assert_eq!(bare(" SELECT 1 ; "), "SELECT 1");
    }
}
