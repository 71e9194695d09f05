//! Bytes on their way into a store: hashed as they come, kept only as a whole.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

use crate::{Digest, Error, MAX_ARTIFACT_BYTES, Result};

/// What is read of a file at once, in bytes.
const PART_BYTES: usize = 1024 * 1024;

/// Where a store puts the bytes of an upload until it is whole. Dropped, it leaves nothing.
#[async_trait]
pub(crate) trait Sink: Send {
    async fn write(&mut self, part: Bytes) -> Result<()>;
    async fn finish(self: Box<Self>, digest: Digest, bytes: u64) -> Result<()>;
}

/// An upload under way. Memory holds one part of it at a time.
pub struct Upload {
    sink: Box<dyn Sink>,
    hasher: Sha256,
    bytes: u64,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upload({} bytes)", self.bytes)
    }
}

impl Upload {
    pub(crate) fn into(sink: impl Sink + 'static) -> Self {
        Self { sink: Box::new(sink), hasher: Sha256::new(), bytes: 0 }
    }

    /// Adds a part.
    ///
    /// # Errors
    /// [`Error`], also past [`MAX_ARTIFACT_BYTES`]; the upload is then of no more use.
    pub async fn write(&mut self, part: Bytes) -> Result<()> {
        self.bytes += part.len() as u64;
        if self.bytes > MAX_ARTIFACT_BYTES {
            return Err(Error::TooLarge { bytes: self.bytes, max: MAX_ARTIFACT_BYTES });
        }
        self.hasher.update(&part);
        self.sink.write(part).await
    }

    /// Adds a file's bytes.
    ///
    /// # Errors
    /// As [`Upload::write`], and when the file cannot be read.
    pub async fn write_file(&mut self, path: &Path) -> Result<()> {
        let fail = |source| Error::File { path: path.to_owned(), source };
        let mut file = tokio::fs::File::open(path).await.map_err(fail)?;
        loop {
            let mut part = Vec::with_capacity(PART_BYTES);
            let read = (&mut file).take(PART_BYTES as u64).read_to_end(&mut part).await.map_err(fail)?;
            if read == 0 {
                return Ok(());
            }
            self.write(part.into()).await?;
        }
    }

    /// How much has come so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps what came, under its digest.
    ///
    /// # Errors
    /// [`Error::OtherBytes`] when `expected` is another digest, [`Error::QuotaFull`] when uploads
    /// take up as much as they may, and [`Error`]; nothing is kept then.
    pub async fn finish(self, expected: Option<Digest>) -> Result<Digest> {
        let found = Digest::from_hash(self.hasher.finalize().into());
        if expected.is_some_and(|expected| expected != found) {
            return Err(Error::OtherBytes { found });
        }
        self.sink.finish(found, self.bytes).await?;
        Ok(found)
    }
}

/// A file's size.
///
/// # Errors
/// When it cannot be looked at, or is over [`MAX_ARTIFACT_BYTES`].
pub(crate) async fn file_size(path: &Path) -> Result<u64> {
    let facts = tokio::fs::metadata(path).await.map_err(|source| Error::File { path: path.to_owned(), source })?;
    match facts.len() {
        bytes if bytes > MAX_ARTIFACT_BYTES => Err(Error::TooLarge { bytes, max: MAX_ARTIFACT_BYTES }),
        bytes => Ok(bytes),
    }
}
