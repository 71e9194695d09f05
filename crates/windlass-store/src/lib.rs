//! What is kept beside the queue: artifacts and the result cache, each on Redis or on files.
//!
//! This crate never touches the queue's keys and never decides what is cached or for how
//! long. Everything it keeps has an end: a TTL on Redis, an age on files.

#![forbid(unsafe_code)]

mod digest;
mod error;
mod file;
mod redis;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use digest::{BadDigest, Digest};
pub use error::Error;
pub use file::{FileArtifacts, FileResults, sweep};
pub use redis::{RedisArtifacts, RedisResults};

/// The result of a store call.
pub type Result<T> = std::result::Result<T, Error>;

/// How long an artifact is kept after it was last stored or used.
pub const ARTIFACT_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest artifact, in bytes.
pub const MAX_ARTIFACT_BYTES: u64 = 256 * 1024 * 1024;

/// Bytes named by what they are: their SHA-256.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// Keeps bytes for [`ARTIFACT_TTL`] from now; bytes that are there already are kept longer.
    ///
    /// # Errors
    /// [`Error`]. Then nothing, or a whole artifact, is there; never a part.
    async fn put(&self, bytes: Bytes) -> Result<Digest>;

    /// The bytes, checked against their name; `None` when they are not there (any more).
    ///
    /// # Errors
    /// [`Error`].
    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>>;

    /// Keeps an artifact for [`ARTIFACT_TTL`] from now; false when it is not there.
    ///
    /// # Errors
    /// [`Error`].
    async fn touch(&self, digest: &Digest) -> Result<bool>;

    /// Keeps a file's bytes, read from `path`.
    ///
    /// # Errors
    /// [`Error`], also when the file is over [`MAX_ARTIFACT_BYTES`].
    async fn put_file(&self, path: &Path) -> Result<(Digest, u64)> {
        let bytes = tokio::fs::read(path).await.map_err(|source| Error::File { path: path.to_owned(), source })?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if size > MAX_ARTIFACT_BYTES {
            return Err(Error::TooLarge { bytes: size, max: MAX_ARTIFACT_BYTES });
        }
        Ok((self.put(bytes.into()).await?, size))
    }
}

/// Results of jobs by what went into them.
#[async_trait]
pub trait Results: Send + Sync {
    /// The result kept under a key, as JSON text.
    ///
    /// # Errors
    /// [`Error`]; the job is then run.
    async fn get(&self, key: &str) -> Result<Option<String>>;

    /// Keeps a result.
    ///
    /// # Errors
    /// [`Error`]; the job is finished all the same.
    async fn put(&self, key: &str, json: &str, ttl: Duration) -> Result<()>;
}

/// What a worker hands to its jobs.
#[derive(Clone)]
pub struct Services {
    /// Inputs and outputs of jobs.
    pub artifacts: Arc<dyn Artifacts>,
    /// Results of equal jobs.
    pub results: Arc<dyn Results>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Services")
    }
}
