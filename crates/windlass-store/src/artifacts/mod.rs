//! Artifacts, uploaded blobs and the result cache: what each promises, whoever keeps it.

pub(crate) mod file;
mod leads;
pub(crate) mod redis;
mod upload;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use windlass_jobs::Timestamp;

use crate::{Digest, Error, Result};

pub use upload::Upload;
pub(crate) use upload::{Sink, file_size};

/// The largest artifact, in bytes.
pub const MAX_ARTIFACT_BYTES: u64 = 256 * 1024 * 1024;
/// How long after a pin a job is first asked about, and how often then.
pub const PIN_CHECK: Duration = Duration::from_secs(5 * 60);

/// How much is kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Results and artifacts together, in bytes; past it what was used longest ago goes. Default
    /// [`Limits::CACHE_BYTES`].
    pub cache_bytes: u64,
    /// Uploaded blobs together, in bytes; past it uploads are refused. Default
    /// [`Limits::UPLOAD_BYTES`].
    pub upload_bytes: u64,
    /// How long an artifact is kept after it was last stored or used. Default [`Limits::TTL`].
    pub artifact_ttl: Duration,
    /// How long an uploaded blob is kept after it was last stored, asked for, or needed by a job.
    /// Default [`Limits::TTL`].
    pub upload_ttl: Duration,
}

impl Limits {
    /// Default of [`Limits::cache_bytes`].
    pub const CACHE_BYTES: u64 = 1024 * 1024 * 1024;
    /// Default of [`Limits::upload_bytes`]: twice what one job may name.
    pub const UPLOAD_BYTES: u64 = 2 * 1024 * 1024 * 1024;
    /// A day, as long as results of jobs are kept.
    pub const TTL: Duration = Duration::from_secs(24 * 60 * 60);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cache_bytes: Self::CACHE_BYTES,
            upload_bytes: Self::UPLOAD_BYTES,
            artifact_ttl: Self::TTL,
            upload_ttl: Self::TTL,
        }
    }
}

/// How many there are, and how large they are together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Room {
    /// How many.
    pub entries: u64,
    /// Together.
    pub bytes: u64,
}

/// What is kept, and how well it served. Counters count since the store is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Results of jobs.
    pub results: Room,
    /// Files of jobs.
    pub artifacts: Room,
    /// Uploaded blobs.
    pub uploads: Room,
    /// [`Limits::cache_bytes`].
    pub cache_bytes: u64,
    /// [`Limits::upload_bytes`].
    pub upload_bytes: u64,
    /// Jobs answered with an equal job's result.
    pub hits: u64,
    /// Cacheable jobs that had to be run.
    pub misses: u64,
    /// Entries that went because the cache was full.
    pub evictions: u64,
    /// When the entry was last used that goes next; `None` in an empty cache.
    pub oldest: Option<Timestamp>,
    /// Jobs that hold blobs.
    pub pinned_jobs: u64,
}

impl Stats {
    /// Hits among all that was asked, 0.0–1.0; 0 before the first.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn hit_rate(&self) -> f64 {
        let asked = self.hits + self.misses;
        if asked == 0 { 0.0 } else { self.hits as f64 / asked as f64 }
    }
}

