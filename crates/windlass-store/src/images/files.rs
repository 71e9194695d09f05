//! Images as files, while Redis is away.
//!
//! `<dir>/<first two digits>/<sha256>.img` holds bytes, `<dir>/meta/<id>.json` what is known of
//! an image. A file is written under a temporary name, synced and renamed. Names come from
//! hashes and ids only. Several processes may share a folder: each sees what the others did
//! when the folder of metadata has changed.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use windlass_jobs::Timestamp;

use super::model::{Cursor, ImageId, ImageMeta, ImageOptions, NewImage, Page, Removed, Stats};
use crate::artifacts::file::{blocking, read_if_there, write_whole};
use crate::{Digest, Error, Result};

/// Images below a folder of their own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FileImages {
    dir: PathBuf,
    options: Arc<ImageOptions>,
    index: Arc<Mutex<Index>>,
}

/// What lies in the folder, as far as it was looked at.
#[derive(Debug, Default)]
struct Index {
    images: BTreeMap<ImageId, ImageMeta>,
    /// The folder's time when it was read last; written in the same tick it may miss a file,
    /// so that a time that is too young is not trusted.
    read_at: Option<SystemTime>,
    counters: Stats,
}

impl Index {
    /// Bytes by name, equal ones once.
    fn blobs(&self) -> HashMap<Digest, (u64, u64)> {
        let mut blobs: HashMap<Digest, (u64, u64)> = HashMap::new();
        for meta in self.images.values() {
            let thumb = meta.thumb.map(|digest| (digest, meta.thumb_bytes));
            for (digest, bytes) in std::iter::once((meta.sha, meta.bytes)).chain(thumb) {
                let entry = blobs.entry(digest).or_insert((bytes, 0));
                entry.1 += 1;
            }
        }
        blobs
    }

    fn bytes(&self) -> u64 {
        self.blobs().values().map(|(bytes, _)| bytes).sum()
    }

    fn oldest_first(&self) -> Vec<ImageId> {
        let mut ids: Vec<(Timestamp, &ImageId)> =
            self.images.values().map(|meta| (meta.created_at, &meta.id)).collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| id.clone()).collect()
    }
}

impl FileImages {
    /// Images below `dir`, which is made on first use.
    #[must_use]
    pub fn new(dir: &Path, options: ImageOptions) -> Self {
        Self { dir: dir.to_owned(), options: Arc::new(options), index: Arc::default() }
    }

