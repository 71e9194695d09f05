//! What can go wrong with a store.

use std::path::PathBuf;

use crate::Digest;

/// A store call that did not work out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis did not do it.
    #[error("{operation} on redis")]
    Redis {
        /// What was tried.
        operation: &'static str,
        /// What it said.
        #[source]
        source: windlass_redis::Error,
    },
    /// Redis answered what no script of ours answers.
    #[error("{operation} on redis: the answer makes no sense")]
    Reply {
        /// What was tried.
        operation: &'static str,
    },
    /// A file could not be read or written.
    #[error("file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// SQLite did not do it.
    #[error("{operation} on sqlite")]
    Sqlite {
        /// What was tried.
        operation: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// PostgreSQL did not do it.
    #[error("{operation} on postgres")]
    Sql {
        /// What was tried.
        operation: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store, or the caller, said something that cannot be right.
    #[error("{operation}: {detail}")]
    Unexpected {
        /// What was tried.
        operation: &'static str,
        /// What was wrong.
        detail: String,
    },
    /// Too large to keep.
    #[error("{bytes} bytes; at most {max} are kept")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// Its time was over before it could be kept.
    #[error("its time is over")]
    Expired,
    /// The bytes that came are not those that were announced.
    #[error("the bytes are {found}")]
    OtherBytes {
        /// What they are.
        found: Digest,
    },
    /// Uploads take up as much as they may.
    #[error("uploads take {used} of {max} bytes")]
    QuotaFull {
        /// What they take.
        used: u64,
        /// What they may.
        max: u64,
    },
}

impl Error {
    /// True when the store has no room at the moment: the disk, or Redis' memory, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self {
            Self::Redis { source, .. } => source.class() == windlass_redis::Class::Full,
            Self::File { source, .. } => matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge),
            _ => false,
        }
    }
}

/// An error with all its sources, for the log.
pub(crate) use windlass_jobs::chain;
