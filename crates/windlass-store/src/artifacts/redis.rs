//! Artifacts, uploads and results on Redis.
//!
//! With prefix `wl`, all keys start with `wl:{art}:` and share one slot, so that a script can make
//! room in one step. What a verb does is said in `lua/cache.lua`.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `d:<sha256>` | string, PX unless a job holds it | bytes of an artifact or upload |
//! | `d:r:<key>` | string, PX | a result as JSON |
//! | `meta` | hash | name → `class:bytes:holders`; class a, u or r |
//! | `exp` | sorted set, ms | what nobody holds, by when it goes |
//! | `lru:a` `lru:r` | sorted set, µs | artifacts and results nobody holds, by last use |
//! | `stat` | hash | `n_*` and `b_*` entries and bytes per class, `hits`, `misses`, `evictions` |
//! | `jobs` | sorted set, ms | jobs that hold blobs, by when they are asked about |
//! | `job:<id>` | set | what the job holds; goes with its member in `jobs` |
//! | `f:<key>` | string, PX | who runs the job of this key, and since when |
//! | `t:<ulid>` | string, PX 10 min | an upload under way |
//!
//! `meta`, `exp`, `lru:*` have an entry per thing kept, bounded by cap and quota.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use windlass_jobs::{Timestamp, millis};
use windlass_redis::{Cmd, Link, Script, Value, cmd};

use super::{Artifacts, Lead, Limits, PIN_CHECK, Results, Room, Services, Sink, Stats, Upload};
use crate::{Digest, Error, Result};

/// What travels in one command, in bytes: other callers of the connection wait that long at most.
const PART_BYTES: usize = 1024 * 1024;
/// Most names in one call of the script.
const MAX_NAMES: usize = 250;
/// How long an upload that broke off takes up room.
const INCOMING_TTL: Duration = Duration::from_secs(600);

/// Artifacts and results on the Redis of `link`, under `{prefix}:{art}:`, within limits.
#[must_use]
pub fn redis_services(link: &Link, prefix: &str, limits: Limits) -> Services {
    let store = Store::new(link.clone(), prefix, limits);
    let artifacts = Arc::new(RedisArtifacts { store: store.clone() });
    Services { artifacts, results: Arc::new(RedisResults { store }), images: None }
}

/// Artifacts on Redis.
#[derive(Debug, Clone)]
pub struct RedisArtifacts {
    store: Store,
}

impl RedisArtifacts {
    /// Artifacts on the Redis of `link`, within the default limits.
    #[must_use]
    pub fn new(link: Link, prefix: &str) -> Self {
        Self { store: Store::new(link, prefix, Limits::default()) }
    }
}

/// Results on Redis.
#[derive(Debug, Clone)]
pub struct RedisResults {
    store: Store,
}

impl RedisResults {
    /// Results on the Redis of `link`, within the default limits.
    #[must_use]
    pub fn new(link: Link, prefix: &str) -> Self {
        Self { store: Store::new(link, prefix, Limits::default()) }
    }
}

#[derive(Debug, Clone)]
struct Store {
    link: Link,
    base: String,
    limits: Limits,
    script: Arc<Script>,
}

impl Store {
    fn new(link: Link, prefix: &str, limits: Limits) -> Self {
        let script = Arc::new(Script::new(include_str!("lua/cache.lua")));
        Self { link, base: format!("{prefix}:{{art}}"), limits, script }
    }

    fn verb(&self, verb: &str) -> Cmd {
        let mut call = self.script.on(&self.base);
        call.arg(verb).arg(self.limits.cache_bytes).arg(self.limits.upload_bytes);
        call.arg(millis(self.limits.artifact_ttl)).arg(millis(self.limits.upload_ttl));
        call
    }

    async fn run(&self, operation: &'static str, call: &Cmd) -> Result<Value> {
        self.script.run(&self.link, call).await.map_err(|source| Error::Redis { operation, source })
    }

    async fn call(&self, operation: &'static str, call: &Cmd) -> Result<Value> {
        self.link.call(call).await.map_err(|source| Error::Redis { operation, source })
    }

    fn incoming(&self) -> String {
        format!("{}:t:{}", self.base, windlass_jobs::new_ulid())
    }

    /// Adds to a key that goes by itself when it is not kept.
    async fn append(&self, key: &str, bytes: &[u8], is_first: bool) -> Result<()> {
        let mut is_first = is_first;
        // At least once, so that an empty blob has a key as well.
        let parts = bytes.chunks(PART_BYTES).chain(std::iter::once(&[][..]).take(usize::from(bytes.is_empty())));
        for part in parts {
            let mut call = if is_first { cmd("SET") } else { cmd("APPEND") };
            call.arg(key).arg(part);
            if is_first {
                call.arg("PX").arg(millis(INCOMING_TTL));
            }
            self.call("write blob", &call).await?;
            is_first = false;
        }
        Ok(())
    }

