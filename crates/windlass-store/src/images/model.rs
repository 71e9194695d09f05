//! What an image is, and what a store says about its images.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use windlass_jobs::Timestamp;

use crate::Digest;

/// The name of an image: 26 characters of a ULID, in capitals.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

impl ImageId {
    /// A name that no other image has.
    #[must_use]
    pub fn new() -> Self {
        Self(windlass_jobs::new_ulid().to_string().to_ascii_uppercase())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ImageId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> Self {
        id.0
    }
}

impl TryFrom<String> for ImageId {
    type Error = BadImageId;
    fn try_from(text: String) -> Result<Self, BadImageId> {
        text.parse()
    }
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not 26 letters and digits")]
pub struct BadImageId;

impl FromStr for ImageId {
    type Err = BadImageId;
    fn from_str(text: &str) -> Result<Self, BadImageId> {
        let fits = text.len() == 26 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if fits { Ok(Self(text.to_owned())) } else { Err(BadImageId) }
    }
}

/// What to make room for first when all images together are too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evict {
    /// The oldest.
    #[default]
    Oldest,
    /// Those not read for the longest time.
    Lru,
    /// The largest.
    Largest,
}

impl Evict {
    /// Its name in settings and scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oldest => "oldest",
            Self::Lru => "lru",
            Self::Largest => "largest",
        }
    }
}

impl FromStr for Evict {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Oldest, Self::Lru, Self::Largest].into_iter().find(|evict| evict.name() == text).ok_or(())
    }
}

/// The limits of a store.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageOptions {
    /// How long an image is kept at most. Default 24 h.
    pub max_age: Duration,
    /// Bytes of all images and thumbnails together, equal ones once. Default 1,000 MiB.
    pub max_total_bytes: u64,
    /// The largest image, in bytes. Default 8 MiB.
    pub max_image_bytes: u64,
    /// How often old images are swept. Default 1 h.
    pub cleanup_interval: Duration,
    /// Whether they are swept at all; without it TTLs alone end them. Default true.
    pub cleanup: bool,
    /// What to make room for first. Default the oldest.
    pub evict: Evict,
    /// Bytes of all images on files while Redis is away. Default 1,000 MiB.
    pub max_file_bytes: u64,
}

impl ImageOptions {
    /// Default of [`ImageOptions::max_total_bytes`], in MiB.
    pub const MAX_TOTAL_MB: u64 = 1000;
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(24 * 3600),
            max_total_bytes: Self::MAX_TOTAL_MB << 20,
            max_image_bytes: 8 << 20,
            cleanup_interval: Duration::from_secs(3600),
            cleanup: true,
            evict: Evict::Oldest,
            max_file_bytes: Self::MAX_TOTAL_MB << 20,
        }
    }
}

/// An image to be kept.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// Its name; [`ImageId::new`], or that of an image that moves.
    pub id: ImageId,
    /// The file.
    pub bytes: Bytes,
    /// A smaller picture, if there is one: always PNG.
    pub thumb: Option<Bytes>,
    /// What it shows.
    pub facts: Facts,
    /// When it was made; `None`: now.
    pub created_at: Option<Timestamp>,
    /// How long it is kept; `None`: as long as the store keeps images. Never longer.
    pub max_age: Option<Duration>,
}

/// What an image shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// As exchanges write it: `M&M`, `NIFTY 50`.
    pub symbol: String,
    /// `1d`.
    pub interval: String,
    /// `candle`.
    pub chart_type: String,
    /// `light`.
    pub theme: String,
    /// `png`, `jpeg`, `webp`, `svg`.
    pub format: String,
    /// Of a lossy file.
    pub quality: Option<u8>,
    /// Columns.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
    /// The hash of everything that was asked for; equal ones give equal images.
    pub spec: String,
}

/// What a store knows of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageMeta {
    /// Its name.
    pub id: ImageId,
    /// Its bytes' name.
    pub sha: Digest,
    /// Its size.
    pub bytes: u64,
    /// Its thumbnail's name.
    pub thumb: Option<Digest>,
    /// Its thumbnail's size.
    pub thumb_bytes: u64,
    /// What it shows.
    pub facts: Facts,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it goes.
    pub expires_at: Timestamp,
}

/// Where an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On Redis.
    Redis,
    /// On a file of this machine.
    Files,
}

/// An image that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// What is known of it.
    pub meta: ImageMeta,
    /// Where.
    pub place: Place,
}

/// A place in a list: after the image of this age and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// When it was made, in ms.
    pub created_ms: i64,
    /// Its name.
    pub id: ImageId,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.created_ms, self.id)
    }
}

impl FromStr for Cursor {
    type Err = BadImageId;
    fn from_str(text: &str) -> Result<Self, BadImageId> {
        let (created, id) = text.split_once(':').ok_or(BadImageId)?;
        Ok(Self { created_ms: created.parse().map_err(|_| BadImageId)?, id: id.parse()? })
    }
}

impl ImageMeta {
    /// Its place in a list.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor { created_ms: self.created_at.0, id: self.id.clone() }
    }
}

/// Part of a list, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The images.
    pub images: Vec<ImageMeta>,
    /// Where the next part begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// What a sweep or a deletion took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Images.
    pub images: u64,
    /// Bytes that nothing holds any more.
    pub bytes: u64,
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Self) {
        self.images += other.images;
        self.bytes += other.bytes;
    }
}

/// Levels and counters of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Images there are.
    pub count: u64,
    /// Their bytes and those of their thumbnails, equal ones once.
    pub bytes: u64,
    /// When the oldest was made, in ms.
    pub oldest_ms: Option<i64>,
    /// When the newest was made, in ms.
    pub newest_ms: Option<i64>,
    /// The mean of those times, in ms.
    pub mean_ms: Option<i64>,
    /// Images ever kept.
    pub puts: u64,
    /// Of those, whose bytes were there already.
    pub dedup: u64,
    /// Reads that found an image.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Images that grew too old.
    pub evicted_age: u64,
    /// Images that made room for others.
    pub evicted_size: u64,
    /// Images that were deleted.
    pub deleted: u64,
    /// Images that were too large.
    pub refused: u64,
}