    /// Where they lie.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meta_dir(&self) -> PathBuf {
        self.dir.join("meta")
    }

    fn meta_path(&self, id: &ImageId) -> PathBuf {
        self.meta_dir().join(format!("{id}.json"))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let name = digest.hex();
        self.dir.join(&name[..2]).join(format!("{name}.img"))
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let this = self.clone();
        blocking(move || work(&this)).await
    }

    /// Reads what came since the last look, and forgets what went.
    fn look(&self) -> Result<()> {
        let dir = self.meta_dir();
        let changed_at = match std::fs::metadata(&dir).and_then(|facts| facts.modified()) {
            Ok(at) => at,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let mut index = self.index();
                index.images.clear();
                index.read_at = None;
                return Ok(());
            }
            Err(source) => return Err(Error::File { path: dir, source }),
        };
        let settled = changed_at.elapsed().is_ok_and(|age| age.as_millis() > 50);
        if settled && self.index().read_at == Some(changed_at) {
            return Ok(());
        }
        let entries = std::fs::read_dir(&dir).map_err(|source| Error::File { path: dir, source })?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let ids: Vec<ImageId> = names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
        let known = self.index().images.clone();
        let mut images = BTreeMap::new();
        for id in ids {
            let meta = known.get(&id).cloned().or_else(|| read_meta(&self.meta_path(&id)));
            images.extend(meta.map(|meta| (id, meta)));
        }
        let mut index = self.index();
        index.images = images;
        index.read_at = Some(changed_at);
        Ok(())
    }

    /// Keeps an image. An id that is known changes nothing.
    ///
    /// # Errors
    /// [`Error::TooLarge`] before anything is written; [`Error::Expired`]; [`Error::File`].
    pub async fn put(&self, image: &NewImage) -> Result<ImageMeta> {
        let image = image.clone();
        self.work(move |this| this.put_now(&image)).await
    }

    fn put_now(&self, image: &NewImage) -> Result<ImageMeta> {
        let size = |bytes: &Bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let (bytes, thumb_bytes) = (size(&image.bytes), image.thumb.as_ref().map_or(0, size));
        let max = self.options.max_image_bytes.min(self.options.max_file_bytes);
        if bytes + thumb_bytes > max {
            self.index().counters.refused += 1;
            return Err(Error::TooLarge { bytes: bytes + thumb_bytes, max });
        }
        self.look()?;
        if let Some(known) = self.index().images.get(&image.id) {
            return Ok(known.clone());
        }
        let created_at = image.created_at.unwrap_or_else(Timestamp::now);
        let age = image.max_age.map_or(self.options.max_age, |age| age.min(self.options.max_age));
        let expires_at = created_at.plus(age);
        if expires_at <= Timestamp::now() {
            return Err(Error::Expired);
        }
        let (sha, thumb) = (Digest::of(&image.bytes), image.thumb.as_ref().map(|thumb| Digest::of(thumb)));
        let known = self.blob_path(&sha).exists();
        for (digest, bytes) in std::iter::once((sha, &image.bytes)).chain(thumb.zip(image.thumb.as_ref())) {
            let path = self.blob_path(&digest);
            if !path.exists() {
                write_whole(&path, bytes)?;
            }
        }
        let meta = ImageMeta {
            id: image.id.clone(),
            sha,
            bytes,
            thumb,
            thumb_bytes,
            facts: image.facts.clone(),
            created_at,
            expires_at,
        };
        let json = serde_json::to_vec(&meta).unwrap_or_default();
        write_whole(&self.meta_path(&image.id), &json)?;
        {
            let mut index = self.index();
            index.images.insert(meta.id.clone(), meta.clone());
            index.counters.puts += 1;
            index.counters.dedup += u64::from(known);
        }
        self.make_room(Some(&meta.id));
        Ok(meta)
    }

    /// Takes the oldest away while there are more bytes than allowed.
    fn make_room(&self, spared: Option<&ImageId>) -> Removed {
        let mut removed = Removed::default();
        let ids = self.index().oldest_first();
        for id in ids.iter().filter(|id| Some(*id) != spared) {
            if self.index().bytes() <= self.options.max_file_bytes {
                break;
            }
            if let Some(bytes) = self.take(id) {
                removed += Removed { images: 1, bytes };
            }
        }
        self.index().counters.evicted_size += removed.images;
        removed
    }

    /// Takes an image away, and its bytes if nothing else has them; answers how many.
    fn take(&self, id: &ImageId) -> Option<u64> {
        let meta = self.index().images.remove(id)?;
        let _ = std::fs::remove_file(self.meta_path(id));
        let held = self.index().blobs();
        let thumb = meta.thumb.map(|digest| (digest, meta.thumb_bytes));
        let mut freed = 0;
        for (digest, bytes) in std::iter::once((meta.sha, meta.bytes)).chain(thumb) {
            if !held.contains_key(&digest) && std::fs::remove_file(self.blob_path(&digest)).is_ok() {
                freed += bytes;
            }
        }
        Some(freed)
    }

    /// What is known of an image.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn get(&self, id: &ImageId) -> Result<Option<ImageMeta>> {
        let id = id.clone();
        self.work(move |this| {
            let known = this.index().images.get(&id).cloned().filter(|_| this.meta_path(&id).exists());
            let meta = known.or_else(|| read_meta(&this.meta_path(&id)));
            let meta = meta.filter(|meta| meta.expires_at > Timestamp::now());
            let mut index = this.index();
            if meta.is_some() {
                index.counters.hits += 1;
            } else {
                index.counters.misses += 1;
            }
            Ok(meta)
        })
        .await
    }

    /// The bytes of that name, checked against it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn bytes(&self, digest: &Digest) -> Result<Option<Bytes>> {
        let path = self.blob_path(digest);
        let bytes = blocking(move || read_if_there(&path)).await?;
        Ok(bytes.filter(|bytes| Digest::of(bytes) == *digest).map(Bytes::from))
    }

    /// The newest image that was drawn from these args.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn find(&self, spec: &str) -> Result<Option<ImageMeta>> {
        let spec = spec.to_owned();
        let fits = move |meta: &&ImageMeta| meta.facts.spec == spec && meta.expires_at > Timestamp::now();
        self.work(move |this| {
            this.look()?;
            Ok(this.index().images.values().filter(fits).max_by_key(|meta| meta.created_at).cloned())
        })
        .await
    }

    /// Part of the list of all images, or of a symbol's, newest first.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn list(&self, symbol: Option<&str>, after: Option<&Cursor>, limit: usize) -> Result<Page> {
        let (symbol, after) = (symbol.map(str::to_owned), after.cloned());
        self.work(move |this| {
            this.look()?;
            let mut images: Vec<ImageMeta> = this.index().images.values().cloned().collect();
            images.retain(|meta| symbol.as_ref().is_none_or(|symbol| meta.facts.symbol == *symbol));
            images.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
            if let Some(after) = after {
                images.retain(|meta| (meta.created_at.0, &meta.id) < (after.created_ms, &after.id));
            }
            let more = images.len() > limit.max(1);
            images.truncate(limit.max(1));
            let next = if more { images.last().map(ImageMeta::cursor) } else { None };
            Ok(Page { images, next })
        })
        .await
    }

    /// Deletes an image; false when it is not there.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn delete(&self, id: &ImageId) -> Result<bool> {
        let id = id.clone();
        self.work(move |this| {
            this.look()?;
            let deleted = this.take(&id).is_some();
            this.index().counters.deleted += u64::from(deleted);
            Ok(deleted)
        })
        .await
    }

    /// Deletes every image, or a symbol's, or a symbol's of one interval.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn clear(&self, symbol: Option<&str>, interval: Option<&str>) -> Result<Removed> {
        let (symbol, interval) = (symbol.map(str::to_owned), interval.map(str::to_owned));
        self.work(move |this| {
            this.look()?;
            let fits = |meta: &&ImageMeta| {
                symbol.as_ref().is_none_or(|symbol| meta.facts.symbol == *symbol)
                    && interval.as_ref().is_none_or(|interval| meta.facts.interval == *interval)
            };
            let ids: Vec<ImageId> = this.index().images.values().filter(fits).map(|meta| meta.id.clone()).collect();
            let removed = this.take_all(&ids);
            this.index().counters.deleted += removed.images;
            Ok(removed)
        })
        .await
    }

    fn take_all(&self, ids: &[ImageId]) -> Removed {
        let mut removed = Removed::default();
        for bytes in ids.iter().filter_map(|id| self.take(id)) {
            removed += Removed { images: 1, bytes };
        }
        removed
    }

    /// Takes away what is too old, and what is above the bytes allowed.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn sweep(&self) -> Result<Removed> {
        self.work(|this| {
            this.look()?;
            let now = Timestamp::now();
            let limit = this.options.max_age;
            let over = |meta: &&ImageMeta| meta.expires_at <= now || meta.created_at.plus(limit) <= now;
            let ids: Vec<ImageId> = this.index().images.values().filter(over).map(|meta| meta.id.clone()).collect();
            let mut removed = this.take_all(&ids);
            this.index().counters.evicted_age += removed.images;
            removed += this.make_room(None);
            Ok(removed)
        })
        .await
    }

    /// Levels, and the counters of this process.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn stats(&self) -> Result<Stats> {
        self.work(|this| {
            this.look()?;
            let index = this.index();
            let times: Vec<i64> = index.images.values().map(|meta| meta.created_at.0).collect();
            let count = i64::try_from(times.len()).unwrap_or(i64::MAX);
            Ok(Stats {
                count: count.unsigned_abs(),
                bytes: index.bytes(),
                oldest_ms: times.iter().min().copied(),
                newest_ms: times.iter().max().copied(),
                mean_ms: (count > 0).then(|| times.iter().sum::<i64>() / count),
                ..index.counters.clone()
            })
        })
        .await
    }

    /// The oldest images with their bytes, to be moved; those whose bytes are gone go.
    pub(super) async fn oldest(&self, count: usize) -> Result<Vec<NewImage>> {
        self.work(move |this| {
            this.look()?;
            let ids = this.index().oldest_first();
            let mut images = Vec::new();
            for id in ids.into_iter().take(count) {
                let Some(meta) = this.index().images.get(&id).cloned() else { continue };
                let bytes = |digest: &Digest| {
                    let read = std::fs::read(this.blob_path(digest)).ok();
                    read.filter(|bytes| Digest::of(bytes) == *digest).map(Bytes::from)
                };
                match bytes(&meta.sha) {
                    Some(file) => images.push(NewImage {
                        id,
                        bytes: file,
                        thumb: meta.thumb.as_ref().and_then(bytes),
                        created_at: Some(meta.created_at),
                        max_age: Some(meta.expires_at.since(meta.created_at)),
                        facts: meta.facts,
                    }),
                    None => drop(this.take(&id)),
                }
            }
            Ok(images)
        })
        .await
    }

    /// Forgets an image that is kept elsewhere now; it counts as none that was deleted.
    pub(super) async fn moved(&self, id: &ImageId) -> Result<()> {
        let id = id.clone();
        self.work(move |this| {
            this.take(&id);
            Ok(())
        })
        .await
    }
}

fn read_meta(path: &Path) -> Option<ImageMeta> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
