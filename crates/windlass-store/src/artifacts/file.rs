//! Artifacts, uploads and results as files.
//!
//! | below the directory | holds |
//! |---|---|
//! | `artifacts/<2 digits>/<sha256>` | what jobs left behind; time of change = last use |
//! | `blobs/<2 digits>/<sha256>` | uploads; time of change = last use |
//! | `results/<2 digits>/<key>` | `{expires_at, json}`; time of change = last use |
//! | `pins/<job>` | digests the job holds, one a line; time of change = last asked about |
//! | `incoming/<ulid>.tmp` | uploads under way |
//! | `leads/<key>` | see [`super::leads`] |
//! | `cache.counters` | hits, misses and evictions, 8 bytes each, big-endian |
//! | `cache.lock` | held shared by pins, alone by whoever makes room |
//!
//! The directory is the index: it is walked when the cache is over its cap, and once a minute. A
//! file is written under a temporary name, synced and renamed, so that a crash leaves the old
//! content or the new. Directories are private to the user. Processes that share a directory see
//! each other's additions at the next walk, so cap and quota may be passed by a minute's worth.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use windlass_jobs::Timestamp;

use super::{Artifacts, Lead, Limits, PIN_CHECK, Results, Room, Services, Sink, Stats, Upload, leads};
use crate::{Digest, Error, Result};

/// When the cache is over its cap, this share of it is left, in percent.
const LEFT_PERCENT: u64 = 90;
/// What a crash left of a write is gone after this.
const LEFTOVER: Duration = Duration::from_secs(3600);
/// The counters in their file.
const HITS: usize = 0;
const MISSES: usize = 1;
const EVICTIONS: usize = 2;

/// Artifacts and results below `dir`, within limits.
#[must_use]
pub fn file_services(dir: &Path, limits: Limits) -> Services {
    let store = Arc::new(Store::new(dir, limits));
    Services {
        artifacts: Arc::new(FileArtifacts { store: Arc::clone(&store) }),
        results: Arc::new(FileResults { store }),
        images: None,
    }
}

/// Artifacts as files.
#[derive(Debug, Clone)]
pub struct FileArtifacts {
    store: Arc<Store>,
}

impl FileArtifacts {
    /// Artifacts below `dir`, which is made on first use, within the default limits.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { store: Arc::new(Store::new(dir, Limits::default())) }
    }
}

/// Results as files.
#[derive(Debug, Clone)]
pub struct FileResults {
    store: Arc<Store>,
}

impl FileResults {
    /// Results below `dir`, which is made on first use, within the default limits.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { store: Arc::new(Store::new(dir, Limits::default())) }
    }
}

#[derive(Debug)]
struct Store {
    dir: PathBuf,
    limits: Limits,
    /// Bytes of cache and uploads as last walked, with what was added since.
    used: Mutex<Option<Used>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Used {
    cache: u64,
    uploads: u64,
}

/// One file of the cache.
struct Found {
    path: PathBuf,
    used_at: SystemTime,
    bytes: u64,
}

impl Found {
    fn is_older_than(&self, span: Duration) -> bool {
        self.used_at.elapsed().is_ok_and(|age| age > span)
    }

    fn is_leftover(&self) -> bool {
        self.path.extension().is_some_and(|e| e == "tmp")
    }

    /// True when a job holds the bytes.
    fn is_pinned(&self, pinned: &HashSet<String>) -> bool {
        self.path.file_name().and_then(|name| name.to_str()).is_some_and(|name| pinned.contains(name))
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    expires_at: Timestamp,
    json: String,
}

impl Store {
    fn new(dir: &Path, limits: Limits) -> Self {
        Self { dir: dir.to_owned(), limits, used: Mutex::default() }
    }

    fn artifact(&self, digest: &Digest) -> PathBuf {
        sharded(&self.dir.join("artifacts"), &digest.hex())
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        sharded(&self.dir.join("blobs"), &digest.hex())
    }

    /// Keys are ours (hex digits); anything else is named by its digest.
    fn result(&self, key: &str) -> PathBuf {
        sharded(&self.dir.join("results"), &result_name(key))
    }

    fn lock(&self) -> Result<File> {
        let path = self.dir.join("cache.lock");
        let open = || {
            private_dir(&self.dir)?;
            File::options().create(true).append(true).open(&path)
        };
        open().map_err(|source| Error::File { path: path.clone(), source })
    }

    fn locked(&self) -> Result<File> {
        let lock = self.lock()?;
        lock.lock().map_err(|source| Error::File { path: self.dir.join("cache.lock"), source })?;
        Ok(lock)
    }

