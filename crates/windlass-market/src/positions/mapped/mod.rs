//! Positions of another application, in its own tables of the same PostgreSQL.
//!
//! What that application says is open is copied into the tables here under its own number, with a
//! word (`version`) that changes when the row does; the copy is what is watched. A closing runs the
//! application's statement within the transaction that writes closing, event and history, and stands
//! only if that statement closes exactly one row. It is given the version that was decided on, so
//! that a stop which moved meanwhile, or a position closed elsewhere, undoes the whole.
//!
//! The tables here lie in a schema of their own; the application's statements run with the search
//! path that its own sessions have. Nothing of its tables is written but by that one statement.

mod asked;
mod check;
mod closing;
mod places;
mod read;
mod sync;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use serde::Deserialize;
use sqlx::PgConnection;

use super::{Error, Options, Pool, Positions, Result};
use crate::rules::Reason;

pub use asked::{After, Answered, AskState, Asked, AskedCount, Waiting};
pub use sync::Reach;

/// How positions of another application are read and closed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// A query of all that is open. Columns: `id`, `account_id`, `symbol`, `side`, `qty`, `entry`, `sl`,
    /// `tp`, `version`, and as far as there are such rules `armed_at`, `opened_at`, `sl_guaranteed`,
    /// `trail_points`, `trail_bps`, `trail_activation`, `trail_step`, `be_trigger`, `be_offset`,
    /// `expires_at`. Prices may be `numeric`; `id` is an integer.
    pub open_positions: String,
    /// The same of what changed at or after `$1`, a moment.
    pub changed_since: String,
    /// Closes position `$1` at price `$2` for reason `$3` if it is open and its version is `$4`, and
    /// answers one row if it did (`RETURNING`). None where the application's own code closes.
    #[serde(default)]
    pub close: Option<String>,
    /// How the application's own code closes, in place of a statement.
    #[serde(skip)]
    pub callback: Option<Callback>,
    /// Where the tables of the market are made. Default `windlass`.
    #[serde(default = "schema")]
    pub schema: String,
    /// Words of the application for ours.
    #[serde(default)]
    pub map: Words,
}

fn schema() -> String {
    "windlass".to_owned()
}

/// How an application's own code closes positions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// `http://…` or `https://…`, which is sent each closing; or a kind of job that the application's workers serve.
    pub close: String,
    /// The queue of that kind. Default `default`.
    #[serde(default)]
    pub queue: Option<String>,
    /// How long one call or run may take, in s, 1–300. Default 10.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u64,
    /// How often it is tried, 1–100. Default 10.
    #[serde(default = "attempts")]
    pub attempts: u32,
    /// Sent as `Authorization: Bearer`, if there is one.
    #[serde(skip)]
    pub key: Option<Secret>,
}

/// What is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

const fn timeout_seconds() -> u64 {
    10
}
const fn attempts() -> u32 {
    10
}

impl Callback {
    /// The kind of job, where it is one.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        let is_url = ["http://", "https://"].iter().any(|scheme| self.close.starts_with(scheme));
        (!is_url).then_some(self.close.as_str())
    }

    /// Where its jobs go.
    #[must_use]
    pub fn queue(&self) -> &str {
        if self.kind().is_some() { self.queue.as_deref().unwrap_or("default") } else { crate::QUEUE }
    }

    /// Says what cannot be.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn check(&self) -> Result<()> {
        let refused = |field, why: &str| Err(Error::refused(field, "out_of_range", why));
        if self.kind().is_some_and(|kind| windlass_jobs::check_kind(kind).is_err()) {
            return refused(
                "task.close",
                "http://host:port/path or a kind of job such as broker.close_position is allowed",
            );
        }
        if self.kind().is_none() && self.queue.is_some() {
            return refused("task.queue", "a queue goes with a kind of job");
        }
        if windlass_jobs::Queue::new(self.queue()).is_err() {
            return refused("task.queue", "a name of 1 to 64 of a-z 0-9 _ - is allowed");
        }
        if !(1..=300).contains(&self.timeout_seconds) || !(1..=100).contains(&self.attempts) {
            return refused("task", "timeout_seconds of 1 to 300 and attempts of 1 to 100 are allowed");
        }
        Ok(())
    }
}

/// Words of an application for ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// What `side` may hold.
    #[serde(default)]
    pub side: Sides,
    /// Digits after the point of `qty`, 0–9: with 2, a quantity of 0.10 is 10 units. Default 0.
    #[serde(default)]
    pub qty_digits: u8,
    /// What the close statement is given as `$3`, by our reason: SL, BE, TRAIL, TP, TIME, MANUAL,
    /// STOP_OUT. Default: our own word.
    #[serde(default)]
    pub reason: BTreeMap<String, String>,
}

/// Words for long and short; upper and lower case are the same.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sides {
    /// Default `long`, `buy`, `1`.
    pub long: Vec<String>,
    /// Default `short`, `sell`, `-1`.
    pub short: Vec<String>,
}

impl Default for Sides {
    fn default() -> Self {
        let words = |words: [&str; 3]| words.map(str::to_owned).to_vec();
        Self { long: words(["long", "buy", "1"]), short: words(["short", "sell", "-1"]) }
    }
}

