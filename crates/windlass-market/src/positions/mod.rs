//! Positions as they truly are: rows of PostgreSQL, or of an embedded SQLite file.
//!
//! One text of SQL serves both where their grammars agree; where they do not, each has its own
//! statement below the same method. Instants are milliseconds since 1970 UTC by the clock of the
//! database, which alone decides how old something is. Every change of a position goes through
//! one of the guarded statements here, writes its audit row and outbox row in the same
//! transaction, and raises the row's version.

mod audit;
mod bands;
mod candles;
mod cells;
mod chain;
mod change;
mod close;
mod error;
mod insight;
mod lease;
mod load;
mod mapped;
mod marks;
mod rows;
mod schema;
mod seed;
mod ticks;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _};

pub use audit::{AuditRow, Outbox};
pub(crate) use chain::LINKED_AT_ONCE;
pub use chain::{Broken, Checked, Link};
pub use change::{Change, Moved, NewPosition};
pub use close::{Close, Closed, Fence, Outcome, Reached};
pub use error::{Class, Error};
pub use insight::{Latency, Watched, summary};
pub use lease::{Hold, Holder, Lease};
pub use load::{Cursor, Page};
pub use mapped::{
    After, Answered, AskState, Asked, AskedCount, Callback, Mapping, Reach, Secret, Sides, Waiting, Words,
};
pub use marks::{AccountSum, Mark};
pub use rows::{Account, ClosingRow, Instrument, Position, Status};
pub use seed::Seed;
pub use ticks::{Arrived, Fresh, KEPT_MS, RawQuote, Reject, Switched, Taken, Tick};

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Runs one expression on whichever database it is; the pool is named for it.
macro_rules! on {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.pool {
            $crate::positions::Pool::Postgres($pool) => $body,
            $crate::positions::Pool::Sqlite($pool) => $body,
        }
    };
}
pub(crate) use on;

#[derive(Debug, Clone)]
pub(crate) enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// How a database is reached, and how long anything may take.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections at most. Default 8.
    pub connections: u32,
    /// The longest to wait for one of them. Default 5 s.
    pub acquire_timeout: Duration,
    /// The longest a statement may run or wait for a lock, on PostgreSQL. Default 10 s.
    pub statement_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { connections: 8, acquire_timeout: Duration::from_secs(5), statement_timeout: Duration::from_secs(10) }
    }
}

/// True for a URL that [`Positions::postgres`] can read.
#[must_use]
pub fn is_postgres_url(url: &str) -> bool {
    (url.starts_with("postgres://") || url.starts_with("postgresql://")) && url.parse::<PgConnectOptions>().is_ok()
}

/// The tables of positions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Positions {
    pool: Pool,
    /// Where it is, for people; never with a password.
    place: String,
    /// Positions are opened and changed by another application, in its tables.
    mapped: Option<Arc<mapped::Mapped>>,
}

impl Positions {
    /// Connects to `postgres://…` and brings the tables up to date. Just-in-time compilation is
    /// off for these sessions: it costs more than the statements do.
    ///
    /// # Errors
    /// [`Error`], never with the password in it.
    pub async fn postgres(url: &str, options: &Options) -> Result<Self> {
        let store = Self::postgres_lazy(url, options)?;
        store.migrate().await?;
        Ok(store)
    }

    /// As [`Positions::postgres`], but connects on first use and leaves the tables as they are.
    ///
    /// # Errors
    /// [`Error`] when the URL cannot be read.
    pub fn postgres_lazy(url: &str, options: &Options) -> Result<Self> {
        Self::connect_lazy(url, options, None)
    }

    /// As [`Positions::postgres_lazy`], to look from outside: one connection; `schema` is where the tables lie.
    ///
    /// # Errors
    /// [`Error`] when the URL cannot be read.
    pub(crate) fn outside(url: &str, schema: Option<&str>) -> Result<Self> {
        Self::connect_lazy(url, &Options { connections: 1, ..Options::default() }, schema)
    }