    /// Where the bytes lie, kept longer from now; `None` when they do not.
    fn touch(&self, digest: &Digest) -> Result<Option<PathBuf>> {
        let places = [self.blob(digest), self.artifact(digest)];
        let mut found = None;
        for path in places {
            if touch(&path)? {
                found.get_or_insert(path);
            }
        }
        Ok(found)
    }

    fn verify(&self, digest: &Digest) -> Result<bool> {
        let mut whole = false;
        for path in [self.blob(digest), self.artifact(digest)] {
            match digest_of_file(&path)? {
                Some(found) if found == *digest => whole |= touch(&path)?,
                Some(_) => {
                    tracing::warn!(%digest, "a kept file is damaged: it is taken away");
                    let _ = fs::remove_file(&path);
                    // Counted anew when it is asked for.
                    *self.used.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                None => {}
            }
        }
        Ok(whole)
    }

    fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.touch(&digest)?.is_none() {
            self.add_to_cache(&self.artifact(&digest), bytes)?;
        }
        Ok(digest)
    }

    fn add_to_cache(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        if size > self.limits.cache_bytes {
            return Err(Error::TooLarge { bytes: size, max: self.limits.cache_bytes });
        }
        // Counted first: a walk finds the new file.
        let used = self.used()?;
        write_whole(path, bytes)?;
        self.set_used(Used { cache: used.cache + size, ..used });
        if used.cache + size > self.limits.cache_bytes {
            let _lock = self.locked()?;
            self.walk(true)?;
        }
        Ok(())
    }

    fn used(&self) -> Result<Used> {
        let known = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(used) => Ok(used),
            None => self.walk(false).map(|(used, _)| used),
        }
    }

    fn set_used(&self, used: Used) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(used);
    }

    /// Counts everything, forgets what is past its time, and makes room when told to: then the
    /// caller holds the lock.
    fn walk(&self, make_room: bool) -> Result<(Used, u64)> {
        let pinned = self.pinned()?;
        let (mut gone, mut used) = (0, Used::default());
        let mut cache = Vec::new();
        for (folder, keep) in [
            ("artifacts", self.limits.artifact_ttl),
            ("results", self.limits.artifact_ttl),
            ("blobs", self.limits.upload_ttl),
            ("incoming", LEFTOVER),
            ("leads", LEFTOVER),
        ] {
            for found in files_of(&self.dir.join(folder))? {
                let keep = if found.is_leftover() { LEFTOVER } else { keep };
                if make_room && found.is_older_than(keep) && !found.is_pinned(&pinned) {
                    gone += u64::from(fs::remove_file(&found.path).is_ok());
                    continue;
                }
                match folder {
                    "blobs" => used.uploads += found.bytes,
                    "artifacts" | "results" => {
                        used.cache += found.bytes;
                        cache.push(found);
                    }
                    _ => {}
                }
            }
        }
        if make_room && used.cache > self.limits.cache_bytes {
            let evicted = self.evict(cache, &pinned, &mut used.cache);
            self.count(EVICTIONS, evicted);
            gone += evicted as u64;
        }
        self.set_used(used);
        Ok((used, gone))
    }

    /// What was used longest ago goes first; what a job holds stays.
    fn evict(&self, mut cache: Vec<Found>, pinned: &HashSet<String>, used: &mut u64) -> i64 {
        cache.sort_by_key(|found| found.used_at);
        // What was just put may be as large as the whole cache.
        cache.pop();
        let enough = self.limits.cache_bytes / 100 * LEFT_PERCENT;
        let mut evicted = 0;
        for found in cache {
            if *used <= enough {
                break;
            }
            if !found.is_pinned(pinned) && fs::remove_file(&found.path).is_ok() {
                *used -= found.bytes;
                evicted += 1;
            }
        }
        evicted
    }

    /// Digests that some job holds.
    fn pinned(&self) -> Result<HashSet<String>> {
        let mut pinned = HashSet::new();
        for found in files_of(&self.dir.join("pins"))? {
            if let Ok(text) = fs::read_to_string(&found.path) {
                pinned.extend(text.lines().map(str::to_owned));
            }
        }
        Ok(pinned)
    }

