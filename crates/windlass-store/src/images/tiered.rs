//! Images on Redis, on files while it is away, and back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use windlass_redis::Class;

use super::breaker::Breaker;
use super::files::FileImages;
use super::model::{Cursor, ImageId, ImageMeta, ImageOptions, NewImage, Page, Place, Removed, Stats, Stored};
use super::redis::RedisImages;
use crate::{Digest, Error, Result};

/// How often files are looked at while there may be some to move.
const MOVE_EVERY: Duration = Duration::from_secs(5);
/// Images moved before others get their turn.
const MOVE_SLICE: usize = 20;

/// The image store of a process: Redis if there is one, and files.
#[derive(Debug)]
pub struct Images {
    redis: Option<RedisImages>,
    files: FileImages,
    options: ImageOptions,
    breaker: Mutex<Breaker>,
    /// Whether it is looked after already.
    begun: AtomicBool,
}

/// How the store stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Redis answers.
    Redis,
    /// Redis is away: files are used.
    Away,
    /// There is no Redis.
    Files,
}

/// Whether an error says that Redis is away rather than that the call is wrong. A full server
/// counts as away; what it would not take goes to files.
fn is_away(error: &Error) -> bool {
    match error {
        Error::Redis { source, .. } => source.class() != Class::Bug,
        _ => false,
    }
}

impl Images {
    /// Images on `redis`, with `files` as the twin; without Redis on files alone.
    #[must_use]
    pub fn new(redis: Option<RedisImages>, files: FileImages, options: ImageOptions) -> Self {
        Self { redis, files, options, breaker: Mutex::default(), begun: AtomicBool::new(false) }
    }

    /// How its Redis is reached, if there is one.
    #[must_use]
    pub fn link(&self) -> Option<&windlass_redis::Link> {
        self.redis.as_ref().map(RedisImages::link)
    }

    /// The limits.
    #[must_use]
    pub const fn options(&self) -> &ImageOptions {
        &self.options
    }

    /// Redis, if there is one, whatever its state.
    #[must_use]
    pub const fn redis(&self) -> Option<&RedisImages> {
        self.redis.as_ref()
    }

    /// The files.
    #[must_use]
    pub const fn files(&self) -> &FileImages {
        &self.files
    }

    /// How it stands, as the last calls saw it.
    #[must_use]
    pub fn health(&self) -> Health {
        match &self.redis {
            None => Health::Files,
            Some(_) if self.breaker().is_open() => Health::Away,
            Some(_) => Health::Redis,
        }
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks Redis, if it may be asked: `None` when there is none or it is away.
    async fn ask<'a, T, F>(&'a self, call: impl FnOnce(&'a RedisImages) -> F) -> Result<Option<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let Some(redis) = &self.redis else { return Ok(None) };
        if !self.breaker().allows(Instant::now()) {
            return Ok(None);
        }
        let reply = call(redis).await;
        match reply {
            Err(error) if is_away(&error) => {
                let opened = self.breaker().failed(Instant::now());
                if opened {
                    tracing::warn!(event = "redis_fallback", server = redis.shown(), error = %crate::error::chain(&error), dir = %self.files.dir().display(),
                        "images: Redis operation failed, using fallback: files until it answers");
                } else {
                    tracing::debug!(event = "redis_fallback", error = %crate::error::chain(&error), "images: Redis operation failed, using fallback");
                }
                Ok(None)
            }
            other => {
                if self.breaker().worked() {
                    tracing::info!(
                        event = "redis_connected",
                        server = redis.shown(),
                        "images: Redis connected successfully, files are moved back"
                    );
                }
                other.map(Some)
            }
        }
    }

    /// Keeps an image, on Redis or else on a file.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Expired`]; [`Error::File`] when neither store took it.
    pub async fn put(&self, image: &NewImage) -> Result<Stored> {
        if let Some(meta) = self.ask(|redis| redis.put(image)).await? {
            return Ok(Stored { meta, place: Place::Redis });
        }
        Ok(Stored { meta: self.files.put(image).await?, place: Place::Files })
    }

    /// What is known of an image.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get(&self, id: &ImageId) -> Result<Option<Stored>> {
        if let Some(Some(meta)) = self.ask(|redis| redis.get(id)).await? {
            return Ok(Some(Stored { meta, place: Place::Redis }));
        }
        Ok(self.files.get(id).await?.map(|meta| Stored { meta, place: Place::Files }))
    }