/// Bytes named by what they are: their SHA-256.
///
/// There are two sorts. *Artifacts* are what jobs leave behind: they share [`Limits::cache_bytes`]
/// with the results, and what was used longest ago makes room. *Uploads* are what jobs need: they
/// go only by their age, never for room, and not while a job holds them ([`Artifacts::pin`]).
/// Bytes that are both count as an upload.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// Keeps an artifact; bytes that are there already are kept longer.
    ///
    /// # Errors
    /// [`Error`], also [`Error::TooLarge`] for more than the whole cache. Then nothing, or a whole
    /// artifact, is there; never a part.
    async fn put(&self, bytes: Bytes) -> Result<Digest>;

    /// Begins an upload of unknown bytes. One that is not finished leaves nothing behind.
    ///
    /// # Errors
    /// [`Error`].
    async fn upload(&self) -> Result<Upload>;

    /// The bytes, checked against their name; `None` when they are not there (any more). They are
    /// kept longer for it.
    ///
    /// # Errors
    /// [`Error`].
    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>>;

    /// Keeps bytes longer: their time begins anew; false when they are not there.
    ///
    /// # Errors
    /// [`Error`].
    async fn touch(&self, digest: &Digest) -> Result<bool>;

    /// Whether the bytes are there and whole: all of them are read and held against their name.
    /// They are kept longer for it; damaged ones are taken away, so that they can be put again.
    ///
    /// # Errors
    /// [`Error`].
    async fn verify(&self, digest: &Digest) -> Result<bool>;

    /// Holds blobs for a job: until [`Artifacts::release`] none of them goes, whatever its age
    /// and however full the store. Repeating it changes nothing. Answers those that are not
    /// there; the others are held.
    ///
    /// # Errors
    /// [`Error`]; some may be held.
    async fn pin(&self, job: &str, digests: &[Digest]) -> Result<Vec<Digest>>;

    /// Lets go of everything a job holds; each blob's time begins anew when the last job lets go.
    ///
    /// # Errors
    /// [`Error`]; can be repeated.
    async fn release(&self, job: &str) -> Result<()>;

    /// Jobs that hold blobs and were not asked about for [`PIN_CHECK`], at most `max`. Each is
    /// answered to one caller only, who looks whether the job lives and releases it if not.
    ///
    /// # Errors
    /// [`Error`].
    async fn due_pins(&self, max: usize) -> Result<Vec<String>>;

    /// Forgets what is past its time, a bounded number; answers how many. Expected once a minute.
    ///
    /// # Errors
    /// [`Error`].
    async fn tidy(&self) -> Result<u64>;

    /// What is kept, results included.
    ///
    /// # Errors
    /// [`Error`].
    async fn stats(&self) -> Result<Stats>;

    /// Keeps a file's bytes as an artifact, read from `path`.
    ///
    /// # Errors
    /// [`Error`], also when the file is over [`MAX_ARTIFACT_BYTES`].
    async fn put_file(&self, path: &Path) -> Result<(Digest, u64)> {
        file_size(path).await?;
        let bytes = tokio::fs::read(path).await.map_err(|source| Error::File { path: path.to_owned(), source })?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok((self.put(bytes.into()).await?, size))
    }

    /// Uploads a file.
    ///
    /// # Errors
    /// [`Error`], also when the file is over [`MAX_ARTIFACT_BYTES`].
    async fn upload_file(&self, path: &Path) -> Result<(Digest, u64)> {
        let size = file_size(path).await?;
        let mut upload = self.upload().await?;
        upload.write_file(path).await?;
        Ok((upload.finish(None).await?, size))
    }
}

/// Who runs a job of which there may be equal ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// The caller: until the time it named, or until it lets go.
    Mine,
    /// Another one, for this long by now.
    Other {
        /// Since it took the lead.
        age: Duration,
    },
}

/// Results of jobs by what went into them.
#[async_trait]
pub trait Results: Send + Sync {
    /// The result kept under a key, as JSON text; counted as a hit.
    ///
    /// # Errors
    /// [`Error`]; the job is then run.
    async fn get(&self, key: &str) -> Result<Option<String>>;

    /// Keeps a result for `ttl` at most.
    ///
    /// # Errors
    /// [`Error`]; the job is finished all the same.
    async fn put(&self, key: &str, json: &str, ttl: Duration) -> Result<()>;

    /// Forgets a result that turned out to be of no use; its hit is a miss.
    ///
    /// # Errors
    /// [`Error`].
    async fn forget(&self, key: &str) -> Result<()>;

    /// Takes or renews the lead for a key: whoever has it runs the job, for `ttl` from now.
    /// Taking it anew is counted as a miss. `token` names the caller.
    ///
    /// # Errors
    /// [`Error`]; the job is then run without it.
    async fn lead(&self, key: &str, token: &str, ttl: Duration) -> Result<Lead>;

    /// Lets go of the lead, if it is the caller's.
    ///
    /// # Errors
    /// [`Error`]; it ends by itself.
    async fn let_go(&self, key: &str, token: &str) -> Result<()>;

    /// Forgets every result; answers how many. Artifacts stay for those who have their address.
    ///
    /// # Errors
    /// [`Error`]; some may be gone.
    async fn clear(&self) -> Result<u64>;
}

/// What a worker hands to its jobs.
#[derive(Clone)]
pub struct Services {
    /// Inputs and outputs of jobs.
    pub artifacts: Arc<dyn Artifacts>,
    /// Results of equal jobs.
    pub results: Arc<dyn Results>,
    /// Charts that were drawn; none where nothing draws.
    pub images: Option<Arc<crate::images::Images>>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Services")
    }
}