    fn pin(&self, job: &str, digests: &[Digest]) -> Result<Vec<Digest>> {
        let lock = self.lock()?;
        let path = self.dir.join("pins").join(plain_name(job));
        let fail = |source| Error::File { path: path.clone(), source };
        lock.lock_shared().map_err(fail)?;
        let mut missing = Vec::new();
        let mut held: Vec<String> = fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_owned).collect();
        for digest in digests {
            match self.touch(digest)? {
                Some(_) => held.push(digest.hex()),
                None => missing.push(*digest),
            }
        }
        held.sort();
        held.dedup();
        if !held.is_empty() {
            private_dir(&self.dir.join("pins")).map_err(fail)?;
            let temporary = path.with_extension(format!("{}.tmp", windlass_jobs::new_ulid()));
            // Not synced: a pin that a power cut takes costs nothing but the guard against age.
            fs::write(&temporary, held.join("\n")).and_then(|()| fs::rename(&temporary, &path)).map_err(fail)?;
        }
        Ok(missing)
    }

    fn release(&self, job: &str) -> Result<()> {
        let path = self.dir.join("pins").join(plain_name(job));
        let held = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Error::File { path, source }),
        };
        for digest in held.lines().filter_map(|line| line.parse().ok()) {
            self.touch(&digest)?;
        }
        fs::remove_file(&path).map_err(|source| Error::File { path, source })
    }

    fn due_pins(&self, max: usize) -> Result<Vec<String>> {
        let _lock = self.locked()?;
        let mut due = Vec::new();
        for found in files_of(&self.dir.join("pins"))? {
            if due.len() == max {
                break;
            }
            if found.is_leftover() {
                if found.is_older_than(LEFTOVER) {
                    let _ = fs::remove_file(&found.path);
                }
            } else if found.is_older_than(PIN_CHECK) && touch(&found.path)? {
                due.extend(found.path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
            }
        }
        Ok(due)
    }

    /// Puts a whole upload under its name. `incoming` is gone afterwards, or left to the caller.
    fn accept(&self, incoming: &Path, digest: &Digest, bytes: u64) -> Result<()> {
        let path = self.blob(digest);
        let fail = |source| Error::File { path: path.clone(), source };
        if touch(&path)? {
            return fs::remove_file(incoming).map_err(fail);
        }
        let mut used = self.used()?;
        if used.uploads + bytes > self.limits.upload_bytes {
            let _lock = self.locked()?;
            used = self.walk(true)?.0;
        }
        if used.uploads + bytes > self.limits.upload_bytes {
            return Err(Error::QuotaFull { used: used.uploads, max: self.limits.upload_bytes });
        }
        private_dir(path.parent().unwrap_or(&self.dir)).map_err(fail)?;
        fs::rename(incoming, &path).map_err(fail)?;
        self.set_used(Used { uploads: used.uploads + bytes, ..used });
        Ok(())
    }

    fn get_result(&self, key: &str) -> Result<Option<String>> {
        let path = self.result(key);
        let Some(bytes) = read_if_there(&path)? else { return Ok(None) };
        let kept: Option<Kept> = serde_json::from_slice(&bytes).ok();
        match kept.filter(|kept| kept.expires_at > Timestamp::now()) {
            Some(kept) => {
                touch(&path)?;
                self.count(HITS, 1);
                Ok(Some(kept.json))
            }
            None => {
                let _ = fs::remove_file(&path);
                Ok(None)
            }
        }
    }

    fn put_result(&self, key: &str, json: String, ttl: Duration) -> Result<()> {
        let path = self.result(key);
        let kept = Kept { expires_at: Timestamp::now().plus(ttl), json };
        self.add_to_cache(&path, &serde_json::to_vec(&kept).unwrap_or_default())
    }

    fn stats(&self) -> Result<Stats> {
        let mut oldest: Option<SystemTime> = None;
        let mut room = |folder: &str, ages: bool| -> Result<Room> {
            let mut room = Room::default();
            for found in files_of(&self.dir.join(folder))?.iter().filter(|found| !found.is_leftover()) {
                room.entries += 1;
                room.bytes += found.bytes;
                if ages {
                    oldest = Some(oldest.map_or(found.used_at, |at| at.min(found.used_at)));
                }
            }
            Ok(room)
        };
        let (results, artifacts, uploads) = (room("results", true)?, room("artifacts", true)?, room("blobs", false)?);
        let counters = self.counters();
        let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Stats {
            results,
            artifacts,
            uploads,
            cache_bytes: self.limits.cache_bytes,
            upload_bytes: self.limits.upload_bytes,
            hits: counters[HITS],
            misses: counters[MISSES],
            evictions: counters[EVICTIONS],
            oldest: oldest.map(|at| Timestamp::default().plus(since(at))),
            pinned_jobs: files_of(&self.dir.join("pins"))?.iter().filter(|found| !found.is_leftover()).count() as u64,
        })
    }

    fn counters(&self) -> [u64; 3] {
        fs::read(self.dir.join("cache.counters")).map(|bytes| counters_of(&bytes)).unwrap_or_default()
    }

    /// Counters serve people: one that cannot be written holds nothing up.
    fn count(&self, which: usize, by: i64) {
        let add = || -> io::Result<()> {
            private_dir(&self.dir)?;
            let path = self.dir.join("cache.counters");
            let mut file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
            file.lock()?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let mut counters = counters_of(&bytes);
            counters[which] = counters[which].saturating_add_signed(by);
            file.rewind()?;
            file.write_all(&counters.map(u64::to_be_bytes).concat())
        };
        if let Err(error) = add() {
            tracing::debug!(%error, "cache counters not written");
        }
    }

    fn lead(&self, key: &str, token: &str, ttl: Duration) -> Result<Lead> {
        let dir = self.dir.join("leads");
        let led = leads::lead(&dir, &result_name(key), token, ttl);
        let (lead, anew) = led.map_err(|source| Error::File { path: dir, source })?;
        if anew {
            self.count(MISSES, 1);
        }
        Ok(lead)
    }

    fn let_go(&self, key: &str, token: &str) -> Result<()> {
        let dir = self.dir.join("leads");
        leads::let_go(&dir, &result_name(key), token).map_err(|source| Error::File { path: dir, source })
    }

    fn clear(&self) -> Result<u64> {
        let _lock = self.locked()?;
        let mut gone = 0;
        for found in files_of(&self.dir.join("results"))? {
            gone += u64::from(fs::remove_file(&found.path).is_ok());
        }
        self.walk(false)?;
        Ok(gone)
    }
}

