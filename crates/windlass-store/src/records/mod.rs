//! Records: small JSON documents that must not be lost, logs beside them, and one leader among
//! the processes that work on them.
//!
//! Everything lies in a *space*. A space holds *sets* of documents by name, bounded *logs*, and a
//! lease. Writes are batches: all or nothing, and under a leader's fence when they are its own.

#[cfg(feature = "postgres")]
mod postgres;
mod redis;
mod snapshot;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use windlass_jobs::Timestamp;

use crate::Result;

#[cfg(feature = "postgres")]
pub use self::postgres::PostgresRecords;
pub use self::redis::RedisRecords;
pub use self::snapshot::{COPY_ALL_EVERY, Snapshot, keep_copy};
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteRecords;

/// Most writes of one batch.
pub const MAX_WRITES: usize = 400;

/// A document as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name within its set: `[A-Za-z0-9_.-]{1,128}`.
    pub name: String,
    /// The space's version when it was last written by a batch that notified.
    pub rev: u64,
    /// The document.
    pub json: String,
}

/// What a space is like now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// The store's clock.
    pub now: Timestamp,
    /// Which life of the space this is; `None` when nothing was ever written, or all was lost.
    pub generation: Option<String>,
    /// Rises with every batch that notifies.
    pub version: u64,
}

/// What a document must be like for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Anything.
    Any,
    /// Not there.
    Absent,
    /// Unchanged since this [`Record::rev`].
    Rev(u64),
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Writes a document.
    Put {
        /// The set.
        set: &'static str,
        /// The document's name.
        name: String,
        /// The document.
        json: String,
        /// What must be there before.
        expect: Expect,
    },
    /// Writes a document unless one of the name is there; never a conflict.
    Seed {
        /// The set.
        set: String,
        /// The document's name.
        name: String,
        /// The document.
        json: String,
    },
    /// Forgets a document; one that is not there is no fault unless a rev is expected.
    Remove {
        /// The set.
        set: &'static str,
        /// The document's name.
        name: String,
        /// What must be there before.
        expect: Expect,
    },
    /// Adds an entry to a log, which keeps its newest.
    Append {
        /// The log's name, as that of a document.
        log: String,
        /// The entry.
        json: String,
        /// Entries kept, this one included: 1 or more.
        keep: u32,
    },
    /// Puts entries behind the oldest of a log: those that a copy still has.
    Extend {
        /// The log's name.
        log: String,
        /// The entries, newest first.
        entries: Vec<String>,
    },
    /// Forgets a log.
    DropLog {
        /// The log's name.
        log: String,
    },
}

/// Changes that happen together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Only while this lease is held.
    pub fence: Option<Fence>,
    /// Raises the space's version, so that others look.
    pub notify: bool,
    /// Makes this the space's generation; nothing is done where it is that already, which is then a
    /// conflict of the first write.
    pub generation: Option<String>,
    /// At most [`MAX_WRITES`], in order.
    pub writes: Vec<Write>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Done; the space's version now.
    Done(u64),
    /// Not done: the fence is not, or no longer, the leader's.
    Fenced,
    /// Not done: this write, from 0, found something else than it expects.
    Conflict(usize),
}

/// A lease on a space, as a fence: no two holders ever have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Who: unique per process start, `[A-Za-z0-9_-]{1,64}`.
    pub holder: String,
    /// Which time: rises whenever the lease is taken.
    pub epoch: u64,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// Set when the asker leads.
    pub fence: Option<Fence>,
    /// Who leads, whoever that is; `""` when nobody does.
    pub holder: String,
    /// Until when, by the store's clock.
    pub until: Timestamp,
    /// The space.
    pub meta: Meta,
}

/// A store of records. Clones and processes share what is kept.
#[async_trait]
pub trait Records: Send + Sync {
    /// What a space is like now.
    ///
    /// # Errors
    /// [`Error`](crate::Error).
    async fn meta(&self, space: &'static str) -> Result<Meta>;

    /// All documents of a set, by name.
    ///
    /// # Errors
    /// [`Error`](crate::Error).
    async fn all(&self, space: &'static str, set: &str) -> Result<Vec<Record>>;

    /// One document.
    ///
    /// # Errors
    /// [`Error`](crate::Error).
    async fn get(&self, space: &'static str, set: &str, name: &str) -> Result<Option<Record>>;

    /// Does a batch, or nothing of it.
    ///
    /// # Errors
    /// [`Error`](crate::Error); whether it was done is then not known, and it may be repeated where
    /// its writes expect nothing.
    async fn write(&self, space: &'static str, batch: &Batch) -> Result<Written>;

    /// Entries of a log, newest first, from this one on.
    ///
    /// # Errors
    /// [`Error`](crate::Error).
    async fn log(&self, space: &'static str, log: &str, from: usize, limit: usize) -> Result<Vec<String>>;

    /// Takes the space's lease if it is free, or renews it; with `ttl` zero only looks.
    ///
    /// A clock of the store that was put back does not lengthen a lease: one that would last
    /// longer than `ttl` is cut to it.
    ///
    /// # Errors
    /// [`Error`](crate::Error); the lease may have been taken.
    async fn lead(&self, space: &'static str, who: &str, ttl: Duration) -> Result<Lead>;

    /// Gives the lease back, if it is still held.
    ///
    /// # Errors
    /// [`Error`](crate::Error); it then ends by itself.
    async fn resign(&self, space: &'static str, fence: &Fence) -> Result<()>;
}

/// True for names that may stand in a key.
fn is_plain(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Refuses a batch that is too large or names something oddly: a fault of the caller.
fn check(batch: &Batch) -> Result<()> {
    let name = |write: &Write| match write {
        Write::Put { name, .. } | Write::Seed { name, .. } | Write::Remove { name, .. } => is_plain(name),
        Write::Append { log, .. } | Write::Extend { log, .. } | Write::DropLog { log } => is_plain(log),
    };
    if batch.writes.len() > MAX_WRITES || !batch.writes.iter().all(name) {
        let detail = "a batch over its bound, or with a name out of its grammar".to_owned();
        return Err(crate::Error::Unexpected { operation: "write records", detail });
    }
    Ok(())
}