    /// Puts what lies in `temporary` under its name.
    async fn keep(&self, temporary: &str, digest: &Digest, class: &str, bytes: u64) -> Result<()> {
        let mut call = self.verb("keep");
        call.arg(temporary).arg(digest.hex()).arg(class).arg(bytes);
        match self.run("keep blob", &call).await? {
            Value::BulkString(word) if word == b"large" => Err(Error::TooLarge { bytes, max: self.limits.cache_bytes }),
            Value::BulkString(word) if word == b"kept" || word == b"known" => Ok(()),
            Value::Array(full) => {
                let used = full.get(1).and_then(integer).unwrap_or(0);
                Err(Error::QuotaFull { used: u64::try_from(used).unwrap_or(0), max: self.limits.upload_bytes })
            }
            _ => Err(Error::Reply { operation: "keep blob" }),
        }
    }

    /// The sizes of blobs, kept longer from now; `None` where one is not there.
    async fn touch(&self, names: &[String]) -> Result<Vec<Option<u64>>> {
        let mut call = self.verb("touch");
        call.arg(names);
        let sizes = integers("touch blob", &self.run("touch blob", &call).await?)?;
        Ok(sizes.into_iter().map(|size| u64::try_from(size).ok()).collect())
    }

    async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.touch(&[digest.hex()]).await?.into_iter().next().flatten())
    }

    async fn read(&self, digest: &Digest, size: usize) -> Result<Bytes> {
        let mut bytes = BytesMut::with_capacity(size);
        while bytes.len() < size {
            match self.part(digest, bytes.len()).await? {
                Some(part) => bytes.extend_from_slice(&part),
                None => break,
            }
        }
        Ok(bytes.freeze())
    }

    /// What follows the first `from` bytes, at most [`PART_BYTES`] of it; `None` after the last.
    async fn part(&self, digest: &Digest, from: usize) -> Result<Option<Vec<u8>>> {
        let mut call = cmd("GETRANGE");
        call.arg(format!("{}:d:{}", self.base, digest.hex())).arg(from).arg(from + PART_BYTES - 1);
        Ok(match self.call("read blob", &call).await? {
            Value::BulkString(part) if !part.is_empty() => Some(part),
            _ => None,
        })
    }
}

struct Incoming {
    store: Store,
    key: String,
    begun: bool,
}

#[async_trait]
impl Sink for Incoming {
    async fn write(&mut self, part: Bytes) -> Result<()> {
        let is_first = !std::mem::replace(&mut self.begun, true);
        self.store.append(&self.key, &part, is_first).await
    }

    async fn finish(self: Box<Self>, digest: Digest, bytes: u64) -> Result<()> {
        if !self.begun {
            self.store.append(&self.key, &[], true).await?;
        }
        self.store.keep(&self.key, &digest, "u", bytes).await
    }
}

#[async_trait]
impl Artifacts for RedisArtifacts {
    async fn put(&self, bytes: Bytes) -> Result<Digest> {
        let digest = Digest::of(&bytes);
        let size = bytes.len() as u64;
        if size > self.store.limits.cache_bytes {
            return Err(Error::TooLarge { bytes: size, max: self.store.limits.cache_bytes });
        }
        if self.touch(&digest).await? {
            return Ok(digest);
        }
        let key = self.store.incoming();
        self.store.append(&key, &bytes, true).await?;
        self.store.keep(&key, &digest, "a", size).await?;
        Ok(digest)
    }

    async fn upload(&self) -> Result<Upload> {
        Ok(Upload::into(Incoming { key: self.store.incoming(), store: self.store.clone(), begun: false }))
    }

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>> {
        let Some(size) = self.store.size(digest).await? else { return Ok(None) };
        let bytes = self.store.read(digest, usize::try_from(size).unwrap_or(usize::MAX)).await?;
        Ok((Digest::of(&bytes) == *digest).then_some(bytes))
    }

    async fn touch(&self, digest: &Digest) -> Result<bool> {
        Ok(self.store.size(digest).await?.is_some())
    }

    async fn verify(&self, digest: &Digest) -> Result<bool> {
        let Some(size) = self.store.size(digest).await? else { return Ok(false) };
        let (mut hasher, mut read) = (Sha256::new(), 0);
        while let Some(part) = self.store.part(digest, read).await? {
            hasher.update(&part);
            read += part.len();
        }
        if read as u64 == size && Digest::from_hash(hasher.finalize().into()) == *digest {
            return Ok(true);
        }
        tracing::warn!(%digest, "kept bytes are damaged: they are taken away");
        let mut call = cmd("UNLINK");
        call.arg(format!("{}:d:{}", self.store.base, digest.hex()));
        self.store.call("remove blob", &call).await.map(|_| false)
    }

