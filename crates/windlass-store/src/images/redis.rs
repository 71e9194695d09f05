//! Images on Redis.
//!
//! A put is two steps: the bytes under their own name with a short TTL, then one script that
//! makes an image of them. A process that dies in between leaves bytes that Redis removes by
//! itself, and large values never pass through a script's arguments.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use windlass_jobs::{Timestamp, millis};
use windlass_redis::{Cmd, Link, Script, Value, cmd};

use super::keys::{self, Keys};
use super::model::{Cursor, ImageId, ImageMeta, ImageOptions, NewImage, Page, Removed, Stats};
use crate::{Digest, Error, Result};

/// How long bytes wait for the script that makes an image of them.
const UNCOMMITTED_TTL: Duration = Duration::from_secs(600);
/// How often bytes are set again when they expired before the script came.
const COMMIT_TRIES: usize = 3;
/// Images that one script takes away: 1.2 ms for 100 on a quiet core (2026-11-20).
const SLICE: usize = 100;
/// Most images of one page.
const MAX_PAGE: usize = 500;

/// Images on the Redis of a link of their own. Cheap to clone.
#[derive(Clone)]
pub struct RedisImages {
    pub(super) link: Link,
    pub(super) keys: Keys,
    options: Arc<ImageOptions>,
    scripts: Arc<Scripts>,
}

struct Scripts {
    commit: Script,
    remove: Script,
    sweep: Script,
    read: Script,
}

impl std::fmt::Debug for RedisImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedisImages({:?})", self.link)
    }
}

fn fail(operation: &'static str) -> impl Fn(windlass_redis::Error) -> Error {
    move |source| Error::Redis { operation, source }
}

fn number(value: &Value) -> i64 {
    match value {
        Value::Int(n) => *n,
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok().and_then(|t| t.parse().ok()).unwrap_or(0),
        _ => 0,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::Int(n) => n.to_string(),
        _ => String::new(),
    }
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        // A connection of the third protocol answers maps as maps.
        Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
        _ => Vec::new(),
    }
}