/// An upload's temporary file.
struct Incoming {
    store: Arc<Store>,
    path: PathBuf,
    file: Option<tokio::fs::File>,
}

#[async_trait]
impl Sink for Incoming {
    async fn write(&mut self, part: Bytes) -> Result<()> {
        let fail = |source| Error::File { path: self.path.clone(), source };
        match &mut self.file {
            Some(file) => file.write_all(&part).await.map_err(fail),
            None => Err(fail(io::Error::other("the upload has ended"))),
        }
    }

    async fn finish(mut self: Box<Self>, digest: Digest, bytes: u64) -> Result<()> {
        if let Some(mut file) = self.file.take() {
            let fail = |source| Error::File { path: self.path.clone(), source };
            file.flush().await.map_err(fail)?;
            file.sync_all().await.map_err(fail)?;
        }
        let (store, path) = (Arc::clone(&self.store), self.path.clone());
        blocking(move || store.accept(&path, &digest, bytes)).await
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Renamed when all went well.
        let _ = fs::remove_file(&self.path);
    }
}

#[async_trait]
impl Artifacts for FileArtifacts {
    async fn put(&self, bytes: Bytes) -> Result<Digest> {
        self.ask(move |store| store.put(&bytes)).await
    }

    async fn upload(&self) -> Result<Upload> {
        let dir = self.store.dir.join("incoming");
        let path = dir.join(format!("{}.tmp", windlass_jobs::new_ulid()));
        let made = path.clone();
        let file = blocking(move || {
            let made_dir = private_dir(&dir).and_then(|()| File::create_new(&made));
            made_dir.map_err(|source| Error::File { path: made, source })
        });
        let file = Some(tokio::fs::File::from_std(file.await?));
        Ok(Upload::into(Incoming { store: Arc::clone(&self.store), path, file }))
    }

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>> {
        let digest = *digest;
        self.ask(move |store| {
            let Some(path) = store.touch(&digest)? else { return Ok(None) };
            let bytes = read_if_there(&path)?;
            Ok(bytes.filter(|bytes| Digest::of(bytes) == digest).map(Bytes::from))
        })
        .await
    }

    async fn touch(&self, digest: &Digest) -> Result<bool> {
        let digest = *digest;
        self.ask(move |store| store.touch(&digest).map(|path| path.is_some())).await
    }

    async fn verify(&self, digest: &Digest) -> Result<bool> {
        let digest = *digest;
        self.ask(move |store| store.verify(&digest)).await
    }

    async fn pin(&self, job: &str, digests: &[Digest]) -> Result<Vec<Digest>> {
        let (job, digests) = (job.to_owned(), digests.to_vec());
        self.ask(move |store| store.pin(&job, &digests)).await
    }

    async fn release(&self, job: &str) -> Result<()> {
        let job = job.to_owned();
        self.ask(move |store| store.release(&job)).await
    }