    async fn pin(&self, job: &str, digests: &[Digest]) -> Result<Vec<Digest>> {
        let mut missing = Vec::new();
        for part in digests.chunks(MAX_NAMES) {
            let names: Vec<String> = part.iter().map(Digest::hex).collect();
            let mut call = self.store.verb("pin");
            call.arg(job).arg(millis(PIN_CHECK)).arg(&names);
            let held = integers("pin blobs", &self.store.run("pin blobs", &call).await?)?;
            missing.extend(part.iter().zip(held).filter(|(_, held)| *held == 0).map(|(digest, _)| *digest));
        }
        Ok(missing)
    }

    async fn release(&self, job: &str) -> Result<()> {
        loop {
            let mut call = self.store.verb("release");
            call.arg(job);
            match self.store.run("release blobs", &call).await? {
                Value::Int(1..) => {}
                _ => return Ok(()),
            }
        }
    }

    async fn due_pins(&self, max: usize) -> Result<Vec<String>> {
        let mut call = self.store.verb("due");
        call.arg(max.min(MAX_NAMES)).arg(millis(PIN_CHECK));
        let Value::Array(jobs) = self.store.run("due pins", &call).await? else {
            return Err(Error::Reply { operation: "due pins" });
        };
        Ok(jobs.iter().filter_map(text).collect())
    }

    async fn tidy(&self) -> Result<u64> {
        let mut gone = 0;
        loop {
            let slice = self.store.run("tidy cache", &self.store.verb("tidy")).await?;
            let slice = integer(&slice).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            gone += slice;
            if slice < 100 {
                return Ok(gone);
            }
        }
    }

    async fn stats(&self) -> Result<Stats> {
        let Value::Array(fields) = self.store.run("cache stats", &self.store.verb("stats")).await? else {
            return Err(Error::Reply { operation: "cache stats" });
        };
        let of = |name: &str| {
            let mut pairs = fields.chunks_exact(2).filter(|pair| text(&pair[0]).as_deref() == Some(name));
            pairs.next().and_then(|pair| text(&pair[1])?.parse::<u64>().ok()).unwrap_or(0)
        };
        let room = |class: &str| Room { entries: of(&format!("n_{class}")), bytes: of(&format!("b_{class}")) };
        let oldest_ms = of("oldest");
        Ok(Stats {
            results: room("r"),
            artifacts: room("a"),
            uploads: room("u"),
            cache_bytes: self.store.limits.cache_bytes,
            upload_bytes: self.store.limits.upload_bytes,
            hits: of("hits"),
            misses: of("misses"),
            evictions: of("evictions"),
            oldest: (oldest_ms > 0).then(|| Timestamp::default().plus(Duration::from_millis(oldest_ms))),
            pinned_jobs: of("jobs"),
        })
    }
}

#[async_trait]
impl Results for RedisResults {
    async fn get(&self, key: &str) -> Result<Option<String>> {
        let mut call = self.store.verb("get");
        call.arg(name(key));
        Ok(text(&self.store.run("get result", &call).await?))
    }

    async fn put(&self, key: &str, json: &str, ttl: Duration) -> Result<()> {
        let mut call = self.store.verb("put");
        call.arg(name(key)).arg(json).arg(millis(ttl).max(1));
        match text(&self.store.run("put result", &call).await?).as_deref() {
            Some("large") => Err(Error::TooLarge { bytes: json.len() as u64, max: self.store.limits.cache_bytes }),
            _ => Ok(()),
        }
    }

    async fn forget(&self, key: &str) -> Result<()> {
        let mut call = self.store.verb("forget");
        call.arg(name(key));
        self.store.run("forget result", &call).await.map(|_| ())
    }

    async fn lead(&self, key: &str, token: &str, ttl: Duration) -> Result<Lead> {
        let mut call = self.store.verb("lead");
        call.arg(name(key)).arg(token).arg(millis(ttl).max(1));
        match integers("lead", &self.store.run("lead", &call).await?)?[..] {
            [1, _] => Ok(Lead::Mine),
            [0, age] => Ok(Lead::Other { age: Duration::from_millis(u64::try_from(age).unwrap_or(0)) }),
            _ => Err(Error::Reply { operation: "lead" }),
        }
    }

    async fn let_go(&self, key: &str, token: &str) -> Result<()> {
        let mut call = self.store.verb("let_go");
        call.arg(name(key)).arg(token);
        self.store.run("let go of the lead", &call).await.map(|_| ())
    }

    async fn clear(&self) -> Result<u64> {
        let mut gone = 0;
        loop {
            let slice = self.store.run("clear results", &self.store.verb("clear")).await?;
            match integer(&slice).and_then(|n| u64::try_from(n).ok()) {
                None | Some(0) => return Ok(gone),
                Some(n) => gone += n,
            }
        }
    }
}

/// A result's name in the index, where no digest looks like it.
fn name(key: &str) -> String {
    format!("r:{key}")
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(*n),
        _ => None,
    }
}

fn integers(operation: &'static str, value: &Value) -> Result<Vec<i64>> {
    let all = match value {
        Value::Array(items) => items.iter().map(integer).collect(),
        _ => None,
    };
    all.ok_or(Error::Reply { operation })
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}