impl Mapping {
    /// Says what cannot be, without asking the database.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn check(&self) -> Result<()> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let fits = (1..=63).contains(&self.schema.len()) && self.schema.bytes().all(word);
        let require = |holds: bool, field, why: &str| {
            if holds { Ok(()) } else { Err(Error::refused(field, "out_of_range", why)) }
        };
        require(
            self.close.is_some() != self.callback.is_some(),
            "close",
            "a statement, or code of the application, is needed",
        )?;
        if let Some(callback) = &self.callback {
            callback.check()?;
        }
        require(fits && !self.schema.starts_with("pg_"), "schema", "1 to 63 of a-z 0-9 _ is allowed")?;
        require(self.schema != "public", "schema", "a schema of its own is needed, such as windlass")?;
        require(self.map.qty_digits <= 9, "map.qty_digits", "0 to 9 is allowed")?;
        let known = |word: &String| Reason::parse(word).is_some();
        let reasons = "SL, BE, TRAIL, TP, TIME, MANUAL and STOP_OUT have words";
        require(self.map.reason.keys().all(known), "map.reason", reasons)?;
        let Sides { long, short } = &self.map.side;
        let both = long.iter().any(|word| short.iter().any(|other| other.eq_ignore_ascii_case(word)));
        require(!long.is_empty() && !short.is_empty() && !both, "map.side", "long and short need words of their own")
    }
}

/// A mapping whose statements the database has understood.
#[derive(Debug)]
pub(super) struct Mapped {
    mapping: Mapping,
    /// The statements as they are run: every place takes a text.
    statements: Statements,
    /// The close statement has been seen to refuse what it must.
    guarded: AtomicBool,
}

#[derive(Debug)]
struct Statements {
    /// No place.
    open: String,
    /// `$1`: a list of numbers as JSON.
    these: String,
    /// `$1`: a moment.
    changed: String,
    /// Closes, where a statement does.
    close: Option<CloseStatement>,
}

#[derive(Debug)]
struct CloseStatement {
    /// `$1` to `$4`.
    sql: String,
    /// The type of the version, as PostgreSQL names it.
    version_type: String,
}

impl Positions {
    /// Connects to `postgres://…`, brings the tables up to date in their schema, and checks the
    /// mapping: columns, types, and that the close statement closes what it is given once, and
    /// nothing in another version.
    ///
    /// # Errors
    /// [`Error`]; refused when the mapping will not do.
    pub async fn mapped(url: &str, options: &Options, mapping: &Mapping) -> Result<Self> {
        mapping.check()?;
        let mut store = Self::connect_lazy(url, options, Some(&mapping.schema))?;
        store.make_schema(&mapping.schema).await?;
        store.migrate().await?;
        let statements = store.understand(mapping).await?;
        store.mapped =
            Some(std::sync::Arc::new(Mapped { mapping: mapping.clone(), statements, guarded: AtomicBool::new(false) }));
        store.check_guards().await?;
        Ok(store)
    }

    /// How another application's own code closes, if it does.
    pub(super) fn callback(&self) -> Option<&Callback> {
        self.mapped.as_ref()?.mapping.callback.as_ref()
    }

    /// True when positions are opened and changed by another application.
    #[must_use]
    pub const fn is_mapped(&self) -> bool {
        self.mapped.is_some()
    }

    /// Refuses what only the other application may do.
    pub(super) fn check_own(&self) -> Result<()> {
        let why = "positions are opened and changed by the application whose tables they lie in";
        if self.is_mapped() { Err(Error::refused("market", "mapped", why)) } else { Ok(()) }
    }

    async fn make_schema(&self, schema: &str) -> Result<()> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(()) };
        let run = async {
            let there: bool =
                sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL").bind(schema).fetch_one(pool).await?;
            if !there {
                // The name is of letters, digits and `_`.
                let sql = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
                sqlx::query(sqlx::AssertSqlSafe(sql)).execute(pool).await?;
            }
            Ok(())
        };
        run.await.map_err(Error::sql("schema"))
    }
}

impl Mapped {
    /// The word of the application for a reason.
    fn reason(&self, reason: Reason) -> &str {
        self.mapping.map.reason.get(reason.as_str()).map_or(reason.as_str(), String::as_str)
    }

    /// Runs the close statement; answers how many rows it gave back.
    async fn close(
        &self,
        tx: &mut PgConnection,
        id: i64,
        fill: &str,
        reason: Reason,
        version: Option<&str>,
    ) -> sqlx::Result<usize> {
        let Some(CloseStatement { sql, .. }) = &self.statements.close else { return Ok(0) };
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
            .bind(id.to_string())
            .bind(fill.to_owned())
            .bind(self.reason(reason).to_owned())
            .bind(version.map(str::to_owned))
            .fetch_all(tx)
            .await?;
        Ok(rows.len())
    }
}

/// Names mean what they mean to the application, until the transaction ends.
async fn their_path(tx: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("SET LOCAL search_path TO DEFAULT").execute(tx).await.map(|_| ())
}

/// Names mean the tables here again.
async fn our_path(tx: &mut PgConnection, schema: &str) -> sqlx::Result<()> {
    sqlx::query("SELECT set_config('search_path', $1, true)").bind(schema.to_owned()).execute(tx).await.map(|_| ())
}