    /// Whether there is an instrument; false where there are no tables.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn is_traded(&self) -> Result<bool> {
        let run = async {
            if let Pool::Postgres(pool) = &self.pool {
                let there = "SELECT to_regclass('instruments') IS NOT NULL";
                let there: bool = sqlx::query_scalar(there).fetch_one(pool).await?;
                if !there {
                    return Ok(false);
                }
            }
            let one = "SELECT count(*) FROM (SELECT 1 FROM instruments WHERE enabled = 1 LIMIT 1) AS one";
            let count: i64 = on!(self, pool => sqlx::query_scalar(one).fetch_one(pool).await)?;
            Ok(count > 0)
        };
        run.await.map_err(Error::sql("instruments"))
    }

    /// With a schema, every session begins with it as its search path.
    fn connect_lazy(url: &str, options: &Options, schema: Option<&str>) -> Result<Self> {
        let connect: PgConnectOptions = url.parse().map_err(|_| Error::Url)?;
        let timeout_ms = options.statement_timeout.as_millis().to_string();
        let place = format!("postgres://{}:{}", connect.get_host(), connect.get_port());
        let connect = connect
            .application_name("windlass-market")
            .options([
                ("jit", "off"),
                ("statement_timeout", timeout_ms.as_str()),
                ("lock_timeout", timeout_ms.as_str()),
            ])
            .disable_statement_logging();
        let mut pool =
            PgPoolOptions::new().max_connections(options.connections).acquire_timeout(options.acquire_timeout);
        if let Some(schema) = schema.map(str::to_owned) {
            pool = pool.after_connect(move |conn, _| {
                let set = sqlx::query("SELECT set_config('search_path', $1, false)").bind(schema.clone());
                Box::pin(async move { set.execute(conn).await.map(|_| ()) })
            });
        }
        Ok(Self { pool: Pool::Postgres(pool.connect_lazy_with(connect)), place, mapped: None })
    }

    /// Opens a file, made when it is not there, and brings the tables up to date.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn sqlite(file: &Path, options: &Options) -> Result<Self> {
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir).map_err(|e| Error::Sql { operation: "open", source: sqlx::Error::Io(e) })?;
        }
        let connect = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(options.acquire_timeout)
            .foreign_keys(true)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(options.connections.min(4))
            .acquire_timeout(options.acquire_timeout)
            .connect_with(connect)
            .await
            .map_err(Error::sql("open"))?;
        let store = Self { pool: Pool::Sqlite(pool), place: file.display().to_string(), mapped: None };
        store.migrate().await?;
        Ok(store)
    }

    /// Where it is, for people.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// True on an embedded file.
    #[must_use]
    pub const fn is_embedded(&self) -> bool {
        matches!(self.pool, Pool::Sqlite(_))
    }

    /// Ends all connections.
    pub async fn close_pool(&self) {
        on!(self, pool => pool.close().await);
    }

    /// Now, by the clock of the database.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn now_ms(&self) -> Result<i64> {
        let sql = self.sql("SELECT {now}");
        on!(self, pool => sqlx::query_scalar(sql).fetch_one(pool).await).map_err(Error::sql("now"))
    }

    /// A statement of this crate in the grammar of the database: `{now}` is the moment, in ms.
    fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        // Only texts of this crate come here; values are always bound.
        AssertSqlSafe(text.replace("{now}", self.now()))
    }

    const fn now(&self) -> &'static str {
        match self.pool {
            Pool::Postgres(_) => PG_NOW,
            Pool::Sqlite(_) => LITE_NOW,
        }
    }

    /// How a transaction that writes begins: SQLite takes the lock of the file at once, so that it
    /// never has to give up in the middle.
    const fn begin(&self) -> &'static str {
        match self.pool {
            Pool::Postgres(_) => "BEGIN",
            Pool::Sqlite(_) => "BEGIN IMMEDIATE",
        }
    }
}

const PG_NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
const LITE_NOW: &str = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)";