/// Fields and values as Redis lists them.
fn fields(values: Vec<Value>) -> HashMap<String, Value> {
    let mut values = values.into_iter();
    let pairs = std::iter::from_fn(move || Some((text(&values.next()?), values.next()?)));
    pairs.collect()
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn meta(id: &ImageId, fields: &HashMap<String, Value>) -> Option<ImageMeta> {
    let word = |name: &str| fields.get(name).map(text).unwrap_or_default();
    let count = |name: &str| unsigned(fields.get(name).map_or(0, number));
    let at = |name: &str| Timestamp(fields.get(name).map_or(0, number));
    Some(ImageMeta {
        id: id.clone(),
        sha: word("sha").parse().ok()?,
        bytes: count("bytes"),
        thumb: word("thumb").parse().ok(),
        thumb_bytes: count("thumb_bytes"),
        facts: serde_json::from_str(&word("facts")).ok()?,
        created_at: at("created_at"),
        expires_at: at("expires_at"),
    })
}

impl RedisImages {
    /// Images on the Redis of `link`, under `{prefix}:{img}:`.
    #[must_use]
    pub fn new(link: Link, prefix: &str, options: ImageOptions) -> Self {
        let of = |body: &str| Script::new([keys::LUA_NAMES, include_str!("lua/drop.lua"), body].concat());
        let scripts = Scripts {
            commit: of(include_str!("lua/commit.lua")),
            remove: of(include_str!("lua/remove.lua")),
            sweep: of(include_str!("lua/sweep.lua")),
            read: Script::new([keys::LUA_NAMES, include_str!("lua/read.lua")].concat()),
        };
        Self { link, keys: Keys::new(prefix), options: Arc::new(options), scripts: Arc::new(scripts) }
    }

    /// The limits.
    #[must_use]
    pub fn options(&self) -> &ImageOptions {
        &self.options
    }

    /// How it is reached.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// The server, without its password.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.link.shown()
    }

    /// Keeps an image. An id that is known changes nothing.
    ///
    /// # Errors
    /// [`Error::TooLarge`] before anything is written; [`Error::Expired`] when its time is over;
    /// [`Error::Redis`].
    pub async fn put(&self, image: &NewImage) -> Result<ImageMeta> {
        let size = |bytes: &Bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let (bytes, thumb_bytes) = (size(&image.bytes), image.thumb.as_ref().map_or(0, size));
        let max = self.options.max_image_bytes.min(self.options.max_total_bytes);
        if bytes + thumb_bytes > max {
            self.count_refused().await;
            return Err(Error::TooLarge { bytes: bytes + thumb_bytes, max });
        }
        let (sha, thumb) = (Digest::of(&image.bytes), image.thumb.as_ref().map(|thumb| Digest::of(thumb)));
        for _ in 0..COMMIT_TRIES {
            self.set(&sha, &image.bytes).await?;
            if let (Some(digest), Some(bytes)) = (&thumb, &image.thumb) {
                self.set(digest, bytes).await?;
            }
            let reply = self.commit(image, &sha, bytes, thumb.as_ref(), thumb_bytes).await?;
            match reply.first().map(text).as_deref() {
                Some("ok") => {
                    let at = |index: usize| Timestamp(reply.get(index).map_or(0, number));
                    return Ok(ImageMeta {
                        id: image.id.clone(),
                        sha,
                        bytes,
                        thumb,
                        thumb_bytes,
                        facts: image.facts.clone(),
                        created_at: at(1),
                        expires_at: at(2),
                    });
                }
                Some("old") => return Err(Error::Expired),
                // The bytes expired between the two steps.
                _ => {}
            }
        }
        Err(Error::Expired)
    }

    /// Sets bytes that are not there yet; whether they are is asked for with a few bytes only.
    async fn set(&self, digest: &Digest, bytes: &Bytes) -> Result<()> {
        let mut known = cmd("EXISTS");
        known.arg(self.keys.blob(digest));
        if self.link.call(&known).await.map_err(fail("look for an image's bytes"))? == Value::Int(1) {
            return Ok(());
        }
        let mut call = cmd("SET");
        call.arg(self.keys.blob(digest)).arg(&bytes[..]).arg("NX").arg("PX").arg(millis(UNCOMMITTED_TTL));
        self.link.call(&call).await.map(drop).map_err(fail("set an image's bytes"))
    }

    async fn commit(
        &self,
        image: &NewImage,
        sha: &Digest,
        bytes: u64,
        thumb: Option<&Digest>,
        thumb_bytes: u64,
    ) -> Result<Vec<Value>> {
        let options = &self.options;
        let age = image.max_age.map_or(options.max_age, |age| age.min(options.max_age));
        let facts = serde_json::to_string(&image.facts).unwrap_or_default();
        let mut call = self.scripts.commit.on(&self.keys.stat());
        call.arg(image.id.as_str()).arg(sha.hex()).arg(bytes);
        call.arg(thumb.map(Digest::hex).unwrap_or_default()).arg(thumb_bytes);
        call.arg(image.created_at.map_or(0, |at| at.0)).arg(millis(age)).arg(millis(options.cleanup_interval) * 2);
        call.arg(options.max_total_bytes).arg(options.evict.name());
        call.arg(keys::encoded(&image.facts.symbol)).arg(keys::encoded(&image.facts.spec));
        call.arg(millis(options.max_age)).arg("facts").arg(facts);
        let reply = self.scripts.commit.run(&self.link, &call).await.map_err(fail("keep an image"))?;
        Ok(list(reply))
    }

    async fn count_refused(&self) {
        let mut call = cmd("HINCRBY");
        call.arg(self.keys.stat()).arg("refused").arg(1);
        // A count that is lost is no reason to fail.
        let _ = self.link.call(&call).await;
    }

    /// What is known of an image; counts the read.
    ///
    /// # Errors
    /// [`Error::Redis`].
    pub async fn get(&self, id: &ImageId) -> Result<Option<ImageMeta>> {
        let mut call = self.scripts.read.on(&self.keys.stat());
        call.arg(id.as_str()).arg(self.options.evict.name());
        let reply = self.scripts.read.run(&self.link, &call).await.map_err(fail("read an image"))?;
        Ok(meta(id, &fields(list(reply))).filter(|meta| meta.expires_at > Timestamp::now()))
    }

    /// The bytes of that name, checked against it.
    ///
    /// # Errors
    /// [`Error::Redis`].
    pub async fn bytes(&self, digest: &Digest) -> Result<Option<Bytes>> {
        let mut call = cmd("GET");
        call.arg(self.keys.blob(digest));
        let Value::BulkString(bytes) = self.link.call(&call).await.map_err(fail("get an image"))? else {
            return Ok(None);
        };
        Ok((Digest::of(&bytes) == *digest).then(|| bytes.into()))
    }

    /// The image that was drawn from these args.
    ///
    /// # Errors
    /// [`Error::Redis`].
    pub async fn find(&self, spec: &str) -> Result<Option<ImageMeta>> {
        let mut call = cmd("GET");
        call.arg(self.keys.spec(spec));
        let found = self.link.call(&call).await.map_err(fail("find an image"))?;
        match text(&found).parse::<ImageId>() {
            Ok(id) => self.get(&id).await,
            Err(_) => Ok(None),
        }
    }

    /// Part of the list of all images, or of a symbol's, newest first.
    ///
    /// # Errors
    /// [`Error::Redis`].
    pub async fn list(&self, symbol: Option<&str>, after: Option<&Cursor>, limit: usize) -> Result<Page> {
        let limit = limit.clamp(1, MAX_PAGE);
        let ids = self.ids(symbol, after, limit + 1).await?;
        let more = ids.len() > limit;
        let asked = ids.iter().take(limit).map(|(id, _)| self.known(id));
        let mut images = Vec::new();
        let mut gone = Vec::new();
        for (meta, (id, _)) in join_all(asked).await.into_iter().zip(&ids) {
            match meta? {
                Some(meta) => images.push(meta),
                None => gone.push(id.clone()),
            }
        }
        if !gone.is_empty() {
            // Metadata that expired leaves its entries in the indexes behind.
            self.remove(&gone, "").await?;
        }
        let next =
            more.then(|| ids.get(limit - 1).map(|(id, created_ms)| Cursor { created_ms: *created_ms, id: id.clone() }));
        Ok(Page { images, next: next.flatten() })
    }

    /// What is known of an image, without counting a read.
    async fn known(&self, id: &ImageId) -> Result<Option<ImageMeta>> {
        let mut call = cmd("HGETALL");
        call.arg(self.keys.meta(id.as_str()));
        let reply = self.link.call(&call).await.map_err(fail("list images"))?;
        Ok(meta(id, &fields(list(reply))))
    }

    /// Ids with the times they were made, newest first, those of one time by name downwards.
    async fn ids(&self, symbol: Option<&str>, after: Option<&Cursor>, wanted: usize) -> Result<Vec<(ImageId, i64)>> {
        let key = symbol.map_or_else(|| self.keys.age(), |symbol| self.keys.symbol(symbol));
        let from = after.map_or_else(|| "+inf".to_owned(), |after| after.created_ms.to_string());
        let (mut found, mut offset) = (Vec::new(), 0);
        loop {
            let mut call = cmd("ZREVRANGEBYSCORE");
            call.arg(&key).arg(&from).arg("-inf").arg("WITHSCORES").arg("LIMIT").arg(offset).arg(wanted + 8);
            let reply = list(self.link.call(&call).await.map_err(fail("list images"))?);
            let part = reply.len() / 2;
            for pair in reply.chunks_exact(2) {
                let created_ms = text(&pair[1]).parse::<f64>().map_or(0, |score| score as i64);
                let Ok(id) = text(&pair[0]).parse::<ImageId>() else { continue };
                let passed = after.is_some_and(|after| created_ms == after.created_ms && id >= after.id);
                if !passed && found.len() < wanted {
                    found.push((id, created_ms));
                }
            }
            if found.len() >= wanted || part < wanted + 8 {
                return Ok(found);
            }
            offset += part;
        }
    }

    /// Takes images away; `counter` is raised by as many.
    pub(super) async fn remove(&self, ids: &[ImageId], counter: &str) -> Result<Removed> {
        let mut removed = Removed::default();
        for slice in ids.chunks(SLICE) {
            let mut call = self.scripts.remove.on(&self.keys.stat());
            call.arg(counter);
            for id in slice {
                call.arg(id.as_str());
            }
            removed += self.removed(&self.scripts.remove, &call, "delete images").await?.0;
        }
        Ok(removed)
    }

    async fn removed(&self, script: &Script, call: &Cmd, operation: &'static str) -> Result<(Removed, bool)> {
        let reply = list(script.run(&self.link, call).await.map_err(fail(operation))?);
        let n = |index: usize| unsigned(reply.get(index).map_or(0, number));
        Ok((Removed { images: n(0), bytes: n(1) }, n(2) > 0))
    }

    /// Deletes an image; false when it is not there.
    ///
    /// # Errors
    /// [`Error::Redis`].
    pub async fn delete(&self, id: &ImageId) -> Result<bool> {
        Ok(self.remove(std::slice::from_ref(id), "deleted").await?.images > 0)
    }

    /// Deletes every image, or a symbol's, or a symbol's of one interval.
    ///
    /// # Errors
    /// [`Error::Redis`].
    pub async fn clear(&self, symbol: Option<&str>, interval: Option<&str>) -> Result<Removed> {
        let mut removed = Removed::default();
        let mut after: Option<Cursor> = None;
        loop {
            let page = self.list(symbol, after.as_ref(), SLICE).await?;
            let fits = |meta: &&ImageMeta| interval.is_none_or(|interval| meta.facts.interval == interval);
            let ids: Vec<ImageId> = page.images.iter().filter(fits).map(|meta| meta.id.clone()).collect();
            removed += self.remove(&ids, "deleted").await?;
            after = page.next;
            if after.is_none() {
                return Ok(removed);
            }
        }
    }

    /// Takes away what is too old, and what is above the bytes allowed, slice by slice.
    ///
    /// # Errors
    /// [`Error::Redis`]; what was taken away until then stays away.
    pub async fn sweep(&self) -> Result<Removed> {
        let mut all = Removed::default();
        loop {
            let mut call = self.scripts.sweep.on(&self.keys.stat());
            call.arg(millis(self.options.max_age)).arg(SLICE);
            call.arg(self.options.max_total_bytes).arg(self.options.evict.name());
            let (removed, more) = self.removed(&self.scripts.sweep, &call, "sweep images").await?;
            all += removed;
            if !more {
                return Ok(all);
            }
        }
    }

    /// Levels and counters.
    ///
    /// # Errors
    /// [`Error::Redis`].
    pub async fn stats(&self) -> Result<Stats> {
        let end = |reverse: bool| {
            let mut call = cmd(if reverse { "ZREVRANGE" } else { "ZRANGE" });
            call.arg(self.keys.age()).arg(0).arg(0).arg("WITHSCORES");
            call
        };
        let (mut counters, mut count) = (cmd("HGETALL"), cmd("ZCARD"));
        counters.arg(self.keys.stat());
        count.arg(self.keys.age());
        let calls = [counters, count, end(false), end(true)];
        let mut replies = Vec::new();
        for reply in join_all(calls.iter().map(|call| self.link.call(call))).await {
            replies.push(reply.map_err(fail("count images"))?);
        }
        let score = |value: &Value| match value {
            Value::Array(pair) => pair.get(1).and_then(|score| text(score).parse::<f64>().ok()).map(|ms| ms as i64),
            _ => None,
        };
        let (oldest_ms, newest_ms, count) = (score(&replies[2]), score(&replies[3]), number(&replies[1]));
        let stat = fields(list(replies.swap_remove(0)));
        let n = |name: &str| stat.get(name).map_or(0, number);
        Ok(Stats {
            count: unsigned(count),
            bytes: unsigned(n("bytes")),
            oldest_ms,
            newest_ms,
            mean_ms: (count > 0).then(|| n("created_sum") / count),
            puts: unsigned(n("puts")),
            dedup: unsigned(n("dedup")),
            hits: unsigned(n("hits")),
            misses: unsigned(n("misses")),
            evicted_age: unsigned(n("evicted_age")),
            evicted_size: unsigned(n("evicted_size")),
            deleted: unsigned(n("deleted")),
            refused: unsigned(n("refused")),
        })
    }
}
