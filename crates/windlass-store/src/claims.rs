//! Claims: who did something first, for requests that are sent twice.
//!
//! | where | name | holds | bound |
//! |---|---|---|---|
//! | Redis | `{prefix}:idem:<sha256>` | string, PX: the text | its time |
//! | files | `claims/<sha256>` | its end in ms, a line break, the text | its time; swept now and then |
//!
//! On the queue's Redis, which does not evict: what is forgotten here would be done twice.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use windlass_jobs::{Timestamp, millis, new_ulid};
use windlass_redis::{FromRedisValue as _, Link, Value, cmd};

use crate::{Digest, Error, Result};

/// So many claims on files, then those past their time are swept.
const SWEEP_EVERY: u32 = 256;

/// Names that are taken once.
#[async_trait]
pub trait Claims: Send + Sync {
    /// Takes a name for `ttl` with a text; `None` when it is the caller's now, else the text of whoever
    /// has it.
    ///
    /// # Errors
    /// [`Error`]; whether it was taken is then not known, and it may be tried again.
    async fn claim(&self, name: &Digest, text: &str, ttl: Duration) -> Result<Option<String>>;

    /// Replaces the text of a name that is taken; its time stays.
    ///
    /// # Errors
    /// [`Error`].
    async fn settle(&self, name: &Digest, text: &str) -> Result<()>;
}

/// Claims on Redis.
#[derive(Debug, Clone)]
pub struct RedisClaims {
    link: Link,
    prefix: String,
}

impl RedisClaims {
    /// Claims on the Redis of `link`, under `{prefix}:idem:`.
    #[must_use]
    pub fn new(link: Link, prefix: &str) -> Self {
        Self { link, prefix: prefix.to_owned() }
    }

    fn key(&self, name: &Digest) -> String {
        format!("{}:idem:{}", self.prefix, name.hex())
    }
}

fn failed(operation: &'static str) -> impl Fn(windlass_redis::Error) -> Error {
    move |source| Error::Redis { operation, source }
}

#[async_trait]
impl Claims for RedisClaims {
    async fn claim(&self, name: &Digest, text: &str, ttl: Duration) -> Result<Option<String>> {
        let key = self.key(name);
        let (mut set, mut get) = (cmd("SET"), cmd("GET"));
        set.arg(&key).arg(text).arg("NX").arg("PX").arg(millis(ttl));
        get.arg(&key);
        loop {
            if self.link.call(&set).await.map_err(failed("claim"))? != Value::Nil {
                return Ok(None);
            }
            // Gone when its time was over in between.
            if let found @ (Value::BulkString(_) | Value::SimpleString(_)) =
                self.link.call(&get).await.map_err(failed("claim"))?
            {
                return String::from_redis_value(found).map(Some).map_err(|_| Error::Reply { operation: "claim" });
            }
        }
    }

    async fn settle(&self, name: &Digest, text: &str) -> Result<()> {
        let mut set = cmd("SET");
        set.arg(self.key(name)).arg(text).arg("XX").arg("KEEPTTL");
        self.link.call(&set).await.map(|_| ()).map_err(failed("settle claim"))
    }
}

/// Claims on files, shared by the processes of one machine.
#[derive(Debug, Clone)]
pub struct FileClaims {
    dir: Arc<PathBuf>,
    made: Arc<AtomicU32>,
}

impl FileClaims {
    /// Claims in `claims` below this directory, made on first use for this user only.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: Arc::new(dir.join("claims")), made: Arc::new(AtomicU32::new(0)) }
    }

    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|e| Err(Error::Unexpected { operation: "claim", detail: e.to_string() }))
    }
}

#[async_trait]
impl Claims for FileClaims {
    async fn claim(&self, name: &Digest, text: &str, ttl: Duration) -> Result<Option<String>> {
        let sweeps = self.made.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1;
        let (dir, path) = (Arc::clone(&self.dir), self.dir.join(name.hex()));
        let content = format!("{}\n{text}", Timestamp::now().plus(ttl).0);
        Self::blocking(move || {
            if sweeps {
                sweep(&dir);
            }
            take(&dir, &path, &content)
        })
        .await
    }

    async fn settle(&self, name: &Digest, text: &str) -> Result<()> {
        let (dir, path, text) = (Arc::clone(&self.dir), self.dir.join(name.hex()), text.to_owned());
        Self::blocking(move || {
            let Some((end, _)) = read(&path)? else { return Ok(()) };
            let temporary = write(&dir, &format!("{}\n{text}", end.0))?;
            std::fs::rename(&temporary, &path).map_err(|source| Error::File { path, source })
        })
        .await
    }
}

fn take(dir: &Path, path: &Path, content: &str) -> Result<Option<String>> {
    let fail = |source| Error::File { path: path.to_owned(), source };
    let temporary = write(dir, content)?;
    let taken = loop {
        // A link is made or is there already: no two have it.
        match std::fs::hard_link(&temporary, path) {
            Ok(()) => break Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => break Err(fail(e)),
        }
        match read(path) {
            Ok(Some((end, text))) if end > Timestamp::now() => break Ok(Some(text)),
            Ok(_) => drop(std::fs::remove_file(path)),
            Err(e) => break Err(e),
        }
    };
    let _ = std::fs::remove_file(&temporary);
    taken
}

/// Its end and text; `None` when it is not there or cannot be one.
fn read(path: &Path) -> Result<Option<(Timestamp, String)>> {
    match std::fs::read_to_string(path) {
        Ok(content) => {
            Ok(content.split_once('\n').and_then(|(end, text)| Some((Timestamp(end.parse().ok()?), text.to_owned()))))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

fn write(dir: &Path, content: &str) -> Result<PathBuf> {
    let path = dir.join(format!(".{}", new_ulid()));
    let written = || {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()
    };
    written().map_err(|source| Error::File { path: path.clone(), source })?;
    Ok(path)
}

/// Removes what is past its time. What cannot be read or removed is left for the next sweep.
fn sweep(dir: &Path) {
    let now = Timestamp::now();
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if let Ok(Some((end, _))) = read(&entry.path())
            && end <= now
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
