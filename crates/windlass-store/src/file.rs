//! Artifacts and results as files.
//!
//! `<dir>/artifacts/<first two digits>/<sha256>` and `<dir>/results/<first two>/<key>`. A file is
//! written under a temporary name, synced and renamed, so that a crash leaves the old content
//! or the new. Directories are private to the user.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use windlass_jobs::Timestamp;

use crate::{ARTIFACT_TTL, Artifacts, Digest, Error, Result, Results};

/// Artifacts as files.
#[derive(Debug, Clone)]
pub struct FileArtifacts {
    dir: PathBuf,
}

impl FileArtifacts {
    /// Artifacts below `dir`, which is made on first use.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.join("artifacts") }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.hex();
        self.dir.join(&name[..2]).join(name)
    }
}

#[async_trait]
impl Artifacts for FileArtifacts {
    async fn put(&self, bytes: Bytes) -> Result<Digest> {
        let digest = Digest::of(&bytes);
        if !self.touch(&digest).await? {
            let path = self.path(&digest);
            blocking(move || write_whole(&path, &bytes)).await?;
        }
        Ok(digest)
    }

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>> {
        let path = self.path(digest);
        let Some(bytes) = read_if_there(path).await? else { return Ok(None) };
        Ok((Digest::of(&bytes) == *digest).then(|| bytes.into()))
    }

    async fn touch(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(digest);
        blocking(move || {
            let touched = std::fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
            match touched {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
                Err(source) => Err(Error::File { path, source }),
            }
        })
        .await
    }
}

/// Results as files.
#[derive(Debug, Clone)]
pub struct FileResults {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    expires_at: Timestamp,
    json: String,
}

impl FileResults {
    /// Results below `dir`, which is made on first use.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.join("results") }
    }

    /// Keys are ours (hex digits); anything else is named by its digest.
    fn path(&self, key: &str) -> PathBuf {
        let plain = key.len() >= 2 && key.len() <= 64 && key.bytes().all(|b| b.is_ascii_hexdigit());
        let name = if plain { key.to_owned() } else { Digest::of(key.as_bytes()).hex() };
        self.dir.join(&name[..2]).join(name)
    }
}

#[async_trait]
impl Results for FileResults {
    async fn get(&self, key: &str) -> Result<Option<String>> {
        let Some(bytes) = read_if_there(self.path(key)).await? else { return Ok(None) };
        let kept: Option<Kept> = serde_json::from_slice(&bytes).ok();
        Ok(kept.filter(|kept| kept.expires_at > Timestamp::now()).map(|kept| kept.json))
    }

    async fn put(&self, key: &str, json: &str, ttl: Duration) -> Result<()> {
        let kept = Kept { expires_at: Timestamp::now().plus(ttl), json: json.to_owned() };
        let path = self.path(key);
        let bytes = serde_json::to_vec(&kept).unwrap_or_default();
        blocking(move || write_whole(&path, &bytes)).await
    }
}

/// Deletes files below `dir` that were not touched for longer than [`ARTIFACT_TTL`], and
/// temporary files an hour old. Answers how many files and bytes went.
///
/// # Errors
/// [`Error`] when a directory cannot be read; files that vanish meanwhile do not count.
pub async fn sweep(dir: &Path) -> Result<(u64, u64)> {
    let roots = [dir.join("artifacts"), dir.join("results")];
    blocking(move || {
        let mut gone = (0, 0);
        for root in roots {
            for shard in read_dir(&root)? {
                for file in read_dir(&shard)? {
                    sweep_file(&file, &mut gone);
                }
            }
        }
        Ok(gone)
    })
    .await
}

fn sweep_file(path: &Path, gone: &mut (u64, u64)) {
    let Ok(facts) = std::fs::metadata(path) else { return };
    let age = facts.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
    let is_temporary = path.extension().is_some_and(|e| e == "tmp");
    let keep = if is_temporary { Duration::from_secs(3600) } else { ARTIFACT_TTL };
    if age > keep && std::fs::remove_file(path).is_ok() {
        gone.0 += 1;
        gone.1 += facts.len();
    }
}

fn read_dir(dir: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(entries.filter_map(|e| e.ok().map(|e| e.path())).collect()),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(source) => Err(Error::File { path: dir.to_owned(), source }),
    }
}

async fn read_if_there(path: PathBuf) -> Result<Option<Vec<u8>>> {
    match tokio::fs::read(&path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path, source }),
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |source| Error::File { path: path.to_owned(), source };
    let dir = path.parent().unwrap_or(Path::new("."));
    private_dir(dir).map_err(fail)?;
    let temporary = dir.join(format!("{}.tmp", windlass_jobs::new_ulid()));
    let written = std::fs::File::create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| std::fs::rename(&temporary, path));
    if renamed.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    renamed.map_err(fail)
}

/// Makes a directory and its parents, readable by this user only.
fn private_dir(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}