    async fn due_pins(&self, max: usize) -> Result<Vec<String>> {
        self.ask(move |store| store.due_pins(max)).await
    }

    async fn tidy(&self) -> Result<u64> {
        self.ask(|store| {
            let _lock = store.locked()?;
            store.walk(true).map(|(_, gone)| gone)
        })
        .await
    }

    async fn stats(&self) -> Result<Stats> {
        self.ask(Store::stats).await
    }
}

impl FileArtifacts {
    async fn ask<T: Send + 'static>(&self, work: impl FnOnce(&Store) -> Result<T> + Send + 'static) -> Result<T> {
        let store = Arc::clone(&self.store);
        blocking(move || work(&store)).await
    }
}

#[async_trait]
impl Results for FileResults {
    async fn get(&self, key: &str) -> Result<Option<String>> {
        self.ask(key, Store::get_result).await
    }

    async fn put(&self, key: &str, json: &str, ttl: Duration) -> Result<()> {
        let json = json.to_owned();
        self.ask(key, move |store, key| store.put_result(key, json, ttl)).await
    }

    async fn forget(&self, key: &str) -> Result<()> {
        self.ask(key, |store, key| {
            store.count(HITS, -1);
            let path = store.result(key);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => Err(Error::File { path, source }),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn lead(&self, key: &str, token: &str, ttl: Duration) -> Result<Lead> {
        let token = token.to_owned();
        self.ask(key, move |store, key| store.lead(key, &token, ttl)).await
    }

    async fn let_go(&self, key: &str, token: &str) -> Result<()> {
        let token = token.to_owned();
        self.ask(key, move |store, key| store.let_go(key, &token)).await
    }

    async fn clear(&self) -> Result<u64> {
        self.ask("", |store, _| store.clear()).await
    }
}

impl FileResults {
    async fn ask<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Store, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (store, key) = (Arc::clone(&self.store), key.to_owned());
        blocking(move || work(&store, &key)).await
    }
}

fn result_name(key: &str) -> String {
    let plain = key.len() >= 2 && key.len() <= 64 && key.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { key.to_owned() } else { Digest::of(key.as_bytes()).hex() }
}

/// Job ids as they are; anything that is no file's name, or a strange one, by its digest.
fn plain_name(job: &str) -> String {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let plain = (1..=128).contains(&job.len()) && job.bytes().all(fits) && !job.starts_with('.');
    if plain && !job.ends_with(".tmp") { job.to_owned() } else { Digest::of(job.as_bytes()).hex() }
}

fn sharded(dir: &Path, name: &str) -> PathBuf {
    dir.join(&name[..2]).join(name)
}

fn counters_of(bytes: &[u8]) -> [u64; 3] {
    let mut counters = [0; 3];
    for (counter, bytes) in counters.iter_mut().zip(bytes.chunks_exact(8)) {
        *counter = u64::from_be_bytes(bytes.try_into().unwrap_or_default());
    }
    counters
}

/// Every file of a folder and its folders, but hidden ones.
fn files_of(dir: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(source) => return Err(Error::File { path: dir, source }),
        };
        for entry in entries.filter_map(io::Result::ok) {
            // What vanishes meanwhile does not count.
            let Ok(facts) = entry.metadata() else { continue };
            if facts.is_dir() {
                todo.push(entry.path());
            } else if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                let used_at = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push(Found { path: entry.path(), used_at, bytes: facts.len() });
            }
        }
    }
    Ok(found)
}

/// Says that a file was used now; false when it is not there.
fn touch(path: &Path) -> Result<bool> {
    match File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now())) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

/// What a file's bytes are called; `None` when it is not there.
fn digest_of_file(path: &Path) -> Result<Option<Digest>> {
    let fail = |source| Error::File { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(fail(source)),
    };
    let mut hasher = Sha256::new();
    io::copy(&mut file, &mut hasher).map_err(fail)?;
    Ok(Some(Digest::from_hash(hasher.finalize().into())))
}

pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |source| Error::File { path: path.to_owned(), source };
    let dir = path.parent().unwrap_or(Path::new("."));
    private_dir(dir).map_err(fail)?;
    let temporary = dir.join(format!("{}.tmp", windlass_jobs::new_ulid()));
    let written = File::create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        // The kernel's own stamp is some ms old: older than a file that was touched just before.
        file.set_modified(SystemTime::now())?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    renamed.map_err(fail)
}

/// Makes a directory and its parents, readable by this user only.
pub(super) fn private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}
