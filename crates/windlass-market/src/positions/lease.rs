//! Who watches a shard: one at a time, with a number that rises with each new owner.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use super::cells::Cells as _;
use super::{Error, Fence, Positions, Result, on};

/// The right to close positions of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The shard.
    pub shard: i64,
    /// The fence: written with each closing, and compared where it is written.
    pub token: i64,
    /// When it ends, by the clock of the database.
    pub expires_at_ms: i64,
    /// Now, by the clock of the database.
    pub now_ms: i64,
}

/// How long a shard is held without a sign of life.
const LEASE: Duration = Duration::from_secs(8);
/// How often a lease is renewed.
const RENEW: Duration = Duration::from_secs(2);

/// A shard on behalf of one process: taken, kept, and lost without a word.
#[derive(Debug)]
pub struct Hold {
    shard: i64,
    owner: String,
    fence: Option<Fence>,
    renewed_at: Option<Instant>,
    /// What the clock of the database said at the last lease, and when that was.
    clock: (i64, Instant),
}

/// Who has a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// This process, as before.
    Still,
    /// This process, and another one may have had it meanwhile: what is remembered is not to be trusted.
    Anew,
    /// Another process.
    Other,
}

impl Hold {
    /// One that is not taken yet.
    #[must_use]
    pub fn new(shard: i64, owner: &str) -> Self {
        Self { shard, owner: owner.to_owned(), fence: None, renewed_at: None, clock: (0, Instant::now()) }
    }

    /// Takes the shard or renews it, when that is due or is to be done at once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn keep(&mut self, store: &Positions, at_once: bool) -> Result<Holder> {
        if !at_once && self.renewed_at.is_some_and(|at| at.elapsed() < RENEW) {
            return Ok(Holder::Still);
        }
        let begun = Instant::now();
        let Some(lease) = store.lease(self.shard, &self.owner, LEASE).await? else {
            self.renewed_at = None;
            return Ok(Holder::Other);
        };
        (self.renewed_at, self.clock) = (Some(begun), (lease.now_ms, begun));
        let fence = Fence::from(&lease);
        Ok(if self.fence.replace(fence) == Some(fence) { Holder::Still } else { Holder::Anew })
    }

    /// Does what takes long, and renews the lease beside it. Answers whose the shard was meanwhile too.
    ///
    /// # Errors
    /// [`Error`] of the work; a renewal that fails is tried again.
    pub async fn beside<T>(&mut self, store: &Positions, work: impl Future<Output = Result<T>>) -> Result<(T, Holder)> {
        let mut holder = Holder::Still;
        let done = tokio::select! {
            done = work => done?,
            never = self.renew(store, &mut holder) => match never {},
        };
        Ok((done, holder))
    }

    async fn renew(&mut self, store: &Positions, holder: &mut Holder) -> Infallible {
        loop {
            tokio::time::sleep(RENEW).await;
            match self.keep(store, true).await {
                Ok(Holder::Still) | Err(_) => {}
                Ok(other) => *holder = other,
            }
        }
    }

    /// The right to write, as it was last known.
    #[must_use]
    pub const fn fence(&self) -> Option<Fence> {
        self.fence
    }

    /// Near the clock of the database.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        let (at_ms, at) = self.clock;
        at_ms.saturating_add(windlass_jobs::millis(at.elapsed()))
    }

    /// Has the next [`Hold::keep`] ask the tables.
    pub fn doubt(&mut self) {
        self.renewed_at = None;
    }

    /// Gives the shard back, for whoever wants it next.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn release(&mut self, store: &Positions) -> Result<()> {
        self.doubt();
        if self.fence.is_none() {
            return Ok(());
        }
        match store.lease(self.shard, &self.owner, LEASE).await? {
            Some(lease) => store.release(&lease).await,
            None => Ok(()),
        }
    }
}

impl Positions {
    /// Takes a shard, or keeps it: `None` while another owner's lease lives. An owner that still
    /// holds it keeps its token; a new one gets the next.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn lease(&self, shard: i64, owner: &str, ttl: Duration) -> Result<Option<Lease>> {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX / 4);
        let sql = self.sql(
            "INSERT INTO shard_lease(shard, token, owner, expires_at_ms) VALUES ($1, 1, $2, {now} + $3)
             ON CONFLICT(shard) DO UPDATE SET
               token = CASE WHEN shard_lease.owner = $2 AND shard_lease.expires_at_ms > {now}
                            THEN shard_lease.token ELSE shard_lease.token + 1 END,
               owner = $2, expires_at_ms = {now} + $3
             WHERE shard_lease.owner = $2 OR shard_lease.expires_at_ms <= {now}
             RETURNING token, expires_at_ms, {now} AS now_ms",
        );
        let read = |row: &dyn Fn(&str) -> sqlx::Result<i64>| {
            Ok(Lease { shard, token: row("token")?, expires_at_ms: row("expires_at_ms")?, now_ms: row("now_ms")? })
        };
        let row = on!(self, pool => {
            let row = sqlx::query(sql).bind(shard).bind(owner).bind(ttl_ms).fetch_optional(pool).await;
            row.and_then(|row| row.map(|row| read(&|column| row.int(column))).transpose())
        });
        row.map_err(Error::sql("lease"))
    }

    /// Wakes somebody whenever quotes have come, as PostgreSQL says it. Returns when the connection
    /// is gone, and at once on an embedded file.
    pub async fn hear_quotes(&self, wake: &tokio::sync::Notify) {
        let super::Pool::Postgres(pool) = &self.pool else { return };
        let Ok(mut listener) = sqlx::postgres::PgListener::connect_with(pool).await else { return };
        if listener.listen(super::ticks::CHANNEL).await.is_err() {
            return;
        }
        while listener.recv().await.is_ok() {
            wake.notify_one();
        }
    }

    /// How far a feed is read; none for one that never was.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn feed_place(&self, name: &str) -> Result<Option<String>> {
        let sql = "SELECT place FROM feeds WHERE name = $1";
        on!(self, pool => sqlx::query_scalar(sql).bind(name.to_owned()).fetch_optional(pool).await)
            .map_err(Error::sql("feed"))
    }

    /// Writes down how far a feed is read.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_feed_place(&self, name: &str, place: &str) -> Result<()> {
        let sql =
            "INSERT INTO feeds(name, place) VALUES ($1, $2) ON CONFLICT(name) DO UPDATE SET place = excluded.place";
        let done = on!(self, pool => {
            sqlx::query(sql).bind(name.to_owned()).bind(place.to_owned()).execute(pool).await.map(|_| ())
        });
        done.map_err(Error::sql("feed"))
    }

    /// Gives a shard back, if it is still held.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn release(&self, lease: &Lease) -> Result<()> {
        let sql = "UPDATE shard_lease SET expires_at_ms = 0, owner = NULL WHERE shard = $1 AND token = $2";
        let done = on!(self, pool => {
            sqlx::query(sql).bind(lease.shard).bind(lease.token).execute(pool).await.map(|_| ())
        });
        done.map_err(Error::sql("release"))
    }
}
