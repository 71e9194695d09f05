//! Images: charts that were drawn, named by an id, kept once by their bytes, bounded by age
//! and by size.
//!
//! [`RedisImages`] is the store, [`FileImages`] its twin while Redis is away, [`Images`] both
//! of them behind a breaker, with the mover that brings files back; [`OldFolder`] reads what
//! a former system left on disk. Counters are kept by the scripts that write, never counted.

mod breaker;
mod files;
mod keys;
mod model;
mod old;
mod redis;
mod tiered;
mod verify;

pub use files::FileImages;
pub use model::{
    BadImageId, Cursor, Evict, Facts, ImageId, ImageMeta, ImageOptions, NewImage, Page, Place, Removed, Stats, Stored,
};
pub use old::{OldFile, OldFolder};
pub use redis::RedisImages;
pub use tiered::{Health, Images};
pub use verify::Verified;