    /// The bytes of that name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn bytes(&self, digest: &Digest) -> Result<Option<Bytes>> {
        if let Some(Some(bytes)) = self.ask(|redis| redis.bytes(digest)).await? {
            return Ok(Some(bytes));
        }
        self.files.bytes(digest).await
    }

    /// The image that was drawn from these args.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn find(&self, spec: &str) -> Result<Option<Stored>> {
        if let Some(Some(meta)) = self.ask(|redis| redis.find(spec)).await? {
            return Ok(Some(Stored { meta, place: Place::Redis }));
        }
        Ok(self.files.find(spec).await?.map(|meta| Stored { meta, place: Place::Files }))
    }

    /// Part of the list of all images, or of a symbol's, newest first, from both places.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(&self, symbol: Option<&str>, after: Option<&Cursor>, limit: usize) -> Result<Page> {
        let first = self.ask(|redis| redis.list(symbol, after, limit)).await?.unwrap_or_default();
        let second = self.files.list(symbol, after, limit).await?;
        let more = first.next.is_some() || second.next.is_some();
        let mut images = first.images;
        // An image that moves just now is in both.
        let known: std::collections::HashSet<ImageId> = images.iter().map(|meta| meta.id.clone()).collect();
        images.extend(second.images.into_iter().filter(|meta| !known.contains(&meta.id)));
        images.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        let more = more || images.len() > limit;
        images.truncate(limit);
        let next = if more { images.last().map(ImageMeta::cursor) } else { None };
        Ok(Page { images, next })
    }

    /// Deletes an image wherever it is; false when it is nowhere.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&self, id: &ImageId) -> Result<bool> {
        let first = self.ask(|redis| redis.delete(id)).await?.unwrap_or(false);
        Ok(self.files.delete(id).await? || first)
    }

    /// Deletes every image, or a symbol's, or a symbol's of one interval.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn clear(&self, symbol: Option<&str>, interval: Option<&str>) -> Result<Removed> {
        let mut removed = self.ask(|redis| redis.clear(symbol, interval)).await?.unwrap_or_default();
        removed += self.files.clear(symbol, interval).await?;
        Ok(removed)
    }

    /// Sweeps Redis; `None` when it is away or there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn sweep_redis(&self) -> Result<Option<Removed>> {
        self.ask(RedisImages::sweep).await
    }

    /// Sweeps both.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn sweep(&self) -> Result<Removed> {
        let mut removed = self.sweep_redis().await?.unwrap_or_default();
        removed += self.files.sweep().await?;
        Ok(removed)
    }

    /// Levels and counters of Redis; `None` when it is away or there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn redis_stats(&self) -> Result<Option<Stats>> {
        self.ask(RedisImages::stats).await
    }

    /// Moves what lies on files to Redis, the oldest first; a file goes when Redis has said that
    /// it keeps the image. Answers how many were moved.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn move_back(&self) -> Result<usize> {
        let mut moved = 0;
        loop {
            if self.redis.is_none() || self.files.stats().await?.count == 0 {
                return Ok(moved);
            }
            let images = self.files.oldest(MOVE_SLICE).await?;
            if images.is_empty() {
                return Ok(moved);
            }
            for image in images {
                match self.ask(|redis| redis.put(&image)).await {
                    Ok(Some(_)) | Err(Error::Expired | Error::TooLarge { .. }) => {
                        self.files.moved(&image.id).await?;
                        moved += 1;
                    }
                    Ok(None) => return Ok(moved),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Has [`Images::look_after`] run beside everything else; further calls change nothing.
    pub fn begin(self: Arc<Self>) {
        if !self.begun.swap(true, Ordering::Relaxed) {
            tokio::spawn(async move { self.look_after().await });
        }
    }

    /// Moves files back and sweeps, for as long as the process lives. Several processes may do
    /// so at once.
    pub async fn look_after(&self) {
        let mut sweep_at = Instant::now() + self.jittered();
        loop {
            tokio::time::sleep(MOVE_EVERY).await;
            match self.move_back().await {
                Ok(0) => {}
                Ok(moved) => tracing::info!(moved, "images: moved from files to Redis"),
                Err(error) => tracing::warn!(error = %crate::error::chain(&error), "images: files were not moved"),
            }
            if self.options.cleanup && Instant::now() >= sweep_at {
                sweep_at = Instant::now() + self.jittered();
                match self.sweep().await {
                    Ok(Removed { images: 0, .. }) => {}
                    Ok(removed) => tracing::info!(images = removed.images, bytes = removed.bytes, "images: swept"),
                    Err(error) => tracing::warn!(error = %crate::error::chain(&error), "images: not swept"),
                }
            }
        }
    }

    /// The sweep's interval, up to a tenth longer, so that processes do not sweep at once.
    fn jittered(&self) -> Duration {
        let spread = u32::from(windlass_jobs::new_ulid().to_string().as_bytes()[25]) % 10;
        self.options.cleanup_interval + self.options.cleanup_interval / 100 * spread
    }
}
